//! Pause and resume.
//!
//! v1 (and hybrid, where engines look at it): the freezer controller. v2: cgroup.freeze (5.2).

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::dir;
use crate::error::Error;
use crate::processes::value_of;
use crate::record::{Cgroup, CgroupDir};

/// Longest time a freeze may take.
const DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// The directory whose freezer counts.
    pub(crate) fn freezer(&self) -> Option<&CgroupDir> {
        self.dirs.iter().find(|d| d.has("freezer")).or_else(|| self.unified())
    }

    /// Stops every process of the cgroup and returns when all have stopped.
    pub fn freeze(&self) -> Result<(), Error> {
        let dir = self.freezer().ok_or(Error::NoCgroup("toggle freezer"))?;
        let result = if dir.is_unified() { dir.freeze_v2() } else { dir.freeze_v1() };
        if result.is_err() {
            // Half frozen is the worst state: nothing runs and nothing says so. The first error
            // is the one to report.
            dir.thaw().ok();
        }
        result
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.freezer().ok_or(Error::NoCgroup("toggle freezer"))?.thaw()
    }

    /// Whether the cgroup itself was frozen, not only an ancestor of it. One that is gone, or has
    /// no freezer, is not.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let Some(dir) = self.freezer() else { return Ok(false) };
        let file = if dir.is_unified() { "cgroup.freeze" } else { "freezer.self_freezing" };
        match dir.read_value(file) {
            Ok(state) => match state.trim() {
                "1" => Ok(true),
                "0" => Ok(false),
                found => Err(Error::Malformed { path: dir.file(file), found: found.to_owned() }),
            },
            Err(error) if error.errno().is_some_and(dir::is_gone) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl CgroupDir {
    fn thaw(&self) -> Result<(), Error> {
        if self.is_unified() {
            self.write("cgroup.freeze", "0")
        } else {
            self.write("freezer.state", "THAWED")
        }
    }

    /// The v1 freezer misses processes that are being forked or moved in: the state stays FREEZING
    /// until it is written again, and now and then only a thaw in between helps.
    fn freeze_v1(&self) -> Result<(), Error> {
        const FILE: &str = "freezer.state";
        let start = Instant::now();
        for turn in 1u32.. {
            self.write(FILE, "FROZEN")?;
            match self.read(FILE)?.trim() {
                "FROZEN" => return Ok(()),
                "FREEZING" => {}
                found => return Err(Error::Malformed { path: self.file(FILE), found: found.to_owned() }),
            }
            if start.elapsed() > DEADLINE {
                break;
            }
            if turn % 50 == 0 {
                self.thaw()?;
                thread::sleep(Duration::from_millis(10));
            } else if turn % 10 == 0 {
                thread::sleep(Duration::from_micros(100));
            }
        }
        Err(Error::FreezeTimeout { path: self.record.path.clone() })
    }

    /// cgroup.events turns to `frozen 1` when the last process has stopped, and wakes poll(2).
    fn freeze_v2(&self) -> Result<(), Error> {
        const FILE: &str = "cgroup.events";
        self.write("cgroup.freeze", "1")?;
        let events = dir::open_read(self.fd()?, FILE).map_err(|errno| self.error("open", FILE, errno))?;
        let end = Instant::now() + DEADLINE;
        loop {
            let text = dir::read_at_start(&events).map_err(|errno| self.error("read", FILE, errno))?;
            match value_of(&text, "frozen") {
                Some(1) => return Ok(()),
                Some(_) => {}
                None => return Err(Error::Malformed { path: self.file(FILE), found: text }),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::FreezeTimeout { path: self.record.path.clone() });
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error("poll", FILE, errno)),
            }
        }
    }
}
