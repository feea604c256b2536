//! Push: blobs first, then the manifests that name them.
//!
//! A blob that the registry has is not sent, one of another of its repositories is mounted, and only the
//! rest is uploaded, in one PUT or in chunks (distribution-spec, "Pushing Blobs"). An upload that fails
//! for a passing reason starts again from its source; one in chunks goes on where the registry says it
//! stands.

use std::io::{self, Read};

use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::manifest::{MAX_BYTES, media_type};
use creel_image_lib::reference::check_tag;
use serde_json::{Value, json};
use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use ureq::http::{Method, Uri};

use super::Repository;
use super::list::{Listed, referrers_tag};
use super::manifest::CONTENT_DIGEST;
use super::remote::{Ask, Remote};
use crate::auth::Scopes;
use crate::error::{Error, Fault};
use crate::http::{Payload, Response};
use crate::location;

const OCTETS: &str = "application/octet-stream";
/// A registry may ask for larger chunks; creel holds one in memory, and no more than this.
const MAX_CHUNK: u64 = 64 << 20;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// One PUT of the whole blob, streamed.
    Monolithic,
    /// PATCHes of this many bytes, each held in memory until the registry has it.
    Chunked(usize),
}

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Already,
    /// It was in the repository to mount from.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// Where a blob's bytes come from; asked again when an upload starts again.
pub trait Source {
    /// The bytes from the first.
    ///
    /// # Errors
    /// Whatever keeps the source from opening.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl<F: Fn() -> io::Result<Box<dyn Read + Send>>> Source for F {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self()
    }
}

impl Repository {
    /// Brings a blob into the registry. `mount_from` is another repository of the same registry that may
    /// have it.
    ///
    /// # Errors
    /// The registry's refusal, [`Error::Source`], or what keeps the registry from answering.
    pub fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: &dyn Source,
        upload: Upload,
        mount_from: Option<&str>,
    ) -> Result<Pushed, Error> {
        let remote = &self.written;
        let scopes = Scopes::push(remote.repository(), mount_from);
        let push = Push { remote, scopes: &scopes, digest, size };
        self.retry().run(|| {
            // Asked on every try: an upload whose answer was lost may have arrived.
            if remote.blob_size(digest, &scopes)?.is_some() {
                return Ok(Pushed::Already);
            }
            let Some((session, least)) = push.begin(mount_from)? else { return Ok(Pushed::Mounted) };
            let sent = match upload {
                Upload::Monolithic => push.whole(&session, source),
                Upload::Chunked(length) => push.chunks(session.clone(), source, (length as u64).max(least)),
            };
            if sent.is_err() {
                push.abandon(session);
            }
            sent.map(|()| Pushed::Uploaded)
        })
    }

    /// Stores a manifest or an index under a tag, or under its digest. What it names must be there.
    ///
    /// Where it has a `subject` and the registry keeps no list of referrers, it is entered in the index
    /// that stands for the list.
    ///
    /// # Errors
    /// The registry's refusal, or what keeps it from answering.
    pub fn push_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let remote = &self.written;
        let digest = digest_for(name, bytes)?;
        let scopes = Scopes::push(remote.repository(), None);
        let keeps_referrers =
            self.retry().run(|| remote.put_manifest(name, media_type, bytes, &digest, &scopes))?;
        if let Some(entry) = referrer(bytes, media_type, &digest).filter(|_| !keeps_referrers) {
            self.retry().run(|| remote.enter_referrer(&entry.0, &entry.1, &scopes))?;
        }
        Ok(digest)
    }
}

/// The digest that `name` asks for, which must be of these bytes, or the one they have.
fn digest_for(name: &str, bytes: &[u8]) -> Result<Digest, Error> {
    if !name.contains(':') {
        check_tag(name).map_err(|error| Error::Invalid(error.to_string()))?;
        return Ok(Digest::of(Algorithm::Sha256, bytes));
    }
    let named: Digest = name.parse().map_err(|error| Error::Invalid(format!("{error}")))?;
    let actual = Digest::of(named.algorithm(), bytes);
    if actual == named {
        return Ok(actual);
    }
    Err(Error::Invalid(format!("manifest to push as {named} has the digest {actual}")))
}

