//! kill -9 at any moment of two pulls at once, and before any call of one, leaves a store that the next pull finishes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use creel_integration::command::Running;
use creel_integration::{Cmd, skip};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::Images;
use crate::layout::{hard_link, tar};
use crate::needs_images;

/// How many kills, if `CREEL_TEST_ROUNDS` does not say.
const ROUNDS: u32 = 20;

const IMAGES: [&str; 2] = ["one", "two"];

fn rounds() -> u32 {
    std::env::var("CREEL_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Two images that share layers and have one of their own, with enough in each that a kill meets it half way.
fn make(images: &Images) {
    let mut layers = vec![images.layout.layer(&images.scratch.join("tree"))];
    for layer in 0..4u32 {
        for file in 0..100u32 {
            let content: Vec<u8> = (0..4_000u32)
                .flat_map(|n| (n ^ (layer << 20) ^ (file << 12)).wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            images.scratch.file(&format!("big{layer}/data/{layer}/{file}"), content);
        }
        layers.push(images.layout.layer(&images.scratch.join(format!("big{layer}"))));
    }
    let config = json!({"Cmd": ["sh", "-c", "ls /data/*/* | wc -l"], "Env": ["PATH=/bin"]});
    images.layout.image("one", &layers[..4], &config);
    images.layout.image("two", &[&layers[..3], &layers[4..]].concat(), &config);
}

/// How many files each layer of the store has, and how many bytes they have.
fn weigh(images: &Images) -> BTreeMap<String, (u64, u64)> {
    let weigh_one = |name: &String| {
        let (mut files, mut bytes) = (0, 0);
        let mut todo = vec![images.store("snapshots").join(name).join("fs")];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                files += 1;
                if meta.is_dir() {
                    todo.push(entry.path());
                } else {
                    bytes += meta.len();
                }
            }
        }
        (files, bytes)
    };
    images.stored("snapshots").into_iter().map(|name| (name.clone(), weigh_one(&name))).collect()
}

/// Waits until then, or until all have ended: that is what it gives then.
fn wait_until(at: Instant, pulls: &mut [Running]) -> Option<Instant> {
    while Instant::now() < at {
        if pulls.iter_mut().all(Running::has_exited) {
            return Some(Instant::now());
        }
        rustix::event::poll(&mut [], Some(&Duration::from_micros(200).try_into().unwrap())).ok();
    }
    None
}

#[test]
fn killed_pulls_are_finished_by_the_next() {
    needs_images!();
    let images = Images::new();
    make(&images);
    let pull = |name: &str| images.creel(&["pull", "-q", &images.oci(name)]).spawn();
    let begun = Instant::now();
    for pull in IMAGES.map(pull) {
        pull.output().ok();
    }
    // How long the pulls take that nobody kills: of an empty store, and of one that a killed round left, or two.
    let mut whole = [begun.elapsed(); 3];
    let known = weigh(&images);
    assert_eq!(known.len(), 5);
    let mut cut = 0;
    for round in 0..rounds() {
        // Some kills fall on what earlier ones left.
        let kind = usize::try_from(round % 3).unwrap();
        if kind == 0 {
            for directory in ["snapshots", "images", "refs", "blobs/sha256"] {
                std::fs::remove_dir_all(images.store(directory)).unwrap();
            }
        }
        let begun = Instant::now();
        let mut pulls = IMAGES.map(pull);
        // Spread over the whole of the pulls, in an order that is not the rounds'.
        let ended = wait_until(begun + whole[kind] * (round * 7919 % 101 + 1) / 102, &mut pulls);
        for pull in &mut pulls {
            if !pull.has_exited() {
                pull.signal(Signal::KILL);
            }
        }
        // The machine may be busier than it was, or less busy: the kills follow it.
        whole[kind] = ended.map_or(whole[kind] * 9 / 8, |ended| ended - begun);
        for pull in pulls {
            let output = pull.output();
            assert!([0, -9].contains(&output.code()), "round {round}: {output}");
            cut += u32::from(output.code() == -9);
        }
        // Whatever was cut: a layer that is there is whole, and so is an image that has a name.
        for (layer, found) in weigh(&images) {
            assert_eq!(found, known[&layer], "round {round}: {layer}");
        }
        let named = images.creel(&["image", "ls", "-q"]).output().ok().stdout;
        assert_eq!(named.lines().count(), images.stored("refs").len(), "round {round}: {named}");
        for digest in named.lines() {
            images.creel(&["image", "inspect", digest]).output().ok();
        }
        if kind == 2 {
            for name in IMAGES {
                let output = images.run(&["-q"], &images.oci(name), &[]).output().ok();
                assert_eq!(output.stdout.trim(), "300", "round {round}");
            }
            images.assert_clean();
        }
    }
    eprintln!("{cut} of {} pulls were killed half way", 2 * rounds());
    assert!(cut > rounds() / 2, "only {cut} of {} pulls were killed half way", 2 * rounds());
}

/// The calls that change a store, and those that lock it; not every machine has each.
const CALLS: [&str; 23] = [
    "mkdir",
    "mkdirat",
    "open",
    "openat",
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "symlinkat",
    "mknodat",
    "fchown",
    "fchmod",
    "fchownat",
    "fchmodat",
    "utimensat",
    "fsetxattr",
    "ftruncate",
    "flock",
    "syncfs",
];

/// Pulls an image and is killed before its nth call of this name; says whether it came so far.
fn is_killed_at(images: &Images, image: &str, call: &str, n: u32) -> bool {
    let (trace, inject) = (format!("trace=?{call}"), format!("inject=?{call}:signal=KILL:when={n}"));
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let pulled = images.creel(&["pull", "-q", &images.oci(image)]).behind(strace).output();
    assert!([0, -9].contains(&pulled.code()), "before {call} {n}: {pulled}");
    pulled.code() == -9
}

#[test]
fn pull_killed_before_any_call_is_finished_by_the_next() {
    needs_images!();
    let images = Images::new();
    if Cmd::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output().code() != 0 {
        skip!("strace is not installed, or may not trace");
    }
    // The second layer has entries in directories of the first, and a link to a file of it: it takes a patch.
    let base = images.layout.layer(&images.scratch.join("tree"));
    images.scratch.file("above/etc/new", "new\n");
    let entries = tar(&images.scratch.join("above"), "./etc/new");
    let above = images.layout.layer_of(&[&hard_link("srv/link", "etc/plain")[..], &entries].concat());
    let config = json!({"Cmd": ["cat", "/etc/new", "/srv/link"], "Env": ["PATH=/bin"]});
    images.layout.image("above", &[base, above], &config);
    let step = if rounds() > ROUNDS { 1 } else { 9 };
    for image in ["a", "above"] {
        // With one layer to unpack, all that changes the store is done by the first thread, whose calls are counted.
        let begin = || {
            for directory in ["snapshots", "patches", "images", "refs", "blobs/sha256", "containers", "tmp"] {
                std::fs::remove_dir_all(images.store(directory)).ok();
            }
            if image == "above" {
                images.creel(&["pull", "-q", &images.oci("a")]).output().ok();
            }
        };
        begin();
        images.creel(&["pull", "-q", &images.oci(image)]).output().ok();
        let known = weigh(&images);
        let mut kills = 0;
        for call in CALLS {
            for n in (1..).step_by(step) {
                begin();
                let is_killed = is_killed_at(&images, image, call, n);
                for (layer, found) in weigh(&images) {
                    assert_eq!(found, known[&layer], "before {call} {n}: {layer}");
                }
                images.creel(&["image", "ls"]).output().ok();
                let ran = images.run(&["-q"], &images.oci(image), &[]).output();
                let expected = if image == "a" { (3, "hello\n") } else { (0, "new\nnot a program\n") };
                assert_eq!((ran.code(), ran.stdout.as_str()), expected, "before {call} {n}: {ran}");
                assert_eq!(weigh(&images), known, "before {call} {n}");
                images.assert_clean();
                if !is_killed {
                    break;
                }
                kills += 1;
            }
        }
        eprintln!("{image}: killed before {kills} calls");
        assert!(kills > 20, "{image}: killed before {kills} calls");
    }
}
