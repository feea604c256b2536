//! A tar reader for layers: ustar, GNU, PAX, star and v7, read once from front to back.
//!
//! It is creel's own because the `tar` crate is wrong for layers in four ways: it reads GNU's old sparse
//! files and none of the `GNU.sparse.*` of PAX, gives global headers out as entries of their own without
//! applying them, keeps extension records of any length in memory, and copies each body through a `Read`.
//! This one lends the body as slices of the input's own buffer.
//!
//! What is read is hostile: every number is checked, extension records are limited to [`MAX_RECORDS`], those of
//! all global headers too, extended attributes in number and length, and names to PATH_MAX. Which names are safe to use is not decided here but where they are used.

mod header;
mod pax;
mod sparse;

use std::fmt;
use std::io::{self, BufRead};

use header::{BLOCK, Header};
use pax::Records;
pub use sparse::Segment;

/// Bytes that the records of one extension header may have.
pub const MAX_RECORDS: u64 = 1 << 20;

/// PATH_MAX of Linux, without its NUL.
const MAX_PATH: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that came before, in this layer or below.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A fifo.
    Fifo,
}

/// One entry, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, as it stands in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits, set-id bits and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file once it is unpacked.
    pub size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the body's bytes go, when there are holes between them.
    pub segments: Option<Vec<Segment>>,
}

/// What is wrong with an archive.
#[derive(Debug)]
pub enum TarError {
    /// Reading failed.
    Io(io::Error),
    /// The archive ends within an entry.
    Truncated,
    /// The sum over a header is not the one in it.
    Checksum,
    /// A field does not hold what it should.
    Field {
        /// Which.
        field: String,
        /// Name of the entry, as far as it is known.
        path: String,
    },
    /// A name or a set of records is longer than the limit.
    TooLong {
        /// What.
        what: &'static str,
        /// Bytes.
        length: u64,
    },
    /// More than the limit.
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An entry of a type that no layer has.
    Type {
        /// Type flag.
        flag: u8,
        /// Its name.
        path: String,
    },
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        // What `read_exact` says of an input that ends; an error of the source has words of its own.
        if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
            TarError::Truncated
        } else {
            TarError::Io(error)
        }
    }
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TarError::Io(error) => error.fmt(f),
            TarError::Truncated => f.write_str("the tar ends within an entry"),
            TarError::Checksum => f.write_str("not a tar: the checksum of a header is wrong"),
            TarError::Field { field, path } => write!(f, "tar entry {path:?}: bad {field}"),
            TarError::TooLong { what, length } => write!(f, "tar: {what} of {length} bytes"),
            TarError::Limit { what, limit } => write!(f, "tar: more than {limit} {what}"),
            TarError::Type { flag, path } => {
                write!(f, "tar entry {path:?}: unknown type {:?}", char::from(*flag))
            }
        }
    }
}

impl std::error::Error for TarError {}

