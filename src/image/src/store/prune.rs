//! Removing what no name and no container needs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::images::Image;
use super::kept::file_name;
use super::{Error, Store, place};

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Images without a name.
    pub images: usize,
    /// Layers and patches.
    pub directories: usize,
    /// Blobs.
    pub blobs: usize,
}

/// What a container's directory says it is stacked of.
pub(crate) const CONTAINER_IMAGE: &str = "image.json";

fn entries(dir: &Path) -> Result<Vec<OsString>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("opendir", dir))? {
        names.push(entry.map_err(Error::io("readdir", dir))?.file_name());
    }
    Ok(names)
}

impl Store {
    /// Removes images without a name, and layers and blobs that no image and no container needs. Nobody else may
    /// be at work with the store.
    pub fn prune(&self) -> Result<Pruned, Error> {
        self.alone(|| self.prune_alone())
    }

    /// Does something while nobody else is at work with the store.
    pub(super) fn alone<T>(&self, what: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let path = self.root.join("lock");
        // The shared lock becomes exclusive, or stays as it is (flock(2): not atomic, which is harmless here).
        match place::flock(self.lock.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => {
                // The conversion may have lost the shared lock.
                place::flock(self.lock.as_fd(), FlockOperation::LockShared)
                    .map_err(Error::call("flock", &path))?;
                return Err(Error::Busy);
            }
            other => other.map_err(Error::call("flock", &path))?,
        }
        let done = what();
        place::flock(self.lock.as_fd(), FlockOperation::LockShared).map_err(Error::call("flock", &path))?;
        done
    }

    fn prune_alone(&self) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let named: HashSet<OsString> =
            self.names()?.iter().map(|name| format!("{}.json", file_name(&name.manifest)).into()).collect();
        let mut needed: HashSet<PathBuf> = HashSet::new();
        let images = self.root.join("images");
        for name in entries(&images)? {
            let path = images.join(&name);
            match place::read_json::<Image>(&path)?.filter(|_| named.contains(&name)) {
                Some(image) => self.need(&image, &mut needed),
                None => {
                    place::unlink(&path)?;
                    pruned.images += 1;
                }
            }
        }
        let containers = self.root.join("containers");
        for name in entries(&containers)? {
            if let Some(image) = place::read_json::<Image>(&containers.join(name).join(CONTAINER_IMAGE))? {
                self.need(&image, &mut needed);
            }
        }
        let tmp = self.root.join("tmp");
        for kind in ["snapshots", "patches"] {
            for name in entries(&self.root.join(kind))? {
                let path = self.root.join(kind).join(&name);
                if !needed.contains(&path) {
                    place::discard(&tmp, &path)?;
                    pruned.directories += 1;
                }
            }
        }
        for algorithm in ["sha256", "sha512"] {
            let dir = self.root.join("blobs").join(algorithm);
            for name in entries(&dir)? {
                let path = dir.join(&name);
                if !needed.contains(&path) {
                    place::unlink(&path)?;
                    pruned.blobs += 1;
                }
            }
        }
        for name in entries(&self.root.join("partial"))? {
            place::unlink(&self.root.join("partial").join(name))?;
            pruned.blobs += 1;
        }
        for name in entries(&self.root.join("locks"))? {
            place::unlink(&self.root.join("locks").join(name))?;
        }
        Ok(pruned)
    }

    fn need(&self, image: &Image, needed: &mut HashSet<PathBuf>) {
        needed.insert(self.blob_path(&image.manifest));
        needed.insert(self.blob_path(&image.config));
        for lower in &image.lowers {
            needed.extend(self.root.join(lower).parent().map(Path::to_path_buf));
        }
        // Layers that an opaque root hides, too: they belong to the image.
        for layer in &image.layers {
            needed.insert(self.root.join("snapshots").join(file_name(layer)));
        }
        self.need_blobs(image, needed);
    }

    /// Compressed layers are kept with the image that names them.
    fn need_blobs(&self, image: &Image, needed: &mut HashSet<PathBuf>) {
        let Ok(Some(bytes)) = self.small_blob(&image.manifest) else { return };
        if let Ok(crate::manifest::Document::Manifest(manifest)) = crate::manifest::parse(&bytes, None) {
            needed.extend(
                manifest.layers.iter().filter_map(|layer| layer.digest().ok()).map(|d| self.blob_path(&d)),
            );
        }
    }
}
