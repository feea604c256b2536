//! Where and how the calling thread is scheduled: CPUs, policy, I/O priority, memory nodes, and the
//! execution domain. Kernel headers' numbers; what they mean is the caller's.

use crate::{Result, check};

/// Argument of sched_setattr(2), `struct sched_attr` of linux/sched/types.h, first version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Size of this struct; [`set_scheduler`] fills it in.
    pub size: u32,
    /// SCHED_*
    pub policy: u32,
    /// SCHED_FLAG_*
    pub flags: u64,
    /// Nice value, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Static priority, for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// Sets the policy of the calling thread: sched_setattr(2).
///
/// EPERM without CAP_SYS_NICE, and for SCHED_DEADLINE where the thread may not run on every CPU.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes of `attr`, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets the I/O priority of the calling thread: ioprio_set(2). `value` is the class shifted by 13
/// bits, and the level.
pub fn set_io_priority(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the calling thread's default memory policy: set_mempolicy(2). `mode` has the flags in it;
/// `nodes` is a bit mask, lowest node first, which may be empty.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // get_nodes() of mm/mempolicy.c takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits of the mask, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the execution domain of the calling thread: personality(2).
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: a plain integer.
    check(libc::c_long::from(unsafe { libc::personality(libc::c_ulong::from(domain)) })).map(drop)
}

/// Binds the calling thread to the CPUs of a bit mask, lowest first: sched_setaffinity(2).
///
/// EINVAL when none of them may be used.
pub fn set_affinity(mask: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `mask`, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) }).map(drop)
}

/// The CPUs that the calling thread may run on, lowest first: sched_getaffinity(2).
pub fn affinity() -> Result<Vec<u8>> {
    /// CPUs that the kernel can be built for, rounded up.
    const MAX_CPUS: usize = 64 * 1024;
    let mut mask = vec![0u8; MAX_CPUS / 8];
    // SAFETY: the kernel writes at most `len` bytes into `mask`.
    let len = check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len(), mask.as_mut_ptr()) })?;
    mask.truncate(len as usize);
    Ok(mask)
}