/// The subject of a manifest, and the entry for it in a list of referrers (image-spec manifest.md,
/// "subject"; distribution-spec, "Pushing Manifests with Subject").
fn referrer(bytes: &[u8], media_type: &str, digest: &Digest) -> Option<(Digest, Value)> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let subject = document.get("subject")?.get("digest")?.as_str()?.parse().ok()?;
    let own = document.get("artifactType").and_then(Value::as_str).filter(|kind| !kind.is_empty());
    let config = || document.get("config")?.get("mediaType")?.as_str();
    let mut entry = json!({ "mediaType": media_type, "digest": digest.as_str(), "size": bytes.len() });
    if let Some(kind) = own.or_else(config) {
        entry["artifactType"] = kind.into();
    }
    if let Some(annotations) = document.get("annotations").filter(|value| value.is_object()) {
        entry["annotations"] = annotations.clone();
    }
    Some((subject, entry))
}

impl Remote {
    /// True when the registry enters the manifest's subject in its own list.
    fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: &[u8],
        digest: &Digest,
        scopes: &Scopes,
    ) -> Result<bool, Error> {
        let request = self.request(Method::PUT, &format!("manifests/{name}"))?.with(CONTENT_TYPE, media_type);
        let response = self.send(&Ask { request, scopes }, &mut Payload::Bytes(bytes))?;
        if !matches!(response.status, 200..=202) {
            return Err(response.refusal());
        }
        let stored = response.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        if let Some(stored) =
            stored.filter(|stored| stored.algorithm() == digest.algorithm() && stored != digest)
        {
            let (host, what) = (response.origin.name(), response.request.clone());
            let (expected, actual) = (digest.to_string(), stored.to_string());
            return Err(Error::WrongDigest { host, what, expected, actual });
        }
        let keeps_referrers = response.header("oci-subject").is_some();
        response.drain();
        Ok(keeps_referrers)
    }

    /// Adds an entry to the index behind the tag of the tag schema; the entries that are there stay as
    /// they are. Two at once may lose one: the protocol has no condition that every registry honours.
    fn enter_referrer(&self, subject: &Digest, entry: &Value, scopes: &Scopes) -> Result<(), Error> {
        let mut index = match self.referrers_index(subject)? {
            Some(Listed { bytes, entries }) => {
                if entries.iter().any(|known| Some(known.digest_text()) == entry["digest"].as_str()) {
                    return Ok(());
                }
                serde_json::from_slice(&bytes).unwrap_or_default()
            }
            None => Value::Null,
        };
        if !index.is_object() {
            index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] });
        }
        match index["manifests"].as_array_mut() {
            Some(entries) => entries.push(entry.clone()),
            None => index["manifests"] = json!([entry]),
        }
        let bytes = index.to_string().into_bytes();
        if bytes.len() > MAX_BYTES {
            let (host, what) = (self.host().to_owned(), referrers_tag(subject));
            return Err(Error::TooLarge { host, what, limit: MAX_BYTES as u64 });
        }
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        self.put_manifest(&referrers_tag(subject), media_type::OCI_INDEX, &bytes, &digest, scopes).map(|_| ())
    }
}

/// One blob on its way.
struct Push<'a> {
    remote: &'a Remote,
    scopes: &'a Scopes,
    digest: &'a Digest,
    size: u64,
}

