//! Kernel parameters and oom_score_adj, written through the host's procfs ([`crate::procfs`]).
//!
//! The files under /proc/sys that are per namespace act on the namespaces of the process that opens
//! them.

use creel_plan::steps::{Phase, Sysctl};

use super::InitResources;
use crate::error::StepError;

pub fn write_all(sysctls: &[Sysctl], resources: &InitResources) -> Result<(), StepError> {
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = format!("sys/{}", sysctl.path);
        resources.proc(Phase::Sysctls)?.write(Phase::Sysctls, i, &path, sysctl.value.as_bytes())?;
    }
    Ok(())
}

/// Also for the exec process, before it leaves the host's namespaces.
pub fn write_oom_score_adj(score: i32, resources: &InitResources) -> Result<(), StepError> {
    let text = score.to_string();
    resources.proc(Phase::OomScoreAdj)?.write(Phase::OomScoreAdj, 0, "self/oom_score_adj", text.as_bytes())
}
