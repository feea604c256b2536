//! The eight namespaces: new, the caller's, and joined by path.

use std::fs;

use creel_integration::{Container, needs_root, needs_runc, probe, skip};
use serde_json::{Value, json};

/// Names of config.json and of `/proc/self/ns`.
const NAMES: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

fn of_process(pid: i32, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

fn own(name: &str) -> String {
    fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

fn seen<'a>(report: &'a Value, name: &str) -> &'a str {
    probe::text(report, &format!("ns/{name}"))
}

#[test]
fn listed_namespaces_are_new_and_others_the_callers() {
    needs_root!("may choose the ids");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536).namespace("cgroup", None);
    let report = container.seen("ns");
    for (_, name) in NAMES {
        assert_ne!(seen(&report, name), own(name), "{name}");
    }
}

#[test]
fn namespaces_that_are_not_listed_are_the_callers() {
    needs_root!("may mount procfs of the host's PID namespace");
    for (kind, name) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let mut container = Container::new();
        container.bundle.without_namespace(kind);
        if kind == "uts" {
            container.bundle.remove("hostname");
        }
        if kind == "network" {
            // sysfs belongs to a network namespace; the caller's is allowed to root.
            container.bundle.remove("linux/sysctl");
        }
        let report = container.seen("ns");
        assert_eq!(seen(&report, name), own(name), "{name}");
    }
    let mut container = Container::new();
    let report = container.seen("ns");
    for name in ["cgroup", "user", "time"] {
        assert_eq!(seen(&report, name), own(name), "{name}");
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    needs_root!("may choose the ids");
    // Not the mount namespace: the rootfs would be set up among the other container's mounts.
    for (kind, name) in NAMES.into_iter().filter(|(kind, _)| *kind != "mount") {
        let mut first = Container::idle();
        first.bundle.namespace("cgroup", None);
        first.bundle.user_namespace(100_000, 65536);
        first.run_detached();
        let pid = first.init().pid();
        let mut second = Container::new();
        // Joining needs privilege over the user namespace that owns the other one.
        second.bundle.user_namespace(100_000, 65536).namespace("user", Some(&format!("/proc/{pid}/ns/user")));
        second.bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
        if kind == "uts" {
            second.bundle.remove("hostname");
        }
        let report = second.seen("ns uname");
        assert_eq!(seen(&report, name), of_process(pid, name), "{kind}");
        if kind == "uts" {
            assert_eq!(report["uname"]["nodename"], "creel-test");
        }
    }
}

#[test]
fn user_namespace_that_is_joined_needs_no_maps() {
    needs_root!("may choose the ids");
    needs_runc!(2, "a user namespace by path without maps");
    let mut first = Container::idle();
    first.bundle.user_namespace(100_000, 65536);
    first.run_detached();
    let pid = first.init().pid();
    let mut second = Container::new();
    second.bundle.user_namespace(100_000, 65536).namespace("user", Some(&format!("/proc/{pid}/ns/user")));
    second.bundle.remove("linux/uidMappings").remove("linux/gidMappings");
    let report = second.seen("ns uid_map");
    assert_eq!(seen(&report, "user"), of_process(pid, "user"));
}

#[test]
fn namespaces_of_root_are_joined_by_path() {
    needs_root!("may join namespaces of root");
    let mut first = Container::idle();
    first.bundle.namespace("cgroup", None);
    first.run_detached();
    let pid = first.init().pid();
    let mut second = Container::new();
    second.bundle.remove("hostname");
    for (kind, name) in
        [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")]
    {
        second.bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
    }
    let report = second.seen("ns ids");
    for name in ["pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(seen(&report, name), of_process(pid, name), "{name}");
    }
    assert_ne!(report["ids"]["pid"], 1);
}

#[test]
fn bad_namespaces_are_refused() {
    let container = Container::idle();
    let cases: [(&str, Value); 5] = [
        (
            "a path that does not exist",
            json!([{ "type": "mount" }, { "type": "network", "path": "/nosuch/net" }]),
        ),
        (
            "a namespace of another type",
            json!([{ "type": "mount" }, { "type": "network", "path": "/proc/self/ns/ipc" }]),
        ),
        (
            "a file that is no namespace",
            json!([{ "type": "mount" }, { "type": "network", "path": "/etc/passwd" }]),
        ),
        ("the same type twice", json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }])),
        ("an unknown type", json!([{ "type": "mount" }, { "type": "nosuch" }])),
    ];
    drop(container);
    for (what, namespaces) in cases {
        let mut container = Container::idle();
        container.bundle.set("linux/namespaces", namespaces).remove("hostname");
        let output = container.call("create", &[]).output();
        assert_eq!(output.code(), 1, "{what}\n{output}");
        container.assert_clean(&output);
        output.creel_says(&[".linux.namespaces"]);
    }
}

