//! `spec`: a config.json to start from.
//!
//! The same document as `runc spec` writes: an interactive shell with three capabilities, a
//! read-only rootfs and the usual file systems; with `--rootless`, for a user who may only map
//! himself.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use creel_plan::spec::{
    Capabilities, DeviceRule, IdMapping, Linux, Mount, Namespace, Process, Resources, Rlimit, Root, Spec,
};

use crate::output;
use crate::program::reason;
use crate::version;

/// Name of the document in a bundle.
const CONFIG: &str = "config.json";

/// Writes `config.json`, or `file`, into the bundle, or the current directory; never over another one.
pub fn write(bundle: Option<&OsStr>, file: Option<&OsStr>, rootless: bool) -> Result<(), String> {
    let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut spec = example(cgroup_v2);
    if rootless {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        make_rootless(&mut spec, uid, gid);
    }
    let name = Path::new(file.unwrap_or(CONFIG.as_ref()));
    let path = bundle.map_or(name.to_owned(), |bundle| Path::new(bundle).join(name));
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(format!("File {} exists. Remove it first", name.display()));
        }
        Err(error) => return Err(format!("spec: {}: {}", path.display(), reason(&error))),
    };
    file.write_all(output::json(&spec, Some("\t")).as_bytes())
        .map_err(|error| format!("spec: {}: {}", path.display(), reason(&error)))
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn example(cgroup_v2: bool) -> Spec {
    Spec {
        oci_version: version::SPEC.to_owned(),
        process: Some(process()),
        root: Some(Root { path: "rootfs".to_owned(), readonly: true }),
        hostname: "creel".to_owned(),
        mounts: mounts(),
        linux: Some(linux(cgroup_v2)),
        ..Spec::default()
    }
}

fn process() -> Process {
    let caps = strings(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Process {
        terminal: true,
        args: strings(&["sh"]),
        env: strings(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: caps.clone(),
            effective: caps.clone(),
            permitted: caps,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit { r#type: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
        no_new_privileges: Some(true),
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    let mount = |destination: &str, r#type: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        r#type: r#type.to_owned(),
        source: source.to_owned(),
        options: strings(options),
        ..Mount::default()
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(cgroup_v2: bool) -> Linux {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    // As runc: on v1 hosts programs expect to see the hierarchies' paths of the host.
    if cgroup_v2 {
        namespaces.push("cgroup");
    }
    let deny_all = DeviceRule { allow: false, access: "rwm".to_owned(), ..DeviceRule::default() };
    Linux {
        resources: Some(Resources { devices: vec![deny_all], ..Resources::default() }),
        namespaces: namespaces.into_iter().map(namespace).collect(),
        masked_paths: strings(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        readonly_paths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Linux::default()
    }
}

fn namespace(r#type: &str) -> Namespace {
    Namespace { r#type: r#type.to_owned(), path: String::new() }
}

/// What a user without privileges may have: a user namespace with himself as root, the host's
/// network, the host's sysfs (a new one belongs to the network namespace), no group that the map
/// lacks, no limits.
fn make_rootless(spec: &mut Spec, uid: u32, gid: u32) {
    let linux = spec.linux.get_or_insert_default();
    linux.namespaces.retain(|namespace| namespace.r#type != "network");
    linux.namespaces.push(namespace("user"));
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
    linux.resources = None;
    for mount in &mut spec.mounts {
        if mount.destination == "/sys" {
            mount.r#type = "none".to_owned();
            mount.source = "/sys".to_owned();
            mount.options = strings(&["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
    }
}

#[cfg(test)]
mod tests;
