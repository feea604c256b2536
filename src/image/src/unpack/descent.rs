//! A way down a tree and up again that holds one directory open, however deep the tree is: image and container
//! decide about its depth, and a process may have 1024 files open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where a walk is.
#[derive(Debug)]
pub(crate) struct Descent {
    dir: OwnedFd,
    flags: OFlags,
    /// The directories above it, device and inode.
    above: Vec<(u64, u64)>,
}

impl Descent {
    /// Begins in an open directory; those below are opened with these flags besides those for directories.
    pub(crate) fn new(dir: OwnedFd, flags: OFlags) -> Descent {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Descent { dir, flags, above: Vec::new() }
    }

    /// The directory where it is.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Goes down to a directory, no link followed.
    pub(crate) fn enter(&mut self, name: &[u8]) -> Result<(), Errno> {
        let inner = rustix::fs::openat(&self.dir, name, self.flags, Mode::empty())?;
        self.above.push(identity(&self.dir)?);
        self.dir = inner;
        Ok(())
    }

    /// Goes up to where it came from. ESTALE: that is another directory now, somebody moved them.
    pub(crate) fn leave(&mut self) -> Result<(), Errno> {
        let Some(expected) = self.above.last() else { return Ok(()) };
        let outer = rustix::fs::openat(&self.dir, c"..", self.flags, Mode::empty())?;
        if identity(&outer)? != *expected {
            return Err(Errno::STALE);
        }
        self.above.pop();
        self.dir = outer;
        Ok(())
    }

    /// The directory where it is, for its own.
    pub(crate) fn into_dir(self) -> OwnedFd {
        self.dir
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "widths differ between architectures")]
fn identity(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}
