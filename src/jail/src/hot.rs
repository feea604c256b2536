//! Mounts of a running container, made and removed from outside.
//!
//! ```text
//!   host: sources opened and given their flags ── clone3 ──▶ child: setns(init, user and mount), attach
//! ```
//!
//! The container may be hostile and looks on. So nothing of it is a path to the host: a source is a
//! detached tree that the host opened, a target is a handle that openat2(2) found below the container's root,
//! from inside its mount namespace, and what is removed is the very mount that was made, told by the
//! kernel's number for it. A link that changes meanwhile can only lead elsewhere in the container.
//! The child is in the host's pid namespace: the container cannot see it.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::options::attr;
use creel_plan::steps::{MountSource, MountStep, OldGroups, Phase, Plan};
use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use creel_sys::process::{Forked, SingleThreaded, clone3, setns};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::DumpableBehavior;

use crate::child::Child;
use crate::conversation::{self, Report};
use crate::error::{Failed, Process, Step, StepError};
use crate::hooks::HookState;
use crate::init::{InitResources, attach_mount, attrs_of, become_root, new_filesystem, tmpfs_mode};
use crate::procfs::{HostProc, PROC_SUPER_MAGIC};
use crate::rooted::Root;
use crate::spawn::{close_to_tracers, leave, open_mount_sources};

/// STATX_MNT_ID_UNIQUE: Linux 6.8. An older kernel's number may be used again.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The kernel's numbers of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountId {
    /// As in proc_pid_mountinfo(5).
    pub id: u64,
    /// Never used again; 0 on a kernel that has none.
    pub unique: u64,
}

impl MountId {
    /// Of the mount that a handle lies on, which must be the root of that mount.
    fn of(handle: BorrowedFd<'_>) -> Result<MountId, Errno> {
        let number = |flag| {
            let stat = rustix::fs::statx(handle, "", AtFlags::EMPTY_PATH, flag)?;
            if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Err(Errno::INVAL);
            }
            Ok(if StatxFlags::from_bits_retain(stat.stx_mask).contains(flag) { stat.stx_mnt_id } else { 0 })
        };
        Ok(MountId { id: number(StatxFlags::MNT_ID)?, unique: number(MNT_ID_UNIQUE)? })
    }
}

/// A running container.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its init.
    pub init: BorrowedFd<'a>,
    /// CLONE_NEW* of the namespaces that it has of its own.
    pub namespaces: u64,
}

impl Target<'_> {
    fn has_user_namespace(&self) -> bool {
        self.namespaces & NamespaceKind::User.clone_flag() != 0
    }
}

/// Makes the mounts of `plan`, all or none. Their numbers.
pub fn add_mounts(target: Target<'_>, plan: &mut Plan) -> Result<Vec<MountId>, Failed> {
    plan.host.open_sources = true;
    let joins = crate::spawn::open_joins(&plan.host.joins)?;
    let mut resources = InitResources { joins, ..InitResources::default() };
    open_mount_sources(plan, &mut resources)?;
    for (i, (step, source)) in plan.init.mounts.iter().zip(&resources.sources).enumerate() {
        if let Some(source) = source {
            set_attributes(i, step, &source.tree, target.has_user_namespace()).map_err(|error| {
                let (at, process) = (Some(step.at.clone()), Process::Host);
                Failed { at, process, call: error.call, errno: error.errno, hint: None }
            })?;
        }
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Failed::host("pipe", errno))?;
    let late: Vec<bool> = plan
        .init
        .mounts
        .iter()
        .map(|step| plan.init.late_readonly.iter().any(|(at, _)| *at == step.at))
        .collect();
    let plan = &*plan;
    inside(target, Some(plan), &mut resources, &write, &mut |root, resources, proc| {
        let mut made = Vec::new();
        match attach_all(&plan.init.mounts, &late, root, resources, &mut made)
            .and_then(|()| tell(&made, &write))
        {
            Ok(()) => Ok(()),
            Err(error) => {
                made.iter().rev().for_each(|mount| creel_sys::best_effort(detach(mount.as_fd(), proc)));
                Err(error)
            }
        }
    })?;
    drop(write);
    read_ids(&read, plan.init.mounts.len())
}

