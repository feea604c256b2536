//! `copy`: an image from one place to another, byte by byte, and what all that moves images has in common.
//!
//! What a document names is found out first; then blobs travel, several at once, streaming; then the documents,
//! each after those that it names, and the one with the name last, so that whoever looks sees either nothing or
//! all of it. What the destination has is not sent.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use creel_image_lib::manifest::{self, LayerType, media_type, parse};
use creel_image_lib::reference::Source;

use crate::destination::{Destination, Document};
use crate::origin::{self, Origin};
use crate::progress::{COPY, Outcome, Progress};
use crate::{access, cli, names, output, pull, workers};

/// Indexes in indexes, and referrers of referrers, are followed so far.
const MAX_DEPTH: usize = 4;

/// `creel copy`
pub fn command(words: &ArgMatches) -> Result<()> {
    let text = |name| cli::value::<String>(words, name).unwrap_or_default();
    let (from, to) = (names::resolve(&text("image"), words)?, names::parse(&text("destination"))?);
    access::check_ends(&from, &to, words)?;
    let from_name = origin::name(&from);
    let origin =
        Origin::open_to_use(&from, words, &std::env::temp_dir()).with_context(|| from_name.clone())?;
    let progress = Progress::new(words, COPY, &origin::name(&to));
    transfer(words, (&origin, &from_name), &to, &progress)
}

/// Moves what the words ask for, and tells its digest.
pub fn transfer(
    words: &ArgMatches,
    (origin, from_name): (&Origin, &str),
    to: &Source,
    progress: &Progress,
) -> Result<()> {
    let to_name = origin::name(to);
    let target = origin.target().with_context(|| from_name.to_owned())?;
    let (bytes, kind, digest) = if cli::flag(words, "all") {
        (target.bytes, target.media_type, target.digest)
    } else {
        let mut fetch = |entry: &Descriptor| origin.manifest(entry).map_err(|error| format!("{error:#}"));
        let platform = pull::platform(words)?;
        let named = (target.digest, target.bytes.clone());
        let chosen = choose(target.bytes, target.media_type.as_deref(), &platform, &mut fetch)
            .with_context(|| from_name.to_owned())?;
        // The digest that the source gives its document may be of another algorithm than the chooser's.
        let digest = if chosen.bytes == named.1 { named.0 } else { chosen.digest };
        (chosen.bytes, Some(chosen.manifest.media_type), digest)
    };
    let mut plan = Plan::default();
    plan.document(origin, bytes, kind.as_deref(), digest, 0).with_context(|| from_name.to_owned())?;
    let known_as = origin.repository();
    let destination = Destination::open(to, known_as, words).with_context(|| to_name.clone())?;
    let referrers = if cli::flag(words, "referrers") {
        plan.referrers(origin).with_context(|| from_name.to_owned())?
    } else {
        Vec::new()
    };
    let digest = plan
        .carry_out(origin, destination, referrers, progress)
        .with_context(|| format!("{from_name} to {to_name}"))?;
    if let Some(path) = cli::value::<PathBuf>(words, "digestfile") {
        std::fs::write(&path, digest.as_str()).with_context(|| path.display().to_string())?;
    }
    if is_standard_output(to) { Ok(()) } else { output::write(&format!("{digest}\n")) }
}

/// Whether the archive itself goes there.
fn is_standard_output(to: &Source) -> bool {
    match to {
        Source::OciArchive { path, .. } | Source::DockerArchive { path, .. } => {
            path == std::path::Path::new("-") || path == std::path::Path::new("/dev/stdout")
        }
        Source::Registry(_) | Source::Stdin | Source::Layout { .. } | Source::Dir { .. } => false,
    }
}

/// What is to be moved.
#[derive(Default)]
pub struct Plan {
    blobs: Vec<Descriptor>,
    /// In the order to store them; the last gets the name.
    documents: Vec<Document>,
    seen: HashSet<String>,
}

