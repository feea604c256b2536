//! `mounts add` and `mounts remove` on a running container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use creel_integration::{Container, Output, is_creel, needs_root, probe, skip, wait};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

/// runc has no such command.
macro_rules! needs_creel {
    () => {
        if !is_creel() {
            skip!("runc has no mounts command");
        }
    };
}

fn file(container: &Container, mounts: &Value) -> PathBuf {
    container.scratch().file("mounts.json", mounts.to_string())
}

fn change(container: &Container, verb: &str, mounts: &Value) -> Output {
    let file = file(container, mounts);
    container.cmd(["mounts", verb, container.id(), file.to_str().unwrap()]).output()
}

fn idle() -> Container {
    let container = Container::idle();
    container.run_detached();
    container.wait_file("ready");
    container
}

fn is_mounted(container: &Container, target: &str) -> bool {
    let report = container.exec_seen(&[], "mounts");
    report["mounts"].as_array().unwrap().iter().any(|mount| mount["target"] == target)
}

#[test]
fn added_mounts_are_there_until_they_are_removed() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let container = idle();
    let data = container.scratch().dir("data");
    fs::write(data.join("f"), "hello").unwrap();
    let one = container.scratch().file("one", "single");
    let mounts = json!([
        { "destination": "/deep/a", "type": "bind", "source": data, "options": ["bind", "ro", "nosuid"] },
        { "destination": "/deep/a/../t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "noexec"] },
        { "destination": "/sealed", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] },
        { "destination": "/etc/one", "source": one, "options": ["bind"] }
    ]);
    change(&container, "add", &mounts).ok();
    let report = container.exec_seen(&[], "mounts text=/deep/a/f text=/etc/one");
    assert_eq!(
        (probe::text(&report, "text/~1deep~1a~1f"), probe::text(&report, "text/~1etc~1one")),
        ("hello", "single")
    );
    for (target, option) in
        [("/deep/a", "ro"), ("/deep/a", "nosuid"), ("/deep/t", "noexec"), ("/sealed", "ro")]
    {
        assert!(probe::has_mount_option(probe::mount(&report, target), option), "{target} {option}");
    }
    assert!(probe::has_option(probe::mount(&report, "/deep/t"), "size=1024k"), "{report:#}");
    container.exec(&[], &["touch", "/deep/a/g"]).output().exits(1);
    container.exec(&[], &["touch", "/deep/t/g"]).output().ok();
    // What was bound from the host stays the host's.
    let output = change(&container, "remove", &mounts).ok();
    for target in ["/deep/a", "/deep/t", "/sealed", "/etc/one"] {
        assert!(!is_mounted(&container, target), "{target}\n{output}");
    }
    assert!(data.join("f").exists());
    change(&container, "remove", &mounts).exits(1).says(&[".mounts[0]", "nothing was added", "/deep/a"]);
    container.stop_and_delete();
}

#[test]
fn a_source_below_the_containers_root_is_refused_in_words() {
    needs_creel!();
    let container = idle();
    let source = container.bundle.rootfs("/home");
    let mounts = json!([{ "destination": "/mnt", "source": source, "options": ["bind"] }]);
    change(&container, "add", &mounts).exits(1).says(&[".mounts[0]", "below the container's own root"]);
    container.stop_and_delete();
}

#[test]
fn a_config_that_is_no_object_is_an_error() {
    needs_creel!();
    let mut container = idle();
    let mounts = json!([{ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }]);
    let config = std::mem::replace(&mut container.bundle.config, json!([1]));
    change(&container, "add", &mounts).exits(1).says(&["config.json", "must be an object"]);
    container.bundle.config = config;
    container.stop_and_delete();
}

#[test]
fn mounts_are_removed_though_init_has_changed_its_root() {
    needs_creel!();
    let script = "mkdir -p /jail/bin; cp /bin/busybox /jail/bin; touch /ready; \
        until [ -e /go ]; do sleep 0.01; done; exec busybox chroot /jail /bin/busybox sleep 1000";
    let mut container = Container::shell(script);
    container.bundle.capabilities(&["CAP_SYS_CHROOT"]);
    container.run_detached();
    container.wait_file("/ready");
    let mounts = json!([{ "destination": "/added", "type": "tmpfs", "source": "tmpfs" }]);
    change(&container, "add", &mounts).ok();
    fs::write(container.bundle.rootfs("/go"), "").unwrap();
    let root = format!("/proc/{}/root", container.init().pid());
    wait::until("init has another root", || fs::read_link(&root).is_ok_and(|path| path.ends_with("jail")));
    change(&container, "remove", &mounts).ok();
    assert!(!is_mounted(&container, "/added"));
    container.stop_and_delete();
}

