//! containerd's CRI plugin with the runtime under test as handler: the calls of a kubelet.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use creel_integration::engine::cgroup::{self, MEMORY};
use creel_integration::engine::harness::{Case, Engine, Ground, Report};

use crate::cri_api::*;
use crate::cri_pod::{Cri, DEADLINE, namespaces};

pub fn suite(report: &mut Report, ground: &Ground) {
    let programs = ["containerd", "containerd-shim-runc-v2", "ctr", "bridge", "host-local", "loopback"];
    report.suite("cri", ground, &programs, Cri::start, &CASES);
}

const CASES: [Case<Cri>; 17] = [
    Case { name: "version", run: version },
    Case { name: "pod sandbox with a pause container", run: pause_container },
    Case { name: "container, log, exit code, remove", run: container },
    Case { name: "exec sync: output, exit code, deadline", run: exec_sync },
    Case { name: "missing executable is named", run: missing_executable },
    Case { name: "limits and update reach the cgroup", run: limits },
    Case { name: "stats of a container", run: stats },
    Case { name: "stop sends the signal, then insists", run: stop },
    Case { name: "out of memory is the reason given", run: out_of_memory },
    Case { name: "containers share the pod's namespaces", run: shared_namespaces },
    Case { name: "shared and targeted PID namespace", run: pid_namespaces },
    Case { name: "pod with host namespaces", run: host_namespaces },
    Case { name: "pods on a CNI bridge reach each other", run: bridge },
    Case { name: "security context", run: security_context },
    Case { name: "volumes, read-only and propagated", run: volumes },
    Case { name: "terminal", run: terminal },
    Case { name: "the shim's own calls are accepted", run: recorded },
];

fn version(up: &Cri) -> Result<()> {
    let answer: VersionResponse = up.client.call("Version", VersionRequest { version: "v1".to_owned() })?;
    ensure!(answer.runtime_name == "containerd" && answer.runtime_api_version == "v1", "{answer:?}");
    Ok(())
}

/// The pause container holds the namespaces: the host name and the sysctl are seen by a container in them.
fn pause_container(up: &Cri) -> Result<()> {
    let pod = up.pod_with("tested", "pause", |linux| {
        linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    })?;
    let id = pod.sleeper("main")?;
    let script = "hostname; cat /proc/sys/kernel/shm_rmid_forced; cat /etc/hostname";
    let seen = up.exec_ok(&id, &["sh", "-c", script])?;
    ensure!(seen == "pause\n1\npause", "{seen:?}");
    pod.remove()
}

fn container(up: &Cri) -> Result<()> {
    let pod = up.pod("container")?;
    let id = pod.run(pod.config("main", &["sh", "-c", "echo out; echo err >&2; exit 3"]))?;
    let status = up.wait_for_exit(&id)?;
    ensure!(status.exit_code == 3 && status.reason == "Error", "{status:?}");
    let mut log = pod.log("main")?;
    log.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    ensure!(log == [line("stderr", "err"), line("stdout", "out")], "{log:?}");
    up.remove_container(&id)?;
    let listed: ListContainersResponse = up.client.call("ListContainers", Empty {})?;
    ensure!(listed.containers.iter().all(|one| one.id != id), "removed but listed: {listed:?}");
    pod.remove()
}

/// The third is a probe that takes too long; nothing of it may stay behind.
fn exec_sync(up: &Cri) -> Result<()> {
    let pod = up.pod("exec")?;
    let id = pod.sleeper("main")?;
    let answer = up.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 5"], 10)?;
    ensure!(answer.stdout == b"out\n" && answer.stderr == b"err\n" && answer.exit_code == 5, "{answer:?}");
    let refused = up.exec(&id, &["no-such-program"], 10);
    let Err(error) = refused else { bail!("executed a program that does not exist") };
    let words = format!("{error:#}");
    ensure!(words.contains("executable file not found in $PATH"), "{words}");
    let Err(error) = up.exec(&id, &["sleep", "77"], 1) else { bail!("no deadline") };
    ensure!(format!("{error:#}").contains("timeout 1s exceeded"), "{error:#}");
    let processes = up.exec_ok(&id, &["ps", "-o", "args"])?;
    ensure!(!processes.contains("sleep 77"), "still there after the deadline: {processes}");
    pod.remove()
}

