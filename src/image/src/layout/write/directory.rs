//! `oci:` and `dir:`: a file for each blob.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::{MARKER, NewFile, Put, REF_NAME, copy_verified, make_directory, write_file};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::layout::Error;

/// An image layout.
#[derive(Debug)]
pub struct LayoutWriter {
    path: PathBuf,
    name: Option<String>,
}

impl LayoutWriter {
    pub(super) fn open(path: &Path, name: Option<String>) -> Result<LayoutWriter, Error> {
        let has = |name: &str| path.join(name).symlink_metadata().is_ok();
        let is_empty = |mut entries: std::fs::ReadDir| entries.next().is_none();
        if !has("oci-layout") && !has("blobs") && std::fs::read_dir(path).is_ok_and(|all| !is_empty(all)) {
            let what = format!("{} has other files in it; name a new directory", path.display());
            return Err(Error::NotALayout(what));
        }
        make_directory(&path.join("blobs"))?;
        if !has("oci-layout") {
            write_file(path, "oci-layout", MARKER.as_bytes())?;
        }
        Ok(LayoutWriter { path: path.to_owned(), name })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        is_there(&self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex()), size)
    }

    pub(super) fn put<R: Read, E: From<Error>>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> Result<R, E>,
    ) -> Result<Put, E> {
        let directory = self.path.join("blobs").join(digest.algorithm().name());
        make_directory(&directory)?;
        put_file(&directory, digest, size, open)
    }

    /// Enters the image under the name of the destination.
    pub(super) fn enter_named(&self, target: &Descriptor) -> Result<(), Error> {
        self.enter(target, self.name.as_deref())
    }

    /// Enters a document in index.json, in the place of what had its name.
    pub(super) fn enter(&self, target: &Descriptor, name: Option<&str>) -> Result<(), Error> {
        let directory = File::open(&self.path).map_err(|error| Error::io("open", &self.path, &error))?;
        rustix::fs::flock(directory.as_fd(), FlockOperation::LockExclusive)
            .map_err(Error::call("flock", &self.path))?;
        let path = self.path.join("index.json");
        let malformed = |why: String| Error::Malformed { name: path.display().to_string(), why };
        let mut index: Value = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => json!({"schemaVersion": 2, "manifests": []}),
            Err(error) => return Err(Error::io("read", &path, &error)),
        };
        if !index.is_object() {
            return Err(malformed("not a JSON object".into()));
        }
        let mut entry = serde_json::to_value(target).map_err(|error| malformed(error.to_string()))?;
        if let Some(name) = name {
            entry["annotations"][REF_NAME] = json!(name);
        }
        let Some(entries) = index["manifests"].as_array_mut() else {
            return Err(malformed("manifests is not a list".into()));
        };
        entries.retain(|other| match name {
            Some(name) => other["annotations"][REF_NAME] != name,
            None => other["digest"] != entry["digest"] || !other["annotations"][REF_NAME].is_null(),
        });
        entries.push(entry);
        write_file(&self.path, "index.json", index.to_string().as_bytes())
    }
}

/// skopeo's plain directory: one image, whose manifest is `manifest.json`.
#[derive(Debug)]
pub struct DirWriter {
    path: PathBuf,
}

impl DirWriter {
    /// Takes a directory that is empty, new, or one of this kind, whose image is replaced.
    pub(super) fn open(path: &Path) -> Result<DirWriter, Error> {
        make_directory(path)?;
        let entries = std::fs::read_dir(path).map_err(|error| Error::io("opendir", path, &error))?;
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        if !names.is_empty() && !names.iter().any(|name| name == "version") {
            let what = format!("{} has other files in it; name a new directory", path.display());
            return Err(Error::NotALayout(what));
        }
        // Without a manifest it is no image, until the last file is there.
        match std::fs::remove_file(path.join("manifest.json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("unlink", path, &error)),
            Ok(()) | Err(_) => {
                write_file(path, "version", b"Directory Transport Version: 1.1\n")?;
                Ok(DirWriter { path: path.to_owned() })
            }
        }
    }

    pub(super) fn put<R: Read, E: From<Error>>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> Result<R, E>,
    ) -> Result<Put, E> {
        put_file(&self.path, digest, size, open)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        is_there(&self.path.join(digest.hex()), size)
    }

    pub(super) fn put_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        write_file(&self.path, &format!("{}.manifest.json", digest.hex()), bytes)
    }

    pub(super) fn finish(&self, bytes: &[u8]) -> Result<(), Error> {
        write_file(&self.path, "manifest.json", bytes)
    }
}

fn is_there(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}

fn put_file<R: Read, E: From<Error>>(
    directory: &Path,
    digest: &Digest,
    size: u64,
    open: impl FnOnce() -> Result<R, E>,
) -> Result<Put, E> {
    let path = directory.join(digest.hex());
    if is_there(&path, size) {
        return Ok(Put::Already);
    }
    let source = open()?;
    let mut new = NewFile::make(directory)?;
    copy_verified(source, digest, size, &mut new.file)?;
    new.replace(&path)?;
    Ok(Put::Written)
}
