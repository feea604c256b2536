//! `copy`: an image from one place to another, byte by byte: registry, layout or archive to registry or layout.
//!
//! Blobs go before the manifests that name them, and the name last, so that whoever looks sees either nothing
//! or all of it. Blobs stream through; what the destination has is not sent.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Digest, Verified};
use creel_image_lib::manifest::{Document, LayerType, media_type, parse};
use creel_image_lib::reference::{Reference, Source};
use creel_registry::{Repository, Upload};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::origin::{self, Origin};
use crate::progress::Progress;
use crate::{access, cli, output, pull};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes in indexes are followed so far.
const MAX_DEPTH: usize = 4;

/// Where an image goes.
enum Destination {
    Registry(Repository, Reference),
    Layout { path: PathBuf, name: Option<String> },
}

/// `creel copy`
pub fn command(words: &ArgMatches) -> Result<()> {
    let text = |name| cli::value::<String>(words, name).unwrap_or_default();
    let (from, to) = (origin::parse(&text("image"))?, origin::parse(&text("destination"))?);
    let (from_name, to_name) = (origin::name(&from), origin::name(&to));
    let origin = Origin::open(&from, words, &std::env::temp_dir())?;
    let destination = Destination::open(&to, words)?;
    let progress = Progress::new(words, &to_name);
    let target = origin.target().with_context(|| from_name.clone())?;
    let (bytes, kind) = if cli::flag(words, "all") {
        (target.bytes, target.media_type)
    } else {
        let mut fetch = |entry: &Descriptor| origin.manifest(entry).map_err(|error| format!("{error:#}"));
        let platform = pull::platform(words)?;
        let chosen = choose(target.bytes, target.media_type.as_deref(), &platform, &mut fetch)
            .with_context(|| from_name.clone())?;
        (chosen.bytes, Some(chosen.manifest.media_type))
    };
    let copy = Copy { origin: &origin, destination: &destination, progress: &progress };
    let digest = copy
        .document(&bytes, kind.as_deref(), None, 0)
        .with_context(|| format!("{from_name} to {to_name}"))?;
    if let Some(path) = cli::value::<PathBuf>(words, "digestfile") {
        std::fs::write(&path, digest.as_str()).with_context(|| path.display().to_string())?;
    }
    output::write(&format!("{digest}\n"))
}

struct Copy<'a> {
    origin: &'a Origin,
    destination: &'a Destination,
    progress: &'a Progress,
}

impl Copy<'_> {
    /// Copies what a document names, then the document. `named` is its digest when another document led here.
    fn document(
        &self,
        bytes: &[u8],
        served: Option<&str>,
        named: Option<&Digest>,
        depth: usize,
    ) -> Result<Digest> {
        if depth == MAX_DEPTH {
            bail!("more than {MAX_DEPTH} indexes in each other");
        }
        let kind = match parse(bytes, served)? {
            Document::Manifest(manifest) => {
                self.blob(&manifest.config)?;
                for layer in &manifest.layers {
                    // What may not be distributed stays where its urls say.
                    if LayerType::of(&layer.media_type) != (LayerType::ChangeSet { foreign: true }) {
                        self.blob(layer)?;
                    }
                }
                manifest.media_type
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    if media_type::MANIFESTS.contains(&entry.media_type.as_str()) {
                        let inner = self.origin.manifest(entry)?;
                        self.document(&inner, Some(&entry.media_type), Some(&entry.digest()?), depth + 1)?;
                    } else {
                        self.blob(entry)?;
                    }
                }
                index.media_type
            }
        };
        self.destination.put_document(bytes, &kind, named)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<()> {
        let digest = descriptor.digest()?;
        let progress = self.progress.layer(descriptor);
        let copied = match self.destination {
            Destination::Registry(repository, to) => {
                let source =
                    || self.origin.layer(descriptor).map_err(|error| io::Error::other(format!("{error:#}")));
                let mount_from = match self.origin {
                    Origin::Registry(_, from) if from.registry() == to.registry() => Some(from.repository()),
                    Origin::Registry(..) | Origin::Files(_) => None,
                };
                repository
                    .push_blob(&digest, descriptor.size, &source, Upload::Monolithic, mount_from)
                    .map(drop)
                    .map_err(Into::into)
            }
            Destination::Layout { path, .. } => put_blob(path, &digest, descriptor.size, || {
                Ok(progress.reader(self.origin.layer(descriptor)?))
            }),
        };
        copied.with_context(|| format!("blob {}", digest.short()))?;
        progress.done();
        Ok(())
    }
}

