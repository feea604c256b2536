//! `.linux.sysctl`: only parameters of a namespace that the container has to itself.
//!
//! /proc/sys is namespaced in parts. Any other parameter would change the host.

use super::{Warning, namespace, no_null};
use crate::invalid::{Invalid, key_path};
use crate::names::NamespaceKind;
use crate::spec::Spec;

/// ipc_namespaces(7), "System V IPC".
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn sysctl(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    for (key, value) in &linux.sysctl {
        let at = key_path(".linux.sysctl", key);
        if let Err(why) = sysctl_path(key) {
            return Err(Invalid::new(at, why));
        }
        no_null(&at, value)?;
        let Some(kind) = sysctl_namespace(key) else {
            return Err(Invalid::new(at, "is not in a separate kernel namespace"));
        };
        if namespace(spec, kind).is_none() {
            let why = format!("needs a {} namespace in .linux.namespaces", kind.word());
            return Err(Invalid::new(at, why));
        }
        if dotted(key) == "kernel.hostname" {
            return Err(Invalid::new(at, "conflicts with .hostname, which sets it"));
        }
    }
    Ok(())
}

/// The namespace that a parameter belongs to; `None` for a parameter of the whole host. A key is
/// for the container only if its namespace is not the host's: a network namespace that is joined by
/// path may be, which the caller has to look up.
pub fn sysctl_namespace(key: &str) -> Option<NamespaceKind> {
    let key = dotted(key);
    if IPC.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
        Some(NamespaceKind::Ipc)
    } else if key.starts_with("net.") {
        Some(NamespaceKind::Network)
    } else if key == "kernel.domainname" || key == "kernel.hostname" {
        Some(NamespaceKind::Uts)
    } else if key.starts_with("user.") {
        Some(NamespaceKind::User)
    } else {
        None
    }
}

/// Path of a parameter below /proc/sys. The error says why the key cannot be one: it has an empty
/// part, or one that would leave the directory.
pub fn sysctl_path(key: &str) -> Result<String, &'static str> {
    if key.contains('\0') {
        return Err("the key must not contain a null byte");
    }
    let path = swapped(&dotted(key));
    match path.split('/').find(|part| part.is_empty() || *part == "." || *part == "..") {
        None => Ok(path),
        Some("") => Err("the key has an empty part"),
        Some(_) => Err("the key leaves its directory"),
    }
}

/// The key with `.` between its parts. sysctl(8): the first separator decides; after a slash the
/// slashes divide and the dots belong to the names (`net/ipv4/conf/eth0.100/rp_filter`), which in
/// the dotted form are slashes (`net.ipv4.conf.eth0/100.rp_filter`).
fn dotted(key: &str) -> String {
    match key.find(['.', '/']).and_then(|at| key.as_bytes().get(at)) {
        Some(b'/') => swapped(key),
        _ => key.to_owned(),
    }
}

fn swapped(key: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{table, verdict};
    use super::*;

    #[test]
    fn both_separators_lead_to_the_same_file() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ] {
            assert_eq!(sysctl_path(key).as_deref(), Ok(path), "{key}");
            assert_eq!(sysctl_namespace(key), Some(NamespaceKind::Network), "{key}");
        }
    }

    #[test]
    fn no_key_leaves_proc_sys() {
        for key in [
            "",
            ".",
            "..",
            "/",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net.//.kernel",
            "net./.x",
            "/etc/passwd",
            "net.ipv4.",
            "net.\0",
        ] {
            assert!(sysctl_path(key).is_err(), "{key:?}");
        }
        table(&[(
            r#"{"linux": {"sysctl": {"net/../kernel/x": "1"}, "namespaces": [{"type": "network"}]}}"#,
            r#".linux.sysctl["net/../kernel/x"]: the key leaves its directory"#,
        )]);
    }

    #[test]
    fn each_parameter_needs_its_namespace() {
        for (key, kind) in [
            ("kernel.shmmax", "ipc"),
            ("kernel.sem", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("fs/mqueue/msg_max", "ipc"),
            ("net.core.somaxconn", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ] {
            let sysctl = |namespaces: &str| {
                format!(r#"{{"linux": {{"sysctl": {{"{key}": "1"}}, "namespaces": {namespaces}}}}}"#)
            };
            let expected =
                format!(r#".linux.sysctl["{key}"]: needs a {kind} namespace in .linux.namespaces"#);
            assert_eq!(verdict(&sysctl("[]")), expected);
            assert_eq!(verdict(&sysctl(&format!(r#"[{{"type": "{kind}", "path": "/x"}}]"#))), "ok");
        }
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        let all = r#""namespaces": [{"type": "ipc"}, {"type": "network"}, {"type": "uts"}]"#;
        for key in
            ["vm.swappiness", "kernel.core_pattern", "fs.file-max", "kernel.msgmax2", "netx.a", "kernel"]
        {
            let fragment = format!(r#"{{"linux": {{"sysctl": {{"{key}": "1"}}, {all}}}}}"#);
            let expected =
                format!("{}: is not in a separate kernel namespace", key_path(".linux.sysctl", key));
            assert_eq!(verdict(&fragment), expected);
        }
        table(&[
            (
                r#"{"linux": {"sysctl": {"kernel.hostname": "a"}, "namespaces": [{"type": "uts"}]}}"#,
                r#".linux.sysctl["kernel.hostname"]: conflicts with .hostname, which sets it"#,
            ),
            (
                r#"{"linux": {"sysctl": {"kernel.sem": "\u0000"}, "namespaces": [{"type": "ipc"}]}}"#,
                r#".linux.sysctl["kernel.sem"]: must not contain a null byte"#,
            ),
        ]);
    }
}
