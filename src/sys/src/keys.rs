//! Session keyrings: keyctl(2).

use std::ffi::CStr;

use crate::{Result, check};

/// KEYCTL_JOIN_SESSION_KEYRING: makes or joins the named session keyring, returns its serial.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the kernel reads the nul-terminated name and keeps no pointer to it.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(|serial| serial as i32)
}

/// KEYCTL_SETPERM: replaces the permission mask (keyctl_setperm(3)).
pub fn set_permissions(serial: i32, mask: u32) -> Result<()> {
    const KEYCTL_SETPERM: libc::c_long = 5;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, mask) }).map(drop)
}

/// KEYCTL_DESCRIBE: `type;uid;gid;perm;description` of a key.
pub fn describe(serial: i32) -> Result<String> {
    const KEYCTL_DESCRIBE: libc::c_long = 6;
    let mut buffer = [0u8; 512];
    // SAFETY: the kernel writes at most buffer.len() bytes into the buffer, which outlives the call.
    let written = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, serial, buffer.as_mut_ptr(), buffer.len())
    })?;
    let end = usize::try_from(written).unwrap_or(0).min(buffer.len());
    Ok(String::from_utf8_lossy(&buffer[..end]).trim_end_matches('\0').to_string())
}
