//! podman and conmon, as root, with netavark's bridge.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use creel_integration::engine::cgroup::{self, CPUS, MEMORY, PIDS};
use creel_integration::engine::command::Call;
use creel_integration::engine::harness::{Case, Engine, Ground, Report, Skip, program};
use creel_integration::engine::image::BUSYBOX;
use creel_integration::engine::runtime::{Recorder, Runtime};
use creel_integration::engine::sandbox::Sandbox;

const DEADLINE: Duration = Duration::from_secs(20);

/// podman has no daemon; what is started is a sandbox with its configuration and image store.
pub struct Podman {
    sandbox: Sandbox,
    runtime: Runtime,
    recorder: Recorder,
}

impl Podman {
    fn start(ground: &Ground) -> Result<Self> {
        let sandbox = Sandbox::start("podman")?;
        let recorder = Recorder::install(&sandbox, &ground.runtime)?;
        let config = include_str!("containers.conf").replace("@NAME@", &ground.runtime.name());
        fs::write(sandbox.outside(&sandbox.inside("containers.conf")), config)?;
        let images = sandbox.inside("images.tar");
        fs::copy(ground.images.path(), sandbox.outside(&images))?;
        let up = Self { sandbox, runtime: ground.runtime.clone(), recorder };
        up.podman(&["load", "--input", &images.display().to_string()]).ok()?;
        Ok(up)
    }

    fn podman_with(&self, runtime: &Path, words: &[&str]) -> Call {
        let runtime = runtime.display().to_string();
        let call =
            self.sandbox.call(&["podman", "--root", "/run/engine/store", "--runroot", "/run/engine/run"]);
        call.args(&["--tmpdir", "/run/engine/libpod", "--storage-driver", "overlay", "--runtime", &runtime])
            .args(words)
    }

