//! System calls of each command, by strace(1): those of the runtime and of all its children until
//! they execute the container's program.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::operation::Operation;
use crate::peer::Kind;
use crate::stand::{LIFE, RUN, Stand};

/// strace slows a runtime down, but not that much.
const DEADLINE: Duration = Duration::from_secs(30);

/// Counts the calls of every operation of the stand, once. Best effort: without strace the table has no
/// such column.
pub fn count(stand: &mut Stand<'_>) {
    if !stand.failed(Operation::Run) {
        if let Err(error) = of_run(stand).and_then(|()| of_life(stand)) {
            eprintln!("creel-bench: {} system calls: {error:#}", stand.peer.name);
            stand.clean_up();
        }
    }
}

fn of_run(stand: &mut Stand<'_>) -> Result<()> {
    let calls = counted(stand, Operation::Run, RUN)?;
    set(stand, Operation::Run, calls);
    Ok(())
}

fn of_life(stand: &mut Stand<'_>) -> Result<()> {
    if stand.peer.kind != Kind::Runtime || stand.failed(Operation::Create) {
        return Ok(());
    }
    // The tracer of create follows init, which lives until it is killed.
    let (mut create, log) = trace(stand, Operation::Create, LIFE)?;
    let started = wait_until_created(stand);
    let mut found = Vec::new();
    for operation in [Operation::Start, Operation::State, Operation::Exec, Operation::Kill] {
        if started.is_ok() {
            found.push((operation, counted(stand, operation, LIFE)?));
        }
    }
    stand.end_init(&stand.pid_file).ok();
    match create.wait() {
        // It was reaped with the init.
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {}
        other => drop(other?),
    }
    started?;
    found.push((Operation::Create, calls_in(&fs::read_to_string(log)?)));
    found.push((Operation::Delete, counted(stand, Operation::Delete, LIFE)?));
    found.into_iter().for_each(|(operation, calls)| set(stand, operation, calls));
    Ok(())
}

fn set(stand: &mut Stand<'_>, operation: Operation, calls: u64) {
    if let Some(series) = stand.of(operation) {
        series.calls = Some(calls);
    }
}

fn wait_until_created(stand: &Stand<'_>) -> Result<()> {
    let argv = stand.argv(Operation::State, LIFE, &stand.pid_file);
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let output = Command::new(&argv[0]).args(&argv[1..]).stderr(Stdio::null()).output()?;
        if String::from_utf8_lossy(&output.stdout).contains("\"created\"") {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    bail!("not created after {} s", DEADLINE.as_secs())
}

fn counted(stand: &Stand<'_>, operation: Operation, slot: &str) -> Result<u64> {
    let (mut child, log) = trace(stand, operation, slot)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{} behind strace: {status}", operation.name());
    }
    Ok(calls_in(&fs::read_to_string(log)?))
}

fn trace(stand: &Stand<'_>, operation: Operation, slot: &str) -> Result<(Child, PathBuf)> {
    let log = stand.errors.with_extension(operation.name());
    let child = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(&log)
        .args(stand.argv(operation, slot, &stand.pid_file))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("strace is not installed"),
        other => Ok((other.context("strace")?, log)),
    }
}

fn calls_in(log: &str) -> u64 {
    let programs = ["execve(\"/bin/true\"", "execve(\"/bin/sleep\""];
    let mut done: HashSet<&str> = HashSet::new();
    let mut calls = 0;
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if done.contains(pid) || call.starts_with("<...") || call.starts_with("+++") {
            continue;
        }
        calls += 1;
        if programs.iter().any(|program| call.starts_with(program)) {
            done.insert(pid);
        }
    }
    calls
}

/// Whether strace(1) is there.
pub fn is_possible() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join("strace").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_until_the_program_and_once_when_interrupted() {
        let log = "7 execve(\"/x/creel\", [\"creel\"], 0x1) = 0\n\
                   7 clone3({flags=0}, 88) = 8\n\
                   7 wait4(8,  <unfinished ...>\n\
                   8 write(3, \"0\", 1) = 1\n\
                   8 execve(\"/bin/true\", [\"/bin/true\"], 0x2) = 0\n\
                   8 brk(NULL) = 0x1\n\
                   8 +++ exited with 0 +++\n\
                   7 <... wait4 resumed>NULL) = 8\n\
                   7 exit_group(0) = ?\n";
        assert_eq!(calls_in(log), 6);
    }
}
