//! create, start, state, kill, delete, run and list.

use creel_integration::wait::Process;
use creel_integration::{
    Cmd, Container, Runtime, cgroups, ids, is_creel, needs_root, needs_runc, probe, skip,
};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn container_goes_from_created_to_running_to_stopped() {
    let container = Container::idle();
    container.create();
    assert_eq!(container.status(), "created");
    let init = container.init();
    container.start();
    assert_eq!(container.status(), "running");
    container.kill("KILL");
    assert_eq!(init.exited(), Some(128 + 9));
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.state()["pid"], json!(0));
    container.delete();
}

#[test]
fn process_does_not_run_before_start() {
    let container = Container::shell("touch /ran; sleep 100");
    container.create();
    assert!(!container.bundle.rootfs("ran").exists());
    container.start();
    container.wait_file("ran");
    container.stop_and_delete();
}

#[test]
fn run_in_foreground_deletes_the_container() {
    let container = Container::shell("echo done");
    assert_eq!(container.run().ok().stdout, "done\n");
    container.call("state", &[]).output().exits(1).says(&["does not exist"]);
}

#[test]
fn run_keep_leaves_a_stopped_container() {
    let container = Container::shell("exit 3");
    container.call("run", &["--keep"]).output().exits(3);
    assert_eq!(container.status(), "stopped");
    container.delete();
}

#[test]
fn run_detached_returns_while_the_container_runs() {
    let container = Container::idle();
    container.run_detached();
    assert_eq!(container.status(), "running");
    container.stop_and_delete();
}

#[test]
fn run_without_subreaper_gives_the_exit_code() {
    Container::shell("exit 5").call("run", &["--no-subreaper"]).output().exits(5);
}

#[test]
fn foreground_run_forwards_signals() {
    let container =
        Container::shell("trap 'exit 42' USR1; touch /ready; while true; do sleep 100 & wait $!; done");
    let running = container.call("run", &[]).spawn();
    container.wait_file("ready");
    running.signal(Signal::USR1);
    let output = running.output().exits(42);
    container.assert_clean(&output);
}

#[test]
fn state_shows_the_container() {
    let mut container = Container::idle();
    container.bundle.set("annotations", json!({ "org.example.key": "value" }));
    container.create();
    let state = container.state();
    let bundle = container.bundle.dir().to_str().unwrap();
    assert_eq!(state["id"], container.id());
    assert_eq!(state["bundle"], bundle);
    assert_eq!(state["rootfs"], format!("{bundle}/rootfs"));
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let created = probe::text(&state, "created");
    assert!(created.len() > 19 && created.as_bytes()[10] == b'T', "{created}");
    assert!(state.get("owner").is_some());
}

#[test]
fn list_shows_containers_in_three_forms() {
    let container = Container::idle();
    assert_eq!(container.cmd(["list", "--format", "json"]).output().ok().stdout.trim(), "null");
    assert_eq!(container.cmd(["list", "-q"]).output().ok().stdout, "");
    container.create();
    let pid = container.init().pid();
    assert_eq!(container.cmd(["list", "--quiet"]).output().ok().stdout, format!("{}\n", container.id()));
    let rows = container.cmd(["list", "-f", "json"]).output().ok().json();
    assert_eq!(rows[0]["id"], container.id());
    assert_eq!(rows[0]["pid"], pid);
    let owner = ids::name(rustix::process::geteuid().as_raw()).unwrap();
    assert_eq!(rows[0]["owner"], owner.as_str());
    let table = container.cmd(["list"]).output().ok().stdout;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row = lines.next().unwrap();
    assert_eq!(row[..3], [container.id(), &pid.to_string(), "created"]);
    assert_eq!(row[3], container.bundle.dir().to_str().unwrap());
    assert_eq!(row[5], owner);
}

