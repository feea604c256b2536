//! The config's mounts, in its order.
//!
//! Each mount is made detached (fsmount(2), open_tree(2)), gets its attributes with one
//! mount_setattr(2), and is attached to a handle below the root: at no time is it visible with
//! other flags than asked for, and no path is looked up twice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use creel_plan::check::check_proc_destination;
use creel_plan::options::{Atime, attr};
use creel_plan::steps::{At, Attr, MountSource, MountStep, Phase, SourceLink};
use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::filesystem::filesystem;
use super::{InitResources, talk};
use crate::conversation::{Channel, Order};
use crate::error::{Step, StepError};
use crate::procfs::PROC_SUPER_MAGIC;
use crate::rooted::{Parents, Root};

/// Access time of a mount: a field of three values, and a bit.
const ATIME_FIELD: u64 = attr::ATIME_MASK | attr::NODIRATIME;

pub fn mount_all(
    steps: &[MountStep],
    root: &Root,
    resources: &mut InitResources,
    channel: &Channel,
) -> Result<(), StepError> {
    let mut sources = std::mem::take(&mut resources.sources);
    let resources = &*resources;
    for (i, step) in steps.iter().enumerate() {
        let opened = sources.get_mut(i).and_then(Option::take);
        let mount = match &step.source {
            MountSource::FileSystem { fstype, .. } if fstype == "proc" || fstype == "sysfs" => {
                let target = ordinary_directory(i, root, fstype, &step.destination)?;
                filesystem(i, step, target.as_fd(), None, root, resources)?
            }
            MountSource::FileSystem { .. } => {
                let (target, new) =
                    root.directory_or_new(&step.destination)
                        .step(Phase::Mounts, i, || format!("mount point {:?}", step.destination))?;
                refuse_in_proc(i, step, target.as_fd(), None, root, resources)?;
                let covered = (!new).then(|| target.as_fd());
                filesystem(i, step, target.as_fd(), covered, root, resources)?
            }
            MountSource::Bind { source, recursive, link, inside, idmap } => {
                let source = match (opened, inside) {
                    (Some(source), _) => source,
                    (None, Some(path)) => open_inside(i, path, *recursive, root)?,
                    (None, None) => open_source(i, source, *recursive, *link)?,
                };
                if *link == SourceLink::Copy && source.kind == Some(FileType::Symlink) {
                    copy_link(i, step, &source.tree, root)?;
                    continue;
                }
                if inside.is_some() && idmap.is_some() {
                    talk(channel.send_tree(i, source.tree.as_fd()))?;
                    talk(channel.expect(Order::Proceed))?;
                }
                let outside = resources.opened_outside && inside.is_none();
                let locked = if outside { Some(attrs_of(i, &source.tree)?) } else { None };
                bind(i, step, &source, locked, root, resources)?;
                source.tree
            }
            MountSource::Remount { flags, data } => {
                remount(i, step, *flags, data, root, resources)?;
                continue;
            }
            MountSource::Cgroup { context } => {
                let target = open_directory(i, root, &step.destination)?;
                refuse_in_proc(i, step, target.as_fd(), None, root, resources)?;
                super::cgroup::mount(i, step, &resources.cgroup_view, context.as_ref(), target.as_fd())?
            }
        };
        set_propagation(i, mount.as_fd(), &step.propagation)?;
    }
    Ok(())
}

/// What a bind mount shows.
#[derive(Debug)]
pub struct Source {
    /// A detached copy; or a handle of the link that is to be copied.
    pub tree: OwnedFd,
    /// What it is, as who opened it is told. A FUSE file system tells nobody but the user who mounted it
    /// (mount.fuse(8), `allow_other`), which the root of a user namespace is not.
    pub kind: Option<FileType>,
}

impl Source {
    /// Asks what the tree is.
    pub fn of(tree: OwnedFd) -> Result<Source, Errno> {
        let kind = match rustix::fs::fstat(&tree) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::ACCESS) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Source { tree, kind })
    }

    /// The target, made to fit what the source is.
    pub fn mount_point(&self, step: &MountStep, root: &Root) -> Result<OwnedFd, Errno> {
        match self.kind {
            _ if step.nofollow => root.unfollowed(&step.destination),
            Some(FileType::Directory) => root.directory(&step.destination),
            Some(_) => root.file(&step.destination),
            // Then it must be there, as with runc.
            None => root.resolve(&step.destination),
        }
    }
}

