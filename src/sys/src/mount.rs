//! The part of the mount API that rustix lacks: mount_setattr(2), Linux 5.12.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// MOUNT_ATTR_IDMAP of linux/mount.h: owners are shown as [`MountAttr::userns_fd`] maps them.
pub const IDMAP: u64 = 0x0010_0000;

/// Argument of mount_setattr(2), `struct mount_attr` of linux/mount.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// MOUNT_ATTR_* to set.
    pub attr_set: u64,
    /// MOUNT_ATTR_* to clear.
    pub attr_clr: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0.
    pub propagation: u64,
    /// User namespace of an idmapped mount, with [`IDMAP`].
    pub userns_fd: u64,
}

/// Changes the mount that `mount` is the root of, or the whole tree below it.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, the kernel reads size_of::<MountAttr>() bytes of `attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
