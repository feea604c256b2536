//! `.linux.namespaces` and `.linux.timeOffsets`.

use super::{Warning, absolute, namespace};
use crate::invalid::{Invalid, key_path};
use crate::names::NamespaceKind;
use crate::spec::Spec;

/// Clocks that time_namespaces(7) can shift.
const CLOCKS: [&str; 2] = ["boottime", "monotonic"];

pub(super) fn namespaces(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let at = format!(".linux.namespaces[{index}]");
        let Some(kind) = NamespaceKind::from_word(&namespace.r#type) else {
            let words = NamespaceKind::ALL.map(NamespaceKind::word);
            return Err(Invalid::unknown(at + ".type", "namespace", &namespace.r#type, &words));
        };
        if seen.contains(&kind) {
            return Err(Invalid::new(at + ".type", format!("namespace {:?} appears twice", kind.word())));
        }
        seen.push(kind);
        if !namespace.path.is_empty() {
            absolute(format_args!("{at}.path"), &namespace.path)?;
        }
    }
    Ok(())
}

/// The offsets can be set only while a new namespace has no process (time_namespaces(7)).
pub(super) fn time_offsets(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let at = ".linux.timeOffsets";
    let Some(linux) = &spec.linux else { return Ok(()) };
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    match namespace(spec, NamespaceKind::Time) {
        None => return Err(Invalid::new(at, "needs a time namespace in .linux.namespaces")),
        Some(time) if !time.path.is_empty() => {
            return Err(Invalid::new(at, "cannot be set in a time namespace that is joined by path"));
        }
        Some(_) => {}
    }
    for (clock, offset) in &linux.time_offsets {
        let at = key_path(at, clock);
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(Invalid::unknown(at, "clock", clock, &CLOCKS));
        }
        if offset.nanosecs > 999_999_999 {
            return Err(Invalid::new(at + ".nanosecs", "must be at most 999999999"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;

    #[test]
    fn kinds_are_known_and_appear_once() {
        table(&[
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "netwrok"}]}}"#,
                r#".linux.namespaces[1].type: unknown namespace "netwrok"; did you mean "network""#,
            ),
            (
                r#"{"linux": {"namespaces": [{"type": ""}]}}"#,
                concat!(
                    r#".linux.namespaces[0].type: unknown namespace "", "#,
                    "expected one of mount, cgroup, uts, ipc, user, pid, network, time"
                ),
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "pid", "path": "/x"}]}}"#,
                r#".linux.namespaces[2].type: namespace "pid" appears twice"#,
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid", "path": "run/pid"}]}}"#,
                r#".linux.namespaces[0].path: must be an absolute path, found "run/pid""#,
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid", "path": "/a\u0000"}]}}"#,
                ".linux.namespaces[0].path: must not contain a null byte",
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"},
                    {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}, {"type": "time"}]}}"#,
                "ok",
            ),
            (r#"{"linux": {}}"#, "ok"),
        ]);
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace() {
        table(&[
            (
                r#"{"linux": {"timeOffsets": {"monotonic": {"secs": 1}}}}"#,
                ".linux.timeOffsets: needs a time namespace in .linux.namespaces",
            ),
            (
                r#"{"linux": {"timeOffsets": {"monotonic": {"secs": 1}}, "namespaces": [{"type": "time", "path": "/t"}]}}"#,
                ".linux.timeOffsets: cannot be set in a time namespace that is joined by path",
            ),
            (
                r#"{"linux": {"timeOffsets": {"monotonc": {"secs": 1}}, "namespaces": [{"type": "time"}]}}"#,
                r#".linux.timeOffsets.monotonc: unknown clock "monotonc"; did you mean "monotonic""#,
            ),
            (
                r#"{"linux": {"timeOffsets": {"boottime": {"nanosecs": 1000000000}}, "namespaces": [{"type": "time"}]}}"#,
                ".linux.timeOffsets.boottime.nanosecs: must be at most 999999999",
            ),
            (
                r#"{"linux": {"timeOffsets": {"boottime": {"secs": -3, "nanosecs": 1}, "monotonic": {}},
                    "namespaces": [{"type": "time"}]}}"#,
                "ok",
            ),
        ]);
    }
}
