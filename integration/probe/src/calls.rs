//! One system call each, for the seccomp and capability tests. The answer is "ok" or the errno.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsOpenFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};

/// The errno name of an I/O error.
pub fn errno_of(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(raw) => format!("{:?}", Errno::from_raw(raw)),
        None => error.to_string(),
    }
}

fn answer<T>(result: rustix::io::Result<T>) -> Value {
    match result {
        Ok(_) => json!("ok"),
        Err(errno) => json!(format!("{:?}", Errno::from_raw(errno.raw_os_error()))),
    }
}

fn answer_nix<T>(result: nix::Result<T>) -> Value {
    match result {
        Ok(_) => json!("ok"),
        Err(errno) => json!(format!("{errno:?}")),
    }
}

/// Makes the call that `name` names, with harmless arguments. Those marked new came after Linux 5.1,
/// so that a profile made of older calls does not know them.
pub fn call(name: &str) -> Value {
    let fs = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    match name {
        "getpid" => json!(if rustix::process::getpid().as_raw_nonzero().get() > 0 { "ok" } else { "none" }),
        "mkdir" => answer(rustix::fs::mkdir("/tmp/.creel-probe-dir", Mode::RWXU)),
        "chmod" => answer(rustix::fs::chmod("/tmp", Mode::from_raw_mode(0o1777))),
        "chown" => answer(rustix::fs::chown("/tmp", Some(rustix::fs::Uid::ROOT), None)),
        "chroot" => answer(rustix::process::chroot("/")),
        "sethostname" => answer(rustix::system::sethostname(b"probe")),
        "sync" => {
            rustix::fs::sync();
            json!("ok")
        }
        "mount" => answer(rustix::mount::mount("none", "/tmp", "tmpfs", MountFlags::empty(), None)),
        "umount" => answer(rustix::mount::unmount("/tmp", UnmountFlags::NOFOLLOW)),
        "unshare" => answer_nix(unshare(CloneFlags::CLONE_NEWUTS)),
        "mknod" => answer(rustix::fs::mknodat(
            CWD,
            "/tmp/.creel-probe-null",
            rustix::fs::FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 3),
        )),
        "socket-inet" => answer(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)),
        "socket-unix" => answer(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)),
        "socket-raw" => answer(rustix::net::socket(
            AddressFamily::INET,
            SocketType::RAW,
            Some(rustix::net::ipproto::ICMP),
        )),
        // New: 5.2, 5.2, 5.2, 5.3, 5.6.
        "fsopen" => answer(rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)),
        "open_tree" => answer(rustix::mount::open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC)),
        "move_mount" => answer(fs.and_then(|fs| {
            rustix::mount::move_mount(&fs, "", &fs, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        })),
        "pidfd_open" => answer(rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        )),
        "openat2" => answer(rustix::fs::openat2(
            CWD,
            "/",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )),
        _ => json!({ "error": "no such call" }),
    }
}
