//! dockerd with the runtime under test as an additional runtime, on its own bridge.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use creel_integration::engine::cgroup;
use creel_integration::engine::command::Call;
use creel_integration::engine::daemon::Daemon;
use creel_integration::engine::harness::{Case, Engine, Ground, Report, Skip, need_capability, program};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::runtime::Recorder;
use creel_integration::engine::sandbox::Sandbox;

use crate::client::{Client, DEADLINE};
use crate::{lifecycle, settings};

const CAP_SYS_RESOURCE: u32 = 24;

/// A dockerd of our own.
pub struct Docker {
    sandbox: Sandbox,
    recorder: Recorder,
    daemon: Daemon,
}

impl Docker {
    fn start(ground: &Ground) -> Result<Self> {
        let sandbox = Sandbox::start("docker")?;
        let recorder = Recorder::install(&sandbox, &ground.runtime)?;
        let config = serde_json::json!({
            "data-root": "/run/engine/data",
            "exec-root": "/run/engine/exec",
            "pidfile": "/run/engine/docker.pid",
            "hosts": [SOCKET],
            "storage-driver": "overlay2",
            "cgroup-parent": if sandbox.has_systemd() { "" } else { "/" }.to_owned() + sandbox.cgroup(),
            "exec-opts": [if sandbox.has_systemd() { SYSTEMD_DRIVER } else { CGROUPFS_DRIVER }],
            "runtimes": {
                "tested": { "path": ground.runtime.path() },
                "recorded": { "path": recorder.path() },
            },
        });
        let file = sandbox.inside("docker.json");
        fs::write(sandbox.outside(&file), config.to_string())?;
        let images = sandbox.inside("images.tar");
        fs::copy(ground.images.path(), sandbox.outside(&images))?;
        let file = file.display().to_string();
        let daemon = Daemon::start("dockerd", &sandbox.call(&["dockerd", "--config-file", &file]))?;
        daemon.line_with("API listen on", DEADLINE)?;
        let up = Self { sandbox, recorder, daemon };
        up.client(&["load", "--input", &images.display().to_string()]).ok()?;
        Ok(up)
    }

    fn run_with(&self, runtime: &str, options: &[&str], command: &[&str]) -> Call {
        let call = self.client(&["run", "--pull", "never", "--runtime", runtime]);
        call.args(options).args(&[BUSYBOX]).args(command)
    }
}

impl Client for Docker {
    /// The distribution's client: another one may come first in PATH.
    fn client(&self, words: &[&str]) -> Call {
        self.sandbox.call(&["/usr/bin/docker", "--host", SOCKET]).args(words)
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Call {
        self.run_with("tested", options, command)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.client(&["rm", "--force", name]).ok()?;
        Ok(())
    }
}

const SYSTEMD_DRIVER: &str = "native.cgroupdriver=systemd";
const CGROUPFS_DRIVER: &str = "native.cgroupdriver=cgroupfs";
const SOCKET: &str = "unix:///run/engine/docker.sock";

impl Engine for Docker {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// dockerd gives runtimes a directory below its exec root, by version its default's or one each;
    /// containerd adds the namespace.
    fn state_roots(&self) -> Vec<PathBuf> {
        vec![
            PathBuf::from("/run/engine/exec/runtime-tested/moby"),
            PathBuf::from("/run/engine/exec/runtime-recorded/moby"),
            PathBuf::from("/run/engine/exec/runtime-runc/moby"),
        ]
    }

    /// The parent of the containers' cgroups, and the host's network namespace once it was used.
    fn keeps(&self, line: &str) -> bool {
        line.starts_with("cgroup ") && line.ends_with(self.sandbox.cgroup())
            || line.starts_with("mount ") && line.ends_with(" /run/engine/exec/netns/default")
    }

    fn log(&self) -> String {
        self.daemon.tail()
    }

