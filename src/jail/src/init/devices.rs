//! Device nodes and the links of /dev.
//!
//! Every node is made below a handle of its parent directory and checked by type and number before
//! its owner and mode are set: an image whose /dev is a link, or that races, gets nothing made
//! outside (CVE-2026-41579).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use creel_plan::steps::{DeviceStep, Phase};
use creel_sys::Errno;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::mounts::open_tree_at;
use crate::error::{Step, StepError};
use crate::rooted::{Parents, Root};

pub fn make_nodes(steps: &[DeviceStep], root: &Root) -> Result<(), StepError> {
    let mut parents = Parents::new(root);
    for (i, step) in steps.iter().enumerate() {
        let (parent, name) =
            parents.of(&step.path).step(Phase::Devices, i, || format!("directory of {:?}", step.path))?;
        if step.bind {
            bind_node(i, step, parent, &name)?;
            continue;
        }
        match make_node(i, step, parent, &name) {
            Err(e) if e.errno == Errno::PERM.raw_os_error() => bind_node(i, step, parent, &name)?,
            other => other?,
        }
    }
    Ok(())
}

fn make_node(i: usize, step: &DeviceStep, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), StepError> {
    let kind = FileType::from_raw_mode(step.kind);
    let dev = rustix::fs::makedev(step.major, step.minor);
    let mode = Mode::from_raw_mode(step.mode);
    match rustix::fs::mknodat(parent, name, kind, mode, dev) {
        // What the image brought stays, as with runc.
        Err(Errno::EXIST) => return Ok(()),
        other => other
            .step(Phase::Devices, i, || format!("mknod({:?}, {}:{})", step.path, step.major, step.minor))?,
    }
    let node =
        rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .step(Phase::Devices, i, || format!("open({:?})", step.path))?;
    let stat = rustix::fs::fstat(&node).step(Phase::Devices, i, || format!("stat({:?})", step.path))?;
    let is_device = kind != FileType::Fifo;
    if FileType::from_raw_mode(stat.st_mode) != kind || (is_device && stat.st_rdev != dev) {
        return Err(StepError::new(
            Phase::Devices,
            i,
            format!("{:?} is not the node that was just made", step.path),
        ));
    }
    // The umask is 0, so the mode is right already.
    if step.uid != 0 || step.gid != 0 {
        rustix::fs::chownat(
            &node,
            "",
            Some(Uid::from_raw(step.uid)),
            Some(Gid::from_raw(step.gid)),
            AtFlags::EMPTY_PATH,
        )
        .step(Phase::Devices, i, || format!("chown({:?}, {}, {})", step.path, step.uid, step.gid))?;
    }
    Ok(())
}

/// The host's node of the same path, on what the image has there or on an empty file.
fn bind_node(i: usize, step: &DeviceStep, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), StepError> {
    let source = open_tree_at(rustix::fs::CWD, &step.path, false)
        .step(Phase::Devices, i, || format!("bind source {:?}", step.path))?;
    let stat = rustix::fs::fstat(&source).step(Phase::Devices, i, || format!("stat({:?})", step.path))?;
    let kind = FileType::from_raw_mode(step.kind);
    let dev = rustix::fs::makedev(step.major, step.minor);
    if FileType::from_raw_mode(stat.st_mode) != kind || (kind != FileType::Fifo && stat.st_rdev != dev) {
        let (major, minor) = (step.major, step.minor);
        let why = format!("the host's {:?} is not the device {major}:{minor}", step.path);
        return Err(StepError::new(Phase::Devices, i, why));
    }
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = match rustix::fs::openat(parent, name, handle, Mode::empty()) {
        Err(Errno::NOENT) => rustix::fs::openat(parent, name, make, Mode::empty()),
        other => other,
    }
    .step(Phase::Devices, i, || format!("create({:?})", step.path))?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&source, "", target.as_fd(), "", flags)
        .step(Phase::Devices, i, || format!("move_mount({:?})", step.path))
}

pub fn make_links(links: &[(&'static str, &'static str)], root: &Root) -> Result<(), StepError> {
    let mut parents = Parents::new(root);
    for (i, (path, target)) in links.iter().enumerate() {
        // The container's ptmx is its own devpts' one, whatever the image says.
        if *path == "/dev/ptmx" {
            parents.remove(path).step(Phase::Links, i, || format!("unlink({path:?})"))?;
        }
        if *path == "/dev/core" && root.resolve(target).is_err() {
            continue;
        }
        parents.link(path, target).step(Phase::Links, i, || format!("symlink({path:?}, {target:?})"))?;
    }
    Ok(())
}
