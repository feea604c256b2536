//! The binary `creel-image`: creel's commands around images.
//!
//! `creel pull-and-run`, `creel pull`, `creel image ...` exec this program, found beside creel itself; to the
//! user it is one command. It has what the runtime must not have: TLS, decompressors, threads. A container
//! is run by replacing this process with `creel run` ([`run`]), so that none of it stays in memory.
//!
//! An error is one line on standard error: what was to be done, the cause, the next step.

#![cfg_attr(not(test), no_main)]

mod access;
mod artifact;
mod bundle;
mod cli;
mod container;
mod copy;
mod destination;
mod images;
mod left_out;
mod login;
mod names;
mod origin;
mod output;
mod progress;
mod prompt;
mod pull;
mod push;
mod run;
mod setup;
mod stored;
mod verify;
mod workers;

use std::ffi::OsString;
#[cfg(not(test))]
use std::ffi::c_int;

use anyhow::{Context, Result};
use clap::ArgMatches;

/// Exit code of a wrong command line.
const USAGE: u8 = 2;

/// Exit code of a command that did not do what it was asked for.
const FAILED: u8 = 1;

/// The same of a command that runs a container, as of `docker run` and `podman run`: lower ones may be the
/// container's own.
const RUN_FAILED: u8 = 125;

/// What the C library calls, in place of the standard library's own start, as in `creel`: every start of a container
/// would pay for the search of the stack's limits in /proc/self/maps.
#[cfg(not(test))]
#[allow(unsafe_code, reason = "the name is the C library's, and nothing else has it")]
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    // A standard stream that the caller closed must not become the first file that is opened; a closed
    // pipe is an error of write(2).
    if creel_sys::fd::open_standard_streams().is_err() {
        return FAILED.into();
    }
    creel_sys::process::ignore_broken_pipes();
    run_command().into()
}

#[cfg(test)]
fn main() {
    run_command();
}

/// Gives the exit code.
fn run_command() -> u8 {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(ended) = internal(&argv) {
        return ended;
    }
    let matches = match cli::command_for(&argv).try_get_matches_from(&argv) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &argv),
    };
    let Some((name, words)) = matches.subcommand() else {
        output::best_effort(&cli::command().render_help().to_string());
        return USAGE;
    };
    match dispatch(&matches, name, words) {
        Ok(()) => 0,
        Err(error) => {
            let nested = words.subcommand_name().map(|nested| format!(" {nested}")).unwrap_or_default();
            output::error(&format!("{name}{nested}: {error:#}"));
            let code = if name == cli::RUN { RUN_FAILED } else { FAILED };
            error.downcast_ref::<run::ExitWith>().map_or(code, |exit| exit.0)
        }
    }
}

/// What creel-image calls itself for. The hook of a container that ended is called at each end of one, so nothing
/// is made ready for it.
fn internal(argv: &[OsString]) -> Option<u8> {
    let (name, words) = (argv.get(1)?.to_str()?, argv.get(2..)?);
    let done = match name {
        cli::RELEASE => container::release(words).context(name.to_owned()),
        run::user_namespace::MAP_IDS => run::user_namespace::map_ids(words),
        run::network::MAKE_NETWORK => run::network::make_network(words),
        run::sealing::LEAVE => run::sealing::leave(words),
        run::sealing::SEAL => run::sealing::seal_now(words),
        _ => return None,
    };
    Some(done.map_or_else(
        |error| {
            output::error(&format!("{error:#}"));
            FAILED
        },
        |()| 0,
    ))
}

fn dispatch(globals: &ArgMatches, name: &str, words: &ArgMatches) -> Result<()> {
    match name {
        "pull" => pull::command(globals, words),
        cli::RUN => run::command(globals, words),
        "image" => images::command(globals, words),
        "unpack" => bundle::command(globals, words),
        "copy" => copy::command(words),
        "push" => push::command(globals, words),
        "artifact" => artifact::command(words),
        "tags" => images::tags(words),
        "inspect" => images::inspect_source(globals, words),
        "login" => login::login(words),
        "logout" => login::logout(words),
        other => anyhow::bail!("unknown command {other:?}"),
    }
}

/// Help goes to standard output; what is wrong with a command line is one line, as all errors are.
fn usage(error: &clap::Error, argv: &[OsString]) -> u8 {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::best_effort(&error.to_string());
        return 0;
    }
    let named = |name: &str| argv.iter().any(|word| word == name);
    let text = error.to_string();
    let told: Vec<&str> = text.lines().take_while(|line| !line.starts_with("Usage:")).collect();
    let told: Vec<&str> = told.iter().flat_map(|line| line.split_whitespace()).collect();
    let told = told.join(" ");
    let told = told.trim_start_matches("error: ").split(" tip: ").next().unwrap_or_default();
    output::error(&format!("{told}; \"--help\" tells what there is"));
    if named(cli::RUN) { RUN_FAILED } else { USAGE }
}
