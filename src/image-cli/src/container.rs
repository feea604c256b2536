//! The part of the store that belongs to a container, from before it runs until after it ended.
//!
//! creel-image is not there when the container ends: it has become `creel run`. So the container itself says
//! what is to be done then: a poststop hook calls `creel-image release DIR`, whoever deletes the container.
//! The root is mounted in a mount namespace of this process and of the container alone, so that it goes with
//! them whatever happens. What a killed runtime leaves is a directory, which the next command sweeps: it
//! belongs to nobody when its lock is free and the runtime has no state of the container. The lock is held
//! by an fd that stays open over execve(2) and closes when `creel run` ends.
//!
//! ```text
//! containers.lock            shared while a container's directory is made, alone for the sweep
//! containers/ID/alive        locked by who makes and runs the container
//! containers/ID/state        link to the runtime's state of the container
//! ```

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::store::{Container, Image, Settings, Store};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::{Value, json};

use crate::{cli, output};

/// A container's directory that goes away again unless the runtime takes it over.
pub struct Made<'a> {
    store: &'a Store,
    /// The directory.
    pub container: Container,
    kept: bool,
    _alive: OwnedFd,
}

fn lock(path: &Path, operation: FlockOperation, inherited: OFlags) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | inherited;
    let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("open {}", path.display()))?;
    loop {
        match rustix::fs::flock(fd.as_fd(), operation) {
            Ok(()) => return Ok(Some(fd)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(anyhow!("flock {}: {errno}", path.display())),
        }
    }
}

fn all_containers(store: &Store) -> PathBuf {
    store.root().join("containers.lock")
}

impl<'a> Made<'a> {
    /// Makes the directory of a container, whose state the runtime will keep at `state`.
    pub fn new(store: &'a Store, id: &str, image: &Image, state: &Path) -> Result<Made<'a>> {
        let _making = lock(&all_containers(store), FlockOperation::LockShared, OFlags::CLOEXEC)?;
        let container = store.make_container(id, image)?;
        let path = container.path().join("alive");
        // Not close-on-exec: `creel run` inherits it. The container does not, its runtime sees to that.
        let alive = lock(&path, FlockOperation::NonBlockingLockExclusive, OFlags::empty());
        let linked = std::os::unix::fs::symlink(state, container.path().join("state"));
        match (alive, linked) {
            (Ok(Some(alive)), Ok(())) => Ok(Made { store, container, kept: false, _alive: alive }),
            (alive, linked) => {
                store.remove_container(&container)?;
                alive?;
                linked.context("symlink")?;
                bail!("{}: locked by another", path.display())
            }
        }
    }

    /// Mounts the root where only this process and what it becomes sees it.
    pub fn mount(&self) -> Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        // Mounts of the machine still arrive; what is mounted from here on does not travel back.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context("mount(\"/\", rslave)")?;
        Ok(self.container.mount()?)
    }

    /// Leaves the directory to the runtime and its hook.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Takes it back when the runtime could not be called.
    pub fn take_back(&mut self) {
        self.kept = false;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.store.remove_container(&self.container)
        {
            output::warning(&format!("{}: {error}", self.container.path().display()));
        }
    }
}

/// `hooks` of a container's config.json.
pub fn hooks(container: &Container) -> Result<Value> {
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    Ok(json!({"poststop": [{
        "path": own,
        "args": ["creel-image", cli::RELEASE, container.path()],
        "timeout": 60,
    }]}))
}

/// `creel-image release DIR`: removes what a container wrote, after it has ended.
pub fn release_command(words: &ArgMatches) -> Result<()> {
    let directory: PathBuf = cli::value(words, "directory").unwrap_or_default();
    // The runtime writes the state to its hooks, which need not wait for a reader that is gone.
    std::io::stdin().lock().take(1 << 20).read_to_end(&mut Vec::new()).ok();
    let (Some(id), Some(parent)) = (directory.file_name().and_then(|id| id.to_str()), directory.parent())
    else {
        bail!("{}: not the directory of a container", directory.display());
    };
    let root =
        parent.parent().filter(|root| parent.ends_with("containers") && root.join("store.json").is_file());
    let Some(root) = root else { bail!("{}: not in a store", directory.display()) };
    let store = Store::open(root, Settings::root())?;
    match store.container(id)? {
        Some(container) => Ok(store.remove_container(&container)?),
        None => Ok(()),
    }
}

/// Removes directories of containers that nobody runs and the runtime does not know. What stands in its way
/// is told and stops nothing.
pub fn sweep(store: &Store) {
    if let Err(error) = try_sweep(store) {
        output::warning(&format!("sweep containers: {error:#}"));
    }
}

fn try_sweep(store: &Store) -> Result<()> {
    let root = store.root().join("containers");
    let mut entries = std::fs::read_dir(&root).with_context(|| root.display().to_string())?.peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    let Some(_alone) =
        lock(&all_containers(store), FlockOperation::NonBlockingLockExclusive, OFlags::CLOEXEC)?
    else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(|| root.display().to_string())?;
        let path = entry.path();
        // The link is followed: it leads to nothing when the runtime has no such container.
        if path.join("state").exists() {
            continue;
        }
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let Some(container) = store.container(&id)? else { continue };
        match lock(&path.join("alive"), FlockOperation::NonBlockingLockExclusive, OFlags::CLOEXEC) {
            Ok(Some(_held)) => store.remove_container(&container)?,
            Ok(None) => {}
            // Its hook is faster.
            Err(error) if !path.exists() => drop(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
