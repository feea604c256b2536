//! Taking the directories away.
//!
//! Only what creel made goes, with what the container made inside it. Processes are never moved:
//! a cgroup that cannot be emptied is reported with the pids in it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::dir;
use crate::error::Error;
use crate::record::{Cgroup, CgroupDir};
use crate::tree;

/// How long the last processes may take to leave after they were killed.
const DEADLINE: Duration = Duration::from_secs(4);
const LONGEST_DELAY: Duration = Duration::from_millis(128);

impl Cgroup {
    /// Removes the directories that [`Cgroup::create`] made; waits up to four seconds for the last
    /// processes to leave.
    pub fn destroy(&self) -> Result<(), Error> {
        self.destroy_within(DEADLINE)
    }

    /// As [`Cgroup::destroy`] with another deadline, which all hierarchies share.
    pub fn destroy_within(&self, deadline: Duration) -> Result<(), Error> {
        // A scope keeps its placeholder no longer than itself.
        self.birth.take();
        self.stop_unit();
        let mut errors = Vec::new();
        let mut busy = Vec::new();
        for dir in self.dirs.iter().filter(|d| d.record.made > 0) {
            match remove_dir(&dir.record.path) {
                Ok(()) => {}
                Err(errno) if is_busy(errno) => busy.push(dir),
                Err(errno) => errors.push(dir.error("rmdir", "", errno)),
            }
        }
        remove_busy(busy, deadline, &mut errors);
        for dir in self.dirs.iter().filter(|d| d.record.made > 1) {
            if let Err(error) = dir.remove_parents() {
                errors.push(error);
            }
        }
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Error::Several(errors))
            }
        }
    }
}

/// A busy directory has children, or processes that are about to leave: the last exit is
/// visible to its parent before the cgroup is free.
fn remove_busy(mut busy: Vec<&CgroupDir>, deadline: Duration, errors: &mut Vec<Error>) {
    let end = Instant::now() + deadline;
    let mut delay = Duration::from_millis(1);
    while !busy.is_empty() {
        let last = Instant::now() >= end;
        busy.retain(|dir| match remove_tree(&dir.record.path) {
            Ok(()) => false,
            Err(errno) if is_busy(errno) && !last => true,
            Err(errno) => {
                errors.push(Error::Busy {
                    path: dir.record.path.clone(),
                    pids: dir.pids(true).unwrap_or_default(),
                    errno,
                });
                false
            }
        });
        if !busy.is_empty() {
            thread::sleep(delay);
            delay = LONGEST_DELAY.min(delay * 2);
        }
    }
}

impl CgroupDir {
    /// Removes what was made for a directory that cannot be used.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        if self.record.made == 0 {
            return Ok(());
        }
        remove_dir(&self.record.path).map_err(|errno| self.error("rmdir", "", errno))?;
        self.remove_parents()
    }

    /// Parents made by creel go too, unless others have moved in.
    fn remove_parents(&self) -> Result<(), Error> {
        let mut path = self.record.path.as_str();
        for _ in 1..self.record.made {
            let Some((parent, _)) = path.rsplit_once('/') else { break };
            path = parent;
            match remove_dir(path) {
                Ok(()) => {}
                Err(errno) if is_busy(errno) => break,
                Err(errno) => return Err(Error::Call { call: "rmdir", path: path.to_owned(), errno }),
            }
        }
        Ok(())
    }
}

fn is_busy(errno: Errno) -> bool {
    errno == Errno::BUSY || errno == Errno::NOTEMPTY
}

/// rmdir(2); a directory that is gone is fine, also when EROFS hides that.
fn remove_dir(path: &str) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ROFS) if dir::open(path).is_err_and(dir::is_gone) => Ok(()),
        other => other,
    }
}

/// Children first, and all of them: the directory's own rmdir reports what is left.
fn remove_tree(path: &str) -> rustix::io::Result<()> {
    match dir::open(path).and_then(tree::remove_below) {
        Err(errno) if dir::is_gone(errno) => Ok(()),
        _ => remove_dir(path),
    }
}