fn missing_executable(up: &Cri) -> Result<()> {
    let pod = up.pod("missing")?;
    let id = pod.create(pod.config("main", &["no-such-program"]))?;
    let Err(error) = up.start_container(&id) else { bail!("started a program that does not exist") };
    let words = format!("{error:#}");
    ensure!(
        words.contains("no-such-program") && words.contains("executable file not found in $PATH"),
        "{words}"
    );
    up.remove_container(&id)?;
    pod.remove()
}

fn limits(up: &Cri) -> Result<()> {
    cgroup::need("memory")?;
    cgroup::need("cpu")?;
    let pod = up.pod("limits")?;
    let id = pod.sleeper("main")?;
    let process = up.sandbox().process(up.pid(&id)?);
    let path = fs::read_to_string(process.join("cgroup"))?;
    let expected = up.cgroup_of(&id);
    // A hierarchy that is not mounted here is listed with its root.
    let mut paths =
        path.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| *path != "/").peekable();
    ensure!(paths.peek().is_some() && paths.all(|path| path == expected), "not in {expected}: {path}");
    cgroup::expect(&process, MEMORY, "67108864")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "50000 100000", "cpu quota and period: {quota}");
    let score = fs::read_to_string(process.join("oom_score_adj"))?;
    ensure!(score.trim() == "999", "oom_score_adj {score}");

    let resources = LinuxContainerResources {
        cpu_quota: 25_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 32 << 20,
        ..Default::default()
    };
    let request = UpdateContainerResourcesRequest { container_id: id, linux: Some(resources) };
    let _: Empty = up.client.call("UpdateContainerResources", request)?;
    cgroup::expect(&process, MEMORY, "33554432")?;
    let quota = cgroup::cpu_max(&process)?;
    ensure!(quota == "25000 100000", "cpu quota and period after the update: {quota}");
    pod.remove()
}

fn stats(up: &Cri) -> Result<()> {
    cgroup::need("memory")?;
    let pod = up.pod("stats")?;
    let id = pod.sleeper("main")?;
    let answer: ContainerStatsResponse =
        up.client.call("ContainerStats", ContainerId { container_id: id })?;
    let stats = answer.stats.context("no stats")?;
    let cpu = stats.cpu.clone().and_then(|cpu| cpu.usage_core_nano_seconds).map(|usage| usage.value);
    let memory = stats.memory.clone().and_then(|memory| memory.working_set_bytes).map(|bytes| bytes.value);
    ensure!(cpu > Some(0) && memory > Some(0), "{stats:?}");
    pod.remove()
}

fn stop(up: &Cri) -> Result<()> {
    let pod = up.pod("stop")?;
    let id =
        pod.run(pod.config("trap", &["sh", "-c", "trap 'exit 42' TERM; echo ready; sleep 1000 & wait"]))?;
    up.sandbox().until("trap", DEADLINE, || Ok(!pod.log("trap")?.is_empty()))?;
    up.stop_container(&id, 15)?;
    let status = up.status(&id)?;
    ensure!(status.exit_code == 42, "not ended by the trap: {status:?}");
    let id = pod.sleeper("insist")?;
    up.stop_container(&id, 1)?;
    let status = up.status(&id)?;
    ensure!(status.exit_code == 137, "not ended by SIGKILL: {status:?}");
    pod.remove()
}

fn out_of_memory(up: &Cri) -> Result<()> {
    cgroup::need("memory")?;
    let pod = up.pod("oom")?;
    let id = pod.run(pod.config("main", &["tail", "/dev/zero"]))?;
    let status = up.wait_for_exit(&id)?;
    ensure!(status.exit_code == 137, "{status:?}");
    up.sandbox().until("reason", DEADLINE, || Ok(up.status(&id)?.reason == "OOMKilled"))?;
    pod.remove()
}

