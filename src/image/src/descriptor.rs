//! Descriptors: how one document points at another (image-spec descriptor.md).

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{Algorithm, Digest, DigestError, is_well_formed};
use crate::platform::Platform;

/// The annotation by which buildkit marks what is not an image but a statement about one.
const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A pointer to content: its type, digest and size.
///
/// The digest may be of an algorithm that creel does not know: such a document still parses, and only
/// following the descriptor fails ([`Descriptor::digest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the content.
    pub media_type: String,
    #[serde(deserialize_with = "well_formed")]
    digest: String,
    /// Bytes. Negative sizes do not parse.
    pub size: u64,
    /// Where else the content lies (deprecated, non-distributable layers).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, in base64; [`Descriptor::inline`] checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// Optional fields may be null, which is the same as absent (image-spec, considerations.md).
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn well_formed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_well_formed(&text) { Ok(text) } else { Err(serde::de::Error::custom(DigestError::Malformed(text))) }
}

impl Descriptor {
    /// Points at some content.
    pub fn new(media_type: impl Into<String>, digest: &Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest: digest.to_string(),
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            artifact_type: None,
            platform: None,
        }
    }

    /// Points at these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, &Digest::of(Algorithm::Sha256, bytes), bytes.len() as u64)
    }

    /// The digest, when it is of an algorithm that creel checks.
    pub fn digest(&self) -> Result<Digest, DigestError> {
        self.digest.parse()
    }

    /// The digest as it stands in the document.
    pub fn digest_text(&self) -> &str {
        &self.digest
    }

    /// The inline content, when there is one and it is what digest and size say.
    pub fn inline(&self) -> Option<Vec<u8>> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.data.as_ref()?).ok()?;
        let digest = self.digest().ok()?;
        let same = bytes.len() as u64 == self.size && Digest::of(digest.algorithm(), &bytes) == digest;
        same.then_some(bytes)
    }

    /// Whether this entry of an index is no image: buildkit's attestations, and its `unknown/unknown`.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(DOCKER_REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(json: &str) -> Result<Descriptor, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_borne() {
        let text =
            r#"{"mediaType":"a/b","digest":"blake3:00","size":3,"urls":null,"annotations":null,"new":1}"#;
        let descriptor = parse(text).unwrap();
        assert_eq!(descriptor.digest(), Err(DigestError::UnknownAlgorithm("blake3".into())));
        assert!(descriptor.urls.is_empty());
    }

    #[test]
    fn negative_sizes_and_paths_for_digests_do_not_parse() {
        assert!(parse(r#"{"mediaType":"a/b","digest":"blake3:00","size":-1}"#).is_err());
        assert!(parse(r#"{"mediaType":"a/b","digest":"sha256:../x","size":1}"#).is_err());
    }

    #[test]
    fn inline_content_is_only_given_when_it_is_right() {
        let mut descriptor = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
        descriptor.data = Some("e30=".into());
        assert_eq!(descriptor.inline().unwrap(), b"{}");
        descriptor.data = Some("e31=".into());
        assert_eq!(descriptor.inline(), None);
    }
}
