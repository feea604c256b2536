//! A whole root file system, mounted or unpacked to one directory: paths in it are found as a process inside would
//! find them (openat2(2), `RESOLVE_IN_ROOT`), since its links are an image's.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::errno::Named;
use crate::runtime_config::Databases;
use crate::stack::open_root;

/// What passwd(5) and group(5) may be long.
const MAX_DATABASE: u64 = 1 << 20;

/// An open root.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// A call that the kernel refused.
#[derive(Debug)]
pub struct Error {
    call: &'static str,
    path: PathBuf,
    errno: Errno,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}) in the image: {}", self.call, self.path, Named(self.errno))
    }
}

impl std::error::Error for Error {}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error { call, path, errno }
}

impl Root {
    /// Opens a root by its path outside.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open(path: &Path) -> Result<Root, Error> {
        open_root(path).map(Root).map_err(failed("open", path))
    }

    fn at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: a rename somewhere on the machine raced with the walk (openat2(2)).
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// What is at a path, all links followed; nothing where nothing can be.
    ///
    /// # Errors
    /// openat2(2)'s.
    pub fn find(&self, path: &Path) -> Result<Option<Stat>, Error> {
        match self.at(path, OFlags::PATH) {
            Ok(fd) => rustix::fs::fstat(&fd).map(Some).map_err(failed("fstat", path)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            Err(errno) => Err(failed("openat2", path)(errno)),
        }
    }

    /// What the image says about users and groups.
    ///
    /// # Errors
    /// A file that is none, or one that is too long.
    pub fn users(&self) -> Result<Databases, Error> {
        Ok(Databases { passwd: self.text("/etc/passwd")?, group: self.text("/etc/group")? })
    }

    /// A small file; empty where there is none. A fifo or a device in its place is not opened (CVE-2024-9676).
    fn text(&self, path: &str) -> Result<String, Error> {
        let path = Path::new(path);
        let Some(stat) = self.find(path)? else { return Ok(String::new()) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed("open", path)(Errno::INVAL));
        }
        let file = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed("openat2", path))?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(MAX_DATABASE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("read", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if bytes.len() as u64 > MAX_DATABASE {
            return Err(failed("read", path)(Errno::FBIG));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn users_are_read_through_the_images_links_and_never_from_a_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.users().unwrap(), Databases::default());
        std::fs::create_dir_all(at("usr/etc")).unwrap();
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::write(at("usr/etc/passwd"), "web:x:33:34::/srv:/bin/sh\n").unwrap();
        symlink("/usr/etc/passwd", at("etc/passwd")).unwrap();
        assert_eq!(root.users().unwrap().resolve("web").unwrap().uid, 33);
        // Above the root is the root.
        symlink("../../../../etc/hostname", at("etc/group")).unwrap();
        assert_eq!(root.users().unwrap().group, "");
        std::fs::remove_file(at("etc/group")).unwrap();
        rustix::fs::mknodat(&root.0, "etc/group", FileType::Fifo, Mode::RUSR, 0).unwrap();
        let error = root.users().unwrap_err().to_string();
        assert_eq!(error, "open(\"/etc/group\") in the image: EINVAL (invalid argument)");
        std::fs::write(at("usr/etc/passwd"), vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(root.users().unwrap_err().to_string().contains("EFBIG"));
    }

    #[test]
    fn paths_are_found_where_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let root = Root::open(dir.path()).unwrap();
        std::fs::create_dir_all(at("real/a")).unwrap();
        symlink("/real", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        assert!(root.find(Path::new("/link/a")).unwrap().is_some());
        for path in ["/none", "/file/x", "/dangling", "/circle"] {
            assert!(root.find(Path::new(path)).unwrap().is_none(), "{path}");
        }
    }
}
