//! The records of PAX extension headers: `LENGTH KEY=VALUE\n` (POSIX pax, "pax Extended Header").

use std::collections::BTreeMap;

use base64::Engine as _;

use super::sparse::Described;
use super::{MAX_RECORDS, TarError};

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// Extended attributes that an entry may have. Real ones have a few: a label, capabilities, two ACLs. Each costs a
/// system call, and those of a global header count for every entry.
const MAX_XATTRS: usize = 256;

/// Bytes of an extended attribute (XATTR_SIZE_MAX of Linux).
const MAX_XATTR: usize = 64 << 10;

/// Names and values, each name once.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What records say about an entry; what they leave open stands in its header.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) sparse: Described,
    xattrs: Xattrs,
    libarchive: Xattrs,
}

/// Adds an attribute, in the place of one of its name.
fn put(all: &mut Xattrs, name: Vec<u8>, value: Vec<u8>) -> Result<(), TarError> {
    if value.len() > MAX_XATTR {
        return Err(TarError::Limit { what: "bytes in an extended attribute", limit: MAX_XATTR });
    }
    match all.iter().position(|(known, _)| *known == name) {
        Some(at) => all[at].1 = value,
        None if all.len() == MAX_XATTRS => return Err(too_many()),
        None => all.push((name, value)),
    }
    Ok(())
}

fn too_many() -> TarError {
    TarError::Limit { what: "extended attributes of an entry", limit: MAX_XATTRS }
}

fn bad(field: &str) -> TarError {
    TarError::Field { field: format!("extension header: {field}"), path: String::new() }
}

pub(super) fn decimal(bytes: &[u8], field: &str) -> Result<u64, TarError> {
    let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(bytes).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad(field))
}

/// `[-]SECONDS[.FRACTION]`. A negative time with a fraction counts up from the second before.
fn time(bytes: &[u8]) -> Result<(i64, u32), TarError> {
    let (negative, bytes) = bytes.strip_prefix(b"-").map_or((false, bytes), |rest| (true, rest));
    let dot = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    let fraction = bytes.get(dot + 1..).unwrap_or_default();
    let seconds = i64::try_from(decimal(&bytes[..dot], "mtime")?).map_err(|_| bad("mtime"))?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad("mtime"));
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// libarchive writes names with `%XX` and values in base64, often without padding.
fn libarchive(name: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TarError> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, code.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                rest = &tail[2..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    let bare = value.split(|b| *b == b'=').next().unwrap_or_default();
    let value = base64::engine::general_purpose::STANDARD_NO_PAD.decode(bare);
    Ok((plain, value.map_err(|_| bad("LIBARCHIVE.xattr"))?))
}

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Records, TarError> {
        let mut records = Records::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|b| *b == b' ').ok_or_else(|| bad("length"))?;
            let length = usize::try_from(decimal(&bytes[..space], "length")?).map_err(|_| bad("length"))?;
            let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(|| bad("length"))?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| bad("record"))?;
            records.set(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(records)
    }

    /// An empty value takes the record back, except for an extended attribute, which may be empty.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let given = !value.is_empty();
        let bytes = || given.then(|| value.to_vec());
        let number = |field| if given { decimal(value, field).map(Some) } else { Ok(None) };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number("size")?,
            b"uid" => self.uid = number("uid")?,
            b"gid" => self.gid = number("gid")?,
            b"mtime" => self.mtime = if given { Some(time(value)?) } else { None },
            _ => {
                if let Some(name) = key.strip_prefix(SCHILY) {
                    put(&mut self.xattrs, name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                    let (name, value) = libarchive(name, value)?;
                    put(&mut self.libarchive, name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes over what another global header says. All of them together may have what one may have: they hold for
    /// each entry that follows.
    pub(super) fn update(&mut self, other: Records) -> Result<(), TarError> {
        *self = self.with(other)?;
        // What a sparse file's map says is that file's own.
        self.sparse = Described::default();
        let xattrs = self.xattrs.iter().chain(&self.libarchive).map(|(name, value)| name.len() + value.len());
        let names = [&self.path, &self.link].into_iter().flatten().map(Vec::len);
        let length = xattrs.chain(names).sum::<usize>() as u64;
        if length > MAX_RECORDS {
            return Err(TarError::TooLong { what: "global records", length });
        }
        Ok(())
    }

    /// These records, overridden by those of one entry.
    pub(super) fn with(&self, local: Records) -> Result<Records, TarError> {
        let over = |global: &Xattrs, local: Xattrs| -> Result<Xattrs, TarError> {
            if global.is_empty() {
                return Ok(local);
            }
            let mut all = global.clone();
            for (name, value) in local {
                put(&mut all, name, value)?;
            }
            Ok(all)
        };
        Ok(Records {
            path: local.path.or_else(|| self.path.clone()),
            link: local.link.or_else(|| self.link.clone()),
            size: local.size.or(self.size),
            uid: local.uid.or(self.uid),
            gid: local.gid.or(self.gid),
            mtime: local.mtime.or(self.mtime),
            sparse: local.sparse,
            xattrs: over(&self.xattrs, local.xattrs)?,
            libarchive: over(&self.libarchive, local.libarchive)?,
        })
    }

    /// The attributes by name, each once: libarchive writes both forms, and SCHILY's counts.
    pub(super) fn into_xattrs(self) -> Result<Xattrs, TarError> {
        if self.libarchive.is_empty() {
            return Ok(self.xattrs);
        }
        let all: BTreeMap<_, _> = self.libarchive.into_iter().chain(self.xattrs).collect();
        if all.len() > MAX_XATTRS { Err(too_many()) } else { Ok(all.into_iter().collect()) }
    }
}
