//! Making things aside and renaming them in.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::Error;
use crate::stack::open_root;
use crate::unpack::{names_in, remove_all};

pub(super) fn flock(fd: BorrowedFd<'_>, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(fd, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes a directory and those above it. What is in the store is for its user alone: a set-id program of an
/// image that root unpacked must not be in the reach of others.
pub(super) fn make_directories(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                make_directories(parent)?;
            }
            match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(Error::call("mkdir", path)(errno)),
            }
        }
        Err(errno) => Err(Error::call("mkdir", path)(errno)),
    }
}

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

fn fresh_name() -> String {
    format!("{}-{}", rustix::process::getpid().as_raw_pid(), SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

/// A directory in `tmp/` that goes away unless it is renamed in. The lock on it says that its maker lives.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) path: PathBuf,
    lock: Option<OwnedFd>,
}

impl Aside {
    pub(super) fn make(tmp: &Path) -> Result<Aside, Error> {
        loop {
            let path = tmp.join(fresh_name());
            match rustix::fs::mkdirat(CWD, &path, Mode::RWXU) {
                Ok(()) => {}
                // A process of the same number was killed here; `clean` takes care of that.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(Error::call("mkdir", &path)(errno)),
            }
            // Before the lock is taken, another command may have taken it for left behind.
            match lock_directory(&path, FlockOperation::NonBlockingLockExclusive) {
                Ok(lock) => return Ok(Aside { path, lock: Some(lock) }),
                Err(Errno::NOENT | Errno::AGAIN) => {}
                Err(errno) => return Err(Error::call("flock", &path)(errno)),
            }
        }
    }

    /// Renames it to where it belongs, where nothing is.
    pub(super) fn rename(mut self, to: &Path) -> Result<(), Error> {
        rustix::fs::renameat_with(CWD, &self.path, CWD, to, rustix::fs::RenameFlags::NOREPLACE)
            .map_err(Error::call("rename", to))?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What stays is removed by the next command.
            remove_all(CWD, std::os::unix::ffi::OsStrExt::as_bytes(self.path.as_os_str())).ok();
        }
    }
}

/// Opens and locks a directory, and makes sure that it is still the one at the path.
fn lock_directory(path: &Path, operation: FlockOperation) -> Result<OwnedFd, Errno> {
    let fd = open_root(path)?;
    flock(fd.as_fd(), operation)?;
    let (held, found) = (rustix::fs::fstat(&fd)?, rustix::fs::stat(path)?);
    if held.st_ino == found.st_ino { Ok(fd) } else { Err(Errno::NOENT) }
}

/// Removes what is in `tmp/` and belongs to nobody who lives. What cannot be removed does not keep the rest; the
/// first error is told.
pub(super) fn clean(tmp: &Path) -> Result<(), Error> {
    let dir = open_root(tmp).map_err(Error::call("open", tmp))?;
    let mut first = Ok(());
    for name in names_in(dir.as_fd()).map_err(Error::call("getdents64", tmp))? {
        let path = tmp.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name));
        let removed = match lock_directory(&path, FlockOperation::NonBlockingLockExclusive) {
            // The lock is held to the end of the match. A file was about to lose its name (crate::layout).
            Ok(_) | Err(Errno::NOTDIR) => {
                remove_all(dir.as_fd(), &name).map_err(Error::call("unlink", &path))
            }
            // Its maker lives, or it is gone by now.
            Err(Errno::AGAIN | Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::call("flock", &path)(errno)),
        };
        first = first.and(removed);
    }
    first
}

/// Takes a thing out of its place and removes it: a kill in between leaves it in `tmp/`.
pub(super) fn discard(tmp: &Path, path: &Path) -> Result<(), Error> {
    let aside = Aside::make(tmp)?;
    match rustix::fs::renameat(CWD, path, CWD, aside.path.join("gone")) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::call("rename", path)(errno)),
    }
}

/// The same for a directory that is locked, by the caller or by whoever still uses it: so that it can be in `tmp/`
/// itself.
pub(super) fn discard_locked(tmp: &Path, path: &Path) -> Result<(), Error> {
    loop {
        let to = tmp.join(fresh_name());
        match rustix::fs::renameat_with(CWD, path, CWD, &to, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => {
                let name = std::os::unix::ffi::OsStrExt::as_bytes(to.as_os_str());
                return remove_all(CWD, name).map_err(Error::call("unlink", &to));
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::call("rename", path)(errno)),
        }
    }
}

/// A file in a directory aside, to be renamed in.
pub(super) struct NewFile {
    aside: Aside,
    pub(super) file: std::fs::File,
}

impl NewFile {
    pub(super) fn make(tmp: &Path) -> Result<NewFile, Error> {
        let aside = Aside::make(tmp)?;
        let path = aside.path.join("file");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::call("open", &path))?;
        Ok(NewFile { aside, file: file.into() })
    }

    /// Renames it in, over what may be there.
    pub(super) fn rename(self, to: &Path) -> Result<(), Error> {
        rustix::fs::renameat(CWD, self.aside.path.join("file"), CWD, to).map_err(Error::call("rename", to))
    }
}

/// Writes a small file in one piece. After a power loss it may be empty: its readers take that for absent.
pub(super) fn write(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut new = NewFile::make(tmp)?;
    new.file.write_all(bytes).map_err(Error::io("write", path))?;
    new.rename(path)
}

/// Reads a file, if it is there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Reads a file of JSON, if it is there and whole: what a power loss has cut counts as absent.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    Ok(read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Removes a file that may be gone already.
pub(super) fn unlink(path: &Path) -> Result<(), Error> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::call("unlink", path)(errno)),
    }
}
