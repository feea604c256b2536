//! `.mounts` and the rootfs.

use std::fs;
use std::os::unix::fs::symlink;

use creel_integration::{Container, is_creel, needs_root, needs_runc, probe};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::json;

#[test]
fn every_kind_of_file_system_is_mounted() {
    let mut container = Container::new();
    container.bundle.mount("/mnt/tmpfs", "tmpfs", "tmpfs", &["size=1m", "mode=711"]);
    let report = container.seen("mounts access=/mnt/tmpfs");
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/mnt/tmpfs", "tmpfs"),
    ] {
        assert_eq!(probe::mount(&report, target)["type"], kind, "{target}");
    }
    assert_eq!(report["access"]["/mnt/tmpfs"]["stat"]["mode"], "0711");
    assert!(probe::has_option(probe::mount(&report, "/mnt/tmpfs"), "size=1024k"));
}

#[test]
fn mount_options_are_those_of_the_config() {
    for (option, shown) in [
        ("ro", "ro"),
        ("rw", "rw"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("relatime", "relatime"),
        ("sync", "sync"),
        ("dirsync", "dirsync"),
    ] {
        let mut container = Container::new();
        container.bundle.mount("/mnt", "tmpfs", "tmpfs", &[option]);
        let report = container.seen("mounts");
        let mount = probe::mount(&report, "/mnt");
        assert!(probe::has_option(mount, shown), "{option}: {mount}");
    }
}

#[test]
fn options_that_clear_undo_those_before_them() {
    for (set, clear) in [
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("noatime", "atime"),
        ("ro", "rw"),
        ("nodiratime", "diratime"),
    ] {
        let mut container = Container::new();
        container.bundle.mount("/mnt", "tmpfs", "tmpfs", &[set, clear]);
        let report = container.seen("mounts");
        let mount = probe::mount(&report, "/mnt");
        assert!(!probe::has_mount_option(mount, set), "{set},{clear}: {mount}");
    }
}

#[test]
fn strictatime_shows_no_atime_option() {
    let mut container = Container::new();
    container.bundle.mount("/mnt", "tmpfs", "tmpfs", &["strictatime"]);
    let report = container.seen("mounts");
    for option in ["relatime", "noatime"] {
        assert!(!probe::has_option(probe::mount(&report, "/mnt"), option));
    }
}

#[test]
fn directory_is_bound_with_the_options_of_the_config() {
    let mut container = Container::new();
    let source = container.scratch().dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let source = source.to_str().unwrap().to_owned();
    container.bundle.mount("/mnt/rw", "bind", &source, &["bind"]);
    container.bundle.mount("/mnt/ro", "bind", &source, &["rbind", "ro", "nosuid", "nodev", "noexec"]);
    container.bundle.mount("/mnt/none", "none", &source, &["bind"]);
    let report = container.seen("mounts access=/mnt/rw access=/mnt/ro text=/mnt/none/file");
    assert_eq!(report["access"]["/mnt/rw"]["write"], "ok");
    assert_eq!(report["access"]["/mnt/ro"]["write"], "EROFS");
    assert_eq!(report["text"]["/mnt/none/file"], "content");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(probe::has_mount_option(probe::mount(&report, "/mnt/ro"), option), "{option}");
    }
}

#[test]
fn bound_file_gets_a_file_to_lie_on() {
    let mut container = Container::new();
    let source = container.scratch().file("source", "content");
    container.bundle.mount("/new/dir/file", "bind", source.to_str().unwrap(), &["bind", "ro"]);
    let report = container.seen("text=/new/dir/file access=/new/dir/file");
    assert_eq!(report["text"]["/new/dir/file"], "content");
    assert_eq!(report["access"]["/new/dir/file"]["write"], "EROFS");
    assert!(container.bundle.rootfs("new/dir/file").is_file());
}

#[test]
fn relative_bind_source_is_relative_to_the_bundle() {
    let mut container = Container::new();
    container.scratch().file("bundle/beside", "content");
    container.bundle.mount("/beside", "bind", "beside", &["bind"]);
    assert_eq!(container.seen("text=/beside")["text"]["/beside"], "content");
}

/// A source tree with another mount below it, in the test's own mount namespace.
fn nested_source(container: &mut Container) -> String {
    let source = container.scratch().dir("source");
    let below = container.scratch().dir("source/below");
    let other = container.scratch().dir("other");
    mount_bind(&other, &below).unwrap();
    container.accept_mounts();
    source.to_str().unwrap().to_owned()
}

