//! The mount namespace that CRIU restores in.
//!
//! CRIU wants the container's root to be a mount whose parent nothing covers, and external mounts as
//! paths. Both are made in a mount namespace of their own, which lives as long as the CRIU that
//! inherits it: a restore that fails, or is killed, leaves no mount on the host. The host process is in it
//! only until CRIU has started; hooks and all that comes after run where they were.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_jail::{Failed, InitResources};
use creel_plan::names::NamespaceKind;
use creel_plan::options::ms;
use creel_plan::steps::{MountSource, MountStep, Plan};
use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use creel_sys::process::{SingleThreaded, setns, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use crate::Error;
use crate::criu::external::open_root;
use crate::store::StateDir;

/// Directory in the state directory on which it all is mounted.
const DIRECTORY: &str = "criu";

/// The calling process in a mount namespace of its own. Dropped, or by [`Stage::leave`], it is back.
pub struct Stage {
    place: PathBuf,
    /// By index of the mount: whether its source is put here, since it is not just a path of the host.
    staged: Vec<bool>,
    home: Option<Home>,
}

/// Where the process was.
struct Home {
    namespace: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

impl Stage {
    /// Enters a new namespace and makes in it what CRIU needs.
    pub fn enter(dir: &StateDir, plan: &Plan, rootfs: &Path) -> Result<Stage, Error> {
        let place = dir.file(DIRECTORY);
        rustix::fs::mkdirat(dir, DIRECTORY, Mode::from_raw_mode(0o711))
            .map_err(Error::file("mkdir", &place))?;
        let home = Home::here()?;
        unshare(NamespaceKind::Mount.clone_flag(), &SingleThreaded::witness())
            .map_err(Error::file("unshare", "mount namespace"))?;
        let mut stage = Stage { place, staged: Vec::new(), home: Some(home) };
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .map_err(Error::file("mount(rslave)", "/"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", &stage.place, "tmpfs", flags, Some(c"mode=711"))
            .map_err(Error::file("mount", &stage.place))?;
        let root = clone_of(CWD, rootfs, true).map_err(Error::file("open_tree", rootfs))?;
        stage.attach(&root, &stage.root())?;
        stage.put_idmapped(plan)?;
        stage.make_mount_points(plan)?;
        Ok(stage)
    }

    /// Where CRIU finds the root.
    pub fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// Where CRIU finds the source of bind mount number `i`. A path of the host, where that will do: CRIU
    /// takes from the mount that it lies on what the container's mounts were slaves of.
    pub fn bind(&self, i: usize, step: &MountStep) -> PathBuf {
        match &step.source {
            MountSource::Bind { source, .. } if !self.staged.get(i).is_some_and(|staged| *staged) => {
                PathBuf::from(source)
            }
            MountSource::Bind { .. }
            | MountSource::FileSystem { .. }
            | MountSource::Cgroup { .. }
            | MountSource::Remount { .. } => self.place.join(i.to_string()),
        }
    }

    /// Back to where the process was.
    pub fn leave(mut self) -> Result<(), Error> {
        self.home.take().map_or(Ok(()), |home| home.return_to())
    }

    fn attach(&self, tree: &OwnedFd, path: &Path) -> Result<(), Error> {
        if is_directory(tree.as_fd()).map_err(Error::file("stat", path))? {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map_err(Error::file("mkdir", path))?;
        } else {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(Error::file("create", path))?;
        }
        move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(Error::file("move_mount", path))
    }

    /// CRIU binds a source as it is: one whose owners are mapped is made beforehand.
    fn put_idmapped(&mut self, plan: &Plan) -> Result<(), Error> {
        let joins = creel_jail::open_joins(&plan.host.joins)?;
        let mut resources = InitResources { joins, ..InitResources::default() };
        creel_jail::open_sources(plan, &mut resources)?;
        self.staged = resources.sources.iter().map(Option::is_some).collect();
        for (i, source) in resources.sources.iter().enumerate() {
            if let Some(source) = source {
                self.attach(&source.tree, &self.place.join(i.to_string()))?;
            }
        }
        Ok(())
    }

    /// Makes in the root file system, and in what is bound into it, the places for the config's mounts, as
    /// the first start of the container did: they may be gone, or this is another machine. What lies in a
    /// tmpfs is in the image, and so are the directories of the cgroup hierarchies.
    fn make_mount_points(&self, plan: &Plan) -> Result<(), Error> {
        let place = self.place.join("new");
        self.attach(&private_clone(&self.root(), true)?, &place)?;
        let root = open_root(&place)?;
        for (i, step) in plan.init.mounts.iter().enumerate() {
            if matches!(step.source, MountSource::Cgroup { .. }) || is_on_tmpfs(step, &plan.init.mounts) {
                continue;
            }
            let failed =
                |errno| Failed::host(format!("mount point {:?}", step.destination), errno).at(&step.at);
            let MountSource::Bind { recursive, .. } = &step.source else {
                root.directory(&step.destination).map_err(failed)?;
                continue;
            };
            let tree = private_clone(&self.bind(i, step), *recursive)?;
            let point = if is_directory(tree.as_fd()).map_err(failed)? {
                root.directory(&step.destination)
            } else {
                root.file(&step.destination)
            };
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(tree, "", point.map_err(failed)?, "", flags)
                .map_err(|errno| Failed::host("move_mount", errno).at(&step.at))?;
        }
        drop(root);
        unmount(&place, UnmountFlags::DETACH).map_err(Error::file("umount", &place))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        if let Err(error) = home.return_to() {
            tracing::warn!("{error}");
            // Whoever removes the state directory now must not go on into the container's root.
            creel_sys::best_effort(unmount(&self.place, UnmountFlags::DETACH));
        }
    }
}

impl Home {
    fn here() -> Result<Home, Error> {
        let open = |path: &str, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(Error::file("open", path))
        };
        Ok(Home {
            namespace: open("/proc/self/ns/mnt", OFlags::RDONLY)?,
            root: open("/", OFlags::PATH | OFlags::DIRECTORY)?,
            directory: open(".", OFlags::PATH | OFlags::DIRECTORY)?,
        })
    }

    /// setns(2) makes the root of the namespace the process's root and working directory.
    fn return_to(&self) -> Result<(), Error> {
        let fail = |call| move |errno| Error::File { call, path: "mount namespace".into(), errno };
        let flag = NamespaceKind::Mount.clone_flag();
        setns(self.namespace.as_fd(), flag, &SingleThreaded::witness()).map_err(fail("setns"))?;
        rustix::process::fchdir(&self.root).map_err(fail("fchdir"))?;
        rustix::process::chroot(".").map_err(fail("chroot"))?;
        rustix::process::fchdir(&self.directory).map_err(fail("fchdir"))
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Whether CRIU restores the place of this mount as part of a tmpfs.
fn is_on_tmpfs(step: &MountStep, mounts: &[MountStep]) -> bool {
    mounts.iter().any(|other| {
        matches!(&other.source, MountSource::FileSystem { fstype, .. } if fstype == "tmpfs")
            && Path::new(&step.destination).starts_with(&other.destination)
            && step.destination != other.destination
    })
}

/// open_tree(2) with OPEN_TREE_CLONE.
fn clone_of(dir: BorrowedFd<'_>, path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(dir, path.as_ref(), flags)
}

/// A copy in which mounts can be made without the host's seeing them.
fn private_clone(path: &Path, recursive: bool) -> Result<OwnedFd, Error> {
    let clone = clone_of(CWD, path, recursive).map_err(Error::file("open_tree", path))?;
    let private = MountAttr { propagation: ms::PRIVATE, ..MountAttr::default() };
    mount_setattr(clone.as_fd(), true, &private).map_err(Error::file("mount_setattr", path))?;
    Ok(clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(destination: &str, fstype: &str) -> MountStep {
        let source = MountSource::FileSystem {
            fstype: fstype.into(),
            source: String::new(),
            parameters: Vec::new(),
            copy_up: false,
            label: None,
        };
        let destination = destination.into();
        MountStep {
            at: String::new(),
            destination,
            source,
            attr: None,
            recursive: None,
            propagation: Vec::new(),
            taken_back: 0,
            nofollow: false,
        }
    }

    #[test]
    fn what_lies_on_a_tmpfs_is_in_the_image() {
        let all = [step("/dev", "tmpfs"), step("/dev/pts", "devpts"), step("/devices", "sysfs")];
        let on: Vec<bool> = all.iter().map(|one| is_on_tmpfs(one, &all)).collect();
        assert_eq!(on, [false, true, false]);
    }
}
