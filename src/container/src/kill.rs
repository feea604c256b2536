//! `kill`: a signal for init, or for everyone where the end of init is not the end of all.

use std::os::fd::AsFd;

use creel_sys::Errno;

use crate::state::{Container, Init};
use crate::{Error, Runtime};

const SIGKILL: i32 = 9;

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Init, whose end is the end of all.
    Init,
    /// Every process, as runc had it until 1.1 and crun has it. A container with none is no error.
    All,
}

/// `kill`.
pub fn kill(runtime: &Runtime, id: &str, signal: i32, target: Target) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    match target {
        Target::Init => send(&container, signal),
        Target::All => send_all(&container, signal),
    }
}

/// Signals every process, frozen so that none forks away meanwhile. A container without a cgroup of
/// its own has no more than init.
fn send_all(container: &Container, signal: i32) -> Result<(), Error> {
    let cgroup = container.cgroup();
    if cgroup.pids(true)?.is_empty() {
        return match send(container, signal) {
            Err(Error::Status(_)) => Ok(()),
            other => other,
        };
    }
    if signal == SIGKILL {
        return Ok(cgroup.kill_all(rustix::process::Signal::KILL)?);
    }
    let was_frozen = cgroup.is_frozen()?;
    let frozen = was_frozen || cgroup.freeze().is_ok();
    let result = cgroup.pids(true).map_err(Error::from).and_then(|pids| {
        pids.into_iter().try_for_each(|pid| match creel_jail::join::open_init(pid) {
            Ok(pidfd) => match creel_sys::process::pidfd_send_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(errno) => Err(refused(pid, signal, errno)),
            },
            // It ended by itself.
            Err(_) => Ok(()),
        })
    });
    if frozen && !was_frozen {
        cgroup.thaw()?;
    }
    result
}

fn refused(pid: i32, signal: i32, errno: Errno) -> Error {
    Error::File { call: "kill", path: format!("{pid} {signal}").into(), errno }
}

fn send(container: &Container, signal: i32) -> Result<(), Error> {
    let cgroup = container.cgroup();
    if signal == SIGKILL && !container.state.own_pid_namespace {
        // Nobody's death takes the others along: the cgroup is the container.
        let init = container.living_init();
        if init.is_none() && cgroup.pids(true)?.is_empty() {
            return Err(Error::Status("container not running"));
        }
        let all = cgroup.kill_all(rustix::process::Signal::KILL);
        // Of a container that has no cgroup, or one that is out of reach, init is known all the same.
        let known = match init.map(|init| signal_init(init, signal)) {
            None | Some(Ok(()) | Err(Error::Status(_))) => Ok(()),
            Some(Err(error)) => Err(error),
        };
        return match all {
            Err(error) if container.state.cgroup.rootless => {
                tracing::warn!("kill: {error}");
                known
            }
            all => Ok(all?).and(known),
        };
    }
    let init = container.living_init().ok_or(Error::Status("container not running"))?;
    signal_init(init, signal)?;
    // A frozen process does not die.
    if signal == SIGKILL && cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    Ok(())
}

/// Signals that very process, not one that has its pid by now.
pub fn signal_init(init: Init, signal: i32) -> Result<(), Error> {
    let gone = || Error::Status("container not running");
    let pidfd = creel_jail::join::open_init(init.pid).map_err(|_| gone())?;
    if !init.is_alive() {
        return Err(gone());
    }
    match creel_sys::process::pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(gone()),
        Err(errno) => Err(refused(init.pid, signal, errno)),
    }
}
