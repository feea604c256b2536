//! Which namespaces are new, which are joined, by whom, and the id maps.

use crate::facts::HostFacts;
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::spec::{IdMapping, Linux};
use crate::steps::{ClockOffset, IdMap, Join, MapWriter, OldGroups, StagePlan, StageUser};

/// `.linux.namespaces`, divided.
#[derive(Debug, Default)]
pub struct Joining {
    /// CLONE_NEW* of the new ones, but for the cgroup namespace, which init makes later.
    pub clone_flags: u64,
    /// Kinds of the new ones.
    new: Vec<NamespaceKind>,
    /// The joined ones.
    pub joins: Vec<Join>,
}

impl Joining {
    /// A new namespace of that kind.
    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new.contains(&kind)
    }

    /// A new or joined namespace of that kind.
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.joined(kind)
    }

    fn joined(&self, kind: NamespaceKind) -> bool {
        self.joins.iter().any(|j| j.kind == kind)
    }

    /// Indices of all joins. The mount namespace comes last: it changes what paths mean.
    pub fn all_joins(&self) -> Vec<usize> {
        let is_mount = |i: &usize| self.joins[*i].kind == NamespaceKind::Mount;
        let (mount, mut others): (Vec<usize>, Vec<usize>) = (0..self.joins.len()).partition(is_mount);
        others.extend(mount);
        others
    }
}

