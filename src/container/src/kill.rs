//! `kill`: a signal for init, or for everyone where the end of init is not the end of all.

use std::os::fd::AsFd;

use creel_sys::Errno;

use crate::state::{Container, Init};
use crate::{Error, Runtime};

const SIGKILL: i32 = 9;

/// `kill`. With `all` a stopped container is no error.
pub fn kill(runtime: &Runtime, id: &str, signal: i32, all: bool) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    let result = send(&container, signal);
    match result {
        Err(Error::Status(_)) if all => Ok(()),
        other => other,
    }
}

fn send(container: &Container, signal: i32) -> Result<(), Error> {
    let cgroup = container.cgroup();
    if signal == SIGKILL && !container.state.own_pid_namespace {
        // Nobody's death takes the others along: the cgroup is the container.
        let alive = container.living_init().is_some() || !cgroup.pids(true)?.is_empty();
        if !alive {
            return Err(Error::Status("container not running"));
        }
        return Ok(cgroup.kill_all(rustix::process::Signal::KILL)?);
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
        Err(errno) => Err(Error::File { call: "kill", path: format!("{} {signal}", init.pid).into(), errno }),
    }
}
