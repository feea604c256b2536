//! `ps`: who is in a container, by the cgroup and not by the pid namespace, which need not be its own.

use crate::state::Container;
use crate::{Error, Runtime};

/// Pids of the container's cgroup and those below it, ascending, in the pid namespace of the caller.
/// A stopped container has none. Some may be gone again unless the container is paused.
pub fn pids(runtime: &Runtime, id: &str) -> Result<Vec<i32>, Error> {
    let mut pids = Container::open(runtime, id)?.cgroup().pids(true)?;
    pids.sort_unstable();
    Ok(pids)
}
