//! Manifests and indexes: fetched whole, as the bytes they are, and checked before anyone parses them.

use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::manifest::{MAX_BYTES, media_type};
use creel_image_lib::reference::check_tag;
use ureq::http::Method;
use ureq::http::header::ACCEPT;

use super::Repository;
use super::remote::{Ask, Remote};
use crate::config::registries::PullFromMirror;
use crate::error::Error;
use crate::http::{Payload, Response};

/// The registry's name for the content, by its own account.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest or an index as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Exactly what the digest is of.
    pub bytes: Vec<u8>,
    /// The type it was served as, without parameters.
    pub media_type: Option<String>,
    /// Computed from the bytes, and compared with the one asked for and the one the registry claims.
    pub digest: Digest,
}

/// What a registry says of a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// The registry's claim; not every registry makes one.
    pub digest: Option<Digest>,
    /// The type it is served as.
    pub media_type: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
}

impl Repository {
    /// Fetches the manifest or index that a tag or digest names.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none, [`Error::WrongDigest`] when the bytes are not those
    /// named, [`Error::TooLarge`] above 4 MiB.
    pub fn manifest(&self, name: &str) -> Result<FetchedManifest, Error> {
        let wanted = parse_name(name)?;
        self.first(|mirror| serves(mirror, wanted.is_some()), |remote| fetch(remote, name, wanted.as_ref()))
    }

    /// Asks for a manifest without fetching it; nothing when there is none. Registries that count pulls
    /// do not count this.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering.
    pub fn manifest_head(&self, name: &str) -> Result<Option<ManifestHead>, Error> {
        let by_digest = parse_name(name)?.is_some();
        let found = self.first(
            |mirror| serves(mirror, by_digest),
            |remote| {
                let response = ask(remote, Method::HEAD, name)?;
                if response.status != 200 {
                    return Err(response.refusal());
                }
                Ok(ManifestHead {
                    digest: claimed(&response),
                    media_type: response.media_type().map(str::to_owned),
                    size: response.length(),
                })
            },
        );
        match found {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }
}

/// A tag has nothing to verify; a digest is what is verified.
fn parse_name(name: &str) -> Result<Option<Digest>, Error> {
    if name.contains(':') {
        return name.parse().map(Some).map_err(|error| Error::Invalid(format!("{error}")));
    }
    check_tag(name).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(None)
}

fn serves(mirror: Option<PullFromMirror>, by_digest: bool) -> bool {
    match mirror {
        None | Some(PullFromMirror::All) => true,
        Some(PullFromMirror::DigestOnly) => by_digest,
        Some(PullFromMirror::TagOnly) => !by_digest,
    }
}

fn ask(remote: &Remote, method: Method, name: &str) -> Result<Response, Error> {
    // The last is for registries that send what they have whatever is asked for.
    let accepted = format!("{}, */*", media_type::MANIFESTS.join(", "));
    let request = remote.request(method, &format!("manifests/{name}"))?.with(ACCEPT, &accepted);
    remote.send(&Ask { request, scopes: &remote.pull_scopes() }, &mut Payload::None)
}

fn fetch(remote: &Remote, name: &str, wanted: Option<&Digest>) -> Result<FetchedManifest, Error> {
    let response = ask(remote, Method::GET, name)?;
    if response.status != 200 {
        return Err(response.refusal());
    }
    let (host, what) = (response.origin.name(), response.request.clone());
    let claim = claimed(&response);
    let media_type = response.media_type().map(str::to_owned);
    let bytes = response.bytes(MAX_BYTES as u64)?;
    for expected in wanted.into_iter().chain(&claim) {
        let actual = Digest::of(expected.algorithm(), &bytes);
        if actual != *expected {
            let (expected, actual) = (expected.to_string(), actual.to_string());
            return Err(Error::WrongDigest { host, what, expected, actual });
        }
    }
    let digest = wanted.cloned().or(claim).unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
    Ok(FetchedManifest { bytes, media_type, digest })
}

/// A claim of an algorithm that creel does not compute cannot be checked, so it is none.
fn claimed(response: &Response) -> Option<Digest> {
    response.header(CONTENT_DIGEST)?.trim().parse().ok()
}
