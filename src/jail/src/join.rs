//! A process that joins a running container: `exec`.
//!
//! ```text
//!   host ── setns(pid) ── clone3 ──▶ exec process: cgroup, setns(the rest), identity, program
//! ```
//!
//! All namespaces are joined by init's pidfd, the pid namespace by the host (it applies to
//! children), the others by the child in one call. With a user namespace the rights over all of
//! them come from it: then the child joins everything and clones once more.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use creel_plan::names::NamespaceKind;
use creel_plan::steps::{Affinity, Console, Keyring, OldGroups, Phase, ProcessPlan};
use creel_sys::Errno;
use creel_sys::process::{Forked, SingleThreaded, clone3, setns};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open};

use crate::attributes::bind_to_cpus;
use crate::child::{Child, own_failure};
use crate::conversation::{self, Channel, Report};
use crate::error::{Failed, Process, Step, StepError};
use crate::init::{self, InitResources, join_cgroup, talk};
use crate::labels::{are_written, join_labelled_keyring};
use crate::process::Program;
use crate::procfs::HostProc;
use crate::rooted::Root;
use crate::spawn::{Attach, clone_into, close_to_tracers, leave, meet, place, wait_for_cgroup};

/// Everything to do for `exec`.
#[derive(Debug)]
pub struct JoinPlan {
    /// Limits, identity, filter, program.
    pub process: ProcessPlan,
    /// Terminal.
    pub console: Option<Console>,
    /// CPUs; the host sets the initial ones on itself before it clones.
    pub affinity: Option<Affinity>,
    /// oom_score_adj of the process.
    pub oom_score_adj: Option<i32>,
    /// Which groups of the caller are left in a user namespace.
    pub groups: OldGroups,
    /// Session keyring to join.
    pub keyring: Option<Keyring>,
    /// CLONE_NEW* flags of the namespaces that the container has of its own.
    pub namespaces: u64,
    /// Root directory, for a container without a mount namespace.
    pub chroot: Option<PathBuf>,
    /// umask(2)
    pub umask: u32,
}

/// What the host opened for the process.
#[derive(Debug)]
pub struct JoinSetup<'a> {
    /// The plan.
    pub plan: &'a JoinPlan,
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// cgroup, filter; the rest is unused.
    pub resources: InitResources,
    /// cgroup v2 directories: the process is born into the first one that takes it.
    pub cgroups: &'a [BorrowedFd<'a>],
    /// Puts it there when the kernel does not let this process.
    pub attach: Option<Attach<'a>>,
}

