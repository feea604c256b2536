//! The client of the distribution-spec: pull, push, tags, referrers, and what it takes to be let in.
//!
//! Runs in `creel-image`, never in the runtime: nothing of the network stack is linked into what runs
//! as root. Blocking HTTP/1.1 on rustls; everything public may be shared by threads.

pub mod challenge;
mod config;
pub mod credentials;
mod date;
mod environment;
mod error;
mod location;

pub use environment::Environment;
pub use error::{Error, Fault, Tried};
