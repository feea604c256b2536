//! Harness of the end-to-end tests: it makes a bundle, runs the runtime under test on it, looks at
//! the result from inside (the probe) and from outside, and checks that nothing is left behind.
//!
//! Each test thread gets a mount namespace of its own ([`scratch::Scratch`]), so that a mount which
//! leaks is seen by the test that made it, and dies with it. The test process is a child subreaper:
//! the init of a detached container becomes its child, as under containerd's shim.
//!
//! A test never sleeps. It waits on a pidfd, a fifo or a condition, each with a deadline.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test harness fails by panicking")]

pub mod bundle;
pub mod cgroups;
pub mod command;
pub mod container;
pub mod engine;
pub mod ids;
pub mod leaks;
pub mod owner;
pub mod probe;
pub mod pty;
pub mod runtime;
pub mod scratch;
pub mod skip;
pub mod sockets;
pub mod wait;

pub use command::{Cmd, Output, Running};
pub use container::Container;
pub use owner::Owner;
pub use runtime::{Runtime, is_creel};
