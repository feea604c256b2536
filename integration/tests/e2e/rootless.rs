//! Users who are not root: what they cannot have is refused, and what they do not ask for is not missed.

use creel_integration::sockets::FdSocket;
use creel_integration::{Cmd, Container, cgroups, needs_root, skip};
use serde_json::json;

/// Ids of somebody with nothing but these.
const NOBODY: u32 = 65534;

/// A container that needs nothing of the host but a user namespace, with one id of each kind.
fn with_one_id(mut container: Container, id: u32) -> Container {
    container.without_systemd();
    container.bundle.namespace("user", None).remove("linux/cgroupsPath").remove("linux/resources");
    for ids in ["linux/uidMappings", "linux/gidMappings"] {
        container.bundle.set(ids, json!([{ "containerID": 0, "hostID": id, "size": 1 }]));
    }
    container
}

/// Runs a command of the container as [`NOBODY`], who owns everything of it. `None` when that user cannot
/// reach the runtime.
fn as_nobody(container: &Container, cmd: Cmd) -> Option<Cmd> {
    let owner = format!("{NOBODY}:{NOBODY}");
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let behind = |cmd: Cmd| cmd.behind(["setpriv", &ids[0], &ids[1], "--clear-groups", "--"]);
    Cmd::new("chown").args(["-R", &owner, container.scratch().path().to_str().unwrap()]).output().ok();
    (behind(container.cmd(["--version"])).output().code() == 0).then(|| behind(cmd))
}

#[test]
fn a_limit_without_a_cgroup_is_refused_and_no_limit_is_not_missed() {
    needs_root!("may become another user");
    let mut container = with_one_id(Container::shell("echo fine"), NOBODY);
    for (limits, expected) in [
        (json!(null), Ok("fine\n")),
        (json!({ "pids": { "limit": 20 } }), Err("pids")),
        (json!({ "memory": { "limit": 1 << 26 } }), Err("memory")),
    ] {
        container.bundle.set("linux/resources", limits);
        let run = container.call("run", &[]);
        let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
        let output = run.output();
        match expected {
            Ok(stdout) => assert_eq!(output.ok().stdout, stdout),
            // runc's words are those of v2, or the limit's.
            Err(limit) => {
                let output = output.exits(1);
                let known = ["rootless needs no limits", "could not join or create cgroup", limit];
                assert!(known.iter().any(|words| output.stderr.contains(words)), "{output}");
                container.assert_clean(&output);
            }
        }
    }
}

/// As in a container of somebody else's: root there, and nobody outside.
#[test]
fn a_user_namespace_that_somebody_else_made_will_do() {
    const OUTER: [&str; 8] =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--"];
    if Cmd::new("true").behind(OUTER).output().code() != 0 {
        skip!("no user namespaces here");
    }
    let mut container = with_one_id(Container::new(), 0);
    // Another user namespace inside, or none.
    for inner in [true, false] {
        if !inner {
            container
                .bundle
                .without_namespace("user")
                .remove("linux/uidMappings")
                .remove("linux/gidMappings");
        }
        container.bundle.probe("status uid_map");
        let output = container.call("run", &[]).behind(OUTER).output().ok();
        let report = output.json();
        assert_eq!(report["status"]["Uid"], "0\t0\t0\t0");
        let map = report["uid_map"][0].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let outside = if inner { 0 } else { rustix::process::geteuid().as_raw() };
        assert_eq!(map, format!("0 {outside} 1"));
        container.assert_clean(&output);
    }
}

/// A rootless container that waits, with clocks of its own.
fn idle_with_clocks() -> Container {
    let mut container = with_one_id(Container::idle(), NOBODY);
    container.bundle.namespace("time", None);
    container
        .bundle
        .set("linux/timeOffsets", json!({ "monotonic": { "secs": 7881, "nanosecs": 2_718_281 } }));
    container
}

