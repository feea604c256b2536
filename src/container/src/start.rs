//! `start`: let a created container's program run.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use creel_jail::{HookState, run_hooks};
use creel_plan::steps::HookStep;
use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::notify::Proxy;
use crate::state::{Container, Init};
use crate::store::{FIFO, START_WORD};
use crate::{Error, Runtime};

/// `start`. With a notify socket it returns when the container has said that it is ready.
pub fn start(runtime: &Runtime, id: &str, notify_socket: Option<&Path>) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    let Some(init) = container.living_init() else {
        return Err(Error::Status("cannot start a container that has stopped"));
    };
    // A frozen init would not open the gate, and `resume` could not get at the lock held here.
    if container.cgroup().is_frozen()? {
        return Err(Error::Status("cannot start a container in the paused state"));
    }
    if !container.is_waiting() {
        return Err(Error::Status("cannot start an already running container"));
    }
    let proxy = match notify_socket {
        Some(socket) if container.dir.has(crate::notify::DIRECTORY) => {
            Some(Proxy::bind(&container.dir, socket)?)
        }
        _ => None,
    };
    let Some(gate) = container.dir.open_gate()? else {
        return Err(Error::Status("cannot start a container that has stopped"));
    };
    // The fifo is gone, so there is no second start; what follows may take long, and `kill` and
    // `delete` must be able to end it.
    container.dir.unlock();
    await_program(gate)?;
    let hooks: Vec<HookStep> = container.state.poststart.iter().map(Into::into).collect();
    poststart(&hooks, &container.hook_state(), init)?;
    match proxy {
        Some(proxy) => proxy.wait_ready(init),
        None => Ok(()),
    }
}

/// Returns when init has read the word to start and executed its program, which closes its end of the
/// fifo; or with what kept it from that, which it writes there.
fn await_program(gate: OwnedFd) -> Result<(), Error> {
    let fail = |call| move |errno| Error::File { call, path: FIFO.into(), errno };
    wait(&gate, PollFlags::OUT).map_err(fail("poll"))?;
    // The name is gone, the fifo is not. Its writing end here keeps what init has written until there
    // is a reading end, and must not stay: nobody else's close would be the end of file.
    let reading = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let report = rustix::fs::open(format!("/proc/self/fd/{}", gate.as_raw_fd()), reading, Mode::empty())
        .map_err(fail("open"))?;
    drop(gate);
    let mut said = Vec::new();
    loop {
        wait(&report, PollFlags::IN).map_err(fail("poll"))?;
        let mut buffer = [0u8; 4096];
        match rustix::io::read(&report, &mut buffer) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(fail("read")(errno)),
        }
    }
    // An init that was killed before it read the word leaves that.
    if said.is_empty() || said == START_WORD {
        return Ok(());
    }
    Err(Error::Program(String::from_utf8_lossy(&said).into_owned()))
}

/// Returns when the descriptor is ready, or nobody holds the other end.
fn wait(fd: &OwnedFd, events: PollFlags) -> Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::new(fd, events)], None) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
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
