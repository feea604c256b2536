//! Blobs that are on their way: what has come stays when a pull breaks off, and the next one asks for the rest.
//!
//! ```text
//! partial/sha256-HEX         the first bytes of a blob, locked by whoever adds to them
//! ```
//!
//! Nothing here is trusted. The bytes go through the same digest as those that come from the network, and
//! a file whose content was wrong is removed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::kept::file_name;
use super::{Error, Store, place};
use crate::digest::Digest;
use crate::unpack::WriteFailed;

/// The start of a blob, to be gone on from.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    have: u64,
    broke: bool,
    full: bool,
}

impl Store {
    /// The start of a blob, empty when none is there; nothing when another pull is at it.
    pub fn partial(&self, digest: &Digest, size: u64) -> Result<Option<Partial>, Error> {
        let path = self.root().join("partial").join(file_name(digest));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::call("open", &path))?;
        match place::flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error::call("flock", &path)(errno)),
        }
        let found = rustix::fs::fstat(&fd).map_err(Error::call("fstat", &path))?;
        // Whoever held it before may have put it in its place or removed it.
        if found.st_nlink == 0 {
            return Ok(None);
        }
        let mut have = u64::try_from(found.st_size).unwrap_or(0);
        // A whole one that was not put in its place failed its digest, or came just before a kill.
        if have > size {
            rustix::fs::ftruncate(&fd, 0).map_err(Error::call("ftruncate", &path))?;
            have = 0;
        }
        Ok(Some(Partial { file: fd.into(), path, have, broke: false, full: false }))
    }
}

impl Partial {
    /// Bytes that are there.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// The blob from its first byte: what is there, then `rest`, which begins where that ends.
    pub fn reader<R: Read>(&mut self, rest: R) -> io::Result<Resumed<'_, R>> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(Resumed { left: self.have, partial: self, rest })
    }

    /// Takes note that the source of the rest could not be opened.
    pub fn source_failed(&mut self) {
        self.broke = true;
    }

    /// Whether the source of the rest has failed, so that what is there may be right.
    pub fn broke(&self) -> bool {
        self.broke
    }

    /// Whether there was no room for what came.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Puts the blob, which is whole and verified, in its place.
    pub fn keep(self, store: &Store, digest: &Digest) -> Result<(), Error> {
        let to = store.blob_path(digest);
        rustix::fs::renameat(rustix::fs::CWD, &self.path, rustix::fs::CWD, &to)
            .map_err(Error::call("rename", &to))
    }

    /// Removes it.
    pub fn discard(self) -> Result<(), Error> {
        place::unlink(&self.path)
    }
}

/// A blob of which a part was there. What is read beyond that is added to it.
#[derive(Debug)]
pub struct Resumed<'a, R> {
    partial: &'a mut Partial,
    left: u64,
    rest: R,
}

impl<R: Read> Read for Resumed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left > 0 {
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.partial.file.read(&mut buffer[..room])?;
            self.left -= count as u64;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the part that was there was cut"));
            }
            return Ok(count);
        }
        match self.rest.read(buffer) {
            Ok(count) => {
                if let Err(error) = self.partial.file.write_all(&buffer[..count]) {
                    let failed = WriteFailed::new(&self.partial.path, &error);
                    self.partial.full = failed.is_full();
                    return Err(failed.into());
                }
                self.partial.have += count as u64;
                Ok(count)
            }
            Err(error) => {
                self.partial.broke = error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}
