//! Network devices that move into the container (config-linux.md, Network Devices).
//!
//! Runs in the **host**, when init is in its network namespace and before it writes its sysctls, which
//! may name the devices. A device changes namespace and name in one request, so that no name can clash
//! on the way. Its MTU and MAC address go along; the kernel drops its addresses, so the permanent ones of
//! global scope are read before and added after.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::steps::NetDeviceStep;
use creel_sys::Errno;
use creel_sys::process::{SingleThreaded, setns};
use rustix::fs::{Mode, OFlags};

use crate::error::Failed;
use crate::netlink::{
    ACK, CREATE, DUMP, EXCL, Message, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, Request, Socket,
    u32_at,
};

/// IFLA_* of linux/if_link.h, IFA_* of linux/if_addr.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
/// Sizes of struct ifinfomsg and struct ifaddrmsg.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Moves the devices into the network namespace of process `pid`.
pub fn move_all(pid: i32, devices: &[NetDeviceStep]) -> Result<(), Failed> {
    let fail = |call: &str, errno| Failed::host(call.to_string(), errno).at(".linux.netDevices");
    let open = |path: String| {
        rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| fail(&format!("open({path})"), errno))
    };
    let (own, theirs) = (open("/proc/self/ns/net".into())?, open(format!("/proc/{pid}/ns/net"))?);
    let same = |(a, b): (rustix::fs::Stat, rustix::fs::Stat)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    let stat = |file| rustix::fs::fstat(file).map_err(|errno| fail("fstat(network namespace)", errno));
    if same((stat(&own)?, stat(&theirs)?)) {
        return Err(
            Failed::said("the container's network namespace is the runtime's").at(".linux.netDevices")
        );
    }
    let outside = Socket::open().map_err(|errno| fail("socket(AF_NETLINK)", errno))?;
    let inside =
        socket_in(&theirs, &own).map_err(|errno| fail("socket(AF_NETLINK) in the container", errno))?;
    let between = Between { outside, own, inside, theirs };
    let mut moved = Vec::with_capacity(devices.len());
    for device in devices {
        let result = between.look_up(device).and_then(|one| {
            moved.push(one);
            moved.last().map_or(Ok(()), |one| between.move_in(one))
        });
        if let Err(failed) = result {
            // The namespace may be somebody else's, and outlive this container.
            moved.iter().rev().for_each(|one| between.move_back(one));
            return Err(failed);
        }
    }
    Ok(())
}

/// A socket belongs to the network namespace that its maker is in.
fn socket_in(namespace: &OwnedFd, own: &OwnedFd) -> Result<Socket, Errno> {
    let alone = SingleThreaded::witness();
    setns(namespace.as_fd(), NamespaceKind::Network.clone_flag(), &alone)?;
    let socket = Socket::open();
    setns(own.as_fd(), NamespaceKind::Network.clone_flag(), &alone)?;
    socket
}

/// Both ends of a move: the runtime's network namespace and the container's.
struct Between {
    outside: Socket,
    own: OwnedFd,
    inside: Socket,
    theirs: OwnedFd,
}

/// A device that is to move, as it was.
struct Device<'p> {
    step: &'p NetDeviceStep,
    index: u32,
    was_up: bool,
    addresses: Vec<Message>,
}

impl Between {
    fn look_up<'p>(&self, step: &'p NetDeviceStep) -> Result<Device<'p>, Failed> {
        let NetDeviceStep { at, name, new_name } = step;
        let fail = |call: String, errno| Failed::host(call, errno).at(at);
        let (index, flags) = link_of(&self.outside, name).map_err(|errno| {
            fail(format!("link not found for interface {name} on runtime namespace"), errno)
        })?;
        // The kernel would move it first, and then fail to rename it.
        let taken = match link_of(&self.inside, new_name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno),
        };
        taken.map_err(|errno| fail(move_call(step), errno))?;
        // Before the device goes down, which drops IPv6 addresses.
        let addresses = addresses_of(&self.outside, index)
            .map_err(|errno| fail(format!("RTM_GETADDR({name})"), errno))?;
        Ok(Device { step, index, was_up: flags & IFF_UP != 0, addresses })
    }

    fn move_in(&self, device: &Device<'_>) -> Result<(), Failed> {
        let Device { step, index, addresses, .. } = device;
        let NetDeviceStep { at, name, new_name } = step;
        let fail = |call: String, errno| Failed::host(call, errno).at(at);
        set_up(&self.outside, *index, false)
            .map_err(|errno| fail(format!("RTM_NEWLINK({name}, down)"), errno))?;
        move_to(&self.outside, *index, new_name, &self.theirs)
            .map_err(|errno| fail(move_call(step), errno))?;
        let (index, _) = link_of(&self.inside, new_name)
            .map_err(|errno| fail(format!("RTM_GETLINK({new_name}) in the container"), errno))?;
        for address in addresses {
            let (family, prefix) = (address.body.first(), address.body.get(1));
            let call = || format!("RTM_NEWADDR({new_name}, family {family:?}, prefix {prefix:?})");
            self.inside.ask(address_request(address, index)).map_err(|errno| fail(call(), errno))?;
        }
        set_up(&self.inside, index, true)
            .map_err(|errno| fail(format!("RTM_NEWLINK({new_name}, up)"), errno))
            .map(drop)
    }

    /// Makes it what it was, as far as that goes, wherever the move has ended.
    fn move_back(&self, device: &Device<'_>) {
        let NetDeviceStep { name, new_name, .. } = device.step;
        if link_of(&self.outside, name).is_err() {
            if let Ok((index, _)) = link_of(&self.inside, new_name) {
                creel_sys::best_effort(set_up(&self.inside, index, false));
                creel_sys::best_effort(move_to(&self.inside, index, name, &self.own));
            }
        }
        let Ok((index, _)) = link_of(&self.outside, name) else { return };
        for address in &device.addresses {
            // Those that it still has are refused.
            creel_sys::best_effort(self.outside.ask(address_request(address, index)));
        }
        if device.was_up {
            creel_sys::best_effort(set_up(&self.outside, index, true));
        }
    }
}

