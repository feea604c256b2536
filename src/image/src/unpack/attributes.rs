//! Owner, mode, extended attributes and times, in the one order that keeps them all.
//!
//! chown(2) clears the set-id bits and file capabilities, so it comes first. `user.*` attributes are next: who
//! is not root needs write permission for them, by the mode, even on an open file (xattr(7)). Then chmod(2), since
//! the umask took part in the creation; then the other attributes, `security.capability` among them;
//! utimensat(2) is last.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Error;
use super::tree::{Owners, Parent, Tree};
use crate::errno::Named;
use crate::tar::Entry;

/// What an entry says besides its content.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<&Entry> for Attributes {
    fn from(entry: &Entry) -> Self {
        Attributes {
            uid: entry.uid,
            gid: entry.gid,
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        }
    }
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Names that an image may not set: overlayfs would take them for its own.
fn is_overlays(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

impl Attributes {
    /// Of a directory that no entry names: the same on each machine and at each time.
    pub(super) fn implied() -> Attributes {
        Attributes { uid: 0, gid: 0, mode: 0o755, mtime: (0, 0), xattrs: Vec::new() }
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// Sets all on an open file or directory.
    pub(super) fn set_on_fd(&self, tree: &mut Tree, fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        self.set_on_new(tree, fd, path, true, Chmod::Yes)
    }

    /// The mode for open(2) to make the file with, when that is all there is to do about it. Set-id bits are not
    /// for open(2), since chown(2) clears them, and who is not root sets attributes before the mode forbids it.
    pub(super) fn mode_by_open(&self, tree: &Tree) -> Option<Mode> {
        let plain = self.mode & !0o777 == 0 && self.mode & tree.masked == 0 && self.xattrs.is_empty();
        plain.then(|| Mode::from_raw_mode(self.mode))
    }

    /// The same for a file just made; its owner is right already when no set-group-id directory and nobody
    /// else's ids took part.
    pub(super) fn set_on_new(
        &self,
        tree: &mut Tree,
        fd: BorrowedFd<'_>,
        path: &[u8],
        inherits: bool,
        chmod: Chmod,
    ) -> Result<(), Error> {
        let (uid, gid) = self.owner();
        if tree.options.owners == Owners::Recorded && (inherits || (self.uid, self.gid) != tree.ids) {
            rustix::fs::fchown(fd, uid, gid).map_err(|errno| self.not_owned("fchown", path, errno))?;
        }
        let set = |name: &[u8], value: &[u8]| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
        self.set_xattrs(tree, path, Class::User, set)?;
        if chmod == Chmod::Yes {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(Error::call("fchmod", path))?;
        }
        self.set_xattrs(tree, path, Class::Other, set)?;
        rustix::fs::futimens(fd, &times(self.mtime)).map_err(Error::call("futimens", path))
    }

    /// Sets all on what cannot be opened: links, devices and fifos.
    pub(super) fn set_at(
        &self,
        tree: &mut Tree,
        parent: &Parent,
        name: &[u8],
        path: &[u8],
        chmod: Chmod,
    ) -> Result<(), Error> {
        let (uid, gid) = self.owner();
        if tree.options.owners == Owners::Recorded {
            rustix::fs::chownat(&parent.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.not_owned("fchownat", path, errno))?;
        }
        if chmod == Chmod::Yes {
            rustix::fs::chmodat(&parent.fd, name, Mode::from_raw_mode(self.mode), AtFlags::empty())
                .map_err(Error::call("fchmodat", path))?;
        }
        if !self.xattrs.is_empty() {
            // lsetxattr(2) has no *at form that old kernels know; the parent is reached through its fd.
            let mut place = format!("/proc/self/fd/{}/", parent.fd.as_raw_fd()).into_bytes();
            place.extend_from_slice(name);
            // The kernel has `user.*` for files and directories alone, so the mode does not matter.
            for class in [Class::User, Class::Other] {
                self.set_xattrs(tree, path, class, |name, value| {
                    rustix::fs::lsetxattr(place.as_slice(), name, value, XattrFlags::empty())
                })?;
            }
        }
        rustix::fs::utimensat(&parent.fd, name, &times(self.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::call("utimensat", path))
    }

    /// EINVAL of chown(2) means an id that the user namespace does not map.
    fn not_owned(&self, call: &'static str, path: &[u8], errno: Errno) -> Error {
        let path = String::from_utf8_lossy(path).into_owned();
        match errno {
            Errno::INVAL => Error::Unmapped { path, uid: self.uid, gid: self.gid },
            _ => Error::Call { call, path, errno },
        }
    }

    fn set_xattrs(
        &self,
        tree: &mut Tree,
        path: &[u8],
        class: Class,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let of_class = |name: &[u8]| name.starts_with(b"user.") == (class == Class::User);
        for (name, value) in self.xattrs.iter().filter(|(name, _)| of_class(name)) {
            let told = String::from_utf8_lossy(name);
            if is_overlays(name) {
                tree.skip(path, format!("attribute {told} is overlayfs's own"));
                continue;
            }
            // The label of the machine that built the image means nothing here.
            if name == b"security.selinux" {
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // No such attributes on this file system, for this type of file or for this user.
                Err(errno @ (Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL)) => {
                    tree.skip(path, format!("attribute {told}: {}", Named(errno)));
                }
                Err(errno) => return Err(Error::call("setxattr", path)(errno)),
            }
        }
        Ok(())
    }
}

/// Which attributes are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    User,
    Other,
}

/// Whether there is a mode to set: symbolic links have none, and some files have theirs since open(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chmod {
    Yes,
    No,
}

/// Gives one directory the attributes of another, except overlayfs's own.
pub(crate) fn copy_attributes(
    from: &OwnedFd,
    to: &OwnedFd,
    owners: Owners,
) -> Result<(), (&'static str, Errno)> {
    let stat: Stat = rustix::fs::fstat(from).map_err(|errno| ("fstat", errno))?;
    if owners == Owners::Recorded {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(to, Some(uid), Some(gid)).map_err(|errno| ("fchown", errno))?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(|errno| ("fchmod", errno))?;
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::flistxattr(from, &mut list[..]).map_err(|errno| ("flistxattr", errno))?;
    for name in list[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && !is_overlays(name)) {
        let mut value = vec![0; 64 << 10];
        let length =
            rustix::fs::fgetxattr(from, name, &mut value[..]).map_err(|errno| ("fgetxattr", errno))?;
        match rustix::fs::fsetxattr(to.as_fd(), name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(("fsetxattr", errno)),
        }
    }
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    rustix::fs::futimens(to, &times((stat.st_mtime, nanos))).map_err(|errno| ("futimens", errno))
}
