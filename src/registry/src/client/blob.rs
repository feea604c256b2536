//! Blobs: read as a stream that survives broken connections.
//!
//! When a connection ends early, the stream is asked for again from the byte it stopped at, at the
//! registry's own URL and not at the signed one it redirected to, which may have expired; to the reader
//! it is one stream. A server that ignores `Range` sends everything again, and what was read is skipped; one
//! that refuses it, or sends another part, is asked once more for everything.
//! The number of bytes is checked here, the digest by the reader (`creel_image_lib::digest::Verified`):
//! a pipeline hashes on another thread, and one that resumes an earlier run has hashed the start already.

use std::io::{self, Read};

use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Digest, Verified};
use ureq::http::Method;
use ureq::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE};

use super::Repository;
use super::remote::{Ask, Remote};
use crate::error::{Error, Fault};
use crate::http::{Payload, Request, Response, read_failure};
use crate::location::Origin;

/// Progress that makes up for a broken connection: a link that carries this much between two breaks is
/// bad, but carries.
const PROGRESS: u64 = 1 << 20;

/// A blob from `offset` to its end, as `Read`. Its errors hold an [`Error`]; see [`Error::from_io`].
pub struct Blob {
    repository: Repository,
    digest: Digest,
    size: u64,
    /// Where else it may be, when the registry does not have it.
    urls: Vec<String>,
    position: u64,
    body: Option<Body>,
    /// Breaks since the last real progress, and where that began.
    breaks: u32,
    mark: u64,
    ended: bool,
}

struct Body {
    origin: Origin,
    reader: Box<dyn Read + Send>,
    /// Bytes that the reader of the blob has already.
    skip: u64,
}

impl Repository {
    /// Opens a blob at `offset`, which is not 0 when an earlier run left a part that the caller has
    /// hashed itself.
    ///
    /// # Errors
    /// Whatever keeps every place from answering; [`Error::WrongSize`] when the server's blob is longer
    /// or shorter than `size`.
    pub fn blob(&self, digest: &Digest, size: u64, offset: u64) -> Result<Blob, Error> {
        self.open_blob(digest, size, offset, Vec::new())
    }

    /// Opens the blob of a descriptor like [`Repository::blob`], from the descriptor's `urls` when the
    /// registry does not have it: layers that may not be distributed lie there. They get no credential,
    /// and lead neither to this machine nor to its link.
    ///
    /// # Errors
    /// As [`Repository::blob`]; a digest of an unknown algorithm.
    pub fn blob_of(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob, Error> {
        let digest = descriptor.digest().map_err(|error| Error::Invalid(error.to_string()))?;
        self.open_blob(&digest, descriptor.size, offset, descriptor.urls.clone())
    }

    fn open_blob(&self, digest: &Digest, size: u64, offset: u64, urls: Vec<String>) -> Result<Blob, Error> {
        if offset > size {
            return Err(Error::Invalid(format!("{digest}: offset {offset} is past its {size} bytes")));
        }
        let mut blob = Blob {
            repository: self.clone(),
            digest: digest.clone(),
            size,
            urls,
            position: offset,
            body: None,
            breaks: 0,
            mark: offset,
            ended: offset == size,
        };
        if !blob.ended {
            blob.open()?;
        }
        Ok(blob)
    }

    /// A small blob whole, its digest verified: a configuration, an artifact's empty document.
    ///
    /// # Errors
    /// As [`Repository::blob`]; [`Error::TooLarge`] above `limit`.
    pub fn blob_bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let digest = descriptor.digest().map_err(|error| Error::Invalid(error.to_string()))?;
        if descriptor.size > limit {
            let (host, what) = (self.name.clone(), digest.to_string());
            return Err(Error::TooLarge { host, what, limit });
        }
        let blob = self.blob(&digest, descriptor.size, 0)?;
        let mut bytes = Vec::new();
        match Verified::new(blob, digest.clone(), descriptor.size).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Error::from_io(error).unwrap_or_else(|_| Error::WrongDigest {
                host: self.name.clone(),
                what: "blob".into(),
                expected: digest.to_string(),
                actual: Digest::of(digest.algorithm(), &bytes).to_string(),
            })),
        }
    }

    /// The size of a blob that the registry itself has.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let remote = self.registry()?;
        self.retry().run(|| remote.blob_size(digest, &remote.pull_scopes()))
    }
}

impl Remote {
    pub(super) fn blob_size(
        &self,
        digest: &Digest,
        scopes: &crate::auth::Scopes,
    ) -> Result<Option<u64>, Error> {
        let request = self.request(Method::HEAD, &format!("blobs/{digest}"))?;
        let response = self.send(&Ask { request, scopes }, &mut Payload::None)?;
        match response.status {
            200 => response.length().map(Some).ok_or_else(|| response.malformed("a blob without a length")),
            404 => Ok(None),
            _ => Err(response.refusal()),
        }
    }
}

