//! Digests: the names of content (image-spec descriptor.md, "Digests").
//!
//! A `Digest` is of a registered algorithm that creel computes, with exactly the lower-case hex
//! digits that it takes, so that it may stand in a path. Anything else is an error that names
//! what was met.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The algorithms of image-spec that every registry knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which implementations must have.
    Sha256,
    /// SHA-512, which they may have.
    Sha512,
}

impl Algorithm {
    /// The word before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn of_name(name: &str) -> Option<Algorithm> {
        match name {
            "sha256" => Some(Algorithm::Sha256),
            "sha512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// Why a text is not a digest that creel can check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DigestError {
    /// It is not `algorithm:encoded` at all, or the digits are not the algorithm's.
    Malformed(String),
    /// It is well formed; the algorithm is one that creel does not compute.
    UnknownAlgorithm(String),
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DigestError::Malformed(text) => write!(f, "{text:?} is not a digest"),
            DigestError::UnknownAlgorithm(name) => {
                write!(f, "digest algorithm {name:?} is unknown; creel checks sha256 and sha512")
            }
        }
    }
}

impl std::error::Error for DigestError {}

/// `sha256:` or `sha512:` and the lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

impl Digest {
    /// The digest of some bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The first twelve digits, as people know images by.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text has the grammar of a digest, of a known algorithm or not.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let component =
        |c: &str| !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    algorithm.split(['+', '.', '_', '-']).all(component)
        && !encoded.is_empty()
        && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        if !is_well_formed(text) {
            return Err(DigestError::Malformed(text.to_string()));
        }
        let (name, hex) = text.split_once(':').unwrap_or((text, ""));
        let Some(algorithm) = Algorithm::of_name(name) else {
            return Err(DigestError::UnknownAlgorithm(name.to_string()));
        };
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Malformed(text.to_string()));
        }
        Ok(Digest { algorithm, text: text.to_string() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Of nothing yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        let mut text = String::with_capacity(7 + bytes.len() * 2);
        text.push_str(algorithm.name());
        text.push(':');
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Digest { algorithm, text }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// A reader that gives exactly the bytes that a descriptor promised, or an error.
///
/// It reads at most one byte past the size, fails with `InvalidData` on a longer or different content
/// and with `UnexpectedEof` on a shorter one. The end of file is only told after the digest was right.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    expected: Digest,
    hasher: Option<Hasher>,
    size: u64,
    seen: u64,
}

impl<R: Read> Verified<R> {
    /// Reads `inner` as the content of `expected`, `size` bytes long.
    pub fn new(inner: R, expected: Digest, size: u64) -> Verified<R> {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Verified { inner, expected, hasher, size, seen: 0 }
    }

    fn check_end(&mut self) -> io::Result<usize> {
        let Some(hasher) = self.hasher.take() else { return Ok(0) };
        if self.seen < self.size {
            let why = format!("{}: ends after {} of {} bytes", self.expected, self.seen, self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        let found = hasher.finish();
        if found != self.expected {
            let why = format!("{}: the content has the digest {found}", self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(0)
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buf)?;
        if count == 0 {
            return self.check_end();
        }
        self.seen += count as u64;
        if self.seen > self.size {
            let why = format!("{}: longer than its {} bytes", self.expected, self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), EMPTY);
        let long = Digest::of(Algorithm::Sha512, b"abc");
        assert!(long.hex().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
    }

    #[test]
    fn only_exact_digits_of_known_algorithms_are_taken() {
        let cases: [(&str, bool); 9] = [
            (EMPTY, false),
            (&EMPTY.to_uppercase(), false),
            (&EMPTY[..70], false),
            ("sha256:../../../../etc/passwd", false),
            ("", false),
            ("sha256", false),
            ("sha256:", false),
            ("blake3:af1349b9f5f9a1a6", true),
            ("sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g", true),
        ];
        for (text, unknown) in cases {
            match text.parse::<Digest>() {
                Ok(digest) => assert_eq!(digest.as_str(), EMPTY),
                Err(DigestError::UnknownAlgorithm(_)) => assert!(unknown, "{text}"),
                Err(DigestError::Malformed(_)) => assert!(!unknown && text != EMPTY, "{text}"),
            }
        }
    }

    #[test]
    fn verified_content_is_exact() {
        let digest = Digest::of(Algorithm::Sha256, b"layer");
        let read = |bytes: &'static [u8], size| {
            let mut out = Vec::new();
            Verified::new(bytes, digest.clone(), size).read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(b"layer", 5).unwrap(), b"layer");
        assert_eq!(read(b"laye", 5).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"layer", 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"lawyer", 6).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