impl Destination {
    fn open(source: &Source, words: &ArgMatches) -> Result<Destination> {
        match source {
            Source::Registry(reference) => {
                let repository = access::client(words)?.repository(reference)?;
                Ok(Destination::Registry(repository, reference.clone()))
            }
            Source::Layout { path, name } => {
                std::fs::create_dir_all(path.join("blobs")).with_context(|| path.display().to_string())?;
                let marker = path.join("oci-layout");
                if !marker.exists() {
                    std::fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#)
                        .with_context(|| marker.display().to_string())?;
                }
                Ok(Destination::Layout { path: path.clone(), name: name.clone() })
            }
            Source::OciArchive { .. } | Source::DockerArchive { .. } | Source::Dir { .. } => {
                bail!("{source}: images are copied to docker:// and oci: only")
            }
        }
    }

    /// Stores a manifest or an index; without a digest it is the one that gets the name.
    fn put_document(&self, bytes: &[u8], kind: &str, named: Option<&Digest>) -> Result<Digest> {
        match self {
            Destination::Registry(repository, reference) => {
                let name = named.map_or_else(|| reference.manifest_name(), Digest::as_str);
                Ok(repository.push_manifest(name, kind, bytes)?)
            }
            Destination::Layout { path, name } => {
                let descriptor = Descriptor::of(kind, bytes);
                let digest = match named {
                    Some(digest) => digest.clone(),
                    None => descriptor.digest()?,
                };
                put_blob(path, &digest, bytes.len() as u64, || Ok(bytes))?;
                if named.is_none() {
                    enter(path, serde_json::to_value(&descriptor)?, name.as_deref())?;
                }
                Ok(digest)
            }
        }
    }
}

/// Writes a blob beside its place and renames it in when it is right.
fn put_blob<R: Read>(
    layout: &Path,
    digest: &Digest,
    size: u64,
    source: impl Fn() -> Result<R>,
) -> Result<()> {
    let directory = layout.join("blobs").join(digest.algorithm().name());
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let path = directory.join(digest.hex());
    if path.metadata().is_ok_and(|found| found.len() == size) {
        return Ok(());
    }
    let new = directory.join(format!(".{}.{}", digest.short(), std::process::id()));
    let written = File::create(&new).map_err(Into::into).and_then(|mut file| {
        io::copy(&mut Verified::new(source()?, digest.clone(), size), &mut file)?;
        Ok(std::fs::rename(&new, &path)?)
    });
    if written.is_err() {
        // The error in hand is the one to tell.
        std::fs::remove_file(&new).ok();
    }
    written
}

/// Enters an image in index.json, in the place of what had its name.
fn enter(layout: &Path, mut entry: Value, name: Option<&str>) -> Result<()> {
    let directory = File::open(layout).with_context(|| layout.display().to_string())?;
    rustix::fs::flock(directory.as_fd(), FlockOperation::LockExclusive).context("flock")?;
    let path = layout.join("index.json");
    let mut index: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({"schemaVersion": 2, "manifests": []}),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    if let Some(name) = name {
        entry["annotations"] = json!({REF_NAME: name});
    }
    let Some(entries) = index["manifests"].as_array_mut() else {
        bail!("{}: manifests is not a list", path.display())
    };
    entries.retain(|other| match name {
        Some(name) => other["annotations"][REF_NAME] != name,
        None => other["digest"] != entry["digest"] || !other["annotations"][REF_NAME].is_null(),
    });
    entries.push(entry);
    let new = layout.join(format!(".index.{}", std::process::id()));
    std::fs::write(&new, index.to_string()).with_context(|| new.display().to_string())?;
    std::fs::rename(&new, &path).with_context(|| path.display().to_string())
}