#[test]
fn plain_bind_leaves_mounts_below_and_rbind_takes_them() {
    needs_root!("may mount");
    let mut container = Container::new();
    let source = nested_source(&mut container);
    container.bundle.mount("/mnt/bind", "bind", &source, &["bind"]);
    container.bundle.mount("/mnt/rbind", "bind", &source, &["rbind"]);
    let report = container.seen("mounts");
    let targets: Vec<&str> =
        report["mounts"].as_array().unwrap().iter().map(|m| m["target"].as_str().unwrap()).collect();
    assert!(targets.contains(&"/mnt/rbind/below") && !targets.contains(&"/mnt/bind/below"), "{targets:?}");
}

#[test]
fn recursive_attributes_reach_mounts_below() {
    needs_root!("may mount");
    for (option, shown) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
    ] {
        let mut container = Container::new();
        let source = nested_source(&mut container);
        container.bundle.mount("/mnt", "bind", &source, &["rbind", option]);
        let report = container.seen("mounts");
        for target in ["/mnt", "/mnt/below"] {
            let mount = probe::mount(&report, target);
            assert!(probe::has_mount_option(mount, shown), "{option} on {target}: {mount}");
        }
    }
}

#[test]
fn plain_attributes_do_not_reach_mounts_below() {
    needs_root!("may mount");
    let mut container = Container::new();
    let source = nested_source(&mut container);
    container.bundle.mount("/mnt", "bind", &source, &["rbind", "ro"]);
    let report = container.seen("mounts");
    assert!(probe::has_mount_option(probe::mount(&report, "/mnt"), "ro"));
    assert!(probe::has_mount_option(probe::mount(&report, "/mnt/below"), "rw"));
}

#[test]
fn recursive_attributes_may_be_cleared_again() {
    needs_root!("may mount");
    needs_runc!(2, "clearing recursive attributes");
    let mut container = Container::new();
    let source = nested_source(&mut container);
    container.bundle.mount("/mnt", "bind", &source, &["rbind", "ro", "rro", "rrw"]);
    let report = container.seen("mounts");
    assert!(probe::has_mount_option(probe::mount(&report, "/mnt/below"), "rw"));
}

#[test]
fn symlinks_may_be_forbidden_on_a_mount() {
    needs_runc!(2, "nosymfollow");
    let mut container = Container::shell("cat /mnt/link; cat /mnt/file");
    let source = container.scratch().dir("source");
    fs::write(source.join("file"), "content").unwrap();
    symlink("file", source.join("link")).unwrap();
    container.bundle.mount("/mnt", "bind", source.to_str().unwrap(), &["bind", "nosymfollow"]);
    assert_eq!(container.run().ok().stdout, "content");
}

#[test]
fn propagation_of_a_mount_is_set() {
    needs_root!("may mount");
    for (option, shown) in [
        ("shared", "shared:"),
        ("slave", "master:"),
        ("unbindable", "unbindable"),
        ("private", ""),
        ("rshared", "shared:"),
        ("rslave", "master:"),
        ("runbindable", "unbindable"),
        ("rprivate", ""),
    ] {
        let mut container = Container::new();
        let source = container.scratch().dir("source");
        mount_bind(&source, &source).unwrap();
        mount_change(&source, MountPropagationFlags::SHARED).unwrap();
        container.accept_mounts();
        container.bundle.mount("/mnt", "bind", source.to_str().unwrap(), &["bind", option]);
        let report = container.seen("mounts");
        let optional = probe::mount(&report, "/mnt")["optional"].to_string();
        assert!(
            if shown.is_empty() { optional == "[]" } else { optional.contains(shown) },
            "{option}: {optional}"
        );
    }
}

