//! Who is inside, and signals to all of them.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::dir;
use crate::error::Error;
use crate::record::{Cgroup, CgroupDir};
use crate::tree;

/// Passes over a cgroup that could not be frozen and keeps growing.
const KILL_PASSES: u32 = 100;

impl Cgroup {
    /// Process ids in the cgroup, `recursive`ly with its descendants. A cgroup that is gone holds
    /// none.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        self.members().map_or(Ok(Vec::new()), |dir| dir.pids(recursive))
    }

    /// Signals every process of the cgroup and its descendants. SIGKILL takes effect also on a
    /// frozen container: cgroup.kill (5.14) does so by itself, a v1 freezer is thawed.
    pub fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        if signal == Signal::KILL {
            if let Some(dir) = self.unified() {
                match dir.write("cgroup.kill", "1") {
                    // On a hybrid host somebody may have joined the v1 hierarchies alone.
                    Ok(()) if self.dirs.len() == 1 => return Ok(()),
                    Ok(()) => {}
                    Err(error) if error.errno().is_some_and(dir::is_gone) => {}
                    // A threaded cgroup, whose processes may have threads in others (cgroups(7)).
                    Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.signal_each(signal)
    }

    /// Freezes so that nobody forks away, signals, and thaws. A container that was frozen before
    /// stays so unless the signal is SIGKILL.
    fn signal_each(&self, signal: Signal) -> Result<(), Error> {
        if self.pids(true)?.is_empty() {
            return Ok(());
        }
        let was_frozen = self.is_frozen()?;
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.signal_passes(signal, if frozen { 1 } else { KILL_PASSES });
        if frozen && (!was_frozen || signal == Signal::KILL) {
            match self.thaw() {
                Err(error) if !error.errno().is_some_and(dir::is_gone) => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
        result
    }

    fn signal_passes(&self, signal: Signal, passes: u32) -> Result<(), Error> {
        let mut done: Vec<i32> = Vec::new();
        for _ in 0..passes {
            let new: Vec<i32> = self.pids(true)?.into_iter().filter(|pid| !done.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in &new {
                let Some(target) = Pid::from_raw(*pid) else { continue };
                match kill_process(target, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(Error::Call { call: "kill", path: pid.to_string(), errno }),
                }
            }
            done.extend(new);
        }
        Ok(())
    }

    /// How many processes of the cgroup the OOM killer has killed. `None` when the kernel does not
    /// say.
    pub fn oom_kill_count(&self) -> Option<u64> {
        let dir = self.controller("memory")?;
        let file = if dir.is_unified() { "memory.events" } else { "memory.oom_control" };
        value_of(&dir.read(file).ok()?, "oom_kill")
    }
}

/// Value of `key` in a file of `key value` lines.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

impl CgroupDir {
    pub(crate) fn pids(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        let fd = match self.fd() {
            Ok(fd) => fd,
            Err(error) if error.errno().is_some_and(dir::is_gone) => return Ok(pids),
            Err(error) => return Err(error),
        };
        let collected = match recursive {
            true => tree::walk(fd.as_fd(), &mut |dir| collect(dir, &mut pids), &mut |_, _| Ok(())),
            false => collect(fd.as_fd(), &mut pids),
        };
        match collected {
            Err(errno) if !dir::is_gone(errno) => return Err(self.error("read", "cgroup.procs", errno)),
            _ => {}
        }
        Ok(pids)
    }
}

fn collect(dir: BorrowedFd<'_>, pids: &mut Vec<i32>) -> rustix::io::Result<()> {
    let text = match dir::read(dir, "cgroup.procs") {
        // A threaded cgroup has no cgroup.procs to read (admin-guide/cgroup-v2, Threads).
        Err(Errno::OPNOTSUPP) => dir::read(dir, "cgroup.threads"),
        other => other,
    };
    match text {
        // A process of another pid namespace reads as 0.
        Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse().ok()).filter(|pid: &i32| *pid > 0)),
        Err(errno) if dir::is_gone(errno) => {}
        Err(errno) => return Err(errno),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_values_match_whole_keys() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(value_of(text, "oom_kill"), Some(2));
        assert_eq!(value_of(text, "oom"), Some(3));
        assert_eq!(value_of(text, "kill"), None);
    }
}
