//! Scheduling, memory policy, personality, network devices and resctrl: the ranges of their values.

use super::{Warning, namespace};
use crate::invalid::{Invalid, did_you_mean, key_path};
use crate::names::{
    IOPRIO_CLASSES, MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES, NamespaceKind, PERSONALITIES, SCHEDULER_FLAGS,
    SCHEDULER_POLICIES, number,
};
use crate::ranges::Ranges;
use crate::spec::{CpuAffinity, IoPriority, Scheduler, Spec};

fn known(at: String, what: &str, word: &str, table: &[(&str, u32)]) -> Result<(), Invalid> {
    if number(table, word).is_some() {
        return Ok(());
    }
    let words: Vec<&str> = table.iter().map(|row| row.0).collect();
    Err(Invalid::unknown(at, what, word, &words))
}

/// sched_setattr(2): each policy has fields of its own.
pub(super) fn scheduler(at: &str, scheduler: Option<&Scheduler>) -> Result<(), Invalid> {
    let Some(s) = scheduler else { return Ok(()) };
    known(format!("{at}.policy"), "scheduler policy", &s.policy, SCHEDULER_POLICIES)?;
    for (index, flag) in s.flags.iter().enumerate() {
        known(format!("{at}.flags[{index}]"), "scheduler flag", flag, SCHEDULER_FLAGS)?;
    }
    let policy = s.policy.as_str();
    if matches!(policy, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&s.nice) {
        return Err(Invalid::new(
            format!("{at}.nice"),
            format!("must be between -20 and 19, found {}", s.nice),
        ));
    }
    if s.priority < 0 {
        return Err(Invalid::new(
            format!("{at}.priority"),
            format!("must not be negative, found {}", s.priority),
        ));
    }
    if s.priority != 0 && !matches!(policy, "SCHED_FIFO" | "SCHED_RR") {
        return Err(Invalid::new(format!("{at}.priority"), "is only for SCHED_FIFO and SCHED_RR"));
    }
    for (field, value) in [("runtime", s.runtime), ("deadline", s.deadline), ("period", s.period)] {
        if value != 0 && policy != "SCHED_DEADLINE" {
            return Err(Invalid::new(format!("{at}.{field}"), "is only for SCHED_DEADLINE"));
        }
    }
    Ok(())
}

/// ioprio_set(2)
pub(super) fn io_priority(at: &str, priority: Option<&IoPriority>) -> Result<(), Invalid> {
    let Some(p) = priority else { return Ok(()) };
    known(format!("{at}.class"), "I/O priority class", &p.class, IOPRIO_CLASSES)?;
    if !(0..=7).contains(&p.priority) {
        let why = format!("must be between 0 and 7, found {}", p.priority);
        return Err(Invalid::new(format!("{at}.priority"), why));
    }
    Ok(())
}