fn shared_namespaces(up: &Cri) -> Result<()> {
    let pod = up.pod("shared")?;
    let (one, two) = (up.pid(&pod.sleeper("one")?)?, up.pid(&pod.sleeper("two")?)?);
    for name in ["net", "ipc", "uts"] {
        let (first, second) = (up.sandbox().namespace(one, name)?, up.sandbox().namespace(two, name)?);
        ensure!(
            first == second && first != up.sandbox().own_namespace(name)?,
            "{name}: {first} and {second}"
        );
    }
    for name in ["pid", "mnt"] {
        ensure!(up.sandbox().namespace(one, name)? != up.sandbox().namespace(two, name)?, "{name} is shared");
    }
    pod.remove()
}

/// The last container is what `kubectl debug --target` makes.
fn pid_namespaces(up: &Cri) -> Result<()> {
    let pod = up.pod_in("pid", namespaces(NamespaceMode::Pod, NamespaceMode::Pod, NamespaceMode::Pod))?;
    let id = pod.sleeper("main")?;
    let first = up.exec_ok(&id, &["cat", "/proc/1/cmdline"])?;
    ensure!(first.contains("1000000"), "the first process is not pause: {first:?}");
    pod.remove()?;

    let pod = up.pod("target")?;
    let id = pod.run(pod.config("main", &["sleep", "4321"]))?;
    up.sandbox().until_running(up.pid(&id)?, "sleep")?;
    let mut config = pod.config("debug", &["sleep", "1000"]);
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    let mut options = namespaces(NamespaceMode::Pod, NamespaceMode::Target, NamespaceMode::Pod);
    options.target_id = id;
    context.namespace_options = Some(options);
    let debug = pod.run(config)?;
    let first = up.exec_ok(&debug, &["cat", "/proc/1/cmdline"])?;
    ensure!(first.contains("4321"), "the first process is not the target's: {first:?}");
    pod.remove()
}

fn host_namespaces(up: &Cri) -> Result<()> {
    let node = NamespaceMode::Node;
    let pod = up.pod_in("host", namespaces(node, node, node))?;
    let pid = up.pid(&pod.sleeper("main")?)?;
    for name in ["net", "pid", "ipc", "uts"] {
        let (inside, host) = (up.sandbox().namespace(pid, name)?, up.sandbox().own_namespace(name)?);
        ensure!(inside == host, "{name}: {inside}, the host's is {host}");
    }
    pod.remove()
}

fn bridge(up: &Cri) -> Result<()> {
    let server = up.pod("server")?;
    let serve = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    server.run(server.config("main", &["sh", "-c", serve]))?;
    let address = server.address()?;
    ensure!(address.starts_with("10.99.0."), "address {address:?}");
    let client = up.pod("client")?;
    let id = client.sleeper("main")?;
    let url = format!("http://{address}/");
    let fetch = ["wget", "-q", "-O", "-", &url];
    up.sandbox().until("page", DEADLINE, || Ok(up.exec(&id, &fetch, 5)?.stdout == b"page\n"))?;
    client.remove()?;
    server.remove()
}

fn security_context(up: &Cri) -> Result<()> {
    let pod = up.pod("security")?;
    let mut config = pod.config("main", &["sleep", "1000"]);
    config.working_dir = "/tmp".to_owned();
    config.envs = vec![KeyValue { key: "COLOUR".to_owned(), value: "green".to_owned() }];
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.run_as_user = Some(Int64Value { value: 77 });
    context.run_as_group = Some(Int64Value { value: 88 });
    context.supplemental_groups = vec![99];
    context.readonly_rootfs = true;
    context.no_new_privs = true;
    context.capabilities =
        Some(Capability { add_capabilities: Vec::new(), drop_capabilities: vec!["ALL".to_owned()] });
    let id = pod.run(config)?;
    let script = "id -u; id -g; id -G; pwd; echo $COLOUR; \
                  awk '/^(CapBnd|NoNewPrivs|Seccomp):/ { print $2 }' /proc/self/status; \
                  wc -c < /proc/keys; awk '$5 == \"/\" { print substr($6, 1, 2) }' /proc/self/mountinfo; \
                  awk '$5 == \"/proc/sys\" { print substr($6, 1, 2) }' /proc/self/mountinfo";
    let seen = up.exec_ok(&id, &["sh", "-c", script])?;
    let expected = ["77", "88", "88 99", "/tmp", "green", "0000000000000000", "1", "2", "0", "ro", "ro"];
    ensure!(seen.lines().eq(expected), "{seen:?}");
    pod.remove()
}

