//! One run of a program: its output, its exit code, and a deadline.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::wait;

/// A program to run. stdout and stderr go to files, not pipes: a detached container inherits them,
/// and a pipe would stay open as long as it lives.
#[derive(Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, Option<OsString>)>,
    bare: bool,
    cwd: Option<PathBuf>,
    stdin: Option<Stdio>,
    deadline: Duration,
}

impl Cmd {
    /// `program` with no arguments, stdin from /dev/null.
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        // What the machine's service manager means for the tests is not meant for the container.
        let unset = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "XDG_RUNTIME_DIR"];
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: unset.into_iter().map(|name| (name.to_owned(), None)).collect(),
            bare: false,
            cwd: None,
            stdin: None,
            deadline: wait::DEADLINE,
        }
    }

    /// A shell that becomes the program: `prologue` may set variables and redirect descriptors, such
    /// as `LISTEN_PID=$$ exec "$@" 3<file`.
    pub fn through_shell(self, prologue: &str) -> Cmd {
        let mut args: Vec<OsString> = ["-c", prologue, "sh"].map(OsString::from).to_vec();
        args.push(self.program);
        args.extend(self.args);
        Cmd { program: "/bin/sh".into(), args, ..self }
    }

    /// Puts a program and its arguments in front, such as `setsid --ctty` or `setpriv --reuid 1`.
    pub fn behind<S: AsRef<OsStr>>(self, words: impl IntoIterator<Item = S>) -> Cmd {
        let mut words = words.into_iter().map(|word| word.as_ref().to_owned());
        let program = words.next().unwrap();
        let args = words.chain(std::iter::once(self.program)).chain(self.args).collect();
        Cmd { program, args, ..self }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.env.push((name.to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Starts from an environment of PATH alone, which is the same everywhere.
    pub fn bare(mut self) -> Cmd {
        self.bare = true;
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, dir: &Path) -> Cmd {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// Sets stdin.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Cmd {
        self.stdin = Some(stdin.into());
        self
    }

    /// Sets the deadline, [`wait::DEADLINE`] by default.
    pub fn deadline(mut self, deadline: Duration) -> Cmd {
        self.deadline = deadline;
        self
    }

    /// Starts it and lets it run.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(self) -> Running {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let outs = (stdout.try_clone().unwrap().into(), stderr.try_clone().unwrap().into());
        self.spawn_onto(outs, Some((stdout, stderr)))
    }

    /// Starts it with stdout and stderr as given; its [`Output`] has neither.
    pub fn spawn_with(self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Running {
        self.spawn_onto((stdout.into(), stderr.into()), None)
    }

    fn spawn_onto(self, outs: (Stdio, Stdio), files: Option<(File, File)>) -> Running {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(self.stdin.unwrap_or_else(Stdio::null)).stdout(outs.0).stderr(outs.1);
        if self.bare {
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| word.to_string_lossy());
        let line = words.collect::<Vec<_>>().join(" ");
        let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        Running { child, files, line, deadline: self.deadline }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or takes longer than its deadline; it is killed then.
    pub fn output(self) -> Output {
        self.spawn().output()
    }
}

/// A started program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    files: Option<(File, File)>,
    line: String,
    deadline: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// What it has written to stdout so far.
    pub fn stdout_so_far(&self) -> String {
        self.files.as_ref().map(|(stdout, _)| content(stdout)).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When kill(2) fails.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has exited.
    ///
    /// # Panics
    /// When wait(2) fails.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// [`Running::output`] with another end of its time.
    pub(crate) fn output_within(mut self, end: Instant) -> Output {
        self.deadline = end.saturating_duration_since(Instant::now());
        self.output()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than its deadline; it is killed then.
    pub fn output(mut self) -> Output {
        // Once it is reaped, its number may be another's.
        let in_time = self.has_exited() || {
            let pid = Pid::from_child(&self.child);
            wait::readable(pidfd_open(pid, PidfdFlags::empty()).unwrap(), self.deadline)
        };
        if !in_time {
            self.child.kill().unwrap();
        }
        let status = self.child.wait().unwrap();
        let (stdout, stderr) =
            self.files.as_ref().map(|(out, err)| (content(out), content(err))).unwrap_or_default();
        let output = Output { status, stdout, stderr, line: self.line };
        assert!(in_time, "took longer than {:?} and was killed\n{output}", self.deadline);
        output
    }
}

fn content(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    line: String,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\n{}", self.line, self.status)?;
        write!(f, "stdout: {}\nstderr: {}", self.stdout, self.stderr)
    }
}

impl Output {
    /// Exit code, or minus the signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap_or(0))
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert!(self.code() == code, "expected exit code {code}\n{self}");
        self
    }

    /// Asserts that stderr contains every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Output {
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} in stderr\n{self}");
        }
        self
    }

    /// Asserts, of creel, that stderr is one line with every one of `words`, beside warnings if it is an error.
    /// runc's words are its own.
    #[track_caller]
    pub fn creel_says(self, words: &[&str]) -> Output {
        if !crate::is_creel() {
            return self;
        }
        let is_warning = |line: &&str| line.contains(" level=warning ");
        let (warnings, errors): (Vec<_>, Vec<_>) = self.stderr.lines().partition(is_warning);
        let said = if errors.is_empty() { warnings } else { errors };
        assert!(said.len() == 1, "expected one line\n{self}");
        self.says(words)
    }

    /// stdout as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }
}
