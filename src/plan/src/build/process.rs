//! `.process` as a plan, for init and for exec.

use std::collections::BTreeMap;

use super::labels::plan_labels;
use crate::facts::SecurityModules;
use crate::invalid::Invalid;
use crate::names::{capability_number, rlimit_number};
use crate::spec::{Capabilities, MemoryPolicy, Personality, Process};
use crate::steps::{CapSets, Console, Credentials, Exec, ProcessPlan, RlimitStep, SeccompAt};

/// What a process depends on beside its own section.
#[derive(Debug, Clone, Copy)]
pub struct ProcessContext<'a> {
    /// The container has a seccomp filter.
    pub has_seccomp: bool,
    /// `run.oci.keep_original_groups`: the groups of the config count for nothing.
    pub keep_groups: bool,
    /// The user namespace's owner gave up setgroups(2).
    pub setgroups_denied: bool,
    /// Descriptors from 3 on that stay open.
    pub preserve_fds: u32,
    /// Variables added to the environment.
    pub env: &'a BTreeMap<String, String>,
    /// The host sets the resource limits.
    pub limits_by_host: bool,
    /// `.linux.memoryPolicy`
    pub memory_policy: Option<&'a MemoryPolicy>,
    /// `.linux.personality`
    pub personality: Option<&'a Personality>,
    /// `.linux.resources.cpu.cpus` is given.
    pub limited_cpus: bool,
    /// Who takes labels.
    pub security: SecurityModules,
}

impl<'a> ProcessContext<'a> {
    /// Of a container that changes nothing.
    pub fn bare(env: &'a BTreeMap<String, String>) -> Self {
        ProcessContext {
            has_seccomp: false,
            keep_groups: false,
            setgroups_denied: false,
            preserve_fds: 0,
            env,
            limits_by_host: false,
            memory_policy: None,
            personality: None,
            limited_cpus: false,
            security: SecurityModules::NONE,
        }
    }
}

/// The process's plan, and the limits that the host sets for it.
pub fn plan_process(
    process: &Process,
    context: &ProcessContext<'_>,
) -> Result<(ProcessPlan, Vec<RlimitStep>), Invalid> {
    let no_new_privileges = process.no_new_privileges.unwrap_or(false);
    let groups = &process.user.additional_gids;
    if context.setgroups_denied && !context.keep_groups && !groups.is_empty() {
        return Err(Invalid::new(
            ".process.user.additionalGids",
            "cannot set additional groups in a rootless container that maps a single id",
        ));
    }
    let rlimits = rlimits(process)?;
    let (own, by_host) = if context.limits_by_host { (Vec::new(), rlimits) } else { (rlimits, Vec::new()) };
    let plan = ProcessPlan {
        rlimits: own,
        labels: plan_labels(process, context.security)?,
        no_new_privileges,
        attributes: super::attributes::plan_attributes(process, context)?,
        seccomp: match (context.has_seccomp, no_new_privileges) {
            (false, _) => SeccompAt::Never,
            (true, true) => SeccompAt::BeforeExec,
            (true, false) => SeccompAt::BeforeCredentials,
        },
        credentials: Credentials {
            uid: process.user.uid,
            gid: process.user.gid,
            groups: (!context.setgroups_denied && !context.keep_groups).then(|| groups.clone()),
            caps: process.capabilities.as_ref().map(cap_sets).unwrap_or_default(),
        },
        exec: Exec {
            args: process.args.clone(),
            env: environment(&process.env, context.env),
            cwd: process.cwd.clone(),
            preserve_fds: context.preserve_fds,
        },
    };
    Ok((plan, by_host))
}

/// The terminal that a process asks for.
pub fn plan_console(process: &Process, mount: bool) -> Option<Console> {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    process.terminal.then(|| Console {
        size: process
            .console_size
            .as_ref()
            .filter(|size| size.height != 0 && size.width != 0)
            .map(|size| (cells(size.height), cells(size.width))),
        mount,
    })
}

fn rlimits(process: &Process) -> Result<Vec<RlimitStep>, Invalid> {
    let step = |(i, limit): (usize, &crate::spec::Rlimit)| {
        let at = format!(".process.rlimits[{i}]");
        let resource = rlimit_number(&limit.r#type)
            .ok_or_else(|| Invalid::new(format!("{at}.type"), "unknown resource limit"))?;
        let (soft, hard) = (limit.soft, limit.hard);
        Ok(RlimitStep { at, name: limit.r#type.clone(), resource, soft, hard })
    };
    process.rlimits.iter().enumerate().map(step).collect()
}

/// Names that this version does not know were warned of and are left out, as runc does.
fn cap_sets(caps: &Capabilities) -> CapSets {
    let mask = |names: &[String]| {
        names.iter().filter_map(|name| capability_number(name)).fold(0u64, |mask, number| mask | 1 << number)
    };
    CapSets {
        bounding: mask(&caps.bounding),
        effective: mask(&caps.effective),
        permitted: mask(&caps.permitted),
        inheritable: mask(&caps.inheritable),
        ambient: mask(&caps.ambient),
    }
}

/// One entry per variable: the last one of the config wins, and the runtime's own win over those. An
/// empty HOME counts as missing.
fn environment(config: &[String], added: &BTreeMap<String, String>) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or(entry).to_string();
    let mut seen: std::collections::BTreeSet<String> = added.keys().cloned().collect();
    let mut env: Vec<String> = config
        .iter()
        .rev()
        .filter(|entry| seen.insert(key(entry)) && entry.as_str() != "HOME=")
        .cloned()
        .collect();
    env.reverse();
    env.extend(added.iter().map(|(name, value)| format!("{name}={value}")));
    env
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn context(has_seccomp: bool, env: &BTreeMap<String, String>) -> ProcessContext<'_> {
        ProcessContext { has_seccomp, ..ProcessContext::bare(env) }
    }

    #[test]
    fn the_filter_loads_where_the_kernel_lets_it() {
        let none = BTreeMap::new();
        let cases = [
            (false, Some(true), SeccompAt::Never),
            (true, None, SeccompAt::BeforeCredentials),
            (true, Some(false), SeccompAt::BeforeCredentials),
            (true, Some(true), SeccompAt::BeforeExec),
        ];
        for (seccomp, no_new_privileges, expected) in cases {
            let process = Process { no_new_privileges, ..Process::default() };
            let (plan, _) = plan_process(&process, &context(seccomp, &none)).unwrap();
            assert_eq!(plan.seccomp, expected, "{no_new_privileges:?}");
        }
    }

    #[test]
    fn the_last_entry_of_a_variable_wins_and_the_runtime_over_it() {
        let added = BTreeMap::from([("LISTEN_FDS".to_string(), "1".to_string())]);
        let config = ["A=1", "B=2", "A=3", "LISTEN_FDS=9", "HOME="].map(String::from);
        assert_eq!(environment(&config, &added), ["B=2", "A=3", "LISTEN_FDS=1"]);
    }

    #[test]
    fn denied_setgroups_refuses_groups_and_skips_the_call() {
        let none = BTreeMap::new();
        let denied = ProcessContext { setgroups_denied: true, ..context(false, &none) };
        let mut process = Process::default();
        assert_eq!(plan_process(&process, &denied).unwrap().0.credentials.groups, None);
        process.user.additional_gids = vec![5];
        assert_eq!(plan_process(&process, &denied).unwrap_err().at, ".process.user.additionalGids");
    }
}
