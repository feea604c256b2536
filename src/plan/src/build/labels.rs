//! Labels of SELinux and AppArmor: what the process gets with execve, and what mounts are given.
//!
//! A label that the machine has no security module for is an error, as in runc. `.linux.mountLabel` is
//! the exception: crun mounts without it, and so do containers that came from another machine.

use crate::annotations::{Extensions, MOUNT_CONTEXTS};
use crate::check::Warning;
use crate::facts::{AppArmor, HostFacts, SecurityModules};
use crate::invalid::Invalid;
use crate::spec::{Linux, Process};
use crate::steps::{Labels, Parameter, ProfileChange, ProfileStep};

pub fn plan_labels(process: &Process, security: SecurityModules) -> Result<Labels, Invalid> {
    let asked = |label: &String| (!label.is_empty()).then(|| label.clone());
    let selinux = asked(&process.selinux_label);
    if selinux.is_some() && !security.selinux {
        let why = "selinux label is specified in config, but selinux is disabled or not supported";
        return Err(Invalid::new(".process.selinuxLabel", why));
    }
    let Some(profile) = asked(&process.apparmor_profile) else {
        return Ok(Labels { selinux, apparmor: None });
    };
    let no_new_privileges = process.no_new_privileges.unwrap_or(false);
    let how = match (security.apparmor, no_new_privileges) {
        (AppArmor::Off, _) => {
            let why = "apparmor profile is specified in config, but apparmor is disabled or not supported";
            return Err(Invalid::new(".process.apparmorProfile", why));
        }
        // apparmor.d(5): with no_new_privs a profile may only be narrowed.
        (AppArmor::Confined, true) => ProfileChange::Stack,
        (AppArmor::Confined, false) | (AppArmor::Unconfined, _) => ProfileChange::Exec,
    };
    Ok(Labels { selinux, apparmor: Some(ProfileStep { profile, how }) })
}

/// `.linux.mountLabel` as a parameter of fsconfig(2).
pub fn mount_context(
    linux: &Linux,
    extensions: &Extensions<'_>,
    facts: &HostFacts,
    warnings: &mut Vec<Warning>,
) -> Option<Parameter> {
    if linux.mount_label.is_empty() {
        return None;
    }
    if !facts.security.selinux {
        let why = "ignored, SELinux is off on this machine".to_owned();
        warnings.push(Warning { at: ".linux.mountLabel".to_owned(), why });
        return None;
    }
    let key = extensions.mount_context.unwrap_or("context");
    Some((key.to_owned(), Some(linux.mount_label.clone())))
}

/// Adds the context to the parameters of a file system, unless its options have one of their own. The
/// label for mqueue, which takes none: its root is labelled after the fact, as in runc and crun. procfs
/// and sysfs have the policy's labels.
pub fn give_context(
    fstype: &str,
    parameters: &mut Vec<Parameter>,
    context: Option<&Parameter>,
) -> Option<String> {
    let mut own = false;
    for (_, value) in parameters.iter_mut().filter(|(key, _)| MOUNT_CONTEXTS.contains(&key.as_str())) {
        own = true;
        // The quotes keep mount(2) from dividing the value at its commas; fsconfig(2) takes it whole.
        *value = value.take().map(|value| value.trim_matches('"').to_owned());
    }
    let (context, false) = (context?, own) else { return None };
    match fstype {
        "proc" | "sysfs" => {}
        "mqueue" => return context.1.clone(),
        _ => parameters.push(context.clone()),
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const BOTH: SecurityModules = SecurityModules { selinux: true, apparmor: AppArmor::Unconfined };

    fn process(label: &str, profile: &str) -> Process {
        Process { selinux_label: label.into(), apparmor_profile: profile.into(), ..Process::default() }
    }

    #[test]
    fn a_label_without_its_security_module_is_an_error() {
        let invalid = plan_labels(&process("a:b:c", ""), SecurityModules::NONE).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            ".process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported"
        );
        for profile in ["docker-default", "unconfined"] {
            let invalid = plan_labels(&process("", profile), SecurityModules::NONE).unwrap_err();
            assert_eq!(invalid.at, ".process.apparmorProfile");
        }
        assert!(plan_labels(&process("", ""), SecurityModules::NONE).unwrap().is_empty());
    }

    #[test]
    fn a_profile_is_stacked_only_where_nothing_else_is_allowed() {
        for (apparmor, no_new_privileges, how) in [
            (AppArmor::Unconfined, None, ProfileChange::Exec),
            (AppArmor::Unconfined, Some(true), ProfileChange::Exec),
            (AppArmor::Confined, None, ProfileChange::Exec),
            (AppArmor::Confined, Some(false), ProfileChange::Exec),
            (AppArmor::Confined, Some(true), ProfileChange::Stack),
        ] {
            let process = Process { no_new_privileges, ..process("", "p") };
            let labels = plan_labels(&process, SecurityModules { apparmor, ..BOTH }).unwrap();
            assert_eq!(labels.apparmor.unwrap().how, how, "{apparmor:?} {no_new_privileges:?}");
        }
    }

    #[test]
    fn a_mount_label_needs_selinux_to_mean_anything() {
        let linux = Linux { mount_label: "a:b:c:s0:c1,c2".into(), ..Linux::default() };
        let mut warnings = Vec::new();
        let plain = Extensions::default();
        assert_eq!(mount_context(&linux, &plain, &HostFacts::ROOT, &mut warnings), None);
        assert_eq!(warnings.len(), 1);
        let facts = HostFacts { security: BOTH, ..HostFacts::ROOT };
        let given = |key: &str| Some((key.to_owned(), Some("a:b:c:s0:c1,c2".to_owned())));
        assert_eq!(mount_context(&linux, &plain, &facts, &mut warnings), given("context"));
        let other = Extensions { mount_context: Some("defcontext"), ..Extensions::default() };
        assert_eq!(mount_context(&linux, &other, &facts, &mut warnings), given("defcontext"));
        assert_eq!(mount_context(&Linux::default(), &plain, &facts, &mut warnings), None);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_context_goes_where_the_file_system_takes_one() {
        let context = ("context".to_owned(), Some("a:b:c".to_owned()));
        let given = |fstype: &str, own: &[(&str, &str)]| {
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
            let mut parameters: Vec<Parameter> = own.iter().map(pair).collect();
            let label = give_context(fstype, &mut parameters, Some(&context));
            let words: Vec<String> =
                parameters.into_iter().map(|(key, value)| format!("{key}={}", value.unwrap())).collect();
            (words.join(" "), label)
        };
        assert_eq!(given("tmpfs", &[("mode", "755")]), ("mode=755 context=a:b:c".into(), None));
        assert_eq!(given("devpts", &[]), ("context=a:b:c".into(), None));
        assert_eq!(given("proc", &[]), (String::new(), None));
        assert_eq!(given("sysfs", &[]), (String::new(), None));
        assert_eq!(given("mqueue", &[]), (String::new(), Some("a:b:c".into())));
        let own = [("rootcontext", "\"x:y:z:s0:c1,c2\"")];
        assert_eq!(given("tmpfs", &own), ("rootcontext=x:y:z:s0:c1,c2".into(), None));
    }
}