/// Sources of every bind mount, opened before `/` changes its propagation.
pub fn open_sources(steps: &[MountStep], resources: &mut InitResources) -> Result<(), StepError> {
    resources.sources.resize_with(steps.len(), || None);
    for (i, step) in steps.iter().enumerate() {
        if let MountSource::Bind { source, recursive, link, inside: None, idmap: _ } = &step.source {
            if resources.sources[i].is_none() {
                resources.sources[i] = Some(open_source(i, source, *recursive, *link)?);
            }
        }
    }
    Ok(())
}

fn open_source(i: usize, source: &str, recursive: bool, link: SourceLink) -> Result<Source, StepError> {
    match held_link(source, link) {
        Some(link) => Ok(link),
        None => open_bind_source(source, recursive, link)
            .and_then(Source::of)
            .step(Phase::Mounts, i, || format!("bind source {source:?}")),
    }
}

/// A detached copy of what a bind source names, or of the link that it is.
pub(crate) fn open_bind_source(source: &str, recursive: bool, link: SourceLink) -> Result<OwnedFd, Errno> {
    let extra = match link {
        SourceLink::Bind => OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
        SourceLink::Follow | SourceLink::Copy => OpenTreeFlags::empty(),
    };
    open_tree_with(rustix::fs::CWD, Path::new(source), recursive, extra)
}

/// A handle of the source where it is a link that is to be copied.
pub(crate) fn held_link(source: &str, link: SourceLink) -> Option<Source> {
    if link != SourceLink::Copy {
        return None;
    }
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::open(source, handle, Mode::empty()).ok()?;
    Source::of(tree).ok().filter(|source| source.kind == Some(FileType::Symlink))
}

/// A source of the container's own tree, as the mounts before it have made it. Its links end inside.
fn open_inside(i: usize, path: &str, recursive: bool, root: &Root) -> Result<Source, StepError> {
    let call = || format!("bind source {path:?} of the container");
    let handle = root.resolve(path).step(Phase::Mounts, i, call)?;
    open_tree_at(handle.as_fd(), "", recursive).and_then(Source::of).step(Phase::Mounts, i, call)
}

/// `copy-symlink`: the link, unless one that says the same is there.
fn copy_link(i: usize, step: &MountStep, link: &OwnedFd, root: &Root) -> Result<(), StepError> {
    let target = rustix::fs::readlinkat(link, "", Vec::new())
        .step(Phase::Mounts, i, || "readlink(bind source)".into())?;
    let call = || format!("symlink({:?}, {target:?})", step.destination);
    let mut parents = Parents::new(root);
    let (parent, name) = parents.of(&step.destination).step(Phase::Mounts, i, call)?;
    match rustix::fs::symlinkat(&target, parent, name.as_os_str()) {
        Err(Errno::EXIST) => {
            let there = rustix::fs::readlinkat(parent, name.as_os_str(), Vec::new());
            if there.is_ok_and(|there| there == target) { Ok(()) } else { Err(Errno::EXIST) }
        }
        other => other,
    }
    .step(Phase::Mounts, i, call)
}

/// MS_REMOUNT of mount(2) on what is mounted at the destination, found by its handle.
fn remount(
    i: usize,
    step: &MountStep,
    flags: u64,
    data: &str,
    root: &Root,
    resources: &InitResources,
) -> Result<(), StepError> {
    let call = || format!("mount({:?}, remount {flags:#x}, {data:?})", step.destination);
    let target = root.resolve(&step.destination).step(Phase::Mounts, i, call)?;
    let data = std::ffi::CString::new(data)
        .map_err(|_| StepError::new(Phase::Mounts, i, "NUL byte in mount options"))?;
    let flags = rustix::mount::MountFlags::from_bits_retain(flags as u32);
    resources
        .with_path_of(target.as_fd(), "", |path| rustix::mount::mount_remount(path, flags, data.as_c_str()))
        .step(Phase::Mounts, i, call)?;
    set_propagation(i, target.as_fd(), &step.propagation)
}

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of a mount or of a whole tree.
pub(crate) fn open_tree_at(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    open_tree_with(dir, path.as_ref(), recursive, OpenTreeFlags::empty())
}

