//! Attacks of the past, each with its CVE.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use creel_integration::{Container, Runtime, is_creel, needs_root, needs_runc, probe};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

fn executable(container: &Container, path: &str, content: &str) {
    let file = container.bundle.rootfs(path);
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn identity(path: &std::path::Path) -> (u64, u64, u64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.size(), meta.mode().into(), meta.mtime())
}

#[test]
fn entry_point_that_is_the_runtime_itself_cannot_write_it() {
    // CVE-2019-5736: `#!/proc/self/exe` makes the runtime the container's program.
    let runtime = Runtime::under_test().path();
    let (before, bytes) = (identity(runtime), fs::read(runtime).unwrap());
    let mut container = Container::new();
    executable(&container, "bin/entry", "#!/proc/self/exe\n");
    container.bundle.args(["/bin/entry"]);
    // Whether this runs, and what it says, is of no interest.
    let output = container.call("run", &[]).output();
    assert_eq!(identity(runtime), before);
    assert!(fs::read(runtime).unwrap() == bytes);
    drop(output);
}

#[test]
fn exec_shows_no_writable_runtime_to_the_container() {
    // CVE-2019-5736: a process of the container opens /proc/<pid of the runtime>/exe for writing.
    let runtime = Runtime::under_test().path();
    let (before, bytes) = (identity(runtime), fs::read(runtime).unwrap());
    let script = "touch /ready; while true; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) \
        (echo overwritten > $p/exe) 2>/dev/null && echo $p >> /written ;; esac; done; done";
    let mut container = Container::shell(script);
    container.bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    // What the container overwrites is its own busybox, unless that is mounted read-only.
    container.bundle.set("root/readonly", false).mount("/bin", "bind", "rootfs/bin", &["bind", "ro"]);
    container.run_detached();
    container.wait_file("ready");
    for _ in 0..20 {
        container.exec(&[], &["/proc/self/exe"]).output();
        container.exec(&[], &["true"]).output();
    }
    assert!(!container.bundle.rootfs("written").exists());
    assert_eq!(identity(runtime), before);
    assert!(fs::read(runtime).unwrap() == bytes);
}

#[test]
fn working_directory_through_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626.
    for number in (0..=12).chain([100, 1000]) {
        for path in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../../../.."),
            format!("/proc/thread-self/fd/{number}"),
        ] {
            let mut container = Container::new();
            container.bundle.set("process/cwd", path.as_str()).probe("cwd tree=.");
            let output = container.call("run", &[]).output();
            container.assert_clean(&output);
            if output.code() == 0 {
                // Refused or harmless: what the name leads to must be in the container.
                let report = output.json();
                let cwd = report["cwd"].as_str().unwrap_or_else(|| panic!("{path}: {report:#}"));
                assert!(
                    cwd.starts_with('/') && report["tree"]["."].get("vmlinuz").is_none(),
                    "{path}: {report:#}"
                );
                assert!(!cwd.contains("unreachable"), "{path}: {cwd}");
            }
        }
    }
}

#[test]
fn exec_into_a_working_directory_through_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626.
    let container = Container::idle();
    container.run_detached();
    for number in 3..=12 {
        let path = format!("/proc/self/fd/{number}");
        container.exec(&["--cwd", &path], &["true"]).output().exits(255);
    }
}

#[test]
fn program_through_a_leaked_descriptor_of_the_host_is_not_found() {
    // CVE-2024-21626, the attack by the program's own name: the kernel resolves it, and the
    // interpreter of a script, while descriptors that execve will close are still open.
    const UP: &str = "../../../../../../..";
    for number in 3..=40 {
        let host = format!("/proc/self/fd/{number}/{UP}/bin/busybox");
        let mut container = Container::new();
        container.bundle.set("process/args", json!([host, "sh", "-c", "echo out; ls /"]));
        let output = container.call("run", &[]).output();
        assert_ne!(output.code(), 0, "{output}");
        container.assert_clean(&output);

        let mut container = Container::new();
        executable(&container, "script", &format!("#!{host} true\n"));
        container.bundle.set("process/args", json!(["/script"]));
        let output = container.call("run", &[]).output();
        assert_ne!(output.code(), 0, "{output}");
        container.assert_clean(&output);
    }
}

#[test]
fn exec_of_a_link_to_a_leaked_descriptor_finds_nothing() {
    // CVE-2024-21626.
    let container = Container::idle();
    container.run_detached();
    for number in 3..=40 {
        let link = container.bundle.rootfs(&format!("link{number}"));
        symlink(format!("/proc/self/fd/{number}/../../../../../../bin/busybox"), link).unwrap();
        container.exec(&[], &[&format!("/link{number}"), "true"]).output().exits(255);
    }
}

