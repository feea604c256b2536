//! A command that runs beside the test: an engine's daemon, or a client that the test talks to.
//!
//! Its output is read line by line, so a test waits for a word instead of a while.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::command::{Call, ended_within};

/// How many lines of a log a failure shows.
const TAIL: usize = 12;

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    nsenter: Child,
    log: Arc<Log>,
}

impl Daemon {
    /// Start it. Both of its output streams are the log.
    pub fn start(name: &str, call: &Call) -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        let nsenter = call.spawn(Stdio::from(writer.try_clone()?), Stdio::from(writer))?;
        let log = Arc::new(Log::default());
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(File::from(reader)).split(b'\n').map_while(Result::ok) {
                sink.change(|lines| lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            sink.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            sink.grown.notify_all();
        });
        Ok(Self { name: name.to_owned(), nsenter, log })
    }

    /// Wait until a line contains `word`.
    pub fn line_with(&self, word: &str, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.0.iter().find(|line| line.contains(word)) {
                return Ok(line.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                let state = if lines.1 { "ended" } else { "went on" };
                drop(lines);
                bail!("{} {state} without a line containing {word:?}\n{}", self.name, self.tail());
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Write to its standard input, which the call must have kept open.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stdin = self.nsenter.stdin.as_mut().with_context(|| format!("{} has no input", self.name))?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("input of {}", self.name))
    }

    /// Wait for its end, and insist on this exit code.
    pub fn exits(mut self, code: i32, deadline: Duration) -> Result<()> {
        ensure!(ended_within(&self.nsenter, deadline)?, "{} did not end within {deadline:?}", self.name);
        let status = self.nsenter.wait()?;
        ensure!(
            status.code() == Some(code),
            "{} ended with {status}, not {code}\n{}",
            self.name,
            self.tail()
        );
        Ok(())
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let from = lines.0.len().saturating_sub(TAIL);
        lines
            .0
            .get(from..)
            .unwrap_or_default()
            .iter()
            .map(|line| format!("  {}: {line}\n", self.name))
            .collect()
    }

    /// Ask it to end with SIGTERM, insist after the deadline.
    pub fn stop(mut self, deadline: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        if ended_within(&self.nsenter, deadline)? {
            self.nsenter.wait()?;
            return Ok(());
        }
        let tail = self.tail();
        self.kill()?;
        bail!("{} did not end within {deadline:?} of SIGTERM\n{tail}", self.name)
    }

    /// The command is nsenter's only child.
    fn signal(&self, signal: Signal) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.nsenter.id());
        let children = fs::read_to_string(&children).context(children)?;
        for pid in children.split_whitespace() {
            let pid = Pid::from_raw(pid.parse()?).context("pid 0")?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
            pidfd_send_signal(&pidfd, signal).with_context(|| format!("signal to {}", self.name))?;
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        // setpriv(1) has asked for the command to follow nsenter.
        self.nsenter.kill()?;
        self.nsenter.wait()?;
        Ok(())
    }
}

impl Log {
    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner).0);
        self.grown.notify_all();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.nsenter.try_wait().is_ok_and(|status| status.is_none())
            && let Err(error) = self.kill()
        {
            super::harness::say(&format!("{}: {error:#}", self.name));
        }
    }
}