/// Lists of CPUs for exec.
pub(super) fn cpu_affinity(at: &str, affinity: Option<&CpuAffinity>) -> Result<(), Invalid> {
    let Some(affinity) = affinity else { return Ok(()) };
    for (field, text) in [("initial", &affinity.initial), ("final", &affinity.r#final)] {
        Ranges::parse(text).map_err(|why| Invalid::new(format!("{at}.{field}"), why))?;
    }
    Ok(())
}

/// set_mempolicy(2): which modes take nodes.
pub(super) fn memory_policy(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(policy) = spec.linux.as_ref().and_then(|linux| linux.memory_policy.as_ref()) else {
        return Ok(());
    };
    let at = ".linux.memoryPolicy";
    let wrong = |at: String, what: &str, word: &str, table: &[(&str, u32)]| {
        let near = match did_you_mean(word, table.iter().map(|row| row.0)) {
            Some(near) => format!("; did you mean {near:?}"),
            None => String::new(),
        };
        Err(Invalid::new(at, format!("invalid memory policy {what} {word:?}{near}")))
    };
    if number(MEMORY_POLICY_MODES, &policy.mode).is_none() {
        return wrong(format!("{at}.mode"), "mode", &policy.mode, MEMORY_POLICY_MODES);
    }
    for (index, flag) in policy.flags.iter().enumerate() {
        if number(MEMORY_POLICY_FLAGS, flag).is_none() {
            return wrong(format!("{at}.flags[{index}]"), "flag", flag, MEMORY_POLICY_FLAGS);
        }
    }
    let nodes = Ranges::parse(&policy.nodes).map_err(|why| {
        let why = format!("invalid memory policy nodes {:?}: {why}", policy.nodes);
        Invalid::new(format!("{at}.nodes"), why)
    })?;
    match policy.mode.as_str() {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if !nodes.is_empty() => {
            let why = format!("memory policy mode requires 0 nodes but got {}", nodes.count());
            Err(Invalid::new(format!("{at}.nodes"), why))
        }
        // MPOL_PREFERRED without nodes means the local one.
        "MPOL_BIND" | "MPOL_INTERLEAVE" | "MPOL_PREFERRED_MANY" | "MPOL_WEIGHTED_INTERLEAVE"
            if nodes.is_empty() =>
        {
            let why = "memory policy mode requires at least one node but got 0";
            Err(Invalid::new(format!("{at}.nodes"), why))
        }
        _ => Ok(()),
    }
}

/// personality(2). The specification defines no flag yet, and runc ignores any with a warning.
pub(super) fn personality(spec: &Spec, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(personality) = spec.linux.as_ref().and_then(|linux| linux.personality.as_ref()) else {
        return Ok(());
    };
    let at = ".linux.personality";
    known(format!("{at}.domain"), "personality", &personality.domain, PERSONALITIES)?;
    if !personality.flags.is_empty() {
        warnings
            .push(Warning::new(format!("{at}.flags"), "no personality flag is supported, all are ignored"));
    }
    Ok(())
}

/// Interfaces move into a network namespace and need a name that the kernel takes
/// (dev_valid_name(), net/core/dev.c: IFNAMSIZ is 16 with the null byte).
pub(super) fn net_devices(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let at = ".linux.netDevices";
    let Some(linux) = spec.linux.as_ref().filter(|linux| !linux.net_devices.is_empty()) else {
        return Ok(());
    };
    if namespace(spec, NamespaceKind::Network).is_none() {
        return Err(Invalid::new(at, "needs a network namespace in .linux.namespaces"));
    }
    let mut inside: Vec<&str> = Vec::new();
    for (name, device) in &linux.net_devices {
        let at = key_path(at, name);
        let new_name = if device.name.is_empty() { name } else { &device.name };
        if inside.contains(&new_name.as_str()) {
            let why = format!("{new_name:?} is the name of another device in the container");
            return Err(Invalid::new(at, why));
        }
        inside.push(new_name);
        if !is_interface(name) {
            return Err(Invalid::new(at, format!("{name:?} is not a network device name")));
        }
        if !device.name.is_empty() && !is_interface(&device.name) {
            let why = format!("{:?} is not a network device name", device.name);
            return Err(Invalid::new(at + ".name", why));
        }
    }
    Ok(())
}

fn is_interface(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad)
}