#[test]
fn host_and_domain_name_are_set() {
    let mut container = Container::new();
    container.bundle.set("hostname", "some-host");
    assert_eq!(container.seen("uname")["uname"]["nodename"], "some-host");
}

#[test]
fn domain_name_is_set() {
    needs_runc!(2, "domainname");
    let mut container = Container::new();
    container.bundle.set("domainname", "some.domain");
    assert_eq!(container.seen("uname")["uname"]["domainname"], "some.domain");
}

#[test]
fn host_name_needs_a_uts_namespace() {
    let mut container = Container::idle();
    container.bundle.without_namespace("uts");
    container.create_fails().creel_says(&[".hostname"]);
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let mut container = Container::shell("cat /sys/class/net/lo/flags; ls /sys/class/net");
    container.bundle.capabilities(&[]);
    let output = container.run().ok().stdout;
    let flags = output.lines().next().unwrap().trim_start_matches("0x").to_owned();
    assert_eq!(u32::from_str_radix(&flags, 16).unwrap() & 1, 1, "IFF_UP in {output}");
}

#[test]
fn user_namespace_maps_ids() {
    needs_root!("may choose the ids");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 65536);
    let report = container.seen("status uid_map gid_map access=/tmp");
    assert_eq!(report["status"]["Uid"], "0\t0\t0\t0");
    for map in ["uid_map", "gid_map"] {
        let fields: Vec<&str> = report[map][0].as_str().unwrap().split_whitespace().collect();
        assert_eq!(fields, ["0", "100000", "65536"], "{map}");
    }
    assert_eq!(report["access"]["/tmp"]["stat"]["uid"], 0);
}

#[test]
fn user_namespace_with_several_maps() {
    needs_root!("may choose the ids");
    let mut container = Container::new();
    container.bundle.user_namespace(100_000, 1000);
    let more = json!({ "containerID": 5000, "hostID": 300_000, "size": 10 });
    container.bundle.set("linux/uidMappings/-", more.clone()).set("linux/gidMappings/-", more);
    container.bundle.set("process/user", json!({ "uid": 5001, "gid": 5002, "additionalGids": [1, 2] }));
    let report = container.seen("status uid_map");
    assert_eq!(report["status"]["Uid"], "5001\t5001\t5001\t5001");
    assert_eq!(report["status"]["Gid"], "5002\t5002\t5002\t5002");
    assert_eq!(report["status"]["Groups"], "1 2");
    assert_eq!(report["uid_map"].as_array().unwrap().len(), 2);
}

#[test]
fn user_namespace_and_maps_must_fit_together() {
    let mut container = Container::idle();
    container.bundle.namespace("user", None).remove("linux/uidMappings").remove("linux/gidMappings");
    container.create_fails().creel_says(&[".linux"]);
}

#[test]
fn user_that_is_not_mapped_is_refused() {
    needs_root!("may choose the ids");
    let mut container = Container::idle();
    container.bundle.user_namespace(100_000, 10).set("process/user", json!({ "uid": 20, "gid": 20 }));
    container.create_fails().creel_says(&[".process.user"]);
}

