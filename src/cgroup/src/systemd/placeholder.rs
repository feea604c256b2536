//! The process that a scope is started with.
//!
//! A scope without a process is refused, and one that loses its last is taken down. The placeholder is
//! a clone of the host that closes everything and waits for the end of a pipe, so that it goes with
//! a host that is killed. It is killed and reaped once init is in the scope.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use creel_sys::process::{Forked, SingleThreaded, clone3};
use rustix::pipe::PipeFlags;

use crate::error::Error;

/// A process that waits. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
    /// Its life: the other end of what it reads.
    _pipe: OwnedFd,
}

impl Placeholder {
    pub(crate) fn clone_host() -> Result<Placeholder, Error> {
        let failed = |call| move |errno| Error::Call { call, path: "placeholder".to_owned(), errno };
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"))?;
        match clone3(0, None, &SingleThreaded::witness()).map_err(failed("clone3"))? {
            Forked::Child => {
                // Neither the host's lock nor the caller's pipes may be held by it, nor the pipe's
                // other end.
                let closed = creel_sys::fd::close_all_but(0, &[read.as_raw_fd()]);
                if closed.is_ok() {
                    let mut byte = [0u8; 1];
                    while rustix::io::read(&read, &mut byte) == Err(rustix::io::Errno::INTR) {}
                }
                creel_sys::process::exit(0)
            }
            Forked::Parent { pid, pidfd } => Ok(Placeholder { pid, pidfd, _pipe: write }),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        const SIGKILL: i32 = 9;
        creel_sys::best_effort(creel_sys::process::pidfd_send_signal(self.pidfd.as_fd(), SIGKILL));
        creel_sys::best_effort(creel_sys::process::wait(self.pid));
    }
}
