//! The stage process: joins what init must be born into, sets clocks, clones init as its own
//! sibling, and is gone.
//!
//! Runs between the host and init, only when the plan has a stage: a pid namespace applies to
//! children only, a user namespace has to be entered before the namespaces that it is to own are
//! made, and clocks are set before a time namespace has its first process (time_namespaces(7)); without
//! privileges on the host they are set by a stage that is born into the container's user namespace.

use std::os::fd::{AsFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::steps::{ClockOffset, Join, Phase, Plan, StagePlan, StageUser};
use creel_sys::Errno;
use creel_sys::process::{Forked, SingleThreaded, clone3, setns, unshare};
use rustix::process::DumpableBehavior;

use crate::conversation::{Channel, Order, Report};
use crate::error::{Step, StepError};
use crate::hooks::HookState;
use crate::init::{self, InitResources, talk};

/// How the call that sets the clocks begins in an error.
pub const SET_CLOCKS: &str = "write(/proc/self/timens_offsets";
/// CLONE_PARENT: init is the host's child, as it is without a stage.
const CLONE_PARENT: u64 = 0x8000;

/// Runs the stage; never returns an `Ok` in the stage, an `Err` in stage or init.
pub fn run(
    plan: &Plan,
    stage: &StagePlan,
    resources: &mut InitResources,
    state: &HookState,
    channel: &Channel,
) -> StepError {
    match prepare_and_clone(plan, stage, resources, channel) {
        Err(error) => error,
        Ok(false) => creel_sys::process::exit(0),
        Ok(true) => match talk(channel.expect(Order::Mapped)) {
            Ok(()) => init::run(&plan.init, resources, state, channel),
            Err(error) => error,
        },
    }
}

/// True in init. The stage was born into the container's cgroup, and init is with it: from inside a
/// joined user namespace nobody could be put there.
fn prepare_and_clone(
    plan: &Plan,
    stage: &StagePlan,
    resources: &InitResources,
    channel: &Channel,
) -> Result<bool, StepError> {
    let alone = SingleThreaded::witness();
    // Opened while the process owns its files in /proc: the joined user namespace's root does not.
    const OFFSETS: &str = "self/timens_offsets";
    let offsets = match &stage.clocks {
        Some(clocks) => Some((clocks, resources.proc(Phase::Stage)?.open_at(Phase::Stage, 0, OFFSETS)?)),
        None => None,
    };
    match stage.user {
        StageUser::Host => {}
        // Before it is where others may ptrace (CVE-2016-9962).
        StageUser::Joined => rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step(
            Phase::Stage,
            0,
            || "prctl(DUMPABLE, 0)".into(),
        )?,
        StageUser::New => {
            talk(channel.expect(Order::Mapped))?;
            become_root(stage)?;
        }
    }
    join_all(&plan.host.joins, stage, &resources.joins, &alone)?;
    if let Some((clocks, file)) = offsets {
        unshare(NamespaceKind::Time.clone_flag(), &alone)
            .step(Phase::Stage, 0, || "unshare(CLONE_NEWTIME)".into())?;
        set_clocks(clocks, &file)?;
    }
    let forked = clone3(stage.clone_flags | CLONE_PARENT, None, &alone)
        .step(Phase::Stage, 0, || format!("clone3({:#x})", stage.clone_flags))?;
    match forked {
        Forked::Child => Ok(true),
        Forked::Parent { pid, .. } => talk(channel.report(&Report::Born(pid))).map(|()| false),
    }
}

/// Namespaces are joined with the rights of the host's user first; those that only the joined user
/// namespace has rights over are tried again inside it.
fn join_all(
    joins: &[Join],
    stage: &StagePlan,
    files: &[(OwnedFd, u64)],
    alone: &SingleThreaded,
) -> Result<(), StepError> {
    let is_user = |i: &usize| joins.get(*i).is_some_and(|j| j.kind == NamespaceKind::User);
    let (user, others): (Vec<usize>, Vec<usize>) = stage.joins.iter().copied().partition(is_user);
    let join = |i: usize| match files.get(i) {
        Some((file, kind)) => setns(file.as_fd(), *kind, alone),
        None => Err(Errno::BADF),
    };
    let mut again = Vec::new();
    for &i in &others {
        match join(i) {
            Err(Errno::PERM) if !user.is_empty() => again.push(i),
            other => other.step(Phase::Stage, i, || "setns".into())?,
        }
    }
    for &i in &user {
        join(i).step(Phase::Stage, i, || "setns".into())?;
    }
    if stage.user == StageUser::Joined {
        become_root(stage)?;
    }
    for i in again {
        join(i).step(Phase::Stage, i, || "setns".into())?;
    }
    Ok(())
}

fn become_root(stage: &StagePlan) -> Result<(), StepError> {
    init::become_root(stage.groups).map_err(|e| StepError { phase: Phase::Stage, ..e })
}

fn set_clocks(clocks: &[ClockOffset], file: &OwnedFd) -> Result<(), StepError> {
    let text: String = clocks.iter().map(|c| format!("{} {} {}\n", c.clock, c.secs, c.nanosecs)).collect();
    let call = || format!("{SET_CLOCKS}, {:?})", text.trim_end());
    rustix::io::write(file, text.as_bytes()).step(Phase::Stage, 0, call).map(drop)
}