#[test]
fn waiting_init_holds_nothing_of_the_host_open() {
    needs_root!("may look into a process that is not dumpable");
    let container = Container::idle();
    container.create();
    let dir = format!("/proc/{}/fd", container.init().pid());
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let known = number <= 2 || target.starts_with("socket:") || target.contains("/exec.");
        assert!(known || !is_creel(), "{number} -> {target}");
    }
}

#[test]
fn proc_that_is_a_symlink_is_refused() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2025-54867.
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        for target in ["/tmp", "tmp", "/etc"] {
            let mut container = Container::idle();
            let path = container.bundle.rootfs(name);
            fs::remove_dir(&path).unwrap();
            symlink(target, &path).unwrap();
            if kind == "proc" {
                // The masks of the config would be looked for in vain.
                container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
            }
            container.create_fails().says(&["must be mounted on ordinary directory"]);
        }
    }
}

#[test]
fn directory_bound_over_proc_is_refused() {
    // CVE-2019-16884.
    for target in ["/proc", "/proc/self", "/proc/sys"] {
        let mut container = Container::idle();
        let source = container.scratch().dir("fake");
        container.bundle.mount(target, "bind", source.to_str().unwrap(), &["bind"]);
        container.create_fails().says(&["proc"]);
    }
}

#[test]
fn tmpfs_over_proc_is_refused() {
    let mut container = Container::idle();
    container.bundle.mount("/proc/self", "tmpfs", "tmpfs", &[]);
    container.create_fails();
}

#[test]
fn symlinked_mount_points_stay_in_the_rootfs() {
    // CVE-2019-18837, CVE-2021-30465 in their static form.
    for (n, target) in ["absolute", "upward", "chain"].into_iter().enumerate() {
        let mut container = Container::new();
        let outside = container.scratch().dir("outside");
        let source = container.scratch().file("source/file", "content");
        let link = container.bundle.rootfs("link");
        let absolute = outside.to_str().unwrap();
        match n {
            0 => symlink(absolute, &link).unwrap(),
            1 => symlink(format!("../../../../../../../..{absolute}"), &link).unwrap(),
            _ => {
                symlink(absolute, container.bundle.rootfs("second")).unwrap();
                symlink("/second", &link).unwrap();
            }
        }
        container.bundle.mount("/link/made", "bind", source.parent().unwrap().to_str().unwrap(), &["bind"]);
        container.bundle.mount("/link/made-file", "bind", source.to_str().unwrap(), &["bind"]);
        let output = {
            container.bundle.probe("mounts");
            container.run()
        };
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}: made something outside\n{output}");
    }
}

#[test]
fn mount_point_made_in_a_symlinked_volume_stays_inside() {
    // CVE-2024-45310.
    let mut container = Container::new();
    let outside = container.scratch().dir("outside");
    let volume = container.scratch().dir("volume");
    symlink(&outside, volume.join("link")).unwrap();
    container.bundle.mount("/volume", "bind", volume.to_str().unwrap(), &["bind"]);
    container.bundle.mount("/volume/link/new/dir", "tmpfs", "tmpfs", &[]);
    container.bundle.probe("mounts");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{output}");
}

