//! exec.

use creel_integration::sockets::FdSocket;
use creel_integration::{Container, cgroups, is_creel, probe, pty, skip, wait};
use serde_json::json;

fn running() -> Container {
    let container = Container::idle();
    container.run_detached();
    container
}

fn running_with(edit: impl FnOnce(&mut Container)) -> Container {
    let mut container = Container::idle();
    edit(&mut container);
    container.run_detached();
    container
}

#[test]
fn output_and_exit_code_are_those_of_the_process() {
    let container = running();
    let output = container.exec(&[], &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]).output().exits(7);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    container.exec(&[], &["/bin/sh", "-c", "kill -TERM $$"]).output().exits(128 + 15);
    container.exec(&[], &["true"]).output().ok();
}

#[test]
fn stdin_reaches_the_process() {
    let container = running();
    let input = container.scratch().file("input", "line\n");
    let output = container.exec(&[], &["cat"]).stdin(std::fs::File::open(input).unwrap()).output().ok();
    assert_eq!(output.stdout, "line\n");
}

#[test]
fn process_joins_the_containers_namespaces_and_cgroup() {
    let container = running();
    let report = container.exec_seen(&[], "ns cgroup ids");
    let own = |name: &str| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{name}", container.init().pid())).unwrap();
        link.to_str().unwrap().to_owned()
    };
    for name in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        assert_eq!(probe::text(&report, &format!("ns/{name}")), own(name), "{name}");
    }
    let of_init = std::fs::read_to_string(format!("/proc/{}/cgroup", container.init().pid())).unwrap();
    let v1 = |lines: &[&str]| {
        lines
            .iter()
            .filter(|line| !line.starts_with("0::"))
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    let of_exec: Vec<&str> =
        report["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(v1(&of_exec), v1(&of_init.lines().collect::<Vec<_>>()));
}

#[test]
fn environment_is_the_containers_with_the_flags_appended() {
    let container = running_with(|c| {
        c.bundle.set("process/env/-", "OWN=1");
    });
    let report = container.exec_seen(&["-e", "A=b", "-e", "C=d e"], "env");
    let env = report["env"].as_array().unwrap();
    for expected in ["OWN=1", "A=b", "C=d e", "HOME=/root"] {
        assert!(env.contains(&json!(expected)), "{expected} in {env:?}");
    }
}

#[test]
fn environment_variable_of_the_flags_wins() {
    let container = running_with(|c| {
        c.bundle.set("process/env/-", "NAME=old");
    });
    let output = container.exec(&["--env", "NAME=new"], &["sh", "-c", "echo $NAME"]).output().ok();
    assert_eq!(output.stdout, "new\n");
}

#[test]
fn working_directory_is_set_by_flag() {
    let container = running_with(|c| {
        c.bundle.set("process/cwd", "/home");
    });
    assert_eq!(container.exec_seen(&[], "cwd")["cwd"], "/home");
    assert_eq!(container.exec_seen(&["--cwd", "/tmp"], "cwd")["cwd"], "/tmp");
    assert_eq!(container.exec_seen(&["--cwd=/etc"], "cwd")["cwd"], "/etc");
}

#[test]
fn user_and_groups_are_set_by_flag() {
    let container = running();
    let report = container.exec_seen(&["--user", "1000"], "status");
    assert_eq!(probe::text(&report, "status/Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(probe::text(&report, "status/Gid"), "0\t0\t0\t0");
    let report = container.exec_seen(&["-u", "1000:1001", "-g", "7", "-g", "8"], "status");
    assert_eq!(probe::text(&report, "status/Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(probe::text(&report, "status/Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(probe::text(&report, "status/Groups"), "7 8");
}

#[test]
fn malformed_users_are_refused() {
    // CVE-2026-30892: a user that does not parse must not become another user.
    if !is_creel() {
        skip!("runc takes some of these for user 0");
    }
    let container = running();
    for user in ["", "a", "0x1", "1:", ":1", "4294967296", "1 ", "-1", "1:2:3"] {
        let output = container.exec(&["--user", user], &["/bin/id"]).output();
        assert!([1, 255].contains(&output.code()), "user {user:?}\n{output}");
    }
}

#[test]
fn process_file_without_oom_score_adj_gets_the_containers() {
    let mut container = Container::idle();
    container.bundle.set("process/oomScoreAdj", 321);
    container.run_detached();
    // runc takes the container's even then.
    let own = if is_creel() { "456" } else { "321" };
    for (own, expected) in [(None, "321"), (Some(456), own)] {
        let mut process = json!({ "args": ["/bin/probe", "oom"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "capabilities": {}, "noNewPrivileges": true });
        own.iter().for_each(|score| process["oomScoreAdj"] = json!(score));
        let file = container.scratch().file("process.json", process.to_string());
        let exec = container.cmd(["exec", "--process", file.to_str().unwrap(), container.id()]);
        assert_eq!(exec.output().ok().json()["oom"], expected);
    }
}

#[test]
fn process_file_is_the_whole_process() {
    let container = running();
    let process = json!({
        "args": ["/bin/probe", "status", "cwd", "env", "limits"],
        "cwd": "/tmp",
        "env": ["ONLY=this"],
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [5] },
        "rlimits": [{ "type": "RLIMIT_CORE", "soft": 64, "hard": 128 }],
        "noNewPrivileges": true,
    });
    let file = container.scratch().file("process.json", process.to_string());
    let report =
        container.cmd(["exec", "--process", file.to_str().unwrap(), container.id()]).output().ok().json();
    assert_eq!(report["cwd"], "/tmp");
    assert!(report["env"].as_array().unwrap().contains(&json!("ONLY=this")));
    assert!(!report["env"].to_string().contains("TERM="));
    assert_eq!(probe::text(&report, "status/Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(probe::text(&report, "status/Groups"), "5");
    assert_eq!(probe::text(&report, "status/NoNewPrivs"), "1");
    assert_eq!(report["limits"]["Max core file size"], json!(["64", "128"]));
}

#[test]
fn flags_end_at_the_first_positional() {
    let container = running();
    let output = container.exec(&[], &["echo", "-e", "--user", "x", "-t"]).output().ok();
    assert_eq!(output.stdout.trim_end(), "--user x -t");
}

#[test]
fn own_failures_end_with_255() {
    let container = running();
    container.exec(&[], &["nosuchprogram"]).output().exits(255).says(&["executable file not found in $PATH"]);
    container
        .exec(&[], &["/bin/nosuch"])
        .output()
        .exits(255)
        .says(&["no such file or directory", "/bin/nosuch"]);
    container.exec(&[], &["/etc/passwd"]).output().exits(255).says(&["permission denied"]);
    container.exec(&["--cwd", "/nosuch"], &["true"]).output().exits(255).creel_says(&["/nosuch"]);
    container.cmd(["exec", "nosuchcontainer", "true"]).output().exits(255).says(&["does not exist"]);
    let output = container.cmd(["exec", container.id()]).output();
    assert!([1, 255].contains(&output.code()), "{output}");
}

#[test]
fn detached_process_outlives_the_command_and_has_a_pid_file() {
    let container = running();
    let file = container.scratch().join("exec.pid");
    let script = "trap 'exit 3' TERM; touch /trapped; while true; do sleep 100 & wait $!; done";
    container.exec(&["-d", "--pid-file", file.to_str().unwrap()], &["sh", "-c", script]).output().ok();
    container.wait_file("trapped");
    let pid = std::fs::read_to_string(file).unwrap();
    let process = wait::Process::open(pid.parse().unwrap()).unwrap();
    let pids = cgroups::read("pids", &container.cgroup(), "cgroup.procs").unwrap();
    assert!(pids.lines().any(|line| line == pid), "{pid} in {pids}");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(process.pid()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(process.exited(), Some(3));
    container.stop_and_delete();
}

#[test]
fn detached_process_keeps_no_pipe_of_the_runtime_open() {
    let container = running();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    container.exec(&["--detach"], &["echo", "said"]).spawn_with(write, null).output().ok();
    assert_eq!(wait::read_to_end(read), b"said\n");
}

#[test]
fn capabilities_are_added_but_not_to_the_inheritable_set() {
    // CVE-2022-29162.
    let container = running();
    let without = container.exec_seen(&[], "status");
    let report = container.exec_seen(&["--cap", "CAP_NET_RAW"], "status");
    let raw = 1u64 << 13;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let bits = |report| u64::from_str_radix(probe::text(report, &format!("status/{set}")), 16).unwrap();
        assert_eq!(bits(&report), bits(&without) | raw, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(report["status"][set], "0000000000000000", "{set}");
    }
}

#[test]
fn no_new_privileges_is_set_by_flag() {
    let container = running_with(|c| {
        c.bundle.set("process/noNewPrivileges", false);
    });
    assert_eq!(container.exec_seen(&[], "status")["status"]["NoNewPrivs"], "0");
    assert_eq!(container.exec_seen(&["--no-new-privs"], "status")["status"]["NoNewPrivs"], "1");
}

#[test]
fn no_file_descriptor_above_two_reaches_the_process() {
    let container = running();
    let report = container.exec_seen(&[], "fds");
    assert_eq!(report["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"], "{report:#}");
}

#[test]
fn preserved_descriptors_reach_the_process() {
    let container = running();
    let file = container.scratch().file("preserved", "content");
    let shell = format!("exec \"$@\" 3<{0} 4<{0}", file.display());
    let output =
        container.exec(&["--preserve-fds", "2"], &["/bin/probe", "fds"]).through_shell(&shell).output();
    let report = output.ok().json();
    assert_eq!(
        report["fds"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4"],
        "{report:#}"
    );
}

#[test]
fn terminal_goes_through_the_console_socket() {
    let container = running();
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let path = socket.path().to_str().unwrap().to_owned();
    let running = container
        .exec(&["-t", "-d", "--console-socket", &path], &["sh", "-c", "tty; read x; echo got $x"])
        .spawn();
    let (master, _) = socket.receive_one();
    running.output().ok();
    let mut master = pty::Master::new(master);
    master.expect("/dev/pts/");
    master.send("word\n");
    master.expect("got word");
}

#[test]
fn terminal_in_the_foreground_is_relayed() {
    let container = running();
    let (mut master, slave) = pty::open();
    let out = slave.try_clone().unwrap();
    let err = slave.try_clone().unwrap();
    let running = container
        .exec(&["--tty"], &["sh", "-c", "tty; read x; echo got $x; exit 6"])
        .behind(["setsid", "--ctty"])
        .stdin(slave)
        .spawn_with(out, err);
    master.expect("/dev/pts/");
    master.send("word\n");
    master.expect("got word");
    running.output().exits(6);
}

#[test]
fn created_container_can_be_entered() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.exec(&[], &["echo", "in"]).output().ok().stdout, "in\n");
    assert_eq!(container.status(), "created");
}

#[test]
fn stopped_container_cannot_be_entered() {
    let container = running();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.exec(&[], &["true"]).output().exits(255).says(&["cannot exec in a stopped container"]);
    container.delete();
}

/// Freezes the container as `pause` does, once its program runs; false when there is no freezer.
fn pause(container: &Container) -> bool {
    container.wait_file("ready");
    cgroups::freeze(&container.cgroup(), true)
}

#[test]
fn paused_container_is_entered_only_when_asked() {
    let container = running();
    if !pause(&container) {
        skip!("no freezer");
    }
    assert_eq!(container.status(), "paused");
    container.exec(&[], &["true"]).output().exits(255).says(&["paused"]);
    let running = container.exec(&["--ignore-paused"], &["echo", "late"]).spawn();
    cgroups::freeze(&container.cgroup(), false);
    assert_eq!(running.output().ok().stdout, "late\n");
    assert_eq!(container.status(), "running");
}

#[test]
fn killing_a_paused_container_thaws_it() {
    let container = running();
    if !pause(&container) {
        skip!("no freezer");
    }
    let init = container.init();
    container.kill("KILL");
    assert_eq!(init.exited(), Some(128 + 9));
    container.delete();
}

#[test]
fn deleting_a_paused_container_by_force_thaws_it() {
    let container = running();
    if !pause(&container) {
        skip!("no freezer");
    }
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn cgroup_outside_the_container_is_refused() {
    let container = running();
    for path in ["../..", "..", "/../..", "a/../../.."] {
        container.exec(&["--cgroup", path], &["true"]).output().exits(255);
    }
    container.exec(&["--cgroup", "nosuch"], &["true"]).output().exits(255);
}

#[test]
fn cgroup_below_the_container_is_joined() {
    let container = running();
    let Some(dir) = container.cgroup_dir("pids") else { skip!("no pids controller") };
    std::fs::create_dir(dir.join("sub")).unwrap();
    let flag = if cgroups::is_v2() { "sub" } else { "pids:sub" };
    let report = container.exec_seen(&["--cgroup", flag], "cgroup");
    let rows = report["cgroup"].to_string();
    assert!(rows.contains(&format!("{}/sub", container.cgroup())), "{rows}");
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

/// Domain controllers that are on in a cgroup keep processes out of it (cgroups(7)).
#[test]
fn an_init_that_moved_is_followed_when_its_cgroup_takes_no_process() {
    if !cgroups::is_v2() {
        skip!("no cgroup v2");
    }
    let container = running_with(|c| {
        c.bundle.namespace("cgroup", None).mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    });
    let sh = |script: &str| container.exec(&[], &["sh", "-c", script]).output().ok().stdout;
    sh("mkdir /sys/fs/cgroup/own && echo 1 >/sys/fs/cgroup/own/cgroup.procs");
    assert_eq!(sh("cat /proc/self/cgroup"), "0::/\n");
    container.wait_file("ready");
    sh(
        "cd /sys/fs/cgroup; for pid in $$ $(cat cgroup.procs); do echo $pid >own/cgroup.procs; done 2>/dev/null; \
        echo +memory >cgroup.subtree_control",
    );
    assert_eq!(sh("cat /proc/self/cgroup"), "0::/own\n");
    container.call("delete", &["--force"]).output().ok();
}

#[test]
fn many_processes_at_once() {
    let container = running();
    let all: Vec<_> =
        (0..8).map(|n| (n, container.exec(&[], &["sh", "-c", &format!("exit {n}")]).spawn())).collect();
    for (n, running) in all {
        running.output().exits(n);
    }
}

#[test]
fn limits_and_seccomp_of_the_container_hold() {
    let container = running_with(|c| {
        c.bundle.set("process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]));
        c.bundle.set(
            "linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }],
            }),
        );
    });
    let report = container.exec_seen(&[], "limits status call=chroot");
    assert_eq!(report["limits"]["Max open files"], json!(["100", "200"]));
    assert_eq!(report["status"]["Seccomp"], "2");
    assert_eq!(report["call"]["chroot"], "EACCES");
}

#[test]
fn a_cgroup_that_the_container_has_not_made_is_named() {
    if cgroups::mount("pids").is_none() {
        skip!("no pids controller");
    }
    let container = running();
    let output = container.exec(&["--cgroup", "nonexistent"], &["true"]).output().exits(255);
    output.says(&["adding pid ", "nonexistent", "o such file or directory"]);
    if !cgroups::is_v2() {
        let output = container.exec(&["--cgroup", "nonesuch:/"], &["true"]).output().exits(255);
        output.says(&["unknown controller nonesuch"]);
        container.exec(&["--cgroup", "pids:/"], &["true"]).output().ok();
    }
    container.exec(&["--cgroup", "/"], &["true"]).output().ok();
}