#[test]
fn propagation_of_the_rootfs_is_set() {
    needs_runc!(2, "a shared rootfs");
    for (propagation, shown) in
        [("shared", "shared:"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")]
    {
        let mut container = Container::new();
        container.bundle.set("linux/rootfsPropagation", propagation);
        let report = container.seen("mounts");
        let optional = probe::mount(&report, "/")["optional"].to_string();
        assert!(
            if shown.is_empty() { !optional.contains("shared:") } else { optional.contains(shown) },
            "{propagation}: {optional}"
        );
    }
}

#[test]
fn unknown_rootfs_propagation_is_refused() {
    let mut container = Container::idle();
    container.bundle.set("linux/rootfsPropagation", "nosuch");
    container.create_fails().creel_says(&[".linux.rootfsPropagation"]);
}

#[test]
fn mounts_of_a_slave_rootfs_arrive_in_the_container() {
    needs_root!("may mount");
    let mut container =
        Container::shell("touch /ready; while [ ! -e /mnt/late/file ]; do sleep 0.05; done; echo seen");
    let source = container.scratch().dir("source");
    let late = container.scratch().dir("source/late");
    let other = container.scratch().dir("other");
    fs::write(other.join("file"), "").unwrap();
    mount_bind(&source, &source).unwrap();
    mount_change(&source, MountPropagationFlags::SHARED).unwrap();
    container.bundle.mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", "rslave"]);
    let running = container.call("run", &[]).spawn();
    container.wait_file("ready");
    mount_bind(&other, &late).unwrap();
    container.accept_mounts();
    assert_eq!(running.output().ok().stdout, "seen\n");
}

#[test]
fn tmpcopyup_fills_the_tmpfs_with_what_was_there() {
    let mut container = Container::new();
    fs::create_dir_all(container.bundle.rootfs("data/sub")).unwrap();
    fs::write(container.bundle.rootfs("data/file"), "content").unwrap();
    fs::write(container.bundle.rootfs("data/sub/deep"), "deeper").unwrap();
    symlink("file", container.bundle.rootfs("data/link")).unwrap();
    container.bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let report = container.seen("mounts text=/data/file text=/data/sub/deep tree=/data access=/data");
    assert_eq!(probe::mount(&report, "/data")["type"], "tmpfs");
    assert_eq!(report["text"]["/data/file"], "content");
    assert_eq!(report["text"]["/data/sub/deep"], "deeper");
    assert_eq!(report["tree"]["/data"]["link"]["link"], "file");
    assert_eq!(report["access"]["/data"]["write"], "ok");
}

#[test]
fn symlinked_destinations_are_resolved_below_the_rootfs() {
    let mut container = Container::new();
    symlink("/tmp", container.bundle.rootfs("absolute")).unwrap();
    symlink("../../../../../../etc", container.bundle.rootfs("upward")).unwrap();
    container.bundle.mount("/var/run/app", "tmpfs", "tmpfs", &[]);
    container.bundle.mount("/absolute/x", "tmpfs", "tmpfs", &[]);
    container.bundle.mount("/upward/creel-e2e-made", "tmpfs", "tmpfs", &[]);
    let report = container.seen("mounts");
    for target in ["/run/app", "/tmp/x", "/etc/creel-e2e-made"] {
        assert_eq!(probe::mount(&report, target)["type"], "tmpfs");
    }
    assert!(!fs::exists("/etc/creel-e2e-made").unwrap());
}

#[test]
fn destination_is_made_with_its_parents() {
    let mut container = Container::new();
    container.bundle.mount("/one/two/three", "tmpfs", "tmpfs", &[]);
    assert_eq!(probe::mount(&container.seen("mounts"), "/one/two/three")["type"], "tmpfs");
    assert!(container.bundle.rootfs("one/two/three").is_dir());
}

#[test]
fn relative_destination_is_taken_from_the_root() {
    let mut container = Container::new();
    container.bundle.mount("mnt/relative", "tmpfs", "tmpfs", &[]);
    assert_eq!(probe::mount(&container.seen("mounts"), "/mnt/relative")["type"], "tmpfs");
}

#[test]
fn later_mounts_lie_on_earlier_ones() {
    let mut container = Container::new();
    container.bundle.mount("/mnt", "tmpfs", "first", &["size=1m"]);
    container.bundle.mount("/mnt", "tmpfs", "second", &["size=2m"]);
    container.bundle.mount("/mnt/below", "tmpfs", "third", &[]);
    let report = container.seen("mounts");
    assert_eq!(probe::mount(&report, "/mnt")["source"], "second");
    assert_eq!(probe::mount(&report, "/mnt/below")["source"], "third");
}

#[test]
fn missing_source_is_an_error_that_names_it() {
    let mut container = Container::idle();
    container.bundle.mount("/mnt", "bind", "/nosuch/source", &["bind"]);
    let at = container.bundle.config["mounts"].as_array().unwrap().len() - 1;
    container
        .create_fails()
        .says(&["no such file or directory"])
        .creel_says(&[&format!(".mounts[{at}]"), "/nosuch/source"]);
}

#[test]
fn options_that_the_file_system_does_not_know_are_an_error() {
    let mut container = Container::idle();
    container.bundle.mount("/mnt", "tmpfs", "tmpfs", &["rro2"]);
    let at = container.bundle.config["mounts"].as_array().unwrap().len() - 1;
    container.create_fails().creel_says(&[&format!(".mounts[{at}]")]);
    let mut container = Container::idle();
    container.bundle.mount("/mnt", "nosuchfs", "x", &[]);
    container.create_fails().creel_says(&[&format!(".mounts[{at}]"), "nosuchfs"]);
}

#[test]
fn readonly_rootfs_refuses_writes_but_mounts_do_not() {
    let mut container = Container::new();
    container.bundle.set("root/readonly", true).mount("/tmp", "tmpfs", "tmpfs", &[]);
    let report = container.seen("mounts access=/ access=/tmp access=/etc/passwd");
    assert_eq!(report["access"]["/"]["write"], "EROFS");
    assert_eq!(report["access"]["/etc/passwd"]["write"], "EROFS");
    assert_eq!(report["access"]["/tmp"]["write"], "ok");
    assert!(probe::has_mount_option(probe::mount(&report, "/"), "ro"));
}

#[test]
fn nothing_of_the_hosts_tree_is_left() {
    let mut container = Container::new();
    let report = container.seen("mounts");
    let own = container.scratch().path().to_str().unwrap().to_owned();
    for mount in report["mounts"].as_array().unwrap() {
        let target = mount["target"].as_str().unwrap();
        assert!(!target.contains("creel-e2e") && !target.contains("old"), "{own}: {mount}");
    }
}

#[test]
fn cgroup_mount_shows_the_containers_own_cgroups() {
    // The unified hierarchy is shown as a whole.
    let mut container = Container::shell(
        "cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs \
         \"/sys/fs/cgroup$(tail -n 1 /proc/self/cgroup | cut -d: -f3)/cgroup.procs\" 2>/dev/null; true",
    );
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &options);
    let output = container.run().ok().stdout;
    assert!(output.lines().any(|line| line == "1"), "PID 1 is in the cgroup that is shown: {output}");
    let report = container.seen("mounts");
    let mounts = report["mounts"].as_array().unwrap().iter();
    let cgroups: Vec<_> =
        mounts.filter(|mount| mount["type"].as_str().unwrap().starts_with("cgroup")).collect();
    assert!(!cgroups.is_empty());
    for mount in cgroups {
        assert!(options.iter().all(|option| probe::has_mount_option(mount, option)), "{mount}");
    }
}

#[test]
fn cgroup_mount_in_a_cgroup_namespace() {
    let mut container = Container::shell(
        "ls /sys/fs/cgroup; cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; true",
    );
    container.bundle.namespace("cgroup", None);
    container.bundle.mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    );
    let output = container.run().ok().stdout;
    assert!(output.lines().any(|line| line == "1"), "{output}");
}

