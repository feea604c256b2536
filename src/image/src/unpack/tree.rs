//! The directory that layers are unpacked to, and how paths in it are found.
//!
//! Parents are resolved by openat2(2) with `RESOLVE_IN_ROOT`: symbolic links of the image are followed as a
//! process inside would, and none leads outside (`bin -> usr/bin` with an entry `bin/x` is legal and common).
//! The last component is never followed.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::descent::Descent;
use super::names::Escape;
use super::{Error, remove};

/// What a tree is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All layers in one directory: whiteouts remove what lower layers put there.
    Flat,
    /// One layer, to be stacked by overlayfs: whiteouts are written as overlayfs reads them.
    Overlay,
}

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the layer says: needs root, or a user namespace that maps the ids.
    Recorded,
    /// Whoever unpacks: all that a single id can do.
    Squashed,
}

/// What becomes of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// They are made.
    Make,
    /// They are left out and told of: mknod(2) needs CAP_MKNOD in the initial user namespace.
    Skip,
}

/// How a tree is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Flat or for overlayfs.
    pub form: Form,
    /// Owners.
    pub owners: Owners,
    /// Devices.
    pub devices: Devices,
    /// Whether overlayfs is to read `user.overlay.*`, its option `userxattr`, instead of `trusted.overlay.*`.
    pub user_xattrs: bool,
}

/// Something of a layer that was not written, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Path in the layer.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What a layer that is unpacked by itself takes from the layers below it. Paths are bytes within the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// The layer has entries in this directory but no entry for it: its attributes, or the link that stands
    /// there, are those of the lower layers.
    Directory(Vec<u8>),
    /// A hard link to a file of a lower layer.
    Link {
        /// The link's name.
        path: Vec<u8>,
        /// The file.
        target: Vec<u8>,
    },
}

/// What was made of a layer.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries read.
    pub entries: u64,
    /// What was left out; the first 64 are kept.
    pub skipped: Vec<Skipped>,
    /// How many were left out.
    pub skipped_count: u64,
    /// What comes from the layers below, in the order of the layer. Only in form [`Form::Overlay`].
    pub needs: Vec<Need>,
    /// Whether the layer says what the root's attributes are.
    pub root_stated: bool,
    /// Whether the layer hides all that is below it. overlayfs has no opaque root.
    pub root_opaque: bool,
}

/// Directories that stay open, the last used first: a tar goes up and down a few of them.
const MAX_OPEN: usize = 16;

impl Applied {
    /// Adds what [`Tree::finish`] left out.
    pub fn also_skipped(&mut self, (skipped, count): (Vec<Skipped>, u64)) {
        self.skipped.extend(skipped);
        self.skipped.truncate(MAX_SKIPPED);
        self.skipped_count += count;
    }
}

/// How many omissions are kept.
pub const MAX_SKIPPED: usize = 64;

/// A directory in the tree, as a place to make entries in.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) fd: OwnedFd,
    pub(super) inode: u64,
    pub(super) setgid: bool,
    path: Vec<u8>,
}

