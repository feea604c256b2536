//! The conversation between the host and a child it cloned.
//!
//! ```text
//!   first ◀─── Placed ─────────────────── host     only when born outside its cgroup
//!   stage ──── Born(pid) ───────────────▶ host     only with a stage
//!   init  ◀─── Mapped ─────────────────── host     only with a new user namespace
//!   init  ──── Network ─────────────────▶ host     only with network devices to move
//!   init  ◀─── Proceed ────────────────── host
//!   init  ──── Tree(mount) + fd ────────▶ host     only with idmapped mounts of the container's own tree
//!   init  ◀─── Proceed ────────────────── host
//!   init  ──── Hooks ───────────────────▶ host     only with hooks of the runtime's namespaces
//!   init  ◀─── Proceed ────────────────── host
//!   init  ──── Console + master fd ─────▶ host     only with a terminal
//!   init  ──── Notify(fd number) ───────▶ host     only with SCMP_ACT_NOTIFY
//!   init  ◀─── Proceed ────────────────── host
//!   init  ──── Ready ───────────────────▶ host
//!   init  ◀─── Start | Wait ───────────── host     state.json and pid file exist now
//!   init  ──── Failed | (closed by exec) ▶ host    only after Start
//! ```
//!
//! A SOCK_SEQPACKET pair keeps message borders. Either side's death is an end of file for the
//! other. Messages without a descriptor go by read(2) and write(2), which every seccomp profile
//! that can run a program allows.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::steps::Phase;
use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::StepError;

/// Longest message: a failed hook's output must fit.
const MAX: usize = 4096;

/// From a child.
#[derive(Debug)]
pub enum Report {
    /// The stage cloned init.
    Born(i32),
    /// Init is in its network namespace: move the devices.
    Network,
    /// A detached tree of init's, the source of that mount: give it its id map.
    Tree(usize, OwnedFd),
    /// The child's user namespace.
    Namespace(OwnedFd),
    /// Mounts are made, the root is not switched: run the hooks.
    Hooks,
    /// The terminal's master.
    Console(OwnedFd),
    /// Number of the seccomp notify descriptor in the child.
    Notify(i32),
    /// Everything but the program is in place.
    Ready,
    /// A step failed; the child is gone.
    Failed(StepError),
}

/// To a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// The id maps are written.
    Mapped = 1,
    /// Hooks are done, or the notify descriptor is taken.
    Proceed,
    /// Run the program now.
    Start,
    /// Wait at the exec fifo.
    Wait,
    /// Somebody else has put the child into its cgroup.
    Placed,
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Both ends: the host's and the child's.
pub fn pair() -> Result<(Channel, Channel), Errno> {
    let (host, child) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Channel(host), Channel(child)))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Child: sends a report that carries no descriptor.
    pub fn report(&self, report: &Report) -> Result<(), Errno> {
        let mut message = Vec::with_capacity(64);
        match report {
            Report::Born(pid) => {
                message.push(b'B');
                message.extend(pid.to_ne_bytes());
            }
            Report::Network => message.push(b'D'),
            Report::Hooks => message.push(b'H'),
            Report::Console(_) | Report::Tree(..) | Report::Namespace(_) => return Err(Errno::INVAL),
            Report::Notify(fd) => {
                message.push(b'N');
                message.extend(fd.to_ne_bytes());
            }
            Report::Ready => message.push(b'R'),
            Report::Failed(error) => {
                message.push(b'F');
                message.push(error.phase as u8);
                message.extend((error.index as u32).to_ne_bytes());
                message.extend(error.errno.to_ne_bytes());
                message.extend(error.call.as_bytes());
                message.truncate(MAX);
            }
        }
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &message)).map(drop)
    }

    /// Child: sends the terminal's master.
    pub fn send_console(&self, master: BorrowedFd<'_>) -> Result<(), Errno> {
        send_fd(self.0.as_fd(), b"C", master)
    }

    /// Child: sends the source of a mount for its id map.
    pub fn send_tree(&self, mount: usize, tree: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut message = vec![b'T'];
        message.extend((mount as u32).to_ne_bytes());
        send_fd(self.0.as_fd(), &message, tree)
    }

    /// Child: sends its user namespace.
    pub fn send_namespace(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        send_fd(self.0.as_fd(), b"U", file)
    }

    /// Child: the next order; EPIPE when the host is gone.
    pub fn order(&self) -> Result<Order, Errno> {
        let mut byte = [0u8; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut byte))? {
            0 => Err(Errno::PIPE),
            _ => match byte[0] {
                1 => Ok(Order::Mapped),
                2 => Ok(Order::Proceed),
                3 => Ok(Order::Start),
                4 => Ok(Order::Wait),
                5 => Ok(Order::Placed),
                _ => Err(Errno::PROTO),
            },
        }
    }

    /// Child: waits for one particular order.
    pub fn expect(&self, order: Order) -> Result<(), Errno> {
        if self.order()? == order { Ok(()) } else { Err(Errno::PROTO) }
    }

    /// Host: sends an order.
    pub fn command(&self, order: Order) -> Result<(), Errno> {
        rustix::net::send(&self.0, &[order as u8], SendFlags::NOSIGNAL).map(drop)
    }

    /// Host: the next report of the process behind `pidfd`, None when it died without one. Another
    /// process may still hold the other end then (init, when the stage was killed): an end of file
    /// alone would be waited for in vain.
    pub fn next_of(&self, pidfd: impl AsFd) -> Result<Option<Report>, Errno> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !fds[0].revents().is_empty() {
                return self.next();
            }
            if !fds[1].revents().is_empty() {
                // What it said before it died came before its death.
                let mut last = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                return if poll(&mut last, Some(&now))? > 0 { self.next() } else { Ok(None) };
            }
        }
    }

    /// Host: the next report, None when every holder of the other end is gone or has executed its
    /// program.
    pub fn next(&self) -> Result<Option<Report>, Errno> {
        let mut bytes = [0u8; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match rustix::io::retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        }) {
            Err(Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last().or(fd);
            }
        }
        decode(&bytes[..received.bytes], fd).map(Some).ok_or(Errno::PROTO)
    }
}

