//! Where an image comes from: a registry, files, or the store. All give the same things.

use std::io::Read;

use anyhow::Result;
use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::layout::Layout;
use creel_image_lib::manifest::MAX_BYTES;
use creel_image_lib::reference::{Reference, Source};
use creel_registry::Repository;

use crate::access::{self, End};
use crate::artifact::Parts;
use crate::stored::Stored;

/// An opened source.
pub enum Origin {
    /// A repository, and what is wanted of it.
    Registry(Repository, Reference),
    /// Files.
    Files(Box<Layout>),
    /// The store.
    Stored(Box<Stored>),
    /// Files that are to become an artifact.
    Parts(Parts),
}

/// The document that a name leads to.
pub struct Target {
    /// Exactly what the digest is of.
    pub bytes: Vec<u8>,
    /// What it was served as.
    pub media_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
}

/// What the store keeps an image under.
pub fn name(source: &Source) -> String {
    let absolute = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match source {
        Source::Registry(reference) => reference.to_string(),
        Source::Stdin => source.to_string(),
        Source::Layout { path, name } => {
            Source::Layout { path: absolute(path), name: name.clone() }.to_string()
        }
        Source::OciArchive { path, name } => {
            Source::OciArchive { path: absolute(path), name: name.clone() }.to_string()
        }
        Source::DockerArchive { path, name } => {
            Source::DockerArchive { path: absolute(path), name: name.clone() }.to_string()
        }
        Source::Dir { path } => Source::Dir { path: absolute(path) }.to_string(),
    }
}

impl Origin {
    /// Opens a source whose image is to be used, if policy.json lets it be.
    pub fn open_to_use(source: &Source, words: &ArgMatches, spool: &std::path::Path) -> Result<Origin> {
        access::check_policy(source, words)?;
        Origin::open(source, words, spool)
    }

    /// Opens a source; a registry is not asked yet. `spool` has room for archives that are not read in place.
    pub fn open(source: &Source, words: &ArgMatches, spool: &std::path::Path) -> Result<Origin> {
        match source {
            Source::Registry(reference) => {
                let repository = access::client(words, End::Source)?.repository(reference)?;
                Ok(Origin::Registry(repository, reference.clone()))
            }
            Source::Stdin
            | Source::Layout { .. }
            | Source::OciArchive { .. }
            | Source::DockerArchive { .. }
            | Source::Dir { .. } => Ok(Origin::Files(Box::new(Layout::open(source, spool)?))),
        }
    }

    /// The manifest or index that the name leads to.
    pub fn target(&self) -> Result<Target> {
        match self {
            Origin::Registry(repository, reference) => {
                let found = repository.manifest(reference.manifest_name())?;
                Ok(Target { bytes: found.bytes, media_type: found.media_type, digest: found.digest })
            }
            Origin::Files(layout) => {
                let found = layout.target()?;
                let digest = Digest::of(Algorithm::Sha256, &found.bytes);
                Ok(Target { bytes: found.bytes, media_type: found.media_type, digest })
            }
            Origin::Stored(stored) => stored.target(),
            Origin::Parts(parts) => Ok(parts.target()),
        }
    }

    /// A manifest of an index, verified.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Origin::Registry(repository, _) => Ok(repository.manifest(descriptor.digest()?.as_str())?.bytes),
            Origin::Files(layout) => Ok(layout.document(descriptor)?),
            Origin::Stored(stored) => stored.document(descriptor),
            Origin::Parts(parts) => parts.bytes(descriptor),
        }
    }

    /// A configuration, verified.
    pub fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Origin::Registry(repository, _) => Ok(repository.blob_bytes(descriptor, MAX_BYTES as u64)?),
            Origin::Files(layout) => Ok(layout.document(descriptor)?),
            Origin::Stored(stored) => stored.document(descriptor),
            Origin::Parts(parts) => parts.bytes(descriptor),
        }
    }

    /// A layer as it comes, not verified.
    pub fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        self.layer_from(descriptor, 0)
    }

    /// The part of a layer from an offset on.
    pub fn layer_from(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        match self {
            Origin::Registry(repository, _) => Ok(Box::new(repository.blob_of(descriptor, offset)?)),
            Origin::Files(layout) => skip(layout.blob(descriptor)?, offset),
            Origin::Stored(stored) => skip(stored.layer(descriptor)?, offset),
            Origin::Parts(parts) => skip(parts.open(descriptor)?, offset),
        }
    }

    /// The manifests whose subject has this digest.
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        match self {
            Origin::Registry(repository, _) => Ok(repository.referrers(digest, artifact_type)?),
            Origin::Files(layout) => Ok(layout.referrers(digest, artifact_type)?),
            Origin::Stored(_) | Origin::Parts(_) => Ok(Vec::new()),
        }
    }

    /// The repository that blobs of it may be mounted from in its registry.
    pub fn repository(&self) -> Option<&Reference> {
        match self {
            Origin::Registry(_, reference) => Some(reference),
            Origin::Files(_) | Origin::Parts(_) => None,
            Origin::Stored(stored) => stored.repository(),
        }
    }
}

fn skip(mut source: Box<dyn Read + Send>, offset: u64) -> Result<Box<dyn Read + Send>> {
    std::io::copy(&mut source.by_ref().take(offset), &mut std::io::sink())?;
    Ok(source)
}
