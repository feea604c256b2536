//! Where an image goes: a registry, or files.

use std::io::{self, Read};

use anyhow::{Result, bail};
use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use creel_image_lib::layout::{Put, Writer};
use creel_image_lib::manifest;
use creel_image_lib::reference::{Reference, Source};
use creel_registry::{Pushed, Repository, Upload};

use crate::access::{self, End};
use crate::origin::Origin;
use crate::progress::{LayerProgress, Outcome};
use crate::{cli, setup};

/// An opened destination.
pub enum Destination {
    /// A repository, the name there, and how blobs travel.
    Registry(Repository, Reference, Upload),
    /// Files.
    Files(Writer),
}

/// A document on its way.
pub struct Document {
    /// Exactly what the digest is of.
    pub bytes: Vec<u8>,
    /// Its type.
    pub kind: String,
    /// Its digest.
    pub digest: Digest,
}

/// Blobs that travel at once.
const AT_ONCE: usize = 4;

/// `--chunk-size`
pub fn upload(words: &ArgMatches) -> Result<Upload> {
    let Some(text) = cli::value::<String>(words, "chunk-size") else { return Ok(Upload::Monolithic) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: usize = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        _ => bail!("--chunk-size {text}: write a number of bytes, or one with k or m"),
    };
    match digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size @ 1..=MAX_CHUNK) => Ok(Upload::Chunked(size)),
        Some(_) | None => bail!("--chunk-size {text}: a chunk has between 1 byte and 64m"),
    }
}

fn artifact_type(bytes: &[u8]) -> Result<Option<String>> {
    Ok(match manifest::parse(bytes, None)? {
        manifest::Document::Manifest(manifest) => {
            Some(manifest.artifact_type.unwrap_or(manifest.config.media_type))
        }
        manifest::Document::Index(index) => index.artifact_type,
    })
}

/// Each chunk is held in memory.
const MAX_CHUNK: usize = 64 << 20;

impl Destination {
    /// Opens a destination; a registry is not asked yet. `known_as` is what the image is called where it comes
    /// from.
    pub fn open(to: &Source, known_as: Option<&Reference>, words: &ArgMatches) -> Result<Destination> {
        match to {
            Source::Registry(reference) => {
                let repository = access::client(words, End::Destination)?.repository(reference)?;
                Ok(Destination::Registry(repository, reference.clone(), upload(words)?))
            }
            Source::Stdin
            | Source::Layout { .. }
            | Source::OciArchive { .. }
            | Source::DockerArchive { .. }
            | Source::Dir { .. } => Ok(Destination::Files(Writer::open(to, known_as)?)),
        }
    }

    /// How many blobs are put at once.
    pub fn threads(&self) -> usize {
        match self {
            Destination::Registry(..) => AT_ONCE,
            Destination::Files(writer) if writer.is_parallel() => AT_ONCE,
            Destination::Files(_) => 1,
        }
    }

    /// Says before anything is written that there is no room for it.
    pub fn check_room(&self, blobs: &[Descriptor]) -> Result<()> {
        let Destination::Files(writer) = self else { return Ok(()) };
        let Some(directory) = writer.directory() else { return Ok(()) };
        let is_missing =
            |blob: &&Descriptor| !blob.digest().is_ok_and(|digest| writer.has(&digest, blob.size));
        let size = blobs.iter().filter(is_missing).map(|blob| blob.size).sum();
        setup::check_room(directory, size, "free some space or name another place")
    }

    /// Brings a blob there from where it is, unless it is there.
    pub fn put_blob(
        &self,
        origin: &Origin,
        descriptor: &Descriptor,
        progress: &LayerProgress,
    ) -> Result<Outcome> {
        let digest = descriptor.digest()?;
        match self {
            Destination::Registry(repository, to, upload) => {
                let from = origin.repository().filter(|from| from.registry() == to.registry());
                let from = from.map(Reference::repository).filter(|from| *from != to.repository());
                let open = || -> io::Result<Box<dyn Read + Send>> {
                    let layer =
                        origin.layer(descriptor).map_err(|error| io::Error::other(format!("{error:#}")))?;
                    Ok(Box::new(progress.reader(layer)))
                };
                Ok(match repository.push_blob(&digest, descriptor.size, &open, *upload, from)? {
                    Pushed::Already => Outcome::Already,
                    Pushed::Mounted => Outcome::Mounted,
                    Pushed::Uploaded => Outcome::Moved,
                })
            }
            Destination::Files(writer) => {
                let open = || -> Result<_> { Ok(progress.reader(origin.layer(descriptor)?)) };
                match writer.put_blob(&digest, descriptor.size, open)? {
                    Put::Already => Ok(Outcome::Already),
                    Put::Written => Ok(Outcome::Moved),
                }
            }
        }
    }

    /// Stores a document that another names.
    pub fn put_document(&self, document: &Document) -> Result<()> {
        match self {
            Destination::Registry(repository, ..) => {
                repository.push_manifest(document.digest.as_str(), &document.kind, &document.bytes)?;
                Ok(())
            }
            Destination::Files(writer) => Ok(writer.put_document(&document.digest, &document.bytes)?),
        }
    }

    /// Stores a document that refers to another.
    pub fn put_referrer(&self, document: &Document) -> Result<()> {
        match self {
            Destination::Registry(..) => self.put_document(document),
            Destination::Files(writer) => {
                let size = document.bytes.len() as u64;
                let mut descriptor = Descriptor::new(&document.kind, &document.digest, size);
                // By its type a reader of the index knows that it is not the image.
                descriptor.artifact_type = artifact_type(&document.bytes)?;
                Ok(writer.put_referrer(&descriptor, &document.bytes)?)
            }
        }
    }

    /// Stores the document that gets the name.
    pub fn finish(self, document: &Document) -> Result<()> {
        match self {
            Destination::Registry(repository, reference, _) => {
                if let Some(wanted) = reference.digest().filter(|wanted| **wanted != document.digest) {
                    bail!("the digest that was asked for is {wanted}, the image's is {}", document.digest);
                }
                let name = reference.tag().unwrap_or(document.digest.as_str());
                repository.push_manifest(name, &document.kind, &document.bytes)?;
                Ok(())
            }
            Destination::Files(writer) => {
                let size = document.bytes.len() as u64;
                let target = Descriptor::new(&document.kind, &document.digest, size);
                Ok(writer.finish(&target, &document.bytes)?)
            }
        }
    }
}
