//! The master of a container's terminal, as the host handles it.

use std::os::fd::OwnedFd;

/// Name of the terminal that the master belongs to, as the container sees it (ptsname(3)): what
/// `--console-socket` listeners get as the message's text.
pub fn name(master: &OwnedFd) -> String {
    rustix::pty::ptsname(master, Vec::new())
        .map_or_else(|_| "/dev/pts/ptmx".to_string(), |name| name.to_string_lossy().into_owned())
}
