//! Layers on top of each other, read as overlayfs will show them, without a mount.
//!
//! Runs after the layers of an image are unpacked and before they are mounted, to find what a layer takes
//! from those below it ([`crate::unpack::Need`]): a snapshot is named by its diff id alone and shared by all
//! images, so that what depends on the layers below cannot be in it. It goes into a patch, a small layer of
//! its own right above, named by the chain id ([`patch`]).

mod patch;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::unpack::{Error, is_whiteout, open_dir};

pub use patch::{Outcome, patch};

/// MAXSYMLINKS of the kernel.
const MAX_LINKS: usize = 40;

/// A directory as the merger of those of several layers, the highest first.
#[derive(Debug)]
pub struct Merged(Vec<OwnedFd>);

/// What a name in a merged directory is.
#[derive(Debug)]
pub enum Child {
    /// Nothing, or hidden.
    Absent,
    /// A directory.
    Directory(Merged),
    /// Anything else, in the layer whose directory this is.
    Other(OwnedFd, Stat),
}

/// A path without links in it, and what stands there.
pub(crate) struct Resolved {
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) child: Child,
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, Errno> {
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        let mut value = [0; 4];
        match rustix::fs::fgetxattr(dir, name, &mut value[..]) {
            Ok(1) if value[0] == b'y' => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

fn dup(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

impl Merged {
    /// The roots of layers, the highest first. All are merged: overlayfs knows no opaque root.
    pub fn new(roots: Vec<OwnedFd>) -> Merged {
        Merged(roots)
    }

    /// The directory whose attributes are shown.
    pub(crate) fn top(&self) -> Option<&OwnedFd> {
        self.0.first()
    }

    fn again(&self) -> Result<Merged, Errno> {
        Ok(Merged(self.0.iter().map(dup).collect::<Result<_, _>>()?))
    }

    /// One step down.
    pub fn child(&self, name: &[u8]) -> Result<Child, Errno> {
        let mut merged: Vec<OwnedFd> = Vec::new();
        for dir in &self.0 {
            let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            // Whether a directory hides what is below matters only when there is something.
            if let Some(above) = merged.last()
                && is_opaque(above)?
            {
                break;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                merged.push(open_dir(dir.as_fd(), name)?);
            } else if merged.is_empty() && !is_whiteout(&stat) {
                return Ok(Child::Other(dup(dir)?, stat));
            } else {
                break;
            }
        }
        Ok(if merged.is_empty() { Child::Absent } else { Child::Directory(Merged(merged)) })
    }

    /// The names in the directory that are not hidden.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for dir in &self.0 {
            // Reading moves the position of an open directory: it is opened again.
            names.extend(crate::unpack::names_in(open_dir(dir.as_fd(), b".")?.as_fd())?);
        }
        names.sort();
        names.dedup();
        let mut shown = Vec::with_capacity(names.len());
        for name in names {
            if !matches!(self.child(&name)?, Child::Absent) {
                shown.push(name);
            }
        }
        Ok(shown)
    }

    /// What stands at a path, no link followed.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Child, Error> {
        let mut at = Child::Directory(self.again().map_err(Error::call("dup", path))?);
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let Child::Directory(dir) = at else { return Ok(Child::Absent) };
            at = dir.child(name).map_err(Error::call("statat", path))?;
        }
        Ok(at)
    }

    /// What stands at a path, links followed as in a chroot: those on the way, and the last if asked to.
    pub(crate) fn resolve(&self, path: &[u8], last: LastLink) -> Result<Resolved, Error> {
        let mut todo: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    walked.pop();
                    continue;
                }
                _ => walked.push(part),
            }
            let here = walked.join(&b'/');
            let ends = todo.iter().all(|part| part.is_empty());
            let Child::Other(dir, stat) = self.find(&here)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
                && (!ends || last == LastLink::Follow)
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::call("resolve", path)(Errno::LOOP));
                }
                let name = walked.pop().unwrap_or_default();
                let target = rustix::fs::readlinkat(&dir, name.as_slice(), Vec::new())
                    .map_err(Error::call("readlinkat", &here))?;
                if target.as_bytes().starts_with(b"/") {
                    walked.clear();
                }
                todo.extend(target.as_bytes().split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
            }
        }
        let child = self.find(&walked.join(&b'/'))?;
        Ok(Resolved { path: walked, child })
    }
}

/// Looks up many paths, most of them near the one before: what that one went through stays open.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    base: &'a Merged,
    way: Vec<(Vec<u8>, Merged)>,
}

/// What [`Walk::find`] finds.
pub(crate) enum Found<'a> {
    Absent,
    Directory(&'a Merged),
    Other(OwnedFd, Stat),
}

impl<'a> Walk<'a> {
    pub(crate) fn new(base: &'a Merged) -> Walk<'a> {
        Walk { base, way: Vec::new() }
    }

    /// As [`Merged::find`].
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Found<'_>, Error> {
        let mut names = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).peekable();
        let mut depth = 0;
        while let (Some((here, _)), Some(name)) = (self.way.get(depth), names.peek())
            && here == name
        {
            names.next();
            depth += 1;
        }
        self.way.truncate(depth);
        for name in names {
            let at = self.way.last().map_or(self.base, |(_, dir)| dir);
            match at.child(name).map_err(Error::call("statat", path))? {
                Child::Directory(dir) => self.way.push((name.to_vec(), dir)),
                // Below a file there is nothing; the names that are left would have come to a directory.
                Child::Other(dir, stat) => {
                    let whole = self.way.len() + 1 == components_of(path);
                    return Ok(if whole { Found::Other(dir, stat) } else { Found::Absent });
                }
                Child::Absent => return Ok(Found::Absent),
            }
        }
        Ok(Found::Directory(self.way.last().map_or(self.base, |(_, dir)| dir)))
    }
}

fn components_of(path: &[u8]) -> usize {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).count()
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

/// Opens a directory for reading.
pub(crate) fn open_root(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

#[cfg(test)]
mod tests;
