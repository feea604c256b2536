//! Images and their names.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::kept::{Kind, Record, file_name, seal};
use super::place::{self, Aside};
use super::{Error, Snapshot, Store};
use crate::config::{ConfigError, ImageConfig, chain_ids};
use crate::digest::{Algorithm, Digest};
use crate::manifest::{self, Document, Manifest};
use crate::mount::{self, MAX_LAYERS};
use crate::stack::{Merged, Outcome, open_root, patch};
use crate::unpack::Applied;

/// An image whose layers are all in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of its configuration.
    pub config: Digest,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// What the root is stacked of, the highest first, below the store's root.
    pub lowers: Vec<PathBuf>,
    /// The one of them whose root directory has the attributes of the image's root.
    pub root_from: Option<PathBuf>,
    /// Bytes of all layers, not compressed.
    pub bytes: u64,
}

/// A name and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// The name, as it was pulled.
    pub reference: String,
    /// Digest of the manifest of the platform that was chosen.
    pub manifest: Digest,
    /// Digest of what the name leads to in the registry: an index, or the manifest.
    pub target: Digest,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
}

/// Gives the patch above a layer, by the layer, its chain id and what is below it.
type PatchOf<'a> = &'a mut dyn FnMut(&Snapshot, &Digest, &[PathBuf]) -> Result<Option<PathBuf>, Error>;

/// One layer of an image with what was made of it.
pub(super) struct Stacked {
    below: Vec<PathBuf>,
    root_from: Option<PathBuf>,
    bytes: u64,
}

impl Store {
    fn image_path(&self, manifest: &Digest) -> PathBuf {
        self.root.join("images").join(file_name(manifest)).with_extension("json")
    }

    fn name_path(&self, reference: &str) -> PathBuf {
        let name = Digest::of(Algorithm::Sha256, reference.as_bytes());
        self.root.join("refs").join(name.hex()).with_extension("json")
    }

    /// Writes an image whose layers are in the store, and makes the patches that they need. Until they are sealed
    /// ([`Store::unsealed`], [`super::seal`]), all of that is whole as long as the machine runs.
    pub fn add_image(&self, digest: &Digest, manifest: &[u8], config: &[u8]) -> Result<Image, Error> {
        let Document::Manifest(document) = manifest::parse(manifest, None)? else {
            return Err(Error::Manifest(manifest::ManifestError::UnknownType("an index".to_string())));
        };
        let parsed = check(&document, config)?;
        let stacked = self.stack(&parsed.rootfs.diff_ids, &mut |snapshot, chain_id, below| {
            self.patch_of(snapshot, chain_id, below)
        })?;
        let image = Image {
            manifest: digest.clone(),
            config: document.config.digest()?,
            layers: parsed.rootfs.diff_ids.clone(),
            lowers: stacked.below,
            root_from: stacked.root_from,
            bytes: stacked.bytes,
        };
        self.put_small_blob(&image.config, config)?;
        self.put_small_blob(digest, manifest)?;
        self.write_json(&self.image_path(digest), &image)?;
        Ok(image)
    }

    /// Discards the patches of all images that have this layer, which link what was in it or stand on it, and
    /// makes them anew. The caller has the store for itself. An image that lacks something else is left
    /// without them: it counts as incomplete.
    pub(super) fn stack_again(&self, diff_id: &Digest) -> Result<(), Error> {
        let tmp = self.root.join("tmp");
        for image in self.all_images()?.into_iter().filter(|image| image.layers.contains(diff_id)) {
            let first = image.layers.iter().position(|layer| layer == diff_id).unwrap_or_default();
            for chain_id in chain_ids(&image.layers).iter().skip(first) {
                place::discard(&tmp, &self.kept(Kind::Patch, chain_id))?;
            }
            let stacked = self.stack(&image.layers, &mut |snapshot, chain_id, below| {
                self.patch_of(snapshot, chain_id, below)
            });
            let stacked = match stacked {
                Err(Error::NoLayer(_)) => continue,
                other => other?,
            };
            let image = Image { lowers: stacked.below, root_from: stacked.root_from, ..image };
            self.write_json(&self.image_path(&image.manifest), &image)?;
            seal(&self.unsealed(&image))?;
        }
        Ok(())
    }

