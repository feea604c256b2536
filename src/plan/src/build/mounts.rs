//! The config's mounts as steps.

use super::join;
use super::labels;
use super::namespaces::{Joining, lines};
use crate::check::check_proc_destination;
use crate::facts::Request;
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::{MountOptions, Propagation, Relative, attr, parse_options};
use crate::spec::{IdMapping, Mount, Spec};
use crate::steps::{At, Attr, IdmapStep, MountIds, MountSource, MountStep, Parameter, SourceLink};

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
pub fn plan_mounts(
    spec: &Spec,
    request: &Request,
    joining: &Joining,
    context: Option<&Parameter>,
) -> Result<Mounts, Invalid> {
    let mut planned = Mounts { mounts: Vec::new(), late_readonly: Vec::new() };
    let root = spec.root.as_ref().map_or("", |root| root.path.as_str());
    let place = Place { bundle: &request.bundle, root: clean(&join(&request.bundle, root)) };
    for (i, mount) in spec.mounts.iter().enumerate() {
        let at = format!(".mounts[{i}]");
        let options = parse_options(&mount.options)
            .map_err(|(word, why)| Invalid::new(format!("{at}.options[{word}]"), why))?;
        let idmap = idmap(&at, mount, &options, spec, joining)?;
        planned.add(at, mount, &options, &place, idmap, context)?;
    }
    if let Some(dir) = &request.notify_dir {
        planned.mounts.push(notify_mount(dir));
    }
    Ok(planned)
}

/// Where the paths of a config begin.
struct Place<'a> {
    bundle: &'a str,
    /// The container's root on the host, clean.
    root: String,
}

impl Place<'_> {
    /// A path of the host as seen from the container's root, if it lies below.
    fn inside(&self, path: &str) -> Option<String> {
        let rest = clean(path).strip_prefix(self.root.as_str())?.to_string();
        (self.root != "/" && rest.starts_with('/')).then_some(rest)
    }

    /// A destination may be written with the path of the root before it, as runc takes it.
    fn destination(&self, at: &str, mount: &Mount, is_procfs: bool) -> Result<String, Invalid> {
        let wrong = |why: String| Invalid::new(format!("{at}.destination"), why);
        let path = clean(&mount.destination);
        if path == self.root && path != "/" {
            return Err(wrong("must be below the root of the container".into()));
        }
        match self.inside(&path) {
            None => Ok(path),
            Some(path) => check_proc_destination(&path, is_procfs).map_err(wrong).map(|()| path),
        }
    }
}

impl Mounts {
    fn add(
        &mut self,
        at: At,
        mount: &Mount,
        options: &MountOptions,
        place: &Place<'_>,
        idmap: Option<IdmapStep>,
        context: Option<&Parameter>,
    ) -> Result<(), Invalid> {
        let is_bind = options.bind.is_some() || mount.r#type == "bind";
        let destination = place.destination(&at, mount, is_bind || mount.r#type == "proc")?;
        let propagation = options.propagation.iter().map(propagation_bits).collect();
        let recursive = options.recursive.map(|a| Attr { set: a.attr_set(), clear: a.attr_clr() });
        let mut taken_back = 0;
        let (source, attr) = if is_bind {
            taken_back = options.attr.attr_clr() & PLAIN_ATTRS;
            (bind_source(mount, options, place, idmap), bind_attr(options))
        } else if options.remount {
            (MountSource::Remount { flags: options.ms_flags(), data: options.data_string() }, None)
        } else if mount.r#type == "cgroup" {
            let source = MountSource::Cgroup { context: context.cloned() };
            (source, Some(Attr { set: options.attr.attr_set(), clear: 0 }))
        } else {
            self.filesystem(&at, mount, options, &destination, context)
        };
        let nofollow = options.destination_nofollow && is_bind;
        self.mounts.push(MountStep {
            at,
            destination,
            source,
            attr,
            recursive,
            propagation,
            taken_back,
            nofollow,
        });
        Ok(())
    }

    fn filesystem(
        &mut self,
        at: &str,
        mount: &Mount,
        options: &MountOptions,
        destination: &str,
        context: Option<&Parameter>,
    ) -> (MountSource, Option<Attr>) {
        let mut set = options.attr.attr_set();
        let mut parameters: Vec<Parameter> =
            options.data_params().map(|p| (p.key.to_string(), p.value.map(String::from))).collect();
        let label = labels::give_context(&mount.r#type, &mut parameters, context);
        parameters.extend(options.sb.fsconfig_keys().map(|key| (key.to_string(), None)));
        if set & attr::RDONLY != 0 {
            // Mount points and nodes are still to be made in it.
            if mount.r#type == "tmpfs" || destination == "/dev" {
                set &= !attr::RDONLY;
                self.late_readonly.push((at.to_string(), destination.to_string()));
            } else {
                parameters.push(("ro".into(), None));
            }
        }
        let source = MountSource::FileSystem {
            fstype: mount.r#type.clone(),
            source: mount.source.clone(),
            parameters,
            copy_up: options.tmpcopyup,
            label,
        };
        (source, Some(Attr { set, clear: 0 }))
    }
}

