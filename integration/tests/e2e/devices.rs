//! `/dev`: the default devices and links, and `.linux.devices`.

use creel_integration::{Container, needs_root, probe};
use serde_json::{Value, json};

fn entry<'a>(report: &'a Value, name: &str) -> &'a Value {
    let dev = probe::at(report, "dev");
    dev.get(name).unwrap_or_else(|| panic!("no /dev/{name} in {dev:#}"))
}

#[test]
fn default_devices_and_links_are_there() {
    needs_root!("may make devices");
    let mut container = Container::new();
    let report = container.seen("dev");
    for (name, device) in [
        ("null", [1, 3]),
        ("zero", [1, 5]),
        ("full", [1, 7]),
        ("random", [1, 8]),
        ("urandom", [1, 9]),
        ("tty", [5, 0]),
    ] {
        let seen = entry(&report, name);
        assert_eq!(seen["type"], "char", "{name}");
        assert_eq!(seen["device"], json!(device), "{name}");
        assert_eq!(
            (&seen["mode"], &seen["uid"], &seen["gid"]),
            (&json!("0666"), &json!(0), &json!(0)),
            "{name}"
        );
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        assert_eq!(entry(&report, name)["link"], target, "{name}");
    }
}

#[test]
fn nothing_else_is_in_dev() {
    let mut container = Container::new();
    let report = container.seen("dev");
    let mut names: Vec<&str> = report["dev"].as_object().unwrap().keys().map(String::as_str).collect();
    names.retain(|name| !name.contains('/'));
    names.sort_unstable();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    // /proc/kcore is linked as /dev/core where the kernel has it.
    names.retain(|name| *name != "core");
    assert_eq!(names, expected);
}

#[test]
fn devices_of_the_config_are_made_with_mode_and_owner() {
    needs_root!("may make devices");
    let mut container = Container::new();
    container.bundle.set("linux/devices", json!([
        { "path": "/dev/some-char", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 },
        { "path": "/dev/some-block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600 },
        { "path": "/dev/some-fifo", "type": "p", "fileMode": 0o622 },
        { "path": "/dev/sub/dir/unbuffered", "type": "u", "major": 1, "minor": 3, "fileMode": 0o666 },
        { "path": "/elsewhere", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444 },
    ]));
    let report = container.seen("dev access=/elsewhere");
    let seen = entry(&report, "some-char");
    assert_eq!(*seen, json!({ "type": "char", "mode": "0640", "uid": 7, "gid": 8, "device": [10, 229] }));
    let seen = entry(&report, "some-block");
    assert_eq!(*seen, json!({ "type": "block", "mode": "0600", "uid": 0, "gid": 0, "device": [7, 0] }));
    assert_eq!(entry(&report, "some-fifo")["type"], "fifo");
    assert_eq!(entry(&report, "some-fifo")["mode"], "0622");
    assert_eq!(entry(&report, "sub/dir/unbuffered")["device"], json!([1, 3]));
    assert_eq!(report["access"]["/elsewhere"]["stat"]["device"], json!([1, 5]));
}

#[test]
fn config_may_replace_a_default_device() {
    needs_root!("may make devices");
    let mut container = Container::new();
    container.bundle.set(
        "linux/devices",
        json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6 }]),
    );
    container.bundle.set(
        "linux/resources/devices/-",
        json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }),
    );
    let report = container.seen("dev");
    let seen = entry(&report, "null");
    assert_eq!((&seen["mode"], &seen["uid"], &seen["gid"]), (&json!("0600"), &json!(5), &json!(6)));
}

#[test]
fn bad_devices_are_refused() {
    for device in [
        json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }),
        json!({ "path": "/dev/x", "major": 1, "minor": 3 }),
    ] {
        let mut container = Container::idle();
        container.bundle.set("linux/devices", json!([device]));
        container.create_fails().creel_says(&[".linux.devices[0]"]);
    }
}

#[test]
fn default_devices_work() {
    let container = Container::shell(
        "echo x > /dev/null && dd if=/dev/zero bs=1 count=4 2>/dev/null | wc -c; dd if=/dev/urandom bs=8 count=1 2>/dev/null | wc -c; echo x 2>/dev/null > /dev/full || echo full",
    );
    let output = container.run();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["4", "8", "full"], "{output}");
}

#[test]
fn devices_are_bound_in_a_user_namespace() {
    needs_root!("may make devices");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    container
        .bundle
        .set("linux/devices", json!([{ "path": "/dev/some", "type": "c", "major": 1, "minor": 7 }]));
    // The host has no node for it: only those that the host has can be bound.
    container.bundle.remove("linux/devices");
    let report = container.seen("dev access=/dev/null access=/dev/zero mounts");
    assert_eq!(entry(&report, "null")["device"], json!([1, 3]));
    assert_eq!(report["access"]["/dev/null"]["write"], "ok");
    assert_eq!(probe::mount(&report, "/dev/null")["type"], "devtmpfs");
}

#[test]
fn dev_of_the_host_may_be_bound() {
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    container.bundle.mount("/dev", "bind", "/dev", &["rbind", "rslave"]);
    let before = std::fs::symlink_metadata("/dev/null").unwrap();
    let report = container.seen("access=/dev/null");
    assert_eq!(report["access"]["/dev/null"]["stat"]["device"], json!([1, 3]));
    let after = std::fs::symlink_metadata("/dev/null").unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
}
