//! From what a reference leads to, down to the manifest for one platform.

use std::fmt;

use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest, DigestError};
use crate::manifest::{self, Document, Manifest, ManifestError};
use crate::platform::Platform;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;

/// The manifest that was chosen, with its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What the digest is of.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub manifest: Manifest,
}

/// Why no manifest was chosen.
#[derive(Debug)]
pub enum ChooseError<E> {
    /// A document could not be fetched.
    Fetch(E),
    /// A document is not one that creel reads.
    Manifest(ManifestError),
    /// A digest of an unknown algorithm.
    Digest(DigestError),
    /// What came is not what the index named.
    Content(Digest),
    /// Nothing for this platform.
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// Indexes in indexes without end.
    TooDeep,
}

impl<E: fmt::Display> fmt::Display for ChooseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChooseError::Fetch(error) => error.fmt(f),
            ChooseError::Manifest(error) => error.fmt(f),
            ChooseError::Digest(error) => error.fmt(f),
            ChooseError::Content(digest) => write!(f, "{digest}: the content has another digest"),
            ChooseError::Platform { wanted, available } if available.is_empty() => {
                write!(f, "no image for {wanted}; the index has no images")
            }
            ChooseError::Platform { wanted, available } => {
                write!(f, "no image for {wanted}; there are {}", available.join(", "))
            }
            ChooseError::TooDeep => write!(f, "more than {MAX_DEPTH} indexes in each other"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ChooseError<E> {}

/// Chooses the manifest for a platform from `bytes`, which were served as `media_type`; `fetch` gives what an
/// entry of an index points at, whose digest is looked at here.
pub fn choose<E>(
    bytes: Vec<u8>,
    media_type: Option<&str>,
    platform: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Chosen, ChooseError<E>> {
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let mut available = Vec::new();
    let found = descend((bytes, digest), media_type, platform, fetch, &mut available, 0)?;
    available.sort();
    available.dedup();
    found.ok_or_else(|| ChooseError::Platform { wanted: platform.to_string(), available })
}

fn descend<E>(
    (bytes, digest): (Vec<u8>, Digest),
    media_type: Option<&str>,
    platform: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
    available: &mut Vec<String>,
    depth: usize,
) -> Result<Option<Chosen>, ChooseError<E>> {
    if depth == MAX_DEPTH {
        return Err(ChooseError::TooDeep);
    }
    let index = match manifest::parse(&bytes, media_type).map_err(ChooseError::Manifest)? {
        Document::Manifest(manifest) => return Ok(Some(Chosen { bytes, digest, manifest: *manifest })),
        Document::Index(index) => index,
    };
    // Entries of types that nobody knows are passed over (image-spec image-index.md).
    let known = |entry: &&Descriptor| manifest::media_type::MANIFESTS.contains(&entry.media_type.as_str());
    let images = index.manifests.iter().filter(|entry| !entry.is_attestation());
    available.extend(images.filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string));
    for entry in platform.choose(&index.manifests).into_iter().filter(known) {
        let digest = entry.digest().map_err(ChooseError::Digest)?;
        let bytes = match entry.inline() {
            Some(bytes) => bytes,
            None => fetch(entry).map_err(ChooseError::Fetch)?,
        };
        if Digest::of(digest.algorithm(), &bytes) != digest {
            return Err(ChooseError::Content(digest));
        }
        let kind = Some(entry.media_type.as_str());
        if let Some(found) = descend((bytes, digest), kind, platform, fetch, available, depth + 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::HashMap;

    use super::*;
    use crate::manifest::media_type::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};

    #[derive(Default)]
    struct Blobs(HashMap<String, Vec<u8>>);

    impl Blobs {
        fn manifest(&mut self, config: &str) -> String {
            let digest = Digest::of(Algorithm::Sha256, config.as_bytes());
            let text = serde_json::json!({"schemaVersion": 2, "layers": [],
                "config": {"mediaType": OCI_CONFIG, "digest": digest.as_str(), "size": 1}});
            self.keep(OCI_MANIFEST, text.to_string())
        }

        fn index(&mut self, entries: &[(&str, Option<&str>)]) -> String {
            let entries: Vec<_> = entries
                .iter()
                .map(|(entry, platform)| {
                    let mut entry: serde_json::Value = serde_json::from_str(entry).unwrap();
                    if let Some(text) = platform {
                        entry["platform"] = serde_json::to_value(text.parse::<Platform>().unwrap()).unwrap();
                    }
                    entry
                })
                .collect();
            let text = serde_json::json!({"schemaVersion": 2, "manifests": entries});
            self.keep(OCI_INDEX, text.to_string())
        }

        /// Keeps a document and gives a descriptor of it.
        fn keep(&mut self, kind: &str, text: String) -> String {
            let descriptor = Descriptor::of(kind, text.as_bytes());
            self.0.insert(descriptor.digest_text().to_string(), text.into_bytes());
            serde_json::to_string(&descriptor).unwrap()
        }

        fn choose(&self, root: &str, platform: &str) -> Result<Chosen, ChooseError<String>> {
            let root: Descriptor = serde_json::from_str(root).unwrap();
            let mut fetch = |entry: &Descriptor| {
                self.0.get(entry.digest_text()).cloned().ok_or_else(|| "not found".to_string())
            };
            let bytes = fetch(&root).unwrap();
            choose(bytes, Some(&root.media_type), &platform.parse().unwrap(), &mut fetch)
        }
    }

    #[test]
    fn nested_indexes_are_searched_and_what_there_is_is_told() {
        let mut blobs = Blobs::default();
        let (arm, amd, bare) = (blobs.manifest("arm"), blobs.manifest("amd"), blobs.manifest("bare"));
        let inner = blobs.index(&[(&amd, Some("linux/amd64"))]);
        let outer = blobs.index(&[(&arm, Some("linux/arm/v6")), (&inner, None)]);
        let digest = |text: &str| serde_json::from_str::<Descriptor>(text).unwrap().digest().unwrap();
        assert_eq!(blobs.choose(&outer, "linux/amd64/v3").unwrap().digest, digest(&amd));
        assert_eq!(blobs.choose(&outer, "linux/arm/v7").unwrap().digest, digest(&arm));
        assert_eq!(blobs.choose(&bare, "linux/s390x").unwrap().digest, digest(&bare));
        let error = blobs.choose(&outer, "linux/s390x").unwrap_err().to_string();
        assert_eq!(error, "no image for linux/s390x; there are linux/amd64, linux/arm/v6");
    }

    #[test]
    fn a_document_that_is_not_what_the_index_named_is_refused() {
        let mut blobs = Blobs::default();
        let image = blobs.manifest("a");
        let index = blobs.index(&[(&image, Some("linux/amd64"))]);
        let name = serde_json::from_str::<Descriptor>(&image).unwrap().digest_text().to_string();
        blobs.0.insert(name, b"{}".to_vec());
        assert!(matches!(blobs.choose(&index, "linux/amd64"), Err(ChooseError::Content(_))));
    }
}
