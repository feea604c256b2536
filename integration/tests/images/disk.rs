//! A disk that is too small, and one that fills while an image is unpacked.

use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};
use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

fn image(images: &Images, content: &[u8]) -> String {
    let mut layers = vec![images.layout.layer(&images.scratch.join("tree"))];
    for name in ["x", "y"] {
        images.scratch.file(&format!("{name}/{name}/file"), [content, name.as_bytes()].concat());
        images.scratch.file(&format!("{name}/{name}/small"), name);
        layers.push(images.layout.layer(&images.scratch.join(name)));
    }
    images.layout.image(
        "large",
        &layers,
        &json!({"Cmd": ["cat", "/x/small", "/y/small"], "Env": ["PATH=/bin"]}),
    );
    images.oci("large")
}

fn assert_empty(images: &Images, directories: &[&str]) {
    for directory in directories {
        assert_eq!(images.stored(directory), Vec::<String>::new(), "{directory}");
    }
}

#[test]
fn a_disk_that_cannot_hold_the_image_is_told_before_a_byte_is_read() {
    needs_images!();
    let mut images = Images::new();
    let random: Vec<u8> = (0..300_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes())
        .collect();
    let name = image(&images, &random);
    images.limit_store("1m");
    let store = images.store("").display().to_string();
    let output = images.creel(&["pull", "-q", &name]).output().exits(1);
    output.creel_says(&[store.trim_end_matches('/'), "compressed", "left", "creel image prune"]);
    assert_empty(&images, &["snapshots", "images", "refs", "tmp"]);
}

#[test]
fn a_disk_that_fills_leaves_nothing_half_made() {
    needs_images!();
    let mut images = Images::new();
    // Packs to little: only unpacking shows how much it is.
    let name = image(&images, &vec![7; 4 << 20]);
    images.limit_store("7m");
    let pulled = images.creel(&["pull", "-q", &name]).output().exits(1);
    pulled.creel_says(&["layer", "ENOSPC", "creel image prune"]);
    assert_empty(&images, &["images", "refs", "tmp", "blobs/sha256"]);
    for layer in images.stored("snapshots") {
        let sealed: &[&str] = &["fs", "record.json"];
        let inside = std::fs::read_dir(images.store("snapshots").join(&layer)).unwrap();
        let mut names: Vec<_> =
            inside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, sealed, "{layer}");
    }
    remount(&images.store(""), "200m");
    let output = images.run(&["-q"], &name, &[]).output().ok();
    assert_eq!(output.stdout, "xy");
    images.assert_clean();
}

#[test]
fn a_bundle_on_a_full_disk_is_not_there() {
    needs_images!();
    let mut images = Images::new();
    let name = image(&images, &vec![7; 4 << 20]);
    images.limit_store("6m");
    let bundle = images.store("bundle");
    let unpacked = images.runtime(&["unpack", "-q", &name, bundle.to_str().unwrap()]);
    unpacked.output().exits(1).creel_says(&["layer", "ENOSPC"]);
    assert_empty(&images, &[""]);
}

fn remount(at: &Path, size: &str) {
    let options = std::ffi::CString::new(format!("size={size}")).unwrap();
    mount_remount(at, MountFlags::empty(), options.as_c_str()).unwrap();
}
