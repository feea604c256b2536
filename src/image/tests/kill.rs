//! Two pulls at once, of images that share layers, killed at any moment: the store is never wrong, and the next
//! pull finishes. `CREEL_TEST_ROUNDS` says how many kills.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{choose, have, is_root, layer, listing, write_layout};
use creel_image_lib::layout::Layout;
use creel_image_lib::store::{Blob, Layer, Settings, Store};
use creel_image_lib::unpack::Limits;
use rustix::event::{PollFd, PollFlags, Timespec};

const STORE: &str = "CREEL_TEST_STORE";
const LAYOUT: &str = "CREEL_TEST_LAYOUT";

fn rounds() -> u64 {
    std::env::var("CREEL_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

fn settings() -> Settings {
    if is_root() { Settings::root() } else { Settings::single_id() }
}

/// What the image of a layout is called.
fn name(layout: &Path) -> String {
    format!("host.example/{}:latest", layout.file_name().unwrap().to_str().unwrap())
}

/// A whole pull from a layout.
fn pull(store: &Path, from: &Path) {
    let store = Store::open(store, settings()).unwrap();
    let source = format!("oci:{}:a", from.display()).parse().unwrap();
    let layout = Layout::open(&source, store.root()).unwrap();
    let (chosen, config, config_bytes) = choose(&layout);
    for (descriptor, diff_id) in chosen.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        if let Layer::Missing(slot) = store.layer(diff_id).unwrap() {
            let blob = layout.blob(descriptor).unwrap();
            let digest = descriptor.digest().unwrap();
            slot.unpack(blob, &digest, descriptor.size, &Limits::default(), Blob::Keep).unwrap();
        }
    }
    let image = store.add_image(&chosen.digest, &chosen.bytes, &config_bytes).unwrap();
    store.name_image(&name(from), &image, &chosen.digest).unwrap();
}

/// What the children of the test below do; nothing when it is run as a test.
#[test]
fn child() {
    if let (Some(store), Some(layout)) = (std::env::var_os(STORE), std::env::var_os(LAYOUT)) {
        pull(Path::new(&store), Path::new(&layout));
    }
}

fn spawn(store: &Path, layout: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(STORE, store)
        .env(LAYOUT, layout)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Waits for the end of a child, but not longer than this many microseconds.
fn wait_at_most(child: &Child, micros: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let micros = i64::try_from(micros).unwrap();
    let timeout = Timespec { tv_sec: micros / 1_000_000, tv_nsec: micros % 1_000_000 * 1000 };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
}

/// What must be in each snapshot.
fn contents(store: &Path) -> Contents {
    let dirs = std::fs::read_dir(store.join("snapshots")).unwrap();
    let dirs = dirs.map(|entry| entry.unwrap().path());
    dirs.map(|path| (PathBuf::from(path.file_name().unwrap()), listing(&path.join("fs")))).collect()
}

type Contents = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

fn assert_same(found: &Contents, expected: &Contents) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tree) in expected {
        for path in tree.keys().chain(found[name].keys()) {
            assert_eq!(found[name].get(path), tree.get(path), "{name:?}: {path:?}");
        }
    }
}

#[test]
fn killed_pulls_leave_a_store_that_is_right() {
    if !have("tar") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let script =
        "mkdir -p d/e; i=0; while [ $i -lt 60 ]; do echo $i > d/$i; echo $i > d/e/$i; i=$((i + 1)); done
        head -c 1000000 /dev/urandom > big";
    let shared = [
        layer(scratch.path(), "1", script, "--format=gnu"),
        layer(scratch.path(), "2", "mkdir d; echo new > d/1; echo > d/.wh.2", "--format=gnu"),
    ];
    let own = |name: &str, text: &str| {
        layer(scratch.path(), name, &format!("{script}; echo {text} > own"), "--format=gnu")
    };
    let layouts = ["a", "b"].map(|name| {
        let layout = scratch.path().join(name);
        let mut layers = shared.to_vec();
        layers.push(own(&format!("{name}-own"), name));
        write_layout(&layout, &layers);
        layout
    });
    let reference = scratch.path().join("reference");
    let started = std::time::Instant::now();
    for layout in &layouts {
        pull(&reference, layout);
    }
    let whole = u64::try_from(started.elapsed().as_micros()).unwrap();
    let expected = contents(&reference);
    // A generator of our own, so that a failure can be repeated.
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let (mut cut, mut done) = (0, 0);
    for round in 0..rounds() {
        let store = scratch.path().join("store");
        let mut children = layouts.each_ref().map(|layout| spawn(&store, layout));
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        wait_at_most(&children[0], random % (whole * 2));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let opened = Store::open(&store, settings()).unwrap();
        let left: Vec<_> = std::fs::read_dir(store.join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        for (name, found) in contents(&store) {
            let one = |tree: &BTreeMap<_, _>| [(name.clone(), tree.clone())].into();
            assert_same(&one(&found), &one(&expected[&name]));
        }
        let mut complete = true;
        for layout in &layouts {
            match opened.named(&name(layout)).unwrap() {
                Some(named) => {
                    assert!(opened.image(&named.manifest).unwrap().is_some(), "round {round}");
                    done += 1;
                }
                None => {
                    complete = false;
                    cut += 1;
                }
            }
        }
        drop(opened);
        // Up to four kills fall on what the earlier ones left; then, or when both are there, it starts afresh.
        if complete || round % 4 == 3 {
            for layout in &layouts {
                pull(&store, layout);
            }
            assert_same(&contents(&store), &expected);
            std::fs::remove_dir_all(&store).unwrap();
        }
    }
    eprintln!("{cut} pulls were cut before the end, {done} had an image");
}