    fn stop(self) -> Result<()> {
        self.daemon.stop(DEADLINE)?;
        self.sandbox.stop()
    }
}

pub fn suite(report: &mut Report, ground: &Ground) {
    report.suite("docker", ground, &["dockerd", "docker", "containerd", "iptables"], Docker::start, &CASES);
}

const CASES: [Case<Docker>; 31] = [
    Case { name: "info names the runtime", run: info },
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
    Case { name: "update changes the limits", run: settings::update },
    Case { name: "a container out of memory is reported", run: out_of_memory },
    Case { name: "healthcheck becomes healthy", run: healthcheck },
    Case { name: "init is the first process", run: init },
    Case { name: "capabilities and no new privileges", run: settings::capabilities },
    Case { name: "the default seccomp profile is in force", run: settings::seccomp },
    Case { name: "private cgroup namespace", run: settings::cgroup_namespace },
    Case { name: "read-only root file system, tmpfs, shm size", run: settings::read_only },
    Case { name: "volumes, also read-only", run: settings::volume },
    Case { name: "user with additional groups", run: settings::user },
    Case { name: "host name, directory, ulimit, sysctl, device", run: settings::process_settings },
    Case { name: "host namespaces", run: settings::host_namespaces },
    Case { name: "namespaces of another container", run: settings::shared_namespaces },
    Case { name: "bridge network and published port", run: settings::bridge },
    Case { name: "privileged", run: privileged },
    Case { name: "docker's own calls are accepted", run: recorded },
];

fn info(up: &Docker) -> Result<()> {
    up.client(&["info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"])
        .ok()?
        .mentions("tested")?;
    Ok(())
}

fn stats_and_top(up: &Docker) -> Result<()> {
    cgroup::need("memory")?;
    up.sleeper("stats", &["--memory", "64m"])?;
    let format = "{{.Name}} {{.PIDs}} {{.MemUsage}}";
    let stats = up.client(&["stats", "--no-stream", "--format", format, "stats"]).ok()?;
    ensure!(stats.said().starts_with("stats 1 ") && stats.said().ends_with("64MiB"), "{stats}");
    up.client(&["top", "stats"]).ok()?.mentions("sleep 1000")?;
    up.remove("stats")
}

/// The shim watches the cgroup the runtime made for it.
fn out_of_memory(up: &Docker) -> Result<()> {
    cgroup::need("memory")?;
    let options = ["--network", "none", "--name", "oom", "--memory", "16m", "--memory-swap", "16m"];
    up.run(&options, &["tail", "/dev/zero"]).exits(137)?;
    ensure!(up.inspect("oom", "{{.State.OOMKilled}}")? == "true", "OOMKilled is not set");
    up.remove("oom")
}

fn healthcheck(up: &Docker) -> Result<()> {
    let filter = ["events", "--filter", "container=healthy", "--filter", "event=health_status"];
    let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "60"];
    up.run_detached("healthy", &options, &["sh", "-c", "touch /tmp/well; exec sleep 1000"])?;
    let events = Daemon::start("docker events", &up.client(&filter).args(&["--since", "1m"]))?;
    events.line_with("health_status: healthy", DEADLINE)?;
    ensure!(up.inspect("healthy", "{{.State.Health.Status}}")? == "healthy", "health in inspect");
    events.stop(DEADLINE)?;
    up.remove("healthy")
}

fn init(up: &Docker) -> Result<()> {
    if program("docker-init").is_none() {
        return Err(Skip::new("docker-init is not installed (package tini)"));
    }
    let output = up.run_once(&["--init"], &["sh", "-c", "cat /proc/1/comm; echo $$; exit 6"]).exits(6)?;
    let mut lines = output.stdout.lines();
    ensure!(lines.next() == Some("docker-init") && lines.next() != Some("1"), "{output}");
    Ok(())
}

fn privileged(up: &Docker) -> Result<()> {
    need_capability(CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE, which docker adds to a privileged container")?;
    let call = up.run_once(&["--privileged"], &["sh", "-c", "mount -t tmpfs tmpfs /tmp && echo mounted"]);
    call.ok()?.says("mounted")?;
    Ok(())
}

/// docker's path is go-runc's, with a runtime root of its own.
fn recorded(up: &Docker) -> Result<()> {
    let options = ["--detach", "--network", "none", "--name", "recorded", "--memory", "64m"];
    up.run_with("recorded", &options, &["sleep", "1000"]).ok()?;
    up.exec("recorded", &[], &["true"]).ok()?;
    up.client(&["pause", "recorded"]).ok()?;
    up.client(&["unpause", "recorded"]).ok()?;
    up.client(&["top", "recorded"]).ok()?;
    up.client(&["update", "--cpus", "0.5", "recorded"]).ok()?;
    up.client(&["stop", "--time", "0", "recorded"]).ok()?;
    up.client(&["rm", "recorded"]).ok()?;

    let calls = up.recorder.calls(&up.sandbox)?;
    for command in ["create", "start", "exec", "pause", "resume", "update", "kill", "delete"] {
        ensure!(calls.iter().any(|call| call.has(&[command])), "no {command} in {calls:?}");
    }
    ensure!(
        calls.iter().any(|call| call.has(&["update", "--resources"])),
        "update reads no JSON in {calls:?}"
    );
    for call in &calls {
        // dockerd has a second shim delete what the first may just be deleting.
        ensure!(call.code == 0 || call.has(&["delete", "--force"]), "refused: {call:?}");
        let asks = call.has(&["--version"]) || call.has(&["features"]);
        let root = call.args.iter().any(|word| word.starts_with("/run/engine/exec/runtime-"));
        ensure!(asks || root && call.has(&["--log-format", "json"]), "not go-runc's: {call:?}");
    }
    Ok(())
}