fn move_call(NetDeviceStep { name, new_name, .. }: &NetDeviceStep) -> String {
    format!("move network device {name} to the container as {new_name}")
}

/// Changes namespace and name.
fn move_to(socket: &Socket, index: u32, name: &str, namespace: &OwnedFd) -> Result<(), Errno> {
    let fd = namespace.as_raw_fd().cast_unsigned().to_ne_bytes();
    let request = Request::new(RTM_NEWLINK, ACK, &link_message(index, 0, 0))
        .attribute(IFLA_IFNAME, &with_null(name))
        .attribute(IFLA_NET_NS_FD, &fd);
    socket.ask(request).map(drop)
}

/// struct ifinfomsg: family, padding, type, index, flags, change.
fn link_message(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut bytes = [0u8; LINK];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn with_null(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// Index and flags (IFF_*).
fn link_of(socket: &Socket, name: &str) -> Result<(u32, u32), Errno> {
    let request =
        Request::new(RTM_GETLINK, 0, &link_message(0, 0, 0)).attribute(IFLA_IFNAME, &with_null(name));
    let answers = socket.ask(request)?;
    let link = answers.iter().find(|message| message.kind == RTM_NEWLINK).ok_or(Errno::NODEV)?;
    u32_at(&link.body, 4).zip(u32_at(&link.body, 8)).ok_or(Errno::PROTO)
}

fn set_up(socket: &Socket, index: u32, up: bool) -> Result<Vec<Message>, Errno> {
    let flags = if up { IFF_UP } else { 0 };
    socket.ask(Request::new(RTM_NEWLINK, ACK, &link_message(index, flags, IFF_UP)))
}

/// The addresses that stay: given by somebody rather than by the network, and of global scope.
fn addresses_of(socket: &Socket, index: u32) -> Result<Vec<Message>, Errno> {
    let all = socket.ask(Request::new(RTM_GETADDR, DUMP, &[0; ADDRESS]))?;
    Ok(all.into_iter().filter(|message| is_kept(message, index)).collect())
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index. IFA_FLAGS has all flags, the fixed part
/// the first eight.
fn is_kept(message: &Message, index: u32) -> bool {
    let body = &message.body;
    let short = body.get(2).map_or(0, |flags| u32::from(*flags));
    let flags = message.attribute(ADDRESS, IFA_FLAGS).and_then(|f| u32_at(f, 0)).unwrap_or(short);
    message.kind == RTM_NEWADDR
        && u32_at(body, 4) == Some(index)
        && body.get(3) == Some(&RT_SCOPE_UNIVERSE)
        && flags & IFA_F_PERMANENT != 0
}

/// The same address for the device of that index.
fn address_request(address: &Message, index: u32) -> Request {
    let mut fixed = [0u8; ADDRESS];
    if let Some(family_and_prefix) = address.body.get(..2) {
        fixed[..2].copy_from_slice(family_and_prefix);
    }
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let request = Request::new(RTM_NEWADDR, ACK | CREATE | EXCL, &fixed);
    [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].into_iter().fold(request, |request, kind| {
        match address.attribute(ADDRESS, kind) {
            Some(value) => request.attribute(kind, value),
            None => request,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scope: u8, flags: u32, index: u32) -> Message {
        let mut body = vec![2, 24, 0, scope];
        body.extend(index.to_ne_bytes());
        body.extend([8u16.to_ne_bytes(), IFA_FLAGS.to_ne_bytes()].concat());
        body.extend(flags.to_ne_bytes());
        Message { kind: RTM_NEWADDR, body }
    }

    #[test]
    fn only_permanent_addresses_of_global_scope_move() {
        assert!(is_kept(&address(0, IFA_F_PERMANENT, 5), 5));
        assert!(!is_kept(&address(0, IFA_F_PERMANENT, 6), 5));
        assert!(!is_kept(&address(253, IFA_F_PERMANENT, 5), 5));
        assert!(!is_kept(&address(0, 0, 5), 5));
    }
}
