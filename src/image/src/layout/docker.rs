//! What `docker save` writes: `manifest.json`, configurations and layers as plain tars.
//!
//! There is no manifest in image-spec's sense in it; one is made here, from the configuration and the
//! layers, so that everything behind it goes one way. A layer's digest is its diff id, since it is plain.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::archive::Archive;
use super::{Blob, Error};
use crate::config::ImageConfig;
use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::{Document, media_type, parse};
use crate::reference::Reference;
use crate::unpack::{Decompressor, Format};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One image of an archive.
#[derive(Debug)]
pub struct Saved {
    archive: Archive,
    pub(super) manifest: Vec<u8>,
    members: HashMap<Digest, Vec<u8>>,
}

impl Saved {
    pub(super) fn blob(&self, digest: &Digest) -> Result<Blob, Error> {
        let member = self.members.get(digest).ok_or_else(|| Error::NoMember(digest.to_string()))?;
        self.archive.member(member)
    }
}

/// An archive with the image that was meant.
pub(super) enum Opened {
    /// Its manifest is in the archive too, with compressed layers perhaps: its digest is the image's own.
    Layout { archive: Archive, target: Box<Descriptor> },
    /// It has no manifest.
    Saved(Box<Saved>),
}

pub(super) fn open(archive: Archive, path: &Path, name: Option<&Reference>) -> Result<Opened, Error> {
    let malformed =
        |name: &str, why: String| Error::Malformed { name: format!("{}: {name}", path.display()), why };
    if !archive.has(b"manifest.json") {
        return Err(Error::NotALayout(format!("{} has no manifest.json", path.display())));
    }
    let entries: Vec<Entry> = serde_json::from_slice(&archive.read_small("manifest.json")?)
        .map_err(|error| malformed("manifest.json", error.to_string()))?;
    let entry = select(entries, name)?;
    if let Some(target) = in_layout(&archive, &entry.config) {
        return Ok(Opened::Layout { archive, target: Box::new(target) });
    }
    let config = archive.read_small(&entry.config)?;
    let parsed = ImageConfig::parse(&config).map_err(|error| malformed(&entry.config, error.to_string()))?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != entry.layers.len() {
        let why = format!("{} layers, the configuration names {}", entry.layers.len(), diff_ids.len());
        return Err(malformed("manifest.json", why));
    }
    let mut members = HashMap::new();
    let mut layers = Vec::new();
    for (member, diff_id) in entry.layers.iter().zip(diff_ids) {
        let (_, size) = archive.place(member.as_bytes())?;
        let format = Decompressor::new(archive.member(member.as_bytes())?).map_err(Error::Unpack)?.format();
        // Other tools put compressed layers in: their digest is not told, it takes reading them.
        let digest =
            if format == Format::Plain { diff_id } else { hash(archive.member(member.as_bytes())?)? };
        layers.push(json!({"mediaType": media_type::OCI_LAYER, "digest": digest.as_str(), "size": size}));
        members.insert(digest, member.clone().into_bytes());
    }
    let digest = Digest::of(Algorithm::Sha256, &config);
    let described =
        json!({"mediaType": media_type::OCI_CONFIG, "digest": digest.as_str(), "size": config.len()});
    members.insert(digest, entry.config.into_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": described, "layers": layers
    });
    Ok(Opened::Saved(Box::new(Saved { archive, manifest: manifest.to_string().into_bytes(), members })))
}

/// Entries of an index that are looked at, one index within another included.
const MAX_ENTRIES: usize = 1000;

/// The manifest with this configuration in the image layout that the archive is as well (Docker 25 and
/// newer), when all that it names is there. What does not read is as if it were not there.
fn in_layout(archive: &Archive, config: &str) -> Option<Descriptor> {
    let config = config.strip_prefix("blobs/")?.replacen('/', ":", 1);
    let index = archive.read_small("index.json").ok()?;
    let Ok(Document::Index(index)) = parse(&index, Some(media_type::OCI_INDEX)) else { return None };
    let mut todo: VecDeque<Descriptor> = index.manifests.into();
    for _ in 0..MAX_ENTRIES {
        let entry = todo.pop_front()?;
        let member =
            |descriptor: &Descriptor| format!("blobs/{}", descriptor.digest_text().replacen(':', "/", 1));
        let Ok(bytes) = archive.read_small(&member(&entry)) else { continue };
        match parse(&bytes, Some(&entry.media_type)) {
            Ok(Document::Index(inner)) => todo.extend(inner.manifests),
            Ok(Document::Manifest(manifest)) => {
                let is_whole = manifest.layers.iter().all(|layer| archive.has(member(layer).as_bytes()));
                if is_whole && manifest.config.digest_text() == config {
                    return Some(entry);
                }
            }
            Err(_) => {}
        }
    }
    None
}

fn hash(mut source: impl Read) -> Result<Digest, Error> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = source.read(&mut buffer).map_err(Error::Read)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

fn select(mut entries: Vec<Entry>, name: Option<&Reference>) -> Result<Entry, Error> {
    let names = entries.iter().flat_map(|entry| entry.repo_tags.iter().flatten().cloned()).collect();
    if let Some(name) = name {
        let same = |tag: &String| tag.parse::<Reference>().is_ok_and(|tag| tag == *name);
        let found = entries.into_iter().find(|entry| entry.repo_tags.iter().flatten().any(same));
        return found.ok_or_else(|| Error::NoName { name: name.to_string(), names });
    }
    match entries.pop() {
        Some(entry) if entries.is_empty() => Ok(entry),
        Some(_) => Err(Error::Ambiguous { names }),
        None => Err(Error::NoName { name: String::new(), names }),
    }
}
