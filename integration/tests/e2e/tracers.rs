//! Other processes look into creel's while they make a container: they must not reach the host.

use std::fs;

use creel_integration::{Container, needs_root, skip};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

/// As many times is a container made under the eyes of a watcher.
const ROUNDS: usize = 25;

/// A container of root with few capabilities that tries the root directory of every process it sees for
/// a file of the host. `/ready` exists once it looks, `/escaped` once it has read the file.
fn watcher(secret: &str) -> Container {
    let script = format!(
        "touch /ready; while :; do for p in /proc/[0-9]*; do \
            if read -r word < $p/root{secret}; then echo $word > /escaped; fi; done; done 2>/dev/null"
    );
    let mut container = Container::shell(&script);
    container.bundle.capabilities(&["CAP_KILL", "CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    container
}

/// Runs `victim` until the watcher has seen what it must not.
#[track_caller]
fn watch(watcher: &Container, victim: &Container) {
    watcher.wait_file("ready");
    for round in 0..ROUNDS {
        victim.call("run", &[]).output().ok();
        assert!(!watcher.bundle.rootfs("escaped").exists(), "the host was read in round {round}");
    }
}

/// A file that no container has.
fn secret(container: &Container) -> String {
    let path = container.scratch().join("secret");
    fs::write(&path, "secret\n").unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn init_before_its_id_maps_is_closed_to_the_pid_namespace_that_it_joins() {
    needs_root!("may choose the ids");
    // Init is born as the host's root, on the host's mounts, in a user namespace that the watcher's user
    // owns: without more that would be enough to ptrace it (ptrace(2), user_namespaces(7)).
    let mut victim = Container::new();
    let watcher = watcher(&secret(&victim));
    watcher.run_detached();
    let path = format!("/proc/{}/ns/pid", watcher.init().pid());
    victim.bundle.user_namespace(100_000, 65536).namespace("pid", Some(&path));
    // A procfs shows the pid namespace, over which the user namespace has no rights.
    victim.bundle.set("mounts", json!([])).remove("linux/maskedPaths").remove("linux/readonlyPaths");
    watch(&watcher, &victim);
}

#[test]
fn init_before_its_id_maps_is_closed_to_the_hosts_pid_namespace() {
    needs_root!("may mount procfs of the host's PID namespace");
    let mut victim = Container::new();
    let mut watcher = watcher(&secret(&victim));
    watcher.bundle.without_namespace("pid");
    watcher.run_detached();
    victim.bundle.user_namespace(100_000, 65536);
    watch(&watcher, &victim);
}

#[test]
fn process_that_holds_a_mounts_id_maps_is_closed_to_the_hosts_pid_namespace() {
    if skip::kernel() < (6, 3) {
        skip!("a tmpfs cannot be idmapped before Linux 6.3");
    }
    let mut victim = Container::new();
    let source = victim.scratch().dir("source");
    if mount("none", &source, "tmpfs", MountFlags::empty(), None).is_err() {
        skip!("no mounts here");
    }
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    victim.bundle.set(
        "mounts/-",
        json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"],
            "uidMappings": map, "gidMappings": map }),
    );
    victim.accept_mounts();
    let mut watcher = watcher(&secret(&victim));
    watcher.bundle.without_namespace("pid");
    watcher.run_detached();
    watch(&watcher, &victim);
    unmount(&source, UnmountFlags::DETACH).unwrap();
}
