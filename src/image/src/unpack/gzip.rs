//! gzip (RFC 1952), all members of a stream, around fdeflate's decoder of the deflate data in them.
//!
//! fdeflate is half as fast again as zlib-rs, streams, and has no unsafe code (docs/design/0014-inflate.md). It
//! is made for zlib streams: it is given their two bytes of header, and takes what follows the deflate data for
//! their checksum, which is gzip's first field after it. How many bytes it took beyond them is not told, and
//! found out here ([`Gzip::end_member`]).

use std::io::{self, BufRead, Read};

use fdeflate::{DecompressionError, Decompressor};

/// How far back deflate data refers (RFC 1951).
const HISTORY: usize = 32 << 10;

/// Bytes that are inflated at a time.
const WINDOW: usize = HISTORY + (256 << 10);

/// CRC-32 and size, after the deflate data.
const TRAILER: usize = 8;

/// The most that fdeflate takes of what follows the deflate data: a 64-bit buffer of which one bit stays free.
const MAX_TAKEN: usize = 7;

/// What it takes at least: zlib's checksum.
const MIN_TAKEN: usize = 4;

/// A header of a zlib stream: deflate with a window of 32 KiB, no dictionary (RFC 1950).
const ZLIB: [u8; 2] = [0x78, 0x01];

/// A stream of gzip members, read as what was packed.
pub(crate) struct Gzip<R> {
    source: R,
    input: Vec<u8>,
    /// What of the input is not taken yet. Before it are at least the last bytes that were.
    at: usize,
    end: usize,
    ended: bool,
    member: Option<Member>,
    /// Whether there was a first member.
    begun: bool,
    window: Vec<u8>,
    /// What of the window the reader has not seen yet.
    shown: usize,
    made: usize,
}

struct Member {
    decoder: Decompressor,
    crc: crc32fast::Hasher,
    size: u32,
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("gzip: {why}"))
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "gzip: the stream ends within a member")
}

fn broken(error: DecompressionError) -> io::Error {
    if error == DecompressionError::InsufficientInput {
        return cut();
    }
    malformed(&format!("the deflate data is broken: {error:?}"))
}

