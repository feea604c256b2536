//! Blobs: manifests and configurations, and compressed layers for those who want to push them again.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use rustix::io::Errno;

use super::place::{self, NewFile};
use super::{Error, Store};
use crate::digest::{Digest, Verified};

impl Store {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// A blob, opened. Its content is to be verified by whoever reads it: a power loss may have cut it.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    /// A small blob, if it is there and is what its name says.
    pub fn small_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let bytes = place::read(&self.blob_path(digest))?;
        Ok(bytes.filter(|bytes| Digest::of(digest.algorithm(), bytes) == *digest))
    }

    /// Keeps a small blob, after a look at its digest.
    pub fn put_small_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let found = Digest::of(digest.algorithm(), bytes);
        if found != *digest {
            return Err(Error::Content { expected: digest.clone(), found });
        }
        if self.small_blob(digest)?.is_some() {
            return Ok(());
        }
        place::write(&self.root.join("tmp"), &self.blob_path(digest), bytes)
    }

    /// Keeps a blob from a stream, whose digest and size are verified.
    pub fn put_blob(&self, digest: &Digest, size: u64, source: impl Read) -> Result<(), Error> {
        let path = self.blob_path(digest);
        let mut new = NewFile::make(&self.root.join("tmp"))?;
        let mut source = Verified::new(source, digest.clone(), size);
        std::io::copy(&mut source, &mut new.file).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Error::io("write", &path)(error),
            Some(_) | None => Error::Malformed { path: path.clone(), why: error.to_string() },
        })?;
        new.rename(&path)
    }
}
