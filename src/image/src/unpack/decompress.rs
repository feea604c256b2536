//! Compression by the first bytes, not by the media type: mislabelled layers exist in numbers.
//!
//! All members of a gzip stream and all frames of a zstd stream are read, skippable ones too: pigz -i,
//! eStargz and zstd:chunked write many.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use super::Error;
use super::gzip::Gzip;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Bytes read from the source at a time.
const BUFFER: usize = 128 << 10;

/// The stream with the bytes that were looked at put back.
type Source<R> = Chain<Cursor<Vec<u8>>, R>;

/// A stream as it was before compression.
pub struct Decompressor<R: Read>(Form<R>);

enum Form<R: Read> {
    Plain(BufReader<Source<R>>),
    Gzip(Box<Gzip<Source<R>>>),
    Zstd(Box<BufReader<zstd::Decoder<'static, BufReader<Source<R>>>>>),
}

fn sniff(head: &[u8]) -> Result<Format, Error> {
    match head {
        [0x1f, 0x8b, 8, ..] => Ok(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Err(Error::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(Error::Compression("xz")),
        _ => Ok(Format::Plain),
    }
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of a stream.
    pub fn new(mut source: R) -> Result<Decompressor<R>, Error> {
        let mut head = Vec::with_capacity(6);
        source.by_ref().take(6).read_to_end(&mut head).map_err(Error::Read)?;
        let format = sniff(&head)?;
        let source = Cursor::new(head).chain(source);
        Ok(Decompressor(match format {
            Format::Plain => Form::Plain(BufReader::with_capacity(BUFFER, source)),
            Format::Gzip => Form::Gzip(Box::new(Gzip::with_capacity(BUFFER, source))),
            Format::Zstd => {
                let source = BufReader::with_capacity(BUFFER, source);
                let decoder = zstd::Decoder::with_buffer(source).map_err(Error::Read)?;
                Form::Zstd(Box::new(BufReader::with_capacity(BUFFER, decoder)))
            }
        }))
    }

    /// How it is compressed.
    pub fn format(&self) -> Format {
        match &self.0 {
            Form::Plain(_) => Format::Plain,
            Form::Gzip(_) => Format::Gzip,
            Form::Zstd(_) => Format::Zstd,
        }
    }

    /// What the stream is read from.
    pub(crate) fn source(&self) -> &R {
        let source = match &self.0 {
            Form::Plain(input) => input.get_ref(),
            Form::Gzip(decoder) => decoder.get_ref(),
            Form::Zstd(decoder) => decoder.get_ref().get_ref().get_ref(),
        };
        source.get_ref().1
    }
}

impl<R: Read> BufRead for Decompressor<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.0 {
            Form::Plain(input) => input.fill_buf(),
            Form::Gzip(decoder) => decoder.fill_buf(),
            Form::Zstd(decoder) => decoder.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.0 {
            Form::Plain(input) => input.consume(count),
            Form::Gzip(decoder) => decoder.consume(count),
            Form::Zstd(decoder) => decoder.consume(count),
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Form::Plain(input) => input.read(buf),
            Form::Gzip(decoder) => decoder.read(buf),
            Form::Zstd(decoder) => decoder.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        Decompressor::new(bytes)?.read_to_end(&mut out).map_err(Error::Read)?;
        Ok(out)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        assert_eq!(read(&[gzip(b"one, "), gzip(b""), gzip(b"two")].concat()).unwrap(), b"one, two");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        let skippable = [0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
        let stream =
            [skippable.as_slice(), &frame(b"one, "), &skippable, &frame(b"two"), &skippable].concat();
        assert_eq!(read(&stream).unwrap(), b"one, two");
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&[7; 100_000]);
        assert!(read(&whole[..whole.len() - 1]).is_err());
        let whole = zstd::encode_all([7; 100_000].as_slice(), 3).unwrap();
        assert!(read(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn other_compressions_are_refused_by_name() {
        let error = read(b"\xfd7zXZ\0....").unwrap_err();
        assert_eq!(error.to_string(), "the layer is compressed with xz; layers are tar, gzip or zstd");
    }
}
