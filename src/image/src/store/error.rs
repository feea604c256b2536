//! What can go wrong with the store.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::config::ConfigError;
use crate::digest::{Digest, DigestError};
use crate::errno;
use crate::manifest::ManifestError;
use crate::unpack;

/// Why the store did not do as asked.
#[derive(Debug)]
pub enum Error {
    /// A layer does not unpack.
    Layer {
        /// The digest of its blob, which its source has it by.
        digest: Digest,
        /// Why.
        why: unpack::Error,
    },
    /// A patch cannot be made.
    Patch {
        /// Diff id of the layer that takes something from below.
        diff_id: Digest,
        /// Why.
        why: unpack::Error,
    },
    /// The kernel refused a call.
    Call {
        /// System call.
        call: &'static str,
        /// Its path.
        path: PathBuf,
        /// Its errno.
        errno: Errno,
    },
    /// A file of the store does not read as it was written.
    Malformed {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The manifest is not one of an image that runs.
    Manifest(ManifestError),
    /// The configuration is not one of an image that runs.
    Config(ConfigError),
    /// A digest in a document.
    Digest(DigestError),
    /// Content is not what its name says.
    Content {
        /// Its name.
        expected: Digest,
        /// Its digest.
        found: Digest,
    },
    /// An image is to be written before its layer is there.
    NoLayer(Digest),
    /// The store was made for root and is opened rootless, or the other way round.
    OtherSettings(PathBuf),
    /// Another command works with the store.
    Busy,
    /// A container's id that is no name.
    BadId(String),
    /// A container of this id is there.
    InUse(String),
    /// A container's root cannot be mounted.
    Mount(crate::mount::Error),
    /// A volume of the image cannot be made.
    Volume {
        /// Its path in the container.
        path: String,
        /// Why.
        why: unpack::Error,
    },
    /// No image has this name.
    NoImage(String),
}

impl Error {
    /// Builds `Call` from an errno, for `map_err`.
    pub(crate) fn call(call: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
        let path = path.to_path_buf();
        move |errno| Error::Call { call, path, errno }
    }

    /// The same from an error of std.
    pub(crate) fn io(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |error| Error::Call { call, path, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
    }
}

impl Error {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Call { errno: Errno::NOSPC | Errno::DQUOT, .. })
            || matches!(self, Error::Layer { why, .. } | Error::Patch { why, .. } | Error::Volume { why, .. } if why.is_full())
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Error::Manifest(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Error::Config(error)
    }
}

impl From<DigestError> for Error {
    fn from(error: DigestError) -> Self {
        Error::Digest(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Layer { digest, why } => write!(f, "layer {}: {why}", digest.short()),
            Error::Patch { diff_id, why } => {
                write!(f, "the layer with diff id {}: what it takes from those below: {why}", diff_id.short())
            }
            Error::Call { call, path, errno } => write!(f, "{call}({path:?}): {}", errno::Named(*errno)),
            Error::Malformed { path, why } => write!(f, "{}: {why}", path.display()),
            Error::Manifest(error) => error.fmt(f),
            Error::Config(error) => error.fmt(f),
            Error::Digest(error) => error.fmt(f),
            Error::Content { expected, found } => write!(f, "{expected}: the content has the digest {found}"),
            Error::NoLayer(diff_id) => {
                write!(f, "the layer with diff id {} is not in the store", diff_id.short())
            }
            Error::OtherSettings(root) => write!(
                f,
                "the store at {} was made by another kind of user (root, a user namespace, a single id); choose another root",
                root.display()
            ),
            Error::Busy => f.write_str("another command works with the store; try again when it is done"),
            Error::BadId(id) => write!(f, "{id:?} is not a container id; letters, digits and _+-. make one"),
            Error::InUse(id) => write!(f, "a container {id:?} exists"),
            Error::Mount(error) => error.fmt(f),
            Error::Volume { path, why } => write!(f, "volume {path}: {why}"),
            Error::NoImage(name) => write!(f, "no image is named {name:?}"),
        }
    }
}

impl std::error::Error for Error {}