impl Blob {
    /// How many bytes of the blob the reader has, those before the offset included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    fn open(&mut self) -> Result<(), Error> {
        let part = Part { digest: &self.digest, size: self.size, position: self.position };
        let found = self.repository.first(|_| true, |remote| part.at_registry(remote));
        let body = match found {
            Err(error) if error.is_not_found() && !self.urls.is_empty() => {
                self.open_elsewhere(error, &part)?
            }
            other => other?,
        };
        self.body = Some(body);
        Ok(())
    }

    fn open_elsewhere(&self, absent: Error, part: &Part<'_>) -> Result<Body, Error> {
        let remote = self.repository.registry()?;
        let mut errors = vec![absent];
        for url in &self.urls {
            match self.repository.retry().run(|| part.at_url(remote, url)) {
                Ok(body) => return Ok(body),
                Err(error) => errors.push(error),
            }
        }
        Err(Error::Everywhere(errors))
    }

    /// Takes note of a break: an error when there were too many.
    fn broke(&mut self, error: Error) -> Result<(), Error> {
        self.body = None;
        if self.position - self.mark >= PROGRESS {
            self.breaks = 0;
        }
        self.mark = self.position;
        self.breaks += 1;
        self.repository.retry().wait(self.breaks, error)
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        while !self.ended {
            let Some(body) = &mut self.body else {
                self.open()?;
                continue;
            };
            // Past the size one byte is asked for, which must not come. It also tells the connection
            // that the answer is over, so that it serves again.
            let left = self.size - self.position;
            let room = usize::try_from(left.max(1)).unwrap_or(usize::MAX).min(buffer.len());
            match body.read(&mut buffer[..room]) {
                Ok(0) if left == 0 => self.end(),
                Ok(0) => {
                    let cause = format!("the connection ended at byte {} of {}", self.position, self.size);
                    let error = Error::Unreachable { host: body.origin.name(), fault: Fault::Broken, cause };
                    self.broke(error)?;
                }
                Ok(_) if left == 0 => {
                    let (host, what) = (body.origin.name(), self.digest.to_string());
                    return Err(Error::TooLarge { host, what, limit: self.size });
                }
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // All bytes came: how the connection ended is of no interest.
                Err(_) if left == 0 => self.end(),
                Err(error) => {
                    let error = read_failure(&body.origin, &error);
                    self.broke(error)?;
                }
            }
        }
        Ok(0)
    }

    fn end(&mut self) {
        self.ended = true;
        self.body = None;
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.step(buffer).map_err(io::Error::other)
    }
}

impl Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waste = [0; 8192];
        while self.skip > 0 {
            let room = usize::try_from(self.skip).unwrap_or(usize::MAX).min(waste.len());
            match self.reader.read(&mut waste[..room])? {
                0 => return Ok(0),
                count => self.skip -= count as u64,
            }
        }
        self.reader.read(buffer)
    }
}

/// What is still to be read of a blob.
struct Part<'a> {
    digest: &'a Digest,
    size: u64,
    position: u64,
}

impl Part<'_> {
    fn at_registry(&self, remote: &Remote) -> Result<Body, Error> {
        let request = remote.request(Method::GET, &format!("blobs/{}", self.digest))?;
        let scopes = remote.pull_scopes();
        self.body(|from| {
            let request = with_range(request.clone(), from);
            remote.send(&Ask { request, scopes: &scopes }, &mut Payload::None)
        })
    }

    fn at_url(&self, remote: &Remote, url: &str) -> Result<Body, Error> {
        self.body(|from| remote.fetch_elsewhere(url, |request| with_range(request, from)))
    }

    /// Asks for the rest, and for everything where that is refused: the whole blob may be there all the same.
    fn body(&self, ask: impl Fn(u64) -> Result<Response, Error>) -> Result<Body, Error> {
        if self.position > 0 {
            let response = ask(self.position)?;
            let is_rest = match response.status {
                206 => content_range(&response).is_some_and(|(start, _)| start == self.position),
                400 | 416 | 501 => false,
                _ => true,
            };
            if is_rest {
                return self.checked(response, self.position);
            }
        }
        self.checked(ask(0)?, 0)
    }

    /// The body of an answer to a request for the bytes from `asked` on.
    fn checked(&self, response: Response, asked: u64) -> Result<Body, Error> {
        let encoding =
            response.header(CONTENT_ENCODING).filter(|text| !text.eq_ignore_ascii_case("identity"));
        if let Some(encoding) = encoding {
            return Err(response.malformed(format!("sent as {encoding}, which was not asked for")));
        }
        let skip = match response.status {
            200 => {
                self.check_size(&response, response.length())?;
                self.position
            }
            206 if asked > 0 => {
                self.check_size(&response, content_range(&response).and_then(|(_, total)| total))?;
                self.check_size(&response, response.length().map(|length| asked.saturating_add(length)))?;
                0
            }
            206 => return Err(response.malformed("a part, though the whole was asked for")),
            _ => return Err(response.refusal()),
        };
        Ok(Body { origin: response.origin.clone(), reader: response.into_reader(), skip })
    }

    fn check_size(&self, response: &Response, actual: Option<u64>) -> Result<(), Error> {
        match actual {
            Some(actual) if actual != self.size => {
                let (host, what) = (response.origin.name(), self.digest.to_string());
                Err(Error::WrongSize { host, what, expected: self.size, actual })
            }
            _ => Ok(()),
        }
    }
}

fn with_range(request: Request, from: u64) -> Request {
    let request = request.with(ACCEPT_ENCODING, "identity");
    if from == 0 { request } else { request.with(RANGE, &format!("bytes={from}-")) }
}

/// First byte and total of `bytes 5-9/10`; the total may be `*`.
fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let (range, total) = response.header(CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}
