//! Mounts whose paths lie in the container's own tree, links, remounts, locked flags, and mounts without
//! a mount namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use creel_integration::{Container, is_creel, needs_root, needs_runc, probe, skip};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::json;

/// `a/x`, `b/y` and `c/z`, each with a file that says so, and the root's path before destinations and
/// sources: binds of what earlier mounts made.
fn mount_tree(container: &mut Container, extra: &[&str]) {
    for (top, below) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let dir = container.scratch().dir(&format!("source/{top}/{below}"));
        fs::write(dir.join("file"), format!("{top}/{below}")).unwrap();
    }
    let source = container.scratch().join("source");
    // Out of reach for root of a user namespace.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
    let rootfs = container.bundle.rootfs("").to_str().unwrap().trim_end_matches('/').to_owned();
    for dir in ["mnt", "final"] {
        fs::create_dir_all(container.bundle.rootfs(dir)).unwrap();
    }
    let host = |name: &str| source.join(name).to_str().unwrap().to_owned();
    for (from, to) in [("a", "/mnt"), ("b", "/mnt/x"), ("c", "/mnt/x/y"), ("a", "/mnt/x/y/z")] {
        container.bundle.mount(to, "bind", &host(from), &["bind", "rprivate"]);
    }
    let options: Vec<&str> = ["rbind", "rprivate"].into_iter().chain(extra.iter().copied()).collect();
    for (from, to) in [("mnt/x", "mnt/x/y/z/x"), ("mnt/x/y", "mnt/x/y/z"), ("mnt", "final")] {
        let (from, to) = (format!("{rootfs}/{from}"), format!("{rootfs}/{to}"));
        container.bundle.mount(&to, "bind", &from, &options);
    }
    container.bundle.shell("cat /final/x/y/z/z/x/y/z/x/file");
}

#[test]
fn sources_in_the_container_are_what_earlier_mounts_show() {
    needs_root!("may choose the ids");
    needs_runc!(2, "mount sources that are opened in order");
    for user_namespace in [false, true] {
        let mut container = Container::new();
        mount_tree(&mut container, &[]);
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        assert_eq!(container.run().ok().stdout, "a/x", "user namespace: {user_namespace}");
    }
}

#[test]
fn sources_in_the_container_can_be_idmapped() {
    needs_root!("may idmap mounts");
    if !is_creel() {
        skip!("runc takes no maps as an option");
    }
    for user_namespace in [false, true] {
        let mut container = Container::new();
        let maps = "idmap=uids=0-100000-65536;gids=0-100000-65536";
        mount_tree(&mut container, &[if user_namespace { "idmap" } else { maps }]);
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        container.bundle.shell("cat /final/x/y/z/z/x/y/z/x/file; stat -c %u /final");
        let expected = if user_namespace { "a/x0\n" } else { "a/x100000\n" };
        assert_eq!(container.run().ok().stdout, expected, "user namespace: {user_namespace}");
    }
}

#[test]
fn a_destination_with_the_root_s_path_is_checked_like_any_other() {
    let mut container = Container::idle();
    let rootfs = container.bundle.rootfs("").to_str().unwrap().trim_end_matches('/').to_owned();
    container.bundle.mount(&format!("{rootfs}/proc/sys"), "tmpfs", "tmpfs", &[]);
    let output = container.create_fails();
    output.creel_says(&[".mounts[6]", "cannot be mounted on because it is inside /proc"]);
}

#[test]
fn what_is_mounted_can_be_remounted() {
    let mut container = Container::new();
    container.bundle.mount("/mnt", "tmpfs", "tmpfs", &["size=2m"]);
    container.bundle.mount("/mnt", "tmpfs", "tmpfs", &["remount", "size=1m", "nosuid"]);
    let report = container.seen("mounts");
    let mount = probe::mount(&report, "/mnt");
    assert!(probe::has_option(mount, "size=1024k") && probe::has_mount_option(mount, "nosuid"), "{mount}");
    if is_creel() {
        let mut container = Container::idle();
        container.bundle.mount("/home", "", "", &["remount", "ro"]);
        container.create_fails().creel_says(&[".mounts[6]", "remount", "EINVAL"]);
    }
}

