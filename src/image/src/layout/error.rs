//! What can go wrong with images in files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::digest::DigestError;
use crate::errno::Named;
use crate::tar::TarError;

/// Why a source gives no image.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused a call.
    Call {
        /// System call.
        call: &'static str,
        /// Its path.
        path: PathBuf,
        /// Its errno.
        errno: Errno,
    },
    /// Reading failed, or content is not what its descriptor says.
    Read(io::Error),
    /// Writing failed.
    Write(io::Error),
    /// What is compressed or comes through a pipe is written to a file without a name; writing that failed.
    Spool {
        /// Directory of the file.
        directory: PathBuf,
        /// What write(2) said.
        errno: Errno,
    },
    /// A call of the standard library failed.
    Io {
        /// System call.
        call: &'static str,
        /// Its path.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// The archive is broken.
    Tar(TarError),
    /// The archive is compressed in a way that creel does not read.
    Unpack(crate::unpack::Error),
    /// It is something else.
    NotALayout(String),
    /// A file that belongs to it does not read.
    Malformed {
        /// File.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A document beyond the limit of manifests.
    TooLong {
        /// File or digest.
        name: String,
        /// Bytes.
        size: u64,
    },
    /// No member of the archive, or one that is a link in a circle.
    NoMember(String),
    /// No image has the name.
    NoName {
        /// What was asked for.
        name: String,
        /// What there is.
        names: Vec<String>,
    },
    /// Several images and no name, or a name that several have.
    Ambiguous {
        /// What there is.
        names: Vec<String>,
    },
    /// A digest of an unknown algorithm.
    Digest(DigestError),
}

impl Error {
    pub(crate) fn call(call: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
        let path = path.to_path_buf();
        move |errno| Error::Call { call, path, errno }
    }

    /// The same from the standard library.
    pub(crate) fn io(call: &'static str, path: &Path, error: &io::Error) -> Error {
        let path = path.to_path_buf();
        match error.raw_os_error() {
            Some(errno) => Error::Call { call, path, errno: Errno::from_raw_os_error(errno) },
            None => Error::Io { call, path, why: error.to_string() },
        }
    }

    /// Whether the file system has no room.
    pub fn is_full(&self) -> bool {
        let full = |errno: Errno| matches!(errno, Errno::NOSPC | Errno::DQUOT);
        match self {
            Error::Call { errno, .. } | Error::Spool { errno, .. } => full(*errno),
            Error::Write(error) | Error::Read(error) => {
                error.raw_os_error().is_some_and(|errno| full(Errno::from_raw_os_error(errno)))
            }
            Error::Io { .. }
            | Error::Tar(_)
            | Error::Unpack(_)
            | Error::NotALayout(_)
            | Error::Malformed { .. }
            | Error::TooLong { .. }
            | Error::NoMember(_)
            | Error::NoName { .. }
            | Error::Ambiguous { .. }
            | Error::Digest(_) => false,
        }
    }
}

impl From<DigestError> for Error {
    fn from(error: DigestError) -> Self {
        Error::Digest(error)
    }
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        Error::Tar(error)
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no names".to_string() } else { names.join(", ") }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Call { call, path, errno } => write!(f, "{call}({path:?}): {}", Named(*errno)),
            Error::Read(error) => error.fmt(f),
            Error::Write(error) => match error.raw_os_error() {
                Some(errno) => write!(f, "write: {}", Named(Errno::from_raw_os_error(errno))),
                None => write!(f, "write: {error}"),
            },
            Error::Spool { directory, errno } => {
                write!(f, "write the archive, unpacked, to {}: {}", directory.display(), Named(*errno))?;
                match (self.is_full(), *directory == std::env::temp_dir()) {
                    (false, _) => Ok(()),
                    (true, false) => f.write_str("; free some space there"),
                    (true, true) => {
                        f.write_str("; free some space there, or name another directory by TMPDIR")
                    }
                }
            }
            Error::Io { call, path, why } => write!(f, "{call}({path:?}): {why}"),
            Error::Tar(error) => error.fmt(f),
            Error::Unpack(error) => error.fmt(f),
            Error::NotALayout(what) => write!(f, "not an image layout: {what}"),
            Error::Malformed { name, why } => write!(f, "{name}: {why}"),
            Error::TooLong { name, size } => {
                write!(f, "{name}: {size} bytes are more than a manifest may have")
            }
            Error::NoMember(name) => write!(f, "the archive has no file {name:?}"),
            Error::NoName { name, names } => {
                write!(f, "no image is named {name:?}; there are {}", list(names))
            }
            Error::Ambiguous { names } => {
                write!(f, "several images are meant; name one of {}", list(names))
            }
            Error::Digest(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