fn open_tree_with(
    dir: BorrowedFd<'_>,
    path: &Path,
    recursive: bool,
    extra: OpenTreeFlags,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | extra;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags)
}

fn open_directory(i: usize, root: &Root, path: &str) -> Result<OwnedFd, StepError> {
    root.directory(path).step(Phase::Mounts, i, || format!("mount point {path:?}"))
}

/// procfs and sysfs go on real directories only: an image whose /proc is a link would have them
/// mounted elsewhere and its own files taken for /proc (CVE-2019-19921, CVE-2023-27561).
fn ordinary_directory(i: usize, root: &Root, fstype: &str, path: &str) -> Result<OwnedFd, StepError> {
    match root.plain_directory(path) {
        Err(Errno::LOOP | Errno::NOTDIR) => Err(StepError::new(
            Phase::Mounts,
            i,
            format!(
                "filesystem {fstype:?} must be mounted on ordinary directory: {path:?} is a link or a file"
            ),
        )),
        other => other.step(Phase::Mounts, i, || format!("mount point {path:?}")),
    }
}

/// Nothing but a procfs goes on /proc or, a few files of lxcfs excepted, below it, whether a procfs lies there
/// already or not (CVE-2019-16884). The config was checked by its words; here a link in the image may have
/// led to it, and `tree`, the source of a bind mount, is known.
fn refuse_in_proc(
    i: usize,
    step: &MountStep,
    target: BorrowedFd<'_>,
    tree: Option<&OwnedFd>,
    root: &Root,
    resources: &InitResources,
) -> Result<(), StepError> {
    let link = |fd: BorrowedFd<'_>| {
        resources
            .with_path_of(fd, "", |path| rustix::fs::readlink(path, Vec::with_capacity(256)))
            .step(Phase::Mounts, i, || "readlink(/proc/self/fd)".into())
            .map(|c| c.to_string_lossy().into_owned())
    };
    let path = link(target)?;
    if !path.contains("/proc") {
        return Ok(());
    }
    let base = link(root.as_fd())?;
    let inside = path.strip_prefix(base.trim_end_matches('/')).unwrap_or(&path);
    check_proc_destination(inside, source_is_procfs(step, tree))
        .map_err(|why| StepError::new(Phase::Mounts, i, why))
}

fn source_is_procfs(step: &MountStep, tree: Option<&OwnedFd>) -> bool {
    match (&step.source, tree) {
        (MountSource::FileSystem { fstype, .. }, _) => fstype == "proc",
        (_, Some(tree)) => rustix::fs::fstatfs(tree).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC),
        (MountSource::Bind { .. } | MountSource::Cgroup { .. } | MountSource::Remount { .. }, None) => false,
    }
}

/// Attributes of a source, its access time field apart. A bind mount in a less privileged user
/// namespace may not lose or change them (mount_namespaces(7), "locked"): the kernel sees to it, unless
/// the tree was cloned outside.
pub fn attrs_of(i: usize, tree: &OwnedFd) -> Result<(u64, u64), StepError> {
    use rustix::fs::StatVfsMountFlags as Flag;
    let flags = rustix::fs::fstatvfs(tree).step(Phase::Mounts, i, || "statvfs(bind source)".into())?.f_flag;
    let pairs = [
        (Flag::RDONLY, attr::RDONLY),
        (Flag::NOSUID, attr::NOSUID),
        (Flag::NODEV, attr::NODEV),
        (Flag::NOEXEC, attr::NOEXEC),
    ];
    let attrs =
        pairs.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |attrs, (_, attr)| attrs | attr);
    let mode = if flags.contains(Flag::NOATIME) {
        Atime::Noatime
    } else if flags.contains(Flag::RELATIME) {
        Atime::Relatime
    } else {
        Atime::Strictatime
    };
    let nodiratime = if flags.contains(Flag::NODIRATIME) { attr::NODIRATIME } else { 0 };
    Ok((attrs, mode.attr() | nodiratime))
}

