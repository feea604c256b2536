//! `.linux.netDevices`: devices of the runtime's network namespace become the container's.

use creel_integration::{Cmd, Container, is_creel, needs_runc, skip};
use serde_json::json;

/// What the runtime is run behind: a network namespace of its own with a pair of devices.
const DEVICES: &str = "ip link add veth7 address 02:00:00:00:00:07 mtu 1400 type veth peer name veth8 && \
    ip addr add 192.0.2.7/24 dev veth7 && ip addr add 198.51.100.8/24 scope link dev veth7 && \
    ip -6 addr add 2001:db8::7/64 dev veth7 nodad && ip link set veth7 up && ip link set veth8 up && ";

fn has_veth() -> bool {
    Cmd::new("unshare").args(["--net", "sh", "-c", &format!("{DEVICES} true")]).output().code() == 0
}

fn run_with_devices(container: &Container) -> creel_integration::Output {
    let script = format!("{DEVICES} exec \"$@\"");
    container.call("run", &[]).behind(["unshare", "--net", "sh", "-c", &script, "sh"]).output()
}

#[test]
fn a_device_moves_with_its_addresses_and_a_new_name() {
    needs_runc!(4, "netDevices");
    if !has_veth() {
        skip!("no veth devices here");
    }
    let mut container = Container::shell("/bin/busybox ip addr; cat /proc/sys/net/ipv4/conf/eth0/rp_filter");
    container.bundle.set("linux/netDevices", json!({ "veth7": { "name": "eth0" } }));
    // Its parameters can be set by the name that it gets.
    container.bundle.set("linux/sysctl", json!({ "net.ipv4.conf.eth0.rp_filter": "2" }));
    let seen = run_with_devices(&container).ok().stdout;
    for words in ["eth0", "mtu 1400", "02:00:00:00:00:07", "192.0.2.7/24", "2001:db8::7/64", "UP"] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    assert!(seen.ends_with("\n2\n"), "{seen}");
    // Of link scope, so not the container's.
    assert!(!seen.contains("198.51.100.8") && !seen.contains("veth7"), "{seen}");
}

#[test]
fn a_device_moves_into_a_user_namespace_and_keeps_its_name() {
    needs_runc!(4, "netDevices");
    if !has_veth() {
        skip!("no veth devices here");
    }
    let mut container = Container::shell("/bin/busybox ip addr");
    container.bundle.user_namespace(100_000, 65536).set("linux/netDevices", json!({ "veth7": {} }));
    let seen = run_with_devices(&container).ok().stdout;
    assert!(seen.contains("veth7") && seen.contains("192.0.2.7/24"), "{seen}");
}

#[test]
fn devices_that_are_not_there_or_cannot_be_named_so_are_errors() {
    needs_runc!(4, "netDevices");
    if !has_veth() {
        skip!("no veth devices here");
    }
    for (devices, at) in [
        (json!({ "nosuch0": {} }), ".linux.netDevices.nosuch0: link not found for interface nosuch0"),
        (json!({ "veth7": { "name": "lo" } }), ".linux.netDevices.veth7: move network device veth7"),
        (json!({ "veth7": { "name": "a/b" } }), ".linux.netDevices.veth7.name: "),
    ] {
        let mut container = Container::new();
        container.bundle.set("linux/netDevices", devices);
        let output = run_with_devices(&container).exits(1).creel_says(&[at]);
        container.assert_clean(&output);
    }
    let mut container = Container::new();
    container.bundle.without_namespace("network").set("linux/netDevices", json!({ "veth7": {} }));
    container.create_fails().creel_says(&[".linux.netDevices: needs a network namespace"]);
}

#[test]
fn a_device_that_cannot_move_stays_what_and_where_it_was() {
    needs_runc!(4, "netDevices");
    if !has_veth() {
        skip!("no veth devices here");
    }
    if !is_creel() {
        skip!("runc leaves it in the other namespace");
    }
    let first = Container::idle();
    first.run_detached();
    let theirs = format!("/proc/{}/ns/net", first.init().pid());
    let taken = json!({ "veth7": { "name": "lo" } });
    let second = json!({ "veth7": { "name": "eth7" }, "veth8": { "name": "lo" } });
    for (devices, path, why) in [
        (taken, theirs.as_str(), "EEXIST"),
        (second, theirs.as_str(), "EEXIST"),
        (json!({ "veth7": {} }), "/proc/self/ns/net", "is the runtime's"),
    ] {
        let mut container = Container::new();
        container.bundle.namespace("network", Some(path)).set("linux/netDevices", devices);
        let script = format!("{DEVICES} \"$@\"; code=$?; ip addr show dev veth7; exit $code");
        let run = container.call("run", &[]).behind(["unshare", "--net", "sh", "-c", &script, "sh"]);
        let output = run.output().exits(1).creel_says(&[".linux.netDevices", why]);
        for words in ["mtu 1400", ",UP", "192.0.2.7/24", "2001:db8::7/64"] {
            assert!(output.stdout.contains(words), "{words}: {output}");
        }
        container.assert_clean(&output);
    }
}
