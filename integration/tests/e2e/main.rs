//! End-to-end tests of the runtime: real containers, observed from inside by the probe and from
//! outside by the harness. They run as root, on the runtime that `CREEL_TEST_RUNTIME` names.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod annotations;
mod attributes;
mod bad_input;
mod cgroup;
mod checkpoint;
mod cli;
mod criu;
mod crun;
mod devices;
mod events;
mod exec;
mod exec_cgroup;
mod fds;
mod fuse;
mod harness;
mod hooks;
mod hot_mounts;
mod idmap;
mod labels;
mod lifecycle;
mod mount_paths;
mod mounts;
mod namespaces;
mod netdev;
mod paths;
mod pause;
mod process;
mod ps;
mod rootless;
mod seccomp;
mod security;
mod stdio;
mod systemd;
mod terminal;
mod tracers;
mod update;
