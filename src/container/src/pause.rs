//! `pause` and `resume`: stop every process of a container where it stands, and let them go on.
//!
//! Under the lock, so that the status that allows it is still the status when the cgroup changes.

use crate::state::Container;
use crate::{Error, Runtime, Status};

/// `pause`. Returns when every process has stopped.
pub fn pause(runtime: &Runtime, id: &str) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    match container.status()? {
        Status::Created | Status::Running => Ok(container.cgroup().freeze()?),
        // runc's word for both.
        Status::Paused | Status::Stopped => Err(Error::Status("container not running")),
    }
}

/// `resume`
pub fn resume(runtime: &Runtime, id: &str) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    match container.status()? {
        Status::Paused => Ok(container.cgroup().thaw()?),
        Status::Created | Status::Running | Status::Stopped => Err(Error::Status("container not paused")),
    }
}
