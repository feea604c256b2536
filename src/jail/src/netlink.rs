//! rtnetlink(7) as far as moving an interface takes it: one socket, one request at a time.

use std::os::fd::OwnedFd;

use creel_sys::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

/// Message types of linux/rtnetlink.h.
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;

/// NLM_F_* of linux/netlink.h.
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr.
const HEADER: usize = 16;

/// A request under construction: header, fixed part, attributes.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request with the fixed part of its type (ifinfomsg, ifaddrmsg).
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = vec![0u8; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Request(bytes)
    }

    /// Appends an attribute, struct rtattr, which ends on a border of four bytes.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.0.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// A message of the kernel's: type, fixed part and attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// RTM_*
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Message {
    /// The attribute of a type, behind a fixed part of `fixed` bytes.
    pub fn attribute(&self, fixed: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(fixed..)?;
        while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let value = rest.get(4..usize::from(len))?;
            if kind == wanted {
                return Some(value);
            }
            rest = rest.get(usize::from(len).next_multiple_of(4)..)?;
        }
        None
    }
}

/// A NETLINK_ROUTE socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one in the caller's network namespace.
    pub fn open() -> Result<Socket, Errno> {
        // NETLINK_ROUTE is protocol 0.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Socket)
    }

    /// Sends a request and collects what the kernel answers, up to its acknowledgement or the end of
    /// the dump. A request without [`ACK`] or [`DUMP`] is answered by one message.
    pub fn ask(&self, request: Request) -> Result<Vec<Message>, Errno> {
        let Request(mut bytes) = request;
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let many = u16_at(&bytes, 6).is_some_and(|flags| flags & (ACK | DUMP) != 0);
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let (_, n) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::TRUNC))?;
            let datagram = buffer.get(..n).ok_or(Errno::MSGSIZE)?;
            if read_datagram(datagram, &mut answers)? || (!many && !answers.is_empty()) {
                return Ok(answers);
            }
        }
    }
}

/// Appends the messages of a datagram; true at the end of the answer.
fn read_datagram(datagram: &[u8], answers: &mut Vec<Message>) -> Result<bool, Errno> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let len = u32_at(rest, 0).ok_or(Errno::PROTO)? as usize;
        let kind = u16_at(rest, 4).ok_or(Errno::PROTO)?;
        let body = rest.get(HEADER..len).ok_or(Errno::PROTO)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            // struct nlmsgerr: 0 is the acknowledgement.
            NLMSG_ERROR => match u32_at(body, 0).ok_or(Errno::PROTO)?.cast_signed() {
                0 => return Ok(true),
                errno => return Err(Errno::from_raw_os_error(-errno)),
            },
            _ => answers.push(Message { kind, body: body.to_vec() }),
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A number in the bytes of the machine.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_round_trip() {
        let Request(bytes) =
            Request::new(RTM_NEWLINK, ACK, &[0; 16]).attribute(3, b"eth0\0").attribute(28, &[7; 4]);
        let message = Message { kind: RTM_NEWLINK, body: bytes[HEADER..].to_vec() };
        assert_eq!(message.attribute(16, 3).unwrap(), b"eth0\0");
        assert_eq!(message.attribute(16, 28).unwrap(), [7; 4]);
        assert_eq!(message.attribute(16, 1), None);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn an_answer_ends_with_done_an_acknowledgement_or_an_error() {
        let mut answers = Vec::new();
        let two = [message(RTM_NEWADDR, &[1; 9]), message(RTM_NEWADDR, &[2; 8])].concat();
        assert!(!read_datagram(&two, &mut answers).unwrap());
        assert_eq!(answers.iter().map(|m| m.body.len()).collect::<Vec<_>>(), [9, 8]);
        assert!(read_datagram(&message(NLMSG_DONE, &[0; 4]), &mut answers).unwrap());
        assert!(read_datagram(&message(NLMSG_ERROR, &[0; 20]), &mut answers).unwrap());
        let refused = [(-19i32).to_ne_bytes().to_vec(), vec![0; 16]].concat();
        let error = read_datagram(&message(NLMSG_ERROR, &refused), &mut answers).unwrap_err();
        assert_eq!(error, Errno::NODEV);
        assert!(read_datagram(&[9; 7], &mut answers).is_err());
    }
}
