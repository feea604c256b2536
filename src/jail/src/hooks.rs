//! Hooks: programs run at fixed points, with the container's state on standard input.
//!
//! Runs in the **host** for prestart, createRuntime, poststart and poststop, and in **init** for
//! createContainer and startContainer (runtime-spec, config.md, POSIX-platform Hooks). Both are
//! single-threaded, so a hook is an ordinary child process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use creel_plan::spec::Hook;
use creel_plan::steps::{HookStep, Phase};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use crate::error::{Failed, StepError};

/// Output kept for the error message.
const MAX_OUTPUT: usize = 2048;

/// What a hook is told: the state object of runtime.md.
#[derive(Debug, Clone, Default)]
pub struct HookState {
    /// ociVersion of the bundle.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// `.annotations`
    pub annotations: BTreeMap<String, String>,
    /// Init's pid as the host sees it; 0 lets the process that runs the hook say its own.
    pub pid: i32,
    /// Environment of hooks that set none; empty means the runtime's own, as under runc.
    pub default_env: Vec<String>,
    /// Where the output of hooks goes instead of into the message of one that fails.
    pub output: HookOutput,
}

/// Files that the output of hooks is appended to (`run.oci.hooks.stdout` and `.stderr`).
#[derive(Debug, Clone, Default)]
pub struct HookOutput {
    /// Path on the host, for standard output.
    pub stdout: Option<PathBuf>,
    /// Path on the host, for standard error.
    pub stderr: Option<PathBuf>,
    /// Both, opened on the host for a process that will not see those paths.
    opened: Option<Rc<[Option<File>; 2]>>,
}

impl HookOutput {
    /// These files, opened when a hook runs.
    pub fn to_files(stdout: Option<PathBuf>, stderr: Option<PathBuf>) -> Self {
        HookOutput { stdout, stderr, opened: None }
    }

    /// Opens them now.
    pub(crate) fn open(&self) -> Result<HookOutput, Failed> {
        let HookOutput { stdout, stderr, .. } = self;
        if stdout.is_none() && stderr.is_none() {
            return Ok(HookOutput::default());
        }
        let open = |path: &Option<PathBuf>, name: &str| {
            path.as_deref().map(append).transpose().map_err(|error| {
                let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
                let at = format!(".annotations[\"run.oci.hooks.{name}\"]");
                Failed::host(format!("open({:?})", path.as_deref().unwrap_or(Path::new(""))), errno).at(at)
            })
        };
        let files = [open(stdout, "stdout")?, open(stderr, "stderr")?];
        Ok(HookOutput { stdout: stdout.clone(), stderr: stderr.clone(), opened: Some(Rc::new(files)) })
    }

