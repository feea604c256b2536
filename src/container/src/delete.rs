//! `delete`: end what is left of a container and remove what create made.
//!
//! Needs only the state directory. Errors are collected: one part that cannot be removed does not
//! keep the others, and the directory goes last so that a second delete can go on.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use creel_cgroup::Cgroup;
use creel_jail::{HookState, run_hooks};
use creel_plan::steps::HookStep;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kill::signal_init;
use crate::state::{Container, Init};
use crate::store::{CGROUP, STATE, StateDir};
use crate::{Error, Runtime, Status, release, resctrl};

const SIGKILL: i32 = 9;
/// How long `--force` waits for another command before it ends the container under it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed init may take to be gone.
const DEATH_DEADLINE: Duration = Duration::from_secs(10);

/// `delete`. With `force` a running container is killed and a missing one is no error.
pub fn delete(runtime: &Runtime, id: &str, force: bool) -> Result<(), Error> {
    let dir = match StateDir::open(&runtime.root, id) {
        Err(Error::NotFound) if force => return Ok(()),
        other => other?,
    };
    let locked = if force { lock_by_force(runtime, id, &dir) } else { dir.lock() };
    match locked {
        Err(Error::NotFound) if force => return Ok(()),
        other => other?,
    }
    if force && !dir.has(STATE) {
        return destroy_unfinished(&dir);
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

/// Takes the lock from a command that hangs (in a hook, or in front of a frozen init): with the
/// container's processes gone it comes to its end, and ends a hook that init waits for.
fn lock_by_force(runtime: &Runtime, id: &str, dir: &StateDir) -> Result<(), Error> {
    match dir.lock_within(PATIENCE) {
        Err(Error::Locked) => {}
        other => return other,
    }
    if let Ok(container) = Container::open_any(runtime, id) {
        let cgroup = container.cgroup();
        if let Some(init) = container.living_init() {
            drop(signal_init(init, SIGKILL));
        }
        drop(cgroup.kill_all(rustix::process::Signal::KILL));
        if cgroup.is_frozen().unwrap_or(false) {
            drop(cgroup.thaw());
        }
    }
    dir.lock()
}

/// A create that died before it wrote state.json left at most the cgroup directories and resctrl groups that
/// it had noted, empty, since init was not born.
fn destroy_unfinished(dir: &StateDir) -> Result<(), Error> {
    let noted = dir.read(CGROUP).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(record) = noted {
        Cgroup::from_record(&record).destroy()?;
    }
    if let Some(group) = resctrl::noted(dir) {
        group.remove()?;
    }
    dir.destroy()
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
    if let Some(Err(error)) = container.state.resctrl.as_ref().map(resctrl::Group::remove) {
        errors.push(error);
    }
    if errors.is_empty() {
        if let Err(error) = container.dir.destroy() {
            errors.push(error);
        }
    }
    if !errors.is_empty() {
        return Err(Error::Leftovers(errors));
    }
    let hooks: Vec<HookStep> = container.state.poststop.iter().map(Into::into).collect();
    poststop(&hooks, &container.hook_state());
    Ok(())
}

/// Runs the poststop hooks; those after one that failed run too (config.md, Poststop).
pub fn poststop(hooks: &[HookStep], state: &HookState) {
    for hook in hooks {
        if release::carry_out(&hook.hook) {
            continue;
        }
        if let Err(failed) = run_hooks(std::slice::from_ref(hook), state, "stopped", Some(&state.bundle)) {
            tracing::warn!("{}: {}", failed.at, failed.why);
        }
    }
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
