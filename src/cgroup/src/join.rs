//! How the container's processes get into the cgroup.
//!
//! Moving another task takes a global lock behind a grace period (10 ms and more), so nobody is
//! moved: on v1 each single-threaded child writes `0` to its own `tasks` through fds it inherits,
//! on v2 and for the v2 tree of a hybrid host it is cloned into the directory
//! (CLONE_INTO_CGROUP, clone(2), Linux 5.7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::dir;
use crate::error::Error;
use crate::host::{Host, Mode, read_proc_bytes};
use crate::record::{Cgroup, CgroupDir};

/// What a new process needs to be in the cgroup. The fds are close-on-exec.
#[derive(Debug)]
pub struct Join {
    /// `tasks` files, write-only: the child writes `0` to each while it has one thread.
    pub tasks: Vec<OwnedFd>,
    /// Directory for CLONE_INTO_CGROUP.
    pub into: Option<OwnedFd>,
}

/// `exec --cgroup`: controllers (none means every hierarchy) and a path below the container's
/// cgroup.
pub type SubCgroups = [(Vec<String>, String)];

impl Cgroup {
    /// v1: the `tasks` file of each hierarchy, write-only; v2: `cgroup.procs` of a directory that was
    /// there before, see [`Cgroup::clone_into`].
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>, Error> {
        let open = |dir: &CgroupDir| match dir.is_unified() {
            false => Some(dir.open_file("", "tasks")),
            true => (!dir.fresh).then(|| dir.open_file("", "cgroup.procs")),
        };
        self.dirs.iter().filter_map(open).collect()
    }

    /// v2 and hybrid: the directory for CLONE_INTO_CGROUP, if this command made it. The kernel (6.18)
    /// kills a child that is cloned into a cgroup to which `cgroup.kill` was ever written, because it
    /// compares the count of kills with that of the parent's own cgroup.
    pub fn clone_into(&self) -> Result<Option<BorrowedFd<'_>>, Error> {
        self.unified().filter(|dir| dir.fresh).map(CgroupDir::fd).transpose()
    }

    /// As the two above, for a process of `exec`, with sub-cgroups that the container made.
    pub fn exec_join(&self, sub: &SubCgroups) -> Result<Join, Error> {
        for (controllers, path) in sub {
            if path.split('/').any(|part| part == "..") {
                return Err(Error::SubCgroup(format!("bad sub cgroup path: {path}")));
            }
            for controller in controllers {
                if self.mode == Mode::V2 {
                    let why =
                        format!("sub cgroup {controller}:{path}: cgroup v2 has one path for all controllers");
                    return Err(Error::SubCgroup(why));
                }
                if !self.dirs.iter().any(|d| d.names(controller)) {
                    return Err(Error::SubCgroup(format!("unknown controller {controller} in --cgroup")));
                }
            }
        }
        let mut join = Join { tasks: Vec::with_capacity(self.dirs.len()), into: None };
        for dir in &self.dirs {
            let path = sub_path(dir, sub);
            let opened = if dir.is_unified() {
                dir.open_sub(&path).map(|fd| join.into = Some(fd))
            } else {
                dir.open_file(&path, "tasks").map(|fd| join.tasks.push(fd))
            };
            // The words that people who grep runc's errors know.
            opened.map_err(|error| match path.as_str() {
                "" => error,
                _ => Error::SubCgroup(format!(
                    "--cgroup {path}: adding pid of the process to the cgroup: {error}"
                )),
            })?;
        }
        Ok(join)
    }

    /// v2: the cgroup in which the container's init is now. An init that made cgroups of its own
    /// (systemd, docker in docker) has moved out of the container's. Once that hands down domain
    /// controllers it takes no process (EBUSY, cgroups(7), "no internal processes"), and exec joins init
    /// instead, as with runc. `None` where the container has no cgroup (rootless) or no single one.
    pub fn clone_into_cgroup_of(&self, init: i32) -> Result<Option<OwnedFd>, Error> {
        if self.mode != Mode::V2 || self.dirs.is_empty() {
            return Ok(None);
        }
        let Some(mount) = Host::detect()?.v2 else { return Ok(None) };
        let entries = read_proc_bytes(&format!("/proc/{init}/cgroup"))?;
        let Some(path) = unified_path(&mount.point, &entries) else { return Ok(None) };
        let shown = || String::from_utf8_lossy(&path).into_owned();
        let dir =
            dir::open(path.as_slice()).map_err(|errno| Error::Call { call: "open", path: shown(), errno })?;
        Ok(Some(dir))
    }
}

/// The cgroup of /proc/PID/cgroup below the mount point. `None` for one that is not below: a part of the
/// path above the root of the own cgroup namespace is shown as `..` (cgroup_namespaces(7)).
fn unified_path(mount: &str, entries: &[u8]) -> Option<Vec<u8>> {
    let inner = entries.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    let is_above = inner.split(|byte| *byte == b'/').any(|part| part == b"..");
    (!is_above).then(|| [mount.as_bytes(), inner].concat())
}

/// Where the directory lies that was opened for CLONE_INTO_CGROUP.
pub fn path_of(dir: &OwnedFd) -> Result<String, Error> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let path = rustix::fs::readlink(link.as_str(), Vec::new()).map_err(|errno| Error::Call {
        call: "readlink",
        path: link,
        errno,
    })?;
    Ok(path.to_string_lossy().into_owned())
}

/// The sub-path for a hierarchy: one that names a controller of it, else one for all, else none.
fn sub_path(dir: &CgroupDir, sub: &SubCgroups) -> String {
    let named = sub.iter().find(|(controllers, _)| controllers.iter().any(|c| dir.names(c)));
    let chosen = named.or_else(|| sub.iter().find(|(controllers, _)| controllers.is_empty()));
    chosen.map(|(_, path)| crate::path::clean(path)).unwrap_or_default()
}

impl CgroupDir {
    /// As [`CgroupDir::has`], where a named hierarchy also goes without its `name=`.
    fn names(&self, controller: &str) -> bool {
        self.record.controllers.iter().any(|c| c == controller || c.strip_prefix("name=") == Some(controller))
    }

    fn open_file(&self, sub: &str, name: &str) -> Result<OwnedFd, Error> {
        let file = crate::path::join(sub, name);
        dir::open_write(self.fd()?, &file).map_err(|errno| self.error("open", &file, errno))
    }

    fn open_sub(&self, sub: &str) -> Result<OwnedFd, Error> {
        let fd = self.fd()?;
        let opened = if sub.is_empty() {
            fd.as_fd()
                .try_clone_to_owned()
                .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::MFILE))
        } else {
            dir::open_below(fd, sub)
        };
        opened.map_err(|errno| self.error("open", sub, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_not_below_the_mount_has_no_path() {
        let path = |entries: &[u8]| unified_path("/cg", entries);
        assert_eq!(path(b"4:pids:/x\n0::/a/odd\xff\n"), Some(b"/cg/a/odd\xff".to_vec()));
        assert_eq!(path(b"0::/\n"), Some(b"/cg/".to_vec()));
        assert_eq!(path(b"0::/../a\n"), None);
        assert_eq!(path(b"4:pids:/x\n"), None);
    }
}
