//! A command with a deadline: run it, collect what it said, never wait for ever.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What a command may take unless it is told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A command about to run.
#[derive(Debug, Clone)]
pub struct Call {
    words: Vec<String>,
    prefix: Vec<String>,
    input: fn() -> Stdio,
    deadline: Duration,
}

/// How a command ended and what it printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code, or 128 plus the signal's number.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    line: String,
}

impl Call {
    /// `words` are the command, `prefix` what brings it into its namespaces.
    pub fn new(prefix: Vec<String>, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { words, prefix, input: Stdio::null, deadline: DEADLINE }
    }

    /// Append arguments.
    pub fn args(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Keep standard input open for [`Daemon::send`](super::daemon::Daemon::send); it is otherwise at its end.
    pub fn keep_input(mut self) -> Self {
        self.input = Stdio::piped;
        self
    }

    /// Another deadline than [`DEADLINE`].
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Give the command a terminal of 33 rows and 77 columns, by script(1).
    pub fn on_terminal(mut self) -> Self {
        let quoted: Vec<String> = self.words.iter().map(|word| quote(word)).collect();
        let line = format!("stty rows 33 cols 77; exec {}", quoted.join(" "));
        self.words =
            ["script", "--quiet", "--return", "--command", &line, "/dev/null"].map(str::to_owned).to_vec();
        self
    }

    /// Run it to its end. An error is a deadline that passed or a program that is not there; an exit code is not.
    pub fn output(self) -> Result<Output> {
        let line = self.words.join(" ");
        let until = Instant::now() + self.deadline;
        let mut child = self.spawn(Stdio::piped(), Stdio::piped()).with_context(|| line.clone())?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        if !ended_within(&child, self.deadline)? {
            child.kill()?;
            child.wait()?;
            let (stdout, stderr) = (text(&stdout, Instant::now()), text(&stderr, Instant::now()));
            bail!("{line}: still running after {:?}; stdout {stdout:?}, stderr {stderr:?}", self.deadline);
        }
        let status = child.wait()?;
        // A process left behind that holds the pipe is a leaked descriptor: the engines hang on it too.
        let (Some(stdout), Some(stderr)) = (text(&stdout, until), text(&stderr, until)) else {
            bail!("{line}: ended with {status}, but something it started still holds its output open");
        };
        let code = status.code().unwrap_or_else(|| {
            use std::os::unix::process::ExitStatusExt;
            128 + status.signal().unwrap_or_default()
        });
        Ok(Output { code, stdout, stderr, line })
    }

    /// Run it and insist on exit code 0.
    pub fn ok(self) -> Result<Output> {
        self.exits(0)
    }

    /// Run it and insist on this exit code.
    pub fn exits(self, code: i32) -> Result<Output> {
        let output = self.output()?;
        ensure!(output.code == code, "expected exit code {code}: {output}");
        Ok(output)
    }

    /// Start it, with standard input as set.
    pub(super) fn spawn(&self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        let mut words = self.prefix.iter().chain(&self.words);
        let program = words.next().context("empty command")?;
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(ENVIRONMENT.iter().copied());
        command.stdin((self.input)()).stdout(stdout).stderr(stderr);
        command.spawn().with_context(|| format!("start {program}"))
    }
}

/// The distribution's programs only, and nothing of the caller's settings: a proxy or a DOCKER_HOST in
/// the environment would be used by the engines.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/run/engine"),
    ("LANG", "C.UTF-8"),
    ("TERM", "xterm"),
    ("TMPDIR", "/run/engine/tmp"),
    ("CONTAINERS_CONF", "/run/engine/containers.conf"),
];

impl Output {
    /// Standard output without surrounding white space.
    pub fn said(&self) -> &str {
        self.stdout.trim()
    }

    /// Insist on standard output being this, apart from surrounding white space.
    pub fn says(self, expected: &str) -> Result<Self> {
        ensure!(self.said() == expected, "expected {expected:?}: {self}");
        Ok(self)
    }

    /// Insist on standard output or standard error containing this.
    pub fn mentions(self, expected: &str) -> Result<Self> {
        ensure!(
            self.stdout.contains(expected) || self.stderr.contains(expected),
            "expected a mention of {expected:?}: {self}"
        );
        Ok(self)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{}: exit code {}, stdout {:?}, stderr {:?}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream
            && stream.read_to_end(&mut bytes).is_ok()
        {
            // Nobody listens any more once the deadline has passed.
            drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
        }
    });
    receiver
}

fn text(receiver: &Receiver<String>, until: Instant) -> Option<String> {
    receiver.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// Wait for a child to end, by its pidfd.
pub fn ended_within(child: &Child, time: Duration) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid out of range")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll of a pidfd"),
        }
    }
}
