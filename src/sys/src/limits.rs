//! Resource limits by number: prlimit64(2). rustix's enum cannot name a limit that it does not know.

use crate::{Result, check};

/// Sets limit number `resource` (RLIMIT_*) of process `pid`, 0 being the caller.
///
/// EPERM when raising a hard limit without CAP_SYS_RESOURCE, EINVAL when soft exceeds hard.
pub fn set(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads `limit`, which lives through the call; the old limit is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}