/// The class of service names a directory of /sys/fs/resctrl.
pub(super) fn intel_rdt(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(rdt) = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) else {
        return Ok(());
    };
    let id = rdt.clos_id.as_str();
    // "/" alone is the default group.
    if matches!(id, "." | "..") || id.contains('\0') || (id.len() > 1 && id.contains('/')) {
        return Err(Invalid::new(".linux.intelRdt.closID", format!("{id:?} is not a group name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{process_table, table};

    #[test]
    fn scheduler_fields_belong_to_their_policy() {
        process_table(&[
            (
                r#"{"scheduler": {"policy": ""}}"#,
                concat!(
                    r#".process.scheduler.policy: unknown scheduler policy "", expected one of SCHED_OTHER, "#,
                    "SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE"
                ),
            ),
            (
                r#"{"scheduler": {"policy": "SCHED_FIFI"}}"#,
                r#".process.scheduler.policy: unknown scheduler policy "SCHED_FIFI"; did you mean "SCHED_FIFO""#,
            ),
            (
                r#"{"scheduler": {"policy": "SCHED_RR", "flags": ["SCHED_FLAG_RECLAIN"]}}"#,
                concat!(
                    r#".process.scheduler.flags[0]: unknown scheduler flag "SCHED_FLAG_RECLAIN"; "#,
                    r#"did you mean "SCHED_FLAG_RECLAIM""#
                ),
            ),
            (
                r#"{"scheduler": {"policy": "SCHED_BATCH", "nice": 20}}"#,
                ".process.scheduler.nice: must be between -20 and 19, found 20",
            ),
            (
                r#"{"scheduler": {"policy": "SCHED_OTHER", "priority": 1}}"#,
                ".process.scheduler.priority: is only for SCHED_FIFO and SCHED_RR",
            ),
            (
                r#"{"scheduler": {"policy": "SCHED_FIFO", "period": 1}}"#,
                ".process.scheduler.period: is only for SCHED_DEADLINE",
            ),
            (r#"{"scheduler": {"policy": "SCHED_FIFO", "priority": 10}}"#, "ok"),
            (
                r#"{"scheduler": {"policy": "SCHED_FIFO", "priority": -1}}"#,
                ".process.scheduler.priority: must not be negative, found -1",
            ),
            (r#"{"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "period": 2}}"#, "ok"),
        ]);
    }

    #[test]
    fn io_priority_is_in_range() {
        process_table(&[
            (
                r#"{"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}"#,
                ".process.ioPriority.priority: must be between 0 and 7, found 8",
            ),
            (
                r#"{"ioPriority": {"class": "IOPRIO_CLASS_BB", "priority": 1}}"#,
                r#".process.ioPriority.class: unknown I/O priority class "IOPRIO_CLASS_BB"; did you mean "IOPRIO_CLASS_BE""#,
            ),
            (r#"{"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7}}"#, "ok"),
        ]);
    }

    #[test]
    fn memory_policy_nodes_fit_the_mode() {
        let policy = |p: &str| format!(r#"{{"linux": {{"memoryPolicy": {p}}}}}"#);
        table(&[
            (
                &policy(r#"{"mode": "MPOL_BOND"}"#),
                r#".linux.memoryPolicy.mode: invalid memory policy mode "MPOL_BOND"; did you mean "MPOL_BIND""#,
            ),
            (
                &policy(r#"{"mode": "MPOL_BIND"}"#),
                ".linux.memoryPolicy.nodes: memory policy mode requires at least one node but got 0",
            ),
            (
                &policy(r#"{"mode": "MPOL_LOCAL", "nodes": "0-7"}"#),
                ".linux.memoryPolicy.nodes: memory policy mode requires 0 nodes but got 8",
            ),
            (
                &policy(r#"{"mode": "MPOL_BIND", "nodes": "0,3-2"}"#),
                r#".linux.memoryPolicy.nodes: invalid memory policy nodes "0,3-2": "3-2" ends before it begins"#,
            ),
            (
                &policy(r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODE"]}"#),
                concat!(
                    r#".linux.memoryPolicy.flags[0]: invalid memory policy flag "MPOL_F_STATIC_NODE"; "#,
                    r#"did you mean "MPOL_F_STATIC_NODES""#
                ),
            ),
            (&policy(r#"{"mode": "MPOL_PREFERRED"}"#), "ok"),
            (&policy(r#"{"mode": "MPOL_INTERLEAVE", "nodes": "0,2-3"}"#), "ok"),
            (&policy("{}"), r#".linux.memoryPolicy.mode: invalid memory policy mode """#),
        ]);
    }

    #[test]
    fn personality_domains_are_known() {
        table(&[
            (
                r#"{"linux": {"personality": {"domain": "LINUX64"}}}"#,
                r#".linux.personality.domain: unknown personality "LINUX64"; did you mean "LINUX""#,
            ),
            (r#"{"linux": {"personality": {"domain": "LINUX32"}}}"#, "ok"),
        ]);
    }

    #[test]
    fn network_devices_need_a_namespace_and_a_name() {
        let devices =
            |d: &str| format!(r#"{{"linux": {{"namespaces": [{{"type": "network"}}], "netDevices": {d}}}}}"#);
        table(&[
            (
                r#"{"linux": {"netDevices": {"eth0": {}}}}"#,
                ".linux.netDevices: needs a network namespace in .linux.namespaces",
            ),
            (&devices(r#"{"a/b": {}}"#), r#".linux.netDevices["a/b"]: "a/b" is not a network device name"#),
            (
                &devices(r#"{"eth0": {"name": "sixteen-letters-"}}"#),
                r#".linux.netDevices.eth0.name: "sixteen-letters-" is not a network device name"#,
            ),
            (&devices(r#"{"eth0": {"name": "fifteen-letters"}}"#), "ok"),
            (
                &devices(r#"{"a": {"name": "eth0"}, "eth0": {}}"#),
                r#".linux.netDevices.eth0: "eth0" is the name of another device in the container"#,
            ),
            (&devices("{}"), "ok"),
        ]);
    }

    #[test]
    fn resctrl_group_is_one_name() {
        let group = |id: &str| format!(r#"{{"linux": {{"intelRdt": {{"closID": "{id}"}}}}}}"#);
        table(&[
            (&group(".."), r#".linux.intelRdt.closID: ".." is not a group name"#),
            (&group("a/b"), r#".linux.intelRdt.closID: "a/b" is not a group name"#),
            (&group("/"), "ok"),
            (&group("guaranteed"), "ok"),
        ]);
    }
}
