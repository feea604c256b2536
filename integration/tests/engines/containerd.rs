//! containerd and its shim, driven by ctr(8) with the overlayfs snapshotter.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use creel_integration::engine::cgroup::{self, MEMORY, OOM_KILLS, THROTTLED};
use creel_integration::engine::command::Call;
use creel_integration::engine::daemon::Daemon;
use creel_integration::engine::harness::{Case, Engine, Ground, Report, need_capability};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::runtime::{Recorder, Runtime};
use creel_integration::engine::sandbox::Sandbox;

use crate::lifecycle::{TALK, talk};

const DEADLINE: Duration = Duration::from_secs(20);
const CAP_SYS_RESOURCE: u32 = 24;

/// A containerd of our own. The CRI plugin knows the runtime under test as its default handler.
pub struct Containerd {
    /// Where it runs.
    pub sandbox: Sandbox,
    /// What it runs.
    pub runtime: Runtime,
    /// What it runs when the calls are to be seen.
    pub recorder: Recorder,
    daemon: Daemon,
}

impl Containerd {
    /// Start the daemon and import the images into `namespace`.
    pub fn start(ground: &Ground, sandbox: Sandbox, namespace: &str) -> Result<Self> {
        let recorder = Recorder::install(&sandbox, &ground.runtime)?;
        let config = sandbox.inside("containerd.toml");
        let text = include_str!("containerd.toml")
            .replace("@RUNTIME@", &ground.runtime.path().display().to_string())
            .replace("@RECORDER@", &recorder.path().display().to_string())
            .replace("@SYSTEMD@", if sandbox.has_systemd() { "true" } else { "false" });
        fs::write(sandbox.outside(&config), text)?;
        let images = sandbox.inside("images.tar");
        fs::copy(ground.images.path(), sandbox.outside(&images))?;
        let config = config.display().to_string();
        let daemon = Daemon::start("containerd", &sandbox.call(&["containerd", "--config", &config]))?;
        daemon.line_with("containerd successfully booted", DEADLINE)?;
        let up = Self { sandbox, runtime: ground.runtime.clone(), recorder, daemon };
        up.ctr(namespace, &["images", "import", &images.display().to_string()]).ok()?;
        Ok(up)
    }

    /// The socket, as the sandbox sees it.
    pub fn socket(&self) -> PathBuf {
        self.sandbox.inside("containerd.sock")
    }

    fn ctr(&self, namespace: &str, words: &[&str]) -> Call {
        let socket = self.socket().display().to_string();
        self.sandbox.call(&["ctr", "--address", &socket, "--namespace", namespace]).args(words)
    }

    /// ctr puts a container's cgroup below a directory named after the namespace.
    fn client(&self, words: &[&str]) -> Call {
        self.ctr(self.sandbox.cgroup(), words)
    }

    fn run(&self, id: &str, options: &[&str], command: &[&str]) -> Call {
        self.run_by(&self.runtime.path().display().to_string(), id, options, command)
    }

    fn run_by(&self, runtime: &str, id: &str, options: &[&str], command: &[&str]) -> Call {
        let mut call = self.client(&["run", "--snapshotter", "overlayfs", "--runc-binary", runtime]);
        if self.sandbox.has_systemd() {
            let path = format!("{}:ctr:{id}", self.sandbox.cgroup());
            call = call.args(&["--runc-systemd-cgroup", "--cgroup", &path]);
        }
        call.args(options).args(&[BUSYBOX, id]).args(command)
    }

    fn run_detached(&self, id: &str, options: &[&str], command: &[&str]) -> Result<u32> {
        self.run(id, &[&["--detach"], options].concat(), command).ok()?;
        let line = self.task(id)?.context("no task after run --detach")?;
        let pid = line.get(1).context("no PID column")?;
        pid.parse().with_context(|| format!("PID column {pid:?}"))
    }

