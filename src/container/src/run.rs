//! `run`: create and start, and unless detached wait, forward and delete.

use crate::create::{Draft, Made, Then, make};
use crate::foreground::{Signals, Waiter};
use crate::notify::Proxy;
use crate::protect::protect_own_binary;
use crate::state::{Container, hook_state};
use crate::store::StateDir;
use crate::undo::Undo;
use crate::{CreateRequest, Error, RunMode, Runtime, delete, start};

/// `run`. The container's exit code, 0 when detached.
pub fn run(runtime: &Runtime, request: &CreateRequest, mode: RunMode) -> Result<u8, Error> {
    let protection = protect_own_binary()?;
    tracing::debug!("run: {runtime:?}");
    let detached = matches!(mode, RunMode::Detached);
    let draft = Draft::read(runtime, request, detached)?;
    // From here on an interrupt must not leave a half-made container: in the foreground signals wait
    // until the container can have them.
    let signals = if detached { None } else { Some(Signals::block()?) };
    let dir = StateDir::make(&runtime.root, &request.id)?;
    let Made { undo, child, state, init, console } = make(runtime, request, &draft, &dir, Then::Start)?;
    let proxy = request.notify_socket.as_deref().map(|socket| Proxy::bind(&dir, socket)).transpose()?;
    if let RunMode::Foreground { subreaper: true, .. } = mode {
        crate::foreground::become_subreaper()?;
    }
    // Before the program can ask for it.
    console.iter().for_each(crate::terminal::copy_size);
    let pidfd = child.start()?;
    drop(protection);
    tracing::debug!("init: closing the pipe to signal completion: its program runs");
    // From now on the container can be stopped, deleted and entered by others.
    dir.unlock();
    if !draft.poststart().is_empty() {
        if let Err(error) = start::poststart(draft.poststart(), &hook_state(&state, init.pid), init) {
            take_back(undo, &dir);
            return Err(error);
        }
    }
    undo.keep();
    let RunMode::Foreground { keep, .. } = mode else {
        if let Some(proxy) = proxy {
            proxy.wait_ready(init)?;
        }
        return Ok(0);
    };
    let waiter = Waiter { pid: init.pid, pidfd, console, signals, proxy };
    let code = waiter.wait();
    if !keep {
        match dir.lock() {
            Ok(()) => delete::destroy(&Container { dir, state, init: Some(init) })?,
            // Somebody else was faster.
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    code
}

/// Takes a container back that others could get at meanwhile: only under the lock is it known to be the
/// one that was made here, and not another of the same id.
fn take_back(undo: Undo<'_>, dir: &StateDir) {
    match dir.lock() {
        Ok(()) => drop(undo),
        Err(Error::NotFound) => undo.keep(),
        Err(error) => {
            tracing::warn!("undo: {error}");
            undo.keep();
        }
    }
}
