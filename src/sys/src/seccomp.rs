//! Loading a filter: seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Result, check};

/// SECCOMP_FILTER_FLAG_NEW_LISTENER: the call returns a notify descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Installs a classic BPF program, given as the bytes of its `struct sock_filter` array.
///
/// Returns the notify descriptor when `flags` has [`FLAG_NEW_LISTENER`]. EINVAL when the kernel
/// refuses the program or a flag, EACCES without no_new_privs or CAP_SYS_ADMIN.
pub fn load(program: &[u8], flags: u32) -> Result<Option<OwnedFd>> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let size = size_of::<libc::sock_filter>();
    // The bytes may have come from a file and need not be aligned.
    let filter: Vec<libc::sock_filter> = program
        .chunks_exact(size)
        .map(|chunk| libc::sock_filter {
            code: u16::from_ne_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| crate::Errno::INVAL)?;
    let prog = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which lives through the call.
    let ret = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const prog)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with FLAG_NEW_LISTENER the return value is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as i32) }))
}
