//! A directory that the store keeps: a layer or a patch, with its record and its seal.

use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::{self, Aside};
use super::{Error, Store};
use crate::digest::Digest;
use crate::stack::open_root;
use crate::unpack::{Applied, Need};

/// The file that says that what is beside it outlasts a power loss.
const SEAL: &str = "sealed";

/// What is known of a kept directory besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When the machine was running that made it.
    boot: String,
    /// Bytes of the layer's tar.
    pub bytes: u64,
    /// Entries of the layer.
    pub entries: u64,
    /// What the layer takes from those below.
    pub needs: Vec<Need>,
    /// Whether the layer says what the root is like.
    pub root_stated: bool,
    /// Whether the layer hides all that is below.
    pub root_opaque: bool,
    /// What was left out, path and reason; the first ones.
    pub skipped: Vec<(String, String)>,
    /// How many were left out.
    #[serde(default)]
    pub skipped_count: u64,
    /// Whether there is nothing in it, so that it need not be stacked.
    pub(super) empty: bool,
}

impl Record {
    pub(super) fn new(store: &Store, bytes: u64, applied: &Applied) -> Record {
        let skipped = applied.skipped.iter().map(|skipped| (skipped.path.clone(), skipped.why.clone()));
        Record {
            boot: store.boot.clone(),
            bytes,
            entries: applied.entries,
            needs: applied.needs.clone(),
            root_stated: applied.root_stated,
            root_opaque: applied.root_opaque,
            skipped: skipped.collect(),
            skipped_count: applied.skipped_count,
            empty: false,
        }
    }
}

/// Which directory something is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot,
    Patch,
}

impl Kind {
    pub(super) fn directory(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshots",
            Kind::Patch => "patches",
        }
    }
}

/// A digest as the name of a directory.
pub(super) fn file_name(digest: &Digest) -> String {
    digest.as_str().replace(':', "-")
}

impl Store {
    pub(super) fn kept(&self, kind: Kind, name: &Digest) -> PathBuf {
        self.root.join(kind.directory()).join(file_name(name))
    }

    /// The record of a kept directory, when it is whole.
    pub(super) fn whole(&self, kind: Kind, name: &Digest) -> Result<Option<Record>, Error> {
        let path = self.kept(kind, name);
        let Some(record) = place::read_json::<Record>(&path.join("record.json"))? else { return Ok(None) };
        let since_boot = !self.boot.is_empty() && record.boot == self.boot;
        let whole = since_boot || path.join(SEAL).exists();
        Ok(whole.then_some(record))
    }

    /// The directories among these that have no seal.
    pub(super) fn without_seal(&self, kept: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
        kept.filter(|path| !path.join(SEAL).exists()).collect()
    }

    /// Renames a directory in, with its record.
    pub(super) fn keep(&self, aside: Aside, kind: Kind, name: &Digest, record: &Record) -> Result<(), Error> {
        let path = aside.path.join("record.json");
        let malformed =
            |error: serde_json::Error| Error::Malformed { path: path.clone(), why: error.to_string() };
        let text = serde_json::to_vec(record).map_err(malformed)?;
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
        let to = self.kept(kind, name);
        aside.rename(&to)?;
        // Without a boot id only the seal counts.
        if self.boot.is_empty() { seal(&[to]) } else { Ok(()) }
    }
}

/// Makes kept directories outlast a power loss, with one syncfs(2) for all. They are held open meanwhile, so that
/// nothing that takes the place of one is taken for it.
///
/// # Errors
/// open(2)'s and syncfs(2)'s. A directory that is gone needs no seal.
pub fn seal(paths: &[PathBuf]) -> Result<(), Error> {
    let mut open = Vec::new();
    for path in paths {
        match open_root(path) {
            Ok(dir) => open.push((dir, path.join(SEAL))),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::call("open", path)(errno)),
        }
    }
    let Some((first, path)) = open.first() else { return Ok(()) };
    rustix::fs::syncfs(first).map_err(Error::call("syncfs", path))?;
    for (dir, path) in &open {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, SEAL, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::call("openat", path)(errno)),
        }
    }
    Ok(())
}
