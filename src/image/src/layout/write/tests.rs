#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;

use serde_json::json;

use super::*;
use crate::layout::Layout;
use crate::manifest::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::platform::Platform;

struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn image(layer: &[u8]) -> Image {
    let described = Descriptor::of(OCI_LAYER, layer);
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [described.digest_text()]}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": Descriptor::of(OCI_CONFIG, &config), "layers": [described]});
    Image { layer: layer.to_vec(), config, manifest: manifest.to_string().into_bytes() }
}

fn digest(bytes: &[u8]) -> Digest {
    Descriptor::of("x/y", bytes).digest().unwrap()
}

fn write(destination: &str, image: &Image) -> Result<(), Error> {
    let writer = Writer::open(&destination.parse().unwrap(), None)?;
    for blob in [&image.layer, &image.config] {
        let put = || writer.put_blob(&digest(blob), blob.len() as u64, || Ok::<_, Error>(blob.as_slice()));
        put()?;
        assert_eq!(put()?, Put::Already);
    }
    writer.finish(&Descriptor::of(OCI_MANIFEST, &image.manifest), &image.manifest)
}

/// The manifest and the layer that a source gives.
fn read(source: &str, spool: &Path) -> (Vec<u8>, Vec<u8>) {
    let layout = Layout::open(&source.parse().unwrap(), spool).unwrap();
    let chosen = layout.choose(&Platform::host()).unwrap();
    layout.document(&chosen.manifest.config).unwrap();
    let mut layer = Vec::new();
    layout.blob(&chosen.manifest.layers[0]).unwrap().read_to_end(&mut layer).unwrap();
    (chosen.bytes, layer)
}

#[test]
fn an_index_that_is_none_is_refused_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let destination = format!("oci:{}:v1", dir.path().join("layout").display());
    write(&destination, &image(b"layer")).unwrap();
    let index = dir.path().join("layout/index.json");
    for text in ["[]", "7", "null", r#"{"manifests": {}}"#, "{"] {
        std::fs::write(&index, text).unwrap();
        let error = write(&destination, &image(b"other")).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{text}: {error}");
        assert_eq!(std::fs::read_to_string(&index).unwrap(), text);
    }
}

#[test]
fn what_is_written_is_read_again_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let image = image(&vec![7; 1000]);
    for destination in [
        format!("oci:{at}/layout:v1"),
        format!("oci-archive:{at}/a.tar:v1"),
        format!("docker-archive:{at}/d.tar:host.example/app:v1"),
        format!("dir:{at}/dir"),
    ] {
        write(&destination, &image).unwrap();
        assert_eq!(read(&destination, dir.path()), (image.manifest.clone(), image.layer.clone()));
    }
    let leftovers: Vec<_> = walk(dir.path()).into_iter().filter(|name| name.contains("/.creel-")).collect();
    assert_eq!(leftovers, Vec::<String>::new());
}

fn walk(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(walk(&path));
        }
    }
    names
}

#[test]
fn names_of_a_layout_are_replaced_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("layout").display().to_string();
    let (one, two) = (image(b"one"), image(b"two"));
    write(&format!("oci:{at}:a"), &one).unwrap();
    write(&format!("oci:{at}:b"), &one).unwrap();
    write(&format!("oci:{at}:a"), &two).unwrap();
    assert_eq!(read(&format!("oci:{at}:a"), dir.path()).1, b"two");
    assert_eq!(read(&format!("oci:{at}:b"), dir.path()).1, b"one");
}

#[test]
fn archives_and_directories_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    std::fs::write(dir.path().join("a.tar"), "mine").unwrap();
    for destination in [format!("oci-archive:{at}/a.tar"), format!("oci:{at}"), format!("dir:{at}")] {
        assert!(matches!(write(&destination, &image(b"x")), Err(Error::NotALayout(_))), "{destination}");
    }
    assert_eq!(std::fs::read(dir.path().join("a.tar")).unwrap(), b"mine");
    assert_eq!(walk(dir.path()).len(), 1);
}

#[test]
fn wrong_content_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let right = image(b"right");
    for destination in [format!("oci:{at}/l"), format!("dir:{at}/d"), format!("oci-archive:{at}/a.tar")] {
        let writer = Writer::open(&destination.parse().unwrap(), None).unwrap();
        let put = |source: &'static [u8]| {
            writer.put_blob(&digest(&right.layer), 5, || Ok::<_, Error>(source)).unwrap_err()
        };
        assert!(matches!(put(b"wrong"), Error::Read(_)), "{destination}");
        assert!(matches!(put(b"righ"), Error::Read(_)), "{destination}");
    }
    assert!(!walk(dir.path()).iter().any(|name| name.contains(digest(b"right").hex())));
    assert!(!dir.path().join("a.tar").exists());
}

#[test]
fn an_index_is_no_image_for_docker() {
    let dir = tempfile::tempdir().unwrap();
    let source = format!("docker-archive:{}/d.tar", dir.path().display()).parse().unwrap();
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let writer = Writer::open(&source, None).unwrap();
    let target = Descriptor::of(crate::manifest::media_type::OCI_INDEX, index);
    let error = writer.finish(&target, index).unwrap_err().to_string();
    assert!(error.contains("leave out --all"), "{error}");
    assert!(!dir.path().join("d.tar").exists());
}

#[test]
fn long_names_and_sizes_stand_in_extended_headers() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let layer = b"of sha512";
    let digest = Digest::of(crate::digest::Algorithm::Sha512, layer);
    let described = Descriptor::new(OCI_LAYER, &digest, layer.len() as u64);
    let config = format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#);
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": Descriptor::of(OCI_CONFIG, config.as_bytes()), "layers": [described]})
    .to_string();
    let destination = format!("oci-archive:{at}/a.tar");
    let writer = Writer::open(&destination.parse().unwrap(), None).unwrap();
    writer.put_blob(&digest, layer.len() as u64, || Ok::<_, Error>(layer.as_slice())).unwrap();
    let described = Descriptor::of(OCI_CONFIG, config.as_bytes()).digest().unwrap();
    writer.put_blob(&described, config.len() as u64, || Ok::<_, Error>(config.as_bytes())).unwrap();
    writer.finish(&Descriptor::of(OCI_MANIFEST, manifest.as_bytes()), manifest.as_bytes()).unwrap();
    assert_eq!(read(&destination, dir.path()).1, layer);
    // The first block of a large member says so before it.
    let mut blocks = Vec::new();
    archive::header_of(&mut blocks, "big", 1 << 40);
    assert!(String::from_utf8_lossy(&blocks).contains("size=1099511627776\n"));
}
