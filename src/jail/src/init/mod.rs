//! The interpreter of [`InitPlan`]: from clone to the container's program.
//!
//! Runs in **init**, a copy of the host process after clone3. It makes no decision: what to do was
//! planned, what needs the host's view was opened before. The one function that walks the phases
//! destructures the plan, so that a phase that nobody runs does not compile.

mod cgroup;
mod console;
mod devices;
mod enter;
mod filesystem;
mod hide;
mod mounts;
mod root;
mod sysctl;

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use creel_plan::steps::{InitPlan, Phase, ProcessPlan, SeccompAt};
use creel_sys::Errno;
use creel_sys::process::SingleThreaded;
use rustix::fs::Mode;
use rustix::process::DumpableBehavior;

pub use cgroup::{CgroupView, V1Hierarchy};
pub(crate) use console::attach as attach_console;
pub(crate) use enter::{become_root, join_cgroup, join_keyring};
pub(crate) use filesystem::{new_filesystem, tmpfs_mode};
pub use mounts::Source;
pub(crate) use mounts::{attach as attach_mount, attrs_of, held_link, open_bind_source};
pub(crate) use sysctl::write_oom_score_adj;

use crate::conversation::{Channel, Order, Report};
use crate::error::{Step, StepError};
use crate::hooks::{HookState, run_hooks};
use crate::process::{Filter, Program};
use crate::procfs::HostProc;
use crate::rooted::Root;

/// What the host opened or compiled for init; descriptors come by inheritance.
#[derive(Debug, Default)]
pub struct InitResources {
    /// Namespace files with their CLONE_NEW* flag, as [`creel_plan::steps::HostPlan::joins`].
    pub joins: Vec<(OwnedFd, u64)>,
    /// `tasks` files of the container's cgroup v1 directories, open for writing.
    pub cgroup_tasks: Vec<OwnedFd>,
    /// What a mount of type cgroup shows.
    pub cgroup_view: CgroupView,
    /// The root's tree, detached, when the host opens it.
    pub rootfs: Option<OwnedFd>,
    /// Sources of bind mounts by index of the mount, detached, when the host opens them.
    pub sources: Vec<Option<Source>>,
    /// All of them were opened with more rights than init's user namespace has.
    pub opened_outside: bool,
    /// Seccomp filter.
    pub filter: Option<Filter>,
    /// Where init waits for `start`.
    pub gate: Option<Gate>,
    /// The host's procfs, for a plan that needs it.
    pub proc: Option<HostProc>,
}

/// The fifo of a created container, open for reading and writing so that neither side's open waits
/// for the other, and with room for a single write: the writer sees when it has been read.
#[derive(Debug)]
pub struct Gate {
    /// `start` writes here and init reads; then init writes here why its program could not be run.
    /// execve closes it.
    pub fifo: OwnedFd,
    /// Set once init has been told to wait: from then on `start` is who listens.
    pub waited: Cell<bool>,
}

impl InitResources {
    /// The host's procfs, for a step that writes there.
    pub(crate) fn proc(&self, phase: Phase) -> Result<&HostProc, StepError> {
        self.proc.as_ref().ok_or_else(|| StepError::new(phase, 0, "the host's procfs was not opened"))
    }

