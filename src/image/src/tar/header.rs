//! The 512-byte header: its fields and how numbers stand in them (tar(5), POSIX pax "ustar").

use super::TarError;
use super::sparse::{Map, Segment};

pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn bad(field: &str) -> TarError {
    TarError::Field { field: field.to_string(), path: String::new() }
}

/// Adds the entry's name to an error about a field of it.
pub(super) fn of_entry(mut error: TarError, name: &str) -> TarError {
    if let TarError::Field { path, .. } = &mut error
        && path.is_empty()
    {
        *path = name.to_string();
    }
    error
}

/// Octal digits among spaces and NULs, or GNU's base 256: the top bit set, then a two's complement number.
pub(super) fn number(bytes: &[u8], field: &str) -> Result<i64, TarError> {
    if let Some(first) = bytes.first().filter(|b| **b & 0x80 != 0) {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, byte) in bytes.iter().enumerate() {
            let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
            value = value << 8 | i128::from(byte);
            if i64::try_from(value).is_err() {
                return Err(bad(field));
            }
        }
        return i64::try_from(value).map_err(|_| bad(field));
    }
    let mut value: i64 = 0;
    let text = until_nul(bytes).trim_ascii();
    for digit in text {
        if !matches!(digit, b'0'..=b'7') {
            return Err(bad(field));
        }
        value = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| bad(field))?;
    }
    Ok(value)
}

fn unsigned(bytes: &[u8], field: &str) -> Result<u64, TarError> {
    u64::try_from(number(bytes, field)?).map_err(|_| bad(field))
}

impl Header {
    /// Takes a block that is not all zeros.
    pub(super) fn check(block: [u8; BLOCK]) -> Result<Header, TarError> {
        let expected = number(&block[148..156], "checksum").map_err(|_| TarError::Checksum)?;
        // The field itself counts as spaces.
        let spaces = 8 * i64::from(b' ');
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
        if expected == i64::from(sum(&block) - sum(&block[148..156])) + spaces {
            return Ok(Header(block));
        }
        // Some old writers summed signed characters.
        let signed = |bytes: &[u8]| bytes.iter().map(|b| i32::from(b.cast_signed())).sum::<i32>();
        if expected == i64::from(signed(&block) - signed(&block[148..156])) + spaces {
            return Ok(Header(block));
        }
        Err(TarError::Checksum)
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    fn is_ustar(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// Name with the prefix. GNU's own format has other things in the prefix's place, star only 131 bytes.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let end = if &self.0[508..512] == b"tar\0" { 476 } else { 500 };
        let prefix = if self.is_ustar() { until_nul(&self.0[345..end]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        u32::try_from(number(&self.0[100..108], "mode")? & 0o7777).map_err(|_| bad("mode"))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        unsigned(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        unsigned(&self.0[116..124], "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        unsigned(&self.0[124..136], "size")
    }

    pub(super) fn mtime(&self) -> Result<(i64, u32), TarError> {
        Ok((number(&self.0[136..148], "mtime")?, 0))
    }

    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let number = |bytes, field| u32::try_from(unsigned(bytes, field)?).map_err(|_| bad(field));
        Ok((number(&self.0[329..337], "device major")?, number(&self.0[337..345], "device minor")?))
    }

    /// GNU's old sparse map: four segments here, then the size, the rest in blocks that follow.
    pub(super) fn sparse(&self) -> Result<Map, TarError> {
        let mut map =
            Map { size: unsigned(&self.0[483..495], "sparse size")?, segments: Vec::new(), extended: false };
        map.add(&self.0[386..482])?;
        map.extended = self.0[482] != 0;
        Ok(map)
    }
}

impl Map {
    /// The segments of a block that follows.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        self.add(&block[..504])?;
        self.extended = block[504] != 0;
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        for pair in bytes.chunks_exact(24).take_while(|pair| pair[0] != 0) {
            let (offset, length) = pair.split_at(12);
            let segment = Segment {
                offset: unsigned(offset, "sparse offset")?,
                length: unsigned(length, "sparse length")?,
            };
            super::sparse::push(&mut self.segments, segment)?;
        }
        Ok(())
    }
}