#[test]
fn list_of_a_named_root_that_does_not_exist_fails() {
    needs_runc!(2, "an error for a missing root");
    let container = Container::new();
    let missing = container.scratch().join("missing");
    Cmd::new(Runtime::under_test().path())
        .args(["--root".as_ref(), missing.as_os_str()])
        .args(["list"])
        .output()
        .exits(1);
}

#[test]
fn delete_of_a_missing_container_fails_unless_forced() {
    let container = Container::new();
    container.call("delete", &[]).output().exits(1).says(&["does not exist"]);
    container.call("delete", &["--force"]).output().ok();
    container.call("delete", &["-f"]).output().ok();
    for command in ["state", "start", "kill"] {
        container.call(command, &[]).output().exits(1).says(&["does not exist"]);
    }
}

#[test]
fn taken_id_is_refused_and_the_first_container_stays() {
    let container = Container::idle();
    container.create();
    let pid = container.init().pid();
    container.call("create", &[]).output().exits(1).says(&["container with given ID already exists"]);
    container.call("run", &[]).output().exits(1).says(&["container with given ID already exists"]);
    assert_eq!(container.status(), "created");
    assert_eq!(container.init().pid(), pid);
    container.start();
    container.stop_and_delete();
}

#[test]
fn malformed_ids_are_refused() {
    let container = Container::new();
    for id in ["", ".", "..", "a/b", "../a", "a b", "a\n", "ä", "a:b", "a*"] {
        let output = container.cmd(["create", id]).output();
        assert_eq!(output.code(), 1, "id {id:?}\n{output}");
        container.assert_clean(&output);
        let output = container.cmd(["delete", "--force", id]).output();
        assert!(output.code() != -11, "id {id:?}\n{output}");
    }
}

#[test]
fn every_character_of_the_id_alphabet_is_accepted() {
    let mut container = Container::new();
    container.bundle.args(["/bin/true"]);
    let id = format!("{}_A.z+9", container.id());
    container.cmd(["run", &id]).output().ok();
}

#[test]
fn delete_of_a_running_container_is_refused() {
    let container = Container::idle();
    container.run_detached();
    container.call("delete", &[]).output().exits(1).says(&["is not stopped", "running"]);
    assert_eq!(container.status(), "running");
    let init = container.init();
    let output = container.call("delete", &["--force"]).output().ok();
    init.exited();
    container.assert_clean(&output);
}

#[test]
fn delete_of_a_created_container_needs_no_force() {
    let container = Container::idle();
    container.create();
    container.delete();
}

