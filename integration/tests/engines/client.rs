//! What podman's and docker's command lines have in common, so that one case serves both.

use std::time::Duration;

use anyhow::{Context, Result};
use creel_integration::engine::command::Call;
use creel_integration::engine::harness::Engine;

/// How long anything but a build may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An engine with docker's command line.
pub trait Client: Engine {
    /// `WORDS` of the client, with what it needs to find the engine.
    fn client(&self, words: &[&str]) -> Call;

    /// `run OPTIONS IMAGE COMMAND` with the runtime under test.
    fn run(&self, options: &[&str], command: &[&str]) -> Call;

    /// Remove a container, whatever its state.
    fn remove(&self, name: &str) -> Result<()>;

    /// A foreground container without a network of its own, removed when it ends.
    fn run_once(&self, options: &[&str], command: &[&str]) -> Call {
        self.run(&[&["--rm", "--network", "none"], options].concat(), command)
    }

    /// Start it in the background; its first process, as the sandbox counts.
    fn run_detached(&self, name: &str, options: &[&str], command: &[&str]) -> Result<u32> {
        self.run(&[&["--detach", "--network", "none", "--name", name], options].concat(), command).ok()?;
        let pid = self.inspect(name, "{{.State.Pid}}")?;
        pid.parse().with_context(|| format!("pid {pid:?}"))
    }

    /// A container that waits for its end.
    fn sleeper(&self, name: &str, options: &[&str]) -> Result<u32> {
        let pid = self.run_detached(name, options, &["sleep", "1000"])?;
        self.sandbox().until_running(pid, "sleep")?;
        Ok(pid)
    }

    /// One field of what the engine knows of a container.
    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        Ok(self.client(&["inspect", "--format", format, name]).ok()?.said().to_owned())
    }

    /// `exec OPTIONS NAME COMMAND`.
    fn exec(&self, name: &str, options: &[&str], command: &[&str]) -> Call {
        self.client(&["exec"]).args(options).args(&[name]).args(command)
    }

    /// Wait until a container's log is this.
    fn until_logged(&self, name: &str, text: &str) -> Result<()> {
        self.sandbox().until(text, DEADLINE, || Ok(self.client(&["logs", name]).ok()?.said() == text))
    }
}
