//! Pseudo-terminals, for what needs a terminal on the outside.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::wait;

/// The master side of a terminal, and what has come out of it so far.
#[derive(Debug)]
pub struct Master {
    file: File,
    seen: Vec<u8>,
}

/// A new pty: its master, and its slave for a program's stdio.
///
/// # Panics
/// When there is none to be had.
pub fn open() -> (Master, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (Master::new(master), slave)
}

impl Master {
    /// Takes a master that came through a console socket.
    pub fn new(fd: OwnedFd) -> Master {
        Master { file: File::from(fd), seen: Vec::new() }
    }

    /// Types something.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn send(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the output contains `text`, and returns all of it.
    ///
    /// # Panics
    /// When the terminal closes first, or after [`wait::DEADLINE`].
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + wait::DEADLINE;
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if seen.contains(text) {
                return seen;
            }
            assert!(Instant::now() < end, "no {text:?} in {seen:?}");
            assert!(self.more(), "terminal closed before {text:?}: {seen:?}");
        }
    }

    /// Reads until the terminal closes, and returns all of it.
    ///
    /// # Panics
    /// When it stays open.
    pub fn rest(mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    fn more(&mut self) -> bool {
        assert!(wait::readable(&self.file, wait::DEADLINE), "the terminal stays open and silent");
        let mut some = [0; 4096];
        // EIO: the last slave is closed (pty(7)).
        let count = self.file.read(&mut some).unwrap_or(0);
        self.seen.extend_from_slice(&some[..count]);
        count > 0
    }

    /// Rows and columns.
    ///
    /// # Panics
    /// When it is no terminal.
    pub fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.file).unwrap();
        (size.ws_row, size.ws_col)
    }

    /// Sets rows and columns; the foreground process group gets SIGWINCH.
    ///
    /// # Panics
    /// When it is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.file, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
    }
}
