//! `artifact push|pull|ls`: files of any type in a registry or a layout, and what refers to an image.
//!
//! An artifact is an image manifest with an `artifactType` and files for layers (image-spec manifest.md,
//! "Guidelines for Artifact Usage"). One with a `subject` refers to another manifest: signatures, SBOMs. Where a
//! registry keeps no list of them, the client keeps it under a tag; see `creel_registry`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Algorithm, Digest, Hasher, Verified};
use creel_image_lib::manifest::{Document, media_type, parse};
use creel_image_lib::reference::{Reference, Source};
use serde_json::{Value, json};

use crate::origin::{self, Origin, Target};
use crate::progress::{PULL, PUSH, Progress};
use crate::{cli, copy, names, output, pull};

const TITLE: &str = "org.opencontainers.image.title";
const OCTETS: &str = "application/octet-stream";

/// `creel artifact ...`
pub fn command(words: &ArgMatches) -> Result<()> {
    let Some((name, words)) = words.subcommand() else { bail!("a command is missing") };
    match name {
        "push" => push(words),
        "pull" => fetch(words),
        _ => ls(words),
    }
}

/// The blobs of an artifact that is made here, and its manifest.
pub struct Parts {
    manifest: Vec<u8>,
    blobs: HashMap<String, Part>,
}

enum Part {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Parts {
    /// The manifest.
    pub fn target(&self) -> Target {
        let digest = Digest::of(Algorithm::Sha256, &self.manifest);
        Target { bytes: self.manifest.clone(), media_type: Some(media_type::OCI_MANIFEST.into()), digest }
    }

    /// A small blob whole.
    pub fn bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Verified::new(self.open(descriptor)?, descriptor.digest()?, descriptor.size)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A blob.
    pub fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        match self.blobs.get(descriptor.digest_text()) {
            Some(Part::Bytes(bytes)) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Some(Part::File(path)) => {
                let file = File::open(path).with_context(|| path.display().to_string())?;
                // It may have changed since its digest was taken.
                Ok(Box::new(Verified::new(file, descriptor.digest()?, descriptor.size)))
            }
            None => Err(anyhow!("{}: not a part of this artifact", descriptor.digest_text())),
        }
    }

    fn add_bytes(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let descriptor = Descriptor::of(kind, bytes);
        self.blobs.insert(descriptor.digest_text().to_owned(), Part::Bytes(bytes.to_vec()));
        json!(descriptor)
    }

    fn add_file(&mut self, path: &Path, kind: &str) -> Result<Value> {
        let context = || path.display().to_string();
        let mut file = File::open(path).with_context(context)?;
        if !file.metadata().with_context(context)?.is_file() {
            bail!("{}: not a regular file; pack a directory into an archive first", path.display());
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 128 << 10];
        let mut size = 0;
        loop {
            match file.read(&mut buffer).with_context(context)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        let mut descriptor = Descriptor::new(kind, &hasher.finish(), size);
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: a name that is not UTF-8", path.display()))?;
        descriptor.annotations.insert(TITLE.into(), name.into());
        self.blobs.insert(descriptor.digest_text().to_owned(), Part::File(path.to_owned()));
        Ok(json!(descriptor))
    }
}

/// `FILE[:TYPE]`; the colon of a type is the last one before a slash.
fn file_and_type(text: &str) -> (PathBuf, String) {
    if !Path::new(text).exists()
        && let Some((path, kind)) = text.rsplit_once(':')
        && kind.contains('/')
    {
        return (path.into(), kind.to_owned());
    }
    (text.into(), OCTETS.to_owned())
}

fn push(words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "destination").unwrap_or_default();
    let mut to = names::parse(&text)?;
    let kind = cli::value::<String>(words, "artifact-type").unwrap_or_default();
    check_type(&kind)?;
    let mut parts = Parts { manifest: Vec::new(), blobs: HashMap::new() };
    let config = match cli::value::<String>(words, "config") {
        Some(text) => {
            let (path, kind) = file_and_type(&text);
            parts.add_file(&path, &kind)?
        }
        None => parts.add_bytes(media_type::OCI_EMPTY, b"{}"),
    };
    let mut layers = Vec::new();
    for text in cli::values(words, "file") {
        let (path, kind) = file_and_type(&text);
        layers.push(parts.add_file(&path, &kind)?);
    }
    if layers.is_empty() {
        // image-spec: at least one entry, the empty document for none.
        layers.push(parts.add_bytes(media_type::OCI_EMPTY, b"{}"));
    }
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "config": config, "layers": layers,
    });
    let annotations = annotations(words)?;
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations);
    }
    if let Some(subject) = cli::value::<String>(words, "subject") {
        manifest["subject"] = json!(find_subject(&subject, &to, words)?);
    }
    parts.manifest = manifest.to_string().into_bytes();
    // An artifact that refers to another needs no tag of its own.
    if let Source::Registry(reference) = &to
        && !has_tag(&text)
        && reference.digest().is_none()
    {
        if cli::value::<String>(words, "subject").is_none() {
            bail!("{text}: an artifact without --subject needs a tag to be found by");
        }
        to = Source::Registry(reference.with_digest_alone(parts.target().digest));
    }
    let progress = Progress::new(words, PUSH, &origin::name(&to));
    copy::transfer(words, (&Origin::Parts(parts), "artifact"), &to, &progress)
}

