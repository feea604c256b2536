//! Manifests and indexes: image-spec's, and Docker's schema 2 and list, which have the same shape.
//!
//! What is parsed here is text that a stranger wrote. The exact bytes are what the digest is of, so
//! nothing here is ever written back: callers keep the bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::descriptor::{Descriptor, or_default};

/// Manifests beyond this are refused, as registries and containerd do.
pub const MAX_BYTES: usize = 4 << 20;

/// Media types, by the names that image-spec and Docker gave them.
pub mod media_type {
    /// image-spec: index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// image-spec: manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// image-spec: image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// image-spec: the empty JSON object that artifacts have for a configuration.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// image-spec: layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker: list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker: schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker: image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker: layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// The types to ask a registry for, in one Accept header each or joined by commas.
    pub const MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
}

/// Why a document is not one that creel runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Longer than [`MAX_BYTES`].
    TooLong(usize),
    /// Not JSON, or a field has the wrong shape.
    Malformed(String),
    /// The `mediaType` in the document is not the one it was served as (CVE-2021-41190).
    TypeMismatch {
        /// By the header or the descriptor.
        served: String,
        /// In the document.
        stated: String,
    },
    /// The document is both a manifest and an index (CVE-2021-41190).
    Ambiguous,
    /// Docker's schema 1.
    Schema1,
    /// Neither manifest nor index.
    UnknownType(String),
    /// An artifact: its configuration is not that of an image.
    NotAnImage {
        /// Type of the artifact, or of its configuration.
        kind: String,
    },
    /// A layer that only its keys open.
    EncryptedLayer {
        /// Number of the layer, from 1.
        number: usize,
        /// Its type.
        media_type: String,
    },
    /// A layer of a type that is no file system change set.
    UnknownLayer {
        /// Number of the layer, from 1.
        number: usize,
        /// Its type.
        media_type: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::TooLong(bytes) => {
                write!(f, "manifest of {bytes} bytes is longer than the limit of {MAX_BYTES}")
            }
            ManifestError::Malformed(why) => write!(f, "manifest: {why}"),
            ManifestError::TypeMismatch { served, stated } => {
                write!(f, "manifest served as {served:?} says it is {stated:?}")
            }
            ManifestError::Ambiguous => f.write_str("manifest has both layers and manifests"),
            ManifestError::Schema1 => f.write_str(
                "docker schema 1 manifests are not read; push the image again with a client of this decade",
            ),
            ManifestError::UnknownType(kind) => write!(f, "{kind:?} is neither a manifest nor an index"),
            ManifestError::NotAnImage { kind } => write!(f, "an artifact of type {kind:?}, not an image"),
            ManifestError::EncryptedLayer { number, media_type } => {
                write!(f, "layer {number} is encrypted ({media_type})")
            }
            ManifestError::UnknownLayer { number, media_type } => {
                write!(f, "layer {number} is of unknown type {media_type:?}")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image or artifact.
    Manifest(Box<Manifest>),
    /// Several, usually one for each platform.
    Index(Box<Index>),
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its type, from the document or from where it was served.
    pub media_type: String,
    /// Type of an artifact.
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What an artifact is about.
    pub subject: Option<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its type, from the document or from where it was served.
    pub media_type: String,
    /// Type of an artifact.
    pub artifact_type: Option<String>,
    /// Its entries. Their types may be unknown.
    pub manifests: Vec<Descriptor>,
    /// What an artifact is about.
    pub subject: Option<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The union of both, and of schema 1 as far as it takes to know it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

fn is_schema1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn is_known(media_type: &str) -> bool {
    media_type::MANIFESTS.contains(&media_type) || is_schema1(media_type)
}

/// Reads a document.
///
/// `served` is the type by the Content-Type header (parameters are ignored) or the descriptor that led here;
/// generic types of servers without any (`text/plain`, `application/json`) say nothing.
pub fn parse(bytes: &[u8], served: Option<&str>) -> Result<Document, ManifestError> {
    if bytes.len() > MAX_BYTES {
        return Err(ManifestError::TooLong(bytes.len()));
    }
    let served = served.map(|text| text.split(';').next().unwrap_or_default().trim());
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| match served {
        Some(kind) if is_schema1(kind) => ManifestError::Schema1,
        _ => ManifestError::Malformed(error.to_string()),
    })?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() || served.is_some_and(is_schema1) {
        return Err(ManifestError::Schema1);
    }
    if (raw.layers.is_some() || raw.config.is_some()) && raw.manifests.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    if let (Some(served), Some(stated)) = (served, &raw.media_type)
        && is_known(served)
        && served != stated
    {
        return Err(ManifestError::TypeMismatch { served: served.to_string(), stated: stated.clone() });
    }
    raw.into_document(served)
}

impl Raw {
    fn into_document(self, served: Option<&str>) -> Result<Document, ManifestError> {
        let shape = if self.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        let stated = self.media_type.as_deref().or(served.filter(|kind| is_known(kind)));
        let kind = stated.unwrap_or(shape).to_string();
        let missing = |field: &str| ManifestError::Malformed(format!("{kind} without {field}"));
        match kind.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => Ok(Document::Index(Box::new(Index {
                manifests: self.manifests.ok_or_else(|| missing("manifests"))?,
                media_type: kind,
                artifact_type: self.artifact_type,
                subject: self.subject,
                annotations: self.annotations,
            }))),
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                Ok(Document::Manifest(Box::new(Manifest {
                    config: self.config.ok_or_else(|| missing("config"))?,
                    layers: self.layers.ok_or_else(|| missing("layers"))?,
                    media_type: kind,
                    artifact_type: self.artifact_type,
                    subject: self.subject,
                    annotations: self.annotations,
                })))
            }
            other => Err(if is_schema1(other) {
                ManifestError::Schema1
            } else {
                ManifestError::UnknownType(other.to_string())
            }),
        }
    }
}

