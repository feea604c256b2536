//! pause and resume.

use creel_integration::{Container, cgroups, is_creel, skip, wait};

/// A running container that counts in the file `count` as long as it can.
fn counting() -> Option<Container> {
    if !cgroups::is_v2() && cgroups::mount("freezer").is_none() {
        return None;
    }
    let container = Container::shell("while true; do echo >> /count; done");
    container.run_detached();
    container.wait_file("count");
    Some(container)
}

fn count(container: &Container) -> u64 {
    container.bundle.rootfs("count").metadata().unwrap().len()
}

#[test]
fn paused_container_stands_still_until_resumed() {
    let Some(container) = counting() else { skip!("no freezer") };
    container.call("pause", &[]).output().ok();
    assert_eq!(container.status(), "paused");
    let stopped_at = count(&container);
    // Far longer than one turn of the loop.
    assert_eq!(container.call("ps", &[]).output().ok().stdout.lines().count(), 2);
    assert_eq!(count(&container), stopped_at);
    container.call("resume", &[]).output().ok();
    assert_eq!(container.status(), "running");
    wait::until("it goes on", || count(&container) > stopped_at);
    container.stop_and_delete();
}

#[test]
fn created_container_can_be_paused_and_is_started_only_after_resume() {
    if !cgroups::is_v2() && cgroups::mount("freezer").is_none() {
        skip!("no freezer");
    }
    let container = Container::idle();
    container.create();
    container.call("pause", &[]).output().ok();
    assert_eq!(container.status(), "paused");
    container.call("start", &[]).output().exits(1).says(&["cannot start a container in the paused state"]);
    container.call("resume", &[]).output().ok();
    assert_eq!(container.status(), "created");
    container.start();
    container.call("start", &[]).output().exits(1).says(&["cannot start an already running container"]);
    container.call("pause", &[]).output().ok();
    container.call("start", &[]).output().exits(1).says(&["cannot start a container in the paused state"]);
    container.call("resume", &[]).output().ok();
    container.stop_and_delete();
}

#[test]
fn status_decides_what_may_be_paused_and_resumed() {
    let Some(container) = counting() else { skip!("no freezer") };
    container.call("resume", &[]).output().exits(1).says(&["container not paused"]);
    container.call("pause", &[]).output().ok();
    container.call("pause", &[]).output().exits(1).says(&["container not running"]);
    assert_eq!(container.status(), "paused");
    container.call("resume", &[]).output().ok();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.call("pause", &[]).output().exits(1).says(&["container not running"]);
    container.call("resume", &[]).output().exits(1).says(&["container not paused"]);
    container.delete();
}

#[test]
fn missing_container_is_not_paused() {
    let container = Container::new();
    for command in ["pause", "resume"] {
        let output = container.call(command, &[]).output().exits(1).says(&["container does not exist"]);
        if is_creel() {
            output.says(&[command, container.id()]);
        }
        container.cmd([command]).output().exits(1).says(&["requires exactly 1 argument"]);
    }
}
