//! A tar that is read in place: where each member begins, found with seeks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Blob, Error, open_file, read_bounded};
use crate::tar::{Kind, Reader};
use crate::unpack::{Decompressor, Format, components};

/// Members and names an archive may have: an image has hundreds.
const MAX_MEMBERS: usize = 1 << 20;

/// Links from one member to another are followed so far.
const MAX_LINKS: usize = 8;

#[derive(Debug, Clone)]
enum Member {
    File { start: u64, size: u64 },
    Link(Vec<u8>),
}

/// An indexed archive.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

impl Archive {
    /// Opens an archive; `-` is standard input.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Archive, Error> {
        let file = if path == Path::new("-") {
            spooled(io::stdin().lock(), spool)?
        } else {
            let file = open_file(path)?;
            let format = Decompressor::new(&file).map_err(Error::Unpack)?.format();
            (&file).rewind().map_err(Error::Read)?;
            if format == Format::Plain { file } else { spooled(file, spool)? }
        };
        let members = index(&file)?;
        Ok(Archive { file: Arc::new(file), members })
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.members.contains_key(name)
    }

    /// Where a member's bytes are, links followed.
    pub(super) fn place(&self, name: &[u8]) -> Result<(u64, u64), Error> {
        let mut at = name.to_vec();
        for _ in 0..MAX_LINKS {
            match self.members.get(&at) {
                Some(Member::File { start, size }) => return Ok((*start, *size)),
                Some(Member::Link(target)) => at = target.clone(),
                None => break,
            }
        }
        Err(Error::NoMember(String::from_utf8_lossy(name).into_owned()))
    }

    /// A member, to be read from its start.
    pub(super) fn member(&self, name: &[u8]) -> Result<Blob, Error> {
        let (start, size) = self.place(name)?;
        Ok(Box::new(Part { file: Arc::clone(&self.file), at: start, end: start + size }))
    }

    pub(super) fn read_small(&self, name: &str) -> Result<Vec<u8>, Error> {
        read_bounded(self.member(name.as_bytes())?, name)
    }
}

/// A part of a file. Layers are read at once by several threads, so the file's own position is not used.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let count = self.file.read_at(&mut buf[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Writes a stream, decompressed, to a file without a name.
fn spooled(source: impl Read, spool: &Path) -> Result<File, Error> {
    let mut file = unnamed(spool)?;
    let mut plain = Decompressor::new(source).map_err(Error::Unpack)?;
    io::copy(&mut plain, &mut file).map_err(Error::Read)?;
    file.rewind().map_err(Error::Read)?;
    Ok(file)
}

fn unnamed(directory: &Path) -> Result<File, Error> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => Ok(fd.into()),
        // Not every file system has files without a name.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = directory.join(format!(".creel-{}.spool", std::process::id()));
            let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)
                .map_err(Error::call("open", &path))?;
            match rustix::fs::unlink(&path) {
                // A store's `tmp/` may have been cleaned meanwhile.
                Ok(()) | Err(Errno::NOENT) => Ok(fd.into()),
                Err(errno) => Err(Error::call("unlink", &path)(errno)),
            }
        }
        Err(errno) => Err(Error::call("open", directory)(errno)),
    }
}

fn index(file: &File) -> Result<HashMap<Vec<u8>, Member>, Error> {
    let name = |path: &[u8]| components(path).map(|parts| parts.join(&b'/')).unwrap_or_default();
    let mut reader = Reader::new(BufReader::with_capacity(4096, file));
    let mut members = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let start = reader.pass_body()?;
        let path = name(&entry.path);
        let member = match entry.kind {
            Kind::File if entry.segments.is_none() => Member::File { start, size: entry.size },
            Kind::HardLink => Member::Link(name(&entry.link)),
            // `docker save` once wrote `../ID/layer.tar`, from within the layer's directory.
            Kind::Symlink => {
                let dir = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &path[..slash]);
                Member::Link(name(&[dir, b"/", entry.link.as_slice()].concat()))
            }
            Kind::File | Kind::Directory | Kind::Char | Kind::Block | Kind::Fifo => continue,
        };
        if members.len() == MAX_MEMBERS {
            let why = format!("more than {MAX_MEMBERS} members");
            return Err(Error::Malformed { name: "archive".to_string(), why });
        }
        members.insert(path, member);
    }
    Ok(members)
}
