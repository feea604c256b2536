//! What can be wrong with a profile. Each message starts with the path of the field in
//! config.json, in jq's syntax.

use std::fmt;

/// A profile that cannot become a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A name outside the specification's list.
    Unknown {
        /// Config path.
        at: String,
        /// What kind of name: action, operator, architecture, flag.
        what: &'static str,
        /// The name found.
        name: String,
        /// The names that are known.
        expected: &'static [&'static str],
    },
    /// An errno for an action that takes none (config-linux.md: the runtime must fail).
    ErrnoNotTaken {
        /// Config path.
        at: String,
        /// The action.
        action: String,
    },
    /// An errno above 4094, or a trace message wider than the 16 bits of SECCOMP_RET_DATA.
    ErrnoTooLarge {
        /// Config path.
        at: String,
        /// The number found.
        value: u32,
        /// The largest that the action takes.
        largest: u32,
    },
    /// A filter that came compiled is none.
    Compiled {
        /// What is wrong with it.
        why: String,
    },
    /// SCMP_ACT_NOTIFY as the default action.
    NotifyDefault,
    /// SCMP_ACT_NOTIFY for `write`.
    NotifyWrite {
        /// Config path.
        at: String,
    },
    /// An empty system call name.
    EmptyName {
        /// Config path.
        at: String,
    },
    /// An argument number above 5.
    ArgumentIndex {
        /// Config path.
        at: String,
        /// The number found.
        index: u32,
    },
    /// Two rules for one system call that match the same arguments and want different actions.
    Clash {
        /// Config path of the later rule.
        at: String,
        /// The system call.
        name: String,
    },
    /// An architecture whose byte order is not the machine's.
    ByteOrder {
        /// Config path.
        at: String,
        /// The architecture.
        arch: &'static str,
    },
    /// An architecture whose system calls the linked libseccomp does not know.
    NoTable {
        /// Config path.
        at: String,
        /// The architecture.
        arch: &'static str,
    },
    /// The machine's own architecture has no entry in creel's table.
    NativeUnknown,
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without a listener.
    WaitWithoutNotify {
        /// Config path.
        at: String,
    },
    /// More instructions than the kernel takes.
    TooLong {
        /// Instructions generated.
        len: usize,
    },
}

impl Error {
    pub(crate) fn unknown(
        at: String,
        what: &'static str,
        name: &str,
        expected: &'static [&'static str],
    ) -> Error {
        Error::Unknown { at, what, name: name.to_owned(), expected }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown { at, what, name, expected } => {
                write!(f, "{at}: unknown {what} {name:?}; expected one of {}", expected.join(", "))
            }
            Error::ErrnoNotTaken { at, action } => {
                write!(f, "{at}: {action} takes no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do")
            }
            Error::ErrnoTooLarge { at, value, largest } => write!(f, "{at}: {value} is above {largest}"),
            Error::Compiled { why } => {
                write!(f, ".annotations[\"run.oci.seccomp_bpf_data\"]: {why}")
            }
            Error::NotifyDefault => f.write_str(
                ".linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action; \
                 the listener would never get its descriptor",
            ),
            Error::NotifyWrite { at } => {
                write!(
                    f,
                    "{at}: SCMP_ACT_NOTIFY cannot be used for the write syscall: the listener would never get its descriptor"
                )
            }
            Error::EmptyName { at } => write!(f, "{at}: empty system call name"),
            Error::ArgumentIndex { at, index } => {
                write!(f, "{at}: a system call has arguments 0 to 5, not {index}")
            }
            Error::Clash { at, name } => {
                write!(f, "{at}: an earlier rule gives {name:?} another action for the same arguments")
            }
            Error::ByteOrder { at, arch } => write!(f, "{at}: {arch} has not the byte order of this machine"),
            Error::NoTable { at, arch } => {
                write!(f, "{at}: the linked libseccomp has no system calls of {arch}")
            }
            Error::NativeUnknown => {
                f.write_str(".linux.seccomp: no seccomp filters for this machine's architecture")
            }
            Error::WaitWithoutNotify { at } => {
                write!(f, "{at}: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")
            }
            Error::TooLong { len } => write!(
                f,
                ".linux.seccomp: the profile becomes {len} instructions; the kernel takes {}",
                crate::program::MAX_LEN
            ),
        }
    }
}

impl std::error::Error for Error {}
