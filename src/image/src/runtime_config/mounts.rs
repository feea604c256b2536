//! The mounts of every container, what is masked in them, and the devices that it may use: Docker's.

use serde_json::{Value, json};

use super::{Network, Run};

/// Hidden from an unprivileged container: they tell or set what belongs to the machine.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Not to be written in an unprivileged container.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// /proc, /dev, /sys and what is below them.
pub(super) fn standard(run: &Run) -> Vec<Value> {
    let access = if run.privileged { "rw" } else { "ro" };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // The group tty must be mapped for devpts to take it.
    if run.within.as_ref().is_none_or(|maps| maps.maps_gid(5)) {
        pts.push("gid=5");
    }
    // sysfs shows the network namespace that it is mounted in, and a user namespace may only mount its own.
    let sys = if run.within.is_some() && matches!(run.network, Network::Host | Network::Path(_)) {
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", access])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
    };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ]
}

/// What the device controller allows: nodes may be made, and those that every /dev has may be used.
pub(super) fn device_rules(run: &Run) -> Vec<Value> {
    if run.privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let rule = |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = json!({"allow": true, "type": kind, "access": access});
        for (name, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                rule[name] = json!(number);
            }
        }
        rule
    };
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        rule("c", None, None, "m"),
        rule("b", None, None, "m"),
    ];
    // null, zero, full, random, urandom; tty, console, ptmx.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule("c", Some(major), Some(minor), "rwm"));
    }
    // The terminals of /dev/pts.
    rules.push(rule("c", Some(136), None, "rwm"));
    rules
}
