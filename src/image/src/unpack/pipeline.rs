//! The two threads of a layer and what lies between them.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::decompress::{Decompressor, Format};
use super::tree::{Applied, Tree};
use super::{Error, entry};
use crate::digest::{Digest, Hasher, Verified};
use crate::tar::Reader;

/// Bytes of one buffer, and how many lie between the threads.
const CHUNK: usize = 256 << 10;
const DEPTH: usize = 4;

/// Bytes of extended attributes that a layer may have. A global header of the tar gives them to each entry, so that
/// neither the tar's size nor the ratio tells of them.
const MAX_XATTRS: u64 = 1 << 30;

/// What a layer must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Digest of the blob.
    pub digest: &'a Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Digest of the tar, by the image's configuration.
    pub diff_id: &'a Digest,
}

/// How much a layer may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the tar.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of the tar for each byte of the blob, looked at beyond `ratio_from` bytes. Deflate
    /// reaches 1032, real layers hardly 20.
    pub ratio: u64,
    /// Where the ratio begins to count: a small layer of zeros harms nobody.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 256 << 30, entries: 10_000_000, ratio: 200, ratio_from: 1 << 30 }
    }
}

impl Limits {
    /// Whether so many bytes may have come of so many; what there is too much of, and its limit.
    pub(crate) fn check(&self, made: u64, taken: u64) -> Result<(), (&'static str, u64)> {
        if made > self.bytes {
            return Err(("bytes unpacked", self.bytes));
        }
        if made > self.ratio_from && made / self.ratio > taken {
            return Err(("bytes unpacked for each byte packed", self.ratio));
        }
        Ok(())
    }
}

/// What came of a layer.
#[derive(Debug)]
pub struct Unpacked {
    /// How the blob was compressed.
    pub format: Format,
    /// Bytes of the tar.
    pub bytes: u64,
    /// What was made of its entries.
    pub applied: Applied,
}

/// Unpacks a layer onto a tree, and returns only after both digests were right.
///
/// Directories have their final attributes only after [`Tree::finish`].
pub fn unpack_layer<R: Read + Send>(
    source: R,
    expected: Expected<'_>,
    limits: &Limits,
    tree: &mut Tree,
) -> Result<Unpacked, Error> {
    let (full, chunks) = sync_channel(DEPTH);
    let (empty, spare) = sync_channel(DEPTH + 2);
    std::thread::scope(|scope| {
        let verified = Verified::new(source, expected.digest.clone(), expected.size);
        let producer = scope.spawn(move || produce(verified, limits, &full, &spare));
        // A blob that is its own tar is hashed once.
        let hasher = (expected.digest != expected.diff_id).then(|| Hasher::new(expected.diff_id.algorithm()));
        let input = Chunks { chunks, empty, current: Vec::new(), at: 0, hasher, bytes: 0 };
        let applied = consume(input, expected.diff_id, limits, tree);
        match (producer.join(), applied) {
            // What the reader met comes first: the writer only saw that no more came.
            (Ok(Err(error)), _) if !matches!(error, Error::Interrupted) => Err(error),
            (_, Err(error)) => Err(error),
            (Ok(Ok(format)), Ok((bytes, applied))) => {
                // A compressed blob cannot have the digest of what is in it.
                if format != Format::Plain && expected.digest == expected.diff_id {
                    return Err(Error::DiffIdOfBlob);
                }
                Ok(Unpacked { format, bytes, applied })
            }
            (Ok(Err(_)) | Err(_), Ok(_)) => Err(Error::Interrupted),
        }
    })
}

/// The reading thread: hash, inflate, count.
fn produce<R: Read>(
    mut source: Verified<R>,
    limits: &Limits,
    full: &SyncSender<Vec<u8>>,
    spare: &Receiver<Vec<u8>>,
) -> Result<Format, Error> {
    let mut decoder = Decompressor::new(Counted::new(&mut source))?;
    let format = decoder.format();
    let mut total = 0u64;
    loop {
        let mut buffer = spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        buffer.clear();
        while buffer.len() < CHUNK {
            let made = decoder.fill_buf().map_err(Error::Read)?;
            let count = made.len().min(CHUNK - buffer.len());
            if count == 0 {
                break;
            }
            buffer.extend_from_slice(&made[..count]);
            decoder.consume(count);
        }
        if buffer.is_empty() {
            break;
        }
        total += buffer.len() as u64;
        let checked = limits.check(total, decoder.taken());
        checked.map_err(|(what, limit)| Error::Limit { what, limit })?;
        full.send(buffer).map_err(|_| Error::Interrupted)?;
    }
    drop(decoder);
    // The end of the source is where its digest is looked at.
    io::copy(&mut source, &mut io::sink()).map_err(Error::Read)?;
    Ok(format)
}

/// Counts what the decoder has taken.
pub(crate) struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Counted<R> {
    pub(crate) fn new(inner: R) -> Counted<R> {
        Counted { inner, count: 0 }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: Read> Decompressor<Counted<R>> {
    pub(crate) fn taken(&self) -> u64 {
        self.source().count
    }
}

/// The writing thread: hash, parse, write.
fn consume(
    input: Chunks,
    diff_id: &Digest,
    limits: &Limits,
    tree: &mut Tree,
) -> Result<(u64, Applied), Error> {
    let mut reader = Reader::new(input);
    tree.begin_layer();
    let written = write(&mut reader, limits, tree);
    let mut rest = reader.into_inner();
    // Whatever follows the end of the archive counts for the diff id. A broken tar is read to its end too:
    // when the blob's digest is wrong, that is the cause to tell.
    if matches!(written, Ok(_) | Err(Error::Tar(_))) {
        rest.drain();
    }
    let entries = written?;
    if let Some(hasher) = rest.hasher {
        let found = hasher.finish();
        if found != *diff_id {
            return Err(Error::DiffId { expected: diff_id.clone(), found });
        }
    }
    Ok((rest.bytes, tree.end_layer(entries)?))
}

fn write(reader: &mut Reader<Chunks>, limits: &Limits, tree: &mut Tree) -> Result<u64, Error> {
    let (mut entries, mut xattrs) = (0, 0u64);
    while let Some(found) = reader.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(Error::Limit { what: "entries", limit: limits.entries });
        }
        xattrs += found.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>();
        if xattrs > MAX_XATTRS {
            return Err(Error::Limit { what: "bytes of extended attributes", limit: MAX_XATTRS });
        }
        entry::apply(tree, &found, reader)?;
    }
    Ok(entries)
}

/// The buffers that come from the other thread, read as one stream.
struct Chunks {
    chunks: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hasher: Option<Hasher>,
    bytes: u64,
}

impl Chunks {
    fn refill(&mut self) {
        if self.at == self.current.len() {
            // A closed channel is the end: if it is an error, the other thread tells it.
            let next = self.chunks.recv().unwrap_or_default();
            let used = std::mem::replace(&mut self.current, next);
            // The other thread may be done, or may have enough buffers: then this one is freed.
            drop(self.empty.try_send(used));
            self.at = 0;
            self.bytes += self.current.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.current);
            }
        }
    }

    fn drain(&mut self) {
        self.at = self.current.len();
        self.refill();
        while !self.current.is_empty() {
            self.at = self.current.len();
            self.refill();
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.refill();
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buf.len());
        buf[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}