#[test]
fn delete_force_of_a_stopped_container_works() {
    let container = Container::idle();
    container.run_detached();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn kill_of_a_stopped_container_is_refused() {
    let container = Container::idle();
    container.run_detached();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.call("kill", &[]).output().exits(1).says(&["container not running"]);
    container.cmd(["kill", container.id(), "0"]).output().exits(1).says(&["container not running"]);
    container.cmd(["kill", "--all", container.id(), "KILL"]).output().ok();
    container.delete();
}

#[test]
fn signals_go_by_name_and_by_number() {
    for (signal, expected) in [("USR1", 1), ("SIGUSR1", 1), ("10", 1), ("usr1", 1), ("TERM", 3)] {
        let script =
            "trap 'exit 1' USR1; trap 'exit 3' TERM; touch /ready; while true; do sleep 100 & wait $!; done";
        let container = Container::shell(script);
        container.run_detached();
        container.wait_file("ready");
        let init = container.init();
        container.kill(signal);
        assert_eq!(init.exited(), Some(expected), "signal {signal}");
        container.delete();
    }
}

#[test]
fn kill_sends_term_by_default() {
    let container =
        Container::shell("trap 'exit 9' TERM; touch /ready; while true; do sleep 100 & wait $!; done");
    container.run_detached();
    container.wait_file("ready");
    let init = container.init();
    container.call("kill", &[]).output().ok();
    assert_eq!(init.exited(), Some(9));
    container.delete();
}

#[test]
fn unknown_signals_are_refused() {
    let container = Container::idle();
    container.create();
    for signal in ["NOSUCH", "SIG", "999", "-1"] {
        container.cmd(["kill", container.id(), signal]).output().exits(1);
    }
    assert_eq!(container.status(), "created");
}

#[test]
fn kill_without_pid_namespace_ends_every_process() {
    needs_root!("may mount procfs of the host's PID namespace");
    needs_runc!(2, "kill of a whole cgroup without --all");
    let mut container = Container::shell("sleep 1000 & : > /ready; exec sleep 1000");
    container.bundle.without_namespace("pid");
    container.run_detached();
    container.wait_file("ready");
    let pids = cgroups::read("pids", &container.cgroup(), "cgroup.procs").unwrap();
    let processes: Vec<Process> =
        pids.lines().filter_map(|pid| Process::open(pid.parse().unwrap())).collect();
    assert_eq!(processes.len(), 2, "{pids}");
    container.kill("KILL");
    for process in &processes {
        process.exited();
    }
    container.delete();
}

#[test]
fn kill_without_pid_namespace_and_cgroup_ends_init() {
    needs_root!("may mount procfs of the host's PID namespace");
    if !is_creel() {
        skip!("runc has no --cgroup-manager");
    }
    let mut container = Container::idle();
    container.with_global("--cgroup-manager=disabled");
    container.bundle.without_namespace("pid").remove("linux/resources");
    container.run_detached();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.cmd(["kill", container.id(), "KILL"]).output().exits(1).says(&["container not running"]);
    container.delete();
}

#[test]
fn second_start_is_refused() {
    let container = Container::idle();
    container.run_detached();
    container.call("start", &[]).output().exits(1).says(&["cannot start an already running container"]);
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.call("start", &[]).output().exits(1).says(&["cannot start a container that has stopped"]);
    container.delete();
}

#[test]
fn bundle_is_named_in_every_way_that_callers_use() {
    let container = Container::shell("exit 4");
    let dir = container.bundle.dir().to_str().unwrap();
    let equals = format!("--bundle={dir}");
    let ways: [&[&str]; 4] = [&["--bundle", dir], &["-b", dir], &[&equals], &["-bundle", dir]];
    for way in ways {
        let output = container.call("run", way).cwd(container.scratch().path()).output().exits(4);
        container.assert_clean(&output);
    }
}

#[test]
fn runtime_under_the_name_runc_behaves_the_same() {
    let container = Container::shell("exit 4");
    container.bundle.write();
    let link = container.scratch().join("runc");
    std::os::unix::fs::symlink(Runtime::under_test().path(), &link).unwrap();
    let root = container.root();
    let args = ["--root", root.to_str().unwrap(), "run", container.id()];
    let output = Cmd::new(&link).args(args).cwd(container.bundle.dir()).output().exits(4);
    container.assert_clean(&output);
}

#[test]
fn create_that_dies_half_way_leaves_what_delete_force_removes() {
    if !is_creel() {
        skip!("runc keeps no record of the cgroup at this point");
    }
    let mut container = Container::idle();
    // The hook's parent is the runtime: it dies in the middle of create, without any cleanup.
    container
        .bundle
        .set("hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] }]));
    let output = container.call("create", &[]).output();
    assert_ne!(output.code(), 0, "{output}");
    container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn state_directory_may_be_reused_after_delete() {
    let container = Container::shell("exit 6");
    for _ in 0..3 {
        container.run().exits(6);
    }
}

#[test]
fn wrong_number_of_arguments_is_refused() {
    let container = Container::new();
    for args in
        [&["create"][..], &["start"], &["state", "a", "b"], &["delete"], &["kill"], &["nosuchcommand"]]
    {
        let output = container.cmd(args).output();
        assert_ne!(output.code(), 0, "{output}");
        container.assert_clean(&output);
    }
    container.cmd(["create", "--nosuchflag", "x"]).output().exits(1);
}