/// Divides the namespaces of a checked config.
pub fn split(linux: &Linux) -> Result<Joining, Invalid> {
    let mut joining = Joining::default();
    for (i, namespace) in linux.namespaces.iter().enumerate() {
        let kind = NamespaceKind::from_word(&namespace.r#type)
            .ok_or_else(|| Invalid::new(format!(".linux.namespaces[{i}].type"), "unknown namespace"))?;
        if !namespace.path.is_empty() {
            let at = format!(".linux.namespaces[{i}].path");
            joining.joins.push(Join { at, kind, path: namespace.path.clone() });
            continue;
        }
        joining.new.push(kind);
        if kind != NamespaceKind::Cgroup {
            joining.clone_flags |= kind.clone_flag();
        }
    }
    Ok(joining)
}

/// `(first id inside, first id outside, count)` of each line of a map.
pub fn lines(mappings: &[IdMapping]) -> Vec<(u32, u32, u32)> {
    mappings.iter().map(|m| (m.container_id, m.host_id, m.size)).collect()
}

/// Maps of a new user namespace.
pub fn id_map(linux: &Linux, joining: &Joining, facts: &HostFacts) -> Option<IdMap> {
    if !joining.is_new(NamespaceKind::User) {
        return None;
    }
    let (uids, gids) = (lines(&linux.uid_mappings), lines(&linux.gid_mappings));
    let only = |map: &[(u32, u32, u32)], id: u32| matches!(map, [(_, host, 1)] if *host == id);
    let writer = if !facts.is_rootless() {
        MapWriter::Privileged
    } else if only(&uids, facts.euid) && only(&gids, facts.egid) {
        MapWriter::SingleId
    } else {
        MapWriter::Helpers
    };
    Some(IdMap { uids, gids, writer })
}

/// The stage, where init cannot be cloned by the host itself.
///
/// * A pid namespace is entered by children of who joins it.
/// * A joined user namespace must own the namespaces that are made: they are made after it.
/// * Clocks are set before the first process is in a time namespace, by whoever may.
/// * Namespaces of the host's user are joined before a new user namespace takes the rights away.
pub fn stage(linux: &Linux, joining: &Joining, groups: OldGroups, facts: &HostFacts) -> Option<StagePlan> {
    let clocks = joining.is_new(NamespaceKind::Time) && !linux.time_offsets.is_empty();
    let needed = joining.joined(NamespaceKind::Pid)
        || joining.joined(NamespaceKind::User)
        || joining.joined(NamespaceKind::Time)
        || clocks
        || (joining.is_new(NamespaceKind::User) && !joining.joins.is_empty());
    if !needed {
        return None;
    }
    let user = if joining.joined(NamespaceKind::User) {
        StageUser::Joined
    } else if clocks && facts.is_rootless() && joining.is_new(NamespaceKind::User) {
        StageUser::New
    } else {
        StageUser::Host
    };
    let plan = StagePlan {
        joins: joining.all_joins(),
        user,
        groups,
        clocks: clocks.then(|| clock_offsets(linux)),
        clone_flags: 0,
    };
    // Made by the stage for its children, with the offsets, instead of by clone3.
    let time = if clocks { NamespaceKind::Time.clone_flag() } else { 0 };
    Some(StagePlan { clone_flags: joining.clone_flags & !time & !plan.own_flags(), ..plan })
}

fn clock_offsets(linux: &Linux) -> Vec<ClockOffset> {
    ["monotonic", "boottime"]
        .into_iter()
        .filter_map(|clock| {
            let offset = linux.time_offsets.get(clock)?;
            let at = format!(".linux.timeOffsets.{clock}");
            Some(ClockOffset { at, clock, secs: offset.secs, nanosecs: offset.nanosecs })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::spec::{Namespace, TimeOffset};

    fn linux(namespaces: &[(&str, &str)]) -> Linux {
        let namespaces = namespaces
            .iter()
            .map(|(kind, path)| Namespace { r#type: (*kind).into(), path: (*path).into() })
            .collect();
        Linux { namespaces, ..Linux::default() }
    }

    #[test]
    fn stage_is_planned_where_clone_alone_will_not_do() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[("pid", ""), ("mount", ""), ("network", "")], false),
            (&[("pid", ""), ("mount", ""), ("network", "/n"), ("ipc", "/i"), ("uts", "/u")], false),
            (&[("pid", "/p"), ("mount", "")], true),
            (&[("user", "/u"), ("mount", "")], true),
            (&[("user", ""), ("mount", "")], false),
            (&[("user", ""), ("mount", ""), ("network", "/n")], true),
            (&[("time", ""), ("mount", "")], false),
            (&[("time", "/t"), ("mount", "")], true),
        ];
        for (namespaces, expected) in cases {
            let linux = linux(namespaces);
            let joining = split(&linux).unwrap();
            assert_eq!(
                stage(&linux, &joining, OldGroups::Drop, &HostFacts::ROOT).is_some(),
                *expected,
                "{namespaces:?}"
            );
        }
    }

    #[test]
    fn time_offsets_move_the_namespace_from_clone_to_stage() {
        let mut linux = linux(&[("time", ""), ("pid", "")]);
        linux.time_offsets.insert("boottime".into(), TimeOffset { secs: 7, nanosecs: 1 });
        let joining = split(&linux).unwrap();
        let stage = stage(&linux, &joining, OldGroups::Drop, &HostFacts::ROOT).unwrap();
        assert_eq!(stage.clone_flags, NamespaceKind::Pid.clone_flag());
        assert_eq!(stage.clocks.unwrap()[0].clock, "boottime");
    }

    #[test]
    fn without_root_clocks_are_set_in_the_new_user_namespace() {
        let user = HostFacts { euid: 1000, ..HostFacts::ROOT };
        let mut linux = linux(&[("time", ""), ("pid", ""), ("user", "")]);
        let of = |linux: &Linux, facts| stage(linux, &split(linux).unwrap(), OldGroups::Drop, facts);
        assert_eq!(of(&linux, &user), None);
        linux.time_offsets.insert("boottime".into(), TimeOffset { secs: 7, nanosecs: 1 });
        let (pid, own) = (NamespaceKind::Pid.clone_flag(), NamespaceKind::User.clone_flag());
        let stage = of(&linux, &user).unwrap();
        assert_eq!((stage.user, stage.own_flags(), stage.clone_flags), (StageUser::New, own, pid));
        let stage = of(&linux, &HostFacts::ROOT).unwrap();
        assert_eq!((stage.user, stage.own_flags(), stage.clone_flags), (StageUser::Host, 0, pid | own));
    }

    #[test]
    fn cgroup_namespace_is_not_cloned() {
        let joining = split(&linux(&[("cgroup", ""), ("uts", "")])).unwrap();
        assert_eq!(joining.clone_flags, NamespaceKind::Uts.clone_flag());
        assert!(joining.is_new(NamespaceKind::Cgroup));
    }

    #[test]
    fn mount_namespace_is_joined_last() {
        let joining = split(&linux(&[("mount", "/m"), ("network", "/n")])).unwrap();
        assert_eq!(joining.all_joins(), [1, 0]);
    }

    #[test]
    fn an_ordinary_user_maps_itself_or_asks_the_helpers() {
        let user = HostFacts { euid: 1000, egid: 1000, ..HostFacts::ROOT };
        let one = |host| vec![IdMapping { container_id: 0, host_id: host, size: 1 }];
        let mut linux = linux(&[("user", "")]);
        linux.uid_mappings = one(1000);
        linux.gid_mappings = one(1000);
        let joining = split(&linux).unwrap();
        assert_eq!(id_map(&linux, &joining, &user).unwrap().writer, MapWriter::SingleId);
        assert_eq!(id_map(&linux, &joining, &HostFacts::ROOT).unwrap().writer, MapWriter::Privileged);
        linux.uid_mappings.push(IdMapping { container_id: 1, host_id: 100_000, size: 65536 });
        assert_eq!(id_map(&linux, &joining, &user).unwrap().writer, MapWriter::Helpers);
    }
}
