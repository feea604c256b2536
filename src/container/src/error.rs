//! Errors of the lifecycle. Where engines match on runc's words, those words are the message.

use std::fmt;
use std::path::{Path, PathBuf};

use creel_sys::Errno;

/// Why a command failed; one line.
#[derive(Debug)]
pub enum Error {
    /// The config is wrong.
    Invalid(creel_plan::Invalid),
    /// The seccomp profile is wrong.
    Seccomp(creel_seccomp::Error),
    /// The cgroup refused.
    Cgroup(creel_cgroup::Error),
    /// The cgroup could not be made.
    NoCgroup(creel_cgroup::Error),
    /// A process of the container failed on its way.
    Failed(creel_jail::Failed),
    /// A call on a file failed.
    File {
        /// System call or operation.
        call: &'static str,
        /// Its path.
        path: PathBuf,
        /// Its errno.
        errno: Errno,
    },
    /// A file of the state directory does not read as creel writes it.
    Corrupt {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No container of that id.
    NotFound,
    /// The id is taken.
    Exists,
    /// The id is empty, too long or has characters that it may not have.
    BadId(String),
    /// Another creel works on this container and does not come to an end.
    Locked,
    /// The container's status does not allow the command; runc's words.
    Status(&'static str),
    /// `delete` without force on a container that still runs.
    NotStopped {
        /// Container id.
        id: String,
        /// Its status.
        status: &'static str,
    },
    /// Flags that exclude each other; runc's words.
    Usage(&'static str),
    /// A descriptor that was to be preserved is not open.
    NotOpen {
        /// Its number.
        fd: u32,
        /// How many were announced.
        count: u32,
    },
    /// Killed, but still there after ten seconds.
    StillRunning,
    /// Cleaning up went on past these.
    Leftovers(Vec<Error>),
    /// CRIU is not there, or did not do it.
    Criu(Box<crate::criu::Failure>),
    /// The program could not be executed; init's own words.
    Program(String),
    /// The container started but a poststart hook failed; it was killed.
    Poststart(String),
}

impl Error {
    /// A failed call on a path.
    pub fn file(call: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Error {
        let path = path.as_ref().to_path_buf();
        move |errno| Error::File { call, path, errno }
    }

    /// The same for std's errors.
    pub fn io(call: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |e| Error::File { call, path, errno: Errno::from_io_error(&e).unwrap_or(Errno::IO) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(e) => e.fmt(f),
            Error::Seccomp(e) => e.fmt(f),
            Error::Cgroup(e) => e.fmt(f),
            Error::NoCgroup(e) => write!(f, "unable to apply cgroup configuration: {e}"),
            Error::Failed(e) => e.fmt(f),
            Error::File { call, path, errno } => {
                write!(f, "{call} {}: {}", path.display(), creel_jail::errno_words(*errno))
            }
            Error::Corrupt { path, why } => write!(f, "{}: {why}", path.display()),
            Error::NotFound => f.write_str("container does not exist"),
            Error::Exists => f.write_str("container with given ID already exists"),
            Error::BadId(id) => {
                write!(f, "invalid container ID format: {id:?}; letters, digits and _ + - . are allowed")
            }
            Error::Locked => f.write_str("another command works on this container and does not end"),
            Error::Status(words) | Error::Usage(words) => f.write_str(words),
            Error::NotStopped { id, status } => {
                write!(f, "cannot delete container {id} that is not stopped: {status}")
            }
            Error::NotOpen { fd, count } => {
                write!(f, "descriptor {fd} is not open, but {count} were to be preserved from 3 on")
            }
            Error::StillRunning => f.write_str("container init still running"),
            Error::Leftovers(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Error::Criu(e) => e.fmt(f),
            Error::Program(why) | Error::Poststart(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

macro_rules! from {
    ($($variant:ident($ty:ty)),*) => { $(
        impl From<$ty> for Error {
            fn from(error: $ty) -> Self {
                Error::$variant(error)
            }
        }
    )* };
}
from!(
    Invalid(creel_plan::Invalid),
    Seccomp(creel_seccomp::Error),
    Cgroup(creel_cgroup::Error),
    Failed(creel_jail::Failed)
);

impl From<crate::criu::Failure> for Error {
    fn from(failure: crate::criu::Failure) -> Self {
        Error::Criu(Box::new(failure))
    }
}

impl From<creel_cgroup::Invalid> for Error {
    fn from(error: creel_cgroup::Invalid) -> Self {
        Error::Cgroup(creel_cgroup::Error::Invalid(error))
    }
}
