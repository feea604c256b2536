//! Waiting with a deadline.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// How long anything may take. Long, because the machine may be busy; a test that meets it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `fd` is readable; false when the time is over.
///
/// # Panics
/// When poll(2) fails.
pub fn readable(fd: impl AsFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Polls `condition` every few milliseconds until it holds.
///
/// # Panics
/// When it does not hold within [`DEADLINE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        pause();
    }
}

/// The interval between two looks at a condition that the kernel gives no event for.
pub(crate) fn pause() {
    let interval = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
    poll(&mut [], Some(&interval)).ok();
}

/// Waits until the file holds something that `seen` accepts, and returns it.
///
/// # Panics
/// When that does not happen within [`DEADLINE`].
pub fn for_text(path: &Path, seen: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    until(&format!("content of {}", path.display()), || {
        text =
            std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        seen(&text)
    });
    text
}

/// Reads what comes until the other end closes.
///
/// # Panics
/// When it stays open longer than [`DEADLINE`].
pub fn read_to_end(fd: OwnedFd) -> Vec<u8> {
    let mut file = std::fs::File::from(fd);
    let mut all = Vec::new();
    let mut some = [0; 4096];
    loop {
        assert!(
            readable(&file, DEADLINE),
            "the other end stays open; so far: {}",
            String::from_utf8_lossy(&all)
        );
        match file.read(&mut some) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&some[..count]),
            // A pty's master answers EIO when the last slave is closed (pty(7)).
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return all,
            Err(error) => panic!("read: {error}"),
        }
    }
}

/// A process that is not a child that std knows: found by number, held by pidfd.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// The process `pid`, if there is one.
    pub fn open(pid: i32) -> Option<Process> {
        let pid = Pid::from_raw(pid)?;
        Some(Process { pid, fd: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until it has exited, and reaps it when it is ours: exit code, or 128 + signal.
    ///
    /// # Panics
    /// When it lives longer than [`DEADLINE`].
    pub fn exited(&self) -> Option<i32> {
        assert!(readable(&self.fd, DEADLINE), "process {} still runs", self.pid());
        let status = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED).ok()??;
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| signal + 128))
    }

    /// Whether it has exited already.
    pub fn is_dead(&self) -> bool {
        readable(&self.fd, Duration::ZERO)
    }
}
