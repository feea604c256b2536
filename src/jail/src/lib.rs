//! The executor: prepare, spawn, the conversation, and the interpreters of the host's, the stage's
//! and init's steps.
//!
//! [`spawn`] clones init from a plan; [`Child::until_ready`] answers it until everything but the
//! program is in place; [`Child::start`] or [`Child::leave_waiting`] lets it go. A child that is
//! dropped before that is killed and reaped. [`join::spawn`] does the same for a process that joins
//! a running container.

mod attributes;
mod child;
pub mod conversation;
mod copy;
mod error;
mod hooks;
pub mod hot;
mod idmap;
mod idmapped;
mod init;
pub mod join;
mod labels;
mod netdev;
mod netlink;
mod process;
mod procfs;
pub mod rooted;
mod spawn;
mod stage;

pub use child::Child;
pub use error::{Failed, Process, StepError, errno_words};
pub use hooks::{HookFailed, HookOutput, HookState, run_hooks, run_hooks_before};
pub use init::{CgroupView, Gate, InitResources, V1Hierarchy};
pub use process::Filter;
pub use spawn::{Attach, Setup, open_joins, open_sources, spawn};
