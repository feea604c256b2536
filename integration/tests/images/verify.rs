//! `image verify`: what was altered is found, said and mended.

use std::process::Command;

use creel_integration::skip;

use crate::harness::Images;
use crate::{needs_images, registry_with};

fn verify(images: &Images, flags: &[&str]) -> creel_integration::Output {
    images.creel_nested(&[&["image", "verify", "-q"], flags].concat()).output()
}

#[test]
fn altered_files_are_named_and_repaired() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    images.creel(&["pull", "-q", &image]).output().ok();
    let whole = verify(&images, &[]).ok();
    assert!(whole.stdout.ends_with("test/a:1: whole\n"), "{whole}");
    let root = images.store("snapshots").join(&images.stored("snapshots")[0]).join("fs");
    std::fs::write(root.join("etc/plain"), "NOT a program\n").unwrap();
    std::fs::remove_file(root.join("bin/sh")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("bin/sh")).unwrap();
    std::fs::write(root.join("srv/new"), "").unwrap();
    std::fs::remove_file(root.join("bin/id")).unwrap();
    let damaged = verify(&images, &[]).exits(1);
    for word in [
        "/etc/plain: has other content",
        "/bin/sh: leads elsewhere",
        "/srv/new: is not of the layer",
        "/bin/id: is missing",
    ] {
        assert!(damaged.stdout.contains(word), "{word}: {damaged}");
    }
    damaged.creel_says(&["1 of 1 images are damaged", "--repair"]);
    // Not under the feet of a container.
    let name = images.scratch.name();
    images.run(&["-d", "-q"], &image, &["sleep", "1000"]).output().ok();
    let busy = verify(&images, &["--repair"]).exits(1);
    assert!(busy.stdout.contains(&format!("the container {name} runs on it")), "{busy}");
    images.runtime(&["delete", "--force", name]).output().ok();
    let repaired = verify(&images, &["--repair"]).ok();
    assert!(repaired.stdout.contains("test/a:1: repaired"), "{repaired}");
    assert!(verify(&images, &[]).ok().stdout.ends_with("whole\n"));
    assert_eq!(images.run(&["-q"], &image, &["cat", "/etc/plain"]).output().ok().stdout, "not a program\n");
    images.assert_clean();
}

#[test]
fn altered_documents_and_blobs_are_found() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    images.creel(&["pull", "-q", "--store-blobs", &image]).output().ok();
    let shown = images.creel_nested(&["image", "inspect", &image]).output().ok().json();
    let blob = |digest: &serde_json::Value| {
        images.store("blobs/sha256").join(&digest.as_str().unwrap()["sha256:".len()..])
    };
    let layer = blob(&shown["manifest"]["layers"][0]["digest"]);
    let right = std::fs::read(&layer).unwrap();
    let mut wrong = right.clone();
    wrong[100] ^= 1;
    std::fs::write(&layer, wrong).unwrap();
    let damaged = verify(&images, &[]).exits(1);
    assert!(damaged.stdout.contains("blob ") && damaged.stdout.contains("altered"), "{damaged}");
    verify(&images, &["--repair"]).ok();
    assert!(!layer.exists());
    // Without the blob and without the registry there is nothing to compare with, which is said.
    drop(registry);
    let unknown = verify(&images, &[]).exits(1);
    assert!(unknown.stdout.contains("not compared"), "{unknown}");
    unknown.creel_says(&["could not be compared", "--store-blobs"]);
    verify(&images, &["--offline"]).ok();
    std::fs::write(blob(&shown["digest"]), "{}").unwrap();
    let gone = verify(&images, &["--offline"]).exits(1);
    assert!(gone.stdout.contains("manifest") && gone.stdout.contains("pull it again"), "{gone}");
    images.creel(&["image", "ls"]).output().ok();
}