    /// A container that waits for its end.
    fn sleeper(&self, id: &str, options: &[&str]) -> Result<u32> {
        let pid = self.run_detached(id, options, &["sleep", "1000"])?;
        self.sandbox.until_running(pid, "sleep")?;
        Ok(pid)
    }

    fn exec(&self, id: &str, options: &[&str], command: &[&str]) -> Call {
        let call = self.client(&["task", "exec", "--exec-id", "probe"]);
        call.args(options).args(&[id]).args(command)
    }

    /// The columns TASK, PID and STATUS of a task.
    fn task(&self, id: &str) -> Result<Option<Vec<String>>> {
        let list = self.client(&["task", "list"]).ok()?;
        let mut rows =
            list.stdout.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        Ok(rows.find(|row| row.first().is_some_and(|name| name == id)))
    }

    fn wait_for_status(&self, id: &str, status: &str) -> Result<()> {
        self.sandbox.until(&format!("{id} {status}"), DEADLINE, || {
            Ok(self.task(id)?.is_some_and(|row| row.get(2).is_some_and(|found| found == status)))
        })
    }

    /// Kill it, and see the exit status that the shim reaped.
    fn remove(&self, id: &str) -> Result<()> {
        self.client(&["task", "kill", "--signal", "SIGKILL", id]).ok()?;
        self.wait_for_status(id, "STOPPED")?;
        self.client(&["task", "delete", id]).ok()?.mentions("137")?;
        self.client(&["container", "delete", id]).ok()?;
        Ok(())
    }
}

impl Engine for Containerd {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn state_roots(&self) -> Vec<PathBuf> {
        let name = self.sandbox.cgroup();
        vec![PathBuf::from("/run/containerd/runc").join(name), PathBuf::from("/run/containerd/runc/k8s.io")]
    }