    fn podman(&self, words: &[&str]) -> Call {
        self.podman_with(self.runtime.path(), words)
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Call {
        let parent = format!("/{}", self.sandbox.cgroup());
        let call = self.podman(&["run", "--pull", "never", "--cgroup-parent", &parent]);
        call.args(options).args(&[BUSYBOX]).args(command)
    }

    /// A foreground container without a network of its own, removed when it ends.
    fn run_once(&self, options: &[&str], command: &[&str]) -> Call {
        self.run(&[&["--rm", "--network", "none"], options].concat(), command)
    }

    /// Start it in the background; its first process, as the sandbox counts.
    fn run_detached(&self, name: &str, options: &[&str], command: &[&str]) -> Result<u32> {
        self.run(&[&["--detach", "--network", "none", "--name", name], options].concat(), command).ok()?;
        let pid = self.inspect(name, "{{.State.Pid}}")?;
        pid.parse().with_context(|| format!("pid {pid:?}"))
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        Ok(self.podman(&["inspect", "--format", format, name]).ok()?.said().to_owned())
    }

    fn exec(&self, name: &str, options: &[&str], command: &[&str]) -> Call {
        self.podman(&["exec"]).args(options).args(&[name]).args(command)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.podman(&["rm", "--force", "--time", "0", name]).ok()?;
        Ok(())
    }
}

impl Engine for Podman {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// conmon passes no `--root`: the runtime's own default is used.
    fn state_roots(&self) -> Vec<PathBuf> {
        vec![
            Path::new("/run").join(self.runtime.name()),
            PathBuf::from("/run/creel"),
            PathBuf::from("/run/runc"),
        ]
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
        let left = self.podman(&["ps", "--all", "--quiet"]).ok()?;
        ensure!(left.said().is_empty(), "podman still knows containers: {left}");
        self.sandbox.stop()
    }
}

pub fn suite(report: &mut Report, ground: &Ground) {
    report.suite("podman", ground, &["podman", "conmon", "netavark", "iptables"], Podman::start, &CASES);
}

const CASES: [Case<Podman>; 27] = [
    Case { name: "run passes output and exit code", run: foreground },
    Case { name: "exit codes 125, 126 and 127", run: start_failures },
    Case { name: "run on a terminal", run: terminal },
    Case { name: "detached, logs, wait, rm", run: logs },
    Case { name: "exec passes output and exit code", run: exec },
    Case { name: "exec on a terminal", run: exec_terminal },
    Case { name: "exec with user, environment and directory", run: exec_settings },
    Case { name: "stop sends the signal, then insists", run: stop },
    Case { name: "restart", run: restart },
    Case { name: "kill delivers the signal asked for", run: kill },
    Case { name: "pause freezes and unpause thaws", run: pause },
    Case { name: "stats and top", run: stats_and_top },
    Case { name: "limits reach the cgroup", run: limits },
    Case { name: "update changes the limits", run: update },
    Case { name: "read-only root file system", run: read_only },
    Case { name: "user namespace with id maps", run: id_maps },
    Case { name: "user with additional groups", run: user },
    Case { name: "tmpfs and shm size", run: tmpfs },
    Case { name: "volume, read-only", run: volume },
    Case { name: "capabilities and no new privileges", run: capabilities },
    Case { name: "host name, sysctl, device", run: host_name },
    Case { name: "host namespaces", run: host_namespaces },
    Case { name: "namespaces of another container", run: shared_namespaces },
    Case { name: "init is the first process", run: init },
    Case { name: "bridge network and published port", run: bridge },
    Case { name: "copy into and out of a running container", run: copy },
    Case { name: "conmon's own calls are accepted", run: recorded },
];

fn foreground(up: &Podman) -> Result<()> {
    let output = up.run_once(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7)?.says("out")?;
    ensure!(output.stderr.contains("err"), "standard error: {output}");
    Ok(())
}

/// podman tells the three apart by the runtime's words in the JSON log.
fn start_failures(up: &Podman) -> Result<()> {
    up.run_once(&[], &["no-such-program"]).exits(127)?.mentions("no-such-program")?;
    up.run_once(&[], &["/etc/passwd"]).exits(126)?.mentions("/etc/passwd")?;
    up.run_once(&["--workdir", "/etc/passwd"], &["true"]).output().and_then(|output| {
        ensure!(output.code != 0, "a file as working directory: {output}");
        Ok(())
    })?;
    up.run_once(&["--volume", "/no/such/source:/mnt"], &["true"]).exits(125)?.mentions("/no/such/source")?;
    Ok(())
}

fn terminal(up: &Podman) -> Result<()> {
    let script = "tty; until stty size 2>/dev/null | grep .; do :; done; read line; echo got $line; exit 3";
    let call = up.run_once(&["--interactive", "--tty"], &["sh", "-c", script]).input(b"some input\n");
    call.on_terminal().exits(3)?.mentions("/dev/pts/0")?.mentions("33 77")?.mentions("got some input")?;
    Ok(())
}

fn logs(up: &Podman) -> Result<()> {
    up.run_detached("logs", &[], &["sh", "-c", "echo one; echo two >&2; exit 9"])?;
    up.podman(&["wait", "logs"]).ok()?.says("9")?;
    let output = up.podman(&["logs", "logs"]).ok()?.says("one")?;
    ensure!(output.stderr.trim() == "two", "standard error's log: {output}");
    ensure!(up.inspect("logs", "{{.State.ExitCode}}")? == "9", "exit code in inspect");
    up.podman(&["rm", "logs"]).ok()?;
    Ok(())
}

fn exec(up: &Podman) -> Result<()> {
    let pid = up.run_detached("exec", &[], &["sleep", "1000"])?;
    let expected = format!("sleep\n{}", up.sandbox.namespace(pid, "mnt")?);
    let script = "cat /proc/1/comm; readlink /proc/self/ns/mnt; exit 4";
    up.exec("exec", &[], &["sh", "-c", script]).exits(4)?.says(&expected)?;
    up.exec("exec", &[], &["no-such-program"]).exits(127)?;
    up.exec("exec", &[], &["/etc/passwd"]).exits(126)?;
    up.exec("exec", &["--detach"], &["touch", "/tmp/detached"]).ok()?;
    up.sandbox.until("detached exec", DEADLINE, || {
        Ok(up.exec("exec", &[], &["test", "-e", "/tmp/detached"]).output()?.code == 0)
    })?;
    up.remove("exec")
}

fn exec_terminal(up: &Podman) -> Result<()> {
    up.run_detached("exec-tty", &[], &["sleep", "1000"])?;
    let script = "tty; until stty size 2>/dev/null | grep .; do :; done; read line; echo got $line; exit 5";
    let call = up.exec("exec-tty", &["--interactive", "--tty"], &["sh", "-c", script]).input(b"some input\n");
    call.on_terminal().exits(5)?.mentions("/dev/pts/")?.mentions("33 77")?.mentions("got some input")?;
    up.remove("exec-tty")
}

fn exec_settings(up: &Podman) -> Result<()> {
    up.run_detached("exec-set", &[], &["sleep", "1000"])?;
    let options = ["--user", "user", "--workdir", "/tmp", "--env", "COLOUR=green"];
    up.exec("exec-set", &options, &["sh", "-c", "id -u; pwd; echo $COLOUR"])
        .ok()?
        .says("1000\n/tmp\ngreen")?;
    up.remove("exec-set")
}

/// The trap is set once the shell has said so.
fn stop(up: &Podman) -> Result<()> {
    let script = "trap 'exit 42' TERM; echo ready; sleep 1000 & wait";
    up.run_detached("stop", &[], &["sh", "-c", script])?;
    up.sandbox.until("trap", DEADLINE, || Ok(up.podman(&["logs", "stop"]).ok()?.said() == "ready"))?;
    up.podman(&["stop", "--time", "15", "stop"]).ok()?;
    ensure!(up.inspect("stop", "{{.State.ExitCode}}")? == "42", "not ended by the trap");
    up.podman(&["rm", "stop"]).ok()?;

    up.run_detached("insist", &[], &["sleep", "1000"])?;
    up.podman(&["stop", "--time", "1", "insist"]).ok()?;
    ensure!(up.inspect("insist", "{{.State.ExitCode}}")? == "137", "not ended by SIGKILL");
    up.podman(&["rm", "insist"]).ok()?;
    Ok(())
}

fn restart(up: &Podman) -> Result<()> {
    let first = up.run_detached("restart", &[], &["sh", "-c", "echo x >> /count; exec sleep 1000"])?;
    up.podman(&["restart", "--time", "0", "restart"]).ok()?;
    let second = up.inspect("restart", "{{.State.Pid}}")?;
    ensure!(second != first.to_string(), "the same process after a restart");
    up.sandbox.until("second line", DEADLINE, || {
        Ok(up.exec("restart", &[], &["wc", "-l", "/count"]).ok()?.said().starts_with("2 "))
    })?;
    up.remove("restart")
}

fn kill(up: &Podman) -> Result<()> {
    let script = "trap 'exit 43' USR1; echo ready; sleep 1000 & wait";
    up.run_detached("kill", &[], &["sh", "-c", script])?;
    up.sandbox.until("trap", DEADLINE, || Ok(up.podman(&["logs", "kill"]).ok()?.said() == "ready"))?;
    up.podman(&["kill", "--signal", "USR1", "kill"]).ok()?;
    up.podman(&["wait", "kill"]).ok()?.says("43")?;
    up.podman(&["rm", "kill"]).ok()?;
    Ok(())
}

fn pause(up: &Podman) -> Result<()> {
    let pid = up.run_detached("pause", &[], &["sleep", "1000"])?;
    let process = up.sandbox.process(pid);
    up.podman(&["pause", "pause"]).ok()?;
    ensure!(up.inspect("pause", "{{.State.Status}}")? == "paused", "status");
    ensure!(cgroup::frozen(&process)?, "paused but not frozen");
    up.podman(&["unpause", "pause"]).ok()?;
    ensure!(!cgroup::frozen(&process)?, "unpaused but frozen");
    up.exec("pause", &[], &["true"]).ok()?;
    // rm --force must thaw what it kills.
    up.podman(&["pause", "pause"]).ok()?;
    up.remove("pause")
}

fn stats_and_top(up: &Podman) -> Result<()> {
    cgroup::need("memory")?;
    up.run_detached("stats", &["--memory", "64m"], &["sleep", "1000"])?;
    let format = "{{.Name}} {{.PIDs}} {{.MemUsage}}";
    let stats = up.podman(&["stats", "--no-stream", "--format", format, "stats"]).ok()?;
    ensure!(stats.said().starts_with("stats 1 ") && stats.said().contains("67.11MB"), "{stats}");
    up.podman(&["top", "stats", "pid", "comm"]).ok()?.mentions("sleep")?;
    up.remove("stats")
}

fn limits(up: &Podman) -> Result<()> {
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

fn update(up: &Podman) -> Result<()> {
    if up.podman(&["update", "--help"]).output()?.code != 0 {
        return Err(Skip::new("this podman has no update command"));
    }
    cgroup::need("memory")?;
    let pid = up.run_detached("update", &["--memory", "64m"], &["sleep", "1000"])?;
    let process = up.sandbox.process(pid);
    up.podman(&["update", "--memory", "32m", "--cpus", "0.25", "update"]).ok()?;
    cgroup::expect(&process, MEMORY, "33554432")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "25000 100000", "cpu quota and period: {quota}");
    up.remove("update")
}

fn read_only(up: &Podman) -> Result<()> {
    let script = "touch /file; touch /tmp/file && echo tmp is writable";
    let output = up.run_once(&["--read-only"], &["sh", "-c", script]).ok()?.says("tmp is writable")?;
    output.mentions("Read-only file system")?;
    Ok(())
}

fn id_maps(up: &Podman) -> Result<()> {
    let options = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script =
        "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; touch /file && stat -c %u /file";
    let output = up.run_once(&options, &["sh", "-c", script]).ok()?;
    let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
    ensure!(lines == ["0", "0 100000 65536", "0 200000 65536", "0"], "{output}");

    let pid = up.run_detached("id-maps", &options, &["sleep", "1000"])?;
    up.exec("id-maps", &[], &["id", "-u"]).ok()?.says("0")?;
    let status = fs::read_to_string(up.sandbox.process(pid).join("status"))?;
    ensure!(status.contains("Uid:\t100000\t"), "host's view of the process: {status}");
    up.remove("id-maps")
}

fn user(up: &Podman) -> Result<()> {
    up.run_once(&["--user", "user"], &["id", "-G"]).ok()?.says("1000 2000")?;
    let options = ["--user", "77:88", "--group-add", "99"];
    let output = up.run_once(&options, &["sh", "-c", "id -u; id -g; id -G"]).ok()?;
    ensure!(output.said().starts_with("77\n88\n") && output.said().contains("99"), "{output}");
    Ok(())
}

fn tmpfs(up: &Podman) -> Result<()> {
    let options = ["--tmpfs", "/scratch:size=1m,mode=1750", "--shm-size", "2m"];
    let script =
        "stat -c %a /scratch; df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'; touch /scratch/file";
    up.run_once(&options, &["sh", "-c", script]).ok()?.says("1750\n1024\n2048")?;
    Ok(())
}

fn volume(up: &Podman) -> Result<()> {
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

fn capabilities(up: &Podman) -> Result<()> {
    let fields = "awk '/^(CapEff|CapBnd|CapAmb|NoNewPrivs):/ { print $2 }' /proc/self/status";
    let none = "0000000000000000";
    let options = ["--cap-drop", "all", "--security-opt", "no-new-privileges"];
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{none}\n{none}\n{none}\n1"))?;
    let options = ["--cap-drop", "all", "--cap-add", "NET_RAW"];
    let raw = "0000000000002000";
    up.run_once(&options, &["sh", "-c", fields]).ok()?.says(&format!("{raw}\n{raw}\n{none}\n0"))?;
    Ok(())
}

fn host_name(up: &Podman) -> Result<()> {
    let options = [
        "--hostname",
        "creel-host",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--device",
        "/dev/null:/dev/x",
    ];
    let script = "hostname; cat /proc/sys/net/ipv4/ip_default_ttl; stat -c %t:%T /dev/x; echo > /dev/x";
    up.run_once(&options, &["sh", "-c", script]).ok()?.says("creel-host\n77\n1:3")?;
    Ok(())
}

fn host_namespaces(up: &Podman) -> Result<()> {
    let names = ["net", "pid", "ipc", "uts"];
    let expected: Result<Vec<String>> = names.iter().map(|name| up.sandbox.namespace(1, name)).collect();
    let options = ["--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"];
    let script = "for name in net pid ipc uts; do readlink /proc/self/ns/$name; done";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&expected?.join("\n"))?;
    Ok(())
}

fn shared_namespaces(up: &Podman) -> Result<()> {
    let pid = up.run_detached("shared", &["--ipc", "shareable"], &["sleep", "1000"])?;
    let expected: Result<Vec<String>> =
        ["net", "pid", "ipc"].iter().map(|name| up.sandbox.namespace(pid, name)).collect();
    let options =
        ["--rm", "--network", "container:shared", "--pid", "container:shared", "--ipc", "container:shared"];
    let script = "for name in net pid ipc; do readlink /proc/self/ns/$name; done; cat /proc/1/comm";
    up.run(&options, &["sh", "-c", script]).ok()?.says(&format!("{}\nsleep", expected?.join("\n")))?;
    up.remove("shared")
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

/// One container serves, another fetches by address, the host fetches through the published port.
fn bridge(up: &Podman) -> Result<()> {
    let serve = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let options = ["--detach", "--name", "bridge", "--network", "bridge", "--publish", "127.0.0.1:18080:80"];
    up.run(&options, &["sh", "-c", serve]).ok()?;
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18080/"];
    up.sandbox.until(
        "published port",
        DEADLINE,
        || Ok(up.sandbox.call(&fetch).output()?.said() == "page"),
    )?;
    let address = up.inspect("bridge", "{{.NetworkSettings.IPAddress}}")?;
    let url = format!("http://{address}/");
    let options = ["--rm", "--network", "bridge"];
    up.run(&options, &["wget", "-q", "-O", "-", &url]).ok()?.says("page")?;
    up.exec("bridge", &[], &["hostname", "-i"]).ok()?.mentions(&address)?;
    up.remove("bridge")
}

fn copy(up: &Podman) -> Result<()> {
    up.run_detached("copy", &[], &["sleep", "1000"])?;
    let file = up.sandbox.inside("copied");
    fs::write(up.sandbox.outside(&file), "copied\n")?;
    let path = file.display().to_string();
    up.podman(&["cp", &path, "copy:/tmp/there"]).ok()?;
    up.exec("copy", &[], &["cat", "/tmp/there"]).ok()?.says("copied")?;
    let back = format!("{path}.back");
    up.podman(&["cp", "copy:/tmp/there", &back]).ok()?;
    ensure!(fs::read_to_string(up.sandbox.outside(Path::new(&back)))? == "copied\n", "what came back");
    up.remove("copy")
}

/// conmon's and podman's flags, seen on their way and answered with exit code 0.
fn recorded(up: &Podman) -> Result<()> {
    let podman = |words: &[&str]| up.podman_with(up.recorder.path(), words);
    let parent = format!("/{}", up.sandbox.cgroup());
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
