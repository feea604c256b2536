//! Measures creel beside the other runtimes of this machine: the same configs, the same bundle, the
//! same operations, interleaved round by round so that a change of the machine's load meets all of
//! them alike. docs/performance.md says how to read the figures.
//!
//! Runs as root, single-threaded, in a mount namespace of its own. Each measured command is started
//! by a fresh, small copy of this program ([`measure`]), which alone has it for a child: that makes
//! CPU time and peak memory exact.

mod args;
mod bundle;
mod calls;
mod cold;
mod document;
mod figures;
mod goals;
mod host;
mod machine;
mod measure;
mod operation;
mod peer;
mod plot;
mod report;
mod rounds;
mod scale;
mod scenario;
mod stand;
mod stats;
mod view;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::report::Run;
use crate::rounds::Outcome;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some(measure::SUBCOMMAND) => measure::child(&arguments.collect::<Vec<_>>()),
        _ => bench(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("creel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let settings = match args::parse(std::env::args().skip(1))? {
        args::Request::Help => return say(args::HELP),
        args::Request::Measure(settings) => settings,
    };
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: the peers are measured as an engine runs them");
    }
    view::enter()?;
    if !settings.keep_cgroup_view {
        view::hide_v2().context("cgroup view")?;
    }
    // A container's init outlives the `create` that made it; as subreaper this process is told of
    // its end, and of the CPU time it used.
    nix::sys::prctl::set_child_subreaper(true)?;
    let (peers, absent) = peer::find(&settings)?;
    for line in &absent {
        eprintln!("creel-bench: {line}");
    }
    if peers.is_empty() {
        bail!("no runtime to measure");
    }
    let before = machine::describe()?;
    if !calls::is_possible() {
        eprintln!("creel-bench: strace is not installed: system calls are not counted");
    }
    let mut outcome = Outcome::default();
    rounds::measure(&settings, &peers, &mut outcome)?;
    scale::measure(&settings, &peers, &mut outcome)?;
    let after = machine::load_average()?;
    let run =
        Run { settings: &settings, machine: &before, load_after: &after, peers: &peers, outcome: &outcome };
    say(&report::text(&run))?;
    if let Some(path) = &settings.json {
        let document = report::json(&run);
        std::fs::write(path, format!("{document:#}\n")).with_context(|| path.display().to_string())?;
    }
    if let Some(file) = &settings.document {
        document::write(&run, file, settings.seccomp.as_deref().map(read_json).transpose()?.as_ref())?;
    }
    // A peer may be unfit for this machine; creel may not.
    let failed = outcome.series.iter().any(|s| s.failure.is_some() && peers[s.peer].name == "creel");
    if failed { bail!("creel could not be measured in full") } else { Ok(()) }
}

fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}