/// Clones the process.
pub fn spawn(setup: JoinSetup<'_>) -> Result<Child<'static>, Failed> {
    let JoinSetup { plan, init, mut resources, cgroups, attach } = setup;
    if plan.oom_score_adj.is_some() || are_written(&plan.process.labels, plan.keyring.as_ref()) {
        resources.proc = Some(HostProc::open()?);
    }
    let (host_end, child_end) =
        conversation::pair().map_err(|errno| Failed::host("socketpair(SOCK_SEQPACKET)", errno))?;
    let alone = SingleThreaded::witness();
    let user = plan.namespaces & NamespaceKind::User.clone_flag() != 0;
    close_to_tracers()?;
    let for_children = plan.namespaces & (NamespaceKind::Pid.clone_flag() | NamespaceKind::Time.clone_flag());
    if !user && for_children != 0 {
        setns(init, for_children, &alone).map_err(|errno| Failed::host("setns(pid namespace)", errno))?;
    }
    let mut cloned = clone_into(0, cgroups.first().copied(), attach, &alone);
    for other in cgroups.iter().skip(1) {
        // EBUSY: a domain controller was turned on in the one before (cgroups(7), "no internal
        // processes"). EOPNOTSUPP: there are threaded cgroups below it.
        if matches!(cloned, Err(Errno::BUSY | Errno::OPNOTSUPP)) {
            cloned = clone_into(0, Some(*other), attach, &alone);
        }
    }
    let (forked, outside) = cloned.map_err(|errno| match cgroups.first() {
        Some(_) => Failed::host("adding pid of the process to cgroups: clone3(CLONE_INTO_CGROUP)", errno),
        None => Failed::host("clone3", errno),
    })?;
    let (pid, pidfd) = match forked {
        Forked::Child => {
            drop(host_end);
            let preserved = plan.process.exec.preserve_fds;
            let closed = resources.close_the_rest(preserved, &child_end, &[init]);
            let error = match closed.and_then(|()| wait_for_cgroup(outside, &child_end)) {
                Err(error) => error,
                Ok(()) => child(plan, init, &mut resources, user, &child_end, &alone),
            };
            leave(Process::Exec, &error, &child_end, None)
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child_end);
    drop(resources);
    if outside {
        place(attach, pid, &pidfd, &host_end)?;
    }
    let (pid, pidfd) = if user {
        // The process proper is the first child's sibling.
        meet(pid, &pidfd, &host_end, |e| own_failure(Process::Exec, &e))?
    } else {
        (pid, pidfd)
    };
    let child = Child::new(Process::Exec, pid, pidfd, host_end, None);
    if user {
        child.command(conversation::Order::Mapped)?;
    }
    Ok(child)
}

fn child(
    plan: &JoinPlan,
    init: BorrowedFd<'_>,
    resources: &mut InitResources,
    user: bool,
    channel: &Channel,
    alone: &SingleThreaded,
) -> StepError {
    match prepare(plan, init, resources, user, channel, alone) {
        Ok(program) => program.run(),
        Err(error) => error,
    }
}

fn prepare(
    plan: &JoinPlan,
    init: BorrowedFd<'_>,
    resources: &mut InitResources,
    user: bool,
    channel: &Channel,
    alone: &SingleThreaded,
) -> Result<Program, StepError> {
    join_cgroup(&resources.cgroup_tasks)?;
    resources.cgroup_tasks.clear();
    bind_to_cpus(plan.affinity.as_ref())?;
    if let Some(score) = plan.oom_score_adj {
        init::write_oom_score_adj(score, resources)?;
    }
    // From the moment it is in the container's namespaces, and until execve, the process must not be
    // open to those who may ptrace there (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(Phase::Enter, 0, || "prctl(DUMPABLE, 0)".into())?;
    let for_children = NamespaceKind::Pid.clone_flag() | NamespaceKind::Time.clone_flag();
    let own = if user { plan.namespaces } else { plan.namespaces & !for_children };
    if own != 0 {
        setns(init, own, alone).step(Phase::Join, 0, || format!("setns(pidfd, {own:#x})"))?;
    }
    if user {
        const CLONE_PARENT: u64 = 0x8000;
        // Before anything of it is in the pid namespace: host ids have no place there.
        init::become_root(plan.groups)?;
        match clone3(CLONE_PARENT, None, alone).step(Phase::Join, 0, || "clone3(CLONE_PARENT)".into())? {
            Forked::Child => talk(channel.expect(conversation::Order::Mapped))?,
            Forked::Parent { pid, .. } => {
                talk(channel.report(&Report::Born(pid)))?;
                creel_sys::process::exit(0)
            }
        }
    }
    rustix::process::setsid().step(Phase::Enter, 0, || "setsid()".into())?;
    if let Some(keyring) = &plan.keyring {
        join_labelled_keyring(keyring, resources)?;
    }
    if let Some(root) = &plan.chroot {
        rustix::process::chroot(root.as_path()).step(Phase::Root, 0, || format!("chroot({root:?})"))?;
        rustix::process::chdir("/").step(Phase::Root, 0, || "chdir(/)".into())?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(plan.umask));
    if let Some(console) = plan.console {
        let root = Root::current().step(Phase::Console, 0, || "open(/)".into())?;
        init::attach_console(console, &root, channel)?;
    }
    init::become_program(&plan.process, resources, channel)
}

/// The pidfd of the init with that pid, for callers of [`spawn`].
pub fn open_init(pid: i32) -> Result<OwnedFd, Failed> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Failed::said("the container has no init"))?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| Failed::host(format!("pidfd_open({pid})"), errno))
}
