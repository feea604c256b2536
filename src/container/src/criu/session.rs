//! One `criu swrk`: its process, its socket, and the request that it serves.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use creel_sys::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use super::messages::{Kind, Options, Response, acknowledge, request};
use super::wire::Message;
use super::{Failure, Notify, Program, log};
use crate::Error;

/// Longest answer that is taken.
const MAX: usize = 64 * 1024;

/// Answers a notification, which may bring a descriptor.
pub type Notified<'n> = dyn FnMut(&Notify, Option<OwnedFd>) -> Result<(), Error> + 'n;

/// Where a failure is explained.
#[derive(Debug)]
pub struct Logged<'a> {
    /// The program.
    pub program: &'a Program,
    /// Its log.
    pub log: PathBuf,
}

/// A running `criu swrk`. Dropped, it is left alone with a closed socket, on which it gives up and
/// lets go of the processes that it holds, and reaped: killed it would leave them stopped.
#[derive(Debug)]
pub struct Session {
    program: PathBuf,
    what: &'static str,
    socket: Option<OwnedFd>,
    child: Child,
    reaped: bool,
}

impl Session {
    /// Starts it with a socket of its own and the descriptors `inherited`, which keep their numbers.
    /// `stdio`: it has the caller's standard streams, for a process to be restored with them.
    pub fn start(
        program: &Path,
        what: &'static str,
        inherited: &[BorrowedFd<'_>],
        stdio: bool,
    ) -> Result<Session, Error> {
        let broken = |call: &str, errno| {
            let why = format!("{call}: {}", creel_jail::errno_words(errno));
            Error::from(Failure::Broken { program: program.to_path_buf(), what, why })
        };
        let (own, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| broken("socketpair", errno))?;
        for fd in inherited.iter().copied().chain([theirs.as_fd()]) {
            creel_sys::fd::keep_on_exec(fd.as_raw_fd()).map_err(|errno| broken("fcntl", errno))?;
        }
        let stream = || if stdio { Stdio::inherit() } else { Stdio::null() };
        let mut command = Command::new(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let child = creel_sys::process::unblock_signals(&mut command).spawn().map_err(|e| {
            let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
            Error::from(Failure::NotStarted { program: program.to_path_buf(), errno })
        })?;
        // Its death is an end of file only if nobody else holds its end.
        drop(theirs);
        Ok(Session { program: program.to_path_buf(), what, socket: Some(own), child, reaped: false })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and takes the one answer.
    pub fn ask(&mut self, request: &Message) -> Result<Response, Error> {
        self.send(request)?;
        let (response, _) = self.receive()?;
        if response.success { Ok(response) } else { Err(self.broken("it said no".into())) }
    }

    /// Sends the request and answers its notifications by `notified`, until it is done.
    pub fn serve(
        &mut self,
        kind: Kind,
        options: &Options,
        logged: &Logged<'_>,
        notified: &mut Notified<'_>,
    ) -> Result<(), Error> {
        self.send(&request(kind, Some(options)))?;
        loop {
            let (response, fd) = self.receive().map_err(|error| self.explain(error, logged))?;
            match &response.notify {
                Some(notify) if response.kind == Kind::Notify as i32 => {
                    tracing::debug!("criu: {} (pid {})", notify.script, notify.pid);
                    notified(notify, fd)?;
                    self.send(&acknowledge())?;
                }
                _ if !response.success => return Err(self.refused(response, logged)),
                _ if response.kind == kind as i32 => return Ok(()),
                _ => return Err(self.broken(format!("an answer of type {}", response.kind))),
            }
        }
    }

    /// Waits for its end. True when that was a good one.
    pub fn end(mut self) -> Result<bool, Error> {
        self.socket = None;
        self.reaped = true;
        let status = self.child.wait().map_err(Error::io("wait", &self.program))?;
        Ok(status.success())
    }

    fn socket(&self) -> Result<BorrowedFd<'_>, Error> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or_else(|| self.broken("the session is over".into()))
    }

    fn send(&self, message: &Message) -> Result<(), Error> {
        let socket = self.socket()?;
        rustix::io::retry_on_intr(|| rustix::net::send(socket, message.as_bytes(), SendFlags::NOSIGNAL))
            .map(drop)
            .map_err(|errno| self.broken(format!("send: {}", creel_jail::errno_words(errno))))
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>), Error> {
        let mut bytes = vec![0u8; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let socket = self.socket()?;
        let received = match rustix::io::retry_on_intr(|| {
            recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        }) {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(self.broken(format!("receive: {}", creel_jail::errno_words(errno)))),
        };
        if received == 0 {
            return Err(self.broken("it ended without an answer".into()));
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last().or(fd);
            }
        }
        let response = bytes.get(..received).filter(|_| received < MAX).and_then(Response::parse);
        response
            .map(|response| (response, fd))
            .ok_or_else(|| self.broken("an answer that cannot be read".into()))
    }

    fn broken(&self, why: String) -> Error {
        Error::from(Failure::Broken { program: self.program.clone(), what: self.what, why })
    }

    /// A CRIU that died may have said why in its log.
    fn explain(&self, error: Error, logged: &Logged<'_>) -> Error {
        match log::cite(&logged.log) {
            Some(_) => self.refused(Response::default(), logged),
            None => error,
        }
    }

    fn refused(&self, response: Response, logged: &Logged<'_>) -> Error {
        let cited = log::cite(&logged.log);
        let log = logged.log.exists().then(|| (logged.log.clone(), cited));
        Error::from(Failure::Refused {
            program: self.program.clone(),
            what: self.what,
            version: logged.program.version,
            errno: response.errno,
            message: response.message,
            log,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.socket = None;
        if !self.reaped {
            if let Err(error) = self.child.wait() {
                tracing::warn!("wait for criu: {error}");
            }
        }
    }
}
