//! The part of the store that belongs to a container, from before it runs until after it ended.
//!
//! creel-image is not there when the container ends: it has become `creel run`. So the container itself says
//! what is to be done then: a poststop hook calls `creel-image release DIR BUNDLE`, whoever deletes the container.
//! The root is mounted in a mount namespace of this process and of the container alone, so that it goes with
//! them whatever happens. What a killed runtime leaves is a directory, which the next command sweeps: it
//! belongs to nobody when its lock is free and the runtime has no state of the container. The lock is on the
//! bundle's directory, by an fd that stays open over execve(2) and closes when `creel run` ends.
//!
//! Bundle and state may be taken away while the container runs, or stays to be run again ([`Places`]). So one is
//! swept only if its processes are gone, and never if it was to be kept: `image prune --kept` removes that.
//!
//! `containers.lock` is shared while a container's directory is made, and held alone for the sweep.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use creel_image_lib::mount::Writes;
use creel_image_lib::store::{self, Container, Image, Kept, Places, Running, Store};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};
use serde_json::{Value, json};

use crate::run::{network, user_namespace};
use crate::{cli, output};

/// A container's directory that goes away again unless the runtime takes it over.
pub struct Made<'a> {
    store: &'a Store,
    /// The directory.
    pub container: Container,
    kept: bool,
    alive: OwnedFd,
}

/// Opens and locks, unless another has the lock.
fn lock(path: &Path, flags: OFlags, operation: FlockOperation) -> Result<Option<OwnedFd>> {
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

fn lock_all(store: &Store, operation: FlockOperation) -> Result<Option<OwnedFd>> {
    let path = store.root().join("containers.lock");
    lock(&path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, operation)
}

/// The lock that says that a container's runtime lives.
fn lock_directory(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    lock(path, flags, FlockOperation::NonBlockingLockExclusive)
}

impl<'a> Made<'a> {
    /// Makes the directories of a container.
    pub fn new(store: &'a Store, id: &str, image: &Image, places: Places) -> Result<Made<'a>> {
        let _making = lock_all(store, FlockOperation::LockShared)?;
        let container = match store.make_container(id, image, places) {
            Err(error @ store::Error::InUse(_)) => return Err(in_use(store, id, error)),
            other => other?,
        };
        let bundle = &container.places().bundle;
        match make_bundle(bundle).and_then(|()| lock_directory(bundle)) {
            Ok(Some(alive)) => Ok(Made { store, container, kept: false, alive }),
            other => {
                store.remove_container(&container)?;
                other?;
                bail!("{}: locked by another", bundle.display())
            }
        }
    }

    /// From here on, only this process and what it becomes see what is mounted.
    pub fn enter_mounts(&self) -> Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        // Mounts of the machine still arrive; what is mounted from here on does not travel back.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context("mount(\"/\", rslave)")
    }

    /// Mounts the root.
    pub fn mount(&mut self, writes: Writes) -> Result<()> {
        match self.container.mount(writes) {
            Err(store::Error::Mount(why)) if why.is_unavailable() => {
                output::warning(&format!("{why}: the layers are copied for this container"));
                Ok(self.container.copy_layers()?)
            }
            other => Ok(other?),
        }
    }

    /// Leaves the directory to the runtime and its hook. `creel run` inherits the lock; the container does not, its
    /// runtime sees to that.
    pub fn keep(&mut self) -> Result<()> {
        rustix::io::fcntl_setfd(&self.alive, rustix::io::FdFlags::empty()).context("fcntl(F_SETFD)")?;
        self.kept = true;
        Ok(())
    }

    /// Takes it back when the runtime could not be called.
    pub fn take_back(&mut self) {
        self.kept = false;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) =
                remove(self.store.root(), self.container.path(), &self.container.places().bundle)
        {
            output::warning(&format!("{error:#}"));
        }
    }
}

/// Says how to be rid of a container that `creel delete` does not know.
fn in_use(store: &Store, id: &str, error: store::Error) -> anyhow::Error {
    let kept = store.container(id).ok().flatten().filter(|container| !container.places().state.exists());
    match kept {
        Some(container) => anyhow!(
            "{error}, whose files were kept in {}; \"creel image prune --kept\" removes what no container runs on",
            container.path().join("upper").display()
        ),
        None => error.into(),
    }
}

