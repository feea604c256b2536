//! What the peers see of the machine, in a private mount namespace (mount_namespaces(7)): the host's own mounts stay
//! as they are.
//!
//! Must run while the process has one thread: unshare(2) of the mount namespace affects only the
//! calling one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

const CGROUP: &str = "/sys/fs/cgroup";

/// Enters the namespace, with a /dev/null of its own: crun 1.8.1 gives the one that its standard streams are to
/// the root of a user namespace.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make / private")?;
    let held = tempfile::tempdir()?;
    mount(Some("null"), held.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount tmpfs at {}", held.path().display()))?;
    let null = held.path().join("null");
    mknod(&null, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3)).context("mknod(null)")?;
    fs::set_permissions(&null, Permissions::from_mode(0o666))?;
    bind(&null, Path::new("/dev/null"), MsFlags::empty())?;
    umount2(held.path(), MntFlags::MNT_DETACH).context("detach the new null")
}

/// Shows the v1 hierarchies alone; on a pure v1 or pure v2 host nothing changes.
///
/// A hybrid host mounts v2 at /sys/fs/cgroup/unified beside the v1 controllers. crun refuses to run there when a
/// controller is bound to v2, and a runtime that does run has one more tree to write. Hiding the v2 tree gives every
/// peer the same, plain v1 host.
pub fn hide_v2() -> Result<()> {
    if !Path::new(CGROUP).join("unified").is_dir() {
        return Ok(());
    }
    let held = tempfile::tempdir()?;
    bind(Path::new(CGROUP), held.path(), MsFlags::MS_REC)?;
    mount(Some("cgroup"), CGROUP, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount tmpfs at {CGROUP}"))?;
    for entry in fs::read_dir(held.path())? {
        let entry = entry?;
        let target = Path::new(CGROUP).join(entry.file_name());
        if entry.file_name() == "unified" {
            continue;
        }
        // systemd leaves links such as cpu -> cpu,cpuacct beside the mounts.
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            bind(&entry.path(), &target, MsFlags::empty())?;
        }
    }
    umount2(held.path(), MntFlags::MNT_DETACH).context("detach the hybrid view")
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
        .with_context(|| format!("bind {} at {}", from.display(), to.display()))
}