fn decode(message: &[u8], fd: Option<OwnedFd>) -> Option<Report> {
    let number =
        |at: usize| -> Option<i32> { Some(i32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?)) };
    match message.first()? {
        b'B' => Some(Report::Born(number(1)?)),
        b'D' => Some(Report::Network),
        b'H' => Some(Report::Hooks),
        b'C' => Some(Report::Console(fd?)),
        b'T' => Some(Report::Tree(usize::try_from(number(1)?).ok()?, fd?)),
        b'U' => Some(Report::Namespace(fd?)),
        b'N' => Some(Report::Notify(number(1)?)),
        b'R' => Some(Report::Ready),
        b'F' => Some(Report::Failed(StepError {
            phase: Phase::from_u8(*message.get(1)?)?,
            index: usize::try_from(number(2)?).ok()?,
            errno: number(6)?,
            call: String::from_utf8_lossy(message.get(10..)?).into_owned(),
        })),
        _ => None,
    }
}

/// Sends `payload` with one descriptor (unix(7), SCM_RIGHTS).
pub fn send_fd(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL))
        .map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_failed_step_arrives_as_it_was_sent() {
        let (host, child) = pair().unwrap();
        let sent = StepError { phase: Phase::Mounts, index: 3, call: "mount(x)".into(), errno: 22 };
        child.report(&Report::Failed(sent.clone())).unwrap();
        match host.next().unwrap() {
            Some(Report::Failed(got)) => assert_eq!(got, sent),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dead_peer_is_an_end_of_file_on_both_sides() {
        let (host, child) = pair().unwrap();
        drop(child);
        assert!(host.next().unwrap().is_none());
        let (host, child) = pair().unwrap();
        drop(host);
        assert_eq!(child.order(), Err(Errno::PIPE));
    }

    #[test]
    fn a_descriptor_travels_with_console() {
        let (host, child) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        child.send_console(null.as_fd()).unwrap();
        assert!(matches!(host.next().unwrap(), Some(Report::Console(_))));
    }

    #[test]
    fn garbage_is_no_report() {
        for bytes in [&b""[..], b"Z", b"B12", b"F", b"F\xff12345678x", b"C"] {
            assert!(decode(bytes, None).is_none(), "{bytes:?}");
        }
    }
}
