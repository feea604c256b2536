//! The binary `creel`: command line, dispatch, log, messages and exit codes.
//!
//! One process per command, single-threaded. argv is read in Go's flag syntax ([`flags`]) by the
//! tables of [`globals`] and [`commands`]; the words become a request ([`request`]) with every path
//! absolute, and the lifecycle in `creel-container` does the work. Flags, messages and exit codes are runc's where an engine or a script can see them; what
//! differs is in docs/runc-compat.md.

#![cfg_attr(not(test), no_main)]

mod checkpoint;
mod commands;
mod companion;
#[cfg(test)]
mod compat;
mod dispatch;
mod events;
mod features;
mod flags;
mod globals;
mod help;
mod log;
mod mounts;
mod output;
mod program;
mod ps;
mod request;
mod restore;
mod signal;
mod spec;
mod update;
mod version;

use std::ffi::OsString;
#[cfg(not(test))]
use std::ffi::{c_char, c_int};

use crate::globals::Globals;
use crate::log::Log;
use crate::program::{Failure, Program};

#[cfg(not(test))]
#[global_allocator]
static HEAP: creel_sys::heap::Heap = creel_sys::heap::Heap::new();

/// What the C library calls. The standard library's own start would look for the stack's limits in
/// /proc/self/maps and set up a handler for their overflow, which takes longer than `state` does of
/// its own; what it does beside that is done here.
#[cfg(not(test))]
#[allow(unsafe_code, reason = "the name and the arguments are the C library's, and nothing else has them")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // A standard stream that the caller closed must not become the first file that is opened; a closed
    // pipe is an error of write(2).
    if creel_sys::fd::open_standard_streams().is_err() {
        return 1;
    }
    creel_sys::process::ignore_broken_pipes();
    // SAFETY: what main gets.
    let argv = unsafe { creel_sys::process::arguments(argc, argv) };
    run(&argv).into()
}

#[cfg(test)]
fn main() {
    let argv: Vec<OsString> = std::env::args_os().collect();
    run(&argv);
}

fn run(argv: &[OsString]) -> u8 {
    let program = Program::of(argv.first());
    let (globals, command_line) = match Globals::scan(argv.get(1..).unwrap_or_default()) {
        Ok(scanned) => scanned,
        Err(message) => {
            let failure =
                Failure::usage(format!("Incorrect Usage. {message}"), help::overview(&program), message);
            return report(&Log::to_stderr(), &failure);
        }
    };
    let log = match Log::open(globals.log.as_deref(), &globals.log_format, globals.log_level()) {
        Ok(log) => log,
        Err(message) => return report(&Log::to_stderr(), &Failure::new(message)),
    };
    let log = log::install(log);
    // What comes before the command goes along to a program that runs containers through this one.
    let words = argv.get(1..argv.len() - command_line.len()).unwrap_or_default();
    match dispatch::run(&program, &globals, words, command_line) {
        Ok(code) => code,
        Err(failure) => report(log, &failure),
    }
}

/// Says once what went wrong: usage help on stdout, the message in the log, and bare on stderr
/// when the log is elsewhere, where conmon and a shell user look for it.
fn report(log: &Log, failure: &Failure) -> u8 {
    if let Some(usage) = &failure.usage {
        output::best_effort(usage);
    }
    log.error(&failure.message);
    failure.code
}
