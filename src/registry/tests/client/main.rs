//! The client against real registries, token servers and servers that misbehave, all on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod harness;
mod login;
mod mirrors;
mod plain;
mod tls;