#[test]
fn relative_sources_are_the_bundles_and_trees_come_whole() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let mut container = idle();
    let data = container.bundle.dir().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    use rustix::mount::{MountFlags, mount};
    mount("tmpfs", data.join("sub"), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(data.join("sub/f"), "below").unwrap();
    container.accept_mounts();
    change(
        &container,
        "add",
        &json!([{ "destination": "/d", "source": "data", "options": ["rbind", "rro"] }]),
    )
    .ok();
    container.exec(&[], &["cat", "/d/sub/f"]).output().ok();
    container.exec(&[], &["touch", "/d/sub/g"]).output().exits(1);
    // Nothing that the host mounts or unmounts hangs together with it.
    rustix::mount::unmount(data.join("sub"), rustix::mount::UnmountFlags::empty()).unwrap();
    container.exec(&[], &["cat", "/d/sub/f"]).output().ok();
    container.accept_mounts();
    container.stop_and_delete();
}

#[test]
fn all_are_added_or_none() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let container = idle();
    symlink("/proc", container.bundle.rootfs("link")).unwrap();
    let data = container.scratch().dir("data");
    let bind = |target: &str| json!({ "destination": target, "source": data, "options": ["bind"] });
    let into_proc = json!([bind("/first"), bind("/second"), bind("/link/sys")]);
    change(&container, "add", &into_proc)
        .exits(1)
        .creel_says(&[".mounts[2]", "procfs of a running container"]);
    let missing = json!([bind("/first"), { "destination": "/x", "source": "/nowhere", "options": ["bind"] }]);
    change(&container, "add", &missing).exits(1).creel_says(&[".mounts[1]", "/nowhere", "ENOENT"]);
    let over_file = json!([bind("/first"), bind("/etc/passwd")]);
    change(&container, "add", &over_file).exits(1).creel_says(&[
        ".mounts[1]",
        "/etc/passwd",
        "not a directory",
    ]);
    for target in ["/first", "/second"] {
        assert!(!is_mounted(&container, target), "{target}");
    }
    container.stop_and_delete();
}

