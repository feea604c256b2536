//! Looking whether the store still has what it was given.
//!
//! Documents and kept blobs are hashed again. Of a layer the store has files, not the bytes that its digest is
//! of: it is unpacked once more, aside, from a source whose two digests are looked at on the way, and the two
//! trees are compared entry by entry. The fresh one can take the place of one that differs. Patches are made once
//! more, from the layers, and compared in the same way.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::images::Image;
use super::kept::{Kind, Record, file_name, seal};
use super::place::{self, Aside};
use super::prune::CONTAINER_IMAGE;
use super::{Error, Slot, Store};
use crate::digest::{Digest, Hasher};
use crate::stack::{Outcome, open_root};
use crate::unpack::{Descent, Expected, Limits, Tree, names_in, unpack_layer};

/// Differences that are told of one layer.
const MAX_TOLD: usize = 10;

const BUFFER: usize = 128 << 10;

/// What is done about a layer that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    No,
    /// The fresh one takes its place, unless a container runs on it.
    Replace,
}

/// What came of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It is what it was.
    Same,
    /// It is not; what differs, the first few.
    Differs(Vec<String>),
    /// It was not, and is again.
    Repaired(Vec<String>),
    /// It is not, and this container has its root on it.
    InUse(Vec<String>, String),
}

impl Store {
    /// Hashes a blob that is there again: whether it is what its name says; nothing when it is not there.
    pub fn check_blob(&self, digest: &Digest) -> Result<Option<bool>, Error> {
        let Some(mut file) = self.blob(digest)? else { return Ok(None) };
        let path = self.blob_path(digest);
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", &path))? {
                0 => return Ok(Some(hasher.finish() == *digest)),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Takes away a blob that is not what its name says.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), Error> {
        place::unlink(&self.blob_path(digest))
    }

    /// Unpacks a layer aside and compares it with the one that is there.
    pub fn check_layer<R: Read + Send>(
        &self,
        diff_id: &Digest,
        source: R,
        digest: &Digest,
        size: u64,
        repair: Repair,
    ) -> Result<Checked, Error> {
        let slot = Slot::lock(self, diff_id)?;
        let aside = Aside::make(&self.root().join("tmp"))?;
        let path = aside.path.join("fs");
        rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(Error::call("mkdir", &path))?;
        let failed = |why| Error::Layer { digest: digest.clone(), why };
        let fresh = open_root(&path).map_err(Error::call("open", &path))?;
        let mut tree = Tree::new(fresh, self.settings().options()).map_err(failed)?;
        let expected = Expected { digest, size, diff_id };
        let mut unpacked = unpack_layer(source, expected, &Limits::default(), &mut tree).map_err(failed)?;
        unpacked.applied.also_skipped(tree.finish().map_err(failed)?);
        let kept = self.kept(Kind::Snapshot, diff_id);
        let mut comparison = Comparison::default();
        match self.snapshot(diff_id)? {
            None => comparison.tell("", "is not there"),
            Some(snapshot) => {
                comparison.trees(&snapshot.path, &path)?;
            }
        }
        if comparison.told.is_empty() {
            return Ok(Checked::Same);
        }
        if repair == Repair::No {
            return Ok(Checked::Differs(comparison.told));
        }
        // Whoever starts a container has the store open until the container's directory says what it is stacked of.
        let container = self.alone(|| {
            let container = self.container_on(diff_id)?;
            if container.is_none() {
                place::discard(&self.root().join("tmp"), &kept)?;
                let record = Record::new(self, unpacked.bytes, &unpacked.applied);
                self.keep(aside, Kind::Snapshot, diff_id, &record)?;
                seal(&[kept])?;
                // The lowest layer's own lock is that of its patch.
                drop(slot);
                self.stack_again(diff_id)?;
            }
            Ok(container)
        })?;
        Ok(match container {
            Some(container) => Checked::InUse(comparison.told, container),
            None => Checked::Repaired(comparison.told),
        })
    }

