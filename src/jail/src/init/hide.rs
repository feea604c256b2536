//! Masked and read-only paths.
//!
//! Runs in **init** after the root switch, so that paths mean the container's own files. What covers
//! a path is verified by inode or made here; one tmpfs serves all masked directories, because each
//! superblock costs memory and shrinker work on the whole machine (runc#5275).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use creel_plan::options::attr;
use creel_plan::steps::{Hide, HideStep, Parameter, Phase};
use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use rustix::fs::FileType;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};

use super::filesystem::new_filesystem;
use super::mounts::open_tree_at;
use crate::error::{Step, StepError};
use crate::process::is_null;
use crate::rooted::Root;

/// Mounts that cover things: made at the first need, then cloned from where they are attached.
/// (A detached mount that is dropped unused would cost a grace period: look before making.)
#[derive(Default)]
struct Covers {
    directory: Option<OwnedFd>,
    file: Option<OwnedFd>,
}

pub fn hide_all(steps: &[HideStep], root: &Root) -> Result<(), StepError> {
    let mut covers = Covers::default();
    for (i, step) in steps.iter().enumerate() {
        let target = match root.resolve(&step.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.step(Phase::Hide, i, || format!("open({:?})", step.path))?,
        };
        match &step.how {
            Hide::Mask { context } => mask(i, step, context.as_ref(), &target, root, &mut covers)?,
            Hide::Readonly => readonly(i, &target)?,
        }
    }
    Ok(())
}

fn mask(
    i: usize,
    step: &HideStep,
    context: Option<&Parameter>,
    target: &OwnedFd,
    root: &Root,
    covers: &mut Covers,
) -> Result<(), StepError> {
    let stat = rustix::fs::fstat(target).step(Phase::Hide, i, || format!("stat({:?})", step.path))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let cover = if directory { &mut covers.directory } else { &mut covers.file };
    let mount = match cover {
        Some(first) => {
            open_tree_at(first.as_fd(), "", false).step(Phase::Hide, i, || "open_tree(mask)".into())?
        }
        None if directory => empty_directory(i, context)?,
        None => null_device(i, root)?,
    };
    attach(i, &mount, target)?;
    cover.get_or_insert(mount);
    Ok(())
}

/// An empty tmpfs that cannot be written to.
fn empty_directory(i: usize, context: Option<&Parameter>) -> Result<OwnedFd, StepError> {
    let one = || Some("1".to_string());
    let limits =
        [("nr_blocks".to_string(), one()), ("nr_inodes".to_string(), one()), ("ro".to_string(), None)];
    let parameters: Vec<Parameter> = limits.into_iter().chain(context.cloned()).collect();
    new_filesystem(i, "tmpfs", "tmpfs", &parameters, attr::RDONLY)
        .map_err(|e| StepError { phase: Phase::Hide, ..e })
}

/// The container's /dev/null, which may be the image's: only the real device hides anything
/// (CVE-2025-31133).
fn null_device(i: usize, root: &Root) -> Result<OwnedFd, StepError> {
    let handle = root.resolve("/dev/null").step(Phase::Hide, i, || "open(/dev/null)".into())?;
    let stat = rustix::fs::fstat(&handle).step(Phase::Hide, i, || "stat(/dev/null)".into())?;
    if !is_null(&stat) {
        return Err(StepError::new(Phase::Hide, i, "the container's /dev/null is not the null device"));
    }
    open_tree_at(handle.as_fd(), "", false).step(Phase::Hide, i, || "open_tree(/dev/null)".into())
}

/// A read-only copy of the path's own tree on itself.
fn readonly(i: usize, target: &OwnedFd) -> Result<(), StepError> {
    let tree =
        open_tree_at(target.as_fd(), "", true).step(Phase::Hide, i, || "open_tree(readonly path)".into())?;
    let change = MountAttr { attr_set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), true, &change).step(Phase::Hide, i, || "mount_setattr(rdonly)".into())?;
    attach(i, &tree, target)
}

fn attach(i: usize, mount: &OwnedFd, target: &OwnedFd) -> Result<(), StepError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).step(Phase::Hide, i, || "move_mount".into())
}

/// `--no-pivot` leaves the host's tree under the container's, reachable for a process that may
/// chroot: whole procfs and sysfs mounts in it are unmounted, or covered where that is refused.
/// (Without this the kernel would also let the container mount its own unmasked procfs.)
pub fn cover_host_pseudo_filesystems(own: &Root) -> Result<(), StepError> {
    let link = format!("/proc/self/fd/{}", own.as_fd().as_raw_fd());
    let own = rustix::fs::readlink(link, Vec::new()).step(Phase::Root, 0, || "readlink(rootfs)".into())?;
    let own = own.to_string_lossy().into_owned();
    let text = read_file("/proc/self/mountinfo")?;
    for (fstype, root, point) in text.lines().filter_map(mountinfo_fields) {
        if root != "/" || (fstype != "proc" && fstype != "sysfs") {
            continue;
        }
        let point = unescape(point);
        // The container's own, unless its tree lies on `/` itself.
        if own != "/" && point.strip_prefix(&own).is_some_and(|rest| rest.starts_with('/')) {
            continue;
        }
        match mount_change(point.as_str(), MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC) {
            // Gone with a parent, or not reachable by this path (inside the container's tree).
            Err(Errno::NOENT | Errno::INVAL) => continue,
            other => other.step(Phase::Root, 0, || format!("mount({point:?}, rslave)"))?,
        }
        match unmount(point.as_str(), UnmountFlags::DETACH) {
            Err(Errno::INVAL | Errno::PERM) => {
                let cover = empty_directory(0, None)?;
                move_mount(
                    &cover,
                    "",
                    rustix::fs::CWD,
                    point.as_str(),
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )
                .step(Phase::Root, 0, || format!("cover {point:?}"))?;
            }
            other => other.step(Phase::Root, 0, || format!("umount2({point:?})"))?,
        }
    }
    Ok(())
}

fn read_file(path: &str) -> Result<String, StepError> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(
        Phase::Root,
        0,
        || format!("open({path})"),
    )?;
    let mut text = Vec::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match rustix::io::read(&fd, &mut buffer).step(Phase::Root, 0, || format!("read({path})"))? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
}

/// `(type, root, mount point)` of a line of proc_pid_mountinfo(5).
fn mountinfo_fields(line: &str) -> Option<(&str, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    Some((right.split(' ').next()?, root, point))
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let digits = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if bytes[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_give_type_root_and_point() {
        let line = r"36 35 98:0 / /mnt\0402 rw,noatime shared:1 - proc proc rw";
        assert_eq!(mountinfo_fields(line), Some(("proc", "/", r"/mnt\0402")));
        assert_eq!(unescape(r"/mnt\0402"), "/mnt 2");
        assert_eq!(mountinfo_fields("garbage"), None);
    }
}
