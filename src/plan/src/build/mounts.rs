//! The config's mounts as steps.

use super::join;
use super::namespaces::{Joining, lines};
use crate::facts::Request;
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::{MountOptions, Propagation, attr, parse_options};
use crate::spec::{Mount, Spec};
use crate::steps::{At, Attr, IdmapStep, MountIds, MountSource, MountStep};

/// Attributes that a bind mount loses unless the config asks for them: it gives any flag at all, and
/// then what it gives is what the mount has (mount(8), "bind,remount").
const PLAIN_ATTRS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// Access time of a bind mount is one field: it changes as a whole when a mode is named, and stays the
/// source's when modes are only taken back (mount(2), "MS_REMOUNT", in path_mount of fs/namespace.c).
const ATIME_FIELD: u64 = attr::ATIME_MASK | attr::NODIRATIME;

/// Steps, and what becomes read-only only after /dev is filled.
pub struct Mounts {
    /// One step per mount.
    pub mounts: Vec<MountStep>,
    /// Mounts to make read-only late.
    pub late_readonly: Vec<(At, String)>,
}

/// Plans every mount of the config and the one of the notify socket.
pub fn plan_mounts(spec: &Spec, request: &Request, joining: &Joining) -> Result<Mounts, Invalid> {
    let mut planned = Mounts { mounts: Vec::new(), late_readonly: Vec::new() };
    for (i, mount) in spec.mounts.iter().enumerate() {
        let at = format!(".mounts[{i}]");
        let options = parse_options(&mount.options)
            .map_err(|(word, why)| Invalid::new(format!("{at}.options[{word}]"), why))?;
        let idmap = idmap(&at, mount, &options, spec, joining)?;
        planned.add(at, mount, &options, &request.bundle, idmap);
    }
    if let Some(dir) = &request.notify_dir {
        planned.mounts.push(notify_mount(dir));
    }
    Ok(planned)
}

impl Mounts {
    fn add(&mut self, at: At, mount: &Mount, options: &MountOptions, bundle: &str, idmap: Option<IdmapStep>) {
        let destination = clean(&mount.destination);
        let propagation = options.propagation.iter().map(propagation_bits).collect();
        let recursive = options.recursive.map(|a| Attr { set: a.attr_set(), clear: a.attr_clr() });
        let (source, attr) = if options.bind.is_some() || mount.r#type == "bind" {
            let recursive = options.bind.is_some_and(|b| b.recursive);
            let source = join(bundle, &mount.source);
            (MountSource::Bind { source, recursive, idmap }, bind_attr(options))
        } else if mount.r#type == "cgroup" {
            (MountSource::Cgroup, Some(Attr { set: options.attr.attr_set(), clear: 0 }))
        } else {
            let mut set = options.attr.attr_set();
            let mut parameters: Vec<(String, Option<String>)> =
                options.data_params().map(|p| (p.key.to_string(), p.value.map(String::from))).collect();
            parameters.extend(options.sb.fsconfig_keys().map(|key| (key.to_string(), None)));
            if set & attr::RDONLY != 0 {
                // Mount points and nodes are still to be made in it.
                if mount.r#type == "tmpfs" || destination == "/dev" {
                    set &= !attr::RDONLY;
                    self.late_readonly.push((at.clone(), destination.clone()));
                } else {
                    parameters.push(("ro".into(), None));
                }
            }
            let source = MountSource::FileSystem {
                fstype: mount.r#type.clone(),
                source: mount.source.clone(),
                parameters,
                copy_up: options.tmpcopyup,
            };
            (source, Some(Attr { set, clear: 0 }))
        };
        self.mounts.push(MountStep { at, destination, source, attr, recursive, propagation });
    }
}