#[test]
fn time_namespace_has_the_offsets() {
    needs_root!("may set clocks");
    needs_runc!(2, "time namespaces");
    let mut container = Container::new();
    container.bundle.namespace("time", None);
    container.bundle.set(
        "linux/timeOffsets",
        json!({
            "monotonic": { "secs": 7881, "nanosecs": 2_718_281 },
            "boottime": { "secs": 1337, "nanosecs": 3_141_519 },
        }),
    );
    let report = container.seen("timens ns");
    let rows: Vec<String> = report["timens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rows, ["monotonic 7881 2718281", "boottime 1337 3141519"]);
    assert_ne!(seen(&report, "time"), own("time"));
}

#[test]
fn time_offsets_need_a_time_namespace() {
    needs_runc!(2, "time namespaces");
    let mut container = Container::idle();
    container.bundle.set("linux/timeOffsets", json!({ "boottime": { "secs": 1 } }));
    container.create_fails().creel_says(&[".linux.timeOffsets"]);
}

#[test]
fn clocks_that_cannot_be_set_are_said_with_their_place() {
    needs_runc!(2, "time namespaces");
    let mut container = Container::new();
    container.bundle.namespace("time", None);
    container.bundle.set("linux/timeOffsets", json!({ "monotonic": { "secs": -99_999_999 } }));
    container.create_fails().creel_says(&[".linux.timeOffsets: stage: write(", "ERANGE"]);
}

#[test]
fn time_namespace_is_joined_by_path_and_by_exec() {
    needs_root!("may set clocks");
    needs_runc!(2, "time namespaces");
    let mut first = Container::idle();
    first.bundle.namespace("time", None).set("linux/timeOffsets", json!({ "boottime": { "secs": 4000 } }));
    first.run_detached();
    let pid = first.init().pid();
    let own_time = of_process(pid, "time");
    assert_eq!(seen(&first.exec_seen(&[], "ns"), "time"), own_time);
    let mut second = Container::new();
    second.bundle.namespace("time", Some(&format!("/proc/{pid}/ns/time")));
    assert_eq!(seen(&second.seen("ns"), "time"), own_time);
}

#[test]
fn cgroup_namespace_hides_the_path() {
    let mut container = Container::new();
    container.bundle.namespace("cgroup", None);
    let report = container.seen("cgroup");
    let rows = report["cgroup"].as_array().unwrap();
    let own = rows.iter().filter(|row| !row.as_str().unwrap().starts_with("0:"));
    for row in own {
        let path = row.as_str().unwrap().rsplit(':').next().unwrap();
        // A controller that the runtime does not manage stays where the caller is.
        assert!(path == "/" || path.starts_with("/.."), "{row}");
        assert!(!path.contains(container.id()), "{row}");
    }
}

#[test]
fn container_without_new_namespaces_but_mount() {
    needs_root!("may do without a user namespace");
    let mut container = Container::new();
    container.bundle.set("linux/namespaces", json!([{ "type": "mount" }])).remove("hostname");
    // A new sysfs needs a network namespace of one's own only below a user namespace.
    let report = container.seen("ns ids");
    assert_ne!(seen(&report, "mnt"), own("mnt"));
    assert_eq!(seen(&report, "pid"), own("pid"));
    if report["ids"]["pid"] == 1 {
        skip!("the tests themselves are PID 1 of their namespace");
    }
}

#[test]
fn clocks_are_set_beside_a_user_namespace_that_is_joined() {
    needs_root!("may choose the ids");
    needs_runc!(2, "time namespaces");
    let mut first = Container::idle();
    first.bundle.user_namespace(100_000, 65536);
    first.run_detached();
    let mut second = Container::new();
    let path = format!("/proc/{}/ns/user", first.init().pid());
    second.bundle.user_namespace(100_000, 65536).namespace("user", Some(&path)).namespace("time", None);
    second.bundle.set("linux/timeOffsets", json!({ "monotonic": { "secs": 7, "nanosecs": 0 } }));
    second.bundle.remove("linux/uidMappings").remove("linux/gidMappings");
    let report = second.seen("timens");
    let monotonic: Vec<&str> = report["timens"][0].as_str().unwrap().split_whitespace().collect();
    assert_eq!(monotonic, ["monotonic", "7", "0"], "{report}");
}
