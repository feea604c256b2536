//! The runtime's own binary, out of a container's reach (CVE-2019-5736).
//!
//! A process of a container may come to hold /proc/PID/exe of creel: by an entry point that is
//! `#!/proc/self/exe`, or by looking at an exec in the moment before its program runs. Through it a
//! container's root could write to the host's file once nobody executes it. So creel runs from a
//! read-only mount of its own file: a detached clone, made by one mount_setattr(2), on which it moves
//! its mappings; or which it executes, where the kernel does not allow the move (docs/design/0017).
//! Where the file already lies on a read-only mount nothing is done.
//!
//! An ordinary user cannot write to root's file through any descriptor; only if it could, a sealed
//! copy in memory is executed instead, since mounts are not for it to make.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use creel_sys::Errno;
use creel_sys::mount::{MountAttr, mount_setattr};
use creel_sys::process::{StringVector, fexecve};
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;

const OWN: &str = "/proc/self/exe";
const CMDLINE: &str = "/proc/self/cmdline";
/// MOUNT_ATTR_RDONLY
const RDONLY: u64 = 1;

/// The detached mount that the process runs from. Dropping it waits for a grace period of the kernel's
/// (namespace_unlock), so that is best done while somebody else works; the process runs on from it.
#[derive(Debug)]
pub struct Protection {
    _tree: Option<OwnedFd>,
}

impl Protection {
    const NONE: Protection = Protection { _tree: None };
}

/// Makes sure that the running binary cannot be written to through /proc/self/exe. On return the
/// process is protected; it may have executed itself anew.
pub fn protect_own_binary() -> Result<Protection, Error> {
    let mount = rustix::fs::statvfs(OWN).map_err(Error::file("statvfs", OWN))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(Protection::NONE);
    }
    let protected = match readonly_clone() {
        Ok(tree) => {
            if run_from(&tree).is_ok() {
                return Ok(Protection { _tree: Some(tree) });
            }
            tree
        }
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => {
            if is_sealed()? || !is_writable()? {
                return Ok(Protection::NONE);
            }
            sealed_copy().map_err(Error::file("copy", OWN))?
        }
        Err(errno) => return Err(Error::File { call: "open_tree", path: OWN.into(), errno }),
    };
    let strings = |items: Vec<Vec<u8>>| -> StringVector {
        // What execve(2) handed over has no NUL inside.
        StringVector::new(items.into_iter().filter_map(|item| CString::new(item).ok()).collect())
    };
    // The standard library knows them only where it has the process started (creel's own main).
    let words = std::fs::read(CMDLINE).map_err(Error::io("read", CMDLINE))?;
    let args = strings(words.split_inclusive(|&byte| byte == 0).map(without_nul).collect());
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    match fexecve(protected.as_fd(), &args, &strings(env.collect())) {
        Ok(never) => match never {},
        Err(errno) => Err(Error::File { call: "execveat", path: OWN.into(), errno }),
    }
}

fn without_nul(word: &[u8]) -> Vec<u8> {
    word.strip_suffix(b"\0").unwrap_or(word).to_vec()
}

fn readonly_clone() -> Result<OwnedFd, Errno> {
    let tree = open_tree(CWD, OWN, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(tree.as_fd(), false, &MountAttr { attr_set: RDONLY, ..MountAttr::default() })?;
    Ok(tree)
}

/// A detached file can be mapped only by an opening that reads, which its magic link gives.
fn run_from(tree: &OwnedFd) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    creel_sys::own_binary::replace(file.as_fd())
}

/// Already the copy: a sealed memfd. Another file has no seals (EINVAL).
fn is_sealed() -> Result<bool, Error> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::file("open", OWN))?;
    Ok(rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Whether this user may write to the binary, or to make itself able to, as its owner.
fn is_writable() -> Result<bool, Error> {
    let stat = rustix::fs::stat(OWN).map_err(Error::file("stat", OWN))?;
    let owner = stat.st_uid == rustix::process::geteuid().as_raw();
    Ok(owner || rustix::fs::accessat(CWD, OWN, Access::WRITE_OK, AtFlags::EACCESS).is_ok())
}

fn sealed_copy() -> Result<OwnedFd, Errno> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let copy = rustix::fs::memfd_create("creel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30)? > 0 {}
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}
