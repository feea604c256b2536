//! `start`: let a created container's program run.

use std::os::fd::OwnedFd;
use std::path::Path;

use creel_jail::{HookState, run_hooks};
use creel_plan::steps::HookStep;
use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, poll};

use crate::notify::Proxy;
use crate::state::{Container, Init};
use crate::store::REPORT;
use crate::{Error, Runtime};

/// `start`. With a notify socket it returns when the container has said that it is ready.
pub fn start(runtime: &Runtime, id: &str, notify_socket: Option<&Path>) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    let Some(init) = container.living_init() else {
        return Err(Error::Status("cannot start a container that has stopped"));
    };
    if !container.is_waiting() {
        return Err(Error::Status("cannot start an already running container"));
    }
    // A frozen init would not open the gate, and `resume` could not get at the lock held here.
    if container.cgroup().is_frozen()? {
        return Err(Error::Status("cannot start a container in the paused state"));
    }
    let proxy = match notify_socket {
        Some(socket) if container.dir.has(crate::notify::DIRECTORY) => {
            Some(Proxy::bind(&container.dir, socket)?)
        }
        _ => None,
    };
    let report = container.dir.open_report()?;
    if !container.dir.open_gate()? {
        return Err(Error::Status("cannot start a container that has stopped"));
    }
    // The fifo is gone, so there is no second start; what follows may take long, and `kill` and
    // `delete` must be able to end it.
    container.dir.unlock();
    await_program(&report)?;
    let hooks: Vec<HookStep> = container.state.poststart.iter().map(Into::into).collect();
    poststart(&hooks, &container.hook_state(), init)?;
    match proxy {
        Some(proxy) => proxy.wait_ready(init),
        None => Ok(()),
    }
}

/// Returns when init has executed its program: it held the only writing end of the report fifo.
fn await_program(report: &OwnedFd) -> Result<(), Error> {
    let fail = |errno| Error::File { call: "read", path: REPORT.into(), errno };
    let mut said = Vec::new();
    loop {
        let mut fds = [PollFd::new(report, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let mut buffer = [0u8; 4096];
        match rustix::io::read(report, &mut buffer) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    if said.is_empty() { Ok(()) } else { Err(Error::Program(String::from_utf8_lossy(&said).into_owned())) }
}

/// Runs the poststart hooks; a failure is an error of `start` and ends the container (runtime-spec
/// 1.3, config.md, Poststart).
pub fn poststart(hooks: &[HookStep], state: &HookState, init: Init) -> Result<(), Error> {
    run_hooks(hooks, state, "running", Some(&state.bundle)).map_err(|failed| {
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
