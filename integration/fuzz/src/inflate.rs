//! The gzip reader beside zlib-rs, on members whose trailers are right, in pieces of any size.

use std::io::{self, Read};

use creel_image_lib::unpack::Decompressor;
use flate2::{Crc, read::DeflateDecoder};

/// More than a window twice; what unpacks to more is left alone.
const MOST: u64 = 1 << 20;

/// Gives so many bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: &'a [u8],
    turn: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let size =
            self.sizes.get(self.turn % self.sizes.len().max(1)).map_or(1, |size| usize::from(*size) + 1);
        self.turn += 1;
        let count = size.min(buf.len()).min(self.rest.len());
        buf[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

fn read(packed: &[u8], sizes: &[u8]) -> Result<Vec<u8>, String> {
    let pieces = Pieces { rest: packed, sizes, turn: 0 };
    let mut decoder = Decompressor::new(pieces).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    decoder.by_ref().take(4 * MOST).read_to_end(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

pub fn run(data: &[u8]) {
    // Any stream at all ends.
    drop(read(&[&[0x1f, 0x8b, 8], data].concat(), &[255]));
    // The first bytes say how large the pieces are, the others are deflate data, of two members.
    let Some((sizes, rest)) = data.split_at_checked(4) else { return };
    let mut deflated = DeflateDecoder::new(rest);
    let mut plain = Vec::new();
    let known = deflated.by_ref().take(MOST).read_to_end(&mut plain).is_ok();
    if !known || plain.len() as u64 == MOST {
        return;
    }
    let length = usize::try_from(deflated.total_in()).unwrap_or(usize::MAX);
    let Some(deflated) = rest.get(..length) else { return };
    let mut crc = Crc::new();
    crc.update(&plain);
    let member = [
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].as_slice(),
        deflated,
        &crc.sum().to_le_bytes(),
        &crc.amount().to_le_bytes(),
    ]
    .concat();
    let packed = [member.as_slice(), &member].concat();
    match read(&packed, sizes) {
        Ok(out) => {
            assert!(out == [plain.as_slice(), &plain].concat(), "{} bytes unlike {}", out.len(), plain.len())
        }
        Err(error) => panic!("{error}, where zlib reads {} bytes", plain.len()),
    }
}
