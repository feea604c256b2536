//! The system calls that rustix and nix lack, or that run after clone.
//!
//! The only crate with `unsafe`. It takes `&CStr` and `BorrowedFd`, returns [`Errno`], and knows
//! nothing of OCI. Everything else comes from rustix.

pub mod bpf;
pub mod fd;
pub mod heap;
pub mod keys;
pub mod limits;
pub mod mount;
pub mod net;
pub mod own_binary;
pub mod process;
pub mod sched;
pub mod seccomp;

pub use rustix::io::Errno;

/// `Result` with the kernel's error number.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the C convention (-1 and errno) into a `Result`.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(last_errno()) } else { Ok(ret) }
}

/// errno(3) of the calling thread.
fn last_errno() -> Errno {
    // SAFETY: __errno_location returns a valid thread-local pointer for the thread's whole life.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Drops the result of a call whose failure changes nothing for the caller: cleaning up, or speaking
/// to a process that may be gone.
pub fn best_effort<T>(_: Result<T>) {}