    /// Makes the patches of an image aside and compares them with those that are there. Its layers should be as
    /// they were: what is found here tells of them, too.
    pub fn check_patches(&self, image: &Image, repair: Repair) -> Result<Checked, Error> {
        let mut comparison = Comparison { of_patches: true, ..Comparison::default() };
        let mut differing: Option<Digest> = None;
        self.stack(&image.layers, &mut |snapshot, chain_id, below| {
            let aside = Aside::make(&self.root().join("tmp"))?;
            let fresh = aside.path.join("fs");
            let outcome = self.fill_patch(&fresh, snapshot, below)?;
            let directory = PathBuf::from(Kind::Patch.directory()).join(file_name(chain_id)).join("fs");
            let kept = self.whole(Kind::Patch, chain_id)?;
            let is_there = kept.as_ref().is_some_and(|record| !record.empty);
            let before = comparison.told.len();
            match (outcome, kept) {
                (Outcome::Empty, None) => {}
                (Outcome::Empty, Some(record)) if record.empty => {}
                (Outcome::Filled, Some(record)) if !record.empty => {
                    comparison.trees(&self.root().join(&directory), &fresh)?;
                }
                (Outcome::Filled, _) => comparison.tell("", "is not there"),
                (Outcome::Empty, Some(_)) => comparison.tell("", "is not needed"),
            }
            if comparison.told.len() > before {
                differing.get_or_insert_with(|| snapshot.diff_id.clone());
            }
            Ok(is_there.then_some(directory))
        })?;
        match differing {
            None => Ok(Checked::Same),
            Some(_) if repair == Repair::No => Ok(Checked::Differs(comparison.told)),
            Some(lowest) => {
                let container = self.alone(|| {
                    let container = self.container_on(&lowest)?;
                    if container.is_none() {
                        self.stack_again(&lowest)?;
                    }
                    Ok(container)
                })?;
                Ok(match container {
                    Some(container) => Checked::InUse(comparison.told, container),
                    None => Checked::Repaired(comparison.told),
                })
            }
        }
    }

