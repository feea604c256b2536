#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::manifest::media_type;
use crate::testing::{TarBuilder, gzip, is_root};
use crate::unpack::Limits;

fn settings() -> Settings {
    if is_root() { Settings::root() } else { Settings::single_id() }
}

fn sha(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

struct Made {
    layers: Vec<(Vec<u8>, Digest)>,
    manifest: Vec<u8>,
    config: Vec<u8>,
}

fn made(tars: &[Vec<u8>]) -> Made {
    let layers: Vec<_> = tars.iter().map(|tar| (gzip(tar), sha(tar))).collect();
    let ids: Vec<&str> = layers.iter().map(|(_, diff_id)| diff_id.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}
    });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": sha(bytes).as_str(), "size": bytes.len()});
    let blobs: Vec<_> = layers.iter().map(|(blob, _)| descriptor(media_type::OCI_LAYER, blob)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG, &config), "layers": blobs
    });
    Made { layers, manifest: manifest.to_string().into_bytes(), config }
}

fn base() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.dir("./", 0o755);
    tar.dir("etc", 0o750);
    tar.file("etc/low", b"low");
    tar.finish()
}

/// A layer without an entry for `etc`, and with a link to a lower file.
fn upper() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.file("etc/new", b"new");
    tar.link(b'1', "etc/linked", "etc/low");
    tar.finish()
}

fn pull(store: &Store, made: &Made, blob: Blob) -> Result<Image, Error> {
    for (bytes, diff_id) in &made.layers {
        if let Layer::Missing(slot) = store.layer(diff_id)? {
            slot.unpack(bytes.as_slice(), &sha(bytes), bytes.len() as u64, &Limits::default(), blob)?;
        }
    }
    store.add_image(&sha(&made.manifest), &made.manifest, &made.config)
}

#[test]
fn a_pulled_image_is_found_again_with_its_patches() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base(), upper()]);
    let digest = sha(&made.manifest);
    let store = Store::open(dir.path(), settings()).unwrap();
    assert_eq!(store.image(&digest).unwrap(), None);
    let image = pull(&store, &made, Blob::Stream).unwrap();
    assert_eq!(image.lowers.len(), 3);
    assert_eq!(image.root_from.as_ref(), image.lowers.last());
    let patch = dir.path().join(&image.lowers[0]);
    assert_eq!(std::fs::read_to_string(patch.join("etc/linked")).unwrap(), "low");
    let mode = std::os::unix::fs::MetadataExt::mode(&patch.join("etc").metadata().unwrap());
    assert_eq!(mode & 0o7777, 0o750);
    store.name_image("host.example/a:1", &image, &digest).unwrap();
    drop(store);
    let store = Store::open(dir.path(), settings()).unwrap();
    let named = store.named("host.example/a:1").unwrap().unwrap();
    assert_eq!(store.image(&named.manifest).unwrap(), Some(image.clone()));
    assert_eq!(store.config(&image).unwrap().platform().to_string(), "linux/amd64");
    assert_eq!(store.blob(&sha(&made.layers[0].0)).unwrap().map(drop), None);
}

#[test]
fn a_wrong_layer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let mut made = made(&[base()]);
    let last = made.layers[0].0.len() - 1;
    made.layers[0].0[last] ^= 1;
    let error = pull(&store, &made, Blob::Keep).unwrap_err();
    // By the digest that its source knows it by, as when it cannot be fetched.
    let blob = sha(&made.layers[0].0);
    assert!(error.to_string().starts_with(&format!("layer {}: ", blob.short())), "{error}");
    for place in ["tmp", "snapshots", "blobs/sha256"] {
        assert_eq!(std::fs::read_dir(dir.path().join(place)).unwrap().count(), 0, "{place}");
    }
    let missing = store.add_image(&sha(&made.manifest), &made.manifest, &made.config);
    assert!(matches!(missing, Err(Error::NoLayer(_))));
}