#[test]
fn file_system_options_of_a_bind_mount_are_ignored_with_a_warning() {
    let mut container = Container::new();
    let source = container.scratch().dir("source");
    let options = ["bind", "mode=755", "size=65536k", "ro"];
    container.bundle.mount("/mnt", "tmpfs", source.to_str().unwrap(), &options);
    container.bundle.probe("access=/mnt");
    let output = container.run().ok();
    assert_eq!(output.json()["access"]["/mnt"]["write"], "EROFS");
    assert!(!is_creel() || output.stderr.contains(".mounts[6].options[1]"), "{output}");
}

#[test]
fn unknown_letters_of_device_rules_are_ignored() {
    let mut container = Container::new();
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwa" }]);
    container.bundle.set("linux/resources/devices", rules);
    container.run().ok();
}

/// Overlays take their layers as one option, longer than fsconfig(2) allows.
#[test]
fn a_file_system_with_long_options_is_mounted_once_and_with_its_flags() {
    let mut container = Container::new();
    let layers: Vec<String> = (0..20)
        .map(|i| {
            let dir = container.scratch().dir(&format!("layer-with-a-name-of-some-length-{i}"));
            fs::write(dir.join(format!("file{i}")), "").unwrap();
            dir.to_str().unwrap().to_owned()
        })
        .collect();
    let lower = format!("lowerdir={}", layers.join(":"));
    assert!(lower.len() > 256);
    container.bundle.mount("/mnt", "overlay", "overlay", &["ro", "nosuid", &lower]);
    container.bundle.probe("mounts access=/mnt access=/mnt/file0 access=/mnt/file19 access=/tmp");
    let report = container.run().ok().json();
    let mounted = probe::mount(&report, "/mnt");
    assert_eq!(mounted["type"], "overlay");
    assert!(probe::has_mount_option(mounted, "nosuid"), "{mounted}");
    for file in ["/mnt", "/mnt/file0", "/mnt/file19"] {
        assert_eq!(report["access"][file]["write"], "EROFS", "{file}");
    }
    let mounts = report["mounts"].as_array().unwrap();
    assert_eq!(mounts.iter().filter(|mount| mount["target"] == "/mnt" || mount["target"] == "/").count(), 2);
}