impl Push<'_> {
    /// Starts an upload: where to send it, and the least that a chunk may hold. Nothing when the blob
    /// was mounted instead.
    fn begin(&self, mount_from: Option<&str>) -> Result<Option<(Uri, u64)>, Error> {
        let query = mount_from.map(|from| {
            format!("?mount={}&from={}", location::encode(self.digest.as_str()), location::encode(from))
        });
        let path = format!("blobs/uploads/{}", query.unwrap_or_default());
        let request = self.remote.request(Method::POST, &path)?;
        let response = self.send(request, &mut Payload::Bytes(&[]))?;
        match response.status {
            201 if mount_from.is_some() => {
                response.drain();
                Ok(None)
            }
            202 => {
                let location = response.location()?;
                let least = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
                let least = least.unwrap_or(0);
                if least > MAX_CHUNK {
                    return Err(
                        response.malformed(format!("chunks of at least {least} bytes are too large to hold"))
                    );
                }
                response.drain();
                Ok(Some((location, least)))
            }
            _ => Err(response.refusal()),
        }
    }

    fn whole(&self, session: &Uri, source: &dyn Source) -> Result<(), Error> {
        let mut reader = self.reader(source)?;
        let request = self.remote.request_at(Method::PUT, self.closing(session)?)?.with(CONTENT_TYPE, OCTETS);
        let mut payload = Payload::Stream { reader: &mut reader, length: self.size };
        let answer = self.send(request, &mut payload);
        if let Some(cause) = reader.failed.take() {
            return Err(Error::Source { what: self.digest.to_string(), cause });
        }
        self.closed(answer?)
    }

    fn chunks(&self, mut session: Uri, source: &dyn Source, length: u64) -> Result<(), Error> {
        let length = usize::try_from(length.clamp(1, MAX_CHUNK)).unwrap_or(1);
        let mut reader = self.reader(source)?;
        let mut chunk = Vec::new();
        let mut start = 0;
        while start < self.size {
            chunk.clear();
            let read = reader.by_ref().take(length as u64).read_to_end(&mut chunk);
            read.map_err(|cause| Error::Source { what: self.digest.to_string(), cause })?;
            session = self.chunk(session, start, &chunk)?;
            start += chunk.len() as u64;
        }
        let request = self.remote.request_at(Method::PUT, self.closing(&session)?)?;
        let answer = self.send(request, &mut Payload::Bytes(&[]))?;
        self.closed(answer)
    }

    /// Sends one chunk, or what the registry lacks of it after a failure; gives where to send the next.
    fn chunk(&self, mut session: Uri, start: u64, chunk: &[u8]) -> Result<Uri, Error> {
        let end = start + chunk.len() as u64;
        let mut at = start;
        let mut failed = 0;
        loop {
            let rest =
                usize::try_from(at - start).ok().and_then(|sent| chunk.get(sent..)).unwrap_or_default();
            let request = self
                .remote
                .request_at(Method::PATCH, session.clone())?
                .with(CONTENT_TYPE, OCTETS)
                .with(CONTENT_RANGE, &format!("{at}-{}", end - 1));
            let error = match self.send(request, &mut Payload::Bytes(rest)) {
                Ok(response) if response.status == 202 => {
                    let next = response.location()?;
                    response.drain();
                    return Ok(next);
                }
                // Another offset than the registry's: 416 says so, and where it stands.
                Ok(response) if response.status == 416 && failed == 0 => {
                    failed += 1;
                    response.drain();
                    None
                }
                Ok(response) => Some(response.refusal()),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                failed += 1;
                self.remote.retry().wait(failed, error)?;
            }
            let (next, offset) = self.standing(&session)?;
            if !(start..=end).contains(&offset) {
                return Err(Error::Invalid(format!(
                    "{}: the upload stands at byte {offset}, and creel holds {start} to {end}; push again",
                    self.digest
                )));
            }
            if offset == end {
                return Ok(next);
            }
            (session, at) = (next, offset);
        }
    }

    /// Where an upload goes on, and how many bytes the registry has of it.
    fn standing(&self, session: &Uri) -> Result<(Uri, u64), Error> {
        let request = self.remote.request_at(Method::GET, session.clone())?;
        let response = self.send(request, &mut Payload::None)?;
        if response.status == 404 {
            // docker-registry gives up an upload whose last answer was lost: the location that creel
            // has then tells of fewer bytes than are there. The whole upload starts again.
            let (host, fault) = (response.origin.name(), Fault::Broken);
            return Err(Error::Unreachable { host, fault, cause: "the registry gave up the upload".into() });
        }
        if response.status != 204 {
            return Err(response.refusal());
        }
        let last: u64 = response
            .header(RANGE)
            .and_then(|range| range.rsplit_once('-')?.1.trim().parse().ok())
            .ok_or_else(|| response.malformed("the state of an upload without a usable Range"))?;
        // "0-0" is what registries say of nothing at all.
        Ok((response.location()?, if last == 0 { 0 } else { last + 1 }))
    }

    /// Tells the registry to forget an upload. It forgets by itself in time: a failure is of no matter.
    fn abandon(&self, session: Uri) {
        if let Ok(request) = self.remote.request_at(Method::DELETE, session) {
            self.send(request, &mut Payload::None).map(Response::drain).ok();
        }
    }

    fn closing(&self, session: &Uri) -> Result<Uri, Error> {
        location::with_query(session, &[("digest", self.digest.as_str())])
            .ok_or_else(|| Error::Invalid("an upload's location that takes no digest".into()))
    }

    fn closed(&self, response: Response) -> Result<(), Error> {
        if !matches!(response.status, 201 | 204) {
            return Err(response.refusal());
        }
        response.drain();
        Ok(())
    }

    fn send(&self, request: crate::http::Request, payload: &mut Payload<'_>) -> Result<Response, Error> {
        self.remote.send(&Ask { request, scopes: self.scopes }, payload)
    }

    fn reader(&self, source: &dyn Source) -> Result<Exactly, Error> {
        let inner = source.open().map_err(|cause| Error::Source { what: self.digest.to_string(), cause })?;
        Ok(Exactly { inner, left: self.size, failed: None })
    }
}