#[test]
fn a_layer_that_two_want_is_read_once() {
    struct Counted<'a>(&'a [u8], &'a AtomicUsize);
    impl Read for Counted<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(buf)?;
            self.1.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base()]);
    let (blob, diff_id) = &made.layers[0];
    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(dir.path(), settings()).unwrap();
                if let Layer::Missing(slot) = store.layer(diff_id).unwrap() {
                    let source = Counted(blob, &read);
                    let size = blob.len() as u64;
                    slot.unpack(source, &sha(blob), size, &Limits::default(), Blob::Stream).unwrap();
                }
                assert!(store.snapshot(diff_id).unwrap().is_some());
            });
        }
    });
    assert_eq!(read.load(Ordering::Relaxed), blob.len());
}

#[test]
fn after_a_power_loss_only_what_is_sealed_counts() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base(), upper()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    let other_boot = || {
        let mut store = Store::open(dir.path(), settings()).unwrap();
        store.boot = "another".to_string();
        store
    };
    assert_eq!(other_boot().image(&image.manifest).unwrap(), None);
    let unsealed = store.unsealed(&image);
    assert_eq!(unsealed.len(), 3);
    // What is gone by the time of the seal is no error.
    seal(&[unsealed, vec![dir.path().join("none")]].concat()).unwrap();
    assert!(store.unsealed(&image).is_empty());
    assert_eq!(other_boot().image(&image.manifest).unwrap(), Some(image.clone()));
    let snapshot = dir.path().join(&image.lowers[1]);
    std::fs::remove_file(snapshot.parent().unwrap().join("sealed")).unwrap();
    std::fs::write(snapshot.join("etc/new"), "").unwrap();
    let store = other_boot();
    assert_eq!(store.image(&image.manifest).unwrap(), None);
    assert!(matches!(store.layer(&image.layers[0]).unwrap(), Layer::Ready(_)));
    assert_eq!(pull(&store, &made, Blob::Stream).unwrap(), image);
    assert_eq!(std::fs::read_to_string(snapshot.join("etc/new")).unwrap(), "new");
    std::fs::write(snapshot.parent().unwrap().join("record.json"), "").unwrap();
    assert_eq!(store.image(&image.manifest).unwrap(), None);
}

#[test]
fn pruning_keeps_what_names_and_containers_need() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let (first, second) = (made(&[base(), upper()]), made(&[base()]));
    let image = pull(&store, &first, Blob::Keep).unwrap();
    let kept = pull(&store, &second, Blob::Keep).unwrap();
    store.name_image("first", &image, &image.manifest).unwrap();
    store.name_image("second", &kept, &kept.manifest).unwrap();
    assert_eq!(store.prune().unwrap(), Pruned::default());
    store.remove_name("first").unwrap();
    assert!(matches!(store.remove_name("first"), Err(Error::NoImage(_))));
    let other = Store::open(dir.path(), settings()).unwrap();
    assert!(matches!(store.prune(), Err(Error::Busy)));
    drop(other);
    // The layer that both have stays with its blob; layer, patch, manifest, config and blob of the first go.
    assert_eq!(store.prune().unwrap(), Pruned { images: 1, directories: 2, blobs: 3 });
    assert_eq!(store.image(&kept.manifest).unwrap(), Some(kept));
    assert_eq!(store.image(&image.manifest).unwrap(), None);
}

#[test]
fn what_a_killed_command_left_is_removed_and_what_a_living_one_makes_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let left = dir.path().join("tmp/1-1");
    std::fs::create_dir_all(left.join("fs/etc")).unwrap();
    let living = place::Aside::make(&dir.path().join("tmp")).unwrap();
    drop(Store::open(dir.path(), settings()).unwrap());
    assert!(!left.exists() && living.path.exists());
    drop(living);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    drop(store);
    let other = if is_root() { Settings::single_id() } else { Settings::root() };
    assert!(matches!(Store::open(dir.path(), other), Err(Error::OtherSettings(_))));
}

fn places() -> Places {
    Places { bundle: "/run/bundle".into(), state: "/run/state".into(), pid_file: None, kept: Kept::No }
}

