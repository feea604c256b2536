//! What can go wrong with a cgroup. Every error is one line that keeps the failing call.

use std::fmt;

use creel_plan::names::{errno_name, errno_text};
use rustix::io::Errno;

use crate::systemd::Trouble;

/// The configuration asks for something that no cgroup can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where it stands, as jq takes it: `.linux.resources.memory.swap`.
    pub at: String,
    /// What is wrong with it.
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Invalid { at: at.into(), why: why.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl std::error::Error for Invalid {}

/// A cgroup operation that did not work.
#[derive(Debug)]
pub enum Error {
    /// The configuration is wrong.
    Invalid(Invalid),
    /// The kernel refused a call on a path.
    Call {
        /// System call.
        call: &'static str,
        /// Its path.
        path: String,
        /// Its errno.
        errno: Errno,
    },
    /// The kernel refused a value.
    Write {
        /// Config path the value came from.
        at: String,
        /// File.
        path: String,
        /// Value.
        value: String,
        /// Errno of open(2) or write(2).
        errno: Errno,
        /// What may help; empty when nothing is known.
        hint: String,
    },
    /// A limit for a controller whose directory does not exist for this container.
    NoController {
        /// Config path of the limit.
        at: String,
        /// Controller.
        controller: String,
        /// Why there is none.
        hint: &'static str,
    },
    /// A limit for whole processes in a cgroup for threads.
    Threaded {
        /// Config path of the limit.
        at: String,
        /// Directory.
        path: String,
        /// Its cgroup.type.
        found: String,
    },
    /// A new memory limit lies below what is in use.
    BelowUsage {
        /// Config path of the limit.
        at: String,
        /// Bytes asked for.
        limit: u64,
        /// Bytes in use.
        usage: u64,
    },
    /// bpf(2) refused the device program.
    Bpf {
        /// Command of bpf(2).
        command: &'static str,
        /// Its errno.
        errno: Errno,
        /// What may help; empty when nothing is known.
        hint: &'static str,
    },
    /// No cgroup hierarchy of the needed kind is mounted.
    NotMounted(&'static str),
    /// A file does not read as the kernel writes it.
    Malformed {
        /// File.
        path: String,
        /// What was found.
        found: String,
    },
    /// The cgroup exists and holds processes.
    NotEmpty(usize),
    /// The cgroup exists and is frozen.
    Frozen,
    /// The cgroup did not freeze in time.
    FreezeTimeout {
        /// Directory.
        path: String,
    },
    /// Processes stay inside, so the directory cannot be removed.
    Busy {
        /// Directory.
        path: String,
        /// Who is inside.
        pids: Vec<i32>,
        /// Errno of rmdir(2).
        errno: Errno,
    },
    /// Several removals did not work.
    Several(Vec<Error>),
    /// systemd did not do what it was asked for.
    Systemd(Trouble),
    /// Rootless, limits wanted, no permission.
    RootlessLimits(Box<Error>),
    /// `exec --cgroup` does not fit this container.
    SubCgroup(String),
    /// There is no cgroup to act on.
    NoCgroup(&'static str),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Error::Invalid(invalid)
    }
}

impl Error {
    /// The errno below the error, when a call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Call { errno, .. }
            | Error::Write { errno, .. }
            | Error::Bpf { errno, .. }
            | Error::Busy { errno, .. } => Some(*errno),
            Error::RootlessLimits(inner) => inner.errno(),
            Error::Invalid(_)
            | Error::NoController { .. }
            | Error::Threaded { .. }
            | Error::BelowUsage { .. }
            | Error::NotMounted(_)
            | Error::Malformed { .. }
            | Error::NotEmpty(_)
            | Error::Frozen
            | Error::FreezeTimeout { .. }
            | Error::Several(_)
            | Error::Systemd(_)
            | Error::SubCgroup(_)
            | Error::NoCgroup(_) => None,
        }
    }

    /// Whether this is a lack of permission, which a rootless container may bear.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
    }
}

/// `EACCES (permission denied)`.
pub(crate) struct Named(pub(crate) Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.raw_os_error();
        match (errno_name(number), errno_text(number)) {
            (Some(name), Some(text)) => write!(f, "{name} ({text})"),
            _ => write!(f, "errno {number}"),
        }
    }
}

fn hinted(f: &mut fmt::Formatter<'_>, hint: &str) -> fmt::Result {
    if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(invalid) => invalid.fmt(f),
            Error::Call { call, path, errno } => write!(f, "{call}({path:?}): {}", Named(*errno)),
            Error::Write { at, path, value, errno, hint } => {
                write!(f, "{at}: write({path:?}, {value:?}): {}", Named(*errno))?;
                hinted(f, hint)
            }
            Error::NoController { at, controller, hint } => {
                write!(f, "{at}: cannot set {controller} limit: container could not join or create cgroup")?;
                hinted(f, hint)
            }
            Error::Threaded { at, path, found } => {
                write!(
                    f,
                    "{at}: cannot enter cgroupv2 {path:?} with domain controllers: its type is {found:?}"
                )
            }
            Error::BelowUsage { at, limit, usage } => {
                let what = if at.ends_with(".swap") { "memory+swap" } else { "memory" };
                write!(f, "{at}: rejecting {what} limit {limit} <= usage {usage}")
            }
            Error::Bpf { command, errno, hint } => {
                write!(f, ".linux.resources.devices: bpf({command}): {}", Named(*errno))?;
                hinted(f, hint)
            }
            Error::NotMounted(what) => write!(f, "no {what} is mounted"),
            Error::Malformed { path, found } => write!(f, "{path}: unexpected content {found:?}"),
            Error::NotEmpty(count) => {
                write!(f, "container's cgroup is not empty: {count} process(es) found")
            }
            Error::Frozen => f.write_str("container's cgroup unexpectedly frozen"),
            Error::FreezeTimeout { path } => write!(f, "{path}: unable to freeze in time"),
            Error::Busy { path, pids, errno } => {
                write!(f, "rmdir({path:?}): {}; processes inside: {pids:?}", Named(*errno))
            }
            Error::Several(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Error::Systemd(trouble) => write!(f, "systemd: {trouble}"),
            Error::RootlessLimits(inner) => write!(
                f,
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {inner}"
            ),
            Error::SubCgroup(why) => f.write_str(why),
            Error::NoCgroup(what) => write!(f, "cannot {what}: cgroups not configured for container"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_names_config_file_value_and_errno() {
        let error = Error::Write {
            at: ".linux.resources.pids.limit".into(),
            path: "/sys/fs/cgroup/pids/x/pids.max".into(),
            value: "ten".into(),
            errno: Errno::INVAL,
            hint: String::new(),
        };
        assert_eq!(
            error.to_string(),
            ".linux.resources.pids.limit: write(\"/sys/fs/cgroup/pids/x/pids.max\", \"ten\"): EINVAL (invalid argument)"
        );
    }
}
