//! The host's procfs, by a handle from before anything of the container is there.
//!
//! The **host** opens it before it clones, and only for a plan that needs it: kernel parameters, oom_score_adj,
//! clocks and labels are written there, and in a mount namespace that is joined /proc is not the host's. A
//! child that has joined one or switched its root has a /proc that an image or another container may have made (CVE-2019-16884, CVE-2019-19921,
//! CVE-2025-52881); it never opens that. Through the handle `self` is the process itself, since it has a
//! pid in the host's namespace too, and what is per namespace below `sys` is that of whoever opens it.
//! The handle is closed before the program is looked up (CVE-2024-21626).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use creel_plan::steps::Phase;
use creel_sys::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat2};

use crate::error::{Failed, Step, StepError};

/// statfs(2) f_type of procfs.
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// A handle of the root of the host's procfs.
#[derive(Debug)]
pub struct HostProc(OwnedFd);

impl AsFd for HostProc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for HostProc {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl HostProc {
    /// Opens /proc and makes sure that it is one.
    pub fn open() -> Result<HostProc, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())
            .map_err(|errno| Failed::host("open(/proc)", errno))?;
        let kind = fstatfs(&proc).map_err(|errno| Failed::host("statfs(/proc)", errno))?.f_type;
        if kind != PROC_SUPER_MAGIC {
            return Err(Failed::said("the host's /proc is not a procfs"));
        }
        Ok(HostProc(proc))
    }

    /// Writes a file below it in one call, as its files want it: all of `value` or an error.
    pub fn write(&self, phase: Phase, index: usize, path: &str, value: &[u8]) -> Result<(), StepError> {
        let call = || format!("write(/proc/{path}, {:?})", String::from_utf8_lossy(value).trim_end());
        let file = self.open_at(phase, index, path)?;
        match rustix::io::write(&file, value).step(phase, index, call)? {
            written if written == value.len() => Ok(()),
            // proc_pid_attr(5) takes one page.
            written => Err(StepError::new(phase, index, format!("{}: {written} bytes were taken", call()))),
        }
    }

    /// Opens a file below it for writing.
    pub fn open_at(&self, phase: Phase, index: usize, path: &str) -> Result<OwnedFd, StepError> {
        self.open_for_writing(path).step(phase, index, || format!("open(/proc/{path})"))
    }

    /// No link leads out of it. Nothing is mounted over a file of a process. A host that is itself a container
    /// may have mounts below `sys`, which are procfs again: EXDEV if not.
    fn open_for_writing(&self, path: &str) -> Result<OwnedFd, Errno> {
        let open = |resolve: ResolveFlags| {
            let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.0, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
        };
        if path.starts_with("self/") {
            return open(ResolveFlags::NO_XDEV);
        }
        let file = open(ResolveFlags::empty())?;
        if fstatfs(&file)?.f_type == PROC_SUPER_MAGIC { Ok(file) } else { Err(Errno::XDEV) }
    }

    /// Has a call that takes nothing but a path act on what a descriptor of this process is open on. The
    /// working directory becomes this handle.
    pub fn with_path_of<T>(
        &self,
        fd: BorrowedFd<'_>,
        below: &str,
        call: impl FnOnce(&str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        rustix::process::fchdir(self)?;
        call(&format!("self/fd/{}{below}", fd.as_raw_fd()))
    }
}
