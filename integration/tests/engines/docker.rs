//! dockerd with the runtime under test as an additional runtime, on its own bridge.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use creel_integration::engine::cgroup::{self, CPUS, MEMORY, PIDS};
use creel_integration::engine::command::Call;
use creel_integration::engine::daemon::Daemon;
use creel_integration::engine::harness::{Case, Engine, Ground, Report, Skip, need_capability, program};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::runtime::Recorder;
use creel_integration::engine::sandbox::Sandbox;

const DEADLINE: Duration = Duration::from_secs(30);
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
            "cgroup-parent": format!("/{}", sandbox.cgroup()),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
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
        up.docker(&["load", "--input", &images.display().to_string()]).ok()?;
        Ok(up)
    }

    /// The distribution's client: another one may come first in PATH.
    fn docker(&self, words: &[&str]) -> Call {
        self.sandbox.call(&["/usr/bin/docker", "--host", SOCKET]).args(words)
    }

    fn run_with(&self, runtime: &str, options: &[&str], command: &[&str]) -> Call {
        let call = self.docker(&["run", "--pull", "never", "--runtime", runtime]);
        call.args(options).args(&[BUSYBOX]).args(command)
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Call {
        self.run_with("tested", options, command)
    }

    fn run_once(&self, options: &[&str], command: &[&str]) -> Call {
        self.run(&[&["--rm", "--network", "none"], options].concat(), command)
    }

    fn run_detached(&self, name: &str, options: &[&str], command: &[&str]) -> Result<u32> {
        self.run(&[&["--detach", "--network", "none", "--name", name], options].concat(), command).ok()?;
        let pid = self.inspect(name, "{{.State.Pid}}")?;
        pid.parse().with_context(|| format!("pid {pid:?}"))
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        Ok(self.docker(&["inspect", "--format", format, name]).ok()?.said().to_owned())
    }

    fn exec(&self, name: &str, options: &[&str], command: &[&str]) -> Call {
        self.docker(&["exec"]).args(options).args(&[name]).args(command)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.docker(&["rm", "--force", name]).ok()?;
        Ok(())
    }

    /// Wait until a container has written this as its log.
    fn until_logged(&self, name: &str, text: &str) -> Result<()> {
        self.sandbox.until(text, DEADLINE, || Ok(self.docker(&["logs", name]).ok()?.said() == text))
    }
}

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

const CASES: [Case<Docker>; 28] = [
    Case { name: "info names the runtime", run: info },
    Case { name: "run passes output and exit code", run: foreground },
    Case { name: "exit codes 125, 126 and 127", run: start_failures },
    Case { name: "run on a terminal", run: terminal },
    Case { name: "detached, logs, wait, rm", run: logs },
    Case { name: "exec passes output and exit code", run: exec },
    Case { name: "exec on a terminal", run: exec_terminal },
    Case { name: "exec with user, environment and directory", run: exec_settings },
    Case { name: "stop sends the signal, then insists", run: stop },
    Case { name: "restart", run: restart },
    Case { name: "pause freezes and unpause thaws", run: pause },
    Case { name: "stats and top", run: stats_and_top },
    Case { name: "limits reach the cgroup", run: limits },
    Case { name: "update changes the limits", run: update },
    Case { name: "a container out of memory is reported", run: out_of_memory },
    Case { name: "healthcheck becomes healthy", run: healthcheck },
    Case { name: "init is the first process", run: init },
    Case { name: "capabilities and no new privileges", run: capabilities },
    Case { name: "the default seccomp profile is in force", run: seccomp },
    Case { name: "private cgroup namespace", run: cgroup_namespace },
    Case { name: "read-only root file system, tmpfs", run: read_only },
    Case { name: "volumes", run: volume },
    Case { name: "user, host name, sysctl, device, ulimit", run: settings },
    Case { name: "host namespaces", run: host_namespaces },
    Case { name: "namespaces of another container", run: shared_namespaces },
    Case { name: "bridge network and published port", run: bridge },
    Case { name: "privileged", run: privileged },
    Case { name: "docker's own calls are accepted", run: recorded },
];

fn info(up: &Docker) -> Result<()> {
    up.docker(&["info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"])
        .ok()?
        .mentions("tested")?;
    Ok(())
}

fn foreground(up: &Docker) -> Result<()> {
    let output = up.run_once(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7)?.says("out")?;
    ensure!(output.stderr.contains("err"), "standard error: {output}");
    Ok(())
}

