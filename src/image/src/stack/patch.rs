//! The patch of a layer: what it takes from the layers below, made from them without a copy.
//!
//! * A directory that the layer has entries in without an entry for it gets the attributes that it has below;
//!   overlayfs would show those that the unpacker had to make up.
//! * Where a link stands below (`bin -> usr/bin`, the layer has `bin/x`), the link is put back, and the layer's
//!   entries are linked to where it leads.
//! * A hard link to a lower layer's file becomes one more name of that file.
//! * What the layer hides behind such a link is of the layers below only (image-spec layer.md, "Whiteouts").
//!   The patch is above the layer: where it hides a directory, what the layer has in there is linked into it.
//!
//! Files are never copied but linked, so that the link count of such a file tells of the store's names, too.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Child, Found, LastLink, Merged, Walk, is_opaque};
use crate::unpack::{Error, Need, Owners, copy_attributes, is_whiteout, names_in, open_dir};

/// Whether there was anything to put into a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The patch is needed.
    Filled,
    /// The layer is right by itself above these layers.
    Empty,
}

struct Patch<'a> {
    /// Where the patch is made.
    root: &'a OwnedFd,
    /// The layer.
    layer: &'a OwnedFd,
    /// What is below the layer.
    lower: &'a Merged,
    below: Walk<'a>,
    /// Directories that the layer has no entry for.
    unnamed: HashSet<&'a [u8]>,
    /// Whether the layer hides what is below these paths.
    hidden: HashMap<Vec<u8>, bool>,
    /// What the patch hides of the layers below, with all below it.
    gone: HashSet<Vec<u8>>,
    /// Directories of which the patch hides what the layers below have in them.
    emptied: HashSet<Vec<u8>>,
    owners: Owners,
    user_xattrs: bool,
    /// Paths of the layer whose content went elsewhere.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories that the layer has an entry for, among what went elsewhere.
    brought: Vec<(Vec<u8>, Vec<u8>)>,
    outcome: Outcome,
}

/// Fills `root`, an empty directory on the same file system, with what `layer` needs from `lower`.
pub fn patch(
    root: &OwnedFd,
    layer: &OwnedFd,
    lower: &Merged,
    needs: &[Need],
    owners: Owners,
    user_xattrs: bool,
) -> Result<Outcome, Error> {
    let mut patch = Patch {
        root,
        layer,
        lower,
        below: Walk::new(lower),
        unnamed: needs.iter().filter_map(unnamed).collect(),
        hidden: HashMap::new(),
        gone: HashSet::new(),
        emptied: HashSet::new(),
        owners,
        user_xattrs,
        moved: Vec::new(),
        brought: Vec::new(),
        outcome: Outcome::Empty,
    };
    for need in needs {
        match need {
            Need::Directory(path) if patch.moved_to(path) == *path => {
                patch.implied(path, path, Content::Stays)?;
            }
            // It went with the directory that it is in.
            Need::Directory(_) => {}
            Need::Link { path, target } => patch.link(path, target)?,
        }
    }
    // Making entries changed the times of the patch's directories.
    if patch.outcome == Outcome::Filled {
        let open = |dir: &OwnedFd| open_dir(dir.as_fd(), b".").map_err(Error::call("openat", b"/"));
        patch.settle(b"", &open(root)?, Some(&open(layer)?))?;
    }
    Ok(patch.outcome)
}

fn unnamed(need: &Need) -> Option<&[u8]> {
    match need {
        Need::Directory(path) => Some(path),
        Need::Link { .. } => None,
    }
}

/// Whether what the layer has in a directory is to be brought to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Stays,
    Moves,
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