/// Makes the bundle's directory, which a container of the same name may have left behind.
fn make_bundle(path: &Path) -> Result<()> {
    let make = || rustix::fs::mkdir(path, Mode::RWXU);
    let made = match (make(), path.parent()) {
        (Err(Errno::NOENT), Some(parent)) => {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("mkdir {}", path.display())),
    }
}

/// Removes what belongs to a container of the store at `root`. What fails does not keep the rest, and all that
/// failed is told.
fn remove(root: &Path, container: &Path, bundle: &Path) -> Result<()> {
    let steps = [
        store::remove(root, container).map_err(anyhow::Error::from),
        remove_network(&network::namespace(bundle)),
        remove_bundle(bundle),
    ];
    let failed: Vec<String> =
        steps.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("{}", failed.join("; "))) }
}

fn remove_network(netns: &Path) -> Result<()> {
    if !netns.exists() {
        return Ok(());
    }
    // In the mount namespace of the runtime it is a mount; elsewhere it is none (EINVAL).
    match rustix::mount::unmount(netns, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("umount {}", netns.display())),
    }
}

fn remove_bundle(bundle: &Path) -> Result<()> {
    match std::fs::remove_dir_all(bundle) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| bundle.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `hooks` of a container's config.json.
pub fn hooks(container: &Container) -> Result<Value> {
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    Ok(json!({"poststop": [{
        "path": own,
        "args": ["creel-image", cli::RELEASE, container.path(), container.places().bundle],
        "timeout": 60,
    }]}))
}

/// `creel-image release DIR BUNDLE`: removes what a container wrote, after it has ended.
pub fn release(words: &[OsString]) -> Result<()> {
    // The runtime writes the state to its hooks, which need not wait for a reader that is gone.
    std::io::stdin().lock().take(1 << 20).read_to_end(&mut Vec::new()).ok();
    let [directory, bundle] = words else {
        bail!("two directories are needed: of the store, and the bundle")
    };
    let (directory, bundle) = (Path::new(directory), Path::new(bundle));
    let root = directory.parent().filter(|parent| parent.ends_with("containers")).and_then(Path::parent);
    match root.filter(|root| root.join("store.json").is_file()) {
        Some(root) => {
            // `creel delete` of an ordinary user: what the container wrote has ids of the user namespace.
            if !rustix::process::geteuid().is_root() {
                user_namespace::enter()?;
            }
            remove(root, directory, bundle)
        }
        None => bail!("{}: not the directory of a container in a store", directory.display()),
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
    let Some(_alone) = lock_all(store, FlockOperation::NonBlockingLockExclusive)? else { return Ok(()) };
    for entry in entries {
        let path = entry.with_context(|| root.display().to_string())?.path();
        let id = path.file_name().and_then(|id| id.to_str()).unwrap_or_default();
        // One without a record was cut by a power loss.
        let Some(container) = store.container(id)? else {
            store::remove(store.root(), &path)?;
            continue;
        };
        if is_abandoned(&container)? {
            remove(store.root(), &path, &container.places().bundle)?;
        }
    }
    Ok(())
}

/// Whether nobody runs a container and nobody will delete it. While it is looked at, nobody makes one.
fn is_abandoned(container: &Container) -> Result<bool> {
    let Places { bundle, state, kept, .. } = container.places();
    let _held = match lock_directory(bundle) {
        Ok(Some(held)) => Some(held),
        Ok(None) => return Ok(false),
        // The machine was started again, the user has logged out, or its hook is faster.
        Err(error) if !bundle.exists() => {
            drop(error);
            None
        }
        Err(error) => return Err(error),
    };
    if state.exists() {
        return Ok(false);
    }
    // A command that was killed before it called the runtime left a bundle that is not whole.
    let was_called = !bundle.exists() || bundle.join("config.json").exists();
    Ok(match (container.running(), kept) {
        (Running::Yes, _) => false,
        (Running::Unknown | Running::No, _) if !was_called => true,
        (_, Kept::Yes) => false,
        (Running::No, Kept::No) => true,
        // With its bundle the runtime has been here, and knows nothing of it any more.
        (Running::Unknown, Kept::No) => bundle.exists(),
    })
}

/// Removes what kept containers wrote that the runtime does not know any more, after a new start of the machine.
/// Gives their ids.
pub fn prune(store: &Store) -> Result<Vec<String>> {
    let root = store.root().join("containers");
    let Some(_alone) = lock_all(store, FlockOperation::NonBlockingLockExclusive)? else {
        bail!("a container is being started; try again");
    };
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(&root).with_context(|| root.display().to_string())? {
        let id = entry.with_context(|| root.display().to_string())?.file_name();
        let id = id.to_str().unwrap_or_default();
        let Some(container) = store.container(id)? else { continue };
        let Places { bundle, state, .. } = container.places();
        if !state.exists() && !bundle.exists() && container.running() == Running::No {
            remove(store.root(), container.path(), bundle)?;
            removed.push(id.to_owned());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A store with a container whose image has nothing in it.
    fn made(dir: &Path, kept: Kept, pid_file: Option<&str>) -> (Store, Container) {
        let single = !rustix::process::geteuid().is_root();
        let settings = if single { store::Settings::single_id() } else { store::Settings::root() };
        let store = Store::open(&dir.join("store"), settings).unwrap();
        let nothing: creel_image_lib::digest::Digest = format!("sha256:{:064}", 0).parse().unwrap();
        let image = Image {
            manifest: nothing.clone(),
            config: nothing,
            layers: Vec::new(),
            lowers: Vec::new(),
            root_from: None,
            bytes: 0,
        };
        let (bundle, state) = (dir.join("bundle"), dir.join("state"));
        let places = Places { bundle, state, pid_file: pid_file.map(Into::into), kept };
        let container = store.make_container("c", &image, places).unwrap();
        (store, container)
    }

    /// Writes the record as a runtime that has ended left it, or as it was on another start of the machine.
    fn forget(container: &Container, what: &str) {
        let path = container.path().join("image.json");
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        match what {
            "boot" => record["boot"] = json!("another"),
            _ => record["runtime"]["start"] = json!(1),
        }
        std::fs::write(&path, record.to_string()).unwrap();
    }

    #[test]
    fn what_a_container_writes_stays_while_it_runs_and_its_state_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (store, container) = made(dir.path(), Kept::No, Some("pid"));
        let swept = || {
            sweep(&store);
            !container.path().exists()
        };
        assert!(!swept(), "the runtime lives");
        forget(&container, "runtime");
        assert!(!swept(), "its init is not known");
        std::fs::write(container.path().join("pid"), std::process::id().to_string()).unwrap();
        assert!(!swept(), "its init lives");
        assert!(prune(&store).unwrap().is_empty());
        std::fs::write(container.path().join("pid"), "2147483647").unwrap();
        assert!(swept(), "its init is gone");
    }

    #[test]
    fn what_is_kept_outlasts_the_machine_and_is_removed_by_request() {
        let dir = tempfile::tempdir().unwrap();
        let (store, container) = made(dir.path(), Kept::Yes, None);
        forget(&container, "boot");
        sweep(&store);
        assert!(container.path().exists());
        let id = container.path().file_name().unwrap().to_str().unwrap();
        let hint = in_use(&store, id, store::Error::InUse(id.into())).to_string();
        assert!(hint.contains("image prune --kept"), "{hint}");
        assert_eq!(prune(&store).unwrap(), ["c"]);
        assert!(!container.path().exists());
    }

    #[test]
    fn what_is_not_kept_goes_with_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (store, container) = made(dir.path(), Kept::No, None);
        forget(&container, "boot");
        sweep(&store);
        assert!(!container.path().exists());
    }

    #[test]
    fn a_container_whose_layer_stays_loses_its_bundle_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (container, bundle) = (dir.path().join("containers/c"), dir.path().join("bundle"));
        std::fs::create_dir_all(container.parent().unwrap()).unwrap();
        std::fs::write(&container, "no directory").unwrap();
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("netns"), "").unwrap();
        let error = remove(dir.path(), &container, &bundle).unwrap_err().to_string();
        assert!(error.contains("containers/c"), "{error}");
        assert!(!bundle.exists());
    }
}
