//! One creel at a time talks to systemd.
//!
//! PID 1 has one thread, so nothing is lost by waiting outside, and much is gained: on its own
//! socket it tells everyone who is connected of every unit that changes, which for fifty callers at once
//! is fifty times the work. The lock is a courtesy: who does not get it soon goes on without.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// A directory of systemd's with mode 0000, so that root alone can open it: a user who could hold the
/// lock could hold up every container.
const PLACE: &str = "/run/systemd/inaccessible/dir";
/// As long as the holder may wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The right to talk, for as long as it lives.
#[derive(Debug)]
pub struct Turn {
    _lock: Option<OwnedFd>,
}

impl Turn {
    /// Waits for it, but not for long.
    pub fn take() -> Turn {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(place) = open(PLACE, flags, Mode::empty()) else { return Turn { _lock: None } };
        let end = Instant::now() + PATIENCE;
        let mut delay = Duration::from_micros(500);
        loop {
            match flock(&place, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Turn { _lock: Some(place) },
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    thread::sleep(delay);
                    delay = (delay * 2).min(Duration::from_millis(8));
                }
                Err(_) => return Turn { _lock: None },
            }
        }
    }
}
