//! `creel pull-and-run` and the other commands around images, from layouts made on the spot and from a real
//! docker-registry on loopback, to containers that really run.
//!
//! `creel-image` is looked for where the runtime under test is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod artifacts;
mod auth;
mod bad_input;
mod commands;
mod copy;
mod crash;
mod disk;
mod faults;
mod flags;
mod harness;
mod interop;
mod layout;
mod names;
mod progress;
mod push;
mod registry;
mod resume;
mod run;
mod run_network;
mod run_rootless;
mod run_security;
mod verify;
