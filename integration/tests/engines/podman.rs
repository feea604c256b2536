//! podman and conmon, as root with netavark's bridge, and as a user with a systemd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use creel_integration::engine::cgroup;
use creel_integration::engine::command::Call;
use creel_integration::engine::harness::{Case, Engine, Ground, Report, Skip, program};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::runtime::{Recorder, Runtime};
use creel_integration::engine::sandbox::Sandbox;
use creel_integration::{Owner, ids};

use crate::client::{Client, DEADLINE};
use crate::{lifecycle, settings};

/// podman has no daemon; what is started is a sandbox with its configuration and image store.
pub struct Podman {
    sandbox: Sandbox,
    runtime: Runtime,
    recorder: Recorder,
}

impl Podman {
    fn start(ground: &Ground) -> Result<Self> {
        Self::start_in(ground, Sandbox::start("podman")?)
    }

    fn start_rootless(ground: &Ground) -> Result<Self> {
        let user = ids::with_systemd().filter(|_| Owner::under_test() == Owner::Systemd);
        let user = user.ok_or_else(|| Skip::new("no user with a systemd that makes the cgroups"))?;
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Err(Skip::new("podman makes no cgroups for a user with cgroup v1"));
        }
        Self::start_in(ground, Sandbox::start_for(Some(user), "rootless")?)
    }

    fn start_in(ground: &Ground, sandbox: Sandbox) -> Result<Self> {
        let recorder = Recorder::install(&sandbox, &ground.runtime)?;
        let config = include_str!("containers.conf")
            .replace("@NAME@", &ground.runtime.name())
            .replace("@MANAGER@", if sandbox.has_systemd() { "systemd" } else { "cgroupfs" });
        fs::write(sandbox.outside(&sandbox.inside("containers.conf")), config)?;
        let images = sandbox.inside("images.tar");
        fs::copy(ground.images.path(), sandbox.outside(&images))?;
        let up = Self { sandbox, runtime: ground.runtime.clone(), recorder };
        up.client(&["load", "--input", &images.display().to_string()]).ok()?;
        Ok(up)
    }

    /// `--cgroup-parent`: a slice's name has no slash.
    fn parent(&self) -> String {
        let slash = if self.sandbox.has_systemd() { "" } else { "/" };
        format!("{slash}{}", self.sandbox.cgroup())
    }

    fn podman_with(&self, runtime: &Path, words: &[&str]) -> Call {
        let runtime = runtime.display().to_string();
        let call =
            self.sandbox.call(&["podman", "--root", "/run/engine/store", "--runroot", "/run/engine/run"]);
        call.args(&["--tmpdir", "/run/engine/libpod", "--storage-driver", "overlay", "--runtime", &runtime])
            .args(words)
    }
}

impl Client for Podman {
    fn client(&self, words: &[&str]) -> Call {
        self.podman_with(self.runtime.path(), words)
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Call {
        let call = self.client(&["run", "--pull", "never", "--cgroup-parent", &self.parent()]);
        call.args(options).args(&[BUSYBOX]).args(command)
    }

    /// podman 4.3 may find its own shm mount busy, see containers/podman issue 11594; the next try passes.
    fn remove(&self, name: &str) -> Result<()> {
        self.sandbox.until("removal", DEADLINE, || {
            let output = self.client(&["rm", "--force", "--time", "0", name]).output()?;
            ensure!(output.code == 0 || output.stderr.contains("device or resource busy"), "{output}");
            Ok(output.code == 0)
        })
    }
}

impl Engine for Podman {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// conmon passes no `--root`: the runtime's own default is used.
    fn state_roots(&self) -> Vec<PathBuf> {
        let run = self.sandbox.user().map_or("/run".to_owned(), |uid| format!("/run/user/{uid}"));
        [&self.runtime.name(), "creel", "runc"].map(|name| Path::new(&run).join(name)).to_vec()
    }

    /// The cgroups of all conmons and all containers, and the bind mounts of the image store and of named
    /// network namespaces.
    fn keeps(&self, line: &str) -> bool {
        let top = self.sandbox.cgroup();
        line.starts_with("cgroup ") && (line.ends_with(top) || line.ends_with(&format!("{top}/conmon")))
            || line.starts_with("mount ")
                && (line.ends_with(" /run/engine/store/overlay") || line.ends_with(" /run/netns"))
    }

