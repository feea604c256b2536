//! The state directory of one container: its place, its lock, its files.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_jail::Gate;
use creel_sys::Errno;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::Error;

/// How long a command waits for another one that works on the same container.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// `<root>/<id>`, opened.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// runc's alphabet: what engines and people use as ids.
pub fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let good = !id.is_empty() && id.len() <= 1024 && id.chars().all(allowed) && id != "." && id != "..";
    if good { Ok(()) } else { Err(Error::BadId(id.to_string())) }
}

impl StateDir {
    /// Makes the directory of a new container and locks it.
    pub fn make(root: &Path, id: &str) -> Result<StateDir, Error> {
        check_id(id)?;
        let path = root.join(id);
        let mkdir = |mode| rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(mode));
        loop {
            match mkdir(0o711) {
                Err(Errno::NOENT) => {
                    make_root(root)?;
                    match mkdir(0o711) {
                        Err(Errno::EXIST) => return Err(Error::Exists),
                        other => other.map_err(Error::file("mkdir", &path))?,
                    }
                }
                Err(Errno::EXIST) => return Err(Error::Exists),
                other => other.map_err(Error::file("mkdir", &path))?,
            }
            // Between mkdir and lock the directory may be deleted, and made again by another create.
            let dir = match StateDir::open_path(path.clone()) {
                Err(Error::NotFound) => continue,
                other => other?,
            };
            match dir.lock() {
                Err(Error::NotFound) => continue,
                other => other?,
            }
            return if dir.has(STATE) { Err(Error::Exists) } else { Ok(dir) };
        }
    }

    /// Opens the directory of an existing container.
    pub fn open(root: &Path, id: &str) -> Result<StateDir, Error> {
        check_id(id)?;
        StateDir::open_path(root.join(id))
    }

    fn open_path(path: PathBuf) -> Result<StateDir, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(StateDir { path, fd }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NotFound),
            Err(errno) => Err(Error::File { call: "open", path, errno }),
        }
    }

    /// Excludes every other command that changes this container, until [`StateDir::unlock`] or the
    /// handle's end. NotFound when the container was deleted while this one waited, even if its id is
    /// in use again.
    pub fn lock(&self) -> Result<(), Error> {
        self.lock_within(LOCK_DEADLINE)
    }

    /// The same with a deadline of one's own.
    pub fn lock_within(&self, deadline: Duration) -> Result<(), Error> {
        self.wait_for_lock(Instant::now() + deadline)?;
        let own = rustix::fs::fstat(&self.fd).map_err(Error::file("stat", &self.path))?;
        match rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(now) if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT) => Err(Error::NotFound),
            Err(errno) => Err(Error::File { call: "stat", path: self.path.clone(), errno }),
        }
    }

    /// Lets others at the container.
    pub fn unlock(&self) {
        creel_sys::best_effort(rustix::fs::flock(&self.fd, FlockOperation::Unlock));
    }

    fn wait_for_lock(&self, deadline: Instant) -> Result<(), Error> {
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => return Err(Error::Locked),
                Err(errno) => return Err(Error::File { call: "flock", path: self.path.clone(), errno }),
            }
        }
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file's content; NotFound when it is missing.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(Error::NotFound),
            other => other.map_err(Error::file("open", self.file(name)))?,
        };
        let mut data = Vec::with_capacity(4096);
        loop {
            let count = rustix::io::read(&fd, spare_capacity(&mut data));
            let count = count.map_err(Error::file("read", self.file(name)))?;
            // What is put in place whole ends where a read ends early.
            if count == 0 || data.len() < data.capacity() {
                return Ok(data);
            }
            data.reserve(4096);
        }
    }

    /// Writes a file so that a reader sees all of it or none.
    pub fn write(&self, name: &str, data: &[u8]) -> Result<(), Error> {
        let draft = format!(".{name}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = || self.file(name);
        let fd = rustix::fs::openat(&self.fd, &draft, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::file("create", at()))?;
        write_all(&fd, data).map_err(Error::file("write", at()))?;
        rustix::fs::renameat(&self.fd, &draft, &self.fd, name).map_err(Error::file("rename", at()))
    }

    /// Writes a file that readers look for only once [`STATE`] is in place.
    pub fn write_early(&self, name: &str, data: &[u8]) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = || self.file(name);
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::file("create", at()))?;
        write_all(&fd, data).map_err(Error::file("write", at()))
    }

    /// Notes a few words under a name, at once or not at all: as the target of a symbolic link, which
    /// is made and read by one system call.
    pub fn note(&self, name: &str, words: &str) -> Result<(), Error> {
        rustix::fs::symlinkat(words, &self.fd, name).map_err(Error::file("symlink", self.file(name)))
    }

    /// What was noted; NotFound when nothing was.
    pub fn noted(&self, name: &str) -> Result<Vec<u8>, Error> {
        match rustix::fs::readlinkat(&self.fd, name, Vec::with_capacity(64)) {
            Ok(words) => Ok(words.into_bytes()),
            Err(Errno::NOENT) => Err(Error::NotFound),
            Err(errno) => Err(Error::File { call: "readlink", path: self.file(name), errno }),
        }
    }

    /// Whether a file is there.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes the fifo at which init waits, and opens it so that neither side's open waits for the
    /// other (fifo(7)). It has room for one write, so that poll(2) tells `start` when init has read
    /// its word: from then on what can be read there is init's.
    pub fn make_gate(&self) -> Result<Gate, Error> {
        let fail = |call| Error::file(call, self.file(FIFO));
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&self.fd, FIFO, rustix::fs::FileType::Fifo, mode, 0).map_err(fail("mkfifo"))?;
        let fifo = rustix::fs::openat(&self.fd, FIFO, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail("open"))?;
        // Rounded up to a page.
        rustix::pipe::fcntl_setpipe_size(&fifo, 1).map_err(fail("fcntl(F_SETPIPE_SZ)"))?;
        Ok(Gate { fifo, waited: Cell::new(false) })
    }

    /// Whether init waits at the gate. A fifo that nobody reads is what a killed `start` left.
    pub fn is_waited_at(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, FIFO, flags, Mode::empty()).is_ok()
    }

    /// Tells init to go on: the writing end of the fifo, whose name is gone. `None` when nobody
    /// waits any more.
    pub fn open_gate(&self) -> Result<Option<OwnedFd>, Error> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = match rustix::fs::openat(&self.fd, FIFO, flags, Mode::empty()) {
            Err(Errno::NXIO) => return Ok(None),
            other => other.map_err(Error::file("open", self.file(FIFO)))?,
        };
        rustix::io::write(&fifo, START_WORD).map_err(Error::file("write", self.file(FIFO)))?;
        self.remove(FIFO)?;
        Ok(Some(fifo))
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(Error::file("unlink", self.file(name))),
        }
    }

    /// Removes the directory with everything in it.
    pub fn destroy(&self) -> Result<(), Error> {
        // The files that a container has, without reading the directory; what else there may be
        // (notify/, a draft of a killed command) takes the long way.
        for name in FILES {
            self.remove(name)?;
        }
        match rustix::fs::unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) => std::fs::remove_dir_all(&self.path).map_err(Error::io("remove", &self.path)),
        }
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// state.json
pub const STATE: &str = "state.json";
/// exec.json
pub const EXEC: &str = "exec.json";
/// The compiled filter.
pub const FILTER: &str = "seccomp.bpf";
/// Init's pid and start time.
pub const INIT: &str = "init";
/// The cgroup directories that create was about to make.
pub const CGROUP: &str = "cgroup.json";
/// The resctrl groups that create was about to make.
pub const RESCTRL: &str = "resctrl.json";
/// What `start` writes into the exec fifo.
pub const START_WORD: &[u8] = b"0";
/// The exec fifo.
pub const FIFO: &str = "exec.fifo";

