//! Root switch: make the prepared tree `/` and let go of the host's tree.
//!
//! The container's tree is attached at its own path, where the hooks that enter init's mount namespace
//! look for it; where a user namespace makes that path unreachable, on top of init's own `/`. Either
//! way it is used by its handle, which cannot be swapped.

use std::os::fd::{AsFd, OwnedFd};

use creel_plan::options::{attr, ms};
use creel_plan::steps::{MountStep, Phase, RootSwitch, Rootfs, Seal};
use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};

use super::mounts::{open_sources, open_tree_at};
use super::{InitResources, hide};
use crate::error::{Step, StepError};
use crate::hooks::HookState;
use crate::process::{is_null, reopen_null};
use crate::rooted::Root;

/// Cuts the mount namespace loose from the host's and attaches the container's root.
pub fn attach(
    rootfs: &Rootfs,
    mounts: &[MountStep],
    resources: &mut InitResources,
) -> Result<Root, StepError> {
    let flags = MountPropagationFlags::from_bits_retain(rootfs.propagation as u32);
    if !rootfs.is_of_the_host() {
        mount_change("/", flags)
            .step(Phase::Rootfs, 0, || format!("mount(/, propagation {:#x})", rootfs.propagation))?;
    }
    if rootfs.is_shared() {
        // What is attached to a shared mount travels to the host, so the mount that holds the root
        // is made private; and the sources come first, because some may lie on that very mount.
        open_sources(mounts, resources)?;
        make_parent_private(&rootfs.path)?;
    }
    let tree = match resources.rootfs.take() {
        Some(tree) => tree,
        None => open_tree_at(CWD, &rootfs.path, true)
            .step(Phase::Rootfs, 0, || format!("open_tree({:?})", rootfs.path))?,
    };
    let handle = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = match rustix::fs::open(rootfs.path.as_str(), handle, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::open("/", handle, Mode::empty()),
        other => other,
    }
    .step(Phase::Rootfs, 0, || format!("open({:?})", rootfs.path))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &place, "", flags).step(Phase::Rootfs, 0, || "move_mount(rootfs)".into())?;
    if rootfs.is_of_the_host() {
        // What comes below it is not for the host's other mount namespaces.
        let propagation = MountPropagationFlags::PRIVATE.bits().into();
        mount_setattr(tree.as_fd(), true, &MountAttr { propagation, ..MountAttr::default() }).step(
            Phase::Rootfs,
            0,
            || "mount_setattr(rootfs, private)".into(),
        )?;
    }
    Ok(Root::new(tree))
}

/// The mount that `path` lies on: mount(2) answers EINVAL for what is no mount point.
fn make_parent_private(path: &str) -> Result<(), StepError> {
    for ancestor in std::path::Path::new(path).ancestors() {
        match mount_change(ancestor, MountPropagationFlags::PRIVATE) {
            Err(Errno::INVAL) => {}
            other => return other.step(Phase::Rootfs, 0, || format!("mount({ancestor:?}, private)")),
        }
    }
    Err(StepError::new(Phase::Rootfs, 0, "the root directory lies on no mount"))
}

