//! The records of PAX extension headers: `LENGTH KEY=VALUE\n` (POSIX pax, "pax Extended Header").

use base64::Engine as _;

use super::TarError;
use super::sparse::Described;

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

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
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    libarchive: Vec<(Vec<u8>, Vec<u8>)>,
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
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                    self.libarchive.push(libarchive(name, value)?);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes over what another header says.
    pub(super) fn update(&mut self, other: Records) {
        *self = self.with(&other);
    }

    /// These records, overridden by those of one entry.
    pub(super) fn with(&self, local: &Records) -> Records {
        let both =
            |a: &Vec<(Vec<u8>, Vec<u8>)>, b: &Vec<(Vec<u8>, Vec<u8>)>| [a.as_slice(), b.as_slice()].concat();
        Records {
            path: local.path.clone().or_else(|| self.path.clone()),
            link: local.link.clone().or_else(|| self.link.clone()),
            size: local.size.or(self.size),
            uid: local.uid.or(self.uid),
            gid: local.gid.or(self.gid),
            mtime: local.mtime.or(self.mtime),
            sparse: local.sparse.clone(),
            xattrs: both(&self.xattrs, &local.xattrs),
            libarchive: both(&self.libarchive, &local.libarchive),
        }
    }

    /// The attributes, each name once: libarchive writes both forms, and the last one of a name counts.
    pub(super) fn into_xattrs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, value) in self.libarchive.into_iter().chain(self.xattrs) {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => all.push((name, value)),
            }
        }
        all
    }
}
