//! NOTIFY_SOCKET: what the container says by sd_notify(3) reaches the service manager outside.
//!
//! The container cannot reach the manager's socket, and its messages would come from a process that
//! the manager does not know. So it gets a socket of its own in the state directory, bound at
//! /run/notify; `start` passes the first READY=1 on, with the pid that the manager knows.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

use crate::sockets::connect_unix;
use crate::state::Init;
use crate::store::StateDir;
use crate::{Error, Runtime};

/// Directory in the state directory.
pub const DIRECTORY: &str = "notify";
/// NOTIFY_SOCKET of the container's process.
pub const IN_CONTAINER: &str = "/run/notify/notify.sock";
/// How long the manager may take to handle what was sent (sd_notify_barrier(3)).
const BARRIER: Duration = Duration::from_secs(30);

/// The directory that the container sees at /run/notify.
pub fn directory(runtime: &Runtime, id: &str) -> PathBuf {
    runtime.root.join(id).join(DIRECTORY)
}

/// Makes it, readable for the container's user.
pub fn make_directory(dir: &StateDir) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(dir, DIRECTORY, mode).map_err(Error::file("mkdir", dir.file(DIRECTORY)))?;
    // Whatever the umask: the container's root may be another uid.
    rustix::fs::chmodat(dir, DIRECTORY, mode, rustix::fs::AtFlags::empty())
        .map_err(Error::file("chmod", dir.file(DIRECTORY)))
}

/// The container's socket and the manager's.
#[derive(Debug)]
pub struct Proxy {
    inside: OwnedFd,
    outside: OwnedFd,
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

impl Proxy {
    /// Binds the container's socket before the container runs, and finds the manager's.
    pub fn bind(dir: &StateDir, socket: &Path) -> Result<Proxy, Error> {
        let outside = connect_unix(socket, SocketType::DGRAM).map_err(Error::file("connect", socket))?;
        let path = dir.file(DIRECTORY).join("notify.sock");
        let inside = bind_below(dir, &path).map_err(Error::file("bind", &path))?;
        Ok(Proxy { inside, outside })
    }

    /// Waits for the container's READY=1, passes it on and waits until the manager has seen it; also
    /// returns when the container is gone.
    pub fn wait_ready(&self, init: Init) -> Result<(), Error> {
        loop {
            let mut fds = [PollFd::new(&self.inside, PollFlags::IN)];
            let second = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            match poll(&mut fds, Some(&second)) {
                Ok(0) | Err(Errno::INTR) => {
                    if !init.is_alive() {
                        return Ok(());
                    }
                }
                Ok(_) => {
                    if let Some(barrier) = self.forward(init)? {
                        return barrier.wait();
                    }
                }
                Err(errno) => return Err(Error::File { call: "poll", path: DIRECTORY.into(), errno }),
            }
        }
    }

    /// Reads one message; when it was READY=1 it has been passed on, and a barrier behind it.
    pub fn forward(&self, init: Init) -> Result<Option<Barrier>, Error> {
        let mut message = [0u8; 4096];
        let (length, _) = recv(&self.inside, &mut message[..], RecvFlags::empty()).map_err(failed)?;
        let text = &message[..length.min(message.len())];
        let Some(ready) = text.split(|&b| b == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(None);
        };
        send(&self.outside, ready, SendFlags::NOSIGNAL).map_err(failed)?;
        let pid = format!("MAINPID={}", init.pid);
        send(&self.outside, pid.as_bytes(), SendFlags::NOSIGNAL).map_err(failed)?;
        Barrier::send(self.outside.as_fd()).map(Some).map_err(failed)
    }
}

fn failed(errno: Errno) -> Error {
    Error::File { call: "notify", path: IN_CONTAINER.into(), errno }
}

/// BARRIER=1 carries a pipe's end; when the manager closes it, it has handled all before it. A manager
/// that does not know barriers closes it too. The sender must not be gone before.
#[derive(Debug)]
pub struct Barrier {
    /// Readable when the barrier is lifted.
    pipe: OwnedFd,
    until: Instant,
}

impl AsFd for Barrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Barrier {
    fn send(manager: BorrowedFd<'_>) -> Result<Barrier, Errno> {
        let (pipe, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        creel_jail::conversation::send_fd(manager, b"BARRIER=1", write.as_fd())?;
        Ok(Barrier { pipe, until: Instant::now() + BARRIER })
    }

    /// Waits until it is lifted; a manager that hangs is not waited for any longer than [`BARRIER`].
    pub fn wait(&self) -> Result<(), Error> {
        loop {
            let left = Timespec::try_from(self.until.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], left.as_ref()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn bind_below(dir: &StateDir, path: &Path) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // The path may be longer than unix(7) allows; the directory's handle makes it short.
    let short = format!("/proc/self/fd/{}/{DIRECTORY}/notify.sock", dir.as_fd().as_raw_fd());
    bind(&fd, &SocketAddrUnix::new(short)?)?;
    rustix::fs::chmodat(rustix::fs::CWD, path, Mode::from_raw_mode(0o777), rustix::fs::AtFlags::empty())?;
    Ok(fd)
}