/// The mapping of a mount: its own, else that of the container's user namespace.
fn idmap(
    mount_at: &str,
    mount: &Mount,
    options: &MountOptions,
    spec: &Spec,
    joining: &Joining,
) -> Result<Option<IdmapStep>, Invalid> {
    let recursive = options.idmap.is_some_and(|idmap| idmap.recursive);
    if !mount.uid_mappings.is_empty() {
        let (uids, gids) = (lines(&mount.uid_mappings), lines(&mount.gid_mappings));
        let ids = MountIds::Maps { of: mount_at.into(), uids, gids };
        return Ok(Some(IdmapStep { at: format!("{mount_at}.uidMappings"), ids, recursive }));
    }
    let asked = |option: &String| option == "idmap" || option == "ridmap";
    let Some(option) = mount.options.iter().rposition(asked) else { return Ok(None) };
    let at = format!("{mount_at}.options[{option}]");
    let joined = joining.joins.iter().position(|join| join.kind == NamespaceKind::User);
    let ids = match (joined, &spec.linux) {
        (Some(index), _) => MountIds::Joined(index),
        (None, Some(linux)) if joining.is_new(NamespaceKind::User) => MountIds::Maps {
            of: ".linux".into(),
            uids: lines(&linux.uid_mappings),
            gids: lines(&linux.gid_mappings),
        },
        (None, _) => return Err(Invalid::new(at, "an id-mapped mount needs mappings or a user namespace")),
    };
    Ok(Some(IdmapStep { at, ids, recursive }))
}

fn propagation_bits(propagation: &Propagation) -> (u64, bool) {
    (propagation.attr(), propagation.recursive)
}

fn bind_attr(options: &MountOptions) -> Option<Attr> {
    if options.attr.is_empty() && options.sb.is_empty() {
        return None;
    }
    let set = options.attr.attr_set();
    // mount(8): "bind,remount" changes what is named, "bind" alone gives just what is named.
    let unnamed = if options.remount { 0 } else { PLAIN_ATTRS & !set };
    let clear = options.attr.attr_clr() | unnamed;
    let names_atime = options.attr.atime.is_some() && !options.attr.atime_reset;
    if names_atime || set & attr::NODIRATIME != 0 {
        return Some(Attr { set, clear: clear | (ATIME_FIELD & !(set & attr::NODIRATIME)) });
    }
    Some(Attr { set, clear: clear & !ATIME_FIELD })
}

/// The host's directory with the notify socket (sd_notify(3)), as runc places it.
fn notify_mount(dir: &str) -> MountStep {
    MountStep {
        at: "NOTIFY_SOCKET".into(),
        destination: "/run/notify".into(),
        source: MountSource::Bind { source: dir.to_string(), recursive: false, idmap: None },
        attr: Some(Attr { set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, clear: 0 }),
        recursive: None,
        propagation: Vec::new(),
    }
}

/// Lexically clean absolute path: no empty, `.` or `..` component, no trailing slash.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn plan_one(kind: &str, destination: &str, options: &[&str]) -> Mounts {
        let options = options.iter().map(|o| (*o).to_string()).collect();
        let mount = Mount {
            destination: destination.into(),
            r#type: kind.into(),
            source: "src".into(),
            options,
            ..Mount::default()
        };
        let spec = Spec { mounts: vec![mount], ..Spec::default() };
        let request = Request { bundle: "/b".into(), ..Request::default() };
        plan_mounts(&spec, &request, &Joining::default()).unwrap()
    }

    #[test]
    fn a_bind_without_flags_keeps_the_flags_of_its_source() {
        let planned = plan_one("", "/data", &["rbind", "rprivate"]);
        let step = &planned.mounts[0];
        assert_eq!(step.attr, None);
        let source = MountSource::Bind { source: "/b/src".into(), recursive: true, idmap: None };
        assert_eq!(step.source, source);
        assert_eq!(step.propagation.len(), 1);
    }

    #[test]
    fn a_bind_with_a_flag_has_just_those_flags() {
        let step = &plan_one("bind", "/data", &["bind", "ro", "nosuid"]).mounts[0];
        let set = attr::RDONLY | attr::NOSUID;
        assert_eq!(step.attr, Some(Attr { set, clear: PLAIN_ATTRS & !set }));
    }

    #[test]
    fn a_readonly_tmpfs_is_sealed_late_and_another_file_system_at_once() {
        let planned = plan_one("tmpfs", "/x/../tmp/", &["ro", "size=1m"]);
        assert_eq!(planned.late_readonly, [(".mounts[0]".to_string(), "/tmp".to_string())]);
        assert_eq!(planned.mounts[0].attr, Some(Attr::default()));
        let planned = plan_one("sysfs", "/sys", &["ro"]);
        assert!(planned.late_readonly.is_empty());
        assert_eq!(planned.mounts[0].attr, Some(Attr { set: attr::RDONLY, clear: 0 }));
    }

    #[test]
    fn clean_paths_have_no_dots() {
        assert_eq!(clean("a//b/./../c/"), "/a/c");
        assert_eq!(clean("/../.."), "/");
    }
}
