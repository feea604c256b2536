//! First phase of init: the right cgroup, namespaces and identity to work with.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use creel_plan::names::NamespaceKind;
use creel_plan::steps::{Enter, OldGroups, Phase};
use creel_sys::Errno;
use creel_sys::process::{SingleThreaded, setns, unshare};
use rustix::process::{DumpableBehavior, Gid, Uid};

use super::{InitResources, talk};
use crate::attributes::bind_to_cpus;
use crate::conversation::{Channel, Order, Report};
use crate::error::{Step, StepError};
use crate::labels::join_labelled_keyring;

pub fn enter(
    plan: &Enter,
    resources: &InitResources,
    channel: &Channel,
    alone: &SingleThreaded,
) -> Result<(), StepError> {
    join_cgroup(&resources.cgroup_tasks)?;
    bind_to_cpus(None)?;
    for &i in &plan.joins {
        if let Some((file, kind)) = resources.joins.get(i) {
            setns(file.as_fd(), *kind, alone).step(Phase::Join, i, || "setns".into())?;
        }
    }
    if plan.user_namespace {
        talk(channel.expect(Order::Mapped))?;
        become_root(plan.groups)?;
    }
    if plan.dumpable {
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .step(Phase::Enter, 0, || "prctl(DUMPABLE, 1)".into())?;
    }
    if plan.ipc_namespace {
        unshare(NamespaceKind::Ipc.clone_flag(), alone)
            .step(Phase::Enter, 0, || "unshare(CLONE_NEWIPC)".into())?;
    }
    // After the cgroup is joined, so that it is the root of the namespace.
    if plan.cgroup_namespace {
        unshare(NamespaceKind::Cgroup.clone_flag(), alone)
            .step(Phase::Enter, 0, || "unshare(CLONE_NEWCGROUP)".into())?;
    }
    // A session of its own: no signals from the caller's terminal.
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        other => drop(other.step(Phase::Enter, 0, || "setsid()".into())?),
    }
    if let Some(keyring) = &plan.keyring {
        join_labelled_keyring(keyring, resources)?;
    }
    if plan.loopback {
        loopback_up()?;
    }
    if plan.wait_for_devices {
        talk(channel.report(&Report::Network))?;
        talk(channel.expect(Order::Proceed))?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .step(Phase::Enter, 1, || format!("sethostname({name:?})"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .step(Phase::Enter, 2, || format!("setdomainname({name:?})"))?;
    }
    Ok(())
}

/// A task that writes 0 to `tasks` moves itself: no global lock, no grace period, as a write of
/// another task's pid to cgroup.procs costs (10 ms when containers start one by one).
pub(crate) fn join_cgroup(tasks: &[OwnedFd]) -> Result<(), StepError> {
    for file in tasks {
        rustix::io::write(file, b"0")
            .step(Phase::Enter, 3, || "adding pid of the process to cgroups: write(tasks, 0)".into())?;
    }
    Ok(())
}

/// Root of the user namespace, whose maps are written now. Until execve the memory is a copy of the
/// runtime's: a process of the container that may ptrace must not look into it (CVE-2016-9962).
pub(crate) fn become_root(groups: OldGroups) -> Result<(), StepError> {
    let gid = Gid::ROOT;
    let uid = Uid::ROOT;
    if groups == OldGroups::Drop {
        // EPERM: setgroups is denied in the namespace.
        match rustix::thread::set_thread_groups(&[]) {
            Ok(()) | Err(Errno::PERM) => {}
            other => other.step(Phase::Enter, 0, || "setgroups([])".into())?,
        }
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(Phase::Enter, 0, || "setgid(0)".into())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(Phase::Enter, 0, || "setuid(0)".into())?;
    // New ids take the value of /proc/sys/fs/suid_dumpable (prctl(2)), which may be 1.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(Phase::Enter, 0, || "prctl(DUMPABLE, 0)".into())
}

/// A new session keyring, searchable by the container's user (keyrings(7)): the caller's keys are
/// not for the container. A kernel without keyrings has none to protect.
pub(crate) fn join_keyring(name: &str) -> Result<(), StepError> {
    const USER_SEARCH: u32 = 0x0008_0000;
    let Ok(c_name) = CString::new(name) else { return Ok(()) };
    let serial = match creel_sys::keys::join_session_keyring(&c_name) {
        Err(Errno::NOSYS) => return Ok(()),
        other => other.step(Phase::Enter, 0, || format!("keyctl(JOIN_SESSION_KEYRING, {name:?})"))?,
    };
    let described =
        creel_sys::keys::describe(serial).step(Phase::Enter, 0, || format!("keyctl(DESCRIBE, {serial})"))?;
    let mask = described.split(';').nth(3).and_then(|m| u32::from_str_radix(m, 16).ok()).unwrap_or(0);
    creel_sys::keys::set_permissions(serial, mask | USER_SEARCH)
        .step(Phase::Enter, 0, || format!("keyctl(SETPERM, {serial})"))
}

fn loopback_up() -> Result<(), StepError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).step(
        Phase::Enter,
        0,
        || "socket(AF_INET)".into(),
    )?;
    creel_sys::net::loopback_up(socket.as_fd())
        .step(Phase::Enter, 0, || "ioctl(SIOCSIFFLAGS, lo, IFF_UP)".into())
}
