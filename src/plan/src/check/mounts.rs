//! `.mounts`.

use super::mappings::id_map;
use super::{Warning, namespace, no_null};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::{MountOptions, parse_options};
use crate::spec::{Mount, Spec};

/// Files below /proc that may be covered: those that lxcfs emulates, and two sysctls. Anything else
/// there could fake what the runtime and the kernel's security modules read (CVE-2019-16884,
/// CVE-2025-52881).
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

pub(super) fn mounts(spec: &Spec, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    for (index, mount) in spec.mounts.iter().enumerate() {
        let at = format!(".mounts[{index}]");
        destination(&at, &mount.destination, warnings)?;
        no_null(format_args!("{at}.source"), &mount.source)?;
        no_null(format_args!("{at}.type"), &mount.r#type)?;
        let options = parse_options(&mount.options)
            .map_err(|(option, why)| Invalid::new(format!("{at}.options[{option}]"), why))?;
        kind(&at, mount, &options, warnings)?;
        id_mapping(&at, mount, &options, spec)?;
        lexical_proc(&at, mount, &options)?;
    }
    Ok(())
}

fn destination(mount: &str, path: &str, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    let at = format_args!("{mount}.destination");
    if path.is_empty() {
        return Err(Invalid::new(at.to_string(), "must not be empty"));
    }
    no_null(at, path)?;
    // A mount over the root would not be seen by the handles that point below it.
    if path.split('/').all(|part| matches!(part, "" | ".")) {
        return Err(Invalid::new(at.to_string(), "must be below the root of the container"));
    }
    if !path.starts_with('/') {
        warnings.push(Warning::new(
            at.to_string(),
            format!("relative paths are deprecated, {path:?} is below /"),
        ));
    }
    Ok(())
}

/// A bind mount is one by its options; its type is a dummy (config.md, "Mounts").
fn kind(at: &str, mount: &Mount, options: &MountOptions, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    let kind = mount.r#type.as_str();
    if options.bind.is_some() {
        for (index, word) in &options.stray {
            let why = format!("{word:?} is ignored, a bind mount takes no file system option");
            warnings.push(Warning::new(format!("{at}.options[{index}]"), why));
        }
        if options.copy_symlink && (options.source_nofollow || options.destination_nofollow) {
            let why = "\"copy-symlink\" excludes \"src-nofollow\" and \"dest-nofollow\"";
            return Err(Invalid::new(format!("{at}.options"), why));
        }
        if mount.source.is_empty() {
            return Err(Invalid::new(format!("{at}.source"), "must not be empty for a bind mount"));
        }
    } else if kind == "bind" {
        return Err(Invalid::new(format!("{at}.options"), "a bind mount needs \"bind\" or \"rbind\""));
    } else if kind.is_empty() && !options.remount {
        return Err(Invalid::new(format!("{at}.type"), "must not be empty, unless for a bind mount"));
    }
    if options.tmpcopyup && (kind != "tmpfs" || options.bind.is_some()) {
        let option = mount.options.iter().rposition(|option| option == "tmpcopyup").unwrap_or(0);
        warnings.push(Warning::new(format!("{at}.options[{option}]"), "has no effect except on a tmpfs"));
    }
    Ok(())
}

/// mount_setattr(2) MOUNT_ATTR_IDMAP: a clone of an existing mount and both maps, its own or those
/// of the container's user namespace.
fn id_mapping(at: &str, mount: &Mount, options: &MountOptions, spec: &Spec) -> Result<(), Invalid> {
    let maps = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
    let own = maps.iter().any(|(_, map)| !map.is_empty());
    if !own && options.idmap.is_none() {
        return Ok(());
    }
    if options.bind.is_none() {
        return Err(Invalid::new(at, "only a bind mount can be id-mapped"));
    }
    if !own && options.idmap.as_ref().is_some_and(|idmap| idmap.maps.is_some()) {
        return Ok(());
    }
    if !own {
        return match namespace(spec, NamespaceKind::User) {
            Some(_) => Ok(()),
            None => Err(Invalid::new(at, "an id-mapped mount needs mappings or a user namespace")),
        };
    }
    for (field, map) in maps {
        let at = format!("{at}.{field}");
        if map.is_empty() {
            return Err(Invalid::new(at, "must not be empty, an id-mapped mount needs both mappings"));
        }
        id_map(&at, map)?;
    }
    Ok(())
}

/// What can be said of a destination in /proc before symlinks are resolved.
fn lexical_proc(at: &str, mount: &Mount, options: &MountOptions) -> Result<(), Invalid> {
    if !mount.destination.contains("proc") {
        return Ok(());
    }
    let Some(path) = lexical(&mount.destination) else { return Ok(()) };
    // Whether the source of a bind mount is procfs is known when it is opened.
    let may_be_procfs = options.bind.is_some() || mount.r#type == "proc";
    check_proc_destination(&format!("/{path}"), may_be_procfs)
        .map_err(|why| Invalid::new(format!("{at}.destination"), why))
}

/// Whether a file system may be mounted at a path of the container, given without symlinks and
/// from the container's root: on /proc only procfs itself, below /proc only single known files.
/// The source is procfs if it is of type `proc`, or a bind mount of which statfs(2) says so.
pub fn check_proc_destination(resolved_path: &str, is_procfs_source: bool) -> Result<(), String> {
    let path = resolved_path.trim_matches('/');
    if path == "proc" {
        return if is_procfs_source {
            Ok(())
        } else {
            Err("only a file system of type proc can be mounted on /proc".to_owned())
        };
    }
    match path.strip_prefix("proc/").map(|below| below.trim_start_matches('/')) {
        Some(below) if !PROC_FILES.contains(&below) => {
            Err(format!("/{path} cannot be mounted on because it is inside /proc"))
        }
        _ => Ok(()),
    }
}

/// The path without the root, `.` and double slashes; `None` if `..` makes it depend on symlinks.
fn lexical(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{table, verdict};
    use super::*;

    fn mount(m: &str) -> String {
        format!(r#"{{"mounts": [{{"destination": "/a", "type": "tmpfs"}}, {m}]}}"#)
    }

    #[test]
    fn destinations_are_below_the_root() {
        table(&[
            (&mount(r#"{"destination": "/b", "type": "tmpfs"}"#), "ok"),
            (&mount(r#"{"type": "tmpfs"}"#), ".mounts[1].destination: must not be empty"),
            (
                &mount(r#"{"destination": "//.", "type": "tmpfs"}"#),
                ".mounts[1].destination: must be below the root of the container",
            ),
            (
                &mount(r#"{"destination": "b", "type": "tmpfs"}"#),
                r#"warning .mounts[1].destination: relative paths are deprecated, "b" is below /"#,
            ),
            (
                &mount(r#"{"destination": "/b\u0000", "type": "tmpfs"}"#),
                ".mounts[1].destination: must not contain a null byte",
            ),
            (
                &mount(r#"{"destination": "/b", "type": "tmpfs", "source": "\u0000"}"#),
                ".mounts[1].source: must not contain a null byte",
            ),
        ]);
    }

    #[test]
    fn bind_mounts_are_told_by_their_options() {
        table(&[
            (&mount(r#"{"destination": "/b", "source": "/c", "options": ["rbind", "rro"]}"#), "ok"),
            (&mount(r#"{"destination": "/b", "type": "none", "source": "c", "options": ["bind"]}"#), "ok"),
            (&mount(r#"{"destination": "/b", "options": ["remount", "ro"]}"#), "ok"),
            (
                &mount(
                    r#"{"destination": "/b", "source": "/c", "options": ["bind", "copy-symlink", "src-nofollow"]}"#,
                ),
                r#".mounts[1].options: "copy-symlink" excludes "src-nofollow" and "dest-nofollow""#,
            ),
            (
                &mount(r#"{"destination": "/b", "type": "bind", "source": "/c"}"#),
                r#".mounts[1].options: a bind mount needs "bind" or "rbind""#,
            ),
            (
                &mount(r#"{"destination": "/b", "source": "/c"}"#),
                ".mounts[1].type: must not be empty, unless for a bind mount",
            ),
            (
                &mount(r#"{"destination": "/b", "options": ["bind"]}"#),
                ".mounts[1].source: must not be empty for a bind mount",
            ),
        ]);
    }

    #[test]
    fn wrong_options_are_named() {
        table(&[
            (
                &mount(r#"{"destination": "/b", "source": "/c", "options": ["bind", "rro2"]}"#),
                r#".mounts[1].options[1]: unknown mount option "rro2"; did you mean "rro""#,
            ),
            (
                &mount(r#"{"destination": "/b", "source": "/c", "options": ["mode=1", "rbind"]}"#),
                r#"warning .mounts[1].options[0]: "mode=1" is ignored, a bind mount takes no file system option"#,
            ),
            (&mount(r#"{"destination": "/b", "type": "tmpfs", "options": ["mode=1", "tmpcopyup"]}"#), "ok"),
            (
                &mount(r#"{"destination": "/b", "type": "sysfs", "options": ["ro", "tmpcopyup"]}"#),
                "warning .mounts[1].options[1]: has no effect except on a tmpfs",
            ),
        ]);
    }

    #[test]
    fn id_mapped_mounts_are_binds_with_both_maps() {
        let map = r#"[{"containerID": 0, "hostID": 1, "size": 1}]"#;
        let bad = r#"[{"containerID": 0, "hostID": 1, "size": 0}]"#;
        let mapped = |uid: &str, gid: &str| {
            mount(&format!(
                r#"{{"destination": "/b", "source": "/c", "options": ["bind"], "uidMappings": {uid}, "gidMappings": {gid}}}"#
            ))
        };
        table(&[
            (
                &mount(r#"{"destination": "/b", "type": "tmpfs", "options": ["idmap"]}"#),
                ".mounts[1]: only a bind mount can be id-mapped",
            ),
            (
                &mount(r#"{"destination": "/b", "source": "/c", "options": ["bind", "ridmap"]}"#),
                ".mounts[1]: an id-mapped mount needs mappings or a user namespace",
            ),
            (
                &mapped(map, "[]"),
                ".mounts[1].gidMappings: must not be empty, an id-mapped mount needs both mappings",
            ),
            (&mapped(map, bad), ".mounts[1].gidMappings[0].size: must not be 0"),
            (
                &mapped("[]", map),
                ".mounts[1].uidMappings: must not be empty, an id-mapped mount needs both mappings",
            ),
            (&mapped(map, map), "ok"),
            (
                r#"{"mounts": [{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}],
                    "linux": {"namespaces": [{"type": "user", "path": "/u"}]}}"#,
                "ok",
            ),
        ]);
    }

    #[test]
    fn only_procfs_covers_proc() {
        let only = ".mounts[1].destination: only a file system of type proc can be mounted on /proc";
        table(&[
            (&mount(r#"{"destination": "/proc", "type": "proc"}"#), "ok"),
            (&mount(r#"{"destination": "/proc", "source": "/proc", "options": ["rbind"]}"#), "ok"),
            (&mount(r#"{"destination": "/proc", "type": "tmpfs"}"#), only),
            (&mount(r#"{"destination": "/./proc//", "type": "tmpfs"}"#), only),
            (&mount(r#"{"destination": "/proc/uptime", "source": "/x", "options": ["bind"]}"#), "ok"),
            (&mount(r#"{"destination": "/proc2", "type": "tmpfs"}"#), "ok"),
            (
                &mount(r#"{"destination": "/proc/self", "type": "tmpfs"}"#),
                ".mounts[1].destination: /proc/self cannot be mounted on because it is inside /proc",
            ),
        ]);
        // Where ".." leads depends on symlinks: left to the resolved path.
        assert_eq!(verdict(&mount(r#"{"destination": "/proc/../b", "type": "tmpfs"}"#)), "ok");
    }

    #[test]
    fn resolved_paths_in_proc_are_a_fixed_list() {
        for (path, procfs, allowed) in [
            ("/proc", true, true),
            ("/proc", false, false),
            ("/proc/", false, false),
            ("proc", false, false),
            ("/proc/cpuinfo", false, true),
            ("/proc/sys/kernel/ns_last_pid", false, true),
            ("/proc/sys/crypto/fips_enabled", false, true),
            ("/proc/sys", true, false),
            ("/proc/self/attr", false, false),
            ("/proc/cpuinfo/x", false, false),
            ("/proc//stat", false, true),
            ("/process", false, true),
            ("/sys/proc", false, true),
            ("/", false, true),
        ] {
            assert_eq!(check_proc_destination(path, procfs).is_ok(), allowed, "{path} {procfs}");
        }
    }
}
