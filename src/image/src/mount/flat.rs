//! A root without overlayfs: a copy of what its layers show together.
//!
//! For users whose kernel mounts no overlay for them (before Linux 5.11, or without overlayfs). It costs the time
//! and the space of the whole image for each container; file systems with reflinks share the data.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::Error;
use crate::stack::{Child, Merged};
use crate::unpack::{Owners, copy_attributes, open_dir};

/// What goes on while a tree is copied.
struct Copy<'a> {
    root: &'a OwnedFd,
    owners: Owners,
    /// First copy of each file that has more names, by its device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
}

/// Copies what is in `from` to an empty directory. Its own attributes are the caller's concern.
pub(crate) fn copy(from: &Merged, to: &OwnedFd, owners: Owners) -> Result<(), Error> {
    Copy { root: to, owners, names: HashMap::new() }.children(from, to, b"")
}

impl Copy<'_> {
    fn children(&mut self, from: &Merged, to: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        for name in from.names().map_err(failed("getdents64", path))? {
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend(&name);
            match from.child(&name).map_err(failed("statat", &inner))? {
                Child::Absent => {}
                Child::Directory(dir) => {
                    let fail = failed("mkdir", &inner);
                    rustix::fs::mkdirat(to, name.as_slice(), Mode::RWXU).map_err(fail)?;
                    let made = open_dir(to.as_fd(), &name).map_err(failed("open", &inner))?;
                    self.children(&dir, &made, &inner)?;
                    let attributes = dir.top().map_or(Ok(()), |top| copy_attributes(top, &made, self.owners));
                    attributes.map_err(|(call, errno)| failed(call, &inner)(errno))?;
                }
                Child::Other(dir, stat) => self.other(&dir, &stat, to, &name, &inner)?,
            }
        }
        Ok(())
    }

    fn other(
        &mut self,
        from: &OwnedFd,
        stat: &Stat,
        to: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), Error> {
        #[allow(clippy::useless_conversion, reason = "its width differs between architectures")]
        let inode = (u64::from(stat.st_dev), u64::from(stat.st_ino));
        if let Some(first) = self.names.get(&inode) {
            return rustix::fs::linkat(self.root, first.as_slice(), to, name, AtFlags::empty())
                .map_err(failed("link", path));
        }
        if stat.st_nlink != 1 {
            self.names.insert(inode, path.to_vec());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(from, to, name, path),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed("readlink", path))?;
                rustix::fs::symlinkat(target.as_c_str(), to, name).map_err(failed("symlink", path))?;
                self.own(stat, to, name, path)
            }
            kind @ (FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Directory
            | FileType::Unknown) => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                match rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev) {
                    Ok(()) => self.own(stat, to, name, path),
                    // A user namespace makes no devices; /dev is not the image's anyway.
                    Err(Errno::PERM) => Ok(()),
                    Err(errno) => Err(failed("mknod", path)(errno)),
                }
            }
        }
    }

    fn file(&self, from: &OwnedFd, to: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, read, Mode::empty()).map_err(failed("open", path))?;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target =
            rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR).map_err(failed("open", path))?;
        let (mut source, mut target) = (File::from(source), File::from(target));
        std::io::copy(&mut source, &mut target)
            .map_err(|error| failed("copy", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        copy_attributes(&source.into(), &target.into(), self.owners)
            .map_err(|(call, errno)| failed(call, path)(errno))
    }

    fn own(&self, stat: &Stat, to: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Error> {
        if self.owners != Owners::Recorded {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("chown", path))
    }
}

fn failed(call: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
    Error::call(call, String::from_utf8_lossy(path).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::stack::open_root;

    #[test]
    fn copy_shows_what_the_layers_show() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for dir in ["low/etc/deep", "high/etc", "out"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        std::fs::write(at("low/etc/both"), "low").unwrap();
        std::fs::write(at("low/etc/gone"), "low").unwrap();
        std::fs::write(at("low/etc/deep/kept"), "kept").unwrap();
        std::fs::write(at("high/etc/both"), "high").unwrap();
        std::fs::hard_link(at("low/etc/deep/kept"), at("low/linked")).unwrap();
        symlink("etc/both", at("high/link")).unwrap();
        std::fs::set_permissions(at("high/etc/both"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        std::fs::set_permissions(at("low/etc/deep"), std::fs::Permissions::from_mode(0o711)).unwrap();
        // A whiteout needs no privilege since Linux 5.8.
        let high = open_root(&at("high/etc")).unwrap();
        rustix::fs::mknodat(&high, "gone", FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let layers = ["high", "low"].map(|name| open_root(&at(name)).unwrap());
        copy(&Merged::new(layers.into()), &open_root(&at("out")).unwrap(), Owners::Squashed).unwrap();
        assert_eq!(std::fs::read_to_string(at("out/link")).unwrap(), "high");
        assert!(!at("out/etc/gone").exists());
        assert_eq!(at("out/etc/both").metadata().unwrap().mode() & 0o7777, 0o4750);
        assert_eq!(at("out/etc/deep").metadata().unwrap().mode() & 0o7777, 0o711);
        let linked = ["out/etc/deep/kept", "out/linked"].map(|name| at(name).metadata().unwrap().ino());
        assert_eq!(linked[0], linked[1]);
        assert_eq!(std::fs::read_to_string(at("out/linked")).unwrap(), "kept");
    }
}
