//! tmpcopyup: what a directory of the image holds, copied into the tmpfs that covers it.
//!
//! Runs in **init**. Both sides are handles, nothing is followed: the image may hold links to
//! anywhere, and they are copied as links.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::{Errno, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};

/// Deepest directory copied: each level holds two descriptors.
const MAX_DEPTH: usize = 200;

/// Copies everything below `from` (an O_PATH handle will do) into `to`.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let from = open_dir(from, c".")?;
    copy_level(&from, to, 0)
}

fn open_dir(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn copy_level(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(from, to, name, &stat, depth)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, stat: &Stat, depth: usize) -> Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            copy_level(&open_dir(from.as_fd(), name)?, open_dir(to, name)?.as_fd(), depth + 1)?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target.as_c_str(), to, name)?;
        }
        FileType::RegularFile => copy_file(from.as_fd(), to, name, stat)?,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
        }
        FileType::Unknown => return Err(Errno::INVAL),
    }
    chownat(
        to,
        name,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if kind != FileType::Symlink {
        // After chown(2), which clears set-id bits.
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    // Not for ever, should it have become a fifo meanwhile.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    let mut left = u64::try_from(stat.st_size).unwrap_or(0);
    while left > 0 {
        let chunk = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::sendfile(&target, &source, None, chunk)? {
            0 => break,
            n => left = left.saturating_sub(n as u64),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_modes_and_depth_arrive_and_nothing_is_followed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(a.path().join("d/e")).unwrap();
        std::fs::write(a.path().join("d/e/f"), "text").unwrap();
        std::fs::set_permissions(a.path().join("d/e/f"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/etc", a.path().join("link")).unwrap();
        let open = |p: &std::path::Path| {
            rustix::fs::open(p, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        copy_tree(open(a.path()).as_fd(), open(b.path()).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(b.path().join("d/e/f")).unwrap(), "text");
        let mode = std::fs::metadata(b.path().join("d/e/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o4711);
        assert_eq!(std::fs::read_link(b.path().join("link")).unwrap().to_str(), Some("/etc"));
    }
}
