//! An image of the store as a source, to be pushed.
//!
//! The manifest and the configuration are there as the bytes they were. A compressed layer is there only if
//! the image was pulled with `--store-blobs`; without it, the layer comes from where the image was pulled,
//! if it has to travel at all: unpacked files do not give the same compressed bytes again.

use std::io::Read;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::reference::{Reference, Source};
use creel_image_lib::store::{Named, Store};

use crate::access::{self, End};
use crate::origin::{Origin, Target};

/// Whom a credential of the command line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFor {
    /// The registry that the image was pulled from.
    Source,
    /// Another.
    Destination,
}

/// An image of the store.
pub struct Stored {
    store: Store,
    named: Named,
    /// Where it was pulled from.
    from: Option<Source>,
    words: ArgMatches,
    login: LoginFor,
    opened: OnceLock<Option<Box<Origin>>>,
}

impl Stored {
    /// Takes an image by its name.
    pub fn new(store: Store, named: Named, words: &ArgMatches, login: LoginFor) -> Stored {
        let from = named.reference.parse().ok().filter(|source| *source != Source::Stdin);
        Stored { store, named, from, words: words.clone(), login, opened: OnceLock::new() }
    }

    /// The manifest of the platform that was pulled.
    pub fn target(&self) -> Result<Target> {
        let digest = self.named.manifest.clone();
        let bytes = self.store.small_blob(&digest)?;
        let bytes = bytes.ok_or_else(|| anyhow!("{digest}: incomplete after a power loss; pull it again"))?;
        Ok(Target { bytes, media_type: None, digest })
    }

    /// A document, verified.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest()?;
        match self.store.small_blob(&digest)? {
            Some(bytes) => Ok(bytes),
            None => self.origin(descriptor)?.config(descriptor),
        }
    }

    /// A layer as it comes.
    pub fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        match self.store.blob(&descriptor.digest()?)? {
            Some(file) => Ok(Box::new(file)),
            None => self.origin(descriptor)?.layer(descriptor),
        }
    }

    /// The same from where the image was pulled, whatever the store has.
    pub fn layer_from_origin(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        self.origin(descriptor)?.layer(descriptor)
    }

    /// Where in a registry it was pulled from.
    pub fn repository(&self) -> Option<&Reference> {
        match &self.from {
            Some(Source::Registry(reference)) => Some(reference),
            Some(_) | None => None,
        }
    }

    fn origin(&self, descriptor: &Descriptor) -> Result<&Origin> {
        let absent = || {
            let name = &self.named.reference;
            format!(
                "{} is not in the store as it was compressed, and {name} cannot be asked for it; pull the image with --store-blobs",
                descriptor.digest_text()
            )
        };
        let opened = self.opened.get_or_init(|| self.open().ok().map(Box::new));
        opened.as_deref().with_context(absent)
    }

    fn open(&self) -> Result<Origin> {
        let source = self.from.as_ref().context("no source")?;
        match source {
            Source::Registry(reference) => {
                let client = match self.login {
                    LoginFor::Source => access::client(&self.words, End::Source)?,
                    LoginFor::Destination => access::client_without_login(&self.words)?,
                };
                Ok(Origin::Registry(client.repository(reference)?, reference.clone()))
            }
            Source::Stdin
            | Source::Layout { .. }
            | Source::OciArchive { .. }
            | Source::DockerArchive { .. }
            | Source::Dir { .. } => Origin::open(source, &self.words, &std::env::temp_dir()),
        }
    }
}
