//! New instances of file systems, as detached mounts: fsopen(2), or mount(2) for what that cannot take.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::annotations::MOUNT_CONTEXTS;
use creel_plan::steps::{Attr, MountSource, MountStep, Parameter, Phase};
use creel_sys::Errno;
use rustix::fs::Mode;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::InitResources;
use super::mounts::{attach, open_tree_at, recursive_attr, set_attr};
use crate::error::{Step, StepError};
use crate::labels::label_root;
use crate::rooted::Root;

/// Longest value that fsconfig(2) takes, terminator included.
const FSCONFIG_MAX: usize = 256;

/// `covered`: the image's own directory, whose permissions a tmpfs takes.
pub(super) fn filesystem(
    i: usize,
    step: &MountStep,
    target: BorrowedFd<'_>,
    covered: Option<BorrowedFd<'_>>,
    root: &Root,
    resources: &InitResources,
) -> Result<OwnedFd, StepError> {
    let MountSource::FileSystem { fstype, source, parameters, copy_up, label } = &step.source else {
        return Err(StepError::new(Phase::Mounts, i, "not a file system"));
    };
    let attr = step.attr.map_or(0, |a| a.set);
    let with_mode = tmpfs_mode(i, fstype, parameters, covered)?;
    let parameters = with_mode.as_deref().unwrap_or(parameters);
    if parameters.iter().any(|(_, v)| v.as_ref().is_some_and(|v| v.len() >= FSCONFIG_MAX)) {
        let mount = legacy_mount(i, step, parameters, root, resources)?;
        recursive_attr(i, step, mount.as_fd())?;
        attach(i, &mount, target)?;
        return Ok(mount);
    }
    let mount = new_filesystem(i, fstype, source, parameters, attr)?;
    if let Some(label) = label {
        label_root(i, &mount, label)?;
    }
    if *copy_up {
        crate::copy::copy_tree(target, mount.as_fd()).step(Phase::Mounts, i, || "tmpcopyup".into())?;
    }
    recursive_attr(i, step, mount.as_fd())?;
    attach(i, &mount, target)?;
    Ok(mount)
}

/// A tmpfs takes the permissions of the directory that it covers, unless the config gives a mode.
pub fn tmpfs_mode(
    i: usize,
    fstype: &str,
    parameters: &[Parameter],
    covered: Option<BorrowedFd<'_>>,
) -> Result<Option<Vec<Parameter>>, StepError> {
    let has_mode = parameters.iter().any(|(key, _)| key == "mode");
    let Some(covered) = covered.filter(|_| fstype == "tmpfs" && !has_mode) else { return Ok(None) };
    let stat = rustix::fs::fstat(covered).step(Phase::Mounts, i, || "stat(mount point)".into())?;
    let mut with_mode = parameters.to_vec();
    with_mode.push(("mode".into(), Some(format!("{:04o}", stat.st_mode & 0o7777))));
    Ok(Some(with_mode))
}

/// A new instance of a file system as a detached mount: fsopen(2), fsconfig(2), fsmount(2).
pub fn new_filesystem(
    i: usize,
    fstype: &str,
    source: &str,
    parameters: &[Parameter],
    attr: u64,
) -> Result<OwnedFd, StepError> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
        .step(Phase::Mounts, i, || format!("fsopen({fstype:?})"))?;
    let explain = |call: String| format!("{call}{}", kernel_message(&context));
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source)
            .step(Phase::Mounts, i, || explain(format!("fsconfig(source, {source:?})")))?;
    }
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        }
        .step(Phase::Mounts, i, || {
            explain(format!("fsconfig({key}{})", value.as_ref().map_or(String::new(), |v| format!("={v}"))))
        })?;
    }
    fsconfig_create(&context)
        .step(Phase::Mounts, i, || explain(format!("mount({source:?}, type {fstype:?})")))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attr as u32)).step(
        Phase::Mounts,
        i,
        || explain(format!("fsmount({fstype:?}, {attr:#x})")),
    )
}

/// What the file system itself says of a failed fsconfig(2), which is more than an errno.
fn kernel_message(context: &OwnedFd) -> String {
    let mut buffer = [0u8; 256];
    match rustix::io::read(context, &mut buffer) {
        Ok(n) if n > 2 => {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let text = text.lines().next().unwrap_or("").trim_start_matches(['e', 'w', 'i', ' ']).to_string();
            format!(" [{text}]")
        }
        _ => String::new(),
    }
}

