//! File descriptor tables.

use std::os::fd::RawFd;

use crate::{Result, check};

/// Sets close-on-exec on every open descriptor from `first` on: close_range(2) with
/// CLOSE_RANGE_CLOEXEC, Linux 5.11.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    // SAFETY: close_range(2) takes plain integers and touches no memory.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Closes every open descriptor from `first` on but those in `keep`, sorted: close_range(2) over the
/// gaps. For a child after clone, whose parent's owners of these descriptors will never run.
pub fn close_all_but(first: RawFd, keep: &[RawFd]) -> Result<()> {
    let mut from = first as libc::c_uint;
    for &fd in keep.iter().filter(|&&fd| fd >= first) {
        let fd = fd as libc::c_uint;
        if fd > from {
            // SAFETY: plain integers; the caller says that nothing in the gap is used any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd + 1;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) }).map(drop)
}

/// Opens /dev/null for each of the standard streams that is closed.
pub fn open_standard_streams() -> Result<()> {
    for fd in 0..=2 {
        // SAFETY: F_GETFD reads a flag; the path is a C string. The descriptor that open(2) returns is
        // the lowest free one, which is `fd`, and stays open for the life of the process.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                check(libc::c_long::from(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR)))?;
            }
        }
    }
    Ok(())
}

/// Clears close-on-exec on a descriptor number that the caller does not own as an `OwnedFd`, one of
/// `--preserve-fds`. EBADF when it is not open.
pub fn keep_on_exec(fd: RawFd) -> Result<()> {
    // SAFETY: F_SETFD takes an integer; a wrong descriptor gives EBADF.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })).map(drop)
}

/// Whether the descriptor number is open and survives execve(2): what was passed to this program
/// does, what it opened itself does not.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag; a wrong descriptor gives EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Makes `from` the descriptor number `to` (0, 1 or 2), without close-on-exec: dup2(2).
pub fn replace_stdio(from: std::os::fd::BorrowedFd<'_>, to: RawFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    assert!((0..=2).contains(&to), "only standard streams are replaced by number");
    // SAFETY: descriptors 0 to 2 are never owned by an OwnedFd in creel, so nothing is closed
    // behind an owner's back.
    check(libc::c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(drop)
}

/// Takes over a descriptor that the caller passed to this program by number. None when that number is not
/// open, or is one that the program opened itself, which is close-on-exec.
pub fn take_inherited(fd: RawFd) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    if fd <= 2 || !is_inherited(fd) {
        return None;
    }
    // SAFETY: the descriptor is open, and by the test above nothing in this process owns it.
    let owned = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    // SAFETY: F_SETFD on an open descriptor takes an integer.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })).ok()?;
    Some(owned)
}