    /// A container whose root is stacked on a layer.
    fn container_on(&self, diff_id: &Digest) -> Result<Option<String>, Error> {
        let directory = self.root().join("containers");
        for entry in std::fs::read_dir(&directory).map_err(Error::io("opendir", &directory))? {
            let entry = entry.map_err(Error::io("readdir", &directory))?;
            let image = place::read_json::<Image>(&entry.path().join(CONTAINER_IMAGE))?;
            if image.is_some_and(|image| image.layers.contains(diff_id)) {
                return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }
}

/// Two trees, the kept one and the fresh one.
#[derive(Default)]
struct Comparison {
    told: Vec<String>,
    /// Inode numbers of files with several names: which of the kept tree is which of the fresh one, and back. How
    /// many names a file has says nothing: patches give it more.
    links: HashMap<u64, u64>,
    back: HashMap<u64, u64>,
    /// Whether these are patches: what is linked in a fresh one is to be the same file in the kept one.
    of_patches: bool,
}

impl Comparison {
    fn tell(&mut self, path: &str, what: &str) {
        match self.told.len() {
            0..MAX_TOLD => {
                let path = if path.is_empty() { "/" } else { path };
                self.told.push(format!("{path}: {what}"));
            }
            MAX_TOLD => self.told.push("and more".into()),
            _ => {}
        }
    }

    fn trees(&mut self, kept: &Path, fresh: &Path) -> Result<(), Error> {
        (self.links, self.back) = (HashMap::new(), HashMap::new());
        let open = |path: &Path| {
            open_root(path).map(|dir| Descent::new(dir, OFlags::RDONLY)).map_err(Error::call("open", path))
        };
        self.directories(&mut open(kept)?, &mut open(fresh)?, "")
    }

    /// Compares what is in two directories, and the directories' own attributes.
    fn directories(&mut self, kept: &mut Descent, fresh: &mut Descent, path: &str) -> Result<(), Error> {
        let call = |call| Error::call(call, Path::new(path));
        let (a, b) = (
            rustix::fs::fstat(kept.dir()).map_err(call("fstat"))?,
            rustix::fs::fstat(fresh.dir()).map_err(call("fstat"))?,
        );
        self.attributes(&a, &b, path);
        self.xattrs(kept.dir(), fresh.dir(), path)?;
        let names = |dir: &Descent| -> Result<Vec<Vec<u8>>, Error> {
            let mut names = names_in(dir.dir()).map_err(call("getdents64"))?;
            names.sort();
            Ok(names)
        };
        let (has, wanted) = (names(kept)?, names(fresh)?);
        for name in has.iter().filter(|name| wanted.binary_search(name).is_err()) {
            self.tell(&join(path, name), "is not of the layer");
        }
        for name in &wanted {
            let path = join(path, name);
            if has.binary_search(name).is_err() {
                self.tell(&path, "is missing");
            } else if self.told.len() <= MAX_TOLD {
                self.entry(kept, fresh, name, &path)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        kept: &mut Descent,
        fresh: &mut Descent,
        name: &[u8],
        path: &str,
    ) -> Result<(), Error> {
        let call = |call| Error::call(call, Path::new(path));
        let stat = |at: &Descent| {
            rustix::fs::statat(at.dir(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(call("fstatat"))
        };
        let (a, b) = (stat(kept)?, stat(fresh)?);
        let kind = FileType::from_raw_mode(a.st_mode);
        if kind != FileType::from_raw_mode(b.st_mode) {
            self.tell(path, "is of another type");
            return Ok(());
        }
        if kind == FileType::Directory {
            for dir in [&mut *kept, &mut *fresh] {
                dir.enter(name).map_err(call("openat"))?;
            }
            self.directories(kept, fresh, path)?;
            for dir in [kept, fresh] {
                dir.leave().map_err(call("openat"))?;
            }
            return Ok(());
        }
        self.attributes(&a, &b, path);
        if !self.same_names(&a, &b) {
            self.tell(path, "has other hard links");
        }
        match kind {
            FileType::RegularFile if a.st_size == b.st_size => {
                let open = |at: &Descent| {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(at.dir(), name, flags, Mode::empty()).map_err(call("openat"))
                };
                let (kept, fresh) = (open(kept)?, open(fresh)?);
                self.xattrs(kept.as_fd(), fresh.as_fd(), path)?;
                if !same_content(kept.into(), fresh.into(), path)? {
                    self.tell(path, "has other content");
                }
            }
            FileType::Symlink => {
                let target = |at: &Descent| {
                    rustix::fs::readlinkat(at.dir(), name, Vec::new()).map_err(call("readlinkat"))
                };
                if target(kept)? != target(fresh)? {
                    self.tell(path, "leads elsewhere");
                }
            }
            FileType::RegularFile
            | FileType::Directory
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => {}
        }
        Ok(())
    }

    /// Whether a file has the same other names in both trees.
    fn same_names(&mut self, a: &Stat, b: &Stat) -> bool {
        if a.st_nlink == 1 && b.st_nlink == 1 {
            return true;
        }
        if self.of_patches && b.st_nlink > 1 {
            return a.st_ino == b.st_ino;
        }
        let forth = *self.links.entry(a.st_ino).or_insert(b.st_ino) == b.st_ino;
        let back = *self.back.entry(b.st_ino).or_insert(a.st_ino) == a.st_ino;
        forth && back
    }

    fn attributes(&mut self, a: &Stat, b: &Stat, path: &str) {
        let is_directory = FileType::from_raw_mode(a.st_mode) == FileType::Directory;
        let differing = [
            (
                a.st_mode != b.st_mode,
                format!("has mode {:o}, not {:o}", a.st_mode & 0o7777, b.st_mode & 0o7777),
            ),
            (
                (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid),
                format!("belongs to {}:{}, not {}:{}", a.st_uid, a.st_gid, b.st_uid, b.st_gid),
            ),
            // Of a directory it is the file system's own business.
            (!is_directory && a.st_size != b.st_size, format!("has {} bytes, not {}", a.st_size, b.st_size)),
            (a.st_rdev != b.st_rdev, "is another device".into()),
            // A layer need not say when a directory was made that it only has files in.
            (
                !is_directory && (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec),
                "was changed at another time".into(),
            ),
        ];
        for (differs, what) in differing {
            if differs {
                self.tell(path, &what);
            }
        }
    }

    fn xattrs(&mut self, a: BorrowedFd<'_>, b: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
        let all = |fd| xattrs(fd).map_err(Error::call("flistxattr", Path::new(path)));
        if all(a)? != all(b)? {
            self.tell(path, "has other extended attributes");
        }
        Ok(())
    }
}

fn join(path: &str, name: &[u8]) -> String {
    format!("{path}/{}", String::from_utf8_lossy(name))
}

/// Names and values. What the file system has none of is none.
fn xattrs(fd: BorrowedFd<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(fd, std::ffi::OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn same_content(mut a: File, mut b: File, path: &str) -> Result<bool, Error> {
    let read = |file: &mut File, buffer: &mut [u8]| -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(Error::io("read", Path::new(path)))? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    };
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let (m, n) = (read(&mut a, &mut left)?, read(&mut b, &mut right)?);
        if left[..m] != right[..n] {
            return Ok(false);
        }
        if m == 0 {
            return Ok(true);
        }
    }
}
