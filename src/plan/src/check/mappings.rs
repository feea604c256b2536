//! Id mappings: of the user namespace, and the form that every mapping has.

use super::{Warning, is_mapped, namespace};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::spec::{IdMapping, Spec};

/// UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h, since Linux 4.15.
const LINES_MAX: usize = 340;

pub(super) fn user_namespace(spec: &Spec, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let maps = [(".linux.uidMappings", &linux.uid_mappings), (".linux.gidMappings", &linux.gid_mappings)];
    for (at, map) in maps {
        id_map(at, map)?;
    }
    let given = maps.iter().find(|(_, map)| !map.is_empty());
    match (namespace(spec, NamespaceKind::User), given) {
        (None, None) => Ok(()),
        (None, Some((at, _))) => {
            Err(Invalid::new(*at, "cannot be set without a user namespace in .linux.namespaces"))
        }
        (Some(user), Some((at, _))) if !user.path.is_empty() => {
            // containerd and CRI-O write both. What must be the same is known when it is joined.
            warnings.push(Warning::new(*at, "has no effect on a user namespace that is joined by path"));
            Ok(())
        }
        (Some(user), None) if !user.path.is_empty() => Ok(()),
        (Some(_), _) => new_namespace(&maps),
    }
}

/// A new user namespace can be used only once root is mapped in it.
fn new_namespace(maps: &[(&str, &Vec<IdMapping>)]) -> Result<(), Invalid> {
    for (at, map) in maps {
        if map.is_empty() {
            return Err(Invalid::new(*at, "must not be empty for a new user namespace"));
        }
        if !is_mapped(map, 0) {
            return Err(Invalid::new(*at, "must map id 0 of the container"));
        }
    }
    Ok(())
}

/// The ids that the process runs as need a mapping, or setuid(2) answers EINVAL.
pub(super) fn users_are_mapped(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let (Some(linux), Some(process)) = (&spec.linux, &spec.process) else { return Ok(()) };
    if namespace(spec, NamespaceKind::User).is_none_or(|user| !user.path.is_empty()) {
        return Ok(());
    }
    let user = &process.user;
    if !is_mapped(&linux.uid_mappings, user.uid) {
        let why = format!("{} is not mapped in .linux.uidMappings", user.uid);
        return Err(Invalid::new(".process.user.uid", why));
    }
    if !is_mapped(&linux.gid_mappings, user.gid) {
        let why = format!("{} is not mapped in .linux.gidMappings", user.gid);
        return Err(Invalid::new(".process.user.gid", why));
    }
    Ok(())
}

/// What user_namespaces(7) asks of the lines of a map: not empty, not beyond the last id, no
/// overlap on either side, not too many.
pub(super) fn id_map(at: &str, map: &[IdMapping]) -> Result<(), Invalid> {
    if map.len() > LINES_MAX {
        return Err(Invalid::new(at, format!("must have at most {LINES_MAX} entries, found {}", map.len())));
    }
    for (index, line) in map.iter().enumerate() {
        if line.size == 0 {
            return Err(Invalid::new(format!("{at}[{index}].size"), "must not be 0"));
        }
        for (field, first) in [("containerID", line.container_id), ("hostID", line.host_id)] {
            if first.checked_add(line.size).is_none() {
                let at = format!("{at}[{index}].size");
                let why = format!("{} ids from {field} {first} go beyond 4294967294", line.size);
                return Err(Invalid::new(at, why));
            }
        }
    }
    no_overlap(at, "containerID", map, |line| line.container_id)?;
    no_overlap(at, "hostID", map, |line| line.host_id)
}