/// A directory with mount flags of its own, in the test's mount namespace.
fn flagged_source(container: &mut Container, flags: MountFlags) -> String {
    let dir = container.scratch().dir("flagged");
    mount_bind(&dir, &dir).unwrap();
    mount_remount(&dir, MountFlags::BIND | flags, "").unwrap();
    container.accept_mounts();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn flags_that_a_user_namespace_has_locked_are_kept_or_refused() {
    needs_root!("may mount");
    for (flags, options, works) in [
        (MountFlags::RDONLY, &["bind"][..], true),
        (MountFlags::RDONLY, &["bind", "nosuid", "nodev"], true),
        (MountFlags::RDONLY, &["bind", "rw"], false),
        (MountFlags::NOSUID, &["bind", "suid"], false),
        (MountFlags::NOEXEC, &["bind", "exec"], false),
        (MountFlags::NOATIME, &["bind", "relatime"], false),
        (MountFlags::NOATIME, &["bind", "atime"], true),
        (MountFlags::NOATIME, &["bind", "noatime"], true),
    ] {
        let mut container = Container::new();
        let source = flagged_source(&mut container, flags);
        container.bundle.user_namespace(100_000, 65536).mount("/mnt", "bind", &source, options);
        container.bundle.shell("true");
        let output = container.call("run", &[]).output();
        unmount(&source, UnmountFlags::DETACH).unwrap();
        container.accept_mounts();
        assert_eq!(output.code() == 0, works, "{flags:?} {options:?}: {output}");
        if !works {
            output.says(&["operation not permitted"]).creel_says(&[".mounts[6]", "locked"]);
        }
    }
}

#[test]
fn links_are_followed_bound_or_copied() {
    if !is_creel() {
        skip!("options of crun");
    }
    let mut container = Container::new();
    let source = container.scratch().dir("source");
    fs::write(source.join("file"), "content").unwrap();
    symlink("file", source.join("link")).unwrap();
    let link = source.join("link").to_str().unwrap().to_owned();
    symlink("/etc/passwd", container.bundle.rootfs("there")).unwrap();
    symlink("/etc/passwd", container.bundle.rootfs("other")).unwrap();
    container.bundle.mount("/followed", "bind", &link, &["bind"]);
    container.bundle.mount("/copied", "bind", &link, &["bind", "copy-symlink"]);
    container.bundle.mount(
        "/plain",
        "bind",
        source.join("file").to_str().unwrap(),
        &["bind", "copy-symlink"],
    );
    container.bundle.mount("/bound", "bind", &link, &["bind", "src-nofollow"]);
    container.bundle.mount("/there", "bind", &link, &["bind", "src-nofollow", "dest-nofollow"]);
    container.bundle.shell(
        "cat /followed /plain; echo; readlink /copied; readlink /bound; readlink /there; readlink /other; \
         head -n 1 /etc/passwd",
    );
    let expected = "contentcontent\nfile\nfile\nfile\n/etc/passwd\nroot:x:0:0::/root:/bin/sh\n";
    assert_eq!(container.run().ok().stdout, expected);
    assert_eq!(fs::read_link(container.bundle.rootfs("copied")).unwrap(), Path::new("file"));
    // A second time the link is there; another link is in the way.
    container.run().ok();
    fs::remove_file(container.bundle.rootfs("copied")).unwrap();
    symlink("elsewhere", container.bundle.rootfs("copied")).unwrap();
    container.create_fails().creel_says(&[".mounts[7]", "symlink", "EEXIST"]);
}

#[test]
fn a_copied_link_from_where_a_user_namespace_cannot_look() {
    needs_root!("may choose the ids");
    if !is_creel() {
        skip!("options of crun");
    }
    let mut container = Container::new();
    let source = container.scratch().dir("private");
    symlink("file", source.join("link")).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
    let link = source.join("link").to_str().unwrap().to_owned();
    container.bundle.user_namespace(100_000, 65536);
    container.bundle.mount("/home/copied", "bind", &link, &["bind", "copy-symlink"]);
    chown(container.bundle.rootfs("home"), Some(100_000), Some(100_000)).unwrap();
    container.bundle.shell("readlink /home/copied");
    assert_eq!(container.run().ok().stdout, "file\n");
}

#[test]
fn maps_of_an_option_shift_owners_relative_to_the_user_namespace_if_asked() {
    needs_root!("may idmap mounts");
    if !is_creel() {
        skip!("options of crun");
    }
    let mut container = Container::new();
    let source = container.scratch().file("source/file", "");
    chown(&source, Some(3), Some(4)).unwrap();
    let source = source.parent().unwrap().to_str().unwrap().to_owned();
    let maps = "idmap=uids=3-7000-1#0-0-1;gids=4-7001-1#0-0-1";
    container.bundle.mount("/mnt", "bind", &source, &["bind", maps]);
    container.bundle.shell("stat -c %u:%g /mnt/file");
    assert_eq!(container.run().ok().stdout, "7000:7001\n");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    container.bundle.mount("/mnt", "bind", &source, &["bind", "idmap=uids=@3-5-1;gids=@4-6-1"]);
    container.bundle.shell("stat -c %u:%g /mnt/file");
    assert_eq!(container.run().ok().stdout, "5:6\n");
}

/// The runtime in a mount namespace of its own: what it leaves on "the host" goes with it.
const OWN_HOST: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];

