//! Waiting for a process in the foreground: signals go to it, its terminal is relayed, its exit
//! code comes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_sys::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;
use crate::notify::Proxy;
use crate::state::Init;
use crate::terminal::{RawMode, copy_size};

/// All signals, held back and readable.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be blocked. Children get a clean mask before their program.
    pub fn block() -> Result<Signals, Error> {
        let fail = |call| move |e: nix::Error| Error::File { call, path: "signals".into(), errno: errno(e) };
        let all = SigSet::all();
        all.thread_block().map_err(fail("sigprocmask"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&all, flags).map(Signals).map_err(fail("signalfd"))
    }

    fn next(&self) -> Option<i32> {
        self.0.read_signal().ok().flatten().and_then(|info| i32::try_from(info.ssi_signo).ok())
    }
}

fn errno(e: nix::Error) -> Errno {
    Errno::from_raw_os_error(e as i32)
}

/// Orphans of the container's processes become this process's children, so that none is missed
/// (PR_SET_CHILD_SUBREAPER, Linux 3.4).
pub fn become_subreaper() -> Result<(), Error> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| Error::File {
        call: "prctl",
        path: "CHILD_SUBREAPER".into(),
        errno,
    })
}

/// A process in the foreground.
pub struct Waiter {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its terminal's master.
    pub console: Option<OwnedFd>,
    /// The caller's signals.
    pub signals: Option<Signals>,
    /// The notify socket.
    pub proxy: Option<Proxy>,
}

/// Which descriptor of the poll set has something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Process,
    Signal,
    Console,
    Input,
    Notify,
}

impl Waiter {
    /// Returns the exit code, 128 plus the signal for a killed process.
    pub fn wait(mut self) -> Result<u8, Error> {
        let raw = self.console.as_ref().map(|master| {
            copy_size(master);
            RawMode::enter()
        });
        let mut input_open = self.console.is_some();
        loop {
            let ready = self.poll(input_open)?;
            if ready.contains(&Source::Console) {
                self.relay_output();
            }
            if ready.contains(&Source::Input) && !self.relay_input() {
                input_open = false;
            }
            if ready.contains(&Source::Signal) {
                self.forward_signals();
            }
            if ready.contains(&Source::Notify) {
                self.forward_notification();
            }
            if ready.contains(&Source::Process) {
                break;
            }
        }
        let status = creel_sys::process::wait(self.pid).map_err(|errno| Error::File {
            call: "waitpid",
            path: self.pid.to_string().into(),
            errno,
        })?;
        self.drain();
        drop(raw);
        Ok(exit_code(status))
    }

    fn poll(&self, input_open: bool) -> Result<Vec<Source>, Error> {
        let mut sources: Vec<(Source, BorrowedFd<'_>)> = vec![(Source::Process, self.pidfd.as_fd())];
        if let Some(signals) = &self.signals {
            sources.push((Source::Signal, signals.0.as_fd()));
        }
        if let Some(master) = &self.console {
            sources.push((Source::Console, master.as_fd()));
        }
        if input_open {
            sources.push((Source::Input, rustix::stdio::stdin()));
        }
        if let Some(proxy) = &self.proxy {
            sources.push((Source::Notify, proxy.as_fd()));
        }
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::File { call: "poll", path: "container".into(), errno }),
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _), _)| *source).collect())
    }

    /// Everything goes to the process but what is about this one: the end of a child, a changed
    /// window, the job control of the caller's shell.
    fn forward_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        while let Some(number) = signals.next() {
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => reap_others(self.pid),
                Ok(Signal::SIGWINCH) => self.console.iter().for_each(copy_size),
                Ok(Signal::SIGURG | Signal::SIGPIPE) => {}
                _ => {
                    creel_sys::best_effort(creel_sys::process::pidfd_send_signal(self.pidfd.as_fd(), number))
                }
            }
        }
    }

    fn relay_output(&mut self) {
        let Some(master) = &self.console else { return };
        if !copy_some(master.as_fd(), rustix::stdio::stdout()) {
            self.console = None;
        }
    }

    /// False at the end of the caller's input.
    fn relay_input(&self) -> bool {
        self.console.as_ref().is_some_and(|master| copy_some(rustix::stdio::stdin(), master.as_fd()))
    }

    fn forward_notification(&mut self) {
        let Some(proxy) = &self.proxy else { return };
        let init = Init { pid: self.pid, start_time: 0 };
        match proxy.forward(init) {
            Ok(false) => {}
            Ok(true) => self.proxy = None,
            Err(error) => {
                tracing::warn!("{error}");
                self.proxy = None;
            }
        }
    }

    /// What the process wrote last may still be in the terminal.
    fn drain(&self) {
        let Some(master) = &self.console else { return };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut fds = [PollFd::new(master, PollFlags::IN)];
            match poll(&mut fds, Some(&now)) {
                Ok(1) if fds[0].revents().contains(PollFlags::IN) => {
                    if !copy_some(master.as_fd(), rustix::stdio::stdout()) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}

/// False at the end of file. EIO is how a terminal says that its last user is gone.
fn copy_some(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16384];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(n) => crate::store::write_all(to, &buffer[..n]).is_ok(),
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}

/// As a subreaper: orphans are collected, the process itself is not.
fn reap_others(own: i32) {
    while let Ok(Some(pid)) = creel_sys::process::ended_child() {
        // It is left for its own wait; others behind it come with the next signal, or with the end.
        if pid == own {
            return;
        }
        creel_sys::best_effort(creel_sys::process::wait(pid));
    }
}

/// wait(2) status as a shell shows it.
fn exit_code(status: i32) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 { (status >> 8) & 0xff } else { 128 + signal };
    u8::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_shells() {
        assert_eq!(exit_code(7 << 8), 7);
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(0x80 | 11), 139);
    }
}
