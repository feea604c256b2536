//! Container paths as handles below the root.
//!
//! Everything that init does in the container's tree goes through [`Root`]: a path is resolved by
//! openat2(2) with RESOLVE_IN_ROOT, so that a link in a hostile image, absolute or `..`, ends inside
//! the root (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579), and the result is a handle on which
//! the next call acts, not a string that can change its meaning. Magic links never resolve.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use creel_sys::{Errno, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat, unlinkat,
};

/// Links followed before giving up, as the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// openat2(2) answers EAGAIN when a rename races with `..`; a racing container must not be able to
/// make creel loop for ever.
const MAX_RACES: usize = 128;

/// What is made where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Directory,
    File,
}

/// The container's root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Takes the handle of a directory.
    pub fn new(dir: OwnedFd) -> Self {
        Root(dir)
    }

    /// The process's own root, for after the root switch.
    pub fn current() -> Result<Self> {
        openat(rustix::fs::CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Root)
    }

    /// Handle (O_PATH) of an existing path; links are followed inside the root.
    pub fn resolve(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Opens an existing path.
    pub fn open(&self, path: &str, flags: OFlags, extra: ResolveFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
        for _ in 0..MAX_RACES {
            match openat2(&self.0, relative(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Handle of a directory that no link leads to; made with its parents if missing.
    /// ELOOP when a component is a link.
    pub fn plain_directory(&self, path: &str) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOENT) => {
                drop(self.make(path, Leaf::Directory)?);
                self.open(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
            }
            other => other,
        }
    }

    /// Handle of a directory, made with its parents (mode 0755) if missing.
    pub fn directory(&self, path: &str) -> Result<OwnedFd> {
        self.directory_or_new(path).map(|(dir, _)| dir)
    }

    /// The same, telling whether it was made.
    pub fn directory_or_new(&self, path: &str) -> Result<(OwnedFd, bool)> {
        match self.resolve(path) {
            Err(Errno::NOENT) => self.make_last(path).map(|dir| (dir, true)),
            other => other.map(|dir| (dir, false)),
        }
    }

    /// Handle of anything at `path`; an empty regular file is made if nothing is there.
    pub fn file(&self, path: &str) -> Result<OwnedFd> {
        match self.resolve(path) {
            Err(Errno::NOENT) => self.make(path, Leaf::File),
            other => other,
        }
    }

    /// Handle of what exists at `path`, of the link itself where its last component is one.
    pub fn unfollowed(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty())
    }

    /// Makes a directory whose parent is there, the usual case: `/dev/pts` in a new `/dev`.
    fn make_last(&self, path: &str) -> Result<OwnedFd> {
        let (parent, name) = relative(path).rsplit_once('/').unwrap_or((".", relative(path)));
        if let (Ok(parent), false) = (self.resolve(parent), ["", ".", ".."].contains(&name)) {
            // A dangling link of that name is in the way (EEXIST), and its target to be made.
            if mkdirat(&parent, name, Mode::from_raw_mode(0o755)).is_ok() {
                return open_component(parent.as_fd(), &OsString::from(name));
            }
        }
        self.make(path, Leaf::Directory)
    }

    /// Makes `path` and every missing directory on the way, following links inside the root, dangling ones
    /// included: their target is what gets made, as mkdir -p in a chroot would not, but as images
    /// with `/var/run -> /run` and no `/run`, or `/etc/resolv.conf -> /run/resolv.conf`, need.
    fn make(&self, path: &str, leaf: Leaf) -> Result<OwnedFd> {
        let mut todo: VecDeque<OsString> = components(Path::new(path));
        // Handles from the root down to the current directory: `..` pops, so it cannot leave.
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                stack.pop();
                continue;
            }
            let here = stack.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let is_file = leaf == Leaf::File && todo.is_empty();
            match open_component(here, &name) {
                Ok(next) => match FileType::from_raw_mode(fstat(&next)?.st_mode) {
                    FileType::Directory => stack.push(next),
                    FileType::Symlink => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        let target = readlinkat(&next, "", Vec::new())?;
                        let target = OsString::from_vec(target.into_bytes());
                        let target = Path::new(&target);
                        if target.is_absolute() {
                            stack.clear();
                        }
                        for part in components(target).into_iter().rev() {
                            todo.push_front(part);
                        }
                    }
                    _ if is_file => return Ok(next),
                    FileType::RegularFile
                    | FileType::Fifo
                    | FileType::Socket
                    | FileType::CharacterDevice
                    | FileType::BlockDevice
                    | FileType::Unknown => return Err(Errno::NOTDIR),
                },
                Err(Errno::NOENT) => {
                    let made = if is_file {
                        make_file(here, &name)
                    } else {
                        mkdirat(here, name.as_os_str(), Mode::from_raw_mode(0o755))
                    };
                    match made {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    todo.push_front(name);
                    links += 1; // bounds a race with something that removes it again
                    if links > MAX_LINKS * 8 {
                        return Err(Errno::AGAIN);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        match stack.pop() {
            Some(dir) => Ok(dir),
            None => self.open("/", OFlags::PATH, ResolveFlags::empty()),
        }
    }
}

/// Parent directories of names that are made one after the other, mostly in the same one.
pub struct Parents<'r> {
    root: &'r Root,
    last: Option<(String, OwnedFd)>,
}

impl<'r> Parents<'r> {
    /// Below `root`.
    pub fn new(root: &'r Root) -> Self {
        Parents { root, last: None }
    }

    /// Parent directory (made if missing) and last component of a path. The component may be a link:
    /// callers use NOFOLLOW calls on it.
    pub fn of(&mut self, path: &str) -> Result<(BorrowedFd<'_>, OsString)> {
        let path = Path::new(path);
        let name = path.file_name().ok_or(Errno::INVAL)?.to_os_string();
        let parent = path.parent().and_then(Path::to_str).ok_or(Errno::INVAL)?;
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let dir = if relative(parent) == "." {
                self.root.open("/", OFlags::PATH, ResolveFlags::empty())?
            } else {
                self.root.directory(parent)?
            };
            self.last = Some((parent.to_owned(), dir));
        }
        self.last.as_ref().map(|(_, dir)| (dir.as_fd(), name)).ok_or(Errno::INVAL)
    }

    /// Makes a link unless something of that name exists.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let (parent, name) = self.of(path)?;
        match rustix::fs::symlinkat(target, parent, name.as_os_str()) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a name that is not a directory, if it exists.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let (parent, name) = self.of(path)?;
        match unlinkat(parent, name.as_os_str(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

/// The path as openat2(2) wants it below a root: RESOLVE_IN_ROOT takes absolute paths too, but "/"
/// alone has to name something.
fn relative(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// An empty file, unless something of that name exists, be it a dangling link (EEXIST).
fn make_file(dir: BorrowedFd<'_>, name: &OsString) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dir, name.as_os_str(), flags, Mode::from_raw_mode(0o644)).map(drop)
}

/// One component, not followed if it is a link, but crossing into what is mounted on it.
fn open_component(dir: BorrowedFd<'_>, name: &OsString) -> Result<OwnedFd> {
    debug_assert!(!name.as_bytes().contains(&b'/'));
    openat(dir, name.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let fd =
            openat(rustix::fs::CWD, dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, Root::new(fd))
    }

    #[test]
    fn absolute_and_dotdot_links_stay_inside() {
        let (dir, root) = root();
        symlink("/etc/made", dir.path().join("abs")).unwrap();
        symlink("../../../../up", dir.path().join("rel")).unwrap();
        root.directory("/abs/x").unwrap();
        root.directory("/rel/y").unwrap();
        assert!(dir.path().join("etc/made/x").is_dir());
        assert!(dir.path().join("up/y").is_dir());
        assert!(!Path::new("/etc/made").exists());
    }

    #[test]
    fn dangling_link_to_a_directory_makes_its_target() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("var")).unwrap();
        symlink("/run", dir.path().join("var/run")).unwrap();
        root.directory("/var/run/secrets").unwrap();
        assert!(dir.path().join("run/secrets").is_dir());
    }

    #[test]
    fn dangling_link_to_a_file_makes_its_target() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("../run/systemd/resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        root.file("/etc/resolv.conf").unwrap();
        assert!(dir.path().join("run/systemd/resolv.conf").is_file());
        assert!(root.directory("/etc/resolv.conf/x").is_err());
    }

    #[test]
    fn a_link_loop_is_eloop() {
        let (dir, root) = root();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(root.make("/a/x", Leaf::Directory).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn plain_directory_refuses_links_and_makes_what_is_missing() {
        let (dir, root) = root();
        symlink("/tmp", dir.path().join("proc")).unwrap();
        assert_eq!(root.plain_directory("/proc").unwrap_err(), Errno::LOOP);
        root.plain_directory("/sys").unwrap();
        assert!(dir.path().join("sys").is_dir());
    }

    #[test]
    fn file_is_made_once_and_a_directory_in_the_way_of_a_directory_is_kept() {
        let (dir, root) = root();
        root.file("/a/b/c").unwrap();
        assert!(dir.path().join("a/b/c").is_file());
        root.file("/a/b/c").unwrap();
        assert_eq!(root.directory("/a/b/c/d").unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn the_root_itself_resolves() {
        let (_dir, root) = root();
        root.resolve("/").unwrap();
        root.directory("/../..").unwrap();
    }
}