impl Patch<'_> {
    /// Where the layer's path is after links were put back.
    fn moved_to(&self, path: &[u8]) -> Vec<u8> {
        let inside =
            |from: &[u8]| path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        let best =
            self.moved.iter().filter(|(from, _)| inside(from).is_some()).max_by_key(|(from, _)| from.len());
        match best {
            Some((from, to)) => {
                let rest = inside(from).unwrap_or_default();
                join(to, rest.strip_prefix(b"/").unwrap_or(rest))
            }
            None => path.to_vec(),
        }
    }

    fn open(&self, base: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Error> {
        let mut at = open_dir(base.as_fd(), b".").map_err(Error::call("openat", path))?;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            at = match open_dir(at.as_fd(), name) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                other => other.map_err(Error::call("openat", path))?,
            };
        }
        Ok(Some(at))
    }

    /// A directory that no entry of the layer names: `from` in the layer, `to` in the image.
    fn implied(&mut self, from: &[u8], to: &[u8], content: Content) -> Result<(), Error> {
        let hidden = self.is_hidden(from)? || self.is_gone(to);
        let below = if hidden { Found::Absent } else { self.below.find(to)? };
        match below {
            Found::Directory(_) => drop(self.directory(to)?),
            Found::Other(dir, stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let target = self.lower.resolve(to, LastLink::Follow)?;
                if let Child::Other(..) = target.child {
                    return Err(Error::call("resolve", to)(Errno::NOTDIR));
                }
                let target = target.path.join(&b'/');
                self.put_back(&dir, &stat, to)?;
                self.moved.push((from.to_vec(), target.clone()));
                if let Child::Other(..) = self.above_lower(&[self.layer], to)?.find(&target)? {
                    // The layer puts a file where the link led: what came there before is gone.
                    return Ok(());
                }
                drop(self.directory(&target)?);
                return self.bring(from, &target);
            }
            // Nothing is there, or a file that the directory hides: what the unpacker made is right.
            Found::Other(..) | Found::Absent => {
                if content == Content::Moves {
                    drop(self.directory(to)?);
                }
            }
        }
        if content == Content::Moves { self.bring(from, to) } else { Ok(()) }
    }

    /// Makes a directory of the patch with those above it, and gives each the attributes it is to have: those
    /// that the layer states, else those from below.
    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        self.outcome = Outcome::Filled;
        let mut at = open_dir(self.root.as_fd(), b".").map_err(Error::call("openat", path))?;
        let mut here = Vec::new();
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            here = join(&here, name);
            match rustix::fs::mkdirat(&at, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::call("mkdirat", &here)(errno)),
            }
            at = match open_dir(at.as_fd(), name) {
                Err(Errno::NOTDIR) if self.remove_whiteout(&at, name, &here)? => {
                    rustix::fs::mkdirat(&at, name, Mode::RWXU).map_err(Error::call("mkdirat", &here))?;
                    let made = open_dir(at.as_fd(), name).map_err(Error::call("openat", &here))?;
                    self.make_opaque(&made, &here)?;
                    made
                }
                other => other.map_err(Error::call("openat", &here))?,
            };
        }
        Ok(at)
    }

    fn make_opaque(&self, dir: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let class = if self.user_xattrs { "user" } else { "trusted" };
        rustix::fs::fsetxattr(dir, format!("{class}.overlay.opaque"), b"y", XattrFlags::empty())
            .map_err(Error::call("fsetxattr", path))
    }

    /// Makes room in the patch for what the layer has where it hid something before. Says whether it did.
    fn remove_whiteout(&self, at: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, Error> {
        let stat =
            rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::call("statat", path))?;
        if !is_whiteout(&stat) {
            return Ok(false);
        }
        rustix::fs::unlinkat(at, name, AtFlags::empty()).map_err(Error::call("unlinkat", path))?;
        Ok(true)
    }

    /// Links a whiteout of the layer to `to`, as far as it hides what is below and not what the layer has there.
    fn hide(&mut self, source: &OwnedFd, name: &[u8], to: &[u8]) -> Result<(), Error> {
        self.gone.insert(to.to_vec());
        match Merged::new(vec![self.again(self.layer, to)?]).find(to)? {
            // It hides what is below by itself.
            Child::Other(..) => return Ok(()),
            Child::Directory(_) => {
                return match self.below.find(to)? {
                    Found::Directory(_) => self.empty(to),
                    Found::Other(..) | Found::Absent => Ok(()),
                };
            }
            Child::Absent => {}
        }
        let (parent, new) = split(to);
        let at = self.directory(parent)?;
        match rustix::fs::linkat(source, name, &at, new, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The layer brings the name by another link.
            Err(Errno::EXIST) => match open_dir(at.as_fd(), new) {
                Ok(brought) => self.make_opaque(&brought, to),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(Error::call("openat", to)(errno)),
            },
            Err(errno) => Err(Error::call("linkat", to)(errno)),
        }
    }

    /// Hides what the layers below have in a directory, and keeps what the layer has in it.
    fn empty(&mut self, to: &[u8]) -> Result<(), Error> {
        let dir = self.directory(to)?;
        self.make_opaque(&dir, to)?;
        // overlayfs knows no opaque root.
        if to.is_empty() || !self.emptied.insert(to.to_vec()) {
            return Ok(());
        }
        self.bring(to, to)
    }

    fn put_back(&mut self, dir: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let (parent, name) = split(path);
        let at = self.directory(parent)?;
        let target =
            rustix::fs::readlinkat(dir, name, Vec::new()).map_err(Error::call("readlinkat", path))?;
        rustix::fs::symlinkat(target, &at, name).map_err(Error::call("symlinkat", path))?;
        let (uid, gid) = owner(stat);
        if self.owners == Owners::Recorded {
            rustix::fs::chownat(&at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::call("fchownat", path))?;
        }
        let time =
            Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(&at, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::call("utimensat", path))
    }

    /// Links all that the layer has in `from` to `to`.
    fn bring(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let Some(source) = self.open(self.layer, from)? else { return Ok(()) };
        // What is brought to its own place is below a directory that hides all there is to hide.
        let hides = from != to;
        if hides && is_opaque(&source).map_err(Error::call("fgetxattr", from))? {
            self.empty(to)?;
        }
        for name in names_in(source.as_fd()).map_err(Error::call("getdents64", from))? {
            let (inner, outer) = (join(from, &name), join(to, &name));
            let stat = rustix::fs::statat(&source, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::call("statat", &inner))?;
            if is_whiteout(&stat) {
                if hides {
                    self.hide(&source, &name, &outer)?;
                }
            } else if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let at = self.directory(to)?;
                match rustix::fs::linkat(&source, name.as_slice(), &at, name.as_slice(), AtFlags::empty()) {
                    // The layer has the name where the link leads, too: that one stays.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(Error::call("linkat", &outer)(errno)),
                }
            } else if self.is_implied(&inner) {
                // One that was moved is where it belongs.
                if hides || self.moved.iter().all(|(from, _)| *from != inner) {
                    self.implied(&inner, &outer, Content::Moves)?;
                }
            } else {
                self.brought.push((inner.clone(), outer.clone()));
                drop(self.directory(&outer)?);
                self.bring(&inner, &outer)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        // The layer had no such file when it was linked: one that it has now came later and is not meant. Its
        // links may still lead to the lower file.
        let mut found = self.above_lower(&[self.root], target)?.resolve(target, LastLink::Keep)?;
        if !matches!(found.child, Child::Other(..)) {
            let both = self.above_lower(&[self.root, self.layer], target)?;
            found = both.resolve(target, LastLink::Keep)?;
        }
        let Child::Other(dir, _) = found.child else {
            return Err(Error::call("linkat", target)(Errno::NOENT));
        };
        let path = self.moved_to(path);
        let (parent, name) = split(&path);
        let at = self.directory(parent)?;
        let link = || rustix::fs::linkat(&dir, split(target).1, &at, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) if self.remove_whiteout(&at, name, &path)? => link(),
            other => other,
        };
        linked.map_err(Error::call("linkat", &path))
    }

    fn again(&self, root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Error> {
        open_dir(root.as_fd(), b".").map_err(Error::call("openat", path))
    }

    fn above_lower(&self, layers: &[&OwnedFd], path: &[u8]) -> Result<Merged, Error> {
        let mut all = Vec::new();
        for root in layers {
            all.push(self.again(root, path)?);
        }
        all.extend(self.lower.again().map_err(Error::call("dup", path))?.0);
        Ok(Merged(all))
    }

    /// Gives the patch's directories their attributes, the deepest first: those that the layer states, else
    /// those from below, else those of a directory that nobody names. `own` is what the layer has there.
    fn settle(&mut self, path: &[u8], dir: &OwnedFd, own: Option<&OwnedFd>) -> Result<(), Error> {
        for name in names_in(dir.as_fd()).map_err(Error::call("getdents64", path))? {
            let told = || join(path, &name);
            let child = match open_dir(dir.as_fd(), &name) {
                Ok(child) => child,
                Err(Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(Error::call("openat", &told())(errno)),
            };
            let own = match own.map(|own| open_dir(own.as_fd(), &name)) {
                None | Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => None,
                Some(found) => Some(found.map_err(Error::call("openat", &told()))?),
            };
            self.settle(&told(), &child, own.as_ref())?;
        }
        if path.is_empty() {
            // What the image's root is like stands in the records of its layers.
            return Ok(());
        }
        let brought = self.brought.iter().find(|(_, to)| to == path).map(|(from, _)| from.as_slice());
        let brought = match brought {
            Some(from) => self.open(self.layer, from)?,
            None => None,
        };
        let stated = match &brought {
            None if self.is_implied(path) => None,
            None => own,
            Some(_) => brought.as_ref(),
        };
        let hidden = self.is_hidden(path)? || self.is_gone(path);
        let below = match self.below.find(path)? {
            Found::Directory(merged) if !hidden => merged.0.first(),
            Found::Directory(_) | Found::Other(..) | Found::Absent => None,
        };
        match stated.or(below) {
            Some(from) => {
                let told = |(call, errno)| Error::call(call, path)(errno);
                copy_attributes(from, dir, self.owners).map_err(told)
            }
            None => {
                rustix::fs::fchmod(dir, Mode::from_raw_mode(0o755)).map_err(Error::call("fchmod", path))?;
                let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
                let times = Timestamps { last_access: epoch, last_modification: epoch };
                rustix::fs::futimens(dir, &times).map_err(Error::call("futimens", path))
            }
        }
    }

    /// Whether the layer hides what is below this path, by an opaque directory above it.
    fn is_hidden(&mut self, path: &[u8]) -> Result<bool, Error> {
        let parent = split(path).0;
        if parent.is_empty() {
            return Ok(false);
        }
        if let Some(known) = self.hidden.get(parent) {
            return Ok(*known);
        }
        let hidden = self.is_hidden(parent)?
            || match self.open(self.layer, parent)? {
                Some(dir) => is_opaque(&dir).map_err(Error::call("fgetxattr", parent))?,
                None => false,
            };
        self.hidden.insert(parent.to_vec(), hidden);
        Ok(hidden)
    }

    /// Whether the patch hides what is below this path.
    fn is_gone(&self, path: &[u8]) -> bool {
        let above = |end: usize| self.gone.contains(&path[..end]) || self.emptied.contains(&path[..end]);
        self.gone.contains(path) || (0..path.len()).any(|end| path[end] == b'/' && above(end))
    }

    fn is_implied(&self, path: &[u8]) -> bool {
        self.unnamed.contains(path)
    }
}