/// A bind mount. What is `locked` in the source stays: attributes, and the access time field.
fn bind(
    i: usize,
    step: &MountStep,
    source: &Source,
    locked: Option<(u64, u64)>,
    root: &Root,
    resources: &InitResources,
) -> Result<(), StepError> {
    let tree = &source.tree;
    let target = source
        .mount_point(step, root)
        .step(Phase::Mounts, i, || format!("mount point {:?}", step.destination))?;
    refuse_in_proc(i, step, target.as_fd(), Some(tree), root, resources)?;
    if let Some(Attr { set, clear }) = step.attr {
        if let Some((attrs, atime)) = locked {
            refuse_to_keep(i, step.taken_back & attrs)?;
            let changed = (set & ATIME_FIELD) != atime && (clear & attr::ATIME_MASK != 0);
            refuse_to_keep(i, if changed { ATIME_FIELD & !set } else { 0 })?;
        }
        let clear = clear & !locked.map_or(0, |(attrs, _)| attrs);
        match mount_setattr(
            tree.as_fd(),
            false,
            &MountAttr { attr_set: set, attr_clr: clear, ..MountAttr::default() },
        ) {
            // Flags of the source may be locked (mount_namespaces(7)): keep them, as mount(8) does.
            Err(Errno::PERM) => {
                refuse_to_keep(i, step.taken_back & attrs_of(i, tree)?.0)?;
                set_attr(i, tree.as_fd(), false, set, clear & attr::ATIME_MASK)?;
            }
            other => other.step(Phase::Mounts, i, || attr_call(set, clear))?,
        }
    }
    recursive_attr(i, step, tree.as_fd())?;
    attach(i, tree, target.as_fd())
}

/// `rw` that would leave the mount read-only is not what was asked for, and runc fails too.
fn refuse_to_keep(i: usize, attrs: u64) -> Result<(), StepError> {
    if attrs == 0 {
        return Ok(());
    }
    let call = || format!("mount_setattr(clear {attrs:#x}): cannot change what the source has locked");
    Err(Errno::PERM).step(Phase::Mounts, i, call)
}

/// Attaches a detached mount on a handle.
pub fn attach(i: usize, mount: &OwnedFd, target: BorrowedFd<'_>) -> Result<(), StepError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).step(Phase::Mounts, i, || {
        let is_directory = |fd: BorrowedFd<'_>| {
            rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
        };
        match (is_directory(mount.as_fd()), is_directory(target)) {
            (true, false) => "move_mount: the mount point is not a directory".into(),
            (false, true) => "move_mount: the mount point is a directory".into(),
            _ => "move_mount".into(),
        }
    })
}

fn attr_call(set: u64, clear: u64) -> String {
    format!("mount_setattr(set {set:#x}, clear {clear:#x})")
}

/// mount_setattr(2) on one mount or on a tree.
pub fn set_attr(
    i: usize,
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
) -> Result<(), StepError> {
    if set == 0 && clear == 0 {
        return Ok(());
    }
    mount_setattr(mount, recursive, &MountAttr { attr_set: set, attr_clr: clear, ..MountAttr::default() })
        .step(Phase::Mounts, i, || attr_call(set, clear))
}

pub(super) fn recursive_attr(i: usize, step: &MountStep, mount: BorrowedFd<'_>) -> Result<(), StepError> {
    match step.recursive {
        Some(Attr { set, clear }) => set_attr(i, mount, true, set, clear),
        None => Ok(()),
    }
}

fn set_propagation(i: usize, mount: BorrowedFd<'_>, changes: &[(u64, bool)]) -> Result<(), StepError> {
    for &(propagation, recursive) in changes {
        mount_setattr(mount, recursive, &MountAttr { propagation, ..MountAttr::default() }).step(
            Phase::Mounts,
            i,
            || format!("mount_setattr(propagation {propagation:#x})"),
        )?;
    }
    Ok(())
}

/// Mounts that had to stay writable for device nodes.
pub fn late_readonly(mounts: &[(At, String)], root: &Root) -> Result<(), StepError> {
    for (i, (_, path)) in mounts.iter().enumerate() {
        let mount = root.resolve(path).step(Phase::LateReadonly, i, || format!("mount point {path:?}"))?;
        mount_setattr(mount.as_fd(), false, &MountAttr { attr_set: attr::RDONLY, ..MountAttr::default() })
            .step(Phase::LateReadonly, i, || attr_call(attr::RDONLY, 0))?;
    }
    Ok(())
}