/// As many bytes as were promised, or an error that is kept: what HTTP makes of it is less clear.
struct Exactly {
    inner: Box<dyn Read + Send>,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..room]) {
            Ok(0) => {
                let why = format!("ends {} bytes early", self.left);
                self.failed = Some(io::Error::new(io::ErrorKind::UnexpectedEof, why.clone()));
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
            }
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(copy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use creel_image_lib::digest::{Algorithm, Digest};

    use super::{digest_for, referrer};

    #[test]
    fn the_entry_of_a_referrer_has_its_type_and_annotations() {
        let subject = Digest::of(Algorithm::Sha256, b"subject");
        let digest = Digest::of(Algorithm::Sha256, b"own");
        let manifest = format!(
            r#"{{"config":{{"mediaType":"application/vnd.oci.empty.v1+json"}},"artifactType":"application/x",
                "subject":{{"digest":"{subject}"}},"annotations":{{"a":"b"}}}}"#
        );
        let (found, entry) = referrer(manifest.as_bytes(), "application/m", &digest).unwrap();
        assert_eq!(found, subject);
        let expected = format!(
            r#"{{"annotations":{{"a":"b"}},"artifactType":"application/x","digest":"{digest}","mediaType":"application/m","size":{}}}"#,
            manifest.len()
        );
        assert_eq!(entry.to_string(), expected);
        let manifest = manifest.replace(r#""artifactType":"application/x","#, "");
        let (_, entry) = referrer(manifest.as_bytes(), "application/m", &digest).unwrap();
        assert_eq!(entry["artifactType"], "application/vnd.oci.empty.v1+json");
        assert!(referrer(b"{}", "application/m", &digest).is_none());
    }

    #[test]
    fn a_manifest_is_not_pushed_under_anothers_digest() {
        let digest = Digest::of(Algorithm::Sha512, b"{}");
        assert_eq!(digest_for(digest.as_str(), b"{}").unwrap(), digest);
        assert!(digest_for(digest.as_str(), b"{ }").is_err());
        assert!(digest_for("no tag", b"{}").is_err());
        assert_eq!(digest_for("v1", b"{}").unwrap(), Digest::of(Algorithm::Sha256, b"{}"));
    }
}
