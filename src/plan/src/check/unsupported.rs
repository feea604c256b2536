//! Fields that creel reads but does not apply yet. A container that asks for one is refused, so
//! that nothing is dropped in silence; a line goes away when its field is applied. (`.vm`, which
//! no Linux runtime applies, is not read at all.)

use super::Warning;
use crate::facts::HostFacts;
use crate::invalid::Invalid;
use crate::spec::{Linux, Process, Spec};

const WHY: &str = "not supported by this version of creel";

/// A field, and whether a document asks for it.
type Field<T> = (&'static str, fn(&T) -> bool);

/// Fields of `.process`, and when one is asked for.
const PROCESS: &[Field<Process>] = &[
    ("apparmorProfile", |p| !p.apparmor_profile.is_empty()),
    ("selinuxLabel", |p| !p.selinux_label.is_empty()),
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
    match &spec.process {
        Some(part) => process(part, ".process"),
        None => Ok(()),
    }
}

/// `.linux.mountLabel` is SELinux's: without it there is nothing to label.
pub(crate) fn mount_label(
    linux: &Linux,
    facts: &HostFacts,
    warnings: &mut Vec<Warning>,
) -> Result<(), Invalid> {
    let at = ".linux.mountLabel";
    match (linux.mount_label.is_empty(), facts.selinux) {
        (true, _) => {}
        (false, true) => return Err(Invalid::new(at, WHY)),
        (false, false) => warnings.push(Warning::new(at, "ignored, SELinux is off on this machine")),
    }
    Ok(())
}

/// Whether creel applies a field of `.process` or `.linux` that the tables above may name: what
/// `features` says follows from what is refused here.
pub fn is_applied(field: &str) -> bool {
    field != "mountLabel" && PROCESS.iter().all(|(name, _)| *name != field)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{process_table, table};
    use super::*;

    #[test]
    fn fields_that_are_not_applied_are_refused() {
        for (field, value) in [("apparmorProfile", r#""docker-default""#), ("selinuxLabel", r#""a:b:c:s0""#)]
        {
            let expected = format!(".process.{field}: not supported by this version of creel");
            process_table(&[(&format!(r#"{{"{field}": {value}}}"#), &expected)]);
        }
    }

    #[test]
    fn a_mount_label_needs_selinux_to_mean_anything() {
        let linux = Linux { mount_label: "a:b:c".into(), ..Linux::default() };
        let mut warnings = Vec::new();
        mount_label(&linux, &HostFacts::ROOT, &mut warnings).expect("nothing to label");
        assert_eq!(warnings.len(), 1);
        let facts = HostFacts { selinux: true, ..HostFacts::ROOT };
        let invalid = mount_label(&linux, &facts, &mut warnings).expect_err("not applied");
        assert_eq!(invalid.at, ".linux.mountLabel");
        mount_label(&Linux::default(), &facts, &mut warnings).expect("no label");
    }

    #[test]
    fn what_is_refused_is_not_applied() {
        for (field, _) in super::PROCESS {
            assert!(!super::is_applied(field), "{field}");
        }
        assert!(!super::is_applied("mountLabel"));
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
