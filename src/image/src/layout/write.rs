//! Images written to files: an image layout, an archive of one, what `docker load` reads, skopeo's `dir:`.
//!
//! Blobs come first, in any order and, into directories, several at once; then the documents, those that are
//! named by others before them; then the one that gets the name. A file is written without a name and given
//! it when it is whole and its digest was right, so that a kill leaves nothing behind.

mod archive;
mod directory;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Verified};
use crate::reference::{Reference, Source};
use archive::ArchiveWriter;
use directory::{DirWriter, LayoutWriter};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What is copied at a time.
const BUFFER: usize = 128 << 10;

/// How a blob came to be where it was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was there.
    Already,
    /// It was written.
    Written,
}

/// A destination that is not a registry.
#[derive(Debug)]
pub enum Writer {
    /// `oci:`
    Layout(LayoutWriter),
    /// `oci-archive:` and `docker-archive:`
    Archive(Box<ArchiveWriter>),
    /// `dir:`
    Dir(DirWriter),
}

impl Writer {
    /// Opens a destination. An archive is always a new file: one that is there may hold other images.
    ///
    /// `known_as` is the name that an image gets in a `docker-archive:` whose own name says none.
    pub fn open(destination: &Source, known_as: Option<&Reference>) -> Result<Writer, Error> {
        match destination {
            Source::Registry(reference) => Err(Error::NotALayout(reference.to_string())),
            Source::Stdin => Err(Error::NotALayout("name the archive's kind, as in docker-archive:-".into())),
            Source::Layout { path, name } => Ok(Writer::Layout(LayoutWriter::open(path, name.clone())?)),
            Source::Dir { path } => Ok(Writer::Dir(DirWriter::open(path)?)),
            Source::OciArchive { path, name } => {
                Ok(Writer::Archive(Box::new(ArchiveWriter::oci(path, name.clone())?)))
            }
            Source::DockerArchive { path, name } => {
                let name = name.as_ref().or(known_as).filter(|name| name.tag().is_some());
                Ok(Writer::Archive(Box::new(ArchiveWriter::docker(path, name.cloned())?)))
            }
        }
    }

    /// Whether blobs may come from several threads at once and gain by it.
    pub fn is_parallel(&self) -> bool {
        !matches!(self, Writer::Archive(_))
    }

    /// Whether a blob is there.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        match self {
            Writer::Layout(layout) => layout.has(digest, size),
            Writer::Dir(dir) => dir.has(digest, size),
            Writer::Archive(_) => false,
        }
    }

    /// The directory whose file system has to have room; none for what is not a file.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Writer::Layout(layout) => Some(layout.path()),
            Writer::Dir(dir) => Some(dir.path()),
            Writer::Archive(archive) => archive.directory(),
        }
    }

    /// Writes a blob, whose size and digest are verified. `open` is not called when it is there.
    pub fn put_blob<R: Read, E: From<Error>>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> Result<R, E>,
    ) -> Result<Put, E> {
        match self {
            Writer::Layout(layout) => layout.put(digest, size, open),
            Writer::Dir(dir) => dir.put(digest, size, open),
            Writer::Archive(archive) => archive.put(digest, size, open),
        }
    }

    /// Writes a manifest or an index that another names.
    pub fn put_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Writer::Layout(layout) => layout.put(digest, bytes.len() as u64, || Ok(bytes)).map(drop),
            Writer::Dir(dir) => dir.put_manifest(digest, bytes),
            Writer::Archive(archive) => archive.put(digest, bytes.len() as u64, || Ok(bytes)).map(drop),
        }
    }

    /// Writes a document that refers to another, and enters it in the index, where those look who want to know.
    pub fn put_referrer(&self, target: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let digest = target.digest()?;
        match self {
            Writer::Layout(layout) => {
                layout.put(&digest, bytes.len() as u64, || Ok::<_, Error>(bytes))?;
                layout.enter(target, None)
            }
            Writer::Archive(archive) => {
                archive.put(&digest, bytes.len() as u64, || Ok::<_, Error>(bytes))?;
                archive.refer(target);
                Ok(())
            }
            Writer::Dir(_) => Err(Error::NotALayout("dir: has no place for what refers to an image".into())),
        }
    }

    /// Writes the document that gets the name, and ends the image.
    pub fn finish(self, target: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let digest = target.digest()?;
        match self {
            Writer::Layout(layout) => {
                layout.put(&digest, bytes.len() as u64, || Ok::<_, Error>(bytes))?;
                layout.enter_named(target)
            }
            Writer::Dir(dir) => dir.finish(bytes),
            Writer::Archive(archive) => {
                archive.put(&digest, bytes.len() as u64, || Ok::<_, Error>(bytes))?;
                archive.finish(target, bytes)
            }
        }
    }
}

/// Copies a blob and looks at its digest.
fn copy_verified(source: impl Read, digest: &Digest, size: u64, to: &mut impl Write) -> Result<(), Error> {
    let mut source = Verified::new(source, digest.clone(), size);
    let mut buffer = vec![0; BUFFER];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Error::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
}

/// A file that is not there until it is whole.
#[derive(Debug)]
struct NewFile {
    file: File,
    directory: PathBuf,
    /// Its name meanwhile, on file systems that have no files without one.
    named: Option<PathBuf>,
}

impl NewFile {
    fn make(directory: &Path) -> Result<NewFile, Error> {
        let mode = Mode::from_raw_mode(0o644);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
            Ok(fd) => Ok(NewFile { file: fd.into(), directory: directory.to_owned(), named: None }),
            // open(2): EISDIR and ENOENT are what kernels say that do not know the flag.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let path = directory.join(aside());
                let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)
                    .map_err(Error::call("open", &path))?;
                Ok(NewFile { file: fd.into(), directory: directory.to_owned(), named: Some(path) })
            }
            Err(errno) => Err(Error::call("open", directory)(errno)),
        }
    }

    /// Gives it its name, over what may have it.
    fn replace(mut self, to: &Path) -> Result<(), Error> {
        let from = match self.named.take() {
            Some(path) => path,
            None => {
                let path = self.directory.join(aside());
                self.link(&path)?;
                path
            }
        };
        rustix::fs::renameat(CWD, &from, CWD, to).map_err(|errno| {
            // The error in hand is the one to tell.
            std::fs::remove_file(&from).ok();
            Error::call("rename", to)(errno)
        })
    }

    /// Gives it a name that nothing may have yet.
    fn keep(mut self, to: &Path) -> Result<(), Error> {
        match self.named.take() {
            None => self.link(to),
            Some(from) => {
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                rustix::fs::renameat_with(CWD, &from, CWD, to, flags).map_err(|errno| {
                    std::fs::remove_file(&from).ok();
                    Error::call("rename", to)(errno)
                })
            }
        }
    }

    /// linkat(2): AT_EMPTY_PATH wants a privilege that following a link of /proc does not.
    fn link(&self, to: &Path) -> Result<(), Error> {
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(Error::call("link", to))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            // Whatever ended it is told elsewhere.
            std::fs::remove_file(path).ok();
        }
    }
}

fn aside() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    format!(".creel-{}-{}", std::process::id(), SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("mkdir", path, &error))
}

fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut new = NewFile::make(directory)?;
    new.file.write_all(bytes).map_err(Error::Write)?;
    new.replace(&directory.join(name))
}

#[cfg(test)]
mod tests;