/// dockerd tells the three apart by the runtime's words in the JSON log.
fn start_failures(up: &Docker) -> Result<()> {
    up.run_once(&[], &["no-such-program"]).exits(127)?.mentions("executable file not found in $PATH")?;
    up.run_once(&[], &["/etc/passwd"]).exits(126)?.mentions("permission denied")?;
    let mount = "type=bind,source=/no/such/source,target=/mnt";
    up.run_once(&["--mount", mount], &["true"]).exits(125)?.mentions("/no/such/source")?;
    Ok(())
}

fn terminal(up: &Docker) -> Result<()> {
    let script = "tty; read line; echo got $line; exit 3";
    let call = up.run_once(&["--interactive", "--tty"], &["sh", "-c", script]);
    call.input(b"some input\n").on_terminal().exits(3)?.mentions("/dev/pts/0")?.mentions("got some input")?;
    Ok(())
}

fn logs(up: &Docker) -> Result<()> {
    up.run_detached("logs", &[], &["sh", "-c", "echo one; echo two >&2; exit 9"])?;
    up.docker(&["wait", "logs"]).ok()?.says("9")?;
    let output = up.docker(&["logs", "logs"]).ok()?.says("one")?;
    ensure!(output.stderr.trim() == "two", "standard error's log: {output}");
    up.docker(&["rm", "logs"]).ok()?;
    Ok(())
}

fn exec(up: &Docker) -> Result<()> {
    let pid = up.run_detached("exec", &[], &["sleep", "1000"])?;
    let expected = format!("sleep\n{}", up.sandbox.namespace(pid, "mnt")?);
    let script = "cat /proc/1/comm; readlink /proc/self/ns/mnt; exit 6";
    up.exec("exec", &[], &["sh", "-c", script]).exits(6)?.says(&expected)?;
    up.exec("exec", &[], &["no-such-program"]).exits(126)?.mentions("executable file not found in $PATH")?;
    up.exec("exec", &["--detach"], &["touch", "/tmp/detached"]).ok()?;
    up.sandbox.until("detached exec", DEADLINE, || {
        Ok(up.exec("exec", &[], &["test", "-e", "/tmp/detached"]).output()?.code == 0)
    })?;
    up.remove("exec")
}

fn exec_terminal(up: &Docker) -> Result<()> {
    up.run_detached("exec-tty", &[], &["sleep", "1000"])?;
    let script = "tty; read line; echo got $line; exit 5";
    let call = up.exec("exec-tty", &["--interactive", "--tty"], &["sh", "-c", script]);
    call.input(b"some input\n").on_terminal().exits(5)?.mentions("/dev/pts/")?.mentions("got some input")?;
    up.remove("exec-tty")
}

fn exec_settings(up: &Docker) -> Result<()> {
    up.run_detached("exec-set", &[], &["sleep", "1000"])?;
    let options = ["--user", "user", "--workdir", "/tmp", "--env", "COLOUR=green"];
    up.exec("exec-set", &options, &["sh", "-c", "id -u; pwd; echo $COLOUR"])
        .ok()?
        .says("1000\n/tmp\ngreen")?;
    up.remove("exec-set")
}

fn stop(up: &Docker) -> Result<()> {
    up.run_detached("stop", &[], &["sh", "-c", "trap 'exit 42' TERM; echo ready; sleep 1000 & wait"])?;
    up.until_logged("stop", "ready")?;
    up.docker(&["stop", "--time", "15", "stop"]).ok()?;
    ensure!(up.inspect("stop", "{{.State.ExitCode}}")? == "42", "not ended by the trap");
    up.docker(&["rm", "stop"]).ok()?;

    up.run_detached("insist", &[], &["sleep", "1000"])?;
    up.docker(&["stop", "--time", "1", "insist"]).ok()?;
    ensure!(up.inspect("insist", "{{.State.ExitCode}}")? == "137", "not ended by SIGKILL");
    up.docker(&["rm", "insist"]).ok()?;
    Ok(())
}

fn restart(up: &Docker) -> Result<()> {
    let first = up.run_detached("restart", &[], &["sh", "-c", "echo started; exec sleep 1000"])?;
    up.docker(&["restart", "--time", "0", "restart"]).ok()?;
    ensure!(
        up.inspect("restart", "{{.State.Pid}}")? != first.to_string(),
        "the same process after a restart"
    );
    up.until_logged("restart", "started\nstarted")?;
    up.remove("restart")
}

