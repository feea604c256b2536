//! Unix sockets that callers listen on: `--console-socket`, `--pidfd-socket`, NOTIFY_SOCKET.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use creel_sys::Errno;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::Error;

/// A connected socket with the name it was found under.
#[derive(Debug)]
pub struct CallerSocket {
    fd: OwnedFd,
    path: PathBuf,
}

impl CallerSocket {
    /// Connects before anything is made, so that a wrong path costs nothing but a moment: scripts start
    /// who listens in the background and the runtime at once, and runc is slow enough to find it there.
    pub fn connect(path: &Path) -> Result<CallerSocket, Error> {
        const MOMENT: Duration = Duration::from_millis(100);
        const STEP: Duration = Duration::from_millis(2);
        let start = Instant::now();
        loop {
            match connect_unix(path, SocketType::STREAM) {
                Err(Errno::NOENT | Errno::CONNREFUSED) if start.elapsed() < MOMENT => thread::sleep(STEP),
                other => {
                    let fd = other.map_err(Error::file("connect", path))?;
                    return Ok(CallerSocket { fd, path: path.to_path_buf() });
                }
            }
        }
    }

    /// Sends one message with one descriptor.
    pub fn send(&self, payload: &[u8], fd: BorrowedFd<'_>) -> Result<(), Error> {
        creel_jail::conversation::send_fd(self.fd.as_fd(), payload, fd)
            .map_err(Error::file("sendmsg", &self.path))
    }
}

/// Connects to a socket by a path of any length: unix(7) allows 107 bytes, engines use more. `@` in
/// front makes it the name of an abstract socket (sd_notify(3), NOTIFY_SOCKET).
pub fn connect_unix(path: &Path, kind: SocketType) -> Result<OwnedFd, Errno> {
    let fd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
        connect(&fd, &SocketAddrUnix::new_abstract_name(name)?)?;
        return Ok(fd);
    }
    match SocketAddrUnix::new(path) {
        Ok(address) => connect(&fd, &address)?,
        Err(Errno::NAMETOOLONG) => {
            let handle = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            use std::os::fd::AsRawFd;
            connect(&fd, &SocketAddrUnix::new(format!("/proc/self/fd/{}", handle.as_raw_fd()))?)?;
        }
        Err(errno) => return Err(errno),
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; no namespace is joined here")]

    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::CallerSocket;

    #[test]
    fn a_listener_that_is_only_being_started_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late");
        thread::scope(|scope| {
            let listener = scope.spawn(|| UnixListener::bind(&path).unwrap());
            CallerSocket::connect(&path).unwrap();
            listener.join().unwrap().accept().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
        assert!(CallerSocket::connect(&path).is_err());
    }
}