const FILES: [&str; 6] = [STATE, EXEC, FILTER, INIT, FIFO, CGROUP];

fn make_root(root: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(Error::io("mkdir", root))
}

/// A file of procfs that is made anew by each read, of less than a page: one read gets all of it.
pub fn read_proc(path: &str) -> Result<String, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0u8; 4096];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer))?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// write(2) until all is written.
pub fn write_all(fd: impl AsFd, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::write(&fd, data) {
            Ok(n) => data = &data[n..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ids_have_runcs_alphabet() {
        for good in ["a", "web-1", "A_b+c.d", "0123456789abcdef"] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\0", "../x"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_taken_once_and_free_after_destroy() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::make(&root.path().join("r"), "a").unwrap();
        dir.write(STATE, b"{}").unwrap();
        assert!(matches!(StateDir::make(&root.path().join("r"), "a"), Err(Error::Exists)));
        assert_eq!(dir.read(STATE).unwrap(), b"{}");
        dir.destroy().unwrap();
        assert!(matches!(StateDir::open(&root.path().join("r"), "a"), Err(Error::NotFound)));
        StateDir::make(&root.path().join("r"), "a").unwrap();
    }

    #[test]
    fn the_word_of_start_fills_the_fifo_until_it_is_read() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::make(root.path(), "a").unwrap();
        let waiter = dir.make_gate().unwrap();
        let gate = dir.open_gate().unwrap().unwrap();
        let is_read = || {
            let mut fds = [PollFd::new(&gate, PollFlags::OUT)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
        };
        assert!(!is_read());
        assert_eq!(rustix::io::read(&waiter.fifo, &mut [0u8; 1][..]).unwrap(), 1);
        assert!(is_read() && !dir.has(FIFO));
    }

    #[test]
    fn a_fifo_without_a_waiter_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::make(root.path(), "a").unwrap();
        let waiter = dir.make_gate().unwrap();
        drop(waiter);
        assert!(dir.open_gate().unwrap().is_none());
    }
}
