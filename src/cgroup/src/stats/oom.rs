//! When the OOM killer was at work in a cgroup, and when there is nobody left to kill.
//!
//! v1 signals an eventfd that was registered with `cgroup.event_control` for `memory.oom_control`
//! (admin-guide/cgroup-v1/memory, OOM Control), and signals it once more when the cgroup is removed.
//! v2 changes `memory.events`, and `cgroup.events` when the last process has gone; inotify(7)
//! reports both.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::dir;
use crate::error::Error;
use crate::host::Hierarchy;
use crate::processes::value_of;
use crate::record::{Cgroup, CgroupDir};

const V1_FILE: &str = "memory.oom_control";
const V1_CONTROL: &str = "cgroup.event_control";
const V2_FILE: &str = "memory.events";
const V2_MEMBERS: &str = "cgroup.events";

/// What a watch has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// Nothing to report.
    Nothing,
    /// A process could not get memory within the limit.
    Oom,
    /// The cgroup is gone, or on v2 nobody is inside any more.
    Gone,
}

/// A watch on a cgroup. Poll its descriptor for reading, then ask for [`OomWatch::next`].
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    dir: CgroupDir,
    hierarchy: Hierarchy,
    /// v2: how many were killed when we last looked.
    killed: Cell<u64>,
}

impl Cgroup {
    /// Starts to watch.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        let dir =
            self.controller("memory").ok_or(Error::NoCgroup("watch for OOM without a memory controller"))?;
        let dir = CgroupDir::new(dir.record.clone());
        let hierarchy = self.mode.hierarchy();
        let (fd, killed) = match hierarchy {
            Hierarchy::V1 => (dir.register_v1()?, 0),
            Hierarchy::V2 => (dir.register_v2()?, dir.killed_v2()?),
        };
        Ok(OomWatch { fd, dir, hierarchy, killed: Cell::new(killed) })
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomWatch {
    /// What happened since the last call. Does not wait.
    pub fn next(&self) -> Result<OomEvent, Error> {
        let mut buffer = [0u8; 4096];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return self.look(false),
            Err(errno) => return Err(self.dir.error("read", "events", errno)),
        }
        self.look(true)
    }

    fn look(&self, signalled: bool) -> Result<OomEvent, Error> {
        match self.hierarchy {
            Hierarchy::V1 => {
                let there = self.dir.fd().is_ok_and(|fd| dir::open_write(fd, V1_CONTROL).is_ok());
                Ok(match (there, signalled) {
                    (false, _) => OomEvent::Gone,
                    (true, true) => OomEvent::Oom,
                    (true, false) => OomEvent::Nothing,
                })
            }
            Hierarchy::V2 => self.look_v2(),
        }
    }

    /// A kill is reported before the end that it may bring.
    fn look_v2(&self) -> Result<OomEvent, Error> {
        let killed = match self.dir.killed_v2() {
            Ok(killed) => killed,
            Err(error) if error.errno().is_some_and(dir::is_gone) => return Ok(OomEvent::Gone),
            Err(error) => return Err(error),
        };
        if self.killed.replace(killed) < killed {
            return Ok(OomEvent::Oom);
        }
        let populated = match self.dir.read(V2_MEMBERS) {
            Ok(text) => value_of(&text, "populated") != Some(0),
            Err(error) if error.errno().is_some_and(dir::is_gone) => false,
            Err(error) => return Err(error),
        };
        Ok(if populated { OomEvent::Nothing } else { OomEvent::Gone })
    }
}

impl CgroupDir {
    fn register_v1(&self) -> Result<OwnedFd, Error> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| self.error("eventfd", "", errno))?;
        let watched =
            dir::open_read(self.fd()?, V1_FILE).map_err(|errno| self.error("open", V1_FILE, errno))?;
        let order = format!("{} {}", raw(&fd), raw(&watched));
        self.write(V1_CONTROL, &order)?;
        Ok(fd)
    }

    fn register_v2(&self) -> Result<OwnedFd, Error> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| self.error("inotify_init", "", errno))?;
        for file in [V2_FILE, V2_MEMBERS] {
            match inotify::add_watch(&fd, self.file(file).as_str(), WatchFlags::MODIFY) {
                Ok(_) => {}
                // The memory controller was not handed down to this cgroup: there are no limits.
                Err(Errno::NOENT) if file == V2_FILE => {}
                Err(errno) => return Err(self.error("inotify_add_watch", file, errno)),
            }
        }
        Ok(fd)
    }

    fn killed_v2(&self) -> Result<u64, Error> {
        match self.read(V2_FILE) {
            Ok(text) => Ok(value_of(&text, "oom_kill").unwrap_or(0)),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd()
}
