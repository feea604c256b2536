//! Writable layers: one directory for each container, with what it is stacked of.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode};
use serde::{Deserialize, Serialize};

use super::place::{self, Aside};
use super::process::{self, Process};
use super::prune::CONTAINER_IMAGE;
use super::{Error, Image, Store};
use crate::mount::{Overlay, Writes, flat};
use crate::stack::{Merged, open_root};
use crate::unpack::{Owners, copy_attributes};
use crate::volume;

/// Where the rest of a container is: nothing of it outlasts the machine, so that it may lie on a tmpfs, where making
/// and removing files costs least. It may even be gone before the container: logind empties XDG_RUNTIME_DIR when a
/// user logs out, and a detached container goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Places {
    /// Its bundle.
    pub bundle: PathBuf,
    /// The runtime's state of it.
    pub state: PathBuf,
    /// Where the runtime writes the number of init, if init may outlive the runtime; relative to the container's own
    /// directory or absolute.
    #[serde(default)]
    pub pid_file: Option<PathBuf>,
    /// Whether what the container wrote stays until it is deleted.
    #[serde(default)]
    pub kept: Kept,
}

/// How long what a container wrote is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kept {
    /// Until it ends.
    #[default]
    No,
    /// Until somebody deletes it.
    Yes,
}

/// Whether a container runs, as far as the store knows without the runtime's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Its runtime or its init lives; or a process that has got init's number, which cannot be told.
    Yes,
    /// They are gone, or the machine was started again.
    No,
    /// Its init was never told, on this start of the machine.
    Unknown,
}

/// What is written down of a container.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    image: Image,
    #[serde(flatten)]
    places: Places,
    /// When the machine was running that made it.
    #[serde(default)]
    boot: String,
    /// Who made it, and became its runtime.
    runtime: Option<Process>,
}

/// The part of the store that belongs to one container.
#[derive(Debug, Clone)]
pub struct Container {
    path: PathBuf,
    places: Places,
    since_boot: bool,
    runtime: Option<Process>,
    rootfs: PathBuf,
    lowers: Vec<PathBuf>,
    user_xattrs: bool,
    owners: Owners,
}

fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    let good = !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && id.bytes().all(allowed);
    if good { Ok(()) } else { Err(Error::BadId(id.to_string())) }
}

impl Store {
    /// Makes the directory of a new container. While it is there, the image's layers are not pruned.
    pub fn make_container(&self, id: &str, image: &Image, places: Places) -> Result<Container, Error> {
        check_id(id)?;
        let aside = Aside::make(&self.root.join("tmp"))?;
        for name in ["upper", "work"] {
            let path = aside.path.join(name);
            rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(Error::call("mkdir", &path))?;
        }
        // The attributes of overlayfs's root are those of its upper directory.
        let upper = aside.path.join("upper");
        let to = open_root(&upper).map_err(Error::call("open", &upper))?;
        match &image.root_from {
            Some(lower) => {
                let from = self.root.join(lower);
                let from = open_root(&from).map_err(Error::call("open", &from))?;
                copy_attributes(&from, &to, self.settings.owners())
                    .map_err(|(call, errno)| Error::call(call, &upper)(errno))?;
            }
            None => {
                rustix::fs::fchmod(&to, Mode::from_raw_mode(0o755)).map_err(Error::call("fchmod", &upper))?
            }
        }
        let record = aside.path.join(CONTAINER_IMAGE);
        let (boot, runtime) = (self.boot.clone(), Process::own());
        let written = Written { image: image.clone(), places, boot, runtime };
        let text = serde_json::to_vec(&written)
            .map_err(|error| Error::Malformed { path: record.clone(), why: error.to_string() })?;
        std::fs::write(&record, text).map_err(Error::io("write", &record))?;
        let path = self.root.join("containers").join(id);
        match aside.rename(&path) {
            Err(Error::Call { errno: rustix::io::Errno::EXIST, .. }) => Err(Error::InUse(id.to_string())),
            other => other,
        }?;
        Ok(self.container_at(path, written))
    }

