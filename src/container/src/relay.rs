//! The terminal of a process in the foreground: bytes between its master and the caller's stdio.
//!
//! Runs in the **host** process, within the loop of [`crate::foreground`]. Nothing here waits before
//! the process has exited. Each direction has a bounded buffer: its source is read only while there is
//! room, its sink is written only when poll(2) says so. A process that writes much before it reads, or
//! a slow reader of standard output, thus holds up neither the other direction nor signals.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::stdio::{stdin, stdout};

use crate::Error;
use crate::terminal::{RawMode, copy_size};

/// Bytes that may be on their way in one direction.
const CAPACITY: usize = 65536;
/// A pipe that is ready for writing takes this much without waiting (PIPE_BUF, pipe(7)).
const PORTION: usize = 4096;
/// How long standard output may take nothing after the process has exited.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which descriptor has something for [`Relay::serve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process's terminal.
    Master,
    /// The caller's standard input.
    Stdin,
    /// The caller's standard output.
    Stdout,
}

/// A terminal that is relayed. Dropped, it is hung up, and the caller's is as before.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    stdout: OwnedFd,
    input: Flow,
    output: Flow,
    /// Held open: when the last slave is closed the master has EIO and POLLHUP (pty(7)), although the
    /// process may open its terminal anew. Only its exit is the end.
    _slave: OwnedFd,
    _raw: RawMode,
}

impl Relay {
    /// Takes the master over; the caller's terminal becomes raw.
    pub fn begin(master: OwnedFd) -> Result<Relay, Error> {
        copy_size(&master);
        let fail = |call| Error::file(call, "terminal");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // TIOCGPTPEER, Linux 4.13: needs no path, which would be one of the container.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(fail("open"))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(fail("ioctl"))?;
        let stdout = own_stdout().map_err(fail("dup"))?;
        let (input, output) = (Flow::default(), Flow::default());
        Ok(Relay { master, stdout, input, output, _slave: slave, _raw: RawMode::enter() })
    }

    /// Gives the process's terminal the size of the caller's.
    pub fn copy_size(&self) {
        copy_size(&self.master);
    }

    /// What to poll for.
    pub fn interest(&self) -> impl Iterator<Item = (End, PollFd<'_>)> {
        let into = |flow: &Flow| if flow.has_room() { PollFlags::IN } else { PollFlags::empty() };
        let out_of = |flow: &Flow| if flow.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let ends: [(End, BorrowedFd<'_>, PollFlags); 3] = [
            (End::Master, self.master.as_fd(), into(&self.output) | out_of(&self.input)),
            (End::Stdin, stdin(), into(&self.input)),
            (End::Stdout, self.stdout.as_fd(), out_of(&self.output)),
        ];
        // poll(2) reports POLLHUP and POLLERR unasked, over and over.
        ends.into_iter()
            .filter(|(_, _, flags)| !flags.is_empty())
            .map(|(end, fd, flags)| (end, PollFd::from_borrowed_fd(fd, flags)))
    }

    /// Moves what is there. An error means that nobody takes the output any more.
    pub fn serve(&mut self, end: End) -> Result<(), Errno> {
        match end {
            End::Master => {
                self.output.take(&self.master);
                // Without an open slave nothing would take it; one is held.
                creel_sys::best_effort(self.input.give(&self.master));
            }
            // At its end nothing more is sent; the output goes on.
            End::Stdin => drop(self.input.take(stdin())),
            End::Stdout => self.output.give(&self.stdout)?,
        }
        Ok(())
    }

    /// After the exit of the process: passes on what it wrote last.
    pub fn finish(mut self) -> Result<(), Errno> {
        let patience = Timespec::try_from(PATIENCE).ok();
        // More than a terminal holds; who has it open still may write for ever.
        let mut left = 2 * CAPACITY;
        loop {
            while left > 0 {
                match self.output.take(&self.master) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            if self.output.is_empty() {
                return Ok(());
            }
            match poll(&mut [PollFd::new(&self.stdout, PollFlags::OUT)], patience.as_ref()) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => self.output.give(&self.stdout)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Standard output, for writes that do not wait. O_NONBLOCK on the caller's own open file description
/// would be everybody's who has it. A terminal is opened anew: it is ready for writing with room for
/// one byte, and a longer write would wait.
fn own_stdout() -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if rustix::termios::isatty(stdout()) {
        if let Ok(own) = rustix::fs::openat(CWD, "/proc/self/fd/1", flags, Mode::empty()) {
            return Ok(own);
        }
    }
    rustix::io::fcntl_dupfd_cloexec(stdout(), 3)
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Flow {
    held: VecDeque<u8>,
    /// The source has nothing more.
    ended: bool,
}

impl Flow {
    fn has_room(&self) -> bool {
        !self.ended && self.held.len() < CAPACITY
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// One read, of as much as there is room for; returns how much it was.
    fn take(&mut self, source: impl AsFd) -> usize {
        if !self.has_room() {
            return 0;
        }
        let mut some = [0u8; 16384];
        let room = some.len().min(CAPACITY - self.held.len());
        match rustix::io::read(source, &mut some[..room]) {
            Ok(count) => {
                self.ended = count == 0;
                self.held.extend(&some[..count]);
                count
            }
            Err(Errno::INTR | Errno::AGAIN) => 0,
            Err(_) => {
                self.ended = true;
                0
            }
        }
    }

    /// One write. EAGAIN is no error: the sink may be non-blocking by its owner's choice.
    fn give(&mut self, sink: impl AsFd) -> Result<(), Errno> {
        let (first, _) = self.held.as_slices();
        if first.is_empty() {
            return Ok(());
        }
        match rustix::io::write(sink, &first[..first.len().min(PORTION)]) {
            Ok(count) => drop(self.held.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                self.held.clear();
                return Err(errno);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn full_sink_keeps_the_bytes_and_a_full_buffer_stops_the_source() {
        let (source, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let (reader, sink) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut flow = Flow::default();
        let (mut sent, mut stuck) = (0, 0);
        // The buffer, both pipes, and nothing after that.
        while stuck < 2 {
            let count = rustix::io::write(&writer, &[7; 4096]).unwrap_or(0);
            stuck = if count == 0 { stuck + 1 } else { 0 };
            sent += count;
            for _ in 0..16 {
                flow.take(&source);
                flow.give(&sink).unwrap();
            }
        }
        assert!(!flow.has_room());
        drop(writer);
        let (mut seen, mut some) = (0, [0; 4096]);
        while seen < sent {
            seen += rustix::io::read(&reader, &mut some).unwrap();
            flow.take(&source);
            flow.give(&sink).unwrap();
        }
        flow.take(&source);
        assert!(flow.ended && flow.is_empty());
        drop(reader);
        flow.held.push_back(7);
        assert_eq!(flow.give(&sink), Err(Errno::PIPE));
    }
}