/// mount(2) for what fsconfig(2) cannot take, such as an overlay of many layers, as a detached mount
/// like any other. It is made in a directory of a new tmpfs that covers the container's root for as
/// long: no other process sees that directory, so what is mounted there is what is picked up.
fn legacy_mount(
    i: usize,
    step: &MountStep,
    parameters: &[Parameter],
    root: &Root,
    resources: &InitResources,
) -> Result<OwnedFd, StepError> {
    let MountSource::FileSystem { fstype, source, .. } = &step.source else {
        return Err(StepError::new(Phase::Mounts, i, "not a file system"));
    };
    let (flags, data) = legacy_options(parameters);
    let data = std::ffi::CString::new(data)
        .map_err(|_| StepError::new(Phase::Mounts, i, "NUL byte in mount options"))?;
    let stage = new_filesystem(i, "tmpfs", "tmpfs", &[("mode".into(), Some("0700".into()))], 0)?;
    rustix::fs::mkdirat(&stage, "m", Mode::RWXU).step(Phase::Mounts, i, || "mkdir(stage)".into())?;
    attach(i, &stage, root.as_fd())?;
    let made = resources
        .with_path_of(stage.as_fd(), "/m", |path| mount_in(&stage, path, source, fstype, flags, &data))
        .step(Phase::Mounts, i, || format!("mount({source:?}, type {fstype:?}, {data:?})"));
    resources
        .with_path_of(stage.as_fd(), "", |path| rustix::mount::unmount(path, UnmountFlags::DETACH))
        .step(Phase::Mounts, i, || "umount2(stage)".into())?;
    let mount = made?;
    if let Some(Attr { set, clear }) = step.attr {
        set_attr(i, mount.as_fd(), false, set, clear)?;
    }
    Ok(mount)
}

/// Parameters as mount(2) takes them. Those that fsconfig(2) keeps from the file system are flags here: one without
/// contexts of its own, as overlay before Linux 6.5, does not know their names.
fn legacy_options(parameters: &[Parameter]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut words = Vec::new();
    for parameter in parameters {
        match (parameter.0.as_str(), &parameter.1) {
            ("ro", None) => flags |= MountFlags::RDONLY,
            ("sync", None) => flags |= MountFlags::SYNCHRONOUS,
            ("dirsync", None) => flags |= MountFlags::DIRSYNC,
            ("lazytime", None) => flags |= MountFlags::LAZYTIME,
            ("mand", None) => flags |= MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
            ("rw" | "async" | "nolazytime" | "nomand", None) => {}
            _ => words.push(word(parameter)),
        }
    }
    (flags, words.join(","))
}

/// A parameter as mount(2) takes it, where a comma in an SELinux context would end it.
fn word((key, value): &Parameter) -> String {
    match value {
        Some(value) if MOUNT_CONTEXTS.contains(&key.as_str()) => format!("{key}=\"{value}\""),
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    }
}

/// `path` leads to the directory of the stage.
fn mount_in(
    stage: &OwnedFd,
    path: &str,
    source: &str,
    fstype: &str,
    flags: MountFlags,
    data: &std::ffi::CStr,
) -> Result<OwnedFd, Errno> {
    rustix::mount::mount(source, path, fstype, flags, data)?;
    open_tree_at(stage.as_fd(), "m", true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_2_has_flags_for_is_not_left_to_the_file_system() {
        let flag = |name: &str| (name.to_owned(), None);
        let set = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let parameters =
            [flag("ro"), set("lowerdir", "/a:/b"), flag("async"), flag("lazytime"), flag("userxattr")];
        let (flags, data) = legacy_options(&parameters);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::LAZYTIME);
        assert_eq!(data, "lowerdir=/a:/b,userxattr");
        let (flags, data) = legacy_options(&[set("context", "u:r:t:s0:c1,c2"), set("ro", "x")]);
        assert_eq!((flags, data.as_str()), (MountFlags::empty(), "context=\"u:r:t:s0:c1,c2\",ro=x"));
    }
}
