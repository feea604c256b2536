//! Scheduling, I/O priority, execution domain and memory policy of a process as steps.

use super::process::ProcessContext;
use crate::invalid::Invalid;
use crate::names::{
    IOPRIO_CLASSES, MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES, PERSONALITIES, SCHEDULER_FLAGS,
    SCHEDULER_POLICIES, number,
};
use crate::ranges::Ranges;
use crate::spec::{CpuAffinity, MemoryPolicy, Process, Scheduler};
use crate::steps::{Affinity, Attributes, MemoryPolicyStep, SchedulerStep};

/// Width of a class in ioprio_set(2)'s value, IOPRIO_CLASS_SHIFT of linux/ioprio.h.
const CLASS_SHIFT: u32 = 13;

pub(super) fn plan_attributes(
    process: &Process,
    context: &ProcessContext<'_>,
) -> Result<Attributes, Invalid> {
    let io_priority = match &process.io_priority {
        Some(io) => {
            let class = value(".process.ioPriority.class", IOPRIO_CLASSES, &io.class)?;
            Some(class << CLASS_SHIFT | u32::try_from(io.priority).unwrap_or(0))
        }
        None => None,
    };
    let personality = match context.personality {
        Some(p) => Some(value(".linux.personality.domain", PERSONALITIES, &p.domain)?),
        None => None,
    };
    Ok(Attributes {
        scheduler: process.scheduler.as_ref().map(|s| scheduler(s, context)).transpose()?,
        io_priority,
        personality,
        memory_policy: context.memory_policy.map(memory_policy).transpose()?,
    })
}

/// The CPUs of an exec; None where the config names none.
pub fn plan_affinity(affinity: Option<&CpuAffinity>) -> Result<Option<Affinity>, Invalid> {
    let Some(affinity) = affinity else { return Ok(None) };
    let list = |field: &str, text: &str| -> Result<Option<Ranges>, Invalid> {
        let ranges = Ranges::parse(text)
            .map_err(|why| Invalid::new(format!(".process.execCPUAffinity.{field}"), why))?;
        Ok((!ranges.is_empty()).then_some(ranges))
    };
    let (initial, last) = (list("initial", &affinity.initial)?, list("final", &affinity.r#final)?);
    Ok((initial.is_some() || last.is_some()).then_some(Affinity { initial, last }))
}

/// The words were checked; a wrong one is an error again, not a guess.
fn value(at: &str, table: &[(&str, u32)], word: &str) -> Result<u32, Invalid> {
    number(table, word).ok_or_else(|| Invalid::new(at, format!("unknown value {word:?}")))
}

fn scheduler(s: &Scheduler, context: &ProcessContext<'_>) -> Result<SchedulerStep, Invalid> {
    let mut flags = 0;
    for flag in &s.flags {
        flags |= u64::from(value(".process.scheduler.flags", SCHEDULER_FLAGS, flag)?);
    }
    Ok(SchedulerStep {
        name: s.policy.clone(),
        policy: value(".process.scheduler.policy", SCHEDULER_POLICIES, &s.policy)?,
        flags,
        nice: s.nice,
        priority: u32::try_from(s.priority)
            .map_err(|_| Invalid::new(".process.scheduler.priority", "must not be negative"))?,
        deadline: (s.runtime, s.deadline, s.period),
        limited_cpus: context.limited_cpus,
    })
}

fn memory_policy(policy: &MemoryPolicy) -> Result<MemoryPolicyStep, Invalid> {
    let mut mode = value(".linux.memoryPolicy.mode", MEMORY_POLICY_MODES, &policy.mode)?;
    for flag in &policy.flags {
        mode |= value(".linux.memoryPolicy.flags", MEMORY_POLICY_FLAGS, flag)?;
    }
    let nodes = Ranges::parse(&policy.nodes).map_err(|why| Invalid::new(".linux.memoryPolicy.nodes", why))?;
    Ok(MemoryPolicyStep { mode, nodes })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_are_the_kernel_s() {
        let process = crate::parse::parse_process(
            r#"{"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
                "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
                              "runtime": 1, "deadline": 2, "period": 3}}"#,
        )
        .unwrap();
        let none = std::collections::BTreeMap::new();
        let policy = MemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0,2-3".into(),
            flags: vec!["MPOL_F_STATIC_NODES".into()],
        };
        let context = ProcessContext { memory_policy: Some(&policy), ..ProcessContext::bare(&none) };
        let planned = plan_attributes(&process, &context).unwrap();
        assert_eq!(planned.io_priority, Some(2 << 13 | 4));
        let scheduler = planned.scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.flags, scheduler.deadline), (6, 1, (1, 2, 3)));
        let memory = planned.memory_policy.unwrap();
        assert_eq!((memory.mode, memory.nodes.mask()), (2 | 1 << 15, vec![13]));
        assert_eq!(planned.personality, None);
    }

    #[test]
    fn an_affinity_without_cpus_is_none() {
        assert_eq!(plan_affinity(None).unwrap(), None);
        assert_eq!(plan_affinity(Some(&CpuAffinity::default())).unwrap(), None);
        let one = CpuAffinity { r#final: "1".into(), ..CpuAffinity::default() };
        let planned = plan_affinity(Some(&one)).unwrap().unwrap();
        assert_eq!((planned.initial, planned.last.unwrap().to_string()), (None, "1".to_string()));
    }
}