/// The entries of an archive, one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    global: Records,
    body: u64,
    padding: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads an archive from its start.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, global: Records::default(), body: 0, padding: 0, ended: false }
    }

    /// The next entry; what was not taken of the last one's body is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let (mut long_name, mut long_link, mut local) = (None, None, Records::default());
        loop {
            self.skip_body()?;
            let Some(header) = self.header()? else {
                self.ended = true;
                return Ok(None);
            };
            match header.flag() {
                b'L' => long_name = Some(header::until_nul(&self.extension(&header)?).to_vec()),
                b'K' => long_link = Some(header::until_nul(&self.extension(&header)?).to_vec()),
                b'x' | b'X' => local = Records::parse(&self.extension(&header)?)?,
                b'g' => {
                    let records = Records::parse(&self.extension(&header)?)?;
                    self.global.update(records)?;
                }
                // A volume label says nothing about a layer.
                b'V' => self.set_body(header.size()?),
                _ => {
                    let records = self.global.with(local)?;
                    return self.entry(&header, records, long_name, long_link).map(Some);
                }
            }
        }
    }

    /// The next bytes of the body; empty at its end.
    pub fn chunk(&mut self) -> Result<&[u8], TarError> {
        if self.body == 0 {
            return Ok(&[]);
        }
        let chunk = self.input.fill_buf()?;
        if chunk.is_empty() {
            return Err(TarError::Truncated);
        }
        let count = chunk.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
        Ok(&chunk[..count])
    }

    /// Says how many bytes of the last chunk were used.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.body -= count as u64;
    }

    /// What the archive is read from.
    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    /// What the archive was read from, to read what follows it.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn set_body(&mut self, size: u64) {
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Passes over what is left of a body. The padding of the last one may be missing: umoci insert leaves it out.
    fn skip_body(&mut self) -> Result<(), TarError> {
        while self.body > 0 {
            let count = self.chunk()?.len();
            self.consume(count);
        }
        self.body = std::mem::take(&mut self.padding);
        while self.body > 0 {
            match self.chunk() {
                Err(TarError::Truncated) => self.body = 0,
                chunk => {
                    let count = chunk?.len();
                    self.consume(count);
                }
            }
        }
        Ok(())
    }

    /// One block, or none at the end of input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block)?;
        Ok(Some(block))
    }

    /// The next header. Two blocks of zeros end an archive; so does the end of input between entries, as
    /// some writers leave it.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Header::check(block).map(Some);
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(TarError::Checksum),
            _ => Ok(None),
        }
    }

    /// The body of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let length = header.size()?;
        if length > MAX_RECORDS {
            return Err(TarError::TooLong { what: "extension header", length });
        }
        self.set_body(length);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        while self.body > 0 {
            let chunk = self.chunk()?;
            bytes.extend_from_slice(chunk);
            let count = chunk.len();
            self.consume(count);
        }
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        mut records: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let path = records.sparse.name.take().or(records.path.take()).or(long_name);
        let path = path.unwrap_or_else(|| header.path());
        let name = String::from_utf8_lossy(&path).into_owned();
        let link = records.link.take().or(long_link).unwrap_or_else(|| header.link());
        for (what, bytes) in [("path", &path), ("link target", &link)] {
            if bytes.len() > MAX_PATH {
                return Err(TarError::TooLong { what, length: bytes.len() as u64 });
            }
            if bytes.contains(&0) {
                return Err(TarError::Field { field: what.to_string(), path: name });
            }
        }
        let kind = match header.flag() {
            // v7 has no directories: a name that ends in a slash is one.
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => return Err(TarError::Type { flag, path: name }),
        };
        let in_field = |error| header::of_entry(error, &name);
        // Only files have a body, whatever the size of a link says; GNU's dumpdir lists names there.
        let stored = match (kind, header.flag()) {
            (Kind::File, _) | (_, b'D') => {
                records.size.map_or_else(|| header.size(), Ok).map_err(in_field)?
            }
            _ => 0,
        };
        // off_t; beyond it the padding would not fit either.
        if i64::try_from(stored).is_err() {
            return Err(TarError::Field { field: "size".to_string(), path: name });
        }
        self.set_body(stored);
        let (size, segments) = if kind == Kind::File {
            self.segments(header, &mut records, stored).map_err(in_field)?
        } else {
            (0, None)
        };
        Ok(Entry {
            kind,
            link,
            mode: header.mode().map_err(in_field)? & 0o7777,
            uid: id("uid", records.uid.map_or_else(|| header.uid(), Ok)).map_err(in_field)?,
            gid: id("gid", records.gid.map_or_else(|| header.gid(), Ok)).map_err(in_field)?,
            size,
            mtime: records.mtime.map_or_else(|| header.mtime(), Ok).map_err(in_field)?,
            device: if matches!(kind, Kind::Char | Kind::Block) {
                header.device().map_err(in_field)?
            } else {
                (0, 0)
            },
            xattrs: records.into_xattrs()?,
            segments,
            path,
        })
    }

    /// Size of the unpacked file and where its bytes go.
    fn segments(
        &mut self,
        header: &Header,
        records: &mut Records,
        stored: u64,
    ) -> Result<(u64, Option<Vec<Segment>>), TarError> {
        let (size, segments) = if header.flag() == b'S' {
            let mut map = header.sparse()?;
            while map.extended {
                map.extended = false;
                let block = self.block()?.ok_or(TarError::Truncated)?;
                map.extend(&block)?;
            }
            (map.size, map.segments)
        } else if let Some(size) = records.sparse.size {
            match records.sparse.take_map()? {
                Some(segments) => (size, segments),
                None if records.sparse.is_version_1() => (size, sparse::read_map(self)?),
                None => return Ok((stored, None)),
            }
        } else {
            return Ok((stored, None));
        };
        sparse::check(&segments, size, self.body)?;
        Ok((size, Some(segments)))
    }
}

impl<R: BufRead + io::Seek> Reader<R> {
    /// Where the body begins, and passes over it without reading it.
    pub(crate) fn pass_body(&mut self) -> Result<u64, TarError> {
        let start = self.input.stream_position()?;
        let rest = i64::try_from(self.body + self.padding).map_err(|_| TarError::Truncated)?;
        self.input.seek_relative(rest)?;
        (self.body, self.padding) = (0, 0);
        Ok(start)
    }
}

/// An id that chown(2) takes: -1 would mean "as it is".
fn id(field: &str, value: Result<u64, TarError>) -> Result<u32, TarError> {
    let bad = || TarError::Field { field: field.to_string(), path: String::new() };
    u32::try_from(value?).ok().filter(|id| *id != u32::MAX).ok_or_else(bad)
}

#[cfg(test)]
#[path = "tar/tests.rs"]
mod tests;
