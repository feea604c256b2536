//! What can go wrong between prepare and execve, and how it is said.
//!
//! A child reports numbers and the failing call ([`StepError`]); the host, which holds the plan,
//! adds the config path and makes the line ([`Failed`]).

use std::fmt;

use creel_plan::names::{errno_name, errno_text};
use creel_plan::steps::Phase;
use creel_sys::Errno;

/// A step of a child process that the kernel refused.
#[derive(Debug, Clone, PartialEq)]
pub struct StepError {
    /// Where.
    pub phase: Phase,
    /// Index of the step in its phase.
    pub index: usize,
    /// The call with its arguments, or a whole sentence when there is no errno.
    pub call: String,
    /// The kernel's answer; 0 when the step itself found something wrong.
    pub errno: i32,
}

impl StepError {
    /// An error that is no system call's.
    pub fn new(phase: Phase, index: usize, what: impl Into<String>) -> Self {
        StepError { phase, index, call: what.into(), errno: 0 }
    }
}

/// Names the step and the call of a failed system call.
pub trait Step<T> {
    /// `call` is made only on failure.
    fn step(self, phase: Phase, index: usize, call: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, phase: Phase, index: usize, call: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|errno| StepError { phase, index, call: call(), errno: errno.raw_os_error() })
    }
}

/// The process that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The runtime outside.
    Host,
    /// The middle process.
    Stage,
    /// The container's first process before execve.
    Init,
    /// A process that joins a container, before execve.
    Exec,
}

impl Process {
    fn word(self) -> &'static str {
        match self {
            Process::Host => "host",
            Process::Stage => "stage",
            Process::Init => "init",
            Process::Exec => "exec",
        }
    }
}

/// One line: `<config path>: <process>: <call>: <ERRNO> (<text>)[; <hint>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// jq path in config.json, when the step comes from one.
    pub at: Option<String>,
    /// Who.
    pub process: Process,
    /// The call with its arguments, or a whole sentence.
    pub call: String,
    /// errno(3), 0 for none.
    pub errno: i32,
    /// What the user can do.
    pub hint: Option<&'static str>,
}

impl Failed {
    /// A call of the host process.
    pub fn host(call: impl Into<String>, errno: Errno) -> Self {
        Failed {
            at: None,
            process: Process::Host,
            call: call.into(),
            errno: errno.raw_os_error(),
            hint: None,
        }
    }

    /// A sentence of the host process.
    pub fn said(what: impl Into<String>) -> Self {
        Failed { at: None, process: Process::Host, call: what.into(), errno: 0, hint: None }
    }

    /// Adds the config path.
    pub fn at(mut self, at: impl Into<String>) -> Self {
        self.at = Some(at.into());
        self
    }

    /// Adds the config path unless there is a closer one.
    pub fn or_at(self, at: &str) -> Self {
        if self.at.is_some() { self } else { self.at(at) }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        if self.process != Process::Host {
            write!(f, "{}: ", self.process.word())?;
        }
        f.write_str(&self.call)?;
        if self.errno != 0 {
            f.write_str(": ")?;
            write_errno(f, self.errno)?;
        }
        match self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failed {}

/// `EPERM (operation not permitted)`
fn write_errno(f: &mut fmt::Formatter<'_>, errno: i32) -> fmt::Result {
    match (errno_name(errno), errno_text(errno)) {
        (Some(name), Some(text)) => write!(f, "{name} ({text})"),
        _ => write!(f, "errno {errno}"),
    }
}

/// `EPERM (operation not permitted)` as a string.
pub fn errno_words(errno: Errno) -> String {
    struct Words(i32);
    impl fmt::Display for Words {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_errno(f, self.0)
        }
    }
    Words(errno.raw_os_error()).to_string()
}