    /// The descriptors of [`HookOutput::open`].
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.opened.iter().flat_map(|files| files.iter().flatten()).map(AsFd::as_fd)
    }

    /// Where one stream of a hook goes: 0 is standard output, 1 standard error.
    fn stdio(&self, stream: usize) -> std::io::Result<Stdio> {
        if let Some(file) = self.opened.as_ref().and_then(|files| files[stream].as_ref()) {
            return Ok(file.try_clone()?.into());
        }
        let path = if stream == 0 { &self.stdout } else { &self.stderr };
        match path {
            Some(path) if self.opened.is_none() => Ok(append(path)?.into()),
            _ => Ok(Stdio::piped()),
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

impl HookState {
    /// The same with an environment for hooks that set none (startContainer gets the process's).
    pub fn with_default_env(&self, env: &[String]) -> HookState {
        HookState { default_env: env.to_vec(), ..self.clone() }
    }

    /// State JSON with the given status.
    pub fn json(&self, status: &str) -> String {
        let pid = if self.pid == 0 { std::process::id().cast_signed() } else { self.pid };
        let mut state = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(object) = state.as_object_mut() {
            if status != "stopped" {
                object.insert("pid".into(), pid.into());
            }
            if !self.annotations.is_empty() {
                object.insert("annotations".into(), json!(self.annotations));
            }
        }
        state.to_string()
    }
}

/// A hook that did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct HookFailed {
    /// Index among the hooks that were to run.
    pub index: usize,
    /// `.hooks.prestart[0]`
    pub at: String,
    /// What happened, with the hook's output.
    pub why: String,
}

impl HookFailed {
    /// As the failure of a phase of init.
    pub fn step(self, phase: Phase) -> StepError {
        StepError::new(phase, self.index, self.why)
    }
}

/// Runs hooks in order, stopping at the first that fails.
/// They run in `cwd`, or where the caller is.
pub fn run_hooks(
    hooks: &[HookStep],
    state: &HookState,
    status: &str,
    cwd: Option<&Path>,
) -> Result<(), HookFailed> {
    run_hooks_before(hooks, state, status, cwd, None)
}

/// The same for hooks that `init`, a pidfd, waits for: its death ends them, so that `delete --force` does
/// not wait for one that hangs.
pub fn run_hooks_before(
    hooks: &[HookStep],
    state: &HookState,
    status: &str,
    cwd: Option<&Path>,
    init: Option<BorrowedFd<'_>>,
) -> Result<(), HookFailed> {
    for (index, step) in hooks.iter().enumerate() {
        // Before createRuntime there were only prestart hooks, which come after `create` (config.md,
        // Prestart) and before the program.
        let status = if step.at.starts_with(".hooks.prestart") { "created" } else { status };
        run_hook(&step.hook, state, status, cwd, init).map_err(|why| HookFailed {
            index,
            at: step.at.clone(),
            why: format!("error running {}: {why}", name_of(&step.at)),
        })?;
    }
    Ok(())
}

/// `.hooks.poststop[1]` as runc says it: `poststop hook #1`.
fn name_of(at: &str) -> String {
    let name = at.trim_start_matches(".hooks.").trim_end_matches(']');
    match name.split_once('[') {
        Some((kind, number)) => format!("{kind} hook #{number}"),
        None => format!("{name} hook"),
    }
}

fn run_hook(
    hook: &Hook,
    state: &HookState,
    status: &str,
    cwd: Option<&Path>,
    init: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let name = &hook.path;
    let state_json = state_file(&state.json(status)).map_err(|e| format!("{name:?}: state: {e}"))?;
    let mut command = Command::new(name);
    // The bundle may be gone by the time of the poststop hooks.
    if let Some(cwd) = cwd.filter(|cwd| cwd.is_dir()) {
        command.current_dir(cwd);
    }
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    let env = if hook.env.is_empty() { &state.default_env } else { &hook.env };
    if !env.is_empty() {
        command.env_clear().envs(env.iter().filter_map(|e| e.split_once('=')));
    }
    let stream = |number| state.output.stdio(number).map_err(|e| format!("{name:?}: output: {}", words(&e)));
    command.stdin(state_json).stdout(stream(0)?).stderr(stream(1)?);
    let started = Instant::now();
    // A foreground `run` holds signals back for the container: they are not held back from hooks.
    creel_sys::process::unblock_signals(&mut command);
    let mut child = command.spawn().map_err(|e| format!("{name:?}: {}", words(&e)))?;
    // One that is beyond all clocks is none.
    let deadline = hook
        .timeout
        .and_then(|s| u64::try_from(s).ok())
        .and_then(|s| started.checked_add(Duration::from_secs(s)));
    let (output, end) = collect(&mut child, deadline, init).map_err(|e| format!("{name:?}: {e}"))?;
    let said = match output.trim() {
        "" => String::new(),
        text => format!(", output: {}", text.replace('\n', " | ")),
    };
    match end {
        End::Late => Err(format!("{name:?} exceeded its timeout of {} s{said}", hook.timeout.unwrap_or(0))),
        End::InVain => Err(format!("{name:?} was ended, since the container's init is gone{said}")),
        End::Itself(status) if status.success() => Ok(()),
        End::Itself(status) => Err(match status.signal() {
            Some(signal) => format!("{name:?} was killed by signal {signal}{}{said}", signal_words(signal)),
            None => format!("{name:?} exited with status {}{said}", status.code().unwrap_or(-1)),
        }),
    }
}

/// What the signals that end a hook mean, as Go's standard library says it in runc's messages.
fn signal_words(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (aborted)",
        7 => " (bus error)",
        9 => " (killed)",
        11 => " (segmentation fault)",
        13 => " (broken pipe)",
        15 => " (terminated)",
        31 => " (bad system call)",
        _ => "",
    }
}

fn words(error: &std::io::Error) -> String {
    rustix::io::Errno::from_io_error(error).map_or_else(|| error.to_string(), crate::error::errno_words)
}

/// The state as a file to read: a hook that does not read it holds nobody up, as it would with a pipe.
fn state_file(json: &str) -> std::io::Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(json.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// How a hook ended.
enum End {
    Itself(ExitStatus),
    /// Killed at its deadline.
    Late,
    /// Killed because init died.
    InVain,
}

/// Reads the hook's output until it ends, the deadline passes or init dies, then reaps it.
fn collect(
    child: &mut Child,
    deadline: Option<Instant>,
    init: Option<BorrowedFd<'_>>,
) -> std::io::Result<(String, End)> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(std::io::ErrorKind::NotFound)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut streams: Vec<OwnedFd> = Vec::new();
    streams.extend(child.stdout.take().map(OwnedFd::from));
    streams.extend(child.stderr.take().map(OwnedFd::from));
    let mut output = Vec::new();
    let killed = loop {
        let wait = match deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) => Some(left),
                None => break Some(End::Late),
            },
            None => None,
        };
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(streams.iter().map(|s| PollFd::new(s, PollFlags::IN)));
        fds.extend(init.map(|init| PollFd::from_borrowed_fd(init, PollFlags::IN)));
        let timeout = wait.and_then(|w| Timespec::try_from(w).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        let mut at = 0;
        streams.retain(|stream| {
            at += 1;
            !ready[at] || read_some(stream, &mut output)
        });
        // The hook's end counts, not that of what it left running with its output open.
        if ready[0] {
            break None;
        }
        if init.is_some() && ready.last() == Some(&true) {
            break Some(End::InVain);
        }
    };
    if killed.is_some() {
        child.kill()?;
    }
    let status = child.wait()?;
    for stream in &streams {
        creel_sys::best_effort(rustix::io::ioctl_fionbio(stream, true));
        while read_some(stream, &mut output) {}
    }
    Ok((String::from_utf8_lossy(&output).into_owned(), killed.unwrap_or(End::Itself(status))))
}

