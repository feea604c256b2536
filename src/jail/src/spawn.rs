//! The host's side of a birth: open what only the host may open, clone, write the id maps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::steps::{Join, MountSource, Phase, Plan, Rootfs, SourceLink, StageUser};
use creel_sys::mount::{MountAttr, mount_setattr};
use creel_sys::process::{Forked, SingleThreaded, clone3};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open};

use crate::child::{Child, own_failure, place_of};
use crate::conversation::{self, Channel, Order, Report};
use crate::error::{Failed, Process, StepError};
use crate::hooks::HookState;
use crate::idmapped::UserNamespaces;
use crate::init::{self, Gate, InitResources, Source, held_link, open_bind_source};
use crate::labels::are_written;
use crate::procfs::HostProc;
use crate::{idmap, stage};

/// What a birth needs beside the plan.
#[derive(Debug)]
pub struct Setup<'p, 'c> {
    /// The plan.
    pub plan: &'p Plan,
    /// What was opened and compiled for init.
    pub resources: InitResources,
    /// What hooks are told.
    pub state: HookState,
    /// cgroup v2 directory that init is born into.
    pub cgroup: Option<BorrowedFd<'c>>,
    /// Puts init there when the kernel does not let this process.
    pub attach: Option<Attach<'c>>,
}

/// Moves a process, given by its pid, into the cgroup that it could not be born into.
#[derive(Clone, Copy)]
pub struct Attach<'c>(pub &'c dyn Fn(i32) -> Result<(), Failed>);

impl std::fmt::Debug for Attach<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attach")
    }
}

/// Closes root's process, and so what it clones, to whoever may not ptrace(2) in the user namespace that
/// creel was executed in. A child in a new user namespace is still the host's root on the host's mounts
/// until its id maps are written, and every process of the user who made the namespace has all rights over
/// it (user_namespaces(7)): one of another container, in a pid namespace that both are in, could open
/// /proc/PID/root. The memory keeps its first user namespace over clone(2), so that not being dumpable asks
/// for CAP_SYS_PTRACE there. An ordinary user stays the owner of its children's files in /proc, which the
/// maps are written to; who could reach them then is that user itself, and no container of its, whose user
/// namespaces are not above one another.
pub(crate) fn close_to_tracers() -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| Failed::host("prctl(DUMPABLE, 0)", errno))
}

/// Clones into the cgroup. Without the right to, and with somebody who has it, the child is born
/// outside and must wait to be moved: true.
pub(crate) fn clone_into(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    attach: Option<Attach<'_>>,
    alone: &SingleThreaded,
) -> Result<(Forked, bool), creel_sys::Errno> {
    match clone3(flags, cgroup, alone) {
        Err(creel_sys::Errno::ACCESS | creel_sys::Errno::PERM) if cgroup.is_some() && attach.is_some() => {
            clone3(flags, None, alone).map(|forked| (forked, true))
        }
        other => other.map(|forked| (forked, false)),
    }
}

/// First thing of a child that is born outside its cgroup.
pub(crate) fn wait_for_cgroup(outside: bool, channel: &Channel) -> Result<(), StepError> {
    if outside { init::talk(channel.expect(Order::Placed)) } else { Ok(()) }
}

