//! Fields that creel reads but does not apply yet. A container that asks for one is refused, so
//! that nothing is dropped in silence; a line goes away when its field is applied. (`.vm`, which
//! no Linux runtime applies, is not read at all.)

use super::Warning;
use crate::invalid::Invalid;
use crate::spec::{Linux, Process, Spec};

const WHY: &str = "not supported by this version of creel";

/// A field, and whether a document asks for it.
type Field<T> = (&'static str, fn(&T) -> bool);

/// Fields of `.process`, and when one is asked for.
const PROCESS: &[Field<Process>] = &[
    ("apparmorProfile", |p| !p.apparmor_profile.is_empty()),
    ("execCPUAffinity", |p| p.exec_cpu_affinity.is_some()),
    ("ioPriority", |p| p.io_priority.is_some()),
    ("scheduler", |p| p.scheduler.is_some()),
    ("selinuxLabel", |p| !p.selinux_label.is_empty()),
];

/// Fields of `.linux`.
const LINUX: &[Field<Linux>] = &[
    ("intelRdt", |l| l.intel_rdt.is_some()),
    ("memoryPolicy", |l| l.memory_policy.is_some()),
    ("mountLabel", |l| !l.mount_label.is_empty()),
    ("netDevices", |l| !l.net_devices.is_empty()),
    ("personality", |l| l.personality.is_some()),
];

fn refuse<T>(at: &str, part: &T, table: &[Field<T>]) -> Result<(), Invalid> {
    match table.iter().find(|(_, asked)| asked(part)) {
        Some((field, _)) => Err(Invalid::new(format!("{at}.{field}"), WHY)),
        None => Ok(()),
    }
}

pub(super) fn process(process: &Process, at: &str) -> Result<(), Invalid> {
    refuse(at, process, PROCESS)
}

pub(super) fn unsupported(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    if let Some(part) = &spec.process {
        process(part, ".process")?;
    }
    match &spec.linux {
        Some(linux) => refuse(".linux", linux, LINUX),
        None => Ok(()),
    }
}

/// Whether creel applies a field of `.process` or `.linux` that the tables above may name: what
/// `features` says follows from what is refused here.
pub fn is_applied(field: &str) -> bool {
    let names = PROCESS.iter().map(|(name, _)| *name).chain(LINUX.iter().map(|(name, _)| *name));
    !names.into_iter().any(|name| name == field)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{process_table, table};

    #[test]
    fn fields_that_are_not_applied_are_refused() {
        for (field, value) in [
            ("apparmorProfile", r#""docker-default""#),
            ("execCPUAffinity", r#"{"initial": "0"}"#),
            ("selinuxLabel", r#""a:b:c:s0""#),
        ] {
            let expected = format!(".process.{field}: not supported by this version of creel");
            process_table(&[(&format!(r#"{{"{field}": {value}}}"#), &expected)]);
        }
        table(&[
            (
                r#"{"linux": {"mountLabel": "a:b:c"}}"#,
                ".linux.mountLabel: not supported by this version of creel",
            ),
            (r#"{"linux": {"intelRdt": {}}}"#, ".linux.intelRdt: not supported by this version of creel"),
        ]);
    }

    #[test]
    fn what_is_refused_is_not_applied() {
        for (field, _) in super::PROCESS {
            assert!(!super::is_applied(field), "{field}");
        }
        for (field, _) in super::LINUX {
            assert!(!super::is_applied(field), "{field}");
        }
        assert!(super::is_applied("rlimits"));
    }

    #[test]
    fn empty_values_ask_for_nothing() {
        process_table(&[(r#"{"apparmorProfile": "", "selinuxLabel": "", "scheduler": null}"#, "ok")]);
        table(&[(
            r#"{"linux": {"mountLabel": "", "netDevices": {}, "intelRdt": null}, "vm": {"a": 1}}"#,
            "ok",
        )]);
    }
}