/// The directory that layers are unpacked to.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    root_inode: u64,
    pub(super) options: Options,
    pub(super) ids: (u32, u32),
    /// Mode bits that a new file may not get by open(2): the umask, or all where an ACL takes part.
    pub(super) masked: u32,
    open: Vec<Arc<Parent>>,
    /// Attributes that directories get at the end, by inode.
    pending: HashMap<u64, (Vec<u8>, Attributes)>,
    /// Directories that no entry of the layer names, by inode.
    implied: HashMap<u64, (usize, Vec<u8>)>,
    links: Vec<(usize, Need)>,
    sequence: usize,
    /// What the layer at hand made, by directory and name: its whiteouts do not touch that.
    made: HashSet<(u64, Vec<u8>)>,
    layers: usize,
    pub(super) applied: Applied,
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Tree {
    /// Unpacks below an open directory, which should be empty.
    pub fn new(root: OwnedFd, options: Options) -> Result<Tree, Error> {
        let stat = rustix::fs::fstat(&root).map_err(Error::call("fstat", b"/"))?;
        let mut tree = Tree {
            root_inode: stat.st_ino,
            masked: masked_bits(&root),
            root,
            options,
            ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            open: Vec::new(),
            pending: HashMap::new(),
            implied: HashMap::new(),
            links: Vec::new(),
            sequence: 0,
            made: HashSet::new(),
            layers: 0,
            applied: Applied::default(),
        };
        tree.pending.insert(stat.st_ino, (Vec::new(), Attributes::implied()));
        Ok(tree)
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn is_overlay(&self) -> bool {
        self.options.form == Form::Overlay
    }

    /// Name of an attribute of overlayfs.
    pub(super) fn overlay_xattr(&self, name: &str) -> String {
        let class = if self.options.user_xattrs { "user" } else { "trusted" };
        format!("{class}.overlay.{name}")
    }

    pub(super) fn skip(&mut self, path: &[u8], why: impl Into<String>) {
        self.applied.skipped_count += 1;
        if self.applied.skipped.len() < MAX_SKIPPED {
            let path = String::from_utf8_lossy(path).into_owned();
            self.applied.skipped.push(Skipped { path, why: why.into() });
        }
    }

    pub(super) fn begin_layer(&mut self) {
        self.applied = Applied::default();
        self.made.clear();
        self.layers += 1;
    }

    pub(super) fn end_layer(&mut self, entries: u64) -> Result<Applied, Error> {
        let mut applied = std::mem::take(&mut self.applied);
        applied.entries = entries;
        let mut needs = std::mem::take(&mut self.links);
        let implied = std::mem::take(&mut self.implied);
        for (inode, (sequence, path)) in implied {
            // One that was removed again needs nothing.
            if self.find(&path)?.is_some_and(|stat| stat.st_ino == inode) {
                needs.push((sequence, Need::Directory(path)));
            }
        }
        needs.sort_by_key(|(sequence, _)| *sequence);
        for (_, need) in needs {
            // What a later entry of the same layer put in a link's place stays.
            let replaced = match &need {
                Need::Link { path, .. } => self.find(path)?.is_some(),
                Need::Directory(_) => false,
            };
            if !replaced && self.is_overlay() {
                applied.needs.push(need);
            }
        }
        Ok(applied)
    }

    /// Gives all directories their attributes: after all entries, because each one changes its directory's
    /// times, default ACLs and the set-group-id bit are inherited, and a directory may be read-only.
    ///
    /// Gives what was left out of that: the first ones, and their number.
    pub fn finish(mut self) -> Result<(Vec<Skipped>, u64), Error> {
        let mut pending: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        // The deepest first: without root, a directory of mode 0 cannot be passed.
        pending.sort_by_key(|(_, (path, _))| std::cmp::Reverse(path.len()));
        self.applied = Applied::default();
        let mut missed = HashMap::new();
        for (inode, (path, attributes)) in pending {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let found = match self.open_in_root(&path, flags) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(errno) => return Err(Error::call("openat2", &path)(errno)),
            };
            match found {
                Some(fd) if inode_of(&fd, &path)? == inode => {
                    attributes.set_on_fd(&mut self, fd.as_fd(), &path)?;
                }
                // Removed by a later entry, or reached through a link that is another one now.
                Some(_) | None => {
                    missed.insert(inode, attributes);
                }
            }
        }
        if !missed.is_empty() {
            self.finish_missed(&missed)?;
        }
        Ok((self.applied.skipped, self.applied.skipped_count))
    }

    /// Looks through the whole tree for directories that are not found by the name they were made by.
    fn finish_missed(&mut self, missed: &HashMap<u64, Attributes>) -> Result<(), Error> {
        let root = remove::open_dir(self.root.as_fd(), b".").map_err(Error::call("openat", b"/"))?;
        let mut way = Descent::new(root, OFlags::RDONLY);
        let mut path: Vec<Vec<u8>> = Vec::new();
        let told = |path: &[Vec<u8>]| path.join(&b'/');
        let names = |way: &Descent, path: &[Vec<u8>]| {
            remove::names(way.dir()).map_err(|errno| Error::call("getdents64", &told(path))(errno))
        };
        let mut left = vec![names(&way, &path)?];
        while let Some(here) = left.last_mut() {
            let Some(name) = here.pop() else {
                left.pop();
                if left.is_empty() {
                    break;
                }
                let stat = rustix::fs::fstat(way.dir())
                    .map_err(|errno| Error::call("fstat", &told(&path))(errno))?;
                // Going up needs the right to pass: the directory gets its attributes from above.
                way.leave().map_err(|errno| Error::call("openat", &told(&path))(errno))?;
                let name = path.pop().unwrap_or_default();
                if let Some(attributes) = missed.get(&stat.st_ino) {
                    let at = |errno| Error::call("openat", &name)(errno);
                    let dir = remove::open_dir(way.dir(), &name).map_err(at)?;
                    path.push(name);
                    attributes.set_on_fd(self, dir.as_fd(), &told(&path))?;
                    path.pop();
                }
                continue;
            };
            match way.enter(&name) {
                Ok(()) => {
                    path.push(name);
                    left.push(names(&way, &path)?);
                }
                Err(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                Err(errno) => return Err(Error::call("openat", &told(&path))(errno)),
            }
        }
        Ok(())
    }

    fn open_in_root(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            // EAGAIN: a rename somewhere on the machine raced with the walk (openat2(2)).
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// What stands at a path: links on the way are followed, the last component is not.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Stat>, Error> {
        match self.open_in_root(path, PLACE | OFlags::NOFOLLOW) {
            Ok(fd) => rustix::fs::fstat(fd).map(Some).map_err(Error::call("fstat", path)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(Error::call("openat2", path)(errno)),
        }
    }

    /// The directory that these components lead to, made where it is missing.
    pub(super) fn parent(&mut self, parts: &[&[u8]]) -> Result<Arc<Parent>, Error> {
        let path = parts.join(&b'/');
        if let Some(found) = self.is_open(&path) {
            return Ok(found);
        }
        let fd = match self.open_in_root(&path, PLACE | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parts)?,
            Err(Errno::LOOP) => return Err(escape(&path, Escape::Loop)),
            Err(errno) => return Err(Error::call("openat2", &path)(errno)),
        };
        self.keep_open(fd, path)
    }

    /// The directory that these components lead to, when there is one.
    pub(super) fn existing(&mut self, parts: &[&[u8]]) -> Result<Option<Arc<Parent>>, Error> {
        let path = parts.join(&b'/');
        if let Some(found) = self.is_open(&path) {
            return Ok(Some(found));
        }
        match self.open_in_root(&path, PLACE | OFlags::DIRECTORY) {
            Ok(fd) => self.keep_open(fd, path).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(Error::call("openat2", &path)(errno)),
        }
    }

    fn is_open(&mut self, path: &[u8]) -> Option<Arc<Parent>> {
        let at = self.open.iter().position(|parent| parent.path == path)?;
        self.open[..=at].rotate_right(1);
        self.open.first().cloned()
    }

    fn keep_open(&mut self, fd: OwnedFd, path: Vec<u8>) -> Result<Arc<Parent>, Error> {
        let parent = Arc::new(Parent::of(fd, path)?);
        self.open.truncate(MAX_OPEN - 1);
        self.open.insert(0, parent.clone());
        Ok(parent)
    }

    /// Walks by hand what openat2 did not find whole, and makes what is missing, as root and with mode 0755.
    fn make_parents(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, Error> {
        let whole = parts.join(&b'/');
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        let mut way = self.at_root()?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    // As in a chroot: above the root is the root.
                    way.leave().map_err(Error::call("openat", &whole))?;
                    names.pop();
                    continue;
                }
                _ => {}
            }
            names.push(part);
            let part = names.last().map(Vec::as_slice).unwrap_or_default();
            let told = |call| Error::call(call, &names.join(&b'/'));
            match way.enter(part) {
                Ok(()) => continue,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = rustix::fs::statat(way.dir(), part, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(told("statat"))?;
                    if is_whiteout(&stat) && self.is_overlay() {
                        remove::unlink(way.dir(), part, AtFlags::empty()).map_err(told("unlinkat"))?;
                        let path = names.join(&b'/');
                        self.make_implied(&mut way, part, path.clone())?;
                        self.make_opaque(way.dir(), &path)?;
                        // What was below is gone: nothing is to be taken from there.
                        self.implied.remove(&inode_of(way.dir(), &path)?);
                    } else if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        links += 1;
                        // MAXSYMLINKS of the kernel.
                        if links > 40 {
                            return Err(escape(&whole, Escape::Loop));
                        }
                        let target = rustix::fs::readlinkat(way.dir(), part, Vec::new())
                            .map_err(told("readlinkat"))?;
                        let target = target.as_bytes();
                        names.pop();
                        if target.starts_with(b"/") {
                            way = self.at_root()?;
                            names.clear();
                        }
                        todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                    } else {
                        return Err(escape(&whole, Escape::Parent));
                    }
                    continue;
                }
                Err(errno) => return Err(told("openat")(errno)),
            }
            self.make_implied(&mut way, part, names.join(&b'/'))?;
        }
        Ok(way.into_dir())
    }

    fn at_root(&self) -> Result<Descent, Error> {
        let root = self.root.try_clone().map_err(|_| Error::Interrupted)?;
        Ok(Descent::new(root, OFlags::PATH))
    }

    /// Makes a directory without an entry for it and goes there.
    fn make_implied(&mut self, way: &mut Descent, name: &[u8], path: Vec<u8>) -> Result<(), Error> {
        rustix::fs::mkdirat(way.dir(), name, Mode::RWXU).map_err(Error::call("mkdirat", &path))?;
        way.enter(name).map_err(Error::call("openat", &path))?;
        let inode = inode_of(way.dir(), &path)?;
        self.sequence += 1;
        self.implied.insert(inode, (self.sequence, path.clone()));
        self.pending.insert(inode, (path, Attributes::implied()));
        Ok(())
    }

    /// Says what a directory's attributes are, by an entry for it.
    pub(super) fn state_directory(&mut self, inode: u64, path: &[u8], attributes: Attributes) {
        self.implied.remove(&inode);
        if inode == self.root_inode {
            self.applied.root_stated = true;
        }
        self.pending.insert(inode, (path.to_vec(), attributes));
    }

    /// Whether this directory was made without an entry for it, in a layer by itself.
    pub(super) fn is_implied(&self, inode: u64) -> bool {
        self.is_overlay() && self.implied.contains_key(&inode)
    }

    /// Records a hard link into the layers below.
    pub(super) fn need_link(&mut self, path: Vec<u8>, target: Vec<u8>) {
        self.sequence += 1;
        self.links.push((self.sequence, Need::Link { path, target }));
    }

    /// Hides the lower layers' part of a directory from overlayfs.
    pub(super) fn make_opaque(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        let inode = rustix::fs::fstat(dir).map_err(Error::call("fstat", path))?.st_ino;
        if inode == self.root_inode {
            self.applied.root_opaque = true;
            return Ok(());
        }
        let fd = remove::open_dir(dir, b".").map_err(Error::call("openat", path))?;
        rustix::fs::fsetxattr(fd, self.overlay_xattr("opaque"), b"y", rustix::fs::XattrFlags::empty())
            .map_err(Error::call("fsetxattr", path))
    }

    /// Remembers what this layer made, for its own whiteouts. Nothing is below the first layer.
    pub(super) fn remember(&mut self, parent: u64, name: &[u8]) {
        if self.options.form == Form::Flat && self.layers > 1 {
            self.made.insert((parent, name.to_vec()));
        }
    }

    pub(super) fn was_made(&self, parent: u64, name: &[u8]) -> bool {
        self.layers <= 1 || self.made.contains(&(parent, name.to_vec()))
    }

    /// Removes what stands in the way of an entry, and all that is known of it: the numbers of its directories may be
    /// given to what is made next.
    pub(super) fn remove(&mut self, parent: &Parent, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let gone =
            remove::remove_directories(parent.fd.as_fd(), name).map_err(Error::call("unlinkat", path))?;
        if !gone.is_empty() {
            for inode in &gone {
                self.implied.remove(inode);
                self.pending.remove(inode);
            }
            self.made.retain(|(parent, _)| !gone.contains(parent));
        }
        self.forget_parents();
        Ok(())
    }

    /// Forgets the open directories: something was removed, and it may have been what led to one.
    pub(super) fn forget_parents(&mut self) {
        self.open.clear();
    }
}

/// Which mode bits open(2) may leave out of what it is given: with a default ACL in the root, which all
/// directories below inherit, any (umask(2), acl(5)). The umask is read without being set, since all threads
/// share it.
fn masked_bits(root: &OwnedFd) -> u32 {
    match rustix::fs::fgetxattr(root, "system.posix_acl_default", &mut [][..] as &mut [u8]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Ok(_) | Err(_) => return 0o777,
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

fn inode_of(fd: impl AsFd, path: &[u8]) -> Result<u64, Error> {
    rustix::fs::fstat(fd).map(|stat| stat.st_ino).map_err(Error::call("fstat", path))
}

impl Parent {
    fn of(fd: OwnedFd, path: Vec<u8>) -> Result<Parent, Error> {
        let stat = rustix::fs::fstat(&fd).map_err(Error::call("fstat", &path))?;
        let setgid = stat.st_mode & Mode::SGID.as_raw_mode() != 0;
        Ok(Parent { fd, inode: stat.st_ino, setgid, path })
    }
}

pub(super) fn escape(path: &[u8], why: Escape) -> Error {
    Error::Escape { path: String::from_utf8_lossy(path).into_owned(), why }
}

/// Whether this is overlayfs's whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
