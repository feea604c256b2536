//! Trees that are deeper than a process may have files open.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{choose, is_root, write_layout};
use creel_image_lib::layout::Layout;
use creel_image_lib::store::{Blob, Kept, Layer, Places, Settings, Store};
use creel_image_lib::unpack::{
    Devices, Expected, Form, Limits, Options, Owners, Tree, remove_all, unpack_layer,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// All tests of this program want it so.
fn limit_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
}

const DEPTH: usize = 400;

/// As a shell in a container does it: `mkdir d && cd d`, deeper than a path can say.
fn dig(at: &Path, depth: usize) {
    let open = |at: &rustix::fd::OwnedFd, name: &str| {
        rustix::fs::openat(at, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let mut dir = rustix::fs::openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = open(&dir, "d");
    }
}

/// A header, and nothing else.
fn entry(name: &str, flag: u8, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(124, "00000000000\0");
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, std::str::from_utf8(&[flag]).unwrap());
    put(157, link);
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn long_name(name: &str) -> Vec<u8> {
    let mut record = entry("././@LongLink", b'L', "");
    record[124..136].copy_from_slice(format!("{:011o}\0", name.len()).as_bytes());
    record[148..156].copy_from_slice(b"        ");
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record.extend(name.as_bytes());
    record.resize(record.len().next_multiple_of(512), 0);
    record
}

/// A layer of one entry, DEPTH directories down.
fn deep_layer() -> Vec<u8> {
    let name = format!("top/{}f", "d/".repeat(DEPTH));
    let mut tar = long_name(&name);
    tar.extend(entry("f", b'0', ""));
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn settings() -> Settings {
    if is_root() { Settings::root() } else { Settings::single_id() }
}

#[test]
fn what_a_container_dug_is_removed() {
    limit_files();
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path(), settings()).unwrap();
    std::fs::create_dir_all(scratch.path().join("containers/c/upper")).unwrap();
    dig(&scratch.path().join("containers/c/upper"), 4 * DEPTH);
    creel_image_lib::store::remove(store.root(), &scratch.path().join("containers/c")).unwrap();
    for place in ["containers", "tmp"] {
        assert_eq!(std::fs::read_dir(scratch.path().join(place)).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn what_a_killed_command_left_does_not_close_the_store() {
    let scratch = tempfile::tempdir().unwrap();
    drop(Store::open(scratch.path(), settings()).unwrap());
    // A file where only directories are made cannot be locked as one.
    std::fs::write(scratch.path().join("tmp/1-0"), "").unwrap();
    dig(&scratch.path().join("tmp"), DEPTH);
    let store = Store::open(scratch.path(), settings()).unwrap();
    assert!(store.left_behind().unwrap().to_string().contains("tmp/1-0"));
    assert!(!scratch.path().join("tmp/d").exists(), "the rest is removed");
    std::fs::remove_file(scratch.path().join("tmp/1-0")).unwrap();
    assert!(Store::open(scratch.path(), settings()).unwrap().left_behind().is_none());
}

#[test]
fn a_deep_layer_is_pulled_run_and_pruned() {
    limit_files();
    let scratch = tempfile::tempdir().unwrap();
    write_layout(&scratch.path().join("layout"), &[deep_layer()]);
    let source = format!("oci:{}:a", scratch.path().join("layout").display()).parse().unwrap();
    let layout = Layout::open(&source, scratch.path()).unwrap();
    let (chosen, config, config_bytes) = choose(&layout);
    let store = Store::open(&scratch.path().join("store"), settings()).unwrap();
    let (descriptor, diff_id) = (&chosen.manifest.layers[0], &config.rootfs.diff_ids[0]);
    let Layer::Missing(slot) = store.layer(diff_id).unwrap() else { panic!("it is there") };
    let blob = layout.blob(descriptor).unwrap();
    let digest = descriptor.digest().unwrap();
    slot.unpack(blob, &digest, descriptor.size, &Limits::default(), Blob::Stream).unwrap();
    let image = store.add_image(&chosen.digest, &chosen.bytes, &config_bytes).unwrap();
    let places = Places {
        bundle: scratch.path().join("bundle"),
        state: scratch.path().join("state"),
        pid_file: None,
        kept: Kept::No,
    };
    let container = store.make_container("c", &image, places).unwrap();
    store.remove_container(&container).unwrap();
    assert_eq!(store.prune().unwrap().images, 1);
    for place in ["snapshots", "patches", "tmp"] {
        assert_eq!(std::fs::read_dir(store.root().join(place)).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn a_flat_tree_loses_what_is_deep_by_a_whiteout() {
    limit_files();
    let scratch = tempfile::tempdir().unwrap();
    let flat = scratch.path().join("flat");
    std::fs::create_dir(&flat).unwrap();
    let owners = if is_root() { Owners::Recorded } else { Owners::Squashed };
    let options = Options { form: Form::Flat, owners, devices: Devices::Skip, user_xattrs: false };
    let mut tree = Tree::new(std::fs::File::open(&flat).unwrap().into(), options).unwrap();
    let mut upper = entry("top/.wh.d", b'0', "");
    upper.extend(entry("top/kept/", b'5', ""));
    upper.resize(upper.len() + 1024, 0);
    for tar in [deep_layer(), upper] {
        let digest = common::sha(&tar);
        let expected = Expected { digest: &digest, size: tar.len() as u64, diff_id: &digest };
        unpack_layer(tar.as_slice(), expected, &Limits::default(), &mut tree).unwrap();
    }
    tree.finish().unwrap();
    let left: Vec<_> = std::fs::read_dir(flat.join("top")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
    remove_all(CWD, flat.to_str().unwrap().as_bytes()).unwrap();
    assert!(!flat.exists());
}