    /// Has a call that takes nothing but a path act on what `fd`, or a name `below` it, is. Where no mount
    /// namespace was joined, /proc is the host's until the root is switched.
    pub(crate) fn with_path_of<T>(
        &self,
        fd: BorrowedFd<'_>,
        below: &str,
        call: impl FnOnce(&str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match &self.proc {
            Some(proc) => proc.with_path_of(fd, below, call),
            None => call(&format!("/proc/self/fd/{}{below}", fd.as_raw_fd())),
        }
    }

    /// Closes everything that the host had open but `channel`, `others` and what is in here: the
    /// host's lock on the state directory, the caller's sockets, leaked descriptors. `preserved`
    /// counts those from 3 on that go to the program.
    pub(crate) fn close_the_rest(
        &self,
        preserved: u32,
        channel: &Channel,
        others: &[BorrowedFd<'_>],
    ) -> Result<(), StepError> {
        let InitResources {
            joins,
            cgroup_tasks,
            cgroup_view: _,
            rootfs,
            sources,
            opened_outside: _,
            filter: _,
            gate,
            proc,
        } = self;
        let mut keep: Vec<i32> = vec![channel.as_fd().as_raw_fd()];
        keep.extend(others.iter().map(AsRawFd::as_raw_fd));
        keep.extend(joins.iter().map(|(fd, _)| fd.as_raw_fd()));
        keep.extend(cgroup_tasks.iter().map(AsRawFd::as_raw_fd));
        keep.extend(sources.iter().flatten().map(|source| source.tree.as_raw_fd()));
        keep.extend(rootfs.iter().map(AsRawFd::as_raw_fd));
        keep.extend(gate.iter().map(|gate| gate.fifo.as_raw_fd()));
        keep.extend(proc.iter().map(AsRawFd::as_raw_fd));
        keep.sort_unstable();
        let first = 3 + i32::try_from(preserved).unwrap_or(i32::MAX - 3);
        creel_sys::fd::close_all_but(first, &keep).step(Phase::Conversation, 0, || "close_range".into())
    }
}

/// Runs every phase. Returns only with an error.
pub(crate) fn run(
    plan: &InitPlan,
    resources: &mut InitResources,
    state: &HookState,
    channel: &Channel,
) -> StepError {
    match phases(plan, resources, state, channel) {
        Ok(program) => program.run(),
        Err(error) => error,
    }
}

fn phases(
    plan: &InitPlan,
    resources: &mut InitResources,
    state: &HookState,
    channel: &Channel,
) -> Result<Program, StepError> {
    let InitPlan {
        enter,
        rootfs,
        mounts,
        devices,
        links,
        late_readonly,
        sysctls,
        oom_score_adj,
        hooks,
        root: switch,
        console,
        hide,
        seal,
        process,
        start_container,
    } = plan;
    let alone = SingleThreaded::witness();

    if let Some(score) = oom_score_adj {
        sysctl::write_oom_score_adj(*score, resources)?;
    }
    enter::enter(enter, resources, channel, &alone)?;
    resources.joins.clear();
    resources.cgroup_tasks.clear();
    rustix::process::umask(Mode::empty());
    let root = match rootfs {
        Some(rootfs) => root::attach(rootfs, mounts, resources)?,
        None => root::open_without_mount_namespace(state)?,
    };
    mounts::mount_all(mounts, &root, resources, channel)?;
    devices::make_nodes(devices, &root)?;
    devices::make_links(links, &root)?;
    sysctl::write_all(sysctls, resources)?;
    if hooks.wait_for_host {
        talk(channel.report(&Report::Hooks))?;
        talk(channel.expect(Order::Proceed))?;
    }
    if !hooks.create_container.is_empty() {
        rustix::process::fchdir(&root).step(Phase::CreateContainer, 0, || "fchdir(rootfs)".into())?;
    }
    run_hooks(&hooks.create_container, state, "creating", None)
        .map_err(|e| e.step(Phase::CreateContainer))?;
    root::switch(*switch, rootfs.as_ref(), &root)?;
    drop(root);
    let root = Root::current().step(Phase::Root, 0, || "open(/)".into())?;
    if !devices.is_empty() {
        root::adopt_null(&root)?;
    }
    root::make_directory(&root, &process.exec.cwd)?;
    if let Some(console) = console {
        console::attach(*console, &root, channel)?;
    }
    mounts::late_readonly(late_readonly, &root)?;
    hide::hide_all(hide, &root)?;
    root::seal(*seal, &root)?;
    drop(root);

    let program = become_program(process, resources, channel)?;
    run_hooks(start_container, &state.with_default_env(program.env()), "created", None)
        .map_err(|e| e.step(Phase::StartContainer))?;
    Ok(program)
}

/// What init and exec share at the end: limits, labels, filter, identity, program; returns when it may run.
pub(crate) fn become_program(
    process: &ProcessPlan,
    resources: &mut InitResources,
    channel: &Channel,
) -> Result<Program, StepError> {
    crate::process::set_rlimits(&process.rlimits)?;
    crate::labels::set_on_exec(&process.labels, resources)?;
    // The names of directory and program may lead through it (CVE-2024-21626).
    resources.proc = None;
    if process.no_new_privileges {
        crate::process::set_no_new_privileges()?;
    }
    crate::attributes::apply(&process.attributes)?;
    crate::process::sweep_descriptors()?;
    creel_sys::process::reset_signals();
    let entered = crate::process::enter_directory(&process.exec.cwd)?;
    if process.seccomp == SeccompAt::BeforeCredentials {
        load_filter(resources, channel)?;
    }
    let changes_ids = process.credentials.uid != 0 || process.credentials.gid != 0;
    let was_open = changes_ids && rustix::process::dumpable_behavior() == Ok(DumpableBehavior::Dumpable);
    crate::process::become_user(&process.credentials, &process.exec.cwd, entered)?;
    if was_open {
        // Other ids have closed it (prctl(2)). Where a filter forbids that, it stays closed.
        creel_sys::best_effort(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable));
    }
    let program = Program::find(&process.exec, process.credentials.uid)?;
    if process.seccomp == SeccompAt::BeforeExec {
        load_filter(resources, channel)?;
    }
    wait_for_start(channel, resources.gate.as_ref())?;
    Ok(program)
}

/// Loads the filter and hands the notify descriptor to the host.
fn load_filter(resources: &InitResources, channel: &Channel) -> Result<(), StepError> {
    let Some(filter) = &resources.filter else { return Ok(()) };
    if let Some(notify) = crate::process::load_filter(filter)? {
        talk(channel.report(&Report::Notify(notify.as_raw_fd())))?;
        talk(channel.expect(Order::Proceed))?;
    }
    Ok(())
}

/// Reports Ready; returns when the program may run.
fn wait_for_start(channel: &Channel, gate: Option<&Gate>) -> Result<(), StepError> {
    talk(channel.report(&Report::Ready))?;
    match channel.order() {
        Ok(Order::Start) => Ok(()),
        Ok(Order::Wait) => {
            let Some(gate) = gate else {
                return Err(StepError::new(Phase::Conversation, 0, "told to wait without an exec fifo"));
            };
            let mut byte = [0u8; 1];
            gate.waited.set(true);
            creel_sys::process::end_on_signals();
            rustix::io::retry_on_intr(|| rustix::io::read(&gate.fifo, &mut byte))
                .step(Phase::Conversation, 0, || "read(exec.fifo)".into())
                .map(drop)
        }
        Ok(Order::Placed | Order::Mapped | Order::Proceed) => {
            Err(StepError::new(Phase::Conversation, 0, "the host sent the wrong order"))
        }
        Err(errno) => talk(Err(errno)),
    }
}

pub(crate) fn talk<T>(result: Result<T, creel_sys::Errno>) -> Result<T, StepError> {
    result.step(Phase::Conversation, 0, || "conversation with the host".into())
}