    /// The parent of the containers' cgroups, which the runtime makes and nobody removes.
    fn keeps(&self, line: &str) -> bool {
        line.starts_with("cgroup ") && line.ends_with(self.sandbox.cgroup())
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
    let start = |ground: &Ground| {
        let sandbox = Sandbox::start("containerd")?;
        let namespace = sandbox.cgroup().to_owned();
        Containerd::start(ground, sandbox, &namespace)
    };
    report.suite("containerd", ground, &["containerd", "containerd-shim-runc-v2", "ctr"], start, &CASES);
}

const CASES: [Case<Containerd>; 23] = [
    Case { name: "foreground run passes output and exit code", run: foreground },
    Case { name: "missing executable is named and leaves nothing", run: missing_executable },
    Case { name: "detached run lives until it is killed", run: detached },
    Case { name: "run on a terminal", run: terminal },
    Case { name: "exec passes output and exit code", run: exec },
    Case { name: "exec on a terminal", run: exec_terminal },
    Case { name: "exec with user and working directory", run: exec_user },
    Case { name: "pause freezes and resume thaws", run: pause },
    Case { name: "kill delivers the signal asked for", run: kill },
    Case { name: "limits reach the cgroup", run: limits },
    Case { name: "limits kill and throttle", run: limits_hold },
    Case { name: "read-only root file system", run: read_only },
    Case { name: "user namespace with id maps", run: id_maps },
    Case { name: "metrics of a running task", run: metrics },
    Case { name: "ps lists every process", run: ps },
    Case { name: "host network joins the daemon's", run: host_network },
    Case { name: "network namespace by path", run: joined_network },
    Case { name: "another runtime root", run: runtime_root },
    Case { name: "without pivot_root", run: no_pivot },
    Case { name: "capabilities, seccomp and environment", run: process_settings },
    Case { name: "bind mount, read-only", run: bind_mount },
    Case { name: "privileged", run: privileged },
    Case { name: "the shim's own calls are accepted", run: recorded },
];

fn foreground(up: &Containerd) -> Result<()> {
    let script = "echo out; echo err >&2; exit 7";
    let output = up.run("foreground", &["--rm"], &["sh", "-c", script]).exits(7)?.says("out")?;
    ensure!(output.stderr.lines().any(|line| line == "err"), "standard error: {output}");
    Ok(())
}

fn missing_executable(up: &Containerd) -> Result<()> {
    let output = up.run("missing", &["--rm"], &["no-such-program"]).output()?;
    ensure!(output.code != 0, "ran a program that does not exist: {output}");
    output.mentions("no-such-program")?.mentions("executable file not found in $PATH")?;
    Ok(())
}

fn detached(up: &Containerd) -> Result<()> {
    up.sleeper("detached", &[])?;
    up.wait_for_status("detached", "RUNNING")?;
    up.remove("detached")
}

fn terminal(up: &Containerd) -> Result<()> {
    talk(up.run("terminal", &["--rm", "--tty"], &["sh", "-c", TALK]), "/dev/pts/0")
}

fn exec(up: &Containerd) -> Result<()> {
    let pid = up.sleeper("exec", &[])?;
    let script = "cat /proc/1/comm; readlink /proc/self/ns/mnt; exit 4";
    let expected = format!("sleep\n{}", up.sandbox.namespace(pid, "mnt")?);
    up.exec("exec", &[], &["sh", "-c", script]).exits(4)?.says(&expected)?;
    up.exec("exec", &[], &["cat", "/proc/self/cgroup"]).ok()?.mentions("exec")?;
    let missing = up.exec("exec", &[], &["no-such-program"]).output()?;
    ensure!(missing.code != 0, "executed a program that does not exist: {missing}");
    missing.mentions("executable file not found in $PATH")?;
    up.remove("exec")
}

fn exec_terminal(up: &Containerd) -> Result<()> {
    up.sleeper("exec-tty", &[])?;
    talk(up.exec("exec-tty", &["--tty"], &["sh", "-c", TALK]), "/dev/pts/")?;
    up.remove("exec-tty")
}

fn exec_user(up: &Containerd) -> Result<()> {
    up.sleeper("exec-user", &[])?;
    let options = ["--user", "user", "--cwd", "/tmp"];
    up.exec("exec-user", &options, &["sh", "-c", "id -u; pwd"]).ok()?.says("1000\n/tmp")?;
    up.remove("exec-user")
}

fn pause(up: &Containerd) -> Result<()> {
    let pid = up.sleeper("pause", &[])?;
    let process = up.sandbox.process(pid);
    up.client(&["task", "pause", "pause"]).ok()?;
    up.wait_for_status("pause", "PAUSED")?;
    ensure!(cgroup::frozen(&process)?, "paused but not frozen");
    up.client(&["task", "resume", "pause"]).ok()?;
    up.wait_for_status("pause", "RUNNING")?;
    ensure!(!cgroup::frozen(&process)?, "resumed but frozen");
    up.exec("pause", &[], &["true"]).ok()?;
    up.remove("pause")
}

fn kill(up: &Containerd) -> Result<()> {
    let script = "trap 'exit 42' USR1; sleep 1000 & wait";
    up.run_detached("kill", &[], &["sh", "-c", script])?;
    // The trap is set once the shell has its first child.
    up.sandbox.until("trap", DEADLINE, || {
        Ok(up.client(&["task", "ps", "kill"]).ok()?.stdout.lines().count() > 2)
    })?;
    up.client(&["task", "kill", "--signal", "SIGUSR1", "kill"]).ok()?;
    up.wait_for_status("kill", "STOPPED")?;
    up.client(&["task", "delete", "kill"]).ok()?.mentions("42")?;
    up.client(&["container", "delete", "kill"]).ok()?;
    Ok(())
}

fn limits(up: &Containerd) -> Result<()> {
    cgroup::need("memory")?;
    cgroup::need("cpu")?;
    let options = ["--memory-limit", "67108864", "--cpus", "0.5", "--cpu-shares", "512"];
    let pid = up.sleeper("limits", &options)?;
    let process = up.sandbox.process(pid);
    cgroup::expect(&process, MEMORY, "67108864")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "50000 100000", "cpu quota and period: {quota}");
    let shares = cgroup::cpu_shares(&process)?;
    ensure!(shares != "1024" && shares != "100", "cpu shares are the default, {shares}");
    up.remove("limits")
}