/// Without a mount namespace nothing is mounted: the root is a directory of the host.
pub fn open_without_mount_namespace(state: &HookState) -> Result<Root, StepError> {
    rustix::fs::open(
        state.rootfs.as_path(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(Phase::Rootfs, 0, || format!("open({:?})", state.rootfs))
    .map(Root::new)
}

/// Makes the container's tree `/`.
pub fn switch(how: RootSwitch, rootfs: Option<&Rootfs>, root: &Root) -> Result<(), StepError> {
    rustix::process::fchdir(root).step(Phase::Root, 0, || "fchdir(rootfs)".into())?;
    match how {
        RootSwitch::Pivot => pivot(rootfs.is_some_and(Rootfs::is_shared)),
        RootSwitch::Move => {
            hide::cover_host_pseudo_filesystems(root)?;
            rustix::process::fchdir(root).step(Phase::Root, 0, || "fchdir(rootfs)".into())?;
            // What MS_MOVE does, by handle: the tree becomes the topmost mount of `/`.
            move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(
                Phase::Root,
                0,
                || "move_mount(rootfs, /)".into(),
            )?;
            change_root()
        }
        RootSwitch::Chroot => change_root(),
    }
}

/// `pivot_root(".", ".")` stacks the old root under the new one (pivot_root(2), Notes), so that the
/// image needs no directory for it; then "." is the old root, which is detached. It is made a slave
/// first where it may be shared: the detach would travel back and unmount the host's file systems.
fn pivot(shared: bool) -> Result<(), StepError> {
    rustix::process::pivot_root(".", ".").step(Phase::Root, 0, || "pivot_root(., .)".into())?;
    if shared {
        mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).step(
            Phase::Root,
            0,
            || "mount(old root, rslave)".into(),
        )?;
    }
    unmount(".", UnmountFlags::DETACH).step(Phase::Root, 0, || "umount2(old root, MNT_DETACH)".into())?;
    rustix::process::chdir("/").step(Phase::Root, 0, || "chdir(/)".into())
}

fn change_root() -> Result<(), StepError> {
    rustix::process::chroot(".").step(Phase::Root, 0, || "chroot(.)".into())?;
    rustix::process::chdir("/").step(Phase::Root, 0, || "chdir(/)".into())
}

/// Standard streams on the host's /dev/null move to the container's, if that is the real one
/// (CVE-2025-31133: an image may bring a link of that name).
pub fn adopt_null(root: &Root) -> Result<(), StepError> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    if !streams.iter().any(|fd| rustix::fs::fstat(fd).is_ok_and(|s| is_null(&s))) {
        return Ok(());
    }
    let handle = root.open("/dev/null", OFlags::PATH, rustix::fs::ResolveFlags::empty()).step(
        Phase::Root,
        0,
        || "open(/dev/null)".into(),
    )?;
    let stat = rustix::fs::fstat(&handle).step(Phase::Root, 0, || "stat(/dev/null)".into())?;
    if !is_null(&stat) {
        return Err(StepError::new(Phase::Root, 0, "the container's /dev/null is not the null device"));
    }
    // Opening a null device has no side effect, so a swap between check and use can give nothing
    // but another file, which the second check refuses.
    let null: OwnedFd = root.open("/dev/null", OFlags::RDWR, rustix::fs::ResolveFlags::empty()).step(
        Phase::Root,
        0,
        || "open(/dev/null)".into(),
    )?;
    let stat = rustix::fs::fstat(&null).step(Phase::Root, 0, || "stat(/dev/null)".into())?;
    if !is_null(&stat) {
        return Err(StepError::new(Phase::Root, 0, "the container's /dev/null is not the null device"));
    }
    reopen_null(&null)
}

/// The working directory, if it is missing. A file in the way is chdir's to report.
pub fn make_directory(root: &Root, cwd: &str) -> Result<(), StepError> {
    if cwd == "/" {
        return Ok(());
    }
    match root.directory(cwd) {
        // Not creatable (read-only root, /proc/self/fd/N, a file): chdir(2) says what is wrong.
        Ok(_)
        | Err(
            Errno::ROFS
            | Errno::ACCESS
            | Errno::PERM
            | Errno::NOTDIR
            | Errno::NOENT
            | Errno::LOOP
            | Errno::XDEV,
        ) => Ok(()),
        Err(errno) => Err(errno).step(Phase::Cwd, 0, || format!("mkdir({cwd:?})")),
    }
}

/// Last touches on the root's own mount.
pub fn seal(plan: Seal, root: &Root) -> Result<(), StepError> {
    if let Some(propagation) = plan.propagation {
        let attr = MountAttr { propagation: propagation & !ms::REC, ..MountAttr::default() };
        mount_setattr(root.as_fd(), propagation & ms::REC != 0, &attr)
            .step(Phase::Seal, 0, || format!("mount_setattr(/, propagation {propagation:#x})"))?;
    }
    if plan.readonly {
        let attr = MountAttr { attr_set: attr::RDONLY, ..MountAttr::default() };
        mount_setattr(root.as_fd(), false, &attr)
            .step(Phase::Seal, 1, || "mount_setattr(/, rdonly)".into())?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    Ok(())
}