#[test]
fn without_a_mount_namespace_the_mounts_are_the_host_s() {
    needs_root!("may mount");
    let mut container = Container::new();
    container.bundle.without_namespace("mount").set("linux/maskedPaths", json!([]));
    container.bundle.set("linux/readonlyPaths", json!([]));
    container
        .bundle
        .shell("grep -c . /proc/1/mounts > /dev/null; ls /dev/null /dev/pts/ptmx; readlink /dev/fd");
    let script = "\"$@\"; grep -c \" $0\" /proc/self/mountinfo";
    let rootfs = container.bundle.rootfs("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut words = OWN_HOST.to_vec();
    words.extend(["sh", "-c", script, &rootfs]);
    let output = container.call("run", &[]).behind(words).output().ok();
    let expected = "/dev/null\n/dev/pts/ptmx\n/proc/self/fd\n";
    let left = output.stdout.strip_prefix(expected).unwrap_or_else(|| panic!("{output}")).trim();
    // The root on itself and the six of the config; /dev/console aside.
    assert_eq!(left.parse::<usize>().unwrap(), 7, "{output}");
}

#[test]
fn without_a_mount_namespace_a_failed_create_takes_its_mounts_back() {
    needs_root!("may mount");
    if !is_creel() {
        skip!("runc leaves them");
    }
    let mut container = Container::new();
    container.bundle.without_namespace("mount").set("linux/maskedPaths", json!([]));
    container.bundle.set("linux/readonlyPaths", json!([])).args(["/nosuch"]);
    let script = "\"$@\"; grep -c \" $0\" /proc/self/mountinfo";
    let rootfs = container.bundle.rootfs("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut words = OWN_HOST.to_vec();
    words.extend(["sh", "-c", script, &rootfs]);
    let output = container.call("run", &[]).behind(words).output();
    assert_eq!(output.stdout, "0\n", "{output}");
    output.says(&["/nosuch"]);
}

#[test]
fn the_host_s_propagation_is_left_alone_without_a_mount_namespace() {
    needs_root!("may mount");
    if !is_creel() {
        skip!("runc makes the host's / a slave");
    }
    let mut container = Container::new();
    container.bundle.without_namespace("mount").set("linux/maskedPaths", json!([]));
    container.bundle.set("linux/readonlyPaths", json!([])).shell("true");
    let script = "mount --make-shared / && \"$@\" && grep ' / / ' /proc/self/mountinfo";
    let mut words = OWN_HOST.to_vec();
    words.extend(["sh", "-c", script, "sh"]);
    let output = container.call("run", &[]).behind(words).output().ok();
    assert!(output.stdout.contains("shared:"), "{output}");
}

#[test]
fn directory_that_is_no_procfs_is_refused_on_proc_before_there_is_one() {
    // CVE-2019-16884, where the config has no procfs, or mounts it later.
    for (target, link) in [("/proc", false), ("/other", true)] {
        let mut container = Container::idle();
        let source = container.scratch().dir("fake").to_str().unwrap().to_owned();
        if link {
            std::os::unix::fs::symlink("/proc", container.bundle.rootfs("/other")).unwrap();
        }
        container.bundle.set("mounts", serde_json::json!([]));
        container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
        container.bundle.mount(target, "bind", &source, &["bind"]);
        container
            .create_fails()
            .says(&["proc"])
            .creel_says(&[".mounts[0]", "only a file system of type proc"]);
    }
    // The host's own is one.
    let mut container = Container::new();
    container.bundle.set("mounts", serde_json::json!([])).mount("/proc", "bind", "/proc", &["rbind"]);
    container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths").remove("hostname");
    container.run().ok();
}

#[test]
fn a_chroot_whose_root_is_no_mount_point_is_named() {
    needs_root!("binds the host's directories into a chroot");
    if !is_creel() {
        skip!("runc says EINVAL");
    }
    let container = Container::new();
    let root = container.scratch().join("chroot");
    std::fs::create_dir(&root).unwrap();
    // The same paths lead to the same files there.
    let script = format!(
        "here=$PWD && cd {root} && for d in /*/; do mkdir .$d && mount --rbind $d .$d || exit; done && \
         exec chroot . env --chdir \"$here\" \"$@\"",
        root = root.display()
    );
    let run = container.call("run", &[]).behind([
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        &script,
        "sh",
    ]);
    run.output().exits(1).says(&["mount(/, ", "EINVAL", "is this a chroot?"]);
}
