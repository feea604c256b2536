//! kill -9 at any moment of two pulls at once leaves a store that the next pull finishes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use creel_integration::command::Running;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::Images;
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