/// Removes mounts that [`add_mounts`] made, by their numbers. One that the container has unmounted itself is
/// not missed. They are looked for from the root of the mount namespace, which need not be init's.
pub fn remove_mounts(target: Target<'_>, ids: &[MountId]) -> Result<(), Failed> {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failed::host("open(/dev/null)", errno))?;
    inside(target, None, &mut InitResources::default(), &null, &mut |root, _, proc| {
        let mountinfo = mountinfo(proc).step(Phase::Mounts, 0, || "read(/proc/self/mountinfo)".into())?;
        // All are found before the first is removed.
        let mut found = Vec::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            let Some(path) = place_of(&mountinfo, id.id) else { continue };
            let handle = root.resolve(&path).step(Phase::Mounts, i, || format!("open({path:?})"))?;
            if MountId::of(handle.as_fd()) != Ok(*id) {
                let why = format!("the mount that was added is not at {path:?}, or is covered");
                return Err(StepError::new(Phase::Mounts, i, why));
            }
            found.push((path, handle));
        }
        for (i, (path, handle)) in found.iter().enumerate().rev() {
            detach(handle.as_fd(), proc).step(Phase::Mounts, i, || format!("umount2({path:?})"))?;
        }
        Ok(())
    })
}

/// Work for the child: the container's root, what the host opened, and the host's procfs.
type Work<'w> = dyn FnMut(&Root, &mut InitResources, &HostProc) -> Result<(), StepError> + 'w;

/// Runs `work` in a child in the container's mount namespace. `also` stays open there.
fn inside(
    target: Target<'_>,
    plan: Option<&Plan>,
    resources: &mut InitResources,
    also: &OwnedFd,
    work: &mut Work<'_>,
) -> Result<(), Failed> {
    let (host_end, child_end) =
        conversation::pair().map_err(|errno| Failed::host("socketpair(SOCK_SEQPACKET)", errno))?;
    let proc = HostProc::open()?;
    close_to_tracers()?;
    let alone = SingleThreaded::witness();
    let forked = clone3(0, None, &alone).map_err(|errno| Failed::host("clone3", errno))?;
    let (pid, pidfd) = match forked {
        Forked::Child => {
            drop(host_end);
            let kept = [target.init, proc.as_fd(), also.as_fd()];
            let done = resources
                .close_the_rest(0, &child_end, &kept)
                .and_then(|()| enter(target, &alone))
                .and_then(|root| work(&root, resources, &proc))
                .and_then(|()| {
                    child_end.report(&Report::Ready).step(Phase::Conversation, 0, || "report".into())
                });
            match done {
                Ok(()) => creel_sys::process::exit(0),
                Err(error) => leave(Process::Exec, &error, &child_end, None),
            }
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child_end);
    let mut child = Child::new(Process::Exec, pid, pidfd, host_end, plan);
    child.until_ready(&[], &HookState::default(), &mut |_, _| Ok(()))
}

fn enter(target: Target<'_>, alone: &SingleThreaded) -> Result<Root, StepError> {
    // As for exec: what may ptrace in there must not reach this process (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(Phase::Enter, 0, || "prctl(DUMPABLE, 0)".into())?;
    let wanted = NamespaceKind::Mount.clone_flag() | NamespaceKind::User.clone_flag();
    let own = target.namespaces & wanted;
    setns(target.init, own, alone).step(Phase::Join, 0, || format!("setns(pidfd, {own:#x})"))?;
    if target.has_user_namespace() {
        become_root(OldGroups::Drop)?;
    }
    Root::current().step(Phase::Root, 0, || "open(/)".into())
}

/// Flags of a bind mount, while nobody can see it. In a user namespace the source's stay, which the
/// container's root could not have taken away either (mount_namespaces(7)).
fn set_attributes(i: usize, step: &MountStep, tree: &OwnedFd, user_namespace: bool) -> Result<(), StepError> {
    let kept = if user_namespace { attrs_of(i, tree)?.0 } else { 0 };
    for (change, recursive) in [(step.attr, false), (step.recursive, true)] {
        let Some(change) = change else { continue };
        let change =
            MountAttr { attr_set: change.set, attr_clr: change.clear & !kept, ..MountAttr::default() };
        if change != MountAttr::default() {
            mount_setattr(tree.as_fd(), recursive, &change)
                .step(Phase::Mounts, i, || format!("mount_setattr({change:x?})"))?;
        }
    }
    Ok(())
}

fn attach_all(
    steps: &[MountStep],
    late: &[bool],
    root: &Root,
    resources: &mut InitResources,
    made: &mut Vec<OwnedFd>,
) -> Result<(), StepError> {
    for (i, step) in steps.iter().enumerate() {
        let source = resources.sources.get_mut(i).and_then(Option::take);
        let (mount, target) = match (&step.source, source) {
            (MountSource::Bind { .. }, Some(source)) => {
                let target = source.mount_point(step, root);
                let target =
                    target.step(Phase::Mounts, i, || format!("mount point {:?}", step.destination))?;
                (source.tree, target)
            }
            (MountSource::FileSystem { source, parameters, .. }, _) => {
                let (target, new) =
                    root.directory_or_new(&step.destination)
                        .step(Phase::Mounts, i, || format!("mount point {:?}", step.destination))?;
                let covered = (!new).then(|| target.as_fd());
                let with_mode = tmpfs_mode(i, "tmpfs", parameters, covered)?;
                let parameters = with_mode.as_deref().unwrap_or(parameters);
                let readonly = if late[i] { attr::RDONLY } else { 0 };
                let flags = step.attr.map_or(0, |a| a.set) | readonly;
                (new_filesystem(i, "tmpfs", source, parameters, flags)?, target)
            }
            (MountSource::Bind { .. } | MountSource::Cgroup { .. } | MountSource::Remount { .. }, _) => {
                return Err(StepError::new(Phase::Mounts, i, "not opened"));
            }
        };
        let fs = rustix::fs::fstatfs(&target).step(Phase::Mounts, i, || "statfs(mount point)".into())?;
        if fs.f_type == PROC_SUPER_MAGIC {
            let why = "nothing is mounted in the procfs of a running container";
            return Err(StepError::new(Phase::Mounts, i, why));
        }
        attach_mount(i, &mount, target.as_fd()).map_err(|error| StepError {
            call: format!("{} ({:?})", error.call, step.destination),
            ..error
        })?;
        made.push(mount);
        let mount = made.last().map_or(target.as_fd(), AsFd::as_fd);
        for &(propagation, recursive) in &step.propagation {
            mount_setattr(mount, recursive, &MountAttr { propagation, ..MountAttr::default() }).step(
                Phase::Mounts,
                i,
                || format!("mount_setattr(propagation {propagation:#x})"),
            )?;
        }
    }
    Ok(())
}

/// Detaches the mount behind a handle, be it a directory's or a file's, wherever it is by now. The
/// host's procfs gives it a path.
fn detach(mount: BorrowedFd<'_>, proc: &HostProc) -> Result<(), Errno> {
    proc.with_path_of(mount, "", |path| unmount(path, UnmountFlags::DETACH))
}

fn tell(made: &[OwnedFd], pipe: &OwnedFd) -> Result<(), StepError> {
    for (i, mount) in made.iter().enumerate() {
        let id = MountId::of(mount.as_fd()).step(Phase::Mounts, i, || "statx(mount)".into())?;
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&id.id.to_ne_bytes());
        bytes[8..].copy_from_slice(&id.unique.to_ne_bytes());
        // Less than PIPE_BUF goes in one piece; a pipe takes 64 KiB.
        rustix::io::write(pipe, &bytes).step(Phase::Conversation, 0, || "write(pipe)".into())?;
    }
    Ok(())
}

