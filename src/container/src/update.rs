//! `update`: other limits for a container that has been created and is not stopped.

use creel_plan::spec::Resources;

use crate::state::Container;
use crate::{Error, Runtime};

/// `update`: changes the limits that `resources` names and leaves every other as it is, device rules
/// among them.
pub fn update(runtime: &Runtime, id: &str, resources: &Resources) -> Result<(), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    if container.living_init().is_none() {
        return Err(Error::Status("container not running"));
    }
    Ok(container.cgroup().update(resources)?)
}