impl Plan {
    /// Adds a document and all that it names.
    pub fn document(
        &mut self,
        origin: &Origin,
        bytes: Vec<u8>,
        served: Option<&str>,
        digest: Digest,
        depth: usize,
    ) -> Result<()> {
        if depth == MAX_DEPTH {
            bail!("more than {MAX_DEPTH} documents in each other");
        }
        let kind = match parse(&bytes, served)? {
            manifest::Document::Manifest(manifest) => {
                self.blob(manifest.config)?;
                for layer in manifest.layers {
                    // What may not be distributed stays where its urls say.
                    if LayerType::of(&layer.media_type) != (LayerType::ChangeSet { foreign: true }) {
                        self.blob(layer)?;
                    }
                }
                manifest.media_type
            }
            manifest::Document::Index(index) => {
                for entry in &index.manifests {
                    if !media_type::MANIFESTS.contains(&entry.media_type.as_str()) {
                        self.blob(entry.clone())?;
                    } else if self.seen.insert(entry.digest_text().to_owned()) {
                        let inner = match entry.inline() {
                            Some(bytes) => bytes,
                            None => origin.manifest(entry)?,
                        };
                        self.document(origin, inner, Some(&entry.media_type), entry.digest()?, depth + 1)?;
                    }
                }
                index.media_type
            }
        };
        self.documents.push(Document { bytes, kind, digest });
        Ok(())
    }

    fn blob(&mut self, descriptor: Descriptor) -> Result<()> {
        // An algorithm that nobody here computes is found out before anything travels.
        descriptor.digest()?;
        if self.seen.insert(descriptor.digest_text().to_owned()) {
            self.blobs.push(descriptor);
        }
        Ok(())
    }

    /// Adds what refers to the documents, and what refers to that; gives the plans of each, outer ones later.
    fn referrers(&mut self, origin: &Origin) -> Result<Vec<Document>> {
        let mut found = Vec::new();
        let mut subjects: Vec<Digest> =
            self.documents.iter().map(|document| document.digest.clone()).collect();
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for subject in &subjects {
                for entry in origin.referrers(subject, None)? {
                    if !self.seen.insert(entry.digest_text().to_owned()) {
                        continue;
                    }
                    let bytes = origin.manifest(&entry)?;
                    let mut plan = Plan::default();
                    plan.document(origin, bytes, Some(&entry.media_type), entry.digest()?, 0)?;
                    for blob in plan.blobs {
                        self.blob(blob)?;
                    }
                    next.push(entry.digest()?);
                    found.extend(plan.documents);
                }
            }
            subjects = next;
        }
        Ok(found)
    }

    /// Moves all of it; gives the digest of what got the name.
    pub fn carry_out(
        mut self,
        origin: &Origin,
        destination: Destination,
        referrers: Vec<Document>,
        progress: &Progress,
    ) -> Result<Digest> {
        destination.check_room(&self.blobs)?;
        let outcomes = Mutex::new(Vec::new());
        progress.during(|| {
            let jobs: Vec<_> = self.blobs.iter().map(|blob| (blob, progress.layer(blob))).collect();
            workers::each(jobs, destination.threads(), |(descriptor, progress), _| {
                let outcome = destination
                    .put_blob(origin, descriptor, &progress)
                    .with_context(|| format!("blob {}", &short(descriptor)))?;
                progress.ended(outcome);
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                Ok(())
            })
        })?;
        let last = self.documents.pop().context("nothing to move")?;
        for document in &self.documents {
            destination.put_document(document)?;
        }
        // A registry without a list of its own has them entered under a tag that is their subject's digest,
        // whether the subject is there or not.
        for document in &referrers {
            destination.put_referrer(document)?;
        }
        destination.finish(&last)?;
        let outcomes: Vec<Outcome> = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        progress.arrived(&last.digest, &outcomes);
        Ok(last.digest)
    }
}

fn short(descriptor: &Descriptor) -> String {
    descriptor.digest_text().split(':').next_back().unwrap_or_default().chars().take(12).collect()
}