fn pause(up: &Docker) -> Result<()> {
    let pid = up.run_detached("pause", &[], &["sleep", "1000"])?;
    let process = up.sandbox.process(pid);
    up.docker(&["pause", "pause"]).ok()?;
    ensure!(up.inspect("pause", "{{.State.Status}}")? == "paused", "status");
    ensure!(cgroup::frozen(&process)?, "paused but not frozen");
    up.docker(&["unpause", "pause"]).ok()?;
    ensure!(!cgroup::frozen(&process)?, "unpaused but frozen");
    up.exec("pause", &[], &["true"]).ok()?;
    // rm --force must thaw what it kills.
    up.docker(&["pause", "pause"]).ok()?;
    up.remove("pause")
}

fn stats_and_top(up: &Docker) -> Result<()> {
    cgroup::need("memory")?;
    up.run_detached("stats", &["--memory", "64m"], &["sleep", "1000"])?;
    let format = "{{.Name}} {{.PIDs}} {{.MemUsage}}";
    let stats = up.docker(&["stats", "--no-stream", "--format", format, "stats"]).ok()?;
    ensure!(stats.said().starts_with("stats 1 ") && stats.said().ends_with("64MiB"), "{stats}");
    up.docker(&["top", "stats"]).ok()?.mentions("sleep 1000")?;
    up.remove("stats")
}

fn limits(up: &Docker) -> Result<()> {
    for controller in ["memory", "cpu", "pids", "cpuset"] {
        cgroup::need(controller)?;
    }
    let options = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", "--cpuset-cpus", "0"];
    let pid = up.run_detached("limits", &options, &["sleep", "1000"])?;
    let process = up.sandbox.process(pid);
    cgroup::expect(&process, MEMORY, "67108864")?;
    cgroup::expect(&process, PIDS, "33")?;
    cgroup::expect(&process, CPUS, "0")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "50000 100000", "cpu quota and period: {quota}");
    up.remove("limits")
}

fn update(up: &Docker) -> Result<()> {
    cgroup::need("memory")?;
    let pid = up.run_detached("update", &["--memory", "64m"], &["sleep", "1000"])?;
    let process = up.sandbox.process(pid);
    let words = [
        "update",
        "--memory",
        "32m",
        "--memory-swap",
        "64m",
        "--pids-limit",
        "44",
        "--cpus",
        "0.25",
        "update",
    ];
    up.docker(&words).ok()?;
    cgroup::expect(&process, MEMORY, "33554432")?;
    cgroup::expect(&process, PIDS, "44")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "25000 100000", "cpu quota and period: {quota}");
    up.remove("update")
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
    let events = Daemon::start("docker events", &up.docker(&filter).args(&["--since", "1m"]))?;
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

fn capabilities(up: &Docker) -> Result<()> {
    let fields = "awk '/^(CapEff|CapBnd|CapAmb|NoNewPrivs):/ { print $2 }' /proc/self/status";
    let none = "0000000000000000";
    let options = ["--cap-drop", "all", "--security-opt", "no-new-privileges"];
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{none}\n{none}\n{none}\n1"))?;
    let options = ["--cap-drop", "all", "--cap-add", "NET_RAW"];
    let raw = "0000000000002000";
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{raw}\n{raw}\n{none}\n0"))?;
    Ok(())
}

fn seccomp(up: &Docker) -> Result<()> {
    let mode = "awk '/^Seccomp:/ { print $2 }' /proc/self/status";
    let script = format!("{mode}; unshare -m true 2>&1 | grep -o 'Operation not permitted'");
    up.run_once(&[], &["sh", "-c", &script]).ok()?.says("2\nOperation not permitted")?;
    up.run_once(&["--security-opt", "seccomp=unconfined"], &["sh", "-c", mode]).ok()?.says("0")?;
    Ok(())
}

fn cgroup_namespace(up: &Docker) -> Result<()> {
    let script = "cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/fs/cgroup | head -n 1 | wc -l";
    up.run_once(&["--cgroupns", "private"], &["sh", "-c", script]).ok()?.says("/\n1")?;
    let output = up.run_once(&["--cgroupns", "host"], &["cat", "/proc/self/cgroup"]).ok()?;
    output.mentions(up.sandbox.cgroup())?;
    Ok(())
}