impl<R: Read> Gzip<R> {
    /// Reads this many bytes of the source at a time.
    pub(crate) fn with_capacity(capacity: usize, source: R) -> Gzip<R> {
        Gzip {
            source,
            input: vec![0; capacity.max(4 * TRAILER)],
            at: 0,
            end: 0,
            ended: false,
            member: None,
            begun: false,
            window: vec![0; WINDOW],
            shown: 0,
            made: 0,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.source
    }

    /// Has this many bytes of input at hand, unless it ends before. The bytes that were taken last stay.
    fn have(&mut self, count: usize) -> io::Result<usize> {
        while self.end - self.at < count && !self.ended {
            if self.end == self.input.len() {
                let kept = self.at.saturating_sub(MAX_TAKEN);
                self.input.copy_within(kept..self.end, 0);
                self.at -= kept;
                self.end -= kept;
            }
            match self.source.read(&mut self.input[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.end - self.at)
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.have(1)? == 0 {
            return Err(cut());
        }
        self.at += 1;
        Ok(self.input[self.at - 1])
    }

    /// Reads a member's header. Nothing in it matters to what was packed.
    fn begin_member(&mut self) -> io::Result<()> {
        let mut head = [0; 10];
        for byte in &mut head {
            *byte = self.byte()?;
        }
        if head[..3] != [0x1f, 0x8b, 8] || head[3] & 0xe0 != 0 {
            return Err(malformed(if self.begun { "what follows a member is none" } else { "a bad header" }));
        }
        let [checked, extra, name, comment] = [1, 2, 3, 4].map(|bit| head[3] >> bit & 1 == 1);
        if extra {
            let length = u16::from_le_bytes([self.byte()?, self.byte()?]);
            for _ in 0..length {
                self.byte()?;
            }
        }
        for _ in 0..u8::from(name) + u8::from(comment) {
            while self.byte()? != 0 {}
        }
        if checked {
            self.byte()?;
            self.byte()?;
        }
        let mut decoder = Decompressor::new();
        decoder.ignore_adler32();
        decoder.read(&ZLIB, &mut self.window, 0, false).map_err(broken)?;
        self.member = Some(Member { decoder, crc: crc32fast::Hasher::new(), size: 0 });
        // Nothing before a member may be referred to.
        (self.shown, self.made, self.begun) = (0, 0, true);
        Ok(())
    }

    /// Reads on until something is inflated or all members are.
    fn inflate(&mut self) -> io::Result<()> {
        while self.shown == self.made {
            let Some(mut member) = self.member.take() else {
                if self.have(1)? == 0 && self.begun {
                    return Ok(());
                }
                self.begin_member()?;
                continue;
            };
            if self.made == self.window.len() {
                self.window.copy_within(self.made - HISTORY.., 0);
                (self.shown, self.made) = (HISTORY, HISTORY);
            }
            let given = self.have(1)?;
            let input = &self.input[self.at..self.end];
            let (taken, made) =
                member.decoder.read(input, &mut self.window, self.made, self.ended).map_err(broken)?;
            self.at += taken;
            let new = &self.window[self.made..self.made + made];
            member.crc.update(new);
            // The trailer has the size modulo 2^32.
            member.size = member.size.wrapping_add(u32::try_from(made).unwrap_or(0));
            self.made += made;
            if member.decoder.is_done() {
                self.end_member(&member, taken < given)?;
            } else {
                self.member = Some(member);
            }
        }
        Ok(())
    }

    /// Finds the trailer and checks it. Where input was left, the decoder has filled its buffer and taken seven
    /// bytes of what follows the deflate data. Where the input at hand ended there, it may have been four to
    /// seven: the trailer is where it is right, and if that is so twice (a member of nothing is followed by
    /// zeros alone), where the stream ends or another member begins.
    fn end_member(&mut self, member: &Member, full: bool) -> io::Result<()> {
        let mut expected = [0; TRAILER];
        expected[..4].copy_from_slice(&member.crc.clone().finalize().to_le_bytes());
        expected[4..].copy_from_slice(&member.size.to_le_bytes());
        self.have(TRAILER - MIN_TAKEN + 2)?;
        let least = if full { MAX_TAKEN } else { MIN_TAKEN };
        let mut found = None;
        let mut whole = false;
        for taken in least..=MAX_TAKEN.min(self.at) {
            let start = self.at - taken;
            let Some(trailer) = self.input[..self.end].get(start..start + TRAILER) else { continue };
            whole = true;
            let after = &self.input[start + TRAILER..self.end];
            if trailer == expected
                && (found.is_none() || after.is_empty() || after.starts_with(&[0x1f, 0x8b]))
            {
                found = Some(start + TRAILER);
            }
        }
        match found {
            Some(next) => self.at = next,
            None if whole => return Err(malformed("the checksum of a member is wrong")),
            None => return Err(cut()),
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Gzip<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inflate()?;
        Ok(&self.window[self.shown..self.made])
    }

    fn consume(&mut self, count: usize) {
        self.shown += count;
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buf.len());
        buf[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Write;

    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(packed: &[u8], capacity: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Gzip::with_capacity(capacity, packed).read_to_end(&mut out).map(|_| out)
    }

    /// Bytes that pack to something, the same each time.
    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|n| b"the quick brown fox "[(n * n / 7) % 20]).collect()
    }

    #[test]
    fn members_end_wherever_the_input_at_hand_ends() {
        let members = [content(1), Vec::new(), content(300), vec![0; 40], Vec::new(), content(7)];
        let packed: Vec<u8> = members.iter().flat_map(|member| gzip(member, 6)).collect();
        for capacity in 32..200 {
            assert_eq!(read(&packed, capacity).unwrap(), members.concat(), "{capacity}");
        }
    }

    #[test]
    fn a_window_that_is_full_goes_on() {
        let content = content(3_000_000);
        for level in [0, 1, 6, 9] {
            assert_eq!(read(&gzip(&content, level), 128 << 10).unwrap(), content, "{level}");
        }
    }

    #[test]
    fn every_field_of_a_header_is_passed_over() {
        let builder = GzBuilder::new().filename("a").comment("b").extra(vec![7; 300]);
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(b"content").unwrap();
        assert_eq!(read(&encoder.finish().unwrap(), 32).unwrap(), b"content");
    }

    #[test]
    fn each_byte_cut_off_and_each_wrong_one_of_the_trailer_is_told() {
        let whole = [gzip(&content(500), 6), gzip(&content(100), 6)].concat();
        let first = gzip(&content(500), 6).len();
        for end in (1..whole.len()).filter(|end| *end != first) {
            let error = read(&whole[..end], 64).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}: {error}");
        }
        for at in (first - 8..first).chain(whole.len() - 8..whole.len()) {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            for capacity in [64, 128 << 10] {
                let error = read(&wrong, capacity).unwrap_err();
                assert!(error.to_string().contains("checksum"), "{at}: {error}");
            }
        }
        let error = read(&[&whole[..], b"garbage of more than ten bytes"].concat(), 64).unwrap_err();
        assert_eq!(error.to_string(), "gzip: what follows a member is none");
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(
            members in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..2000), 1..5),
            level in 0u32..10,
            capacity in 32usize..300,
        ) {
            let packed: Vec<u8> = members.iter().flat_map(|member| gzip(member, level)).collect();
            prop_assert_eq!(read(&packed, capacity).unwrap(), members.concat());
        }
    }
}
