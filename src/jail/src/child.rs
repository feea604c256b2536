//! A child between clone and execve, as the host sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_plan::steps::{HookStep, Phase, Plan};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::conversation::{Channel, Order, Report};
use crate::error::{Failed, Process, StepError};
use crate::hooks::{HookState, run_hooks_before};
use crate::idmapped;
use crate::stage::SET_CLOCKS;

/// A cloned process that has not executed its program. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child<'a> {
    process: Process,
    pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    plan: Option<&'a Plan>,
    console: Option<OwnedFd>,
    notify: Option<OwnedFd>,
    released: bool,
}

impl<'a> Child<'a> {
    pub(crate) fn new(
        process: Process,
        pid: i32,
        pidfd: OwnedFd,
        channel: Channel,
        plan: Option<&'a Plan>,
    ) -> Self {
        Child { process, pid, pidfd, channel, plan, console: None, notify: None, released: false }
    }

    /// Pid in the host's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// pidfd of the child.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The terminal's master, once the child has sent it.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    pub(crate) fn command(&self, order: Order) -> Result<(), Failed> {
        self.channel.command(order).map_err(|_| self.died())
    }

    /// Answers the child until all but its program is in place. `hooks` run when it asks; `notify`
    /// gets the seccomp notify descriptor.
    pub fn until_ready(
        &mut self,
        hooks: &[HookStep],
        state: &HookState,
        notify: &mut dyn FnMut(i32, &OwnedFd) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        loop {
            match self.next()? {
                Some(Report::Ready) => return Ok(()),
                Some(Report::Network) => {
                    crate::netdev::move_all(self.pid, self.plan.map_or(&[], |p| &p.host.net_devices))?;
                    self.command(Order::Proceed)?;
                }
                Some(Report::Tree(mount, tree)) => {
                    let step = self.plan.and_then(|plan| plan.init.mounts.get(mount));
                    idmapped::map_of_init(self.pid, step, &tree)?;
                    self.command(Order::Proceed)?;
                }
                Some(Report::Hooks) => {
                    let state = HookState { pid: self.pid, ..state.clone() };
                    run_hooks_before(hooks, &state, "creating", Some(&state.bundle), Some(self.pidfd()))
                        .map_err(|e| Failed::said(e.why).at(e.at))?;
                    self.command(Order::Proceed)?;
                }
                Some(Report::Console(master)) => self.console = Some(master),
                Some(Report::Notify(number)) => {
                    let fd = pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())
                        .map_err(|errno| Failed::host("pidfd_getfd(seccomp notify)", errno))?;
                    notify(self.pid, &fd)?;
                    self.notify = Some(fd);
                    self.command(Order::Proceed)?;
                }
                Some(Report::Failed(error)) => return Err(self.failed(error)),
                Some(Report::Born(_) | Report::Namespace(_)) => {
                    return Err(Failed::said("the child spoke out of turn"));
                }
                None => return Err(self.died()),
            }
        }
    }

    /// The user namespace of a child that does nothing but hold it.
    pub(crate) fn namespace(&self) -> Result<OwnedFd, Failed> {
        match self.next()? {
            Some(Report::Namespace(file)) => Ok(file),
            Some(Report::Failed(error)) => Err(self.failed(error)),
            Some(_) => Err(Failed::said("the child spoke out of turn")),
            None => Err(self.died()),
        }
    }

    /// Lets the program run; returns when it has been executed.
    pub fn start(mut self) -> Result<OwnedFd, Failed> {
        self.command(Order::Start)?;
        match self.next()? {
            None => {
                self.released = true;
                self.pidfd.try_clone().map_err(|e| Failed::said(format!("dup(pidfd): {e}")))
            }
            Some(Report::Failed(error)) => Err(self.failed(error)),
            Some(_) => Err(Failed::said("the child spoke out of turn")),
        }
    }

    /// Sends the child to wait at the exec fifo.
    pub fn leave_waiting(mut self) -> Result<(), Failed> {
        self.command(Order::Wait)?;
        self.released = true;
        Ok(())
    }

    fn next(&self) -> Result<Option<Report>, Failed> {
        self.channel.next_of(&self.pidfd).map_err(|errno| Failed::host("conversation with the child", errno))
    }

    fn failed(&self, error: StepError) -> Failed {
        let at = self.plan.and_then(|plan| place_of(plan, &error)).or_else(|| own_place(&error));
        Failed { at, process: self.process, hint: hint(&error), call: error.call, errno: error.errno }
    }

    /// The child is gone without a word.
    fn died(&self) -> Failed {
        // It may have spoken before it died.
        while let Ok(Some(report)) = self.channel.next() {
            if let Report::Failed(error) = report {
                return self.failed(error);
            }
        }
        let status = creel_sys::process::wait(self.pid).unwrap_or(0);
        let signal = status & 0x7f;
        let call = if signal == 0 {
            format!("ended with status {} before its program ran", (status >> 8) & 0xff)
        } else {
            format!("killed by signal {signal} before its program ran")
        };
        Failed { at: None, process: self.process, call, errno: 0, hint: None }
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        if !self.released {
            const SIGKILL: i32 = 9;
            creel_sys::best_effort(creel_sys::process::pidfd_send_signal(self.pidfd.as_fd(), SIGKILL));
            creel_sys::best_effort(creel_sys::process::wait(self.pid));
        }
    }
}