fn check_type(kind: &str) -> Result<()> {
    let word = |word: &str| {
        !word.is_empty()
            && word.len() <= 127
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match kind.split_once('/') {
        Some((first, second)) if word(first) && word(second) => Ok(()),
        Some(_) | None => {
            bail!("--artifact-type {kind:?}: a media type has the form application/vnd.example+json")
        }
    }
}

fn annotations(words: &ArgMatches) -> Result<serde_json::Map<String, Value>> {
    let pair = |text: String| {
        let (key, value) =
            text.split_once('=').with_context(|| format!("--annotation {text:?}: KEY=VALUE is meant"))?;
        Ok((key.to_owned(), Value::from(value)))
    };
    cli::values(words, "annotation").into_iter().map(pair).collect()
}

fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The descriptor of what an artifact refers to: a tag or a digest in the same place, or its full name.
fn find_subject(text: &str, to: &Source, words: &ArgMatches) -> Result<Descriptor> {
    let beside = beside(text, to)?;
    let origin = Origin::open(&beside, words, &std::env::temp_dir())?;
    let target = origin.target().with_context(|| format!("--subject {text}"))?;
    let kind = match parse(&target.bytes, target.media_type.as_deref())? {
        Document::Manifest(manifest) => manifest.media_type,
        Document::Index(index) => index.media_type,
    };
    Ok(Descriptor::new(kind, &target.digest, target.bytes.len() as u64))
}

fn beside(text: &str, to: &Source) -> Result<Source> {
    match to {
        Source::Registry(own) => {
            let place = format!("{}/{}", own.registry(), own.repository());
            if !text.contains('/') {
                let mark = if text.contains(':') { "@" } else { ":" };
                return Ok(format!("docker://{place}{mark}{text}").parse()?);
            }
            let named: Reference = text.parse()?;
            if (named.registry(), named.repository()) != (own.registry(), own.repository()) {
                bail!(
                    "--subject {text}: an artifact lies in the repository of its subject, {place} is another"
                );
            }
            Ok(Source::Registry(named))
        }
        Source::Layout { path, .. } => {
            let name = text.strip_prefix(&format!("oci:{}:", path.display())).unwrap_or(text);
            Ok(Source::Layout { path: path.clone(), name: Some(name.to_owned()) })
        }
        Source::Stdin | Source::OciArchive { .. } | Source::DockerArchive { .. } | Source::Dir { .. } => {
            bail!("{to}: only docker:// and oci: hold several documents, of which one refers to another")
        }
    }
}

fn fetch(words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "image").unwrap_or_default();
    let source = names::resolve(&text, words)?;
    let name = origin::name(&source);
    let origin = Origin::open_to_use(&source, words, &std::env::temp_dir()).with_context(|| name.clone())?;
    let progress = Progress::new(words, PULL, &name);
    let target = origin.target().with_context(|| name.clone())?;
    let mut inner = |entry: &Descriptor| origin.manifest(entry).map_err(|error| format!("{error:#}"));
    let chosen = choose(target.bytes, target.media_type.as_deref(), &pull::platform(words)?, &mut inner)
        .with_context(|| name.clone())?;
    let directory = cli::value::<PathBuf>(words, "output").unwrap_or_else(|| ".".into());
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let files = chosen.manifest.layers.iter().filter(|layer| layer.media_type != media_type::OCI_EMPTY);
    let mut planned: Vec<(&Descriptor, PathBuf)> = Vec::new();
    for layer in files {
        let path = directory.join(file_name(layer)?);
        if let Some((other, _)) = planned.iter().find(|(_, known)| *known == path) {
            if other.digest_text() == layer.digest_text() {
                continue;
            }
            bail!(
                "two files of the artifact are called {:?}; nothing was written",
                path.file_name().unwrap_or_default()
            );
        }
        if path.symlink_metadata().is_ok() && !cli::flag(words, "force") {
            bail!(
                "{}: is there already; --force replaces it, --output names another directory",
                path.display()
            );
        }
        planned.push((layer, path));
    }
    progress
        .during(|| -> Result<()> {
            for (layer, path) in &planned {
                let progress = progress.layer(layer);
                let source = progress.reader(origin.layer(layer)?);
                save(source, layer, path).with_context(|| path.display().to_string())?;
                progress.done();
            }
            Ok(())
        })
        .with_context(|| name.clone())?;
    progress.finish(&chosen.digest, planned.iter().map(|(layer, _)| layer.size).sum(), planned.len());
    let names: String = planned.iter().map(|(_, path)| format!("{}\n", path.display())).collect();
    output::write(&names)
}