#[test]
fn a_created_container_is_entered_before_it_runs() {
    needs_root!("may become another user");
    let container = idle_with_clocks();
    let create = container.call("create", &[]);
    let Some(create) = as_nobody(&container, create) else { skip!("a user cannot reach the runtime") };
    create.output().ok();
    let run = |cmd: Cmd| as_nobody(&container, cmd).map(Cmd::output).unwrap().ok();
    let seen = run(container.exec(&[], &["cat", "/proc/self/timens_offsets"]));
    let clock: Vec<&str> = seen.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(clock, ["monotonic", "7881", "2718281"], "{seen}");
    assert_eq!(container.status(), "created");
    run(container.call("start", &[]));
    container.wait_file("ready");
    run(container.call("delete", &["--force"]));
}

#[test]
fn the_agent_gets_the_listener_of_an_ordinary_users_container() {
    needs_root!("may become another user");
    let mut container = with_one_id(Container::shell("true"), NOBODY);
    let socket = FdSocket::listen(&container.scratch().join("agent"));
    let rule = json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]);
    container.bundle.set(
        "linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket.path(), "syscalls": rule }),
    );
    for no_new_privileges in [true, false] {
        container.bundle.set("process/noNewPrivileges", no_new_privileges);
        let run = container.call("run", &[]);
        let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
        let run = run.spawn();
        assert_eq!(socket.receive().fds.len(), 1);
        run.output().ok();
    }
}

#[test]
fn a_container_of_the_same_user_is_joined_although_setgroups_is_denied_there() {
    needs_root!("may become another user");
    let mut container = idle_with_clocks();
    let run = container.call("run", &["--detach"]);
    let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
    run.output().ok();
    container.wait_file("ready");
    let pid = container.init().pid();
    let mut second = container.bundle.config.clone();
    for ids in ["uidMappings", "gidMappings", "timeOffsets"] {
        second["linux"].as_object_mut().unwrap().remove(ids);
    }
    let kinds = [
        ("user", "user"),
        ("time", "time"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
    ];
    let joined =
        |(kind, file): &(&str, &str)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") });
    second["linux"]["namespaces"] = kinds.iter().map(joined).chain([json!({ "type": "mount" })]).collect();
    second.as_object_mut().unwrap().remove("hostname");
    second["process"]["args"] = json!(["/bin/probe", "ns", "status", "timens"]);
    container.bundle.config = second;
    let output = container.cmd(["run", &format!("{}-b", container.id())]);
    let report = as_nobody(&container, output).unwrap().output().ok().json();
    for (_, file) in kinds {
        let of_first = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(report["ns"][file].as_str().unwrap(), of_first.to_str().unwrap(), "{file}: {report}");
    }
    container.call("delete", &["--force"]).output().ok();
}

#[test]
fn without_a_cgroup_the_mount_shows_the_callers() {
    needs_root!("may become another user");
    if cgroups::mount("pids").is_none() {
        skip!("no pids controller");
    }
    let hierarchy = if cgroups::is_v2() { "" } else { "/pids" };
    let script = format!("cat /sys/fs/cgroup{hierarchy}/cgroup.procs | wc -l");
    let mut container = with_one_id(Container::shell(&script), NOBODY);
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    let run = container.call("run", &[]);
    let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
    let output = run.output().ok();
    assert!(output.stdout.trim().parse::<u32>().unwrap() > 0, "{output}");
}

#[test]
fn nobody_could_tell_the_processes_of_a_container_without_cgroup_and_pid_namespace() {
    needs_root!("may become another user");
    let mut container = with_one_id(Container::shell("true"), NOBODY);
    container.bundle.without_namespace("pid");
    container
        .bundle
        .set("mounts/0", json!({ "destination": "/proc", "source": "/proc", "options": ["rbind"] }));
    for (pid, warned) in [(false, true), (true, false)] {
        if pid {
            container.bundle.namespace("pid", None);
        }
        let run = container.call("run", &[]);
        let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
        let output = run.output().ok();
        assert_eq!(output.stderr.contains("strongly discouraged"), warned, "{output}");
    }
}
