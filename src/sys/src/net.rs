//! The loopback interface.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// Sets IFF_UP on `lo` in the network namespace of the socket: SIOCSIFFLAGS of netdevice(7).
pub fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one ifreq, which lives through the call. Each C library has a type of its
    // own for the request.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    }))
    .map(drop)
}
