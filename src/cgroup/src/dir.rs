//! One directory of a cgroup file system and the calls on its files: one open, one read or
//! write, one close per value, all below the directory's fd.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// Opens a directory as a place (O_PATH): that suffices for openat(2), CLONE_INTO_CGROUP and
/// bpf(2), and needs no read permission.
pub(crate) fn open(path: impl Arg) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Opens a file for writing.
pub(crate) fn open_write(dir: impl AsFd, file: &str) -> Result<OwnedFd> {
    rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file for reading.
pub(crate) fn open_read(dir: impl AsFd, file: &str) -> Result<OwnedFd> {
    rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Writes a value with a single write(2), as kernfs wants it.
pub(crate) fn write(dir: impl AsFd, file: &str, value: &str) -> Result<()> {
    write_all(open_write(dir, file)?, value)
}

/// Writes a value to an open file. kernfs takes it whole or refuses it.
pub(crate) fn write_all(file: impl AsFd, value: &str) -> Result<()> {
    loop {
        match rustix::io::write(&file, value.as_bytes()) {
            Ok(count) if count == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a whole file.
pub(crate) fn read(dir: impl AsFd, file: &str) -> Result<String> {
    read_at_start(open_read(dir, file)?)
}

/// Reads a file of one value, which one read(2) gets as a whole.
pub(crate) fn read_value(dir: impl AsFd, file: &str) -> Result<String> {
    let file = open_read(dir, file)?;
    let mut bytes = Vec::with_capacity(256);
    rustix::io::retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes)))?;
    String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
}

/// Reads an open file from its start.
pub(crate) fn read_at_start(file: impl AsFd) -> Result<String> {
    String::from_utf8(bytes_of(file)?).map_err(|_| Errno::ILSEQ)
}

/// Reads an open file, which need not be text: a container may give its cgroups any name.
pub(crate) fn bytes_of(file: impl AsFd) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    let mut chunk = [0u8; 4096];
    loop {
        match rustix::io::pread(&file, &mut chunk[..], bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}

/// Names of the directories in one: of the child cgroups.
pub(crate) fn children(dir: impl AsFd) -> Result<Vec<CString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut space = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(listing, &mut space);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Opens a child directory or one further below.
pub(crate) fn open_below(dir: impl AsFd, path: impl Arg) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, path, flags, Mode::empty())
}

/// The cgroup was removed while we looked: kernfs says ENODEV on its open files.
pub(crate) fn is_gone(errno: Errno) -> bool {
    errno == Errno::NOENT || errno == Errno::NODEV
}
