//! Where an image comes from: a registry, or files. Both give the same three things.

use std::io::Read;

use anyhow::{Context, Result};
use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::layout::Layout;
use creel_image_lib::manifest::MAX_BYTES;
use creel_image_lib::reference::{Reference, Source};
use creel_registry::{Client, Environment, Options, Repository};

use crate::access;

/// An opened source.
pub enum Origin {
    /// A repository, and what is wanted of it.
    Registry(Repository, Reference),
    /// Files.
    Files(Box<Layout>),
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

/// Reads a source from the command line. One word alone may have another meaning by the aliases of
/// registries.conf.
pub fn parse(text: &str) -> Result<Source> {
    let source = text.parse::<Source>().with_context(|| format!("{text:?}"))?;
    if !matches!(source, Source::Registry(_)) || text.contains('/') {
        return Ok(source);
    }
    let word = text.split([':', '@']).next().unwrap_or_default();
    let client = Client::new(Options::new(Environment::of_process()))?;
    match client.alias(word) {
        Some(meant) => {
            let text = format!("{meant}{}", &text[word.len()..]);
            text.parse().with_context(|| format!("{text:?}, by an alias of registries.conf"))
        }
        None => Ok(source),
    }
}

/// What the store keeps an image under.
pub fn name(source: &Source) -> String {
    let absolute = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match source {
        Source::Registry(reference) => reference.to_string(),
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
    /// Opens a source; a registry is not asked yet. `spool` has room for archives that are not read in place.
    pub fn open(source: &Source, words: &ArgMatches, spool: &std::path::Path) -> Result<Origin> {
        match source {
            Source::Registry(reference) => {
                let repository = access::client(words)?.repository(reference)?;
                Ok(Origin::Registry(repository, reference.clone()))
            }
            Source::Layout { .. }
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
        }
    }

    /// A manifest of an index, verified.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Origin::Registry(repository, _) => Ok(repository.manifest(descriptor.digest()?.as_str())?.bytes),
            Origin::Files(layout) => Ok(layout.document(descriptor)?),
        }
    }

    /// A configuration, verified.
    pub fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Origin::Registry(repository, _) => Ok(repository.blob_bytes(descriptor, MAX_BYTES as u64)?),
            Origin::Files(layout) => Ok(layout.document(descriptor)?),
        }
    }

    /// A layer as it comes, not verified.
    pub fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        match self {
            Origin::Registry(repository, _) => Ok(Box::new(repository.blob_of(descriptor, 0)?)),
            Origin::Files(layout) => Ok(layout.blob(descriptor)?),
        }
    }
}
