//! The pseudo-terminal of a container or of an exec.
//!
//! It is allocated from the container's own devpts, so that its name means the same inside. The
//! devices are verified by file system and number before anything is done with them
//! (CVE-2025-52565): an image may bring a /dev/pts of its own making.

use std::os::fd::{AsFd, OwnedFd};

use creel_plan::steps::{Console, Phase};
use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::mounts::open_tree_at;
use super::talk;
use crate::conversation::Channel;
use crate::error::{Step, StepError};
use crate::rooted::Root;

/// statfs(2) f_type of devpts.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Allocates the terminal, sends its master to the host and makes it the standard streams and the
/// controlling terminal. The caller leads a session.
pub fn attach(console: Console, root: &Root, channel: &Channel) -> Result<(), StepError> {
    let (master, peer) = open_console(console, root)?;
    if console.mount {
        mount(&peer, root)?;
    }
    talk(channel.send_console(master.as_fd()))?;
    for number in 0..3 {
        creel_sys::fd::replace_stdio(peer.as_fd(), number)
            .step(Phase::Console, 0, || format!("dup2({number})"))?;
    }
    rustix::process::ioctl_tiocsctty(&peer).step(Phase::Console, 0, || "ioctl(TIOCSCTTY)".into())
}

/// Master and slave of a new pseudo-terminal (pty(7)).
pub fn open_console(console: Console, root: &Root) -> Result<(OwnedFd, OwnedFd), StepError> {
    let master = root.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, ResolveFlags::empty()).step(
        Phase::Console,
        0,
        || "open(/dev/pts/ptmx)".into(),
    )?;
    verify(&master, "/dev/pts/ptmx", |major, minor| major == 5 && minor == 2)?;
    rustix::pty::unlockpt(&master).step(Phase::Console, 0, || "ioctl(TIOCSPTLCK)".into())?;
    let peer = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .step(Phase::Console, 0, || "ioctl(TIOCGPTPEER)".into())?;
    verify(&peer, "the terminal", |major, _| (136..=143).contains(&major))?;
    if let Some((rows, columns)) = console.size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&peer, size).step(Phase::Console, 0, || "ioctl(TIOCSWINSZ)".into())?;
    }
    Ok((master, peer))
}

fn verify(fd: &OwnedFd, what: &str, number: impl Fn(u32, u32) -> bool) -> Result<(), StepError> {
    let stat = rustix::fs::fstat(fd).step(Phase::Console, 0, || format!("stat({what})"))?;
    let fs = rustix::fs::fstatfs(fd).step(Phase::Console, 0, || format!("statfs({what})"))?;
    let good = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && number(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        && fs.f_type == DEVPTS_SUPER_MAGIC;
    if good { Ok(()) } else { Err(StepError::new(Phase::Console, 0, format!("{what} is not on a devpts"))) }
}

/// The terminal at /dev/console too, by its descriptor.
fn mount(peer: &OwnedFd, root: &Root) -> Result<(), StepError> {
    let target = root.file("/dev/console").step(Phase::Console, 0, || "create(/dev/console)".into())?;
    let stat = rustix::fs::fstatfs(&target).step(Phase::Console, 0, || "statfs(/dev/console)".into())?;
    if stat.f_type == crate::procfs::PROC_SUPER_MAGIC {
        return Err(StepError::new(Phase::Console, 0, "/dev/console leads into a procfs"));
    }
    let tree =
        open_tree_at(peer.as_fd(), "", false).step(Phase::Console, 0, || "open_tree(terminal)".into())?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", &target, "", flags)
        .step(Phase::Console, 0, || "move_mount(/dev/console)".into())
}
