//! Mounts of type `cgroup`: the container's view of the cgroup hierarchies.
//!
//! With a cgroup namespace each hierarchy is mounted anew and its root is the container's cgroup;
//! without one the container's directory of each hierarchy is bound. On v1 that is a tmpfs with one
//! directory per hierarchy and links for the controllers that share one (cgroups(7)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use creel_plan::options::attr;
use creel_plan::steps::{MountStep, Parameter, Phase};
use creel_sys::Errno;
use rustix::fs::Mode;

use super::filesystem::new_filesystem;
use super::mounts::{attach, open_tree_at, set_attr};
use crate::error::{Step, StepError};

/// What a mount of type cgroup shows: known once the container's cgroup is.
#[derive(Debug, Clone, Default)]
pub enum CgroupView {
    /// No cgroup was made.
    #[default]
    None,
    /// cgroup v1, hybrid included.
    V1 {
        /// Hierarchies in the order of the host's mounts.
        hierarchies: Vec<V1Hierarchy>,
        /// The container has a cgroup namespace.
        namespaced: bool,
    },
    /// The unified hierarchy.
    V2 {
        /// The container's directory on the host.
        path: PathBuf,
        /// The container has a cgroup namespace.
        namespaced: bool,
    },
}

/// One cgroup v1 hierarchy.
#[derive(Debug, Clone)]
pub struct V1Hierarchy {
    /// Name of its directory, `cpu,cpuacct`.
    pub name: String,
    /// Mount parameters, `cpu` and `cpuacct`, or `none` and `name=systemd`.
    pub parameters: Vec<(String, Option<String>)>,
    /// The container's directory on the host.
    pub path: PathBuf,
}

/// Mounts the view on `target`.
pub fn mount(
    i: usize,
    step: &MountStep,
    view: &CgroupView,
    context: Option<&Parameter>,
    target: BorrowedFd<'_>,
) -> Result<OwnedFd, StepError> {
    let wanted = step.attr.map_or(0, |a| a.set);
    match view {
        CgroupView::None => Err(StepError::new(Phase::Mounts, i, "the container has no cgroup to show")),
        CgroupView::V1 { hierarchies, namespaced } => {
            mount_v1(i, hierarchies, *namespaced, wanted, context, target)
        }
        CgroupView::V2 { path, namespaced } => {
            // EPERM or EBUSY: in a user namespace without a cgroup namespace of its own.
            let mounted = match new_filesystem(i, "cgroup2", "cgroup", &[], wanted) {
                Ok(mount) => mount,
                Err(e) if [Errno::PERM, Errno::BUSY].iter().any(|n| n.raw_os_error() == e.errno) => {
                    let host = PathBuf::from("/sys/fs/cgroup");
                    bind(i, if *namespaced { path } else { &host }, wanted)?
                }
                Err(error) => return Err(error),
            };
            attach(i, &mounted, target)?;
            Ok(mounted)
        }
    }
}

fn bind(i: usize, source: &PathBuf, wanted: u64) -> Result<OwnedFd, StepError> {
    let tree = open_tree_at(rustix::fs::CWD, source, true)
        .step(Phase::Mounts, i, || format!("open_tree({source:?})"))?;
    set_attr(i, tree.as_fd(), false, wanted, 0)?;
    Ok(tree)
}

fn mount_v1(
    i: usize,
    hierarchies: &[V1Hierarchy],
    namespaced: bool,
    wanted: u64,
    context: Option<&Parameter>,
    target: BorrowedFd<'_>,
) -> Result<OwnedFd, StepError> {
    let flags = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let mode = ("mode".to_string(), Some("755".to_string()));
    let parameters: Vec<Parameter> = std::iter::once(mode).chain(context.cloned()).collect();
    let tmpfs = new_filesystem(i, "tmpfs", "tmpfs", &parameters, flags)?;
    attach(i, &tmpfs, target)?;
    for h in hierarchies {
        let tree = if namespaced {
            let source = if h.name == "systemd" { "systemd" } else { "cgroup" };
            new_filesystem(i, "cgroup", source, &h.parameters, flags | wanted)?
        } else {
            bind(i, &h.path, flags | wanted)?
        };
        rustix::fs::mkdirat(&tmpfs, h.name.as_str(), Mode::from_raw_mode(0o755)).step(
            Phase::Mounts,
            i,
            || format!("mkdir({})", h.name),
        )?;
        rustix::mount::move_mount(
            &tree,
            "",
            &tmpfs,
            h.name.as_str(),
            rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .step(Phase::Mounts, i, || format!("move_mount({})", h.name))?;
        if h.name.contains(',') {
            for link in h.name.split(',') {
                rustix::fs::symlinkat(h.name.as_str(), &tmpfs, link)
                    .step(Phase::Mounts, i, || format!("symlink({link})"))?;
            }
        }
    }
    if wanted & attr::RDONLY != 0 {
        set_attr(i, tmpfs.as_fd(), false, attr::RDONLY, 0)?;
    }
    Ok(tmpfs)
}
