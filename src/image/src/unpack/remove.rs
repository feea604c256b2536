//! Removing what lower layers made: whole trees, and trees in which the layer at hand made something too.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tree::Tree;

/// Opens a directory for reading, without following a link.
pub(crate) fn open_dir(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

pub(super) fn unlink(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(at, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a file, or a directory with all that is in it, no link followed. One that is not there is removed.
///
/// # Errors
/// unlinkat(2)'s and openat(2)'s.
pub fn remove_all(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlink(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let dir = match open_dir(at, name) {
        // Without root, a directory may not let its own owner in.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(at, name)?
        }
        other => other?,
    };
    let inside = |name: &Vec<u8>| remove_all(std::os::fd::AsFd::as_fd(&dir), name);
    for name in names(std::os::fd::AsFd::as_fd(&dir))? {
        match inside(&name) {
            Err(Errno::ACCESS | Errno::PERM) => {
                rustix::fs::fchmod(&dir, Mode::RWXU)?;
                inside(&name)?;
            }
            other => other?,
        }
    }
    unlink(at, name, AtFlags::REMOVEDIR)
}

/// Removes what the lower layers have of this name and below it, and leaves what the layer at hand made.
/// Says whether anything is left.
pub(super) fn remove_lower(tree: &Tree, at: BorrowedFd<'_>, inode: u64, name: &[u8]) -> Result<bool, Errno> {
    let stat = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    let made = tree.was_made(inode, name);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        if !made {
            unlink(at, name, AtFlags::empty())?;
        }
        return Ok(made);
    }
    let dir = open_dir(at, name)?;
    let left = remove_lower_children(tree, std::os::fd::AsFd::as_fd(&dir), stat.st_ino)?;
    if !left && !made {
        unlink(at, name, AtFlags::REMOVEDIR)?;
    }
    Ok(left || made)
}

/// The same for all names in a directory.
pub(super) fn remove_lower_children(tree: &Tree, dir: BorrowedFd<'_>, inode: u64) -> Result<bool, Errno> {
    let mut left = false;
    for name in names(dir)? {
        left |= remove_lower(tree, dir, inode, &name)?;
    }
    Ok(left)
}
