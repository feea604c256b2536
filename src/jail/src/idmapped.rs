//! Idmapped mounts: MOUNT_ATTR_IDMAP of mount_setattr(2).
//!
//! Runs in the **host**, on the detached trees of bind sources, before init is born: the mapping takes
//! CAP_SYS_ADMIN over the user namespace of the file system, which init may not have. The kernel reads
//! the maps from a user namespace. One that is not the container's is made for it by a child that does
//! nothing but exist in it, and is gone before the call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::steps::{IdmapStep, MountIds, MountSource, MountStep, Phase};
use creel_sys::Errno;
use creel_sys::mount::{IDMAP, MountAttr, mount_setattr};
use creel_sys::process::{Forked, SingleThreaded, clone3};
use rustix::fs::{Mode, OFlags};

use crate::child::Child;
use crate::conversation;
use crate::error::{Failed, Process, Step};
use crate::idmap;
use crate::spawn::{close_to_tracers, leave};

/// User namespaces of the mounts of one container. Equal maps share one.
#[derive(Debug, Default)]
pub struct UserNamespaces<'p> {
    made: Vec<(&'p MountIds, OwnedFd)>,
}

impl<'p> UserNamespaces<'p> {
    /// Maps the owners of a detached tree. `joins` are the namespace files that the container joins.
    pub fn map(
        &mut self,
        tree: BorrowedFd<'_>,
        source: &str,
        step: &'p IdmapStep,
        joins: &[(OwnedFd, u64)],
    ) -> Result<(), Failed> {
        let IdmapStep { at, ids, recursive } = step;
        let namespace = match ids {
            MountIds::Maps { .. } => self.made_for(ids).map_err(|failed| failed.or_at(at))?,
            MountIds::Joined(i) => match joins.get(*i) {
                Some((file, _)) => file.as_fd(),
                None => return Err(Failed::said("the user namespace to join is not open").at(at)),
            },
        };
        let attr = MountAttr { attr_set: IDMAP, userns_fd: fd_number(namespace), ..MountAttr::default() };
        mount_setattr(tree, *recursive, &attr).map_err(|errno| {
            let failed = Failed::host(format!("mount_setattr({source:?}, idmap)"), errno).at(at);
            Failed { hint: hint(errno), ..failed }
        })
    }

    fn made_for(&mut self, ids: &'p MountIds) -> Result<BorrowedFd<'_>, Failed> {
        let known = self.made.iter().position(|(made, _)| same_maps(made, ids));
        let index = match known {
            Some(index) => index,
            None => {
                self.made.push((ids, make(ids)?));
                self.made.len() - 1
            }
        };
        Ok(self.made[index].1.as_fd())
    }
}

/// Maps a detached tree that init made of its own mounts, in the middle of making them.
pub fn map_of_init(pid: i32, step: Option<&MountStep>, tree: &OwnedFd) -> Result<(), Failed> {
    let Some(MountStep { at, source: MountSource::Bind { source, idmap: Some(idmap), .. }, .. }) = step
    else {
        return Err(Failed::said("init asked for an id map that the plan does not have"));
    };
    let mut namespaces = UserNamespaces::default();
    if matches!(idmap.ids, MountIds::Maps { .. }) {
        return namespaces.map(tree.as_fd(), source, idmap, &[]);
    }
    // Init has joined the namespace by now.
    let path = format!("/proc/{pid}/ns/user");
    let file = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failed::host(format!("open({path})"), errno).at(at))?;
    let joined = IdmapStep { ids: MountIds::Joined(0), ..idmap.clone() };
    UserNamespaces::default().map(tree.as_fd(), source, &joined, &[(file, 0)])
}

fn fd_number(fd: BorrowedFd<'_>) -> u64 {
    use std::os::fd::AsRawFd;
    u64::from(fd.as_raw_fd().unsigned_abs())
}

/// Whatever part of config.json the maps are from.
fn same_maps(one: &MountIds, other: &MountIds) -> bool {
    match (one, other) {
        (MountIds::Maps { uids, gids, .. }, MountIds::Maps { uids: u, gids: g, .. }) => {
            uids == u && gids == g
        }
        (MountIds::Joined(i), MountIds::Joined(j)) => i == j,
        (MountIds::Maps { .. }, MountIds::Joined(_)) | (MountIds::Joined(_), MountIds::Maps { .. }) => false,
    }
}

/// A user namespace with these maps.
fn make(ids: &MountIds) -> Result<OwnedFd, Failed> {
    let MountIds::Maps { of, uids, gids } = ids else {
        return Err(Failed::said("a user namespace that is joined is not made"));
    };
    let (host_end, child_end) =
        conversation::pair().map_err(|errno| Failed::host("socketpair(SOCK_SEQPACKET)", errno))?;
    close_to_tracers()?;
    let forked = clone3(NamespaceKind::User.clone_flag(), None, &SingleThreaded::witness())
        .map_err(|errno| Failed::host("clone3(CLONE_NEWUSER)", errno))?;
    let (pid, pidfd) = match forked {
        Forked::Child => {
            drop(host_end);
            let sent = own_namespace().and_then(|file| child_end.send_namespace(file.as_fd()));
            if let Err(error) = sent.step(Phase::Enter, 0, || "open(/proc/self/ns/user)".into()) {
                leave(Process::Host, &error, &child_end, None);
            }
            // An end of file, so that it does not outlive a host that is killed.
            creel_sys::best_effort(child_end.order());
            creel_sys::process::exit(0)
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child_end);
    // Killed and reaped at the end of this function: the file keeps the namespace.
    let child = Child::new(Process::Host, pid, pidfd, host_end, None);
    idmap::write_maps(pid, uids, gids, of)?;
    child.namespace()
}

/// To the process itself it is open whatever the process may do with others, while the host would have to
/// have CAP_SYS_PTRACE for the file of a child that is closed to tracers.
fn own_namespace() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/proc/self/ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::INVAL => Some("the file system may not support idmapped mounts"),
        Errno::PERM => Some("the source may be idmapped already, or belong to another user namespace"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_shared_by_equal_maps_only() {
        let maps = |of: &str, uid: u32, gid: u32| MountIds::Maps {
            of: of.into(),
            uids: vec![(0, uid, 1)],
            gids: vec![(0, gid, 1)],
        };
        assert!(same_maps(&maps(".linux", 1, 2), &maps(".mounts[0]", 1, 2)));
        assert!(!same_maps(&maps(".linux", 1, 2), &maps(".linux", 2, 1)));
        assert!(!same_maps(&maps(".linux", 1, 2), &maps(".linux", 1, 3)));
        assert!(!same_maps(&maps(".linux", 1, 2), &MountIds::Joined(0)));
    }
}
