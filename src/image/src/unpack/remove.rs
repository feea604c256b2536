//! Removing what lower layers made: whole trees, and trees in which the layer at hand made something too.

use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::descent::Descent;
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
/// However deep the directory is, it takes one open file.
///
/// # Errors
/// unlinkat(2)'s and openat(2)'s.
pub fn remove_all(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    remove_telling(at, name, &mut |_| Ok(()))
}

/// The same; gives the inodes of the directories that are removed.
pub(super) fn remove_directories(at: BorrowedFd<'_>, name: &[u8]) -> Result<HashSet<u64>, Errno> {
    let mut gone = HashSet::new();
    remove_telling(at, name, &mut |dir| {
        gone.insert(rustix::fs::fstat(dir)?.st_ino);
        Ok(())
    })?;
    Ok(gone)
}

fn remove_telling(
    at: BorrowedFd<'_>,
    name: &[u8],
    tell: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    match unlink(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let dir = match open_dir(at, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            open_dir(at, name)?
        }
        other => other?,
    };
    let mut way = Descent::new(dir, OFlags::RDONLY);
    tell(way.dir())?;
    // Of each directory on the way what is still to be removed, the one that the way leads through last.
    let mut left = vec![despite_mode(&mut way, |way| names(way.dir()))?];
    while let Some(here) = left.last_mut() {
        let Some(name) = here.last() else {
            left.pop();
            if let Some(above) = left.last_mut() {
                despite_mode(&mut way, Descent::leave)?;
                let name = above.pop().unwrap_or_default();
                despite_mode(&mut way, |way| unlink(way.dir(), &name, AtFlags::REMOVEDIR))?;
            }
            continue;
        };
        match despite_mode(&mut way, |way| unlink(way.dir(), name, AtFlags::empty())) {
            Ok(()) => drop(here.pop()),
            Err(Errno::ISDIR) => {
                match way.enter(name) {
                    Err(Errno::ACCESS) => {
                        rustix::fs::chmodat(way.dir(), name.as_slice(), Mode::RWXU, AtFlags::empty())?;
                        way.enter(name)?;
                    }
                    other => other?,
                }
                tell(way.dir())?;
                left.push(despite_mode(&mut way, |way| names(way.dir()))?);
            }
            Err(errno) => return Err(errno),
        }
    }
    unlink(at, name, AtFlags::REMOVEDIR)
}

/// Does something in a directory, if need be after a change of its mode: without root, it may not let its own
/// owner in.
fn despite_mode<T>(way: &mut Descent, what: impl Fn(&mut Descent) -> Result<T, Errno>) -> Result<T, Errno> {
    match what(way) {
        Err(Errno::ACCESS | Errno::PERM) => {
            rustix::fs::fchmod(way.dir(), Mode::RWXU)?;
            what(way)
        }
        other => other,
    }
}

/// Removes what the lower layers have of this name and below it, and leaves what the layer at hand made.
pub(super) fn remove_lower(tree: &Tree, at: BorrowedFd<'_>, inode: u64, name: &[u8]) -> Result<(), Errno> {
    match remove_one_lower(tree, at, inode, name)? {
        None => Ok(()),
        Some(Directory { inode: inner, made }) => {
            let left = remove_lower_children(tree, open_dir(at, name)?, inner)?;
            if left || made { Ok(()) } else { unlink(at, name, AtFlags::REMOVEDIR) }
        }
    }
}

/// A directory that may have something of the lower layers in it.
struct Directory {
    inode: u64,
    /// Whether the layer at hand made it.
    made: bool,
}

/// Removes what is no directory, if it is of the lower layers.
fn remove_one_lower(
    tree: &Tree,
    at: BorrowedFd<'_>,
    inode: u64,
    name: &[u8],
) -> Result<Option<Directory>, Errno> {
    let stat = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let made = tree.was_made(inode, name);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(Some(Directory { inode: stat.st_ino, made }));
    }
    if !made {
        unlink(at, name, AtFlags::empty())?;
    }
    Ok(None)
}

/// The same for all names in a directory. Says whether anything is left.
pub(super) fn remove_lower_children(tree: &Tree, dir: OwnedFd, inode: u64) -> Result<bool, Errno> {
    struct Level {
        directory: Directory,
        names: Vec<Vec<u8>>,
    }
    let mut way = Descent::new(dir, OFlags::RDONLY);
    let mut levels = vec![Level { directory: Directory { inode, made: true }, names: names(way.dir())? }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.last() {
            match remove_one_lower(tree, way.dir(), level.directory.inode, name)? {
                None => drop(level.names.pop()),
                Some(directory) => {
                    way.enter(name)?;
                    levels.push(Level { directory, names: names(way.dir())? });
                }
            }
            continue;
        }
        let made = level.directory.made;
        levels.pop();
        let Some(above) = levels.last_mut() else { break };
        way.leave()?;
        let name = above.names.pop().unwrap_or_default();
        if !made {
            match unlink(way.dir(), &name, AtFlags::REMOVEDIR) {
                // Something that the layer at hand made is in it.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                other => other?,
            }
        }
    }
    Ok(!names(way.dir())?.is_empty())
}
