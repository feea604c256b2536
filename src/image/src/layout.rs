//! Images that lie in files: image layouts, archives of them, what `docker save` writes, skopeo's `dir:`.
//!
//! Each gives the document that a name leads to, and blobs by their descriptor. An archive is indexed once
//! with seeks and then read in place; one that is compressed or comes from a pipe is written out once, to a
//! file that has no name. What comes out is not verified here: the reader of a blob has the digest.

mod archive;
mod docker;
mod error;
mod oci;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use archive::Archive;
use docker::{Opened, Saved};
pub use error::Error;
pub use write::{Put, Writer};

use crate::choose::{ChooseError, Chosen, choose};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::manifest::{Document, MAX_BYTES, ManifestError, media_type, parse};
use crate::platform::Platform;
use crate::reference::{Reference, Source};

/// A blob as it is read.
pub type Blob = Box<dyn Read + Send>;

/// An opened source.
#[derive(Debug)]
pub enum Layout {
    /// `oci:`
    Oci {
        /// Its directory.
        path: PathBuf,
        /// The entry that is meant.
        target: Descriptor,
    },
    /// `oci-archive:`, and `docker save` since it writes an image layout too.
    OciArchive {
        /// The archive.
        archive: Archive,
        /// The entry that is meant.
        target: Descriptor,
    },
    /// `docker-archive:`
    DockerArchive(Box<Saved>),
    /// `dir:`
    Dir {
        /// Its directory.
        path: PathBuf,
    },
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The document, verified where its digest is known.
    pub bytes: Vec<u8>,
    /// Its type, where it is told.
    pub media_type: Option<String>,
}

impl Layout {
    /// Opens a source that is not a registry. `spool` is a directory with room for archives that cannot be
    /// read in place.
    pub fn open(source: &Source, spool: &Path) -> Result<Layout, Error> {
        match source {
            Source::Registry(reference) => Err(Error::NotALayout(reference.to_string())),
            Source::Layout { path, name } => {
                let target = oci::find(&|file| read_small(&path.join(file)), path, name.as_deref())?;
                Ok(Layout::Oci { path: path.clone(), target })
            }
            Source::OciArchive { path, name } => {
                let archive = Archive::open(path, spool)?;
                let target = oci::find(&|file| archive.read_small(file), path, name.as_deref())?;
                Ok(Layout::OciArchive { archive, target })
            }
            Source::DockerArchive { path, name } => {
                Layout::saved(Archive::open(path, spool)?, path, name.as_ref())
            }
            Source::Stdin => {
                let path = Path::new("-");
                let archive = Archive::open(path, spool)?;
                if archive.has(b"manifest.json") {
                    return Layout::saved(archive, path, None);
                }
                if !archive.has(b"oci-layout") {
                    let what = "standard input is an archive with neither oci-layout nor manifest.json";
                    return Err(Error::NotALayout(what.into()));
                }
                let target = oci::find(&|file| archive.read_small(file), path, None)?;
                Ok(Layout::OciArchive { archive, target })
            }
            Source::Dir { path } => Ok(Layout::Dir { path: path.clone() }),
        }
    }

    fn saved(archive: Archive, path: &Path, name: Option<&Reference>) -> Result<Layout, Error> {
        Ok(match docker::open(archive, path, name)? {
            Opened::Layout { archive, target } => Layout::OciArchive { archive, target: *target },
            Opened::Saved(saved) => Layout::DockerArchive(saved),
        })
    }

    /// The manifest or index that the name leads to.
    pub fn target(&self) -> Result<Target, Error> {
        match self {
            Layout::Oci { target, .. } | Layout::OciArchive { target, .. } => {
                Ok(Target { bytes: self.document(target)?, media_type: Some(target.media_type.clone()) })
            }
            Layout::DockerArchive(saved) => Ok(Target { bytes: saved.manifest.clone(), media_type: None }),
            Layout::Dir { path } => {
                Ok(Target { bytes: read_small(&path.join("manifest.json"))?, media_type: None })
            }
        }
    }

