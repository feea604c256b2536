//! `update`: other limits for a container that has been created and is not stopped.

use creel_cgroup::stats::rdt;
use creel_plan::spec::Resources;

use crate::state::Container;
use crate::{Error, Runtime};

/// Lines for the schemata of the container's resctrl group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdtSchemata {
    /// `--l3-cache-schema`: `L3:0=f;1=f0`.
    pub l3_cache: Option<String>,
    /// `--mem-bw-schema`: `MB:0=20;1=70`.
    pub mem_bw: Option<String>,
}

/// `update`: changes the limits that `resources` and `rdt` name and leaves every other as it is,
/// device rules among them.
pub fn update(runtime: &Runtime, id: &str, resources: &Resources, rdt: &RdtSchemata) -> Result<(), Error> {
    // runc's words where a machine has no such thing.
    if rdt.l3_cache.is_some() && !rdt::is_enabled("L3") {
        return Err(Error::Status("Intel RDT/CAT: l3 cache schema is not enabled"));
    }
    if rdt.mem_bw.is_some() && !rdt::is_enabled("MB") {
        return Err(Error::Status("Intel RDT/MBA: memory bandwidth schema is not enabled"));
    }
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    let Some(init) = container.living_init() else {
        return Err(Error::Status("container not running"));
    };
    container.cgroup().update(resources)?;
    let lines: Vec<&str> = [&rdt.l3_cache, &rdt.mem_bw].into_iter().flatten().map(String::as_str).collect();
    if lines.is_empty() { Ok(()) } else { Ok(rdt::set_schemata(init.pid, &lines)?) }
}
