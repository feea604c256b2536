#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::manifest::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::testing::{TarBuilder, gzip};

/// The files of a layout with two images, `one` and `two`.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_string(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |kind: &str, bytes: Vec<u8>| {
        let descriptor = Descriptor::of(kind, &bytes);
        files.push((format!("blobs/{}", descriptor.digest_text().replace(':', "/")), bytes));
        descriptor
    };
    let mut entries = Vec::new();
    for name in ["one", "two"] {
        let layer = blob(OCI_LAYER, name.as_bytes().to_vec());
        let diff_id = layer.digest_text();
        let config = serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
        let config = blob(OCI_CONFIG, config.to_string().into_bytes());
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let mut entry = blob(OCI_MANIFEST, manifest.to_string().into_bytes());
        entry.annotations.insert("org.opencontainers.image.ref.name".into(), name.into());
        entries.push(entry);
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    files.push(("index.json".to_string(), index.to_string().into_bytes()));
    files
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    for (name, bytes) in files {
        tar.file(&format!("./{name}"), bytes);
    }
    tar.finish()
}

fn write(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

fn open(dir: &Path, source: &str) -> Result<Layout, Error> {
    Layout::open(&source.parse().unwrap(), dir)
}

/// The content of the first layer.
fn layer(layout: &Layout) -> String {
    let chosen = layout.choose(&Platform::host()).unwrap();
    layout.document(&chosen.manifest.config).unwrap();
    let mut text = String::new();
    layout.blob(&chosen.manifest.layers[0]).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn layouts_and_archives_give_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    let files = files();
    write(&dir.path().join("layout"), &files);
    let plain = tar(&files);
    let mut backwards = files.clone();
    backwards.reverse();
    write(
        dir.path(),
        &[
            ("a.tar".into(), plain.clone()),
            ("b.tar".into(), tar(&backwards)),
            ("a.tar.gz".into(), gzip(&plain)),
            ("a.tar.zst".into(), zstd::encode_all(plain.as_slice(), 1).unwrap()),
        ],
    );
    for source in [
        "oci:{}/layout",
        "oci-archive:{}/a.tar",
        "oci-archive:{}/b.tar",
        "oci-archive:{}/a.tar.gz",
        "oci-archive:{}/a.tar.zst",
    ] {
        let source = source.replace("{}", &at);
        for name in ["one", "two"] {
            assert_eq!(layer(&open(dir.path(), &format!("{source}:{name}")).unwrap()), name, "{source}");
        }
        let error = open(dir.path(), &source).unwrap_err();
        assert_eq!(error.to_string(), "several images are meant; name one of one, two");
        let error = open(dir.path(), &format!("{source}:three")).unwrap_err();
        assert_eq!(error.to_string(), "no image is named \"three\"; there are one, two");
    }
}

#[test]
fn a_layout_that_lies_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = files();
    let at = format!("oci:{}:one", dir.path().display());
    write(dir.path(), &files);
    let manifest = files.iter().position(|(_, bytes)| bytes.starts_with(b"{\"config")).unwrap();
    files[manifest].1.push(b' ');
    write(dir.path(), &files[manifest..=manifest]);
    assert!(matches!(open(dir.path(), &at).unwrap().target(), Err(Error::Read(_))));
    std::fs::remove_file(dir.path().join("oci-layout")).unwrap();
    assert!(matches!(open(dir.path(), &at), Err(Error::NotALayout(_))));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("oci-layout"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(open(dir.path(), &at), Err(Error::NotALayout(_))), "a fifo must not be waited for");
    assert!(matches!(open(dir.path(), "oci:none"), Err(Error::Call { .. })));
}

#[test]
fn what_docker_saves_is_read_by_any_of_its_names() {
    let layer_tar = b"plain".to_vec();
    let packed = gzip(b"packed");
    let ids = [b"plain".as_slice(), b"packed"].map(|bytes| Digest::of(Algorithm::Sha256, bytes));
    let config = serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [ids[0].as_str(), ids[1].as_str()]}});
    let manifest = serde_json::json!([
        {"Config": "c.json", "RepoTags": ["alpine:3", "host.example/b:1"], "Layers": ["x/layer.tar", "y/layer.tar"]},
        {"Config": "c.json", "RepoTags": null, "Layers": []}
    ]);
    let mut tar = TarBuilder::default();
    tar.link(b'2', "x/layer.tar", "../z/layer.tar");
    tar.file("z/layer.tar", &layer_tar);
    tar.file("y/layer.tar", &packed);
    tar.file("c.json", config.to_string().as_bytes());
    tar.file("manifest.json", manifest.to_string().as_bytes());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tar"), tar.finish()).unwrap();
    let at = format!("docker-archive:{}/a.tar", dir.path().display());
    for name in ["docker.io/library/alpine:3", "alpine:3", "host.example/b:1"] {
        let layout = open(dir.path(), &format!("{at}:{name}")).unwrap();
        assert_eq!(layer(&layout), "plain");
        let layers = layout.choose(&Platform::host()).unwrap().manifest.layers;
        assert_eq!(layers[1].digest().unwrap(), Digest::of(Algorithm::Sha256, &packed));
    }
    assert!(matches!(open(dir.path(), &at), Err(Error::Ambiguous { .. })));
    assert!(matches!(open(dir.path(), &format!("{at}:alpine:4")), Err(Error::NoName { .. })));
}

#[test]
fn skopeos_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = files();
    for (name, bytes) in &files {
        let flat = name.rsplit('/').next().unwrap();
        std::fs::write(dir.path().join(flat), bytes).unwrap();
    }
    let manifest = files.iter().find(|(_, bytes)| bytes.starts_with(b"{\"config")).unwrap();
    std::fs::write(dir.path().join("manifest.json"), &manifest.1).unwrap();
    assert_eq!(layer(&open(dir.path(), &format!("dir:{}", dir.path().display())).unwrap()), "one");
}
