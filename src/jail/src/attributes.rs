//! Scheduling, I/O priority, execution domain and memory policy.
//!
//! Runs in **init** and in the **exec** process while they are still root: sched_setattr(2) may need
//! CAP_SYS_NICE, and a seccomp profile may forbid personality(2) to the program that is to have it.

use creel_plan::steps::{Affinity, Attributes, MemoryPolicyStep, Phase, SchedulerStep};
use creel_sys::Errno;
use creel_sys::sched::SchedAttr;

use crate::error::{Step, StepError};

/// Index of a step in [`Phase::Attributes`], and the place in config.json that it comes from.
pub(crate) const PLACES: [&str; 5] = [
    ".process.scheduler",
    ".process.ioPriority",
    ".linux.personality",
    ".linux.memoryPolicy",
    ".process.execCPUAffinity.final",
];

/// Applies what the config names.
pub fn apply(attributes: &Attributes) -> Result<(), StepError> {
    let Attributes { scheduler, io_priority, personality, memory_policy } = attributes;
    if let Some(step) = scheduler {
        set_scheduler(step)?;
    }
    if let Some(value) = io_priority {
        creel_sys::sched::set_io_priority(*value).step(Phase::Attributes, 1, || {
            format!("ioprio_set(class {}, level {})", value >> 13, value & 0x1fff)
        })?;
    }
    if let Some(domain) = personality {
        creel_sys::sched::set_personality(*domain)
            .step(Phase::Attributes, 2, || format!("personality({domain:#x})"))?;
    }
    match memory_policy {
        Some(MemoryPolicyStep { mode, nodes }) => creel_sys::sched::set_memory_policy(*mode, &nodes.mask())
            .step(Phase::Attributes, 3, || format!("set_mempolicy({mode:#x}, nodes [{nodes}])")),
        None => Ok(()),
    }
}

fn set_scheduler(step: &SchedulerStep) -> Result<(), StepError> {
    let (runtime, deadline, period) = step.deadline;
    let attr = SchedAttr {
        policy: step.policy,
        flags: step.flags,
        nice: step.nice,
        priority: step.priority,
        runtime,
        deadline,
        period,
        ..SchedAttr::default()
    };
    let set = creel_sys::sched::set_scheduler(&attr);
    let why = match set {
        // sched_setattr(2), ERRORS: the thread has to be allowed on every CPU.
        Err(Errno::PERM) if step.limited_cpus => {
            "process scheduler can't be used together with AllowedCPUs (.linux.resources.cpu.cpus): "
        }
        _ => "",
    };
    set.step(Phase::Attributes, 0, || format!("{why}sched_setattr({})", step.name))
}

/// The CPUs of an exec process, once it is in the container's cgroup. The CPUs that the caller of the
/// runtime was bound to (taskset(1), a pinned engine) are not the container's: without a word in the
/// config the cpuset alone says where it may run, and a refusal leaves it where it is.
pub fn bind_to_cpus(affinity: Option<&Affinity>) -> Result<(), StepError> {
    match affinity {
        None => {
            creel_sys::best_effort(creel_sys::process::reset_affinity());
            Ok(())
        }
        Some(Affinity { last: Some(cpus), .. }) => {
            creel_sys::sched::set_affinity(&cpus.bytes())
                .step(Phase::Attributes, 4, || format!("sched_setaffinity({cpus})"))
        }
        // The initial ones stay.
        Some(Affinity { last: None, .. }) => Ok(()),
    }
}