/// Where in config.json a failed step comes from.
pub(crate) fn place_of(plan: &Plan, error: &StepError) -> Option<String> {
    let i = error.index;
    let init = &plan.init;
    match error.phase {
        Phase::Stage if error.call.starts_with(SET_CLOCKS) => Some(".linux.timeOffsets".into()),
        Phase::Stage => plan
            .stage
            .as_ref()
            .filter(|s| error.call == "setns" && s.joins.contains(&i))
            .and_then(|_| plan.host.joins.get(i))
            .map(|j| j.at.clone()),
        Phase::Join => plan.host.joins.get(i).map(|j| j.at.clone()),
        Phase::Enter => match i {
            1 => Some(".hostname".into()),
            2 => Some(".domainname".into()),
            3 => Some(".linux.cgroupsPath".into()),
            _ => None,
        },
        Phase::Rootfs => Some(".root.path".into()),
        Phase::Mounts => init.mounts.get(i).map(|m| m.at.clone()),
        Phase::Devices => init.devices.get(i).map(|d| d.at.clone()),
        Phase::LateReadonly => init.late_readonly.get(i).map(|(at, _)| at.clone()),
        Phase::Sysctls => init.sysctls.get(i).map(|s| s.at.clone()),
        Phase::CreateContainer => init.hooks.create_container.get(i).map(|h| h.at.clone()),
        Phase::Hide => init.hide.get(i).map(|h| h.at.clone()),
        Phase::Seal => Some(if i == 0 { ".linux.rootfsPropagation" } else { ".root.readonly" }.into()),
        Phase::Rlimits => init.process.rlimits.get(i).map(|r| r.at.clone()),
        Phase::StartContainer => init.start_container.get(i).map(|h| h.at.clone()),
        Phase::Console => Some(".process.terminal".into()),
        Phase::OomScoreAdj
        | Phase::Labels
        | Phase::Attributes
        | Phase::Credentials
        | Phase::Cwd
        | Phase::Seccomp
        | Phase::Exec
        | Phase::Root
        | Phase::Links
        | Phase::Conversation => None,
    }
}

/// A failure in words without the plan, for a child that has nobody to report to but `start`.
pub(crate) fn own_failure(process: Process, error: &StepError) -> Failed {
    Failed { at: own_place(error), process, call: error.call.clone(), errno: error.errno, hint: hint(error) }
}

/// The place of steps that init and exec share.
fn own_place(error: &StepError) -> Option<String> {
    let at = match error.phase {
        Phase::Attributes => return crate::attributes::PLACES.get(error.index).map(|at| (*at).into()),
        Phase::OomScoreAdj => ".process.oomScoreAdj",
        Phase::Cwd => ".process.cwd",
        Phase::Enter if error.index == 4 => ".process.selinuxLabel",
        Phase::Labels if error.index == 0 => ".process.selinuxLabel",
        Phase::Labels => ".process.apparmorProfile",
        Phase::Seccomp => ".linux.seccomp",
        Phase::Credentials => match error.index {
            0 => ".process.user",
            1 => ".process.capabilities",
            _ => ".process.capabilities.ambient",
        },
        Phase::Exec if error.errno != 0 => ".process.args",
        Phase::Exec
        | Phase::Stage
        | Phase::Join
        | Phase::Enter
        | Phase::Rootfs
        | Phase::Mounts
        | Phase::Devices
        | Phase::Links
        | Phase::LateReadonly
        | Phase::Sysctls
        | Phase::CreateContainer
        | Phase::Root
        | Phase::Console
        | Phase::Hide
        | Phase::Seal
        | Phase::Rlimits
        | Phase::StartContainer
        | Phase::Conversation => return None,
    };
    Some(at.into())
}

fn hint(error: &StepError) -> Option<&'static str> {
    const EPERM: i32 = 1;
    const ENOENT: i32 = 2;
    const EACCES: i32 = 13;
    const EINVAL: i32 = 22;
    match (error.phase, error.errno) {
        (Phase::Rootfs, EINVAL) if error.call.starts_with("mount(/, ") => {
            Some("/ is no mount point: is this a chroot?")
        }
        (Phase::Rlimits, EPERM) => Some("raising a hard limit needs CAP_SYS_RESOURCE"),
        (Phase::Labels, ENOENT) if error.index == 1 => Some("the profile is not loaded"),
        (Phase::Labels, EACCES) if error.index == 1 => {
            Some("the profile that the runtime itself has does not allow the change")
        }
        (Phase::Labels, EINVAL) if error.index == 0 => Some("the policy has no such context"),
        (Phase::Enter, EINVAL) if error.index == 4 => Some("the policy has no such context"),
        // The user may execute the file itself, which was asked before.
        (Phase::Exec, EACCES) => Some("its interpreter may not be executed, or a security module forbids it"),
        (Phase::Exec, EPERM) => Some("a seccomp filter or a security module forbids it"),
        (Phase::OomScoreAdj, EACCES) => Some("lowering it needs CAP_SYS_RESOURCE"),
        (Phase::Credentials, EPERM) if error.index == 1 => {
            Some("the runtime itself lacks one of these capabilities")
        }
        _ => None,
    }
}