fn read_only(up: &Docker) -> Result<()> {
    let options = ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1750", "--shm-size", "2m"];
    let script = "touch /file; stat -c %a /scratch; df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'";
    let output = up.run_once(&options, &["sh", "-c", script]).ok()?.says("1750\n1024\n2048")?;
    output.mentions("Read-only file system")?;
    Ok(())
}

fn volume(up: &Docker) -> Result<()> {
    let source = up.sandbox.inside("volume");
    fs::create_dir(up.sandbox.outside(&source))?;
    fs::write(up.sandbox.outside(&source.join("file")), "from outside\n")?;
    let option = format!("{}:/mnt/volume", source.display());
    let script = "cat /mnt/volume/file; touch /mnt/volume/new";
    let read_only = format!("{option}:ro");
    let output =
        up.run_once(&["--volume", &read_only], &["sh", "-c", script]).exits(1)?.says("from outside")?;
    output.mentions("Read-only file system")?;
    up.run_once(&["--volume", &option], &["sh", "-c", script]).ok()?;
    ensure!(up.sandbox.outside(&source.join("new")).exists(), "nothing written through the volume");
    up.run_once(&["--volume", "named:/data"], &["sh", "-c", "echo kept > /data/file"]).ok()?;
    up.run_once(&["--volume", "named:/data"], &["cat", "/data/file"]).ok()?.says("kept")?;
    Ok(())
}

fn settings(up: &Docker) -> Result<()> {
    let options = ["--user", "77:88", "--group-add", "99", "--hostname", "creel-host", "--workdir", "/tmp"];
    let more = [
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--device",
        "/dev/null:/dev/x",
        "--ulimit",
        "nofile=100:200",
    ];
    let script = "id -u; id -g; id -G; hostname; pwd; cat /proc/sys/net/ipv4/ip_default_ttl; stat -c %t:%T /dev/x; \
                  ulimit -Sn; ulimit -Hn";
    let call = up.run_once(&[&options[..], &more[..]].concat(), &["sh", "-c", script]);
    call.ok()?.says("77\n88\n88 99\ncreel-host\n/tmp\n77\n1:3\n100\n200")?;
    Ok(())
}

fn host_namespaces(up: &Docker) -> Result<()> {
    let names = ["net", "pid", "ipc", "uts"];
    let expected: Result<Vec<String>> = names.iter().map(|name| up.sandbox.namespace(1, name)).collect();
    let options = ["--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"];
    let script = "for name in net pid ipc uts; do readlink /proc/self/ns/$name; done";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&expected?.join("\n"))?;
    Ok(())
}

fn shared_namespaces(up: &Docker) -> Result<()> {
    let pid = up.run_detached("shared", &["--ipc", "shareable"], &["sleep", "1000"])?;
    let expected: Result<Vec<String>> =
        ["net", "pid", "ipc"].iter().map(|name| up.sandbox.namespace(pid, name)).collect();
    let options =
        ["--rm", "--network", "container:shared", "--pid", "container:shared", "--ipc", "container:shared"];
    let script = "for name in net pid ipc; do readlink /proc/self/ns/$name; done; cat /proc/1/comm";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&format!("{}\nsleep", expected?.join("\n")))?;
    up.remove("shared")
}

/// One container serves, another fetches by address, the host fetches through the published port.
fn bridge(up: &Docker) -> Result<()> {
    let serve = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let options = ["--detach", "--name", "bridge", "--publish", "127.0.0.1:18080:80"];
    up.run(&options, &["sh", "-c", serve]).ok()?;
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18080/"];
    up.sandbox.until(
        "published port",
        DEADLINE,
        || Ok(up.sandbox.call(&fetch).output()?.said() == "page"),
    )?;
    let address = up.inspect("bridge", "{{.NetworkSettings.IPAddress}}")?;
    up.run(&["--rm"], &["wget", "-q", "-O", "-", &format!("http://{address}/")]).ok()?.says("page")?;
    up.remove("bridge")
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
    up.docker(&["pause", "recorded"]).ok()?;
    up.docker(&["unpause", "recorded"]).ok()?;
    up.docker(&["top", "recorded"]).ok()?;
    up.docker(&["update", "--cpus", "0.5", "recorded"]).ok()?;
    up.docker(&["stop", "--time", "0", "recorded"]).ok()?;
    up.docker(&["rm", "recorded"]).ok()?;

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