impl Manifest {
    /// Refuses what cannot be unpacked and run: artifacts, encrypted and unknown layers.
    pub fn check_image(&self) -> Result<(), ManifestError> {
        if !matches!(self.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            let kind = self.artifact_type.as_ref().unwrap_or(&self.config.media_type);
            return Err(ManifestError::NotAnImage { kind: kind.clone() });
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let (number, media_type) = (i + 1, layer.media_type.clone());
            match LayerType::of(&media_type) {
                LayerType::ChangeSet { .. } => {}
                LayerType::Encrypted => return Err(ManifestError::EncryptedLayer { number, media_type }),
                LayerType::Unknown => return Err(ManifestError::UnknownLayer { number, media_type }),
            }
        }
        Ok(())
    }
}

/// What the media type of a layer says. Its compression is not believed: the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// A tar, compressed or not.
    ChangeSet {
        /// Not to be pushed (image-spec's nondistributable, Docker's foreign).
        foreign: bool,
    },
    /// Encrypted by ocicrypt.
    Encrypted,
    /// Anything else.
    Unknown,
}

impl LayerType {
    /// Reads a media type.
    pub fn of(media_type: &str) -> LayerType {
        if media_type.split('+').any(|suffix| suffix == "encrypted") {
            return LayerType::Encrypted;
        }
        let bare = media_type.trim_end_matches("+gzip").trim_end_matches("+zstd");
        let bare = bare.trim_end_matches(".gzip").trim_end_matches(".zstd");
        match bare {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => LayerType::ChangeSet { foreign: false },
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
                LayerType::ChangeSet { foreign: true }
            }
            _ => LayerType::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::media_type::*;
    use super::*;

    const D: &str =
        r#""digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0"#;

    fn manifest(extra: &str, config: &str, layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{config}",{D}}},"layers":[{{"mediaType":"{layer}",{D}}}]}}"#
        )
    }

    fn read(text: &str, served: Option<&str>) -> Result<Manifest, ManifestError> {
        match parse(text.as_bytes(), served)? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => panic!("an index"),
        }
    }

    #[test]
    fn both_families_parse_with_and_without_a_stated_type() {
        let text = manifest("", OCI_CONFIG, OCI_LAYER);
        assert_eq!(read(&text, None).unwrap().media_type, OCI_MANIFEST);
        assert_eq!(read(&text, Some("text/plain")).unwrap().media_type, OCI_MANIFEST);
        let served = format!("{DOCKER_MANIFEST}; charset=utf-8");
        assert_eq!(read(&text, Some(&served)).unwrap().media_type, DOCKER_MANIFEST);
        let list = format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{{"mediaType":"x/y",{D}}}]}}"#
        );
        assert!(matches!(parse(list.as_bytes(), Some(DOCKER_LIST)).unwrap(), Document::Index(_)));
    }

    #[test]
    fn confused_documents_are_refused() {
        let stated = manifest(&format!(r#""mediaType":"{OCI_MANIFEST}","#), OCI_CONFIG, OCI_LAYER);
        assert!(matches!(read(&stated, Some(DOCKER_MANIFEST)), Err(ManifestError::TypeMismatch { .. })));
        let both = manifest(r#""manifests":[],"#, OCI_CONFIG, OCI_LAYER);
        assert_eq!(read(&both, None), Err(ManifestError::Ambiguous));
        let wrong = manifest(&format!(r#""mediaType":"{OCI_INDEX}","#), OCI_CONFIG, OCI_LAYER);
        assert!(matches!(read(&wrong, None), Err(ManifestError::Malformed(_))));
        assert!(matches!(read("[]", None), Err(ManifestError::Malformed(_))));
        assert!(matches!(parse(&vec![b' '; MAX_BYTES + 1], None), Err(ManifestError::TooLong(_))));
    }

    #[test]
    fn schema_1_artifacts_and_encryption_are_refused_by_name() {
        assert_eq!(read(r#"{"schemaVersion":1,"fsLayers":[]}"#, None), Err(ManifestError::Schema1));
        let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert_eq!(read("{}", Some(prettyjws)), Err(ManifestError::Schema1));
        let check =
            |config: &str, layer: &str| read(&manifest("", config, layer), None).unwrap().check_image();
        assert_eq!(check(DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip"), Ok(()));
        assert_eq!(check(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd"), Ok(()));
        assert!(matches!(check(OCI_EMPTY, OCI_LAYER), Err(ManifestError::NotAnImage { .. })));
        let encrypted =
            check(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted").unwrap_err();
        assert_eq!(
            encrypted.to_string(),
            "layer 1 is encrypted (application/vnd.oci.image.layer.v1.tar+gzip+encrypted)"
        );
        assert!(matches!(check(OCI_CONFIG, "text/html"), Err(ManifestError::UnknownLayer { number: 1, .. })));
    }
}