#[test]
fn a_container_holds_its_image_and_has_a_root_like_the_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let mut tar = TarBuilder::default();
    tar.dir("./", 0o711);
    let image = pull(&store, &made(&[tar.finish()]), Blob::Stream).unwrap();
    let container = store.make_container("c1", &image, places()).unwrap();
    let mode = |name: &str| {
        std::os::unix::fs::MetadataExt::mode(&container.path().join(name).metadata().unwrap()) & 0o7777
    };
    assert_eq!(mode("upper"), 0o711);
    assert!(matches!(store.make_container("c1", &image, places()), Err(Error::InUse(_))));
    assert!(matches!(store.make_container("../c1", &image, places()), Err(Error::BadId(_))));
    assert_eq!(store.prune().unwrap().directories, 0);
    assert!(store.container("c1").unwrap().is_some());
    store.remove_container(&container).unwrap();
    assert!(store.container("c1").unwrap().is_none());
    assert_eq!(store.prune().unwrap().directories, 1);
}

#[test]
fn a_layer_that_an_image_has_twice_is_stacked_once_where_it_comes_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let mut middle = TarBuilder::default();
    middle.dir("etc", 0o755);
    middle.file("etc/low", b"middle");
    let image = pull(&store, &made(&[base(), middle.finish(), base()]), Blob::Stream).unwrap();
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.lowers.len(), 2);
    assert_eq!(std::fs::read_to_string(dir.path().join(&image.lowers[0]).join("etc/low")).unwrap(), "low");
}

fn check(store: &Store, made: &Made, layer: usize, repair: Repair) -> Result<Checked, Error> {
    let (blob, diff_id) = &made.layers[layer];
    store.check_layer(diff_id, blob.as_slice(), &sha(blob), blob.len() as u64, repair)
}

#[test]
fn a_layer_whose_files_a_patch_links_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base(), upper()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    for layer in 0..2 {
        assert_eq!(check(&store, &made, layer, Repair::Replace).unwrap(), Checked::Same);
    }
    assert_eq!(store.check_patches(&image, Repair::No).unwrap(), Checked::Same);
}

#[test]
fn names_that_are_one_file_are_to_stay_one_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = TarBuilder::default();
    tar.dir("./", 0o755);
    for name in ["a", "b"] {
        tar.file(name, b"same");
    }
    tar.link(b'1', "c", "a");
    let made = made(&[tar.finish()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    let root = dir.path().join(&image.lowers[0]);
    for (name, other) in [("b", "a"), ("c", "b")] {
        let kept = root.join(name).metadata().unwrap().modified().unwrap();
        std::fs::remove_file(root.join(name)).unwrap();
        if name == "b" {
            std::fs::hard_link(root.join(other), root.join(name)).unwrap();
        } else {
            std::fs::write(root.join(name), b"same").unwrap();
            let file = std::fs::File::open(root.join(name)).unwrap();
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            file.set_modified(kept).unwrap();
        }
        let Checked::Repaired(told) = check(&store, &made, 0, Repair::Replace).unwrap() else {
            panic!("{name} is not found")
        };
        assert!(told.iter().all(|line| line.ends_with("has other hard links")), "{told:?}");
    }
}

#[test]
fn a_repaired_layer_is_in_the_patches_too() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base(), upper()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    let [patch, _, base] = [0, 1, 2].map(|layer| dir.path().join(&image.lowers[layer]));
    std::fs::write(base.join("etc/low"), "LOW").unwrap();
    assert!(matches!(check(&store, &made, 0, Repair::No).unwrap(), Checked::Differs(_)));
    // Not under the feet of a command that starts a container.
    let other = Store::open(dir.path(), settings()).unwrap();
    assert!(matches!(check(&store, &made, 0, Repair::Replace), Err(Error::Busy)));
    drop(other);
    let again = store.again().unwrap();
    assert!(matches!(check(&again, &made, 0, Repair::Replace).unwrap(), Checked::Repaired(_)));
    assert_eq!(std::fs::read_to_string(patch.join("etc/linked")).unwrap(), "low");
    assert_eq!(store.check_patches(&image, Repair::No).unwrap(), Checked::Same);
    assert_eq!(store.image(&image.manifest).unwrap(), Some(image));
}

