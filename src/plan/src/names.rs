//! The kernel's vocabulary: names that config.json and error lines use, and their numbers.
//!
//! Pure tables. Constants are written out with the header they come from, so that this crate needs
//! no libc; they are the same on x86_64 and aarch64.

mod capability;
mod errno;
mod namespace;
mod process;

pub use capability::{CAP_LAST, CAPABILITIES, capability_name, capability_number};
pub use errno::{ERRNOS, errno_name, errno_number, errno_text};
pub use namespace::NamespaceKind;
pub use process::{
    DeviceType, IOPRIO_CLASSES, MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES, PERSONALITIES, RLIMITS,
    SCHEDULER_FLAGS, SCHEDULER_POLICIES, rlimit_name, rlimit_number,
};

/// Number of a word in one of the tables below.
pub fn number(table: &[(&str, u32)], word: &str) -> Option<u32> {
    table.iter().find(|row| row.0 == word).map(|row| row.1)
}
