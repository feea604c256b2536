//! `delete`: end what is left of a container and remove what create made.
//!
//! Needs only the state directory. Errors are collected: one part that cannot be removed does not
//! keep the others, and the directory goes last so that a second delete can go on.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use creel_jail::run_hooks;
use creel_plan::steps::HookStep;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kill::signal_init;
use crate::state::{Container, Init};
use crate::store::{STATE, StateDir};
use crate::{Error, Runtime, Status};

const SIGKILL: i32 = 9;
/// How long a killed init may take to be gone.
const DEATH_DEADLINE: Duration = Duration::from_secs(10);

/// `delete`. With `force` a running container is killed and a missing one is no error.
pub fn delete(runtime: &Runtime, id: &str, force: bool) -> Result<(), Error> {
    let dir = match StateDir::open(&runtime.root, id) {
        Err(Error::NotFound) if force => return Ok(()),
        other => other?,
    };
    match dir.lock() {
        Err(Error::NotFound) if force => return Ok(()),
        other => other?,
    }
    if force && !dir.has(STATE) {
        // Its create died before its cgroup was made: the directory is all there is.
        return dir.destroy();
    }
    let container = Container::load(dir)?;
    if container.init.is_none() && !force {
        return Err(Error::NotFound);
    }
    if !force {
        match container.status()? {
            Status::Stopped | Status::Created => {}
            status @ (Status::Running | Status::Paused) => {
                return Err(Error::NotStopped { id: id.to_string(), status: status.as_str() });
            }
        }
    }
    destroy(&container)
}

/// Kills what lives, then removes everything.
pub fn destroy(container: &Container) -> Result<(), Error> {
    if let Some(init) = container.living_init() {
        end(container, init)?;
    }
    let mut errors = Vec::new();
    let cgroup = container.cgroup();
    // Without a pid namespace of its own, or when create died half way, others may outlive init.
    if !container.state.own_pid_namespace || container.init.is_none() {
        if let Err(error) = cgroup.kill_all(rustix::process::Signal::KILL) {
            errors.push(error.into());
        }
    }
    if let Err(error) = cgroup.destroy() {
        errors.push(error.into());
    }
    if errors.is_empty() {
        if let Err(error) = container.dir.destroy() {
            errors.push(error);
        }
    }
    let hooks: Vec<HookStep> = container.state.poststop.iter().map(Into::into).collect();
    // Hooks after the first failure run too, and no failure stops the removal (config.md, Poststop).
    for hook in hooks {
        if let Err(failed) = run_hooks(std::slice::from_ref(&hook), &container.hook_state(), "stopped") {
            tracing::warn!("{}: {}", failed.at, failed.why);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Leftovers(errors)) }
}

/// Kills init and waits until it is gone.
fn end(container: &Container, init: Init) -> Result<(), Error> {
    let Ok(pidfd) = creel_jail::join::open_init(init.pid) else { return Ok(()) };
    match signal_init(init, SIGKILL) {
        Ok(()) | Err(Error::Status(_)) => {}
        Err(error) => return Err(error),
    }
    let cgroup = container.cgroup();
    if cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    let deadline = Instant::now() + DEATH_DEADLINE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::File { call: "poll", path: "pidfd of init".into(), errno }),
        }
    }
    Err(Error::StillRunning)
}