/// Opens the namespace files to join.
pub fn open_joins(joins: &[Join]) -> Result<Vec<(OwnedFd, u64)>, Failed> {
    let open = |join: &Join| {
        rustix::fs::open(join.path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(|file| (file, join.kind.clone_flag()))
            .map_err(|errno| Failed::host(format!("open({:?})", join.path), errno).at(&join.at))
    };
    joins.iter().map(open).collect()
}

/// Opens the root and the sources of bind mounts as detached trees with the host's rights, for an
/// init whose user namespace may not reach them; for any other init only the sources of idmapped mounts.
/// They leave the host's peer groups at once, as the mount namespace of init would have made them do.
pub fn open_sources(plan: &Plan, resources: &mut InitResources) -> Result<(), Failed> {
    if let Some(rootfs) = &plan.init.rootfs
        && plan.host.open_sources
    {
        let root = open_source(rootfs, ".root.path", &rootfs.path, true, SourceLink::Follow)?;
        resources.rootfs = Some(root);
    }
    open_mount_sources(plan, resources)
}

fn open_source(
    rootfs: &Rootfs,
    at: &str,
    path: &str,
    recursive: bool,
    link: SourceLink,
) -> Result<OwnedFd, Failed> {
    let tree = open_bind_source(path, recursive, link)
        .map_err(|errno| Failed::host(format!("bind source {path:?}"), errno).at(at))?;
    let propagation = rootfs.propagation & !creel_plan::options::ms::REC;
    mount_setattr(tree.as_fd(), true, &MountAttr { propagation, ..MountAttr::default() })
        .map_err(|errno| Failed::host(format!("mount_setattr({path:?})"), errno).at(at))?;
    Ok(tree)
}

/// [`open_sources`] without the root.
pub(crate) fn open_mount_sources(plan: &Plan, resources: &mut InitResources) -> Result<(), Failed> {
    let Some(rootfs) = &plan.init.rootfs else { return Ok(()) };
    let all = plan.host.open_sources;
    resources.opened_outside = all;
    let mut namespaces = UserNamespaces::default();
    for step in &plan.init.mounts {
        let opened = match &step.source {
            // What init's own mounts show is not there yet.
            MountSource::Bind { inside: Some(_), .. } => None,
            MountSource::Bind { source, recursive, idmap, link, .. } if all || idmap.is_some() => {
                let opened = match held_link(source, *link) {
                    Some(link) => link,
                    None => Source::of(open_source(rootfs, &step.at, source, *recursive, *link)?)
                        .map_err(|errno| Failed::host(format!("stat({source:?})"), errno).at(&step.at))?,
                };
                if let Some(idmap) = idmap {
                    namespaces.map(opened.tree.as_fd(), source, idmap, &resources.joins)?;
                }
                Some(opened)
            }
            MountSource::Bind { .. }
            | MountSource::FileSystem { .. }
            | MountSource::Cgroup { .. }
            | MountSource::Remount { .. } => None,
        };
        resources.sources.push(opened);
    }
    Ok(())
}

/// Clones init, by way of the stage if the plan has one, and gives it its id maps and limits.
pub fn spawn<'p>(setup: Setup<'p, '_>) -> Result<Child<'p>, Failed> {
    let Setup { plan, mut resources, mut state, cgroup, attach } = setup;
    if !plan.init.hooks.create_container.is_empty() || !plan.init.start_container.is_empty() {
        state.output = state.output.open()?;
    }
    if needs_procfs(plan) {
        resources.proc = Some(HostProc::open()?);
    }
    let (host_end, child_end) =
        conversation::pair().map_err(|errno| Failed::host("socketpair(SOCK_SEQPACKET)", errno))?;
    let alone = SingleThreaded::witness();
    let flags = plan.host.clone_flags;
    close_to_tracers()?;
    let (forked, outside) = clone_into(flags, cgroup, attach, &alone)
        .map_err(|errno| Failed::host(format!("clone3({flags:#x})"), errno))?;
    let (pid, pidfd) = match forked {
        Forked::Child => {
            drop(host_end);
            let preserved = plan.init.process.exec.preserve_fds;
            let others: Vec<BorrowedFd<'_>> = state.output.descriptors().collect();
            let closed = resources.close_the_rest(preserved, &child_end, &others);
            let error = match closed.and_then(|()| wait_for_cgroup(outside, &child_end)) {
                Err(error) => error,
                Ok(()) => match &plan.stage {
                    None => init::run(&plan.init, &mut resources, &state, &child_end),
                    Some(stage) => stage::run(plan, stage, &mut resources, &state, &child_end),
                },
            };
            leave(Process::Init, &error, &child_end, resources.gate.as_ref())
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child_end);
    drop(resources);
    if outside {
        place(attach, pid, &pidfd, &host_end)?;
    }
    let host = &plan.host;
    let (of_stage, of_init) = match &plan.stage {
        Some(stage) if stage.user == StageUser::New => (host.id_map.as_ref(), None),
        _ => (None, host.id_map.as_ref()),
    };
    if let Some(map) = of_stage {
        prepare_first(pid, &pidfd, &host_end, Order::Mapped, || idmap::write(pid, map))?;
    }
    let (pid, pidfd) = match &plan.stage {
        None => (pid, pidfd),
        Some(_) => meet(pid, &pidfd, &host_end, |error| stage_failed(plan, error))?,
    };
    let child = Child::new(Process::Init, pid, pidfd, host_end, Some(plan));
    if let Some(map) = of_init {
        idmap::write(pid, map)?;
    }
    for limit in &host.rlimits {
        creel_sys::limits::set(pid, limit.resource, limit.soft, limit.hard)
            .map_err(|errno| Failed::host(crate::process::rlimit_call(limit), errno).at(&limit.at))?;
    }
    if let Some(score) = host.oom_score_adj {
        write_oom_score_adj(pid, score)?;
    }
    let orders = usize::from(of_init.is_some()) + usize::from(plan.stage.is_some());
    for _ in 0..orders {
        child.command(Order::Mapped)?;
    }
    Ok(child)
}

/// Whether a child needs the host's procfs.
fn needs_procfs(plan: &Plan) -> bool {
    let Plan { host, stage, init } = plan;
    host.joins.iter().any(|join| join.kind == NamespaceKind::Mount)
        || init.oom_score_adj.is_some()
        || !init.sysctls.is_empty()
        || are_written(&init.process.labels, init.enter.keyring.as_ref())
        || stage.as_ref().is_some_and(|stage| stage.clocks.is_some())
}

/// Has a child that was born outside its cgroup moved, and tells it.
pub(crate) fn place(
    attach: Option<Attach<'_>>,
    pid: i32,
    pidfd: &OwnedFd,
    channel: &Channel,
) -> Result<(), Failed> {
    let Some(Attach(attach)) = attach else { return Ok(()) };
    prepare_first(pid, pidfd, channel, Order::Placed, || attach(pid))
}

/// Does for a first child what it waits for, and tells it. One for which that cannot be done is ended.
fn prepare_first(
    pid: i32,
    pidfd: &OwnedFd,
    channel: &Channel,
    order: Order,
    prepare: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    const SIGKILL: i32 = 9;
    let told =
        |()| channel.command(order).map_err(|errno| Failed::host("conversation with the child", errno));
    let result = prepare().and_then(told);
    if result.is_err() {
        creel_sys::best_effort(creel_sys::process::pidfd_send_signal(pidfd.as_fd(), SIGKILL));
        creel_sys::best_effort(creel_sys::process::wait(pid));
    }
    result
}

/// Waits for the first child's word of the birth of its sibling, and reaps it.
pub(crate) fn meet(
    first: i32,
    pidfd: &OwnedFd,
    channel: &Channel,
    failed: impl FnOnce(StepError) -> Failed,
) -> Result<(i32, OwnedFd), Failed> {
    let report = channel.next_of(pidfd);
    let status = creel_sys::process::wait(first).map_err(|errno| Failed::host("waitpid", errno))?;
    match report.map_err(|errno| Failed::host("conversation with the child", errno))? {
        Some(Report::Born(pid)) => {
            let raw = Pid::from_raw(pid).ok_or_else(|| Failed::said("the child named no pid"))?;
            let pidfd = pidfd_open(raw, PidfdFlags::empty())
                .map_err(|errno| Failed::host(format!("pidfd_open({pid})"), errno))?;
            Ok((pid, pidfd))
        }
        Some(Report::Failed(error)) => Err(failed(error)),
        _ => Err(Failed::said(format!("the first child ended with wait status {status:#x}"))),
    }
}

fn stage_failed(plan: &Plan, error: StepError) -> Failed {
    let at = place_of(plan, &error);
    let process = if error.phase == Phase::Stage { Process::Stage } else { Process::Init };
    Failed { at, process, call: error.call, errno: error.errno, hint: None }
}

fn write_oom_score_adj(pid: i32, score: i32) -> Result<(), Failed> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let fail = |errno| Failed::host(format!("write({path}, {score})"), errno).at(".process.oomScoreAdj");
    let file =
        rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    rustix::io::write(&file, score.to_string().as_bytes()).map_err(fail).map(drop)
}

/// Last act of a child that failed: tell the host; or `start`, if the child was sent to wait for it,
/// by the fifo, which takes one page without a reader (pipe(7)).
pub(crate) fn leave(process: Process, error: &StepError, channel: &Channel, gate: Option<&Gate>) -> ! {
    match gate.filter(|gate| gate.waited.get()) {
        Some(gate) => {
            const PAGE: usize = 4096;
            let line = own_failure(process, error).to_string();
            let line = line.as_bytes();
            creel_sys::best_effort(rustix::io::write(&gate.fifo, &line[..line.len().min(PAGE)]));
        }
        None => creel_sys::best_effort(channel.report(&Report::Failed(error.clone()))),
    }
    creel_sys::process::exit(1)
}
