//! Unix sockets on which a runtime sends file descriptors: `--console-socket`, `--pidfd-socket` and
//! seccomp's `listenerPath`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::wait;

/// A listening socket.
#[derive(Debug)]
pub struct FdSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// What came over one connection.
#[derive(Debug)]
pub struct Message {
    /// The bytes of all messages.
    pub payload: Vec<u8>,
    /// The file descriptors.
    pub fds: Vec<OwnedFd>,
    /// How many messages there were.
    pub count: usize,
}

impl FdSocket {
    /// Listens at `path`.
    ///
    /// # Panics
    /// When that is not possible, for example since the path has more than 107 bytes (unix(7)).
    pub fn listen(path: &Path) -> FdSocket {
        FdSocket { listener: UnixListener::bind(path).unwrap(), path: path.to_owned() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts one connection and reads it to its end.
    ///
    /// # Panics
    /// When nobody comes, or does not close, within [`wait::DEADLINE`].
    pub fn receive(&self) -> Message {
        assert!(
            wait::readable(&self.listener, wait::DEADLINE),
            "nobody connected to {}",
            self.path.display()
        );
        let (stream, _) = self.listener.accept().unwrap();
        let mut message = Message { payload: Vec::new(), fds: Vec::new(), count: 0 };
        loop {
            assert!(wait::readable(&stream, wait::DEADLINE), "the connection stays open: {message:?}");
            let mut bytes = [0; 65536];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let got = recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = part {
                    message.fds.extend(fds);
                }
            }
            if got.bytes == 0 {
                return message;
            }
            message.count += 1;
            message.payload.extend_from_slice(&bytes[..got.bytes]);
        }
    }

    /// [`FdSocket::receive`] for exactly one file descriptor.
    ///
    /// # Panics
    /// When there is another number of them.
    pub fn receive_one(&self) -> (OwnedFd, Vec<u8>) {
        let mut message = self.receive();
        assert!(message.fds.len() == 1, "expected one file descriptor: {message:?}");
        (message.fds.remove(0), message.payload)
    }
}