    /// A small blob, verified: a manifest or a configuration.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let digest = descriptor.digest()?;
        if descriptor.size > MAX_BYTES as u64 {
            return Err(Error::TooLong { name: digest.to_string(), size: descriptor.size });
        }
        let mut bytes = Vec::new();
        crate::digest::Verified::new(self.blob(descriptor)?, digest, descriptor.size)
            .read_to_end(&mut bytes)
            .map_err(Error::Read)?;
        Ok(bytes)
    }

    /// A blob as it lies there.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Blob, Error> {
        let digest = descriptor.digest()?;
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        match self {
            Layout::Oci { path, .. } => Ok(Box::new(open_file(&path.join(name))?)),
            Layout::OciArchive { archive, .. } => archive.member(name.as_bytes()),
            Layout::DockerArchive(saved) => saved.blob(&digest),
            Layout::Dir { path } => match open_file(&path.join(digest.hex())) {
                Err(Error::Call { errno: rustix::io::Errno::NOENT, .. }) => {
                    Ok(Box::new(open_file(&path.join(format!("{}.manifest.json", digest.hex())))?))
                }
                other => Ok(Box::new(other?)),
            },
        }
    }

    /// The manifests of an image layout whose `subject` is `digest`, of one artifact type or of all
    /// (image-spec image-layout.md: what lies in a layout is entered in its index).
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let index = match self {
            Layout::Oci { path, .. } => read_small(&path.join("index.json"))?,
            Layout::OciArchive { archive, .. } => archive.read_small("index.json")?,
            Layout::DockerArchive(_) | Layout::Dir { .. } => return Ok(Vec::new()),
        };
        let malformed =
            |error: ManifestError| Error::Malformed { name: "index.json".into(), why: error.to_string() };
        let Document::Index(index) = parse(&index, Some(media_type::OCI_INDEX)).map_err(malformed)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for mut entry in index.manifests {
            // What is no manifest refers to nothing.
            let Ok(document) = self.document(&entry) else { continue };
            let (subject, kind, annotations) = match parse(&document, Some(&entry.media_type)) {
                Ok(Document::Manifest(manifest)) => {
                    let kind = manifest.artifact_type.unwrap_or(manifest.config.media_type);
                    (manifest.subject, Some(kind), manifest.annotations)
                }
                Ok(Document::Index(index)) => (index.subject, index.artifact_type, index.annotations),
                Err(_) => continue,
            };
            let is_wanted = artifact_type.is_none_or(|wanted| kind.as_deref() == Some(wanted));
            if is_wanted && subject.is_some_and(|subject| subject.digest_text() == digest.as_str()) {
                entry.artifact_type = kind;
                entry.annotations = annotations;
                found.push(entry);
            }
        }
        found.dedup_by(|a, b| a.digest_text() == b.digest_text());
        Ok(found)
    }

    /// The manifest for a platform.
    pub fn choose(&self, platform: &Platform) -> Result<Chosen, ChooseError<Error>> {
        let target = self.target().map_err(ChooseError::Fetch)?;
        choose(target.bytes, target.media_type.as_deref(), platform, &mut |entry| self.document(entry))
    }
}

/// Opens a regular file; a fifo in its place must not make creel wait.
fn open_file(path: &Path) -> Result<File, Error> {
    use rustix::fs::{FileType, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::call("open", path))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::call("fstat", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::NotALayout(format!("{} is not a regular file", path.display())));
    }
    Ok(fd.into())
}

/// Reads a file of at most the size of a manifest.
fn read_small(path: &Path) -> Result<Vec<u8>, Error> {
    read_bounded(open_file(path)?, &path.display().to_string())
}

fn read_bounded(source: impl Read, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLong { name: name.to_string(), size: bytes.len() as u64 });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
