//! CRIU as checkpoint and restore use it: an external program that is spoken to by its RPC.
//!
//! Runs in the **host** process. `criu swrk FD` serves one request on the SOCK_SEQPACKET socket that
//! it inherits, calls back with notifications while it works, and ends.
//!
//! ```text
//!   creel ── Version ──────────▶ criu swrk    too old? then that is the error
//!   creel ── FeatureCheck ─────▶ criu swrk    for --pre-dump and --lazy-pages
//!   creel ── Dump | Restore ───▶ criu swrk ── Notify ─▶ creel ── acknowledged ─▶ ... ─▶ done
//! ```

pub mod external;
mod log;
mod messages;
mod program;
mod session;
mod wire;

use std::fmt;
use std::path::PathBuf;

pub use messages::{Features, Kind, Notify, Number, Options, Switch, Text};
pub use program::{Program, Version};
pub use session::{Logged, Session};

/// Why CRIU did not do it.
#[derive(Debug)]
pub enum Failure {
    /// No `criu` in PATH.
    NotFound,
    /// `criu` is there and could not be executed.
    NotStarted {
        /// The file.
        program: PathBuf,
        /// Why not.
        errno: creel_sys::Errno,
    },
    /// An older one than is needed.
    TooOld {
        /// The file.
        program: PathBuf,
        /// What it says it is.
        version: Version,
        /// The oldest that would do.
        needed: Version,
        /// For what.
        purpose: &'static str,
    },
    /// This kernel, or this CRIU, has no such thing.
    Missing {
        /// The file.
        program: PathBuf,
        /// CRIU's name of the feature, and the flag that wants it.
        feature: &'static str,
    },
    /// It ended, or spoke, otherwise than its protocol says.
    Broken {
        /// The file.
        program: PathBuf,
        /// What was asked for.
        what: &'static str,
        /// What came.
        why: String,
    },
    /// It said no.
    Refused {
        /// The file.
        program: PathBuf,
        /// What was asked for.
        what: &'static str,
        /// Its version.
        version: Version,
        /// errno(3), 0 for none.
        errno: i32,
        /// Its words in the answer.
        message: String,
        /// The log file, and what it says.
        log: Option<(PathBuf, Option<log::Cited>)>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotFound => f.write_str(
                "criu: executable file not found in $PATH; checkpoint and restore need CRIU 3.0 or newer",
            ),
            Failure::NotStarted { program, errno } => {
                write!(f, "execve {}: {}", program.display(), creel_jail::errno_words(*errno))
            }
            Failure::TooOld { program, version, needed, purpose } => write!(
                f,
                "{} is CRIU {version}, too old: {purpose} needs {needed} or newer",
                program.display()
            ),
            Failure::Missing { program, feature } => {
                write!(f, "{} cannot do {feature} on this kernel", program.display())
            }
            Failure::Broken { program, what, why } => write!(f, "{}: {what}: {why}", program.display()),
            Failure::Refused { program, what, version, errno, message, log } => {
                let cited = log.as_ref().and_then(|(_, cited)| cited.as_ref());
                write!(f, "{}: {what} failed", program.display())?;
                if let Some(cited) = cited {
                    write!(f, ": {}", cited.line)?;
                } else if !message.is_empty() {
                    write!(f, ": {message}")?;
                } else if *errno != 0 {
                    let errno = creel_sys::Errno::from_raw_os_error(*errno);
                    write!(f, ": {}", creel_jail::errno_words(errno))?;
                }
                if cited.is_some_and(|cited| cited.unfit) {
                    let kernel = rustix::system::uname();
                    let release = kernel.release().to_string_lossy();
                    write!(f, "; CRIU {version} does not fit kernel {release}")?;
                }
                match log {
                    Some((path, _)) => write!(f, "; see {}", path.display()),
                    None => Ok(()),
                }
            }
        }
    }
}