/// A mount made on the host while the container runs reaches it, which storage drivers rely on.
fn volumes(up: &Cri) -> Result<()> {
    let shared = up.sandbox().inside("shared");
    let path = shared.display().to_string();
    let setup = "mkdir $0 && mount -t tmpfs tmpfs $0 && mount --make-shared $0 && mkdir $0/sub && echo kept > $0/file";
    up.sandbox().call(&["sh", "-c", setup, &path]).ok()?;
    let pod = up.pod("volumes")?;
    let mut config = pod.config("main", &["sleep", "1000"]);
    config.mounts = vec![
        Mount { container_path: "/data".to_owned(), host_path: path.clone(), readonly: true, propagation: 0 },
        Mount {
            container_path: "/shared".to_owned(),
            host_path: path.clone(),
            readonly: false,
            propagation: MountPropagation::HostToContainer.into(),
        },
    ];
    let id = pod.run(config)?;
    let seen = up
        .exec_ok(&id, &["sh", "-c", "cat /data/file; touch /shared/new; touch /data/new2 || echo refused"])?;
    ensure!(seen == "kept\nrefused", "{seen:?}");
    let late = "mount -t tmpfs tmpfs $0/sub && echo late > $0/sub/file";
    up.sandbox().call(&["sh", "-c", late, &path]).ok()?;
    let seen = up.exec_ok(&id, &["sh", "-c", "cat /shared/sub/file; ls /data/sub"])?;
    ensure!(seen == "late", "{seen:?}");
    pod.remove()?;
    up.sandbox().call(&["umount", "--recursive", &path]).ok()?;
    Ok(())
}

fn terminal(up: &Cri) -> Result<()> {
    let pod = up.pod("terminal")?;
    let mut config = pod.config("main", &["sh", "-c", "tty; exit 6"]);
    config.tty = true;
    let id = pod.run(config)?;
    let status = up.wait_for_exit(&id)?;
    ensure!(status.exit_code == 6, "{status:?}");
    let log = pod.log("main")?;
    ensure!(log.iter().any(|(_, text)| text.trim() == "/dev/pts/0"), "{log:?}");
    pod.remove()
}

/// A pod's life through the recorder: every call is go-runc's and answered with exit code 0.
fn recorded(up: &Cri) -> Result<()> {
    let pod = up.pod_with("recorded", "recorded", |_| {})?;
    let id = pod.sleeper("main")?;
    up.exec_ok(&id, &["true"])?;
    let resources = LinuxContainerResources { cpu_shares: 256, ..Default::default() };
    let request = UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(resources) };
    let _: Empty = up.client.call("UpdateContainerResources", request)?;
    up.stop_container(&id, 0)?;
    up.remove_container(&id)?;
    pod.remove()?;
    let calls = up.containerd.recorder.calls(up.sandbox())?;
    for command in ["create", "start", "exec", "update", "kill", "delete"] {
        ensure!(calls.iter().any(|call| call.has(&[command])), "no {command} in {calls:?}");
    }
    for call in &calls {
        ensure!(call.code == 0, "refused: {call:?}");
        let root = call.has(&["--root", "/run/containerd/runc/k8s.io"]);
        ensure!(root && call.has(&["--log-format", "json"]), "not go-runc's: {call:?}");
    }
    Ok(())
}