/// Ends a racing thread, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn mount_point_that_is_swapped_for_a_symlink_meanwhile_stays_inside() {
    // CVE-2021-30465, CVE-2024-45310: another container of the same volume exchanges directory and link.
    needs_runc!(2, "protection against races in mount points");
    let mut container = Container::new();
    let outside = container.scratch().dir("outside");
    let volume = container.scratch().dir("volume");
    fs::create_dir(volume.join("target")).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    container.bundle.mount("/volume", "bind", volume.to_str().unwrap(), &["rbind"]);
    container.bundle.mount("/volume/target/made/deep", "tmpfs", "tmpfs", &[]);
    container.bundle.shell("true");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (target, link) = (volume.join("target"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &target, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let _stops = Stop(&stop);
        for _ in 0..25 {
            container.call("run", &[]).output();
        }
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made something outside");
}

#[test]
fn masked_path_is_not_covered_by_a_fake_null_device() {
    // CVE-2025-31133, CVE-2025-62161: /dev/null of the image leads elsewhere.
    needs_runc!(4, "a check of the null device");
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
    symlink("/bait", container.bundle.rootfs("dev/null")).unwrap();
    container.bundle.set("linux/maskedPaths", json!(["/proc/version"]));
    container.bundle.probe("access=/proc/version");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    if output.code() == 0 {
        assert_eq!(output.json()["access"]["/proc/version"]["stat"]["device"], json!([1, 3]), "{output}");
    }
    assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
}

#[test]
fn null_device_from_a_volume_is_verified() {
    // CVE-2025-31133: the volume under /dev has a symlink for null.
    needs_runc!(4, "a check of the null device");
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let volume = container.scratch().dir("volume");
    symlink("/proc/sysrq-trigger", volume.join("null")).unwrap();
    container.bundle.mount("/dev", "bind", volume.to_str().unwrap(), &["bind"]);
    container.bundle.set("linux/maskedPaths", json!(["/proc/version"]));
    container.bundle.probe("access=/proc/version");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    if output.code() == 0 {
        assert_eq!(output.json()["access"]["/proc/version"]["stat"]["device"], json!([1, 3]), "{output}");
    }
}

#[test]
fn dev_that_is_a_symlink_makes_nothing_outside() {
    // CVE-2026-41579, CVE-2026-47766.
    needs_runc!(5, "protection of /dev");
    for upward in [false, true] {
        let mut container = Container::new();
        let outside = container.scratch().dir("outside");
        let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let dev = container.bundle.rootfs("dev");
        fs::remove_dir(&dev).unwrap();
        let absolute = outside.to_str().unwrap();
        symlink(if upward { format!("../../../../../..{absolute}") } else { absolute.to_owned() }, &dev)
            .unwrap();
        container
            .bundle
            .set("linux/devices", json!([{ "path": "/dev/extra", "type": "c", "major": 1, "minor": 3 }]));
        container.bundle.shell("true");
        let output = container.call("run", &[]).output();
        container.assert_clean(&output);
        let made: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(made.is_empty(), "{made:?}\n{output}");
    }
}

#[test]
fn console_is_the_terminal_and_not_what_the_image_says() {
    // CVE-2025-52565.
    let mut container = Container::new();
    fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
    symlink("/bait", container.bundle.rootfs("dev/console")).unwrap();
    container.bundle.set("process/terminal", true).shell("stat -c %F /dev/console; echo x > /dev/console");
    let (mut master, slave) = creel_integration::pty::open();
    let [input, output, error] = [(); 3].map(|()| slave.try_clone().unwrap());
    let running =
        container.call("run", &[]).behind(["setsid", "--ctty"]).stdin(input).spawn_with(output, error);
    master.expect("character special file");
    running.output().ok();
    assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
}

#[test]
fn sysctl_is_never_written_to_a_fake_proc() {
    // CVE-2025-52881: the volume stands in for /proc/sys.
    let mut container = Container::idle();
    let fake = container.scratch().dir("fake");
    fs::create_dir_all(fake.join("net/ipv4")).unwrap();
    fs::write(fake.join("net/ipv4/ip_forward"), "bait").unwrap();
    container.bundle.mount("/proc/sys", "bind", fake.to_str().unwrap(), &["bind"]);
    container.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    container.create_fails();
    assert_eq!(fs::read_to_string(fake.join("net/ipv4/ip_forward")).unwrap(), "bait");
}

#[test]
fn libraries_of_the_image_do_not_reach_the_runtime() {
    // The runtime is static: a preloaded library of the image or the caller's environment has no effect.
    let mut container = Container::new();
    container.bundle.set("process/env/-", "LD_PRELOAD=/nosuch/library.so").shell("echo in");
    let output = container.run().ok();
    assert_eq!(output.stdout, "in\n");
    fs::write(container.bundle.rootfs("etc/ld.so.preload"), "/nosuch/library.so\n").unwrap();
    assert_eq!(container.run().ok().stdout, "in\n");
}

#[test]
fn many_mounts_and_groups_do_not_overflow_anything() {
    // CVE-2021-43784: more than 64 KiB of mount sources; the namespaces must hold all the same.
    let mut container = Container::new();
    let long = container.scratch().dir(&format!("{}/{}", "s".repeat(200), "t".repeat(200)));
    for n in 0..150 {
        container.bundle.mount(&format!("/mnt/{n}"), "bind", long.to_str().unwrap(), &["bind"]);
    }
    let report = container.seen("ns mounts");
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(probe::text(&report, "ns/net"), own.to_str().unwrap());
    assert_eq!(
        report["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| { mount["target"].as_str().unwrap().starts_with("/mnt/") })
            .count(),
        150
    );
}

#[test]
fn inheritable_capabilities_stay_empty_for_run_and_exec() {
    // CVE-2022-29162, CVE-2022-27650, CVE-2025-27612.
    let mut container = Container::idle();
    container.bundle.capabilities(&["CAP_CHOWN", "CAP_KILL"]);
    container.run_detached();
    assert_eq!(container.exec_seen(&[], "status")["status"]["CapInh"], "0000000000000000");
    let status = fs::read_to_string(format!("/proc/{}/status", container.init().pid())).unwrap();
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
}