#[test]
fn the_lowest_layer_is_repaired_without_waiting_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = TarBuilder::default();
    tar.file("etc/low", b"low");
    let made = made(&[tar.finish()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    std::fs::write(dir.path().join(&image.lowers[0]).join("etc/low"), "LOW").unwrap();
    assert!(matches!(check(&store, &made, 0, Repair::Replace).unwrap(), Checked::Repaired(_)));
    assert_eq!(check(&store, &made, 0, Repair::No).unwrap(), Checked::Same);
}

#[test]
fn a_patch_that_was_altered_is_found_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base(), upper()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    let linked = dir.path().join(&image.lowers[0]).join("etc/linked");
    std::fs::remove_file(&linked).unwrap();
    let found = Checked::Differs(vec!["/etc/linked: is missing".into()]);
    assert_eq!(store.check_patches(&image, Repair::No).unwrap(), found);
    let container = store.make_container("c1", &image, places()).unwrap();
    assert!(matches!(store.check_patches(&image, Repair::Replace).unwrap(), Checked::InUse(..)));
    store.remove_container(&container).unwrap();
    assert!(matches!(store.check_patches(&image, Repair::Replace).unwrap(), Checked::Repaired(_)));
    assert_eq!(std::fs::read_to_string(linked).unwrap(), "low");
    std::fs::remove_dir_all(dir.path().join("patches")).unwrap();
    std::fs::create_dir(dir.path().join("patches")).unwrap();
    assert!(matches!(store.check_patches(&image, Repair::Replace).unwrap(), Checked::Repaired(_)));
    assert_eq!(store.check_patches(&image, Repair::No).unwrap(), Checked::Same);
}

#[test]
fn a_disk_that_is_full_for_the_copy_of_a_blob_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(&[base()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let (blob, diff_id) = &made.layers[0];
    let digest = sha(blob);
    let path = dir.path().join("partial").join(kept::file_name(&digest));
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut partial = store.partial(&digest, blob.len() as u64).unwrap().unwrap();
    let Layer::Missing(slot) = store.layer(diff_id).unwrap() else { panic!("it is there") };
    let source = partial.reader(blob.as_slice()).unwrap();
    let error =
        slot.unpack(source, &digest, blob.len() as u64, &Limits::default(), Blob::Stream).unwrap_err();
    assert!(error.is_full() && partial.is_full());
    let text = error.to_string();
    assert!(text.contains(&format!("write({path:?}): ENOSPC")), "{text}");
}

#[test]
fn what_is_left_out_of_a_layer_stands_in_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = TarBuilder::default();
    for i in 0..70 {
        tar.link(b'3', &format!("whiteout{i}"), "");
    }
    let made = made(&[tar.finish()]);
    let store = Store::open(dir.path(), settings()).unwrap();
    let image = pull(&store, &made, Blob::Stream).unwrap();
    let record = store.snapshot(&image.layers[0]).unwrap().unwrap().record;
    assert_eq!((record.skipped.len(), record.skipped_count), (64, 70));
    assert_eq!(record.skipped[0].0, "whiteout0");
}

#[test]
fn more_layers_than_overlayfs_takes_are_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let layers = |count: usize| -> Vec<Vec<u8>> {
        let layer = |i| {
            let mut tar = TarBuilder::default();
            // Without an entry for its directory: from the second layer on, each has a patch.
            tar.file(&format!("d/{i}"), b"");
            tar.finish()
        };
        (0..count).map(layer).collect()
    };
    let store = Store::open(dir.path(), settings()).unwrap();
    let mut base = TarBuilder::default();
    base.dir("d", 0o700);
    let layers: Vec<_> = [base.finish()].into_iter().chain(layers(251)).collect();
    let ids: Vec<Digest> = layers.iter().map(|tar| sha(tar)).collect();
    crate::mount::check_layers(&ids).unwrap();
    let error = pull(&store, &made(&layers), Blob::Stream).unwrap_err();
    assert_eq!(error.to_string(), "503 layers are more than the 500 of overlayfs");
    let many: Vec<Digest> = (0..501).map(|i: u32| sha(&i.to_le_bytes())).collect();
    assert!(matches!(crate::mount::check_layers(&many), Err(crate::mount::Error::TooMany(501))));
    let twice: Vec<Digest> = many[..300].iter().chain(&many[..300]).cloned().collect();
    crate::mount::check_layers(&twice).unwrap();
}
