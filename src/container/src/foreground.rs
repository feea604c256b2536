//! Waiting for a process in the foreground: signals go to it, its terminal is relayed, its exit
//! code comes back.

use std::os::fd::{AsFd, OwnedFd};

use creel_sys::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

use crate::Error;
use crate::notify::{Barrier, Proxy};
use crate::relay::{End, Relay};
use crate::state::Init;

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
#[derive(Clone, Copy)]
enum Source {
    Process,
    Signal,
    Terminal(End),
    Notify,
    Barrier,
}

impl Waiter {
    /// Returns the exit code, 128 plus the signal for a killed process.
    pub fn wait(self) -> Result<u8, Error> {
        let Waiter { pid, pidfd, console, signals, proxy } = self;
        let relay = console.map(Relay::begin).transpose()?;
        let mut foreground = Foreground { pid, pidfd, relay, signals, proxy, barrier: None };
        foreground.until_exit()?;
        let status = creel_sys::process::wait(pid).map_err(|errno| Error::File {
            call: "waitpid",
            path: pid.to_string().into(),
            errno,
        })?;
        // A caller that takes no more output has no need to know that there was some.
        foreground.relay.map(Relay::finish).into_iter().for_each(creel_sys::best_effort);
        if let Some(barrier) = foreground.barrier {
            barrier.wait()?;
        }
        Ok(exit_code(status))
    }
}

/// What the loop serves. Nothing in it waits but for poll(2).
struct Foreground {
    pid: i32,
    pidfd: OwnedFd,
    relay: Option<Relay>,
    signals: Option<Signals>,
    proxy: Option<Proxy>,
    barrier: Option<Barrier>,
}

impl Foreground {
    fn until_exit(&mut self) -> Result<(), Error> {
        loop {
            let mut exited = false;
            for source in self.poll()? {
                match source {
                    Source::Process => exited = true,
                    Source::Signal => self.forward_signals(),
                    Source::Terminal(end) => self.relay(end),
                    Source::Notify => self.forward_notification(),
                    Source::Barrier => self.barrier = None,
                }
            }
            if exited {
                return Ok(());
            }
        }
    }

    fn poll(&self) -> Result<Vec<Source>, Error> {
        let input = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut sources = vec![Source::Process];
        let mut fds = vec![input(self.pidfd.as_fd())];
        if let Some(signals) = &self.signals {
            sources.push(Source::Signal);
            fds.push(input(signals.0.as_fd()));
        }
        for (end, fd) in self.relay.iter().flat_map(Relay::interest) {
            sources.push(Source::Terminal(end));
            fds.push(fd);
        }
        if let Some(proxy) = &self.proxy {
            sources.push(Source::Notify);
            fds.push(input(proxy.as_fd()));
        }
        if let Some(barrier) = &self.barrier {
            sources.push(Source::Barrier);
            fds.push(input(barrier.as_fd()));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::File { call: "poll", path: "container".into(), errno }),
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| *source).collect())
    }

    /// Everything goes to the process, job control's signals too, but what is about this process: the
    /// end of a child, a changed window, a socket's or pipe's state.
    fn forward_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        while let Some(number) = signals.next() {
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) => reap_others(self.pid),
                Ok(Signal::SIGWINCH) => self.relay.iter().for_each(Relay::copy_size),
                Ok(Signal::SIGURG | Signal::SIGPIPE) => {}
                _ => {
                    creel_sys::best_effort(creel_sys::process::pidfd_send_signal(self.pidfd.as_fd(), number))
                }
            }
        }
    }

    /// Without a reader of its output the terminal is hung up, as when a terminal's window is closed.
    fn relay(&mut self, end: End) {
        if self.relay.as_mut().is_some_and(|relay| relay.serve(end).is_err()) {
            self.relay = None;
        }
    }

    fn forward_notification(&mut self) {
        let Some(proxy) = &self.proxy else { return };
        let init = Init { pid: self.pid, start_time: 0 };
        match proxy.forward(init) {
            Ok(None) => {}
            Ok(Some(barrier)) => {
                self.barrier = Some(barrier);
                self.proxy = None;
            }
            Err(error) => {
                tracing::warn!("{error}");
                self.proxy = None;
            }
        }
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