fn bind_source(
    mount: &Mount,
    options: &MountOptions,
    place: &Place<'_>,
    idmap: Option<IdmapStep>,
) -> MountSource {
    let source = join(place.bundle, &mount.source);
    let link = match (options.copy_symlink, options.source_nofollow) {
        (true, _) => SourceLink::Copy,
        (false, true) => SourceLink::Bind,
        (false, false) => SourceLink::Follow,
    };
    MountSource::Bind {
        inside: place.inside(&source),
        source,
        recursive: options.bind.is_some_and(|bind| bind.recursive),
        idmap,
        link,
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
    let recursive = options.idmap.as_ref().is_some_and(|idmap| idmap.recursive);
    if !mount.uid_mappings.is_empty() {
        let (uids, gids) = (lines(&mount.uid_mappings), lines(&mount.gid_mappings));
        let ids = MountIds::Maps { of: mount_at.into(), uids, gids };
        return Ok(Some(IdmapStep { at: format!("{mount_at}.uidMappings"), ids, recursive }));
    }
    let asked = |option: &String| {
        let name = option.split('=').next().unwrap_or_default();
        name == "idmap" || name == "ridmap"
    };
    let Some(option) = mount.options.iter().rposition(asked) else { return Ok(None) };
    let at = format!("{mount_at}.options[{option}]");
    if let Some(maps) = options.idmap.as_ref().and_then(|idmap| idmap.maps.as_ref()) {
        let linux = spec.linux.as_ref();
        let uids = absolute(&at, &maps.uids, linux.map_or(&[][..], |l| &l.uid_mappings))?;
        let gids = absolute(&at, &maps.gids, linux.map_or(&[][..], |l| &l.gid_mappings))?;
        let ids = MountIds::Maps { of: at.clone(), uids, gids };
        return Ok(Some(IdmapStep { at, ids, recursive }));
    }
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

/// Lines with `@` moved to where the container's user namespace has the id.
fn absolute(
    at: &str,
    lines: &[(u32, u32, u32, Relative)],
    namespace: &[IdMapping],
) -> Result<Vec<(u32, u32, u32)>, Invalid> {
    let line = |&(inside, outside, count, relative): &(u32, u32, u32, Relative)| {
        if relative == Relative::No {
            return Ok((inside, outside, count));
        }
        let host = namespace.iter().find_map(|map| {
            let offset = outside.checked_sub(map.container_id).filter(|offset| *offset < map.size)?;
            map.host_id.checked_add(offset)
        });
        match host {
            Some(host) => Ok((inside, host, count)),
            None => Err(Invalid::new(at, format!("@: {outside} is not mapped in the user namespace"))),
        }
    };
    lines.iter().map(line).collect()
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
        source: MountSource::Bind {
            source: dir.to_string(),
            recursive: false,
            idmap: None,
            inside: None,
            link: SourceLink::Follow,
        },
        attr: Some(Attr { set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, clear: 0 }),
        recursive: None,
        propagation: Vec::new(),
        taken_back: 0,
        nofollow: false,
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
    use crate::options::ms;
    use crate::spec::Root;

    fn plan_one(kind: &str, destination: &str, options: &[&str]) -> Mounts {
        let options = options.iter().map(|o| (*o).to_string()).collect();
        let mount = Mount {
            destination: destination.into(),
            r#type: kind.into(),
            source: "src".into(),
            options,
            ..Mount::default()
        };
        let root = Some(Root { path: "rootfs".into(), readonly: false });
        let spec = Spec { mounts: vec![mount], root, ..Spec::default() };
        let request = Request { bundle: "/b".into(), ..Request::default() };
        plan_mounts(&spec, &request, &Joining::default(), None).unwrap()
    }

    #[test]
    fn a_bind_without_flags_keeps_the_flags_of_its_source() {
        let planned = plan_one("", "/data", &["rbind", "rprivate"]);
        let step = &planned.mounts[0];
        assert_eq!(step.attr, None);
        let source = MountSource::Bind {
            source: "/b/src".into(),
            recursive: true,
            idmap: None,
            inside: None,
            link: SourceLink::Follow,
        };
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

    fn place() -> Place<'static> {
        Place { bundle: "/b", root: "/b/rootfs".into() }
    }

    #[test]
    fn paths_below_the_root_are_the_container_s() {
        for (path, inside) in [
            ("/b/rootfs/mnt/x", Some("/mnt/x")),
            ("/b/./rootfs//mnt/", Some("/mnt")),
            ("/b/rootfs", None),
            ("/b/rootfs2/x", None),
            ("/mnt", None),
        ] {
            assert_eq!(place().inside(path).as_deref(), inside, "{path}");
        }
        assert_eq!(Place { bundle: "/", root: "/".into() }.inside("/mnt"), None);
    }

    #[test]
    fn a_destination_may_name_the_root_but_not_hide_proc_in_it() {
        assert_eq!(plan_one("tmpfs", "/b/rootfs/mnt", &[]).mounts[0].destination, "/mnt");
        let mount = |path: &str| Mount { destination: path.into(), ..Mount::default() };
        for path in ["/b/rootfs", "/b/rootfs/proc", "/b/rootfs/proc/sys"] {
            assert!(place().destination(".mounts[0]", &mount(path), false).is_err(), "{path}");
        }
    }

    #[test]
    fn relative_maps_follow_the_user_namespace() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let namespace = [map(0, 0, 1), map(1, 2, 1000)];
        let lines = [(1, 3, 10, Relative::Yes), (0, 7, 1, Relative::No)];
        assert_eq!(absolute(".", &lines, &namespace).unwrap(), [(1, 4, 10), (0, 7, 1)]);
        assert!(absolute(".", &[(0, 5000, 1, Relative::Yes)], &namespace).is_err());
    }

    #[test]
    fn a_remount_of_no_bind_mount_is_a_call_of_mount() {
        let step = &plan_one("tmpfs", "/dev/shm", &["remount", "ro", "size=1m", "sync"]).mounts[0];
        let flags = ms::RDONLY | ms::SYNCHRONOUS;
        assert_eq!(step.source, MountSource::Remount { flags, data: "size=1m".into() });
    }

    #[test]
    fn clean_paths_have_no_dots() {
        assert_eq!(clean("a//b/./../c/"), "/a/c");
        assert_eq!(clean("/../.."), "/");
    }
}
