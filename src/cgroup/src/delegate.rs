//! Handing the cgroup to the container (cgroups(7), "Cgroups delegation"): v2 only, since nothing
//! on v1 keeps a cgroup's owner below the limits that were set for it.

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::io::Errno;

use crate::create::{hand_down, make_dirs};
use crate::dir;
use crate::error::Error;
use crate::host::Mode;
use crate::path::{clean, join};
use crate::record::{Cgroup, CgroupDir};

/// Which files the owner of a cgroup may write; newer kernels have more than cgroups(7) names.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
const DEFAULT: &str = "cgroup.procs cgroup.threads cgroup.subtree_control";

impl Cgroup {
    /// Gives the directory and the files that are for delegation to a user of the host, so that the
    /// container may make cgroups in it (config-linux.md, "Cgroup ownership"). Its limits stay out
    /// of reach.
    pub fn give_to(&self, uid: u32) -> Result<(), Error> {
        if self.mode != Mode::V2 || uid == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        self.unified().map_or(Ok(()), |dir| give(dir, "", uid, None)).or_else(|error| self.forgive(error))
    }

    /// Moves init into a cgroup below the container's and gives that to the container's root
    /// (`run.oci.delegate-cgroup`). The limits are above, where the container cannot write.
    pub fn delegate_below(&self, name: &str, pid: i32, owner: (u32, u32)) -> Result<(), Error> {
        let dir = match self.unified().filter(|_| self.mode == Mode::V2) {
            Some(dir) => dir,
            None => return Err(Error::NoCgroup("delegate: a delegated cgroup needs cgroup v2")),
        };
        if name.split('/').any(|part| part == "..") || clean(name).is_empty() {
            return Err(Error::SubCgroup(format!("bad delegated cgroup: {name}")));
        }
        let name = clean(name);
        make_dirs(&dir.record.path, &name)?;
        let procs = join(&name, "cgroup.procs");
        dir.write(&procs, &pid.to_string())?;
        // The container's own cgroup is empty now, and may hand its controllers down.
        hand_down(&dir.record.path, &dir.read("cgroup.controllers")?);
        give(dir, &name, owner.0, Some(owner.1)).or_else(|error| self.forgive(error))
    }

    /// A rootless creel gives away what it may; the rest is its user's as it is.
    fn forgive(&self, error: Error) -> Result<(), Error> {
        if self.rootless && error.is_permission() { Ok(()) } else { Err(error) }
    }
}

fn give(dir: &CgroupDir, below: &str, uid: u32, gid: Option<u32>) -> Result<(), Error> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
    let fd = dir.fd()?;
    let chown = |path: &str| match chownat(fd, path, uid, gid, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT) if !path.is_empty() => Ok(()),
        other => other.map_err(|errno| dir.error("chown", path, errno)),
    };
    chown(below)?;
    let files = dir::read(CWD, DELEGATE).unwrap_or_else(|_| DEFAULT.to_owned());
    files.split_whitespace().try_for_each(|file| chown(&join(below, file)))
}
