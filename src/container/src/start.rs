//! `start`: let a created container's program run.

use std::path::Path;

use creel_jail::{HookState, run_hooks};
use creel_plan::steps::HookStep;

use crate::notify::Proxy;
use crate::state::{Container, Init};
use crate::store::FIFO;
use crate::{Error, Runtime};

/// `start`. With a notify socket it returns when the container has said that it is ready.
pub fn start(runtime: &Runtime, id: &str, notify_socket: Option<&Path>) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    // Status is not asked for: frozen or not, the fifo and init's life decide.
    let Some(init) = container.living_init() else {
        return Err(Error::Status("cannot start a container that has stopped"));
    };
    if !container.dir.has(FIFO) {
        return Err(Error::Status("cannot start an already running container"));
    }
    let proxy = match notify_socket {
        Some(socket) if container.dir.has(crate::notify::DIRECTORY) => {
            Some(Proxy::bind(&container.dir, socket)?)
        }
        _ => None,
    };
    if !container.dir.open_fifo_gate()? {
        return Err(Error::Status("cannot start a container that has stopped"));
    }
    let hooks: Vec<HookStep> = container.state.poststart.iter().map(Into::into).collect();
    poststart(&hooks, &container.hook_state(), init)?;
    match proxy {
        Some(proxy) => proxy.wait_ready(init),
        None => Ok(()),
    }
}

/// Runs the poststart hooks; a failure is an error of `start` and ends the container (runtime-spec
/// 1.3, config.md, Poststart).
pub fn poststart(hooks: &[HookStep], state: &HookState, init: Init) -> Result<(), Error> {
    run_hooks(hooks, state, "running").map_err(|failed| {
        const SIGKILL: i32 = 9;
        if let Ok(pidfd) = creel_jail::join::open_init(init.pid) {
            use std::os::fd::AsFd;
            if init.is_alive() {
                creel_sys::best_effort(creel_sys::process::pidfd_send_signal(pidfd.as_fd(), SIGKILL));
            }
        }
        Error::Poststart(format!("{}: {}", failed.at, failed.why))
    })
}
