//! Loading a filter: seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Result, check};

/// SECCOMP_FILTER_FLAG_NEW_LISTENER: the call returns a notify descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// Installs a classic BPF program.
///
/// Returns the notify descriptor when `flags` has [`FLAG_NEW_LISTENER`]. EINVAL when the kernel
/// refuses the program or a flag, EACCES without no_new_privs or CAP_SYS_ADMIN.
pub fn load(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let len = u16::try_from(program.len()).map_err(|_| crate::Errno::INVAL)?;
    let prog = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: Instruction has the layout of sock_filter; the kernel reads `len` of them from the
    // slice, which lives through the call, and writes none.
    let ret =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const prog) })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with FLAG_NEW_LISTENER the return value is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as i32) }))
}
