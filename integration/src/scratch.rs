//! A directory and a name that no other test has.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use tempfile::TempDir;

/// How the names of all tests begin.
pub const PREFIX: &str = "creel-e2e-";

/// A directory that is removed on drop. The thread that makes one has a mount namespace of its own
/// from then on.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    name: String,
}

impl Scratch {
    /// A fresh directory, named `creel-e2e-<pid>-<n>` like everything else of the test.
    ///
    /// # Panics
    /// When root lacks the privilege to make a mount namespace.
    #[allow(clippy::new_without_default, reason = "making one changes the thread's mount namespace")]
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        private_mount_namespace();
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).rand_bytes(4).tempdir().unwrap();
        open_to_all(dir.path());
        Scratch { dir, name }
    }

    /// The unique name: for container ids, cgroups and whatever the kernel keeps outside the directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the directory and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Makes a directory below the directory and returns its path.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    /// Takes away what the test mounted below the directory, in the thread's own namespace, so that it
    /// can be removed.
    fn drop(&mut self) {
        let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let targets = text.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        for target in targets.filter(|target| target.starts_with(self.path())) {
            // One that lay on another is gone with it.
            unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
    }
}

/// Containers in user namespaces, and runtimes run by ordinary users, walk through the directory.
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Gives this thread a private mount namespace, once, and makes the process a child subreaper. An ordinary
/// user, whose containers mount in user namespaces alone, has none.
///
/// # Panics
/// When unshare(2) is refused.
pub fn private_mount_namespace() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    // prctl(2), PR_SET_CHILD_SUBREAPER: an attribute of the process, so that once would do.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}
