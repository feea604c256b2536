//! Mounts that CRIU neither saves nor makes: what is bound from the host.
//!
//! On dump CRIU is told which mount points of the container are external, and a name for each; on
//! restore, which tree of the host goes by that name. The name is the mount's place below the root file system
//! as the host sees it, which is what runc takes: its images can be restored by creel, and creel's by it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use creel_jail::CgroupView;
use creel_jail::rooted::Root;
use creel_plan::steps::{Hide, MountSource, MountStep, Plan};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags};

use crate::Error;

/// What stands for a masked file.
pub const NULL: &str = "/dev/null";

/// A mount that is external.
#[derive(Debug, Clone, PartialEq)]
pub struct External<'p> {
    /// Path in the container as the config has it, or as creel chose it.
    pub destination: String,
    /// Where it comes from.
    pub source: Source<'p>,
}

/// Where an external mount comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'p> {
    /// A bind mount of the plan, with its number.
    Bind(usize, &'p MountStep),
    /// A path of the host.
    Path(&'p Path),
    /// The null device over a masked file.
    Null,
}

/// All external mounts of a plan. The cgroup hierarchies are external where they were bound: on v1 without
/// a cgroup namespace.
pub fn mounts<'p>(plan: &'p Plan, view: &'p CgroupView) -> Vec<External<'p>> {
    let mut all = Vec::new();
    for (i, step) in plan.init.mounts.iter().enumerate() {
        match (&step.source, view) {
            (MountSource::Bind { .. }, _) => {
                all.push(External { destination: step.destination.clone(), source: Source::Bind(i, step) });
            }
            (MountSource::Cgroup { .. }, CgroupView::V1 { hierarchies, namespaced: false }) => {
                all.extend(hierarchies.iter().map(|h| External {
                    destination: format!("{}/{}", step.destination, h.name),
                    source: Source::Path(&h.path),
                }));
            }
            (
                MountSource::Cgroup { .. } | MountSource::FileSystem { .. } | MountSource::Remount { .. },
                _,
            ) => {}
        }
    }
    let masked = plan.init.hide.iter().filter(|step| matches!(step.how, Hide::Mask { .. }));
    all.extend(masked.map(|step| External { destination: step.path.clone(), source: Source::Null }));
    let bound = plan.init.devices.iter().filter(|step| step.bind);
    all.extend(bound.map(|step| External {
        destination: step.path.clone(),
        source: Source::Path(Path::new(&step.path)),
    }));
    all
}

/// Opens a directory as a root to look below.
pub fn open_root(path: &Path) -> Result<Root, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::file("open", path))?;
    Ok(Root::new(dir))
}

/// The name of an external mount: its place with the links of the root file system followed, as far as the host
/// sees it; the rest may lie in what is mounted there.
pub fn name(rootfs: &Root, destination: &str) -> String {
    let below = |handle: OwnedFd| -> Option<String> {
        let (path, base) = (path_of(handle.as_fd())?, path_of(rootfs.as_fd())?);
        let inside = path.strip_prefix(base.trim_end_matches('/'))?;
        (inside.is_empty() || inside.starts_with('/')).then(|| inside.to_string())
    };
    let (mut known, mut rest) = (destination, "");
    loop {
        if let Some(inside) = rootfs.resolve(known).ok().and_then(below) {
            return format!("{inside}{rest}");
        }
        match known.rfind('/') {
            None | Some(0) => return destination.to_string(),
            Some(slash) => (known, rest) = destination.split_at(slash),
        }
    }
}

/// The mount point at `destination` in a running container, as its mountinfo has it, and whether it is
/// a directory. None where nothing is mounted.
pub fn mount_point(container: &Root, destination: &str) -> Option<(String, bool)> {
    let handle = container.resolve(destination).ok()?;
    let stat = rustix::fs::statx(&handle, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return None;
    }
    let directory = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory;
    Some((path_of(handle.as_fd())?, directory))
}

/// The path of a handle in its mount namespace (proc_pid_fd(5)).
fn path_of(fd: BorrowedFd<'_>) -> Option<String> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
    link.into_string().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_follow_the_links_of_the_root_and_stay_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/conf")).unwrap();
        symlink("/real/conf", dir.path().join("conf")).unwrap();
        symlink("../../../..", dir.path().join("up")).unwrap();
        let root = open_root(dir.path()).unwrap();
        assert_eq!(name(&root, "/conf"), "/real/conf");
        assert_eq!(name(&root, "/real/conf"), "/real/conf");
        assert_eq!(name(&root, "/conf/below/it"), "/real/conf/below/it");
        assert_eq!(name(&root, "/not/there"), "/not/there");
        assert_eq!(name(&root, "/up/real"), "/real");
    }

    #[test]
    fn only_a_mount_has_a_mount_point() {
        let host = open_root(Path::new("/")).unwrap();
        assert_eq!(mount_point(&host, "/proc"), Some(("/proc".into(), true)));
        assert_eq!(mount_point(&host, "/proc/self/status"), None);
        assert_eq!(mount_point(&host, "/nowhere"), None);
    }
}
