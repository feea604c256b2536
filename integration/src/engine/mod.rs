//! Real engines with the runtime under test: what every engine test stands on.
//!
//! A test starts a [`sandbox::Sandbox`]: mount, network and PID namespaces with a `/run` of their own,
//! so that two runs never meet and whatever an engine leaves in them (bridges, iptables rules, mounts,
//! daemons) ends with the sandbox. Cgroups have no such border: they are made below a top directory
//! named after the sandbox and removed by that name. Commands run inside it through [`command::Call`],
//! daemons through [`daemon::Daemon`], and [`harness`] runs the cases and compares the sandbox before
//! and after each of them.

pub mod cgroup;
pub mod command;
pub mod daemon;
pub mod harness;
pub mod image;
pub mod runtime;
pub mod sandbox;
