//! What can go wrong with a layer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::names::Escape;
use crate::digest::Digest;
use crate::errno::Named;
use crate::tar::TarError;

/// Why a layer was not unpacked.
#[derive(Debug)]
pub enum Error {
    /// The source or the decompressor failed; a wrong digest or size of the source is told here too.
    Read(io::Error),
    /// A compression that layers do not have.
    Compression(&'static str),
    /// The uncompressed layer is not the one that the image's configuration names.
    DiffId {
        /// By the configuration.
        expected: Digest,
        /// Of what came.
        found: Digest,
    },
    /// The diff id is the digest of a compressed blob.
    DiffIdOfBlob,
    /// The tar is broken.
    Tar(TarError),
    /// A name leads out of the root, or is no name.
    Escape {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: Escape,
    },
    /// More than the limits allow.
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The kernel refused a call.
    Call {
        /// System call.
        call: &'static str,
        /// Path within the root.
        path: String,
        /// Its errno.
        errno: Errno,
    },
    /// chown(2) to an id that the user namespace has not.
    Unmapped {
        /// Path within the root.
        path: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A thread ended without a word.
    Interrupted,
}

impl Error {
    /// Builds `Call` from an errno, for `map_err`.
    pub(crate) fn call(call: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        let path = String::from_utf8_lossy(path).into_owned();
        move |errno| Error::Call { call, path, errno }
    }

    /// Whether the disk is full: for what is unpacked, or for a copy of the source that is written on the way.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Call { errno, .. } => is_full(*errno),
            Error::Read(error) => WriteFailed::of(error).is_some_and(WriteFailed::is_full),
            Error::Compression(_)
            | Error::DiffId { .. }
            | Error::DiffIdOfBlob
            | Error::Tar(_)
            | Error::Escape { .. }
            | Error::Limit { .. }
            | Error::Unmapped { .. }
            | Error::Interrupted => false,
        }
    }
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

/// Why a source that is copied as it is read ended: its copy could not be written.
#[derive(Debug)]
pub struct WriteFailed {
    path: PathBuf,
    errno: Errno,
}

impl WriteFailed {
    pub(crate) fn new(path: &Path, error: &io::Error) -> WriteFailed {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        WriteFailed { path: path.to_owned(), errno }
    }

    fn of(error: &io::Error) -> Option<&WriteFailed> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    pub(crate) fn is_full(&self) -> bool {
        is_full(self.errno)
    }
}

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write({:?}): {}", self.path, Named(self.errno))
    }
}

impl std::error::Error for WriteFailed {}

impl From<WriteFailed> for io::Error {
    fn from(failed: WriteFailed) -> io::Error {
        io::Error::other(failed)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Read(error)
    }
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Io(error) => Error::Read(error),
            TarError::Truncated
            | TarError::Checksum
            | TarError::Field { .. }
            | TarError::TooLong { .. }
            | TarError::Limit { .. }
            | TarError::Type { .. } => Error::Tar(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Read(error) => error.fmt(f),
            Error::Compression(name) => {
                write!(f, "the layer is compressed with {name}; layers are tar, gzip or zstd")
            }
            Error::DiffId { expected, found } => {
                write!(f, "the layer unpacks to {found}, the image's configuration says {expected}")
            }
            Error::DiffIdOfBlob => f.write_str(
                "the image's configuration has the digest of the compressed layer for its diff id",
            ),
            Error::Tar(error) => error.fmt(f),
            Error::Escape { path, why } => write!(f, "tar entry {path:?}: {why}"),
            Error::Limit { what, limit } => write!(f, "the layer has more than {limit} {what}"),
            Error::Call { call, path, errno } => write!(f, "{call}({path:?}): {}", Named(*errno)),
            Error::Unmapped { path, uid, gid } => write!(
                f,
                "chown({path:?}, {uid}, {gid}): the user namespace does not map these ids; widen the ranges in /etc/subuid and /etc/subgid"
            ),
            Error::Interrupted => f.write_str("the thread that reads the layer ended"),
        }
    }
}

impl std::error::Error for Error {}