#[test]
fn only_what_needs_nothing_of_the_container_can_be_added() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let container = idle();
    let refused = |mounts: Value, words: &[&str]| {
        change(&container, "add", &mounts).exits(1).creel_says(words);
    };
    for kind in ["proc", "sysfs", "cgroup", "mqueue", "ext4"] {
        let mounts = json!([{ "destination": "/x", "type": kind, "source": kind }]);
        refused(mounts, &[".mounts[0]", "only bind mounts and tmpfs"]);
    }
    let copied =
        json!([{ "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }]);
    refused(copied, &[".mounts[0]", "tmpcopyup"]);
    refused(
        json!([{ "destination": "/proc/sys", "source": "/etc", "options": ["bind"] }]),
        &[".mounts[0]", "/proc"],
    );
    refused(
        json!([{ "destination": "/x", "type": "tmpfs", "options": ["no-such-ness=1"] }]),
        &[".mounts[0]"],
    );
    refused(json!({ "destination": "/x" }), &["mounts.json", "mounts must be an array"]);
    let file = file(&container, &json!([]));
    let call = |args: &[&str]| container.cmd([&["mounts"], args].concat()).output().exits(1);
    call(&["frob", container.id(), file.to_str().unwrap()]).creel_says(&["unknown command", "frob"]);
    call(&["add", "no-such-id", file.to_str().unwrap()]).creel_says(&["container does not exist"]);
    call(&["add", container.id(), "/nowhere"]).creel_says(&["open /nowhere", "ENOENT"]);
    call(&["add", container.id()]).says(&["requires exactly 3 argument"]);
    let init = container.init();
    container.kill("KILL");
    init.exited();
    change(&container, "add", &json!([])).exits(1).creel_says(&["container not running"]);
    container.delete();
}

#[test]
fn mounts_of_the_config_are_not_removed() {
    needs_creel!();
    let container = idle();
    for target in ["/proc/keys", "/proc/sys", "/dev", "/proc"] {
        let mounts = json!([{ "destination": target, "type": "tmpfs", "source": "tmpfs" }]);
        change(&container, "remove", &mounts).exits(1);
        assert!(is_mounted(&container, target));
    }
    container.stop_and_delete();
}

#[test]
fn tmpfs_belongs_to_the_root_of_a_user_namespace() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let mut container = Container::idle();
    container.bundle.user_namespace(100_000, 65_536);
    container.run_detached();
    container.wait_file("ready");
    let data = container.scratch().dir("data");
    let mounts = json!([
        { "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["mode=0700"] },
        { "destination": "/d", "source": data, "options": ["bind", "ro"] }
    ]);
    change(&container, "add", &mounts).ok();
    let output = container.exec(&[], &["stat", "-c", "%u %a", "/t"]).output().ok();
    assert_eq!(output.stdout.trim(), "0 700");
    container.exec(&[], &["touch", "/t/own"]).output().ok();
    container.exec(&[], &["touch", "/d/own"]).output().exits(1);
    change(&container, "remove", &mounts).ok();
    assert!(!is_mounted(&container, "/t"));
    container.stop_and_delete();
}

#[test]
fn container_that_moves_its_directories_loses_no_mask() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let container = idle();
    let data = container.scratch().dir("data");
    let mounts = json!([{ "destination": "/mnt/dir/x", "source": data, "options": ["bind"] }]);
    change(&container, "add", &mounts).ok();
    // Where the mount was there is now a way to what is masked.
    let script = "mv /mnt/dir /mnt/away && mkdir /mnt/dir && ln -s /proc/keys /mnt/dir/x";
    container.exec(&[], &["sh", "-c", script]).output().ok();
    assert!(is_mounted(&container, "/mnt/away/x"));
    change(&container, "remove", &mounts).ok();
    assert!(is_mounted(&container, "/proc/keys"));
    assert!(!is_mounted(&container, "/mnt/away/x"));
    container.stop_and_delete();
}

#[test]
fn covered_mount_is_not_mistaken_for_what_covers_it() {
    needs_root!("may clone mounts of the host");
    needs_creel!();
    let mut container = Container::idle();
    container.bundle.capabilities(&["CAP_SYS_ADMIN"]);
    container.run_detached();
    container.wait_file("ready");
    let data = container.scratch().dir("data");
    let mounts = json!([{ "destination": "/x", "source": data, "options": ["bind"] }]);
    change(&container, "add", &mounts).ok();
    container.exec(&[], &["mount", "-t", "tmpfs", "own", "/x"]).output().ok();
    change(&container, "remove", &mounts).exits(1).creel_says(&["is not at", "/x", "covered"]);
    container.exec(&[], &["umount", "/x"]).output().ok();
    change(&container, "remove", &mounts).ok();
    // One that the container has taken away itself is not missed.
    change(&container, "add", &mounts).ok();
    container.exec(&[], &["umount", "/x"]).output().ok();
    change(&container, "remove", &mounts).ok();
    container.stop_and_delete();
}

#[test]
fn swapped_links_lead_nowhere_outside() {
    needs_creel!();
    let container = idle();
    // CVE-2021-30465 on a running container: the parent of the target is exchanged with a link to the host.
    let outside = container.scratch().dir("outside");
    let swap = container.bundle.rootfs("swap");
    fs::create_dir_all(swap.join("a/m")).unwrap();
    let far = format!("{}{}", "../".repeat(20), outside.display());
    symlink(&far, swap.join("b")).unwrap();
    let data = container.scratch().dir("data");
    let mounts = json!([
        { "destination": "/swap/a/m", "source": data, "options": ["bind"] },
        { "destination": "/swap/a/n", "type": "tmpfs", "source": "tmpfs" }
    ]);
    let stop = AtomicBool::new(false);
    let (one, two) = (swap.join("a"), swap.join("b"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..30 {
            // Whether it finds the directory, the link or neither: it does no harm.
            if change(&container, "add", &mounts).code() == 0 {
                change(&container, "remove", &mounts);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(container.leaks().mounts.is_empty(), "{:?}", container.leaks().mounts);
    for target in ["/proc/keys", "/proc/sys"] {
        assert!(is_mounted(&container, target), "{target}");
    }
    container.stop_and_delete();
}