    /// A container that is there.
    pub fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        check_id(id)?;
        let path = self.root.join("containers").join(id);
        let written = place::read_json::<Written>(&path.join(CONTAINER_IMAGE))?;
        Ok(written.map(|written| self.container_at(path, written)))
    }

    fn container_at(&self, path: PathBuf, written: Written) -> Container {
        let Written { image, places, boot, runtime } = written;
        let lowers = image.lowers.iter().map(|lower| self.root.join(lower)).collect();
        let rootfs = self.root.join("rootfs");
        Container {
            path,
            places,
            since_boot: !boot.is_empty() && boot == self.boot,
            runtime,
            rootfs,
            lowers,
            user_xattrs: self.settings.user_xattrs(),
            owners: self.settings.owners(),
        }
    }

    /// Removes what a container wrote.
    pub fn remove_container(&self, container: &Container) -> Result<(), Error> {
        remove(&self.root, &container.path)
    }
}

impl Container {
    /// Its own directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the rest of it is.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Where the runtime is to write the number of init, if it is to.
    pub fn pid_file(&self) -> Option<PathBuf> {
        self.places.pid_file.as_ref().map(|file| self.path.join(file))
    }

    /// Whether it runs.
    pub fn running(&self) -> Running {
        if !self.since_boot {
            return Running::No;
        }
        if self.runtime.is_some_and(Process::lives) {
            return Running::Yes;
        }
        let Some(file) = self.pid_file() else {
            // In the foreground it ends with its runtime.
            return if self.runtime.is_some() { Running::No } else { Running::Unknown };
        };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        match text.trim().parse() {
            Ok(pid) if process::is_there(pid) => Running::Yes,
            Ok(_) => Running::No,
            Err(_) => Running::Unknown,
        }
    }

    /// Where its root is mounted: one place for all, since each has a mount namespace of its own. So nothing
    /// below its own directory is in use when that is removed.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// Fills its own directory with a copy of the layers, which is the root then; for where [`Container::mount`]
    /// finds that overlayfs is unavailable.
    pub fn copy_layers(&mut self) -> Result<(), Error> {
        let open = |path: &PathBuf| open_root(path).map_err(Error::call("open", path));
        let layers = self.lowers.iter().map(open).collect::<Result<_, _>>()?;
        let upper = self.path.join("upper");
        flat::copy(&Merged::new(layers), &open(&upper)?, self.owners).map_err(Error::Mount)?;
        self.rootfs = upper;
        Ok(())
    }

    /// Makes a directory for a volume of the image, with what the image has there. It is removed with the rest of what
    /// the container wrote.
    pub fn make_volume(&self, path: &str) -> Result<PathBuf, Error> {
        let all = self.path.join("volumes");
        place::make_directories(&all)?;
        let own = (0..)
            .map(|n: u32| all.join(n.to_string()))
            .find_map(|own| match rustix::fs::mkdirat(CWD, &own, Mode::RWXU) {
                Err(rustix::io::Errno::EXIST) => None,
                other => Some(other.map_err(Error::call("mkdir", &own)).map(|()| own)),
            })
            .transpose()?
            .unwrap_or(all);
        let open = |path: &PathBuf| open_root(path).map_err(Error::call("open", path));
        let layers = self.lowers.iter().map(open).collect::<Result<_, _>>()?;
        volume::fill(&Merged::new(layers), path, &open(&own)?, self.owners)?;
        Ok(own)
    }

    /// Mounts its root, in the mount namespace of the caller.
    pub fn mount(&self, writes: Writes) -> Result<(), Error> {
        let (upper, work) = (self.path.join("upper"), self.path.join("work"));
        let overlay = Overlay {
            lowers: &self.lowers,
            upper: &upper,
            work: &work,
            user_xattrs: self.user_xattrs,
            writes,
        };
        // First: a work directory serves one volatile mount, so that there is no second try.
        place::make_directories(&self.rootfs)?;
        overlay.mount(&self.rootfs).map_err(Error::Mount)
    }
}

/// `Store::remove_container` without a store: by the root of one and a path below it.
pub fn remove(root: &Path, container: &Path) -> Result<(), Error> {
    // Who runs it may still hold the lock; otherwise it is taken, so that nobody else removes it from `tmp/`.
    let held = match open_root(container) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::call("open", container))?,
    };
    match place::flock(std::os::fd::AsFd::as_fd(&held), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => {}
        Err(errno) => return Err(Error::call("flock", container)(errno)),
    }
    place::discard_locked(&root.join("tmp"), container)
}