    fn all_images(&self) -> Result<Vec<Image>, Error> {
        let dir = self.root.join("images");
        let mut images = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Error::io("opendir", &dir))? {
            let path = entry.map_err(Error::io("readdir", &dir))?.path();
            images.extend(place::read_json::<Image>(&path)?);
        }
        Ok(images)
    }

    /// The directories of an image that are to be sealed yet.
    pub fn unsealed(&self, image: &Image) -> Vec<PathBuf> {
        let kept = image.lowers.iter().filter_map(|lower| self.root.join(lower).parent().map(PathBuf::from));
        self.without_seal(kept)
    }

    /// Stacks an image's layers. `patch` is asked, for a layer that takes something from what is below it, for the
    /// patch that comes above it.
    pub(super) fn stack(&self, diff_ids: &[Digest], patch: PatchOf<'_>) -> Result<Stacked, Error> {
        let mut stacked = Stacked { below: Vec::new(), root_from: None, bytes: 0 };
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let snapshot = self.snapshot(diff_id)?.ok_or_else(|| Error::NoLayer(diff_id.clone()))?;
            stacked.bytes += snapshot.record.bytes;
            if snapshot.record.root_opaque {
                stacked.below.clear();
            }
            let patch = if snapshot.record.needs.is_empty() {
                None
            } else {
                patch(&snapshot, &chain_id, &stacked.below)?
            };
            let path = PathBuf::from(Kind::Snapshot.directory()).join(file_name(diff_id)).join("fs");
            if snapshot.record.root_stated {
                stacked.root_from = Some(path.clone());
            }
            // overlayfs takes no directory twice (ELOOP), and of equal layers the upper one says all that the lower
            // one does.
            stacked.below.retain(|below| *below != path);
            stacked.below.insert(0, path);
            stacked.below.splice(0..0, patch);
        }
        if stacked.below.len() > MAX_LAYERS {
            return Err(Error::Mount(mount::Error::TooMany(stacked.below.len())));
        }
        Ok(stacked)
    }

    /// The patch above a layer, made if need be; none when there is nothing in it.
    fn patch_of(
        &self,
        snapshot: &Snapshot,
        chain_id: &Digest,
        below: &[PathBuf],
    ) -> Result<Option<PathBuf>, Error> {
        let relative = PathBuf::from(Kind::Patch.directory()).join(file_name(chain_id)).join("fs");
        let lock = self.root.join("locks").join(file_name(chain_id));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let held =
            rustix::fs::open(&lock, flags, Mode::RUSR | Mode::WUSR).map_err(Error::call("open", &lock))?;
        place::flock(std::os::fd::AsFd::as_fd(&held), FlockOperation::LockExclusive)
            .map_err(Error::call("flock", &lock))?;
        if let Some(record) = self.whole(Kind::Patch, chain_id)? {
            return Ok((!record.empty).then_some(relative));
        }
        let tmp = self.root.join("tmp");
        place::discard(&tmp, &self.kept(Kind::Patch, chain_id))?;
        let aside = Aside::make(&tmp)?;
        let outcome = self.fill_patch(&aside.path.join("fs"), snapshot, below)?;
        let mut record = Record::new(self, 0, &Applied::default());
        record.empty = outcome == Outcome::Empty;
        self.keep(aside, Kind::Patch, chain_id, &record)?;
        Ok((!record.empty).then_some(relative))
    }

    /// Makes the patch above a layer in a directory that is not there yet.
    pub(super) fn fill_patch(
        &self,
        path: &Path,
        snapshot: &Snapshot,
        below: &[PathBuf],
    ) -> Result<Outcome, Error> {
        rustix::fs::mkdirat(CWD, path, Mode::RWXU).map_err(Error::call("mkdir", path))?;
        let open = |path: &Path| open_root(path).map_err(Error::call("open", path));
        let lower = below.iter().map(|lower| open(&self.root.join(lower))).collect::<Result<Vec<_>, _>>()?;
        patch(
            &open(path)?,
            &open(&snapshot.path)?,
            &Merged::new(lower),
            &snapshot.record.needs,
            self.settings.owners(),
            self.settings.user_xattrs(),
        )
        .map_err(|why| Error::Patch { diff_id: snapshot.diff_id.clone(), why })
    }

    /// Gives an image a name.
    pub fn name_image(&self, reference: &str, image: &Image, target: &Digest) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let named = Named {
            reference: reference.to_string(),
            manifest: image.manifest.clone(),
            target: target.clone(),
            pulled: now,
        };
        self.write_json(&self.name_path(reference), &named)
    }

    /// What a name means here.
    pub fn named(&self, reference: &str) -> Result<Option<Named>, Error> {
        place::read_json(&self.name_path(reference))
    }

    /// What is written of an image, whether its layers are there or not.
    pub fn recorded(&self, manifest: &Digest) -> Result<Option<Image>, Error> {
        place::read_json(&self.image_path(manifest))
    }

    /// An image by the digest of its manifest, if all of its layers are there and whole.
    pub fn image(&self, manifest: &Digest) -> Result<Option<Image>, Error> {
        let Some(image) = self.recorded(manifest)? else { return Ok(None) };
        for lower in &image.lowers {
            let name = lower.parent().and_then(|path| path.file_name()).and_then(|name| name.to_str());
            let digest = name.and_then(|name| name.replacen('-', ":", 1).parse::<Digest>().ok());
            let kind = if lower.starts_with(Kind::Patch.directory()) { Kind::Patch } else { Kind::Snapshot };
            let whole = digest.map_or(Ok(None), |digest| self.whole(kind, &digest))?;
            if whole.is_none() {
                return Ok(None);
            }
        }
        Ok(self.small_blob(&image.config)?.is_some().then_some(image))
    }

    /// The configuration of an image.
    pub fn config(&self, image: &Image) -> Result<ImageConfig, Error> {
        let bytes = self.small_blob(&image.config)?;
        let missing = || Error::Config(ConfigError::Malformed("not in the store".to_string()));
        Ok(ImageConfig::parse(&bytes.ok_or_else(missing)?)?)
    }

    /// All names.
    pub fn names(&self) -> Result<Vec<Named>, Error> {
        let dir = self.root.join("refs");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Error::io("opendir", &dir))? {
            let path = entry.map_err(Error::io("readdir", &dir))?.path();
            names.extend(place::read_json::<Named>(&path)?);
        }
        names.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(names)
    }

    /// Takes a name away. The image stays until it is pruned.
    pub fn remove_name(&self, reference: &str) -> Result<(), Error> {
        if self.named(reference)?.is_none() {
            return Err(Error::NoImage(reference.to_string()));
        }
        place::unlink(&self.name_path(reference))
    }
}

fn check(manifest: &Manifest, config: &[u8]) -> Result<ImageConfig, Error> {
    manifest.check_image()?;
    let parsed = ImageConfig::parse(config)?;
    let (layers, diff_ids) = (manifest.layers.len(), parsed.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::Config(ConfigError::LayerCount { layers, diff_ids }));
    }
    Ok(parsed)
}
