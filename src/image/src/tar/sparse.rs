//! Files with holes: GNU's old form and the three of PAX (GNU tar manual, "Storing Sparse Files").

use std::io::BufRead;

use super::header::BLOCK;
use super::pax::decimal;
use super::{Reader, TarError};

/// A file of 64 GiB with a hole in each second 4 KiB has eight times as many; a real one a few dozen.
const MAX_SEGMENTS: usize = 1 << 20;

/// Bytes of the body that belong at a place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// GNU's old form while it is read.
pub(super) struct Map {
    pub(super) size: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) extended: bool,
}

/// What `GNU.sparse.*` records say.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    major: u64,
    numbers: Vec<u64>,
    mapped: bool,
}

fn bad(field: &str) -> TarError {
    TarError::Field { field: format!("sparse {field}"), path: String::new() }
}

pub(super) fn push(segments: &mut Vec<Segment>, segment: Segment) -> Result<(), TarError> {
    if segments.len() == MAX_SEGMENTS {
        return Err(TarError::TooLong { what: "sparse map", length: MAX_SEGMENTS as u64 + 1 });
    }
    segments.push(segment);
    Ok(())
}

impl Described {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            // 1.0 calls it realsize, the others size.
            b"size" | b"realsize" => self.size = Some(decimal(value, "sparse size")?),
            b"major" => self.major = decimal(value, "sparse version")?,
            b"map" => {
                let numbers: Result<_, _> = if value.is_empty() {
                    Ok(Vec::new())
                } else {
                    value.split(|b| *b == b',').map(|number| decimal(number, "sparse map")).collect()
                };
                self.numbers = numbers?;
                self.mapped = true;
            }
            b"offset" | b"numbytes" => {
                // 0.0 has the pairs as records of their own, in turns.
                if self.numbers.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(bad("map"));
                }
                self.numbers.push(decimal(value, "sparse map")?);
                self.mapped = true;
            }
            b"numblocks" => self.mapped = true,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn is_version_1(&self) -> bool {
        self.major == 1
    }

    /// The map of 0.0 and 0.1, which stands in the records.
    pub(super) fn take_map(&mut self) -> Result<Option<Vec<Segment>>, TarError> {
        if !self.mapped || self.is_version_1() {
            return Ok(None);
        }
        pairs(&std::mem::take(&mut self.numbers)).map(Some)
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("map"));
    }
    let mut segments = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        push(&mut segments, Segment { offset: pair[0], length: pair[1] })?;
    }
    Ok(segments)
}

/// The map of 1.0: decimal lines at the start of the body, their number first, padded to a block.
pub(super) fn read_map<R: BufRead>(reader: &mut Reader<R>) -> Result<Vec<Segment>, TarError> {
    let (mut line, mut numbers, mut wanted, mut taken) = (Vec::new(), Vec::new(), None, 0usize);
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        let chunk = reader.chunk()?;
        let Some(byte) = chunk.first().copied() else { return Err(bad("map")) };
        reader.consume(1);
        taken += 1;
        if byte != b'\n' {
            line.push(byte);
            if line.len() > 20 {
                return Err(bad("map"));
            }
            continue;
        }
        let number = decimal(&line, "sparse map")?;
        line.clear();
        if wanted.is_some() {
            numbers.push(number);
            continue;
        }
        let count = usize::try_from(number).ok().filter(|count| *count <= MAX_SEGMENTS);
        wanted = Some(count.ok_or(TarError::TooLong { what: "sparse map", length: number })? * 2);
    }
    let mut padding = taken.next_multiple_of(BLOCK) - taken;
    while padding > 0 {
        let count = reader.chunk()?.len().min(padding);
        if count == 0 {
            return Err(bad("map"));
        }
        reader.consume(count);
        padding -= count;
    }
    pairs(&numbers)
}

/// Segments ascend, do not overlap, lie within the file and take exactly the body.
pub(super) fn check(segments: &[Segment], size: u64, body: u64) -> Result<(), TarError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(bad("map"));
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(|| bad("map"))?;
        sum += segment.length;
    }
    // i64 is what ftruncate(2) takes.
    if end > size || sum != body || i64::try_from(size).is_err() { Err(bad("map")) } else { Ok(()) }
}
