//! Snapshots stacked to a root file system by overlayfs (the kernel's Documentation/filesystems/overlayfs.rst).
//!
//! The new mount API takes one layer at a time (`lowerdir+`, Linux 6.8), so their number is not bound by the
//! page that mount(2) has for its options. Older kernels get all layers in that page, by the short names that
//! open directories have below /proc.

pub(crate) mod flat;

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::digest::Digest;
use crate::errno::Named;

/// Layers that overlayfs takes (OVL_MAX_STACK).
pub const MAX_LAYERS: usize = 500;

/// Bytes that fsconfig(2) takes for a value, its NUL included.
const MAX_VALUE: usize = 256;

/// Why a root is not mounted.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused a call.
    Call {
        /// System call.
        call: &'static str,
        /// What it was about.
        what: String,
        /// Its errno.
        errno: Errno,
    },
    /// More layers than overlayfs takes.
    TooMany(usize),
    /// There is nothing to stack.
    NoLayers,
}

impl Error {
    fn call(call: &'static str, what: impl fmt::Display) -> impl FnOnce(Errno) -> Error {
        let what = what.to_string();
        move |errno| Error::Call { call, what, errno }
    }

    /// Whether this may be a kernel that does not know `lowerdir+`. Since overlayfs has the new mount API itself
    /// (Linux 6.5) it refuses the key; before, the kernel gathers what it is given for overlayfs's old parser,
    /// which refuses it when the mount is made.
    fn is_of_old_kernel(&self) -> bool {
        matches!(self, Error::Call { call: "fsconfig" | "fsconfig_create", errno: Errno::INVAL, .. })
    }

    /// Whether this kernel mounts no overlay here: it has none, or not for user namespaces.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Call { call: "fsopen" | "fsconfig_create", errno, .. }
            if [Errno::PERM, Errno::ACCESS, Errno::NODEV].contains(errno))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Call { call, what, errno } => write!(f, "{call}({what}): {}", Named(*errno)),
            Error::TooMany(layers) => {
                write!(f, "{layers} layers are more than the {MAX_LAYERS} of overlayfs")
            }
            Error::NoLayers => f.write_str("the image has no layers"),
        }
    }
}

impl std::error::Error for Error {}

/// What a root is stacked of.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Roots of layers, the highest first.
    pub lowers: &'a [PathBuf],
    /// Where changes go.
    pub upper: &'a Path,
    /// An empty directory on the same file system, for overlayfs itself.
    pub work: &'a Path,
    /// Whether the layers were written with `user.overlay.*`.
    pub user_xattrs: bool,
    /// What becomes of changes when the machine stops.
    pub writes: Writes,
}

/// Whether what is written to a root has to outlast the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It is synced as any file system is.
    Durable,
    /// It goes with the container. overlayfs then passes no sync on (`volatile`, Linux 5.10): without it the
    /// unmount alone syncs the whole file system that the upper directory is on.
    Volatile,
}

/// Whether overlayfs takes these layers, before any of them is fetched. What they take from each other comes on
/// top, and is known when they are there.
pub fn check_layers(diff_ids: &[Digest]) -> Result<(), Error> {
    match diff_ids.iter().collect::<HashSet<_>>().len() {
        layers if layers > MAX_LAYERS => Err(Error::TooMany(layers)),
        _ => Ok(()),
    }
}

fn check_number(layers: usize) -> Result<(), Error> {
    match layers {
        0 => Err(Error::NoLayers),
        layers if layers > MAX_LAYERS => Err(Error::TooMany(layers)),
        _ => Ok(()),
    }
}

fn open_place(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::call("open", path.display()))
}

impl Overlay<'_> {
    /// Mounts the stack at a directory.
    pub fn mount(&self, target: &Path) -> Result<(), Error> {
        match self.detached() {
            Ok(mount) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(&mount, "", CWD, target, flags)
                    .map_err(Error::call("move_mount", target.display()))
            }
            Err(error) if error.is_of_old_kernel() => self.mount_by_page(target),
            Err(error) => Err(error),
        }
    }

    /// Makes the mount without a place in the tree: it lives as long as its fd.
    pub fn detached(&self) -> Result<OwnedFd, Error> {
        check_number(self.lowers.len())?;
        let context =
            fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(Error::call("fsopen", "overlay"))?;
        let mut held = Vec::new();
        for lower in self.lowers {
            set_path(&context, "lowerdir+", lower, &mut held)?;
        }
        set_path(&context, "upperdir", self.upper, &mut held)?;
        set_path(&context, "workdir", self.work, &mut held)?;
        if self.user_xattrs {
            fsconfig_set_flag(context.as_fd(), "userxattr").map_err(Error::call("fsconfig", "userxattr"))?;
        }
        if self.writes == Writes::Volatile {
            fsconfig_set_flag(context.as_fd(), "volatile").map_err(Error::call("fsconfig", "volatile"))?;
        }
        let stacked = || format!("overlay of {} layers", self.lowers.len());
        fsconfig_create(context.as_fd()).map_err(Error::call("fsconfig_create", stacked()))?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(Error::call("fsmount", stacked()))
    }

    /// The same with mount(2), for kernels before 6.8. `mount` falls back to it.
    pub fn mount_by_page(&self, target: &Path) -> Result<(), Error> {
        check_number(self.lowers.len())?;
        let all = self.lowers.iter().map(PathBuf::as_path).chain([self.upper, self.work]);
        let held = all.map(open_place).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        let (lowers, own) = names.split_at(self.lowers.len());
        let mut options = format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), own[0], own[1]);
        if self.user_xattrs {
            options.push_str(",userxattr");
        }
        if self.writes == Writes::Volatile {
            options.push_str(",volatile");
        }
        let options = std::ffi::CString::new(options).map_err(|_| Error::NoLayers)?;
        rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(Error::call("mount", target.display()))
    }
}

/// Sets a path as it is, or by an open fd when it is too long.
fn set_path(context: &OwnedFd, key: &'static str, path: &Path, held: &mut Vec<OwnedFd>) -> Result<(), Error> {
    let value = if path.as_os_str().len() < MAX_VALUE {
        path.to_path_buf()
    } else {
        let fd = open_place(path)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        held.push(fd);
        short
    };
    fsconfig_set_string(context.as_fd(), key, value.as_path())
        .map_err(Error::call("fsconfig", format_args!("{key}, {:?}", path)))
}