#[test]
fn bound_procfs_and_sysfs_of_the_host() {
    let mut container = Container::new();
    container.bundle.mount("/mnt/sys", "bind", "/sys", &["rbind", "ro"]);
    let report = container.seen("mounts");
    assert_eq!(probe::mount(&report, "/mnt/sys")["type"], "sysfs");
}

#[test]
fn idmapped_mount_shifts_owners() {
    needs_root!("may idmap mounts");
    needs_runc!(2, "idmapped mounts without a user namespace");
    let mut container = Container::new();
    let source = container.scratch().file("source/file", "");
    std::os::unix::fs::chown(&source, Some(0), Some(0)).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 1000 }]);
    container.bundle.set("mounts/-", json!({
        "destination": "/mnt", "type": "bind", "source": source.parent().unwrap(), "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map,
    }));
    let report = container.seen("access=/mnt/file");
    assert_eq!(report["access"]["/mnt/file"]["stat"]["uid"], 5000);
    assert_eq!(report["access"]["/mnt/file"]["stat"]["gid"], 5000);
}

#[test]
fn mounts_in_a_user_namespace() {
    needs_root!("may choose the ids");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    let source = container.scratch().dir("source");
    container.bundle.mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", "ro"]);
    container.bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777", "size=1m"]);
    let report = container.seen("mounts access=/mnt access=/tmp");
    assert_eq!(report["access"]["/mnt"]["write"], "EROFS");
    assert_eq!(report["access"]["/tmp"]["write"], "ok");
    assert_eq!(report["access"]["/tmp"]["stat"]["uid"], 0);
}

#[test]
fn mount_without_type_or_options_is_handled() {
    let mut container = Container::new();
    let source = container.scratch().dir("source");
    container
        .bundle
        .set("mounts/-", json!({ "destination": "/mnt", "source": source, "options": ["rbind"] }));
    container.bundle.set("mounts/-", json!({ "destination": "/home", "type": "tmpfs", "source": "tmpfs" }));
    let report = container.seen("mounts");
    assert_eq!(probe::mount(&report, "/home")["type"], "tmpfs");
    probe::mount(&report, "/mnt");
}

#[test]
fn no_pivot_gives_the_same_view() {
    let mut container = Container::new();
    container.bundle.probe("mounts access=/ tree=/home");
    let output = container.call("run", &["--no-pivot"]).output().ok();
    let report = output.json();
    assert_eq!(report["access"]["/"]["write"], "ok");
    assert_eq!(probe::mount(&report, "/proc")["type"], "proc");
    container.assert_clean(&output);
    assert!(is_creel() || output.stderr.is_empty());
}
