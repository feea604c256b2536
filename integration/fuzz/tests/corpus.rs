//! The corpus, and a few seconds of bytes drawn from it: the short form of `make fuzz`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::path::Path;
use std::time::{Duration, Instant};

use creel_fuzz::{TARGETS, Target};

const LONG: Duration = Duration::from_secs(1);

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_holds() {
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{}", target.name);
        for bytes in &corpus {
            (target.run)(bytes);
        }
    }
}

/// Bytes like those of the corpus, with some changed, taken out or put in.
fn drawn(corpus: &[Vec<u8>], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = corpus[random(corpus.len())].clone();
    for _ in 0..=random(8) {
        let at = random(bytes.len() + 1);
        match random(4) {
            0 if at < bytes.len() => bytes[at] = u8::try_from(random(256)).unwrap(),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            _ => {
                let other = &corpus[random(corpus.len())];
                let from = random(other.len() + 1);
                let length = random(other.len() - from + 1).min(600);
                bytes.splice(at..at, other[from..from + length].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn what_is_drawn_from_the_corpus_holds() {
    // A generator of our own, so that a failure can be repeated.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below.max(1) as u64).unwrap()
    };
    for target in &TARGETS {
        let corpus = corpus(target);
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            let bytes = drawn(&corpus, &mut random);
            let held = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(held.is_ok(), "{}: {:?}", target.name, bytes.escape_ascii().to_string());
        }
    }
}
