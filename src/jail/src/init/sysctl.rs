//! Kernel parameters and oom_score_adj, written through the host's procfs.
//!
//! Runs in **init** before the root switch: /proc is still the host's mount, which no image and no
//! volume can have replaced (CVE-2019-16884, CVE-2025-52881), while the files under /proc/sys that
//! are per namespace act on the namespaces of the process that opens them.

use creel_plan::steps::{Phase, Sysctl};
use rustix::fs::{Mode, OFlags};

use crate::error::{Step, StepError};

/// statfs(2) f_type of procfs.
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Opens the host's /proc and makes sure that it is one.
fn host_proc(phase: Phase, index: usize) -> Result<rustix::fd::OwnedFd, StepError> {
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(phase, index, || "open(/proc)".into())?;
    let kind = rustix::fs::fstatfs(&proc).step(phase, index, || "statfs(/proc)".into())?.f_type;
    if kind != PROC_SUPER_MAGIC {
        return Err(StepError::new(phase, index, "the host's /proc is not a procfs"));
    }
    Ok(proc)
}

fn write(phase: Phase, index: usize, path: &str, value: &[u8]) -> Result<(), StepError> {
    let proc = host_proc(phase, index)?;
    let file = rustix::fs::openat(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(
        phase,
        index,
        || format!("open(/proc/{path})"),
    )?;
    rustix::io::write(&file, value)
        .step(phase, index, || format!("write(/proc/{path}, {:?})", String::from_utf8_lossy(value)))?;
    Ok(())
}

pub fn write_all(sysctls: &[Sysctl]) -> Result<(), StepError> {
    for (i, sysctl) in sysctls.iter().enumerate() {
        write(Phase::Sysctls, i, &format!("sys/{}", sysctl.path), sysctl.value.as_bytes())?;
    }
    Ok(())
}

/// Also for the exec process, before it leaves the host's mount namespace.
pub fn write_oom_score_adj(score: i32) -> Result<(), StepError> {
    write(Phase::OomScoreAdj, 0, "self/oom_score_adj", score.to_string().as_bytes())
}
