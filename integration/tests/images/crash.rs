//! kill -9 at any moment of a pull leaves a store that the next pull finishes.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

const ROUNDS: u32 = 20;

/// Layers with enough in them that a kill meets them half way.
fn image(images: &Images) {
    let mut layers = vec![images.layout.layer(&images.scratch.join("tree"))];
    for layer in 0..3u32 {
        for file in 0..100u32 {
            let content: Vec<u8> = (0..4_000u32)
                .flat_map(|n| (n ^ (layer << 20) ^ (file << 12)).wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            images.scratch.file(&format!("big{layer}/data/{layer}/{file}"), content);
        }
        layers.push(images.layout.layer(&images.scratch.join(format!("big{layer}"))));
    }
    images.layout.image(
        "big",
        &layers,
        &json!({"Cmd": ["sh", "-c", "ls /data/*/* | wc -l"], "Env": ["PATH=/bin"]}),
    );
}

#[test]
fn killed_pulls_are_finished_by_the_next() {
    needs_images!();
    let images = Images::new();
    image(&images);
    let whole = {
        let begun = Instant::now();
        images.creel(&["pull", "-q", &images.oci("big")]).output().ok();
        begun.elapsed()
    };
    let mut cut = 0;
    for round in 0..ROUNDS {
        for directory in ["snapshots", "images", "refs", "blobs/sha256"] {
            std::fs::remove_dir_all(images.store(directory)).unwrap();
        }
        let mut running = images.creel(&["pull", "-q", &images.oci("big")]).spawn();
        // Spread over the whole of a pull.
        let at = Instant::now() + whole * (round + 1) / (ROUNDS + 1);
        while Instant::now() < at && !running.has_exited() {
            rustix::event::poll(&mut [], Some(&Duration::from_micros(200).try_into().unwrap())).ok();
        }
        if !running.has_exited() {
            running.signal(Signal::KILL);
        }
        cut += u32::from(running.output().code() == -9);
        // Whatever was cut, a name only leads to an image that is whole.
        if !images.stored("refs").is_empty() {
            images.creel(&["image", "inspect", &images.oci("big")]).output().ok();
        }
        let output = images.run(&["-q"], &images.oci("big"), &[]).output().ok();
        assert_eq!(output.stdout.trim(), "300", "round {round}");
        images.assert_clean();
    }
    assert!(cut > ROUNDS / 4, "only {cut} of {ROUNDS} pulls were killed half way");
}
