//! From config.json to a plan, without touching the machine.
//!
//! ```text
//!   text --parse--> Spec --check--> (warnings) --plan(&Request, &HostFacts)--> Plan
//! ```
//!
//! This crate is pure: it opens no file, reads no environment and makes no system call, so that
//! every decision of the runtime can be tested from a table. The plan it makes is data, printed by
//! `creel run --dry-run`; the jail crate executes it.

pub mod annotations;
pub mod build;
pub mod check;
mod decode;
pub mod facts;
pub mod invalid;
pub mod names;
pub mod options;
pub mod parse;
mod place;
mod print;
pub mod ranges;
pub mod spec;
pub mod steps;

pub use build::{Planned, plan};
pub use invalid::Invalid;
