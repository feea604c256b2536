//! A tar that is read in place: where each member begins, found with seeks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Blob, Error, open_file, read_bounded};
use crate::tar::{Kind, Reader, TarError};
use crate::unpack::{Counted, Decompressor, Format, Limits, components};

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
    members: Members,
}

impl Archive {
    /// Opens an archive; `-` is standard input.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Archive, Error> {
        let limits = Limits::default();
        let (file, members) = if path == Path::new("-") {
            spooled(io::stdin().lock(), unnamed(spool)?, spool, &limits)?
        } else {
            let file = open_file(path)?;
            let format = Decompressor::new(&file).map_err(Error::Unpack)?.format();
            (&file).rewind().map_err(Error::Read)?;
            if format == Format::Plain {
                let mut reader = Reader::new(BufReader::with_capacity(4096, &file));
                let members = index(&mut reader, Reader::pass_body)?;
                (file, members)
            } else {
                spooled(file, unnamed(spool)?, spool, &limits)?
            }
        };
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

fn unnamed(directory: &Path) -> Result<File, Error> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
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
        opened => opened.map(File::from).map_err(Error::call("open", directory)),
    }
}

type Members = HashMap<Vec<u8>, Member>;

/// Writes an archive, decompressed, to a file, and indexes it on the way: what is no archive ends that at once.
fn spooled(
    source: impl Read,
    file: File,
    directory: &Path,
    limits: &Limits,
) -> Result<(File, Members), Error> {
    let plain = Decompressor::new(Counted::new(source)).map_err(Error::Unpack)?;
    let mut reader = Reader::new(Spool { plain, file, limits, ahead: 0, at: 0, failed: None });
    let indexed = index(&mut reader, |reader| Ok(reader.input().at));
    let mut spool = reader.into_inner();
    // What follows the archive is read for the checksum at its end, and for who writes into the pipe.
    let members = indexed.and_then(|members| {
        io::copy(&mut spool, &mut io::sink()).map_err(Error::Read)?;
        Ok(members)
    });
    match (spool.failed.take(), members) {
        (Some(Failed::Write(errno)), _) => Err(Error::Spool { directory: directory.to_owned(), errno }),
        (Some(Failed::Limit(what, limit)), _) => {
            Err(Error::Malformed { name: "archive".to_owned(), why: format!("more than {limit} {what}") })
        }
        (None, members) => Ok((spool.file, members?)),
    }
}

/// A stream of which all that is seen is written to a file first.
struct Spool<'a, R: Read> {
    plain: Decompressor<Counted<R>>,
    file: File,
    limits: &'a Limits,
    /// Bytes that are written and not yet consumed.
    ahead: usize,
    /// Bytes consumed.
    at: u64,
    failed: Option<Failed>,
}

/// Why a spool ended before its source.
enum Failed {
    Write(Errno),
    Limit(&'static str, u64),
}

impl<R: Read> BufRead for Spool<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let taken = self.plain.taken();
        let chunk = self.plain.fill_buf()?;
        if self.ahead == 0 && !chunk.is_empty() {
            if let Err((what, limit)) = self.limits.check(self.at + chunk.len() as u64, taken) {
                self.failed = Some(Failed::Limit(what, limit));
                return Err(io::ErrorKind::InvalidData.into());
            }
            if let Err(error) = self.file.write_all(chunk) {
                self.failed = Some(Failed::Write(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
                return Err(error);
            }
            self.ahead = chunk.len();
        }
        Ok(chunk)
    }

    fn consume(&mut self, count: usize) {
        self.plain.consume(count);
        self.ahead -= count;
        self.at += count as u64;
    }
}

impl<R: Read> Read for Spool<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buf.len());
        buf[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Where each member begins; `place` says it of the body that comes next.
fn index<R: BufRead>(
    reader: &mut Reader<R>,
    place: impl Fn(&mut Reader<R>) -> Result<u64, TarError>,
) -> Result<Members, Error> {
    let name = |path: &[u8]| components(path).map(|parts| parts.join(&b'/')).unwrap_or_default();
    let mut members = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let start = place(reader)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::testing::{TarBuilder, gzip};

    fn archive(size: usize) -> Vec<u8> {
        let mut tar = TarBuilder::default();
        tar.file("zeros", &vec![0; size]);
        tar.file("last", b"last");
        gzip(&tar.finish())
    }

    fn spool(source: impl Read, limits: Limits) -> Result<(File, Members), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = unnamed(dir.path()).unwrap();
        spooled(source, file, dir.path(), &limits).map_err(|error| error.to_string())
    }

    #[test]
    fn archives_are_unpacked_within_the_limits_of_layers() {
        let packed = archive(4 << 20);
        let limits = Limits { ratio: 50, ratio_from: 1 << 20, ..Limits::default() };
        let error = spool(packed.as_slice(), limits).unwrap_err();
        assert_eq!(error, "archive: more than 50 bytes unpacked for each byte packed");
        let error = spool(packed.as_slice(), Limits { bytes: 1 << 20, ..Limits::default() }).unwrap_err();
        assert_eq!(error, "archive: more than 1048576 bytes unpacked");
        let (file, members) = spool(packed.as_slice(), Limits::default()).unwrap();
        let Some(Member::File { start, size: 4 }) = members.get(b"last".as_slice()) else { panic!("lost") };
        let mut last = [0; 4];
        file.read_exact_at(&mut last, *start).unwrap();
        assert_eq!(&last, b"last");
    }

    #[test]
    fn what_is_no_archive_is_not_read_to_its_end() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                buf.fill(b'x');
                self.0 += buf.len() as u64;
                assert!(self.0 < 10 << 20, "it goes on and on");
                Ok(buf.len())
            }
        }
        assert!(spool(Endless(0), Limits::default()).unwrap_err().contains("not a tar"));
    }

    #[test]
    fn a_full_disk_is_told_with_the_directory_and_how_to_name_another() {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let limits = Limits::default();
        for (directory, hint) in [
            (std::env::temp_dir(), "; free some space there, or name another directory by TMPDIR"),
            ("/srv/store/tmp".into(), "; free some space there"),
        ] {
            let error = spooled(archive(10).as_slice(), full(), &directory, &limits).unwrap_err();
            assert!(error.is_full());
            let text = error.to_string();
            let place = format!("to {}: ENOSPC", directory.display());
            assert!(text.contains(&place) && text.ends_with(hint), "{text}");
        }
    }
}
