//! The leak check itself: it must see what it is there for.

use creel_integration::{Cmd, Container, cgroups, needs_root, wait};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

#[test]
fn leaks_of_every_kind_are_seen() {
    needs_root!("may mount");
    let container = Container::new();
    assert!(container.leaks().is_empty());

    let target = container.scratch().dir("target");
    mount("creel-leak", &target, "tmpfs", MountFlags::empty(), None).unwrap();
    assert_eq!(container.leaks().mounts.len(), 1);
    unmount(&target, UnmountFlags::empty()).unwrap();

    let state = container.root().join("left");
    std::fs::create_dir(&state).unwrap();
    assert_eq!(container.leaks().state, ["left"]);
    std::fs::remove_dir(&state).unwrap();

    if let Some(pids) = cgroups::mount("pids") {
        let cgroup = pids.join(container.id());
        std::fs::create_dir(&cgroup).unwrap();
        assert_eq!(container.leaks().cgroups, std::slice::from_ref(&cgroup));
        std::fs::remove_dir(&cgroup).unwrap();
    }

    let process = Cmd::new("sleep").args(["1000"]).cwd(container.scratch().path()).spawn();
    let cwd = format!("/proc/{}/cwd", process.pid());
    wait::until("the process has changed its directory", || {
        std::fs::read_link(&cwd).is_ok_and(|dir| dir == container.scratch().path())
    });
    assert_eq!(container.leaks().processes.len(), 1);
    process.signal(Signal::KILL);
    assert_eq!(process.output().code(), -9);
    assert!(container.leaks().is_empty());
}

#[test]
fn names_of_other_tests_are_not_taken_for_ones_own() {
    needs_root!("may make cgroups at the top");
    let container = Container::new();
    let Some(pids) = cgroups::mount("pids") else { creel_integration::skip!("no pids controller") };
    let other = pids.join(format!("{}7", container.id()));
    std::fs::create_dir(&other).unwrap();
    let leaks = container.leaks();
    std::fs::remove_dir(&other).unwrap();
    assert!(leaks.is_empty(), "{leaks:?}");
}