fn no_overlap(at: &str, field: &str, map: &[IdMapping], first: fn(&IdMapping) -> u32) -> Result<(), Invalid> {
    let mut lines: Vec<(u32, u32, usize)> =
        map.iter().enumerate().map(|(index, line)| (first(line), line.size, index)).collect();
    lines.sort_unstable();
    for pair in lines.windows(2) {
        if let [(start, size, left), (next, _, right)] = pair {
            if next - start < *size {
                let (one, other) = (left.min(right), left.max(right));
                let why = format!("the range overlaps that of entry {one}");
                return Err(Invalid::new(format!("{at}[{other}].{field}"), why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{table, verdict};
    use super::LINES_MAX;

    const LINE: &str = r#"[{"containerID": 0, "hostID": 1000, "size": 10}]"#;

    fn with(uid: &str, gid: &str, namespaces: &str) -> String {
        format!(r#"{{"linux": {{"uidMappings": {uid}, "gidMappings": {gid}, "namespaces": {namespaces}}}}}"#)
    }

    #[test]
    fn a_new_user_namespace_needs_both_maps() {
        let user = r#"[{"type": "user"}]"#;
        let off = r#"[{"containerID": 1, "hostID": 1000, "size": 10}]"#;
        table(&[
            (&with(LINE, LINE, user), "ok"),
            (&with("[]", "[]", user), ".linux.uidMappings: must not be empty for a new user namespace"),
            (&with(LINE, "[]", user), ".linux.gidMappings: must not be empty for a new user namespace"),
            (&with("[]", LINE, user), ".linux.uidMappings: must not be empty for a new user namespace"),
            (&with(off, LINE, user), ".linux.uidMappings: must map id 0 of the container"),
            (
                &with("[]", LINE, "[]"),
                ".linux.gidMappings: cannot be set without a user namespace in .linux.namespaces",
            ),
        ]);
    }

    #[test]
    fn a_joined_user_namespace_needs_none() {
        let joined = r#"[{"type": "user", "path": "/proc/1/ns/user"}]"#;
        table(&[
            (&with("[]", "[]", joined), "ok"),
            (
                &with(LINE, LINE, joined),
                "warning .linux.uidMappings: has no effect on a user namespace that is joined by path",
            ),
        ]);
    }

    #[test]
    fn lines_are_as_the_kernel_wants_them() {
        let user = r#"[{"type": "user"}]"#;
        let map = |lines: &str| with(lines, LINE, user);
        table(&[
            (
                &map(r#"[{"containerID": 0, "hostID": 1, "size": 0}]"#),
                ".linux.uidMappings[0].size: must not be 0",
            ),
            (
                &map(r#"[{"containerID": 0, "hostID": 4294967290, "size": 6}]"#),
                ".linux.uidMappings[0].size: 6 ids from hostID 4294967290 go beyond 4294967294",
            ),
            (&map(r#"[{"containerID": 0, "hostID": 0, "size": 4294967295}]"#), "ok"),
            (
                &map(
                    r#"[{"containerID": 5, "hostID": 100, "size": 5}, {"containerID": 0, "hostID": 1, "size": 6}]"#,
                ),
                ".linux.uidMappings[1].containerID: the range overlaps that of entry 0",
            ),
            (
                &map(
                    r#"[{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 5, "hostID": 5, "size": 6}]"#,
                ),
                ".linux.uidMappings[1].hostID: the range overlaps that of entry 0",
            ),
            (
                &map(
                    r#"[{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 5, "hostID": 6, "size": 6}]"#,
                ),
                "ok",
            ),
        ]);
        let lines = |count: usize| {
            let lines: Vec<String> = (0..count)
                .map(|i| format!(r#"{{"containerID": {i}, "hostID": {}, "size": 1}}"#, i + 5000))
                .collect();
            map(&format!("[{}]", lines.join(",")))
        };
        assert_eq!(verdict(&lines(LINES_MAX)), "ok");
        assert_eq!(
            verdict(&lines(LINES_MAX + 1)),
            ".linux.uidMappings: must have at most 340 entries, found 341"
        );
    }

    #[test]
    fn the_process_runs_as_mapped_ids() {
        let process = |user: &str| {
            format!(
                r#"{{"process": {{"cwd": "/", "args": ["a"], "user": {user}}}, "linux": {{"uidMappings": {LINE},
                    "gidMappings": {LINE}, "namespaces": [{{"type": "user"}}]}}}}"#
            )
        };
        table(&[
            (&process(r#"{"uid": 9, "gid": 9}"#), "ok"),
            (
                &process(r#"{"uid": 10, "gid": 9}"#),
                ".process.user.uid: 10 is not mapped in .linux.uidMappings",
            ),
            (
                &process(r#"{"uid": 0, "gid": 10}"#),
                ".process.user.gid: 10 is not mapped in .linux.gidMappings",
            ),
        ]);
    }
}
