//! The store: what was pulled, under one root, each thing named by what is in it.
//!
//! ```text
//! store.json                 how the store is written: version, owners, attributes
//! lock                       shared by all who work with the store, alone for prune
//! locks/DIFF-ID              who unpacks this layer
//! snapshots/DIFF-ID/         fs/ the layer as overlayfs reads it, record.json, sealed
//! patches/CHAIN-ID/          the same, of what a layer takes from those below it (crate::stack)
//! blobs/sha256/HEX           manifests and configurations; compressed layers only if asked for
//! partial/DIGEST             the start of a blob whose pull broke off
//! images/MANIFEST.json       an image: its configuration and what its root is stacked of
//! refs/HEX.json              a name, and the image that it meant when it was pulled
//! containers/ID/             writable layers
//! tmp/                       what is being made
//! ```
//!
//! Everything is made in `tmp/` and renamed in when it is whole and verified: a kill at any moment leaves
//! either nothing or a directory in `tmp/` whose lock nobody holds, which the next command removes. An image
//! is written after its layers and a name after its image.
//!
//! After a power loss the kernel may have kept a rename and lost the data. So a snapshot counts only if it was
//! made since the machine was started (its record has the boot id) or if it is sealed: `sealed` is made after
//! a syncfs(2) that came after the rename. One syncfs seals all layers of an image; nothing has to wait for it
//! (docs/design/0016).

mod blobs;
mod containers;
mod error;
mod images;
mod kept;
mod partial;
mod place;
mod process;
mod prune;
mod snapshots;
mod verify;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use containers::{Container, Kept, Places, Running, remove};
pub use error::Error;
pub use images::{Image, Named};
pub use kept::{Record, seal};
pub use partial::{Partial, Resumed};
pub use prune::Pruned;
pub use snapshots::{Blob, Layer, Slot, Snapshot};
pub use verify::{Checked, Repair};

use crate::unpack::{Devices, Form, Options, Owners};

/// How the snapshots of a store are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    version: u32,
    squashed: bool,
    devices: bool,
    user_xattrs: bool,
}

impl Settings {
    /// For root.
    pub fn root() -> Settings {
        Settings { version: 1, squashed: false, devices: true, user_xattrs: false }
    }

    /// For a user namespace that maps ranges of ids: all owners, no devices.
    pub fn user_namespace() -> Settings {
        Settings { version: 1, squashed: false, devices: false, user_xattrs: true }
    }

    /// For one id: everything belongs to it.
    pub fn single_id() -> Settings {
        Settings { version: 1, squashed: true, devices: false, user_xattrs: true }
    }

    /// Who owns what is unpacked.
    pub fn owners(&self) -> Owners {
        if self.squashed { Owners::Squashed } else { Owners::Recorded }
    }

    /// Whether overlayfs needs its option `userxattr` to read the snapshots.
    pub fn user_xattrs(&self) -> bool {
        self.user_xattrs
    }

    fn options(&self) -> Options {
        let devices = if self.devices { Devices::Make } else { Devices::Skip };
        Options { form: Form::Overlay, owners: self.owners(), devices, user_xattrs: self.user_xattrs }
    }

    /// The same for a tree of all layers, outside of a store.
    pub fn flat(&self) -> Options {
        Options { form: Form::Flat, ..self.options() }
    }
}

/// An open store. While it is, nobody prunes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    lock: OwnedFd,
    settings: Settings,
    boot: String,
    left_behind: Option<Error>,
}

const DIRECTORIES: [&str; 10] = [
    "locks",
    "partial",
    "snapshots",
    "patches",
    "blobs/sha256",
    "blobs/sha512",
    "images",
    "refs",
    "containers",
    "tmp",
];

/// Where the store is: for root below /var/lib, else below the user's data directory.
pub fn default_root(data_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/creel/images"));
    }
    let data = data_home.filter(|path| path.is_absolute()).map(Path::to_path_buf);
    let data = data.or_else(|| home.map(|home| home.join(".local/share")));
    data.map(|data| data.join("creel/images"))
}

impl Store {
    /// Opens a store, makes it when there is none, and removes what killed commands left.
    pub fn open(root: &Path, settings: Settings) -> Result<Store, Error> {
        for directory in DIRECTORIES {
            place::make_directories(&root.join(directory))?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let path = root.join("lock");
        let lock =
            rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(Error::call("open", &path))?;
        place::flock(lock.as_fd(), FlockOperation::LockShared).map_err(Error::call("flock", &path))?;
        // Absent where /proc is not mounted: then only seals count.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_string();
        let mut store = Store { root: root.to_path_buf(), lock, settings, boot, left_behind: None };
        store.check_settings()?;
        store.left_behind = place::clean(&store.root.join("tmp")).err();
        Ok(store)
    }

    /// Why something that a killed command left could not be removed. The store is as good as without it.
    pub fn left_behind(&self) -> Option<&Error> {
        self.left_behind.as_ref()
    }

    /// The same open store once more: a command that has it twice must not stand in its own way, and a lock
    /// belongs to the open file.
    pub fn again(&self) -> Result<Store, Error> {
        let lock = self.lock.try_clone().map_err(Error::io("dup", &self.root.join("lock")))?;
        let (root, boot) = (self.root.clone(), self.boot.clone());
        Ok(Store { root, lock, settings: self.settings, boot, left_behind: None })
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How its snapshots are written.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    fn check_settings(&self) -> Result<(), Error> {
        let path = self.root.join("store.json");
        match place::read_json::<Settings>(&path)? {
            Some(found) if found == self.settings => Ok(()),
            Some(_) => Err(Error::OtherSettings(self.root.clone())),
            None => self.write_json(&path, &self.settings),
        }
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec(value)
            .map_err(|error| Error::Malformed { path: path.to_path_buf(), why: error.to_string() })?;
        place::write(&self.root.join("tmp"), path, &text)
    }
}

#[cfg(test)]
mod tests;
