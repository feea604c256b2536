//! `copy`: what arrives is what was sent, digest for digest.

use std::process::Command;

use creel_integration::{Cmd, skip};
use serde_json::json;

use crate::harness::Images;
use crate::layout::architecture;
use crate::{needs_images, registry_with};

#[test]
fn image_goes_from_registry_to_registry_to_layout_and_back() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let raw = |image: &str| images.creel(&["inspect", "--raw", image]).output().ok().stdout;
    let first = registry.image("test/a:1");
    let second = registry.image("other/b:2");
    images.creel(&["copy", "-q", &first, &second]).output().ok();
    assert_eq!(raw(&second), raw(&first));
    let out = format!("oci:{}:x", images.scratch.join("out").display());
    let digest = images.creel(&["copy", "-q", &second, &out]).output().ok().stdout;
    assert_eq!(raw(&out), raw(&first));
    assert_eq!(crate::layout::digest(raw(&out).as_bytes()), digest.trim());
    // Others read what creel wrote.
    let shown = Cmd::new("skopeo").args(["inspect", "--raw", &out]).output().ok();
    assert_eq!(shown.stdout, raw(&first));
    let third = registry.image("third/c:3");
    images.creel(&["copy", "-q", &out, &third]).output().ok();
    assert_eq!(images.run(&["-q"], &third, &[]).output().exits(3).stdout, "hello\n");
    images.assert_clean();
}

#[test]
fn all_platforms_are_copied_when_asked_for() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    let layers = std::slice::from_ref(&layer);
    let of =
        |architecture: &str| images.layout.manifest(layers, &json!({"Cmd": ["/bin/true"]}), architecture);
    let (own, foreign) = (of(architecture()), of("mips64le"));
    images.layout.name(images.layout.index(&[own, foreign]), "both");
    let copy = |flags: &[&str], name: &str| {
        let to = format!("oci:{}:{name}", images.scratch.join("out").display());
        images.creel(&[&["copy", "-q"], flags, &[&images.oci("both"), &to]].concat()).output().ok();
        images.creel(&["inspect", &to]).output().ok().json()
    };
    let all = copy(&["--all"], "all");
    assert_eq!(all["platforms"].as_array().unwrap().len(), 2, "{all}");
    let one = copy(&[], "one");
    assert_eq!(one["platforms"], json!([]));
    assert_eq!(one["manifestDigest"], all["manifestDigest"]);
}

#[test]
fn damaged_blob_does_not_arrive() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    let path = images.layout.blob(&layer.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let out = images.scratch.join("out");
    let words = ["copy", "-q", &images.oci("a"), &format!("oci:{}:a", out.display())];
    images.creel(&words).output().exits(1).creel_says(&["the content has the digest"]);
    assert!(!out.join("index.json").exists());
    assert!(!out.join("blobs/sha256").join(layer.hex()).exists());
}