/// ctr has no option for the number of processes.
fn limits_hold(up: &Containerd) -> Result<()> {
    cgroup::need("memory")?;
    cgroup::need("cpu")?;
    let pid = up.sleeper("hold", &["--memory-limit", "33554432", "--cpus", "0.1"])?;
    let process = up.sandbox.process(pid);
    up.exec("hold", &[], &["tail", "-c", "200000000", "/dev/zero"]).exits(137)?;
    cgroup::has_happened(&process, OOM_KILLS)?;
    up.exec("hold", &[], &["timeout", "1", "sh", "-c", "while true; do true; done"]).exits(143)?;
    cgroup::has_happened(&process, THROTTLED)?;
    up.remove("hold")
}

fn read_only(up: &Containerd) -> Result<()> {
    let script = "touch /file && echo written; awk '$5 == \"/\" { print $6 }' /proc/self/mountinfo";
    let output = up.run("read-only", &["--rm", "--read-only"], &["sh", "-c", script]).ok()?;
    ensure!(output.said().starts_with("ro"), "root file system: {output}");
    output.mentions("Read-only file system")?;
    Ok(())
}

fn id_maps(up: &Containerd) -> Result<()> {
    let options = ["--rm", "--read-only", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '";
    let output = up.run("id-maps", &options, &["sh", "-c", script]).ok()?;
    let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
    ensure!(lines == ["0", "0 100000 65536", "0 200000 65536"], "{output}");
    Ok(())
}

fn metrics(up: &Containerd) -> Result<()> {
    cgroup::need("memory")?;
    up.sleeper("metrics", &[])?;
    let output = up.client(&["task", "metrics", "--format", "json", "metrics"]).ok()?;
    let value: serde_json::Value =
        serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    let v1 = value.pointer("/memory/usage/usage");
    let v2 = value.pointer("/memory/usage").filter(|usage| usage.is_u64());
    let usage = v1.or(v2).and_then(serde_json::Value::as_u64).with_context(|| output.to_string())?;
    ensure!(usage > 0, "no memory used: {output}");
    up.remove("metrics")
}

fn ps(up: &Containerd) -> Result<()> {
    let first = up.sleeper("ps", &[])?;
    up.exec("ps", &["--detach"], &["sleep", "2000"]).ok()?;
    let output = up.client(&["task", "ps", "ps"]).ok()?;
    let pids: Vec<u32> =
        output.stdout.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    ensure!(pids.len() == 2 && pids.contains(&first), "expected {first} and another: {output}");
    up.remove("ps")
}

fn host_network(up: &Containerd) -> Result<()> {
    let expected = up.sandbox.own_namespace("net")?;
    let call = up.run("host-network", &["--rm", "--net-host"], &["readlink", "/proc/self/ns/net"]);
    call.ok()?.says(&expected)?;
    Ok(())
}

fn joined_network(up: &Containerd) -> Result<()> {
    let pid = up.sleeper("owner", &[])?;
    let expected = up.sandbox.namespace(pid, "net")?;
    let option = format!("network:/proc/{pid}/ns/net");
    let call = up.run("joined", &["--rm", "--with-ns", &option], &["readlink", "/proc/self/ns/net"]);
    call.ok()?.says(&expected)?;
    up.remove("owner")
}

/// The shim adds the namespace to the root it is given.
fn runtime_root(up: &Containerd) -> Result<()> {
    let root = up.sandbox.inside("other-root");
    up.sleeper("root", &["--runc-root", &root.display().to_string()])?;
    let state = up.sandbox.outside(&root.join(up.sandbox.cgroup()).join("root"));
    ensure!(state.is_dir(), "no state in {}", state.display());
    up.remove("root")?;
    ensure!(!state.exists(), "state is left in {}", state.display());
    Ok(())
}

fn no_pivot(up: &Containerd) -> Result<()> {
    let script = "ls /proc/1/root/bin/busybox; ls /run/engine 2>&1 | grep -c containerd";
    let call = up.run("no-pivot", &["--rm", "--no-pivot"], &["sh", "-c", script]);
    call.exits(1)?.says("/proc/1/root/bin/busybox\n0")?;
    Ok(())
}

fn process_settings(up: &Containerd) -> Result<()> {
    let options = ["--rm", "--seccomp", "--cap-drop", "CAP_CHOWN", "--env", "COLOUR=green", "--cwd", "/tmp"];
    let script = "echo $COLOUR; pwd; awk '/^(Seccomp|NoNewPrivs):/ { print $2 }' /proc/self/status; \
                  chown 1:1 /tmp 2>&1 | grep -o 'Operation not permitted'";
    let call = up.run("settings", &options, &["sh", "-c", script]);
    call.ok()?.says("green\n/tmp\n1\n2\nOperation not permitted")?;
    Ok(())
}

fn bind_mount(up: &Containerd) -> Result<()> {
    let source = up.sandbox.inside("bind");
    fs::create_dir(up.sandbox.outside(&source))?;
    fs::write(up.sandbox.outside(&source.join("file")), "from outside\n")?;
    let mount = format!("type=bind,src={},dst=/mnt/bind,options=rbind:ro", source.display());
    let script = "cat /mnt/bind/file; touch /mnt/bind/new";
    let output = up.run("bind", &["--rm", "--mount", &mount], &["sh", "-c", script]).exits(1)?;
    output.says("from outside")?.mentions("Read-only file system")?;
    Ok(())
}

fn privileged(up: &Containerd) -> Result<()> {
    need_capability(CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE, which containerd adds to a privileged container")?;
    let script = "awk '/^CapEff:/ { print $2 }' /proc/self/status; mount -t tmpfs tmpfs /tmp && echo mounted";
    let output = up.run("privileged", &["--rm", "--privileged"], &["sh", "-c", script]).ok()?;
    output.mentions("mounted")?;
    Ok(())
}

/// The flags go-runc sends, seen on their way and answered with exit code 0.
fn recorded(up: &Containerd) -> Result<()> {
    let recorder = up.recorder.path().display().to_string();
    up.run_by(&recorder, "recorded", &["--detach"], &["sleep", "1000"]).ok()?;
    up.exec("recorded", &[], &["true"]).ok()?;
    up.exec("recorded", &["--tty"], &["true"]).on_terminal().ok()?;
    up.client(&["task", "pause", "recorded"]).ok()?;
    up.client(&["task", "resume", "recorded"]).ok()?;
    up.client(&["task", "ps", "recorded"]).ok()?;
    up.remove("recorded")?;

    let calls = up.recorder.calls(&up.sandbox)?;
    let root = format!("/run/containerd/runc/{}", up.sandbox.cgroup());
    let expected: [&[&str]; 9] = [
        &["create", "--bundle"],
        &["start", "recorded"],
        &["exec", "--process"],
        &["--console-socket"],
        &["pause", "recorded"],
        &["resume", "recorded"],
        &["ps", "--format", "json", "recorded"],
        &["kill", "recorded", "9"],
        &["delete", "recorded"],
    ];
    for words in expected {
        ensure!(calls.iter().any(|call| call.has(words)), "no call with {words:?} in {calls:?}");
    }
    for call in &calls {
        ensure!(call.code == 0, "refused: {call:?}");
        ensure!(
            call.has(&["--root", &root]) && call.has(&["--log-format", "json"]),
            "not go-runc's: {call:?}"
        );
    }
    Ok(())
}