/// False at the end of the stream.
fn read_some(stream: &OwnedFd, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0u8; 1024];
    let Ok(stream) = stream.as_fd().try_clone_to_owned() else { return false };
    match std::fs::File::from(stream).read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            let room = MAX_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&buffer[..n.min(room)]);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> HookStep {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        let hook = Hook { path: "/bin/sh".into(), args, timeout, ..Hook::default() };
        HookStep { at: ".hooks.prestart[0]".into(), hook }
    }

    fn state() -> HookState {
        HookState { id: "web".into(), pid: 7, ..HookState::default() }
    }

    #[test]
    fn state_is_on_stdin_and_status_decides() {
        let script = r#"grep -q '"id":"web"' && exit 0; exit 9"#;
        run_hooks(&[shell(script, None)], &state(), "creating", None).unwrap();
    }

    #[test]
    fn output_of_a_failed_hook_is_in_the_error() {
        let failed = run_hooks(&[shell("echo no such bridge >&2; exit 3", None)], &state(), "created", None)
            .unwrap_err();
        let words =
            "error running prestart hook #0: \"/bin/sh\" exited with status 3, output: no such bridge";
        assert_eq!(failed.why, words);
        assert_eq!(failed.at, ".hooks.prestart[0]");
    }

    #[test]
    fn output_goes_to_the_files_that_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        let output = HookOutput::to_files(Some(out.clone()), Some(err.clone()));
        let two = HookState { output: output.open().unwrap(), ..state() };
        for state in [&two, &HookState { output, ..state() }] {
            let failed = run_hooks(&[shell("echo one; echo two >&2; exit 1", None)], state, "created", None);
            assert!(failed.unwrap_err().why.ends_with("exited with status 1"));
        }
        assert_eq!(two.output.descriptors().count(), 2);
        assert_eq!(std::fs::read_to_string(out).unwrap(), "one\none\n");
        assert_eq!(std::fs::read_to_string(err).unwrap(), "two\ntwo\n");
        let nowhere = HookOutput::to_files(Some("/no/such/dir/x".into()), None).open().unwrap_err();
        assert_eq!(nowhere.at.as_deref(), Some(r#".annotations["run.oci.hooks.stdout"]"#));
    }

    #[test]
    fn a_signal_is_named() {
        let failed = run_hooks(&[shell("kill -SYS $$", None)], &state(), "created", None).unwrap_err();
        assert!(failed.why.ends_with("was killed by signal 31 (bad system call)"), "{}", failed.why);
    }

    #[test]
    fn a_hook_past_its_timeout_is_killed() {
        let failed = run_hooks(&[shell("exec sleep 600", Some(1))], &state(), "created", None).unwrap_err();
        assert!(failed.why.contains("exceeded its timeout of 1 s"), "{}", failed.why);
    }

    #[test]
    fn a_timeout_may_be_longer_than_the_clock_goes() {
        run_hooks(&[shell("exit 0", Some(i64::MAX))], &state(), "creating", None).unwrap();
    }

    #[test]
    fn a_hook_that_a_dead_init_waits_for_is_killed() {
        let mut dead = Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&dead), PidfdFlags::empty()).unwrap();
        dead.wait().unwrap();
        let hooks = [shell("exec sleep 600", None)];
        let failed =
            run_hooks_before(&hooks, &state(), "creating", None, Some(pidfd.as_fd())).unwrap_err().why;
        assert!(failed.contains("was ended, since the container's init is gone"), "{failed}");
    }

    #[test]
    fn a_child_that_keeps_the_output_open_does_not_hold_the_hook() {
        let started = Instant::now();
        run_hooks(&[shell("sleep 20 & exit 0", None)], &state(), "created", None).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_hook_is_named() {
        let mut step = shell("", None);
        step.hook.path = "/no/such/hook".into();
        let failed = run_hooks(&[step], &state(), "created", None).unwrap_err();
        assert!(failed.why.contains("/no/such/hook"), "{}", failed.why);
    }

    #[test]
    fn stopped_state_has_no_pid() {
        assert!(!state().json("stopped").contains("pid"));
        assert!(state().json("created").contains("\"pid\":7"));
    }
}