fn read_ids(pipe: &OwnedFd, count: usize) -> Result<Vec<MountId>, Failed> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let mut bytes = [0u8; 16];
        let read = rustix::io::read(pipe, &mut bytes).map_err(|errno| Failed::host("read(pipe)", errno))?;
        if read != bytes.len() {
            return Err(Failed::said("the child did not tell what it had mounted"));
        }
        let (id, unique) = bytes.split_at(8);
        let number = |half: &[u8]| half.try_into().map_or(0, u64::from_ne_bytes);
        ids.push(MountId { id: number(id), unique: number(unique) });
    }
    Ok(ids)
}

/// The mounts of this process's namespace, by the host's procfs.
fn mountinfo(proc: &HostProc) -> Result<String, Errno> {
    let file = rustix::fs::openat(proc, "self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Mount point of a mount by its number (proc_pid_mountinfo(5)).
fn place_of(mountinfo: &str, id: u64) -> Option<String> {
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(id.to_string().as_str()))?;
    line.split(' ').nth(4).map(unescape)
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let code = code.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|_| *first == b'\\');
        out.push(code.unwrap_or(*first));
        rest = &tail[code.map_or(0, |_| 3)..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let text = "36 35 98:0 / / rw - ext4 x rw\n136 36 0:50 / /mnt\\0402/a\\134b rw - tmpfs t rw\n";
        assert_eq!(place_of(text, 36).as_deref(), Some("/"));
        assert_eq!(place_of(text, 136).as_deref(), Some("/mnt 2/a\\b"));
        assert_eq!(place_of(text, 3), None);
    }
}
