//! What crun has beyond runc: expressions for ids, files of other names, who makes cgroups.

use creel_integration::{Container, Runtime, cgroups, is_creel, skip, wait};
use serde_json::Value;

/// Two running containers below one root, the second one's id with a suffix.
fn two() -> (Container, String) {
    let container = Container::idle();
    container.run_detached();
    container.wait_file("ready");
    let second = format!("{}-b", container.id());
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(container.bundle.dir().join("config.json")).unwrap())
            .unwrap();
    let path = format!("{}-b", config["linux"]["cgroupsPath"].as_str().unwrap());
    config["linux"]["cgroupsPath"] = path.into();
    let file = container.scratch().file("second.json", config.to_string());
    std::fs::remove_file(container.bundle.rootfs("ready")).unwrap();
    container.cmd(["run", "--detach", "--config", file.to_str().unwrap(), &second]).output().ok();
    container.wait_file("ready");
    (container, second)
}

fn status(container: &Container, id: &str) -> String {
    let output = container.cmd(["state", id]).output();
    if output.code() == 0 { output.json()["status"].as_str().unwrap().to_owned() } else { "none".to_owned() }
}

fn crun_only() -> bool {
    is_creel() || Runtime::under_test().path().ends_with("crun")
}

#[test]
fn an_expression_kills_and_deletes_every_container_that_it_matches() {
    if !crun_only() {
        skip!("runc has no --regex");
    }
    let (container, second) = two();
    let ids = format!("^{}(-b)?$", container.id());
    container.cmd(["kill", "--regex", "nomatch", "KILL"]).output().ok();
    assert_eq!(status(&container, &second), "running");
    container.cmd(["kill", "-r", &format!("{}-[b]$", container.id()), "KILL"]).output().ok();
    wait::until("the second one has stopped", || status(&container, &second) == "stopped");
    assert_eq!(container.status(), "running");
    if is_creel() {
        // The first one still runs; the second one is gone all the same.
        let output = container.cmd(["delete", "--regex", &ids]).output().exits(1);
        output.says(&[container.id(), "is not stopped: running"]);
        assert_eq!(status(&container, &second), "none");
    }
    container.cmd(["delete", "--force", "--regex", &ids]).output().ok();
    assert_eq!(status(&container, container.id()), "none");
    if is_creel() {
        let output = container.cmd(["kill", "--regex", "(", "KILL"]).output().exits(1);
        output.says(&["invalid regular expression"]);
    }
}

#[test]
fn all_processes_of_a_container_get_a_signal_of_all() {
    if cgroups::mount("pids").is_none() && !cgroups::is_v2() {
        skip!("no cgroup to tell who is inside");
    }
    if !crun_only() {
        skip!("runc 1.5 signals init alone");
    }
    // Init outlives its child, which alone dies of USR1.
    let container = Container::shell(
        "trap 'touch /init-usr1' USR1; sh -c 'trap \"touch /child-usr1; exit\" USR1; touch /ready; while true; do sleep 1; done' & \
         while true; do wait; sleep 0.1; done",
    );
    container.run_detached();
    container.wait_file("ready");
    container.cmd(["kill", "--all", container.id(), "USR1"]).output().ok();
    container.wait_file("child-usr1");
    container.wait_file("init-usr1");
    let init = container.init();
    container.cmd(["kill", "-a", container.id(), "KILL"]).output().ok();
    init.exited();
    // runc's meaning of the flag: nobody there is no error.
    container.cmd(["kill", "-a", container.id(), "KILL"]).output().ok();
    container.cmd(["kill", container.id(), "KILL"]).output().exits(1).says(&["not running"]);
    container.delete();
}

#[test]
fn another_config_than_the_bundles_is_read() {
    if !crun_only() {
        skip!("runc has no --config");
    }
    let mut container = Container::shell("echo bundle");
    assert_eq!(container.run().ok().stdout, "bundle\n");
    let text = std::fs::read_to_string(container.bundle.dir().join("config.json")).unwrap();
    let other = container.scratch().file("other.json", text.replace("echo bundle", "echo other"));
    let other = other.to_str().unwrap();
    assert_eq!(container.call("run", &["--config", other]).output().ok().stdout, "other\n");
    assert_eq!(container.call("run", &["-f", other]).output().ok().stdout, "other\n");
    container.bundle.shell("true");
    let output = container.call("create", &["--config", "/nonexistent/c.json"]).output().exits(1);
    output.says(&["/nonexistent/c.json"]);
}

#[test]
fn spec_goes_to_the_file_that_is_named() {
    if !crun_only() {
        skip!("runc has no spec --file");
    }
    let container = Container::new();
    let dir = container.scratch().dir("spec");
    let dir = dir.to_str().unwrap();
    container.cmd(["spec", "--bundle", dir, "--file", "other.json"]).output().ok();
    let text = std::fs::read_to_string(format!("{dir}/other.json")).unwrap();
    assert!(serde_json::from_str::<Value>(&text).unwrap()["ociVersion"].is_string());
    assert!(!std::path::Path::new(dir).join("config.json").exists());
    container.cmd(["spec", "-b", dir, "-f", "other.json"]).output().exits(1).says(&["other.json exists"]);
}

#[test]
fn without_a_cgroup_manager_the_container_stays_in_the_callers_cgroups() {
    if !crun_only() {
        skip!("runc has no --cgroup-manager");
    }
    let mut container = Container::shell("cat /proc/self/cgroup");
    container.bundle.remove("linux/resources");
    let output = container.cmd_with(&["--cgroup-manager", "disabled"], ["run", container.id()]).output().ok();
    assert!(!output.stdout.contains(container.id()), "{output}");
    if is_creel() {
        container.bundle.set("linux/resources/pids/limit", 5);
        let output = container.cmd_with(&["--cgroup-manager=disabled"], ["run", container.id()]).output();
        output.exits(1).says(&[".linux.resources.pids.limit", "a limit needs a cgroup"]);
        container.bundle.remove("linux/resources");
    }
    let output = container.cmd_with(&["--cgroup-manager", "cgroupfs"], ["run", container.id()]).output().ok();
    assert!(output.stdout.contains(container.id()), "{output}");
}

#[test]
fn levels_of_the_log_are_named() {
    if !crun_only() {
        skip!("runc has no --log-level");
    }
    let container = Container::new();
    let log = container.scratch().join("log");
    let target = format!("file:{}", log.display());
    for (level, seen) in [("error", false), ("debug", true)] {
        container.cmd_with(&["--log", &target, "--log-level", level], ["list"]).output().ok();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap().contains("level=debug") && is_creel(),
            seen && is_creel()
        );
    }
}
