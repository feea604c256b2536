//! `oci-archive:` and `docker-archive:`: one tar, written as it goes.
//!
//! Both hold an image layout, so that every digest stays what it is. The second has `manifest.json` beside
//! it, which leads `docker load` to the same blobs; that is what `docker save` writes since Docker 25, and
//! what older ones read, which look at the compression of layers themselves.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{IMAGE_NAME, MARKER, NewFile, Put, REF_NAME, copy_verified};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::layout::Error;
use crate::manifest::{Document, media_type, parse};
use crate::reference::Reference;

/// A new archive.
#[derive(Debug)]
pub struct ArchiveWriter {
    directory: Option<PathBuf>,
    state: Mutex<State>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Oci { name: Option<String> },
    Docker { name: Option<Reference> },
}

#[derive(Debug)]
struct State {
    out: Out,
    /// Members that are there, by digest.
    members: HashMap<Digest, u64>,
    /// Documents that refer to others.
    referrers: Vec<Descriptor>,
}

/// Where the bytes go.
#[derive(Debug)]
enum Out {
    /// A file that gets its name when it is whole.
    New { file: NewFile, path: PathBuf },
    /// A pipe, a device, or standard output.
    Stream(File),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Out::New { file, .. } => file.file.write(bytes),
            Out::Stream(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ArchiveWriter {
    pub(super) fn oci(path: &Path, name: Option<String>) -> Result<ArchiveWriter, Error> {
        ArchiveWriter::open(path, Kind::Oci { name })
    }

    pub(super) fn docker(path: &Path, name: Option<Reference>) -> Result<ArchiveWriter, Error> {
        ArchiveWriter::open(path, Kind::Docker { name })
    }

    fn open(path: &Path, kind: Kind) -> Result<ArchiveWriter, Error> {
        let out = open_out(path)?;
        let directory = match &out {
            Out::New { file, .. } => Some(file.directory.clone()),
            Out::Stream(_) => None,
        };
        let state = State { out, members: HashMap::new(), referrers: Vec::new() };
        Ok(ArchiveWriter { directory, state: Mutex::new(state), kind })
    }

    pub(super) fn put<R: Read, E: From<Error>>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> Result<R, E>,
    ) -> Result<Put, E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.members.contains_key(digest) {
            return Ok(Put::Already);
        }
        let source = open()?;
        state.member(&member(digest), size, source, digest)?;
        Ok(Put::Written)
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(super) fn refer(&self, target: &Descriptor) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).referrers.push(target.clone());
    }

    pub(super) fn finish(self, target: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut entry = target.clone();
        match &self.kind {
            Kind::Oci { name } => {
                entry.annotations.extend(name.iter().map(|name| (REF_NAME.to_string(), name.clone())));
            }
            Kind::Docker { name } => {
                if let Some(name) = name {
                    entry.annotations.insert(IMAGE_NAME.into(), name.to_string());
                    entry.annotations.insert(REF_NAME.into(), name.tag().unwrap_or_default().to_string());
                }
                state.file("manifest.json", docker_manifest(bytes, name.as_ref())?.as_bytes())?;
            }
        }
        let entries: Vec<&Descriptor> = std::iter::once(&entry).chain(&state.referrers).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        state.file("index.json", index.to_string().as_bytes())?;
        state.file("oci-layout", MARKER.as_bytes())?;
        // Two blocks of zeros end an archive (tar(5)).
        state.out.write_all(&[0; 1024]).map_err(Error::Write)?;
        match state.out {
            Out::Stream(_) => Ok(()),
            Out::New { file, path } => file.keep(&path),
        }
    }
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `manifest.json` for the image that has this manifest.
fn docker_manifest(bytes: &[u8], name: Option<&Reference>) -> Result<String, Error> {
    let malformed = |why: String| Error::Malformed { name: "docker-archive".into(), why };
    match parse(bytes, None).map_err(|error| malformed(error.to_string()))? {
        Document::Index(_) => {
            Err(malformed("it holds an image for one platform, not an index; leave out --all".into()))
        }
        Document::Manifest(manifest) => {
            manifest.check_image().map_err(|error| malformed(error.to_string()))?;
            let config = member(&manifest.config.digest()?);
            let layers = manifest.layers.iter().map(|layer| Ok(member(&layer.digest()?)));
            let layers = layers.collect::<Result<Vec<_>, Error>>()?;
            let tags = name.map(|name| {
                let tag = name.tag().unwrap_or_default();
                vec![format!("{}/{}:{tag}", name.registry(), name.repository())]
            });
            Ok(json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string())
        }
    }
}

fn open_out(path: &Path) -> Result<Out, Error> {
    if path == Path::new("-") {
        let stdout = rustix::io::dup(rustix::stdio::stdout()).map_err(Error::call("dup", path))?;
        if rustix::termios::isatty(&stdout) {
            return Err(Error::NotALayout("standard output is a terminal; pipe it or name a file".into()));
        }
        return Ok(Out::Stream(stdout.into()));
    }
    match path.metadata() {
        Ok(found) if found.file_type().is_fifo() || found.file_type().is_char_device() => {
            let file = File::options().write(true).open(path);
            Ok(Out::Stream(file.map_err(|error| Error::io("open", path, &error))?))
        }
        Ok(_) => Err(Error::NotALayout(format!(
            "{} is there already, and an archive is not added to; remove it or name another",
            path.display()
        ))),
        Err(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let file = NewFile::make(parent.unwrap_or(Path::new(".")))?;
            Ok(Out::New { file, path: path.to_owned() })
        }
    }
}

impl State {
    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(name, bytes.len() as u64)?;
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.pad(bytes.len() as u64)
    }

    fn member(&mut self, name: &str, size: u64, source: impl Read, digest: &Digest) -> Result<(), Error> {
        self.header(name, size)?;
        copy_verified(source, digest, size, &mut self.out)?;
        self.pad(size)?;
        self.members.insert(digest.clone(), size);
        Ok(())
    }

    fn header(&mut self, name: &str, size: u64) -> Result<(), Error> {
        let mut blocks = Vec::new();
        header_of(&mut blocks, name, size);
        self.out.write_all(&blocks).map_err(Error::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let missing = if over == 0 { 0 } else { BLOCK - over };
        self.out.write_all(&[0; BLOCK][..missing]).map_err(Error::Write)
    }
}

const BLOCK: usize = 512;

/// Eleven octal digits.
const MAX_OCTAL: u64 = (1 << 33) - 1;

/// The header of a file. Names and sizes beyond the fields of ustar stand in a PAX header before (POSIX, pax).
pub(super) fn header_of(blocks: &mut Vec<u8>, name: &str, size: u64) {
    let mut records = Vec::new();
    if name.len() > 100 {
        records.extend(record("path", name));
    }
    if size > MAX_OCTAL {
        records.extend(record("size", &size.to_string()));
    }
    if !records.is_empty() {
        blocks.extend(ustar("PaxHeaders/blob", records.len() as u64, b'x'));
        blocks.extend(records);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    let size = if size > MAX_OCTAL { 0 } else { size };
    blocks.extend(ustar(&name[..name.len().min(100)], size, b'0'));
}

/// One PAX record: its length, which counts its own digits, the key and the value.
fn record(key: &str, value: &str) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length += 1;
    }
    format!("{length} {key}={value}\n").into_bytes()
}

/// A header; owner and time are none of the image's business.
fn ustar(name: &str, size: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x0000000000000\0").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