/// The name that a file gets: its title, if that is one plain name, for whoever pushed it may be anyone.
fn file_name(layer: &Descriptor) -> Result<String> {
    let Some(title) = layer.annotations.get(TITLE) else {
        return Ok(layer.digest()?.hex().to_owned());
    };
    let mut parts = Path::new(title).components();
    match (parts.next(), parts.next()) {
        _ if title.contains(char::is_control) => {
            bail!("a file of the artifact is called {title:?}, which is no name for a file")
        }
        (Some(Component::Normal(_)), None) if !title.contains('/') => Ok(title.clone()),
        _ => bail!("a file of the artifact is called {title:?}, which leads out of the directory"),
    }
}

/// Writes a file beside its place and renames it in when its digest was right.
fn save(source: impl Read, layer: &Descriptor, path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = directory.join(format!(".creel-{}", std::process::id()));
    let mut verified = Verified::new(source, layer.digest()?, layer.size);
    let written = File::create_new(&new)
        .and_then(|mut file| io::copy(&mut verified, &mut file))
        .and_then(|_| std::fs::rename(&new, path));
    if written.is_err() {
        // The error in hand is the one to tell.
        std::fs::remove_file(&new).ok();
    }
    Ok(written?)
}

fn ls(words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "image").unwrap_or_default();
    let source = names::resolve(&text, words)?;
    let name = origin::name(&source);
    let origin = Origin::open(&source, words, &std::env::temp_dir()).with_context(|| name.clone())?;
    let subject = origin.target().with_context(|| name.clone())?.digest;
    let kind = cli::value::<String>(words, "artifact-type");
    let found = origin.referrers(&subject, kind.as_deref()).with_context(|| name.clone())?;
    if cli::value::<String>(words, "format").as_deref() == Some("json") {
        let document = json!({"subject": subject.as_str(), "referrers": found});
        return output::write(&format!("{document}\n"));
    }
    let rows: Vec<[String; 3]> = found
        .iter()
        .map(|entry| {
            let kind = entry.artifact_type.clone().unwrap_or_default();
            [kind, entry.digest_text().to_owned(), output::size(entry.size)]
        })
        .collect();
    output::write(&output::table(["TYPE", "DIGEST", "MANIFEST"], &rows))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn titles_that_lead_elsewhere_are_refused() {
        let named = |title: &str| {
            let mut layer = Descriptor::of("a/b", b"x");
            layer.annotations.insert(TITLE.into(), title.into());
            file_name(&layer)
        };
        assert_eq!(named("sbom.json").unwrap(), "sbom.json");
        for title in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/b",
            "../x",
            "./x",
            "a\0b",
            "x/",
            "a\nb",
            "a\x1b[31mb",
            "a\u{9b}b",
        ] {
            assert!(named(title).is_err(), "{title:?}");
        }
        assert_eq!(file_name(&Descriptor::of("a/b", b"x")).unwrap().len(), 64);
    }

    #[test]
    fn types_follow_the_last_colon() {
        let cases = [
            ("a.json:application/json", "a.json", "application/json"),
            ("a.json", "a.json", OCTETS),
            ("C:x", "C:x", OCTETS),
            ("a:b:text/plain", "a:b", "text/plain"),
        ];
        for (text, path, kind) in cases {
            assert_eq!(file_and_type(text), (PathBuf::from(path), kind.to_owned()), "{text}");
        }
        assert!(check_type("application/vnd.example.sbom+json").is_ok());
        for kind in ["", "text", "a/", "/b", "a b/c", "a/b/c"] {
            assert!(check_type(kind).is_err(), "{kind}");
        }
    }
}
