//! maskedPaths, readonlyPaths and sysctl.

use creel_integration::{Container, needs_root, probe, wait};
use serde_json::json;

#[test]
fn masked_files_read_as_empty_and_masked_directories_too() {
    let mut container = Container::new();
    std::fs::create_dir(container.bundle.rootfs("secret")).unwrap();
    std::fs::write(container.bundle.rootfs("secret/file"), "content").unwrap();
    std::fs::write(container.bundle.rootfs("etc/secret"), "content").unwrap();
    container
        .bundle
        .set("linux/maskedPaths", json!(["/secret", "/etc/secret", "/proc/version", "/nosuch/path"]));
    let report = container.seen("access=/secret access=/etc/secret access=/proc/version mounts");
    assert_eq!(report["access"]["/secret"]["read"], 0);
    assert_eq!(report["access"]["/secret"]["write"], "EROFS");
    assert_eq!(report["access"]["/etc/secret"]["read"], 0);
    assert_eq!(report["access"]["/etc/secret"]["stat"]["device"], json!([1, 3]));
    assert_eq!(report["access"]["/proc/version"]["stat"]["device"], json!([1, 3]));
    assert_eq!(probe::mount(&report, "/secret")["type"], "tmpfs");
    assert!(probe::has_option(probe::mount(&report, "/secret"), "ro"));
    assert!(!container.bundle.rootfs("nosuch").exists());
}

#[test]
fn many_masked_directories() {
    let mut container = Container::new();
    let paths: Vec<String> = (0..40).map(|n| format!("/masked/{n}")).collect();
    for path in &paths {
        std::fs::create_dir_all(container.bundle.rootfs(path)).unwrap();
        std::fs::write(container.bundle.rootfs(path).join("file"), "").unwrap();
    }
    container.bundle.set("linux/maskedPaths", paths.clone());
    let sections = paths.iter().map(|path| format!("access={path}")).collect::<Vec<_>>().join(" ");
    let report = container.seen(&sections);
    for path in &paths {
        assert_eq!(report["access"][path]["read"], 0, "{path}");
        assert_eq!(report["access"][path]["write"], "EROFS", "{path}");
    }
}

#[test]
fn readonly_paths_can_be_read_and_not_written() {
    needs_root!("owns what a rootless container may not write anyway");
    let mut container = Container::new();
    std::fs::write(container.bundle.rootfs("etc/file"), "content").unwrap();
    container.bundle.set("linux/readonlyPaths", json!(["/proc/sys", "/etc/file", "/home", "/nosuch/path"]));
    let report = container
        .seen("access=/proc/sys/kernel/hostname access=/etc/file access=/home access=/etc/passwd mounts");
    assert_eq!(report["access"]["/proc/sys/kernel/hostname"]["write"], "EROFS");
    assert_eq!(report["access"]["/etc/file"]["write"], "EROFS");
    assert_eq!(report["access"]["/etc/file"]["read"], 7);
    assert_eq!(report["access"]["/home"]["write"], "EROFS");
    assert_eq!(report["access"]["/etc/passwd"]["write"], "ok");
    for option in ["nosuid", "nodev", "noexec"] {
        let proc = probe::has_mount_option(probe::mount(&report, "/proc"), option);
        assert_eq!(probe::has_mount_option(probe::mount(&report, "/proc/sys"), option), proc, "{option}");
    }
}

#[test]
fn without_masks_proc_is_as_mounted() {
    needs_root!("owns what a rootless container may not write anyway");
    let mut container = Container::new();
    container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
    let report = container.seen("mounts access=/proc/sys/kernel/hostname");
    assert_eq!(report["access"]["/proc/sys/kernel/hostname"]["write"], "ok");
    let below = report["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["target"].as_str().unwrap().starts_with("/proc/"));
    assert_eq!(below.count(), 0);
}

#[test]
fn masks_need_a_mount_namespace() {
    let mut container = Container::idle();
    container.bundle.without_namespace("mount");
    container.bundle.set("mounts", json!([]));
    container.create_fails();
}

#[test]
fn masks_hold_for_exec() {
    needs_root!("owns what a rootless container may not write anyway");
    let mut container = Container::idle();
    container.bundle.set("linux/maskedPaths", json!(["/proc/version"]));
    container.run_detached();
    let report = container.exec_seen(&[], "access=/proc/version access=/proc/sys/kernel/hostname");
    assert_eq!(report["access"]["/proc/version"]["read"], 0);
    assert_eq!(report["access"]["/proc/sys/kernel/hostname"]["write"], "EROFS");
}

#[test]
fn namespaced_sysctls_are_set_inside_only() {
    let mut container = Container::new();
    let own = wait::for_text("/proc/sys/net/ipv4/ip_forward".as_ref(), |text| !text.is_empty());
    let other = if own.trim() == "1" { "0" } else { "1" };
    container.bundle.set(
        "linux/sysctl",
        json!({
            "net.ipv4.ip_forward": other,
            "kernel.msgmax": "12345",
            "kernel.shm_rmid_forced": "1",
            "fs.mqueue.msg_max": "77",
        }),
    );
    let report = container.seen("sysctl=net.ipv4.ip_forward sysctl=kernel.msgmax sysctl=kernel.shm_rmid_forced sysctl=fs.mqueue.msg_max");
    assert_eq!(
        report["sysctl"],
        json!({
            "net.ipv4.ip_forward": other,
            "kernel.msgmax": "12345",
            "kernel.shm_rmid_forced": "1",
            "fs.mqueue.msg_max": "77",
        })
    );
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), own);
}

#[test]
fn sysctl_with_slashes_names_an_interface_with_a_dot() {
    let mut container = Container::new();
    container.bundle.set("linux/sysctl", json!({ "net/ipv4/conf/lo/forwarding": "1" }));
    assert_eq!(
        container.seen("sysctl=net.ipv4.conf.lo.forwarding")["sysctl"]["net.ipv4.conf.lo.forwarding"],
        "1"
    );
}

#[test]
fn sysctls_that_are_not_namespaced_are_refused() {
    for (name, without) in [
        ("kernel.panic", ""),
        ("vm.swappiness", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.msgmax", "ipc"),
        ("nosuch.name", ""),
        ("kernel.hostname", "uts"),
    ] {
        let mut container = Container::idle();
        container.bundle.set("linux/sysctl", json!({ name: "1" }));
        if !without.is_empty() {
            container.bundle.without_namespace(without);
        }
        if without == "uts" {
            container.bundle.remove("hostname");
        }
        container.create_fails().says(&[name]).creel_says(&[".linux.sysctl"]);
    }
}

#[test]
fn sysctl_value_that_the_kernel_refuses_is_an_error_that_names_it() {
    let mut container = Container::idle();
    container.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "nonsense" }));
    container.create_fails().says(&["invalid argument"]).creel_says(&["net.ipv4.ip_forward"]);
}
