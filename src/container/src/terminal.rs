//! The caller's terminal while a container's process is in the foreground with one of its own.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// The caller's terminal in raw mode; dropped, it is as before.
#[derive(Debug)]
pub struct RawMode(Option<Termios>);

impl RawMode {
    /// Standard input, if that is a terminal.
    pub fn enter() -> RawMode {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // The caller's terminal goes on turning line feeds into new lines: the container's does not,
            // see `keep_line_feeds`.
            raw.output_modes |= OutputModes::OPOST;
            creel_sys::best_effort(tcsetattr(stdin, OptionalActions::Now, &raw));
        }
        RawMode(before)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            creel_sys::best_effort(tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before));
        }
    }
}

/// The container's terminal hands on line feeds as they are (no ONLCR, termios(3)): output that is
/// relayed to a file or a pipe has no carriage returns. For the time before the program runs.
pub fn keep_line_feeds(master: &OwnedFd) {
    if let Ok(mut modes) = tcgetattr(master) {
        modes.output_modes &= !OutputModes::ONLCR;
        creel_sys::best_effort(tcsetattr(master, OptionalActions::Now, &modes));
    }
}

/// Gives the container's terminal the size of the caller's.
pub fn copy_size(master: &OwnedFd) {
    for own in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if let Ok(size) = tcgetwinsize(own) {
            creel_sys::best_effort(tcsetwinsize(master.as_fd(), size));
            return;
        }
    }
}
