//! buildah: each RUN of a Containerfile is a container of the runtime under test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use creel_integration::engine::command::Call;
use creel_integration::engine::harness::{Case, Engine, Ground, Report};
use creel_integration::engine::image;
use creel_integration::engine::runtime::{Recorder, Runtime};
use creel_integration::engine::sandbox::Sandbox;

/// buildah has no daemon either; the build context holds a root file system, so that nothing is pulled.
pub struct Buildah {
    sandbox: Sandbox,
    runtime: Runtime,
    recorder: Recorder,
    context: PathBuf,
}

impl Buildah {
    fn start(ground: &Ground) -> Result<Self> {
        let sandbox = Sandbox::start("buildah")?;
        let recorder = Recorder::install(&sandbox, &ground.runtime)?;
        let config = include_str!("containers.conf").replace("@NAME@", &ground.runtime.name());
        fs::write(sandbox.outside(&sandbox.inside("containers.conf")), config)?;
        let context = sandbox.inside("context");
        image::fill(&sandbox.outside(&context.join("rootfs")))?;
        Ok(Self { sandbox, runtime: ground.runtime.clone(), recorder, context })
    }

    fn buildah(&self, words: &[&str]) -> Call {
        let call =
            self.sandbox.call(&["buildah", "--root", "/run/engine/store", "--runroot", "/run/engine/run"]);
        call.args(&["--storage-driver", "overlay"]).args(words)
    }

    fn build(&self, runtime: &Path, steps: &str, options: &[&str]) -> Result<Call> {
        let text = format!("FROM scratch\nCOPY rootfs /\nENV PATH=/bin\n{steps}\n");
        fs::write(self.sandbox.outside(&self.context.join("Containerfile")), text)?;
        let runtime = runtime.display().to_string();
        let parent = format!("/{}", self.sandbox.cgroup());
        let context = self.context.display().to_string();
        let call =
            self.buildah(&["bud", "--runtime", &runtime, "--isolation", "oci", "--cgroup-parent", &parent]);
        // Without limits of its own a build asks for more open files than root may give here.
        let call =
            call.args(&["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"]);
        Ok(call.args(options).args(&[&context]))
    }
}

impl Engine for Buildah {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// buildah passes no `--root`: the runtime's own default is used.
    fn state_roots(&self) -> Vec<PathBuf> {
        vec![
            Path::new("/run").join(self.runtime.name()),
            PathBuf::from("/run/creel"),
            PathBuf::from("/run/runc"),
        ]
    }

    /// The parent of the containers' cgroups, and the bind mount of the image store.
    fn keeps(&self, line: &str) -> bool {
        line.starts_with("cgroup ") && line.ends_with(self.sandbox.cgroup())
            || line.starts_with("mount ") && line.ends_with(" /run/engine/store/overlay")
    }

    fn log(&self) -> String {
        String::new()
    }

    fn stop(self) -> Result<()> {
        self.sandbox.stop()
    }
}

pub fn suite(report: &mut Report, ground: &Ground) {
    report.suite("buildah", ground, &["buildah"], Buildah::start, &CASES);
}

const CASES: [Case<Buildah>; 4] = [
    Case { name: "RUN steps see each other's files", run: steps },
    Case { name: "a failing RUN fails the build", run: failure },
    Case { name: "RUN with user, directory and volume", run: settings },
    Case { name: "buildah's own calls are accepted", run: recorded },
];

fn steps(up: &Buildah) -> Result<()> {
    let steps = "RUN echo one > /made\nRUN echo two >> /made && cat /made && id -u";
    up.build(up.runtime.path(), steps, &["--tag", "built"])?.ok()?.mentions("one\ntwo\n0")?;
    let container = up.buildah(&["from", "--pull-never", "localhost/built"]).ok()?.said().to_owned();
    let mounted = up.buildah(&["mount", &container]).ok()?.said().to_owned();
    let made = up.sandbox.call(&["cat", &format!("{mounted}/made")]).ok()?;
    ensure!(made.said() == "one\ntwo", "in the image: {made}");
    up.buildah(&["umount", &container]).ok()?;
    up.buildah(&["rm", &container]).ok()?;
    Ok(())
}

fn failure(up: &Buildah) -> Result<()> {
    let output = up.build(up.runtime.path(), "RUN echo before; exit 7", &[])?.output()?;
    ensure!(output.code == 7, "{output}");
    output.mentions("before")?;
    Ok(())
}

fn settings(up: &Buildah) -> Result<()> {
    let source = up.sandbox.inside("volume");
    fs::create_dir(up.sandbox.outside(&source))?;
    fs::write(up.sandbox.outside(&source.join("file")), "from outside\n")?;
    let volume = format!("{}:/mnt/volume:ro", source.display());
    let steps = "USER user\nWORKDIR /tmp\nRUN id -u; pwd; cat /mnt/volume/file; ! touch /mnt/volume/new";
    let output = up.build(up.runtime.path(), steps, &["--volume", &volume])?.ok()?;
    output.mentions("1000\n/tmp\nfrom outside")?.mentions("Read-only file system")?;
    Ok(())
}

fn recorded(up: &Buildah) -> Result<()> {
    up.build(up.recorder.path(), "RUN true", &["--no-cache"])?.ok()?;
    let calls = up.recorder.calls(&up.sandbox)?;
    for command in ["create", "start", "state", "delete"] {
        ensure!(calls.iter().any(|call| call.has(&[command])), "no {command} in {calls:?}");
    }
    for call in &calls {
        // buildah asks for the state until the container is gone, and kills what it has stopped.
        let may_fail = call.has(&["state"]) || call.has(&["kill"]);
        ensure!(call.code == 0 || may_fail, "refused: {call:?}");
    }
    Ok(())
}
