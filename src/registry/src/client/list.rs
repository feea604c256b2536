//! Lists that come in pages: tags, and what refers to a manifest.

use std::collections::HashSet;

use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use creel_image_lib::manifest::{MAX_BYTES, media_type};
use creel_image_lib::reference::check_tag;
use serde::Deserialize;
use ureq::http::header::{ACCEPT, LINK};
use ureq::http::{Method, Uri};

use super::Repository;
use super::remote::{Ask, Remote};
use crate::error::Error;
use crate::http::{Payload, Response};
use crate::location;

/// A page; ten thousand tags of the longest kind are below this.
const MAX_PAGE: u64 = 8 << 20;
const MAX_PAGES: usize = 10_000;

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// An index, of which only the entries are wanted.
#[derive(Default, Deserialize)]
struct Entries {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// The index of the tag schema: as it is, and what it lists.
pub(super) struct Listed {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Descriptor>,
}

/// The tag that stands for the referrers of a digest where the registry keeps no list itself
/// (distribution-spec, "Referrers Tag Schema").
pub(super) fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

impl Repository {
    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// Whatever keeps every place from answering.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        self.first(
            |_| true,
            |remote| {
                let mut tags = Vec::new();
                pages(remote, "tags/list", "application/json", |response| {
                    let (host, request) = (response.origin.name(), response.request.clone());
                    let page: Tags = json(response)?;
                    // Some registries list digests too, for manifests without a tag.
                    let listed = page.tags.unwrap_or_default().into_iter();
                    for tag in listed.filter(|tag| tag.parse::<Digest>().is_err()) {
                        if let Err(error) = check_tag(&tag) {
                            return Err(Error::Malformed { host, request, why: error.to_string() });
                        }
                        tags.push(tag);
                    }
                    Ok(())
                })?;
                Ok(tags)
            },
        )
    }

    /// The manifests whose `subject` is `digest`, of one artifact type or of all.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering. A registry without the list is asked for the tag
    /// that stands for it, and without that there are none.
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let remote = self.registry()?;
        let mut found = self.retry().run(|| remote.referrers(digest, artifact_type))?;
        // A registry need not filter, and one that does says so in a header that need not be believed.
        found.retain(|entry| {
            artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted))
        });
        Ok(found)
    }
}

impl Remote {
    fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let query = artifact_type.map(|kind| format!("?artifactType={}", location::encode(kind)));
        let path = format!("referrers/{digest}{}", query.unwrap_or_default());
        let mut entries = Vec::new();
        let listed = pages(self, &path, media_type::OCI_INDEX, |response| {
            let page: Entries = json(response)?;
            entries.extend(page.manifests.unwrap_or_default());
            Ok(())
        });
        match listed {
            Ok(()) => Ok(entries),
            Err(error) if error.is_not_found() => {
                let index = self.referrers_index(digest)?;
                Ok(index.map(|index| index.entries).unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// The index behind the tag of the tag schema, as bytes and as its entries.
    pub(super) fn referrers_index(&self, digest: &Digest) -> Result<Option<Listed>, Error> {
        let request = self
            .request(Method::GET, &format!("manifests/{}", referrers_tag(digest)))?
            .with(ACCEPT, media_type::OCI_INDEX);
        let response = self.send(&Ask { request, scopes: &self.pull_scopes() }, &mut Payload::None)?;
        match response.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err(response.refusal()),
        }
        let (host, request) = (response.origin.name(), response.request.clone());
        let bytes = response.bytes(MAX_BYTES as u64)?;
        let entries: Entries = serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
            host,
            request,
            why: format!("not an index: {error}"),
        })?;
        Ok(Some(Listed { bytes, entries: entries.manifests.unwrap_or_default() }))
    }
}

/// Follows `Link: rel="next"` from page to page.
fn pages(
    remote: &Remote,
    path: &str,
    accept: &str,
    mut take: impl FnMut(Response) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut request = remote.request(Method::GET, path)?.with(ACCEPT, accept);
    let mut seen: HashSet<Uri> = HashSet::new();
    loop {
        let scopes = remote.pull_scopes();
        let response = remote.send(&Ask { request: request.clone(), scopes: &scopes }, &mut Payload::None)?;
        if response.status != 200 {
            return Err(response.refusal());
        }
        let next = response.header(LINK).and_then(location::next_link);
        let next = next.and_then(|target| location::resolve(&response.uri, target));
        if seen.len() >= MAX_PAGES || !seen.insert(request.uri.clone()) {
            return Err(response.malformed("a list whose pages have no end"));
        }
        take(response)?;
        match next {
            Some(next) => request.uri = next,
            None => return Ok(()),
        }
    }
}

fn json<T: for<'de> Deserialize<'de>>(response: Response) -> Result<T, Error> {
    let (host, request) = (response.origin.name(), response.request.clone());
    let bytes = response.bytes(MAX_PAGE)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
        host,
        request,
        why: format!("not the list asked for: {error}"),
    })
}
