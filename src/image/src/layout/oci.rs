//! The image layout (image-spec image-layout.md): which entry of its index is meant.

use std::path::Path;

use serde::Deserialize;

use super::Error;
use crate::descriptor::Descriptor;
use crate::manifest::{self, Document};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd keeps the whole reference here and only the tag in the other.
const IMAGE_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Finds an entry by name or digest; without a name there must be only one.
pub(super) fn find(
    read: &dyn Fn(&str) -> Result<Vec<u8>, Error>,
    path: &Path,
    name: Option<&str>,
) -> Result<Descriptor, Error> {
    let told = path.display().to_string();
    let marker = match read("oci-layout") {
        Err(Error::NoMember(_) | Error::Call { errno: rustix::io::Errno::NOENT, .. }) if path.exists() => {
            return Err(Error::NotALayout(format!("{told} has no oci-layout")));
        }
        other => other?,
    };
    let malformed = |name: &str, why: String| Error::Malformed { name: format!("{told}: {name}"), why };
    let marker: Marker =
        serde_json::from_slice(&marker).map_err(|error| malformed("oci-layout", error.to_string()))?;
    if !marker.image_layout_version.starts_with("1.") {
        let why = format!("version {:?} of the layout is unknown", marker.image_layout_version);
        return Err(malformed("oci-layout", why));
    }
    let index = manifest::parse(&read("index.json")?, Some(manifest::media_type::OCI_INDEX));
    let index = match index.map_err(|error| malformed("index.json", error.to_string()))? {
        Document::Index(index) => index,
        Document::Manifest(_) => return Err(malformed("index.json", "is not an index".to_string())),
    };
    select(index.manifests, name)
}

fn select(entries: Vec<Descriptor>, name: Option<&str>) -> Result<Descriptor, Error> {
    let names = |entries: &[Descriptor]| -> Vec<String> {
        let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
        entries.iter().map(|entry| name(entry).unwrap_or_else(|| entry.digest_text().to_string())).collect()
    };
    let all = names(&entries);
    let mut meant: Vec<Descriptor> = match name {
        // What refers to an image lies beside it, under no name.
        None => {
            let is_image = |entry: &&Descriptor| !entry.is_attestation() && entry.artifact_type.is_none();
            let images: Vec<_> = entries.iter().filter(is_image).cloned().collect();
            if images.is_empty() { entries } else { images }
        }
        Some(name) => {
            let digest = name.trim_start_matches('@');
            let has = |entry: &Descriptor| {
                let annotated = |key| entry.annotations.get(key).is_some_and(|found| found == name);
                annotated(REF_NAME) || annotated(IMAGE_NAME) || entry.digest_text() == digest
            };
            entries.into_iter().filter(has).collect()
        }
    };
    // The same image under several names is one image.
    meant.dedup_by(|a, b| a.digest_text() == b.digest_text());
    match (meant.pop(), meant.is_empty(), name) {
        (Some(found), true, _) => Ok(found),
        (Some(_), false, _) => Err(Error::Ambiguous { names: all }),
        (None, _, name) => Err(Error::NoName { name: name.unwrap_or_default().to_string(), names: all }),
    }
}