    fn log(&self) -> String {
        String::new()
    }

    fn stop(self) -> Result<()> {
        let left = self.client(&["ps", "--all", "--quiet"]).ok()?;
        ensure!(left.said().is_empty(), "podman still knows containers: {left}");
        // Ends the process that holds a user's namespaces.
        self.client(&["system", "migrate"]).ok()?;
        self.sandbox.stop()
    }
}

pub fn suite(report: &mut Report, ground: &Ground) {
    report.suite("podman", ground, &["podman", "conmon", "netavark", "iptables"], Podman::start, &CASES);
    let programs = ["podman", "conmon", "newuidmap"];
    report.suite("rootless podman", ground, &programs, Podman::start_rootless, &ROOTLESS);
}

const ROOTLESS: [Case<Podman>; 20] = [
    Case { name: "run passes output and exit code", run: lifecycle::foreground },
    Case { name: "exit codes 125, 126 and 127", run: lifecycle::start_failures },
    Case { name: "run on a terminal", run: lifecycle::terminal },
    Case { name: "detached, logs, wait, rm", run: lifecycle::logs },
    Case { name: "exec passes output and exit code", run: lifecycle::exec },
    Case { name: "exec on a terminal", run: lifecycle::exec_terminal },
    Case { name: "exec with user, environment and directory", run: lifecycle::exec_settings },
    Case { name: "stop sends the signal, then insists", run: lifecycle::stop },
    Case { name: "restart", run: lifecycle::restart },
    Case { name: "kill delivers the signal asked for", run: lifecycle::kill },
    Case { name: "pause freezes and unpause thaws", run: lifecycle::pause },
    Case { name: "stats and top", run: stats_and_top },
    Case { name: "limits reach the cgroup", run: settings::limits },
    Case { name: "limits kill, throttle and refuse", run: settings::limits_hold },
    Case { name: "update changes the limits", run: update },
    Case { name: "read-only root file system, tmpfs, shm size", run: settings::read_only },
    Case { name: "user with additional groups", run: settings::user },
    Case { name: "capabilities and no new privileges", run: settings::capabilities },
    Case { name: "the default seccomp profile is in force", run: settings::seccomp },
    Case { name: "private cgroup namespace", run: settings::cgroup_namespace },
];

const CASES: [Case<Podman>; 29] = [
    Case { name: "run passes output and exit code", run: lifecycle::foreground },
    Case { name: "exit codes 125, 126 and 127", run: lifecycle::start_failures },
    Case { name: "run on a terminal", run: lifecycle::terminal },
    Case { name: "detached, logs, wait, rm", run: lifecycle::logs },
    Case { name: "exec passes output and exit code", run: lifecycle::exec },
    Case { name: "exec on a terminal", run: lifecycle::exec_terminal },
    Case { name: "exec with user, environment and directory", run: lifecycle::exec_settings },
    Case { name: "stop sends the signal, then insists", run: lifecycle::stop },
    Case { name: "restart", run: lifecycle::restart },
    Case { name: "kill delivers the signal asked for", run: lifecycle::kill },
    Case { name: "pause freezes and unpause thaws", run: lifecycle::pause },
    Case { name: "stats and top", run: stats_and_top },
    Case { name: "limits reach the cgroup", run: settings::limits },
    Case { name: "limits kill, throttle and refuse", run: settings::limits_hold },
    Case { name: "update changes the limits", run: update },
    Case { name: "read-only root file system, tmpfs, shm size", run: settings::read_only },
    Case { name: "user namespace with id maps", run: id_maps },
    Case { name: "user with additional groups", run: settings::user },
    Case { name: "volumes, also read-only", run: settings::volume },
    Case { name: "capabilities and no new privileges", run: settings::capabilities },
    Case { name: "the default seccomp profile is in force", run: settings::seccomp },
    Case { name: "private cgroup namespace", run: settings::cgroup_namespace },
    Case { name: "host name, directory, ulimit, sysctl, device", run: settings::process_settings },
    Case { name: "host namespaces", run: settings::host_namespaces },
    Case { name: "namespaces of another container", run: settings::shared_namespaces },
    Case { name: "init is the first process", run: init },
    Case { name: "bridge network and published port", run: settings::bridge },
    Case { name: "copy into and out of a running container", run: copy },
    Case { name: "conmon's own calls are accepted", run: recorded },
];

fn update(up: &Podman) -> Result<()> {
    if up.client(&["update", "--help"]).output()?.code != 0 {
        return Err(Skip::new("this podman has no update command"));
    }
    settings::update(up)
}

fn stats_and_top(up: &Podman) -> Result<()> {
    cgroup::need("memory")?;
    up.sleeper("stats", &["--memory", "64m"])?;
    let format = "{{.Name}} {{.PIDs}} {{.MemUsage}}";
    let stats = up.client(&["stats", "--no-stream", "--format", format, "stats"]).ok()?;
    ensure!(stats.said().starts_with("stats 1 ") && stats.said().contains("67.11MB"), "{stats}");
    up.client(&["top", "stats", "pid", "comm"]).ok()?.mentions("sleep")?;
    up.remove("stats")
}

fn id_maps(up: &Podman) -> Result<()> {
    let options = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script =
        "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; touch /file && stat -c %u /file";
    let output = up.run_once(&options, &["sh", "-c", script]).ok()?;
    let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
    ensure!(lines == ["0", "0 100000 65536", "0 200000 65536", "0"], "{output}");

    let pid = up.sleeper("id-maps", &options)?;
    up.exec("id-maps", &[], &["id", "-u"]).ok()?.says("0")?;
    let status = fs::read_to_string(up.sandbox.process(pid).join("status"))?;
    ensure!(status.contains("Uid:\t100000\t"), "host's view of the process: {status}");
    up.remove("id-maps")
}

fn init(up: &Podman) -> Result<()> {
    let Some(path) = program("catatonit").or_else(|| program("docker-init")) else {
        return Err(Skip::new("neither catatonit nor docker-init is installed"));
    };
    let path = path.display().to_string();
    let options = ["--init", "--init-path", &path];
    let output = up.run_once(&options, &["sh", "-c", "cat /proc/1/comm; echo $$; exit 6"]).exits(6)?;
    let mut lines = output.stdout.lines();
    ensure!(lines.next().is_some_and(|comm| comm != "sh") && lines.next() != Some("1"), "{output}");
    Ok(())
}

fn copy(up: &Podman) -> Result<()> {
    up.sleeper("copy", &[])?;
    let file = up.sandbox.inside("copied");
    fs::write(up.sandbox.outside(&file), "copied\n")?;
    let path = file.display().to_string();
    up.client(&["cp", &path, "copy:/tmp/there"]).ok()?;
    up.exec("copy", &[], &["cat", "/tmp/there"]).ok()?.says("copied")?;
    let back = format!("{path}.back");
    up.client(&["cp", "copy:/tmp/there", &back]).ok()?;
    ensure!(fs::read_to_string(up.sandbox.outside(Path::new(&back)))? == "copied\n", "what came back");
    up.remove("copy")
}

/// conmon's and podman's flags, seen on their way and answered with exit code 0.
fn recorded(up: &Podman) -> Result<()> {
    let podman = |words: &[&str]| up.podman_with(up.recorder.path(), words);
    let parent = up.parent();
    let run = ["run", "--detach", "--network", "none", "--name", "recorded", "--cgroup-parent", &parent];
    podman(&run).args(&[BUSYBOX, "sleep", "1000"]).ok()?;
    podman(&["exec", "recorded", "true"]).ok()?;
    podman(&["exec", "--interactive", "--tty", "recorded", "true"]).on_terminal().ok()?;
    podman(&["pause", "recorded"]).ok()?;
    podman(&["unpause", "recorded"]).ok()?;
    podman(&["stop", "--time", "0", "recorded"]).ok()?;
    podman(&["rm", "recorded"]).ok()?;

    let calls = up.recorder.calls(&up.sandbox)?;
    let expected = ["create", "start", "exec", "pause", "resume", "kill", "delete"];
    for command in expected {
        ensure!(calls.iter().any(|call| call.has(&[command])), "no {command} in {calls:?}");
    }
    for flag in ["--bundle", "--pid-file", "--process", "--console-socket", "--detach", "--force"] {
        ensure!(calls.iter().any(|call| call.has(&[flag])), "no {flag} in {calls:?}");
    }
    for call in &calls {
        ensure!(call.code == 0, "refused: {call:?}");
        ensure!(!call.has(&["--root"]), "conmon passed --root: {call:?}");
    }
    Ok(())
}
