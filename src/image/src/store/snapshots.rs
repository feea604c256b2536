//! Layers in the store: each unpacked once, by whoever comes first.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};

use super::kept::{Kind, Record, file_name};
use super::place::{self, Aside, NewFile};
use super::{Error, Store};
use crate::digest::Digest;
use crate::stack::open_root;
use crate::unpack::{Expected, Limits, Tree, WriteFailed, unpack_layer};

/// A layer that is in the store.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name.
    pub diff_id: Digest,
    /// The directory that is stacked.
    pub path: PathBuf,
    /// What is known of it.
    pub record: Record,
}

/// What the store has of a layer.
#[derive(Debug)]
pub enum Layer<'a> {
    /// All of it.
    Ready(Box<Snapshot>),
    /// Nothing; the place is held until it is filled or dropped, and others wait for it.
    Missing(Slot<'a>),
}

/// The right to put a layer in.
#[derive(Debug)]
pub struct Slot<'a> {
    store: &'a Store,
    diff_id: Digest,
    _lock: OwnedFd,
}

/// What becomes of the compressed layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blob {
    /// It is read and gone.
    Stream,
    /// It is kept among the blobs.
    Keep,
}

impl Store {
    /// Looks for a layer. When it is not there, waits for whoever is unpacking it, then gives the place.
    ///
    /// A thread holds one place at a time: two pulls that hold some and wait for others could wait for each other,
    /// and an image may have a layer twice.
    pub fn layer(&self, diff_id: &Digest) -> Result<Layer<'_>, Error> {
        if let Some(found) = self.snapshot(diff_id)? {
            return Ok(Layer::Ready(Box::new(found)));
        }
        let slot = Slot::lock(self, diff_id)?;
        if let Some(found) = self.snapshot(diff_id)? {
            return Ok(Layer::Ready(Box::new(found)));
        }
        // What is there and not whole was cut by a power loss.
        place::discard(&self.root.join("tmp"), &self.kept(Kind::Snapshot, diff_id))?;
        Ok(Layer::Missing(slot))
    }

    /// A layer that is whole.
    pub fn snapshot(&self, diff_id: &Digest) -> Result<Option<Snapshot>, Error> {
        let record = self.whole(Kind::Snapshot, diff_id)?;
        let path = self.kept(Kind::Snapshot, diff_id).join("fs");
        Ok(record.map(|record| Snapshot { diff_id: diff_id.clone(), path, record }))
    }
}

impl<'a> Slot<'a> {
    /// Waits for the right.
    pub(super) fn lock(store: &'a Store, diff_id: &Digest) -> Result<Slot<'a>, Error> {
        let path = store.root.join("locks").join(file_name(diff_id));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock =
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::call("open", &path))?;
        place::flock(lock.as_fd(), FlockOperation::LockExclusive).map_err(Error::call("flock", &path))?;
        Ok(Slot { store, diff_id: diff_id.clone(), _lock: lock })
    }

    /// Unpacks the layer from its blob and puts it in when both digests were right.
    pub fn unpack<R: Read + Send>(
        self,
        source: R,
        digest: &Digest,
        size: u64,
        limits: &Limits,
        blob: Blob,
    ) -> Result<Snapshot, Error> {
        let tmp = self.store.root.join("tmp");
        let aside = Aside::make(&tmp)?;
        let path = aside.path.join("fs");
        rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(Error::call("mkdir", &path))?;
        let failed = |why| Error::Layer { digest: digest.clone(), why };
        let root = open_root(&path).map_err(Error::call("open", &path))?;
        let mut tree = Tree::new(root, self.store.settings.options()).map_err(failed)?;
        let expected = Expected { digest, size, diff_id: &self.diff_id };
        let mut unpacked = match blob {
            Blob::Stream => unpack_layer(source, expected, limits, &mut tree).map_err(failed)?,
            Blob::Keep => {
                let mut copy = NewFile::make(&tmp)?;
                let blob = self.store.blob_path(digest);
                let tee = Tee { inner: source, copy: &mut copy.file, blob: &blob };
                let unpacked = unpack_layer(tee, expected, limits, &mut tree).map_err(failed)?;
                copy.rename(&blob)?;
                unpacked
            }
        };
        unpacked.applied.also_skipped(tree.finish().map_err(failed)?);
        let record = Record::new(self.store, unpacked.bytes, &unpacked.applied);
        self.store.keep(aside, Kind::Snapshot, &self.diff_id, &record)?;
        let path = self.store.kept(Kind::Snapshot, &self.diff_id).join("fs");
        Ok(Snapshot { diff_id: self.diff_id.clone(), path, record })
    }
}

/// Writes what is read.
struct Tee<'a, R> {
    inner: R,
    copy: &'a mut std::fs::File,
    blob: &'a Path,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buf)?;
        std::io::Write::write_all(self.copy, &buf[..count])
            .map_err(|error| WriteFailed::new(self.blob, &error))?;
        Ok(count)
    }
}
