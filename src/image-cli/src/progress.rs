//! What a pull, a push or a copy tells on standard error while it goes on: bars on a terminal, lines
//! elsewhere, JSON for programs, or nothing.
//!
//! The counts are of compressed bytes read, which is what the manifest tells the total of.

mod bars;

use std::io::{IsTerminal, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use serde_json::json;

use crate::{cli, output};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Lines,
    Json,
    Bars,
}

/// What is being done, as events name it and as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed {
    event: &'static str,
    going_on: &'static str,
    done: &'static str,
}

/// An image comes to this machine.
pub const PULL: Deed = Deed { event: "pull", going_on: "pulling", done: "pulled" };
/// An image goes from one place to another.
pub const COPY: Deed = Deed { event: "copy", going_on: "copying to", done: "copied to" };
/// An image goes from this machine.
pub const PUSH: Deed = Deed { event: "push", going_on: "pushing", done: "pushed" };
/// What is in the store is looked at.
pub const VERIFY: Deed = Deed { event: "verify", going_on: "verifying", done: "verified" };

/// The progress of one deed.
pub struct Progress {
    kind: Kind,
    deed: Deed,
    name: String,
    begun: Instant,
    layers: Mutex<Vec<Arc<Counts>>>,
    told: AtomicBool,
}

/// The progress of one layer.
#[derive(Clone)]
pub struct LayerProgress {
    kind: Kind,
    counts: Arc<Counts>,
}

/// How a layer came to be where it was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was read.
    Moved,
    /// It was there.
    Already,
    /// The registry had it in another repository.
    Mounted,
}

struct Counts {
    digest: String,
    short: String,
    size: u64,
    /// Bytes that an earlier run left.
    had: AtomicU64,
    read: AtomicU64,
    begun: AtomicBool,
    done: AtomicBool,
}

impl Progress {
    /// Nothing is told before there is something to wait for.
    pub fn new(words: &ArgMatches, deed: Deed, name: &str) -> Progress {
        let named = cli::value::<String>(words, "progress").unwrap_or_default();
        let kind = match named.as_str() {
            _ if cli::flag(words, "quiet") => Kind::Silent,
            "none" => Kind::Silent,
            "json" => Kind::Json,
            "plain" => Kind::Lines,
            _ if std::io::stderr().is_terminal() => Kind::Bars,
            _ => Kind::Lines,
        };
        Progress {
            kind,
            deed,
            name: name.to_owned(),
            begun: Instant::now(),
            layers: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// Tells that a source is asked.
    pub fn begin(&self) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        match self.kind {
            Kind::Lines | Kind::Bars => output::line(&format!("{} {}", self.deed.going_on, self.name)),
            Kind::Json => output::line(&json!({"event": self.deed.event, "name": self.name}).to_string()),
            Kind::Silent => {}
        }
    }

    /// A layer that is to be fetched.
    pub fn layer(&self, descriptor: &Descriptor) -> LayerProgress {
        self.begin();
        let digest = descriptor.digest_text().to_owned();
        let short = digest.split(':').next_back().unwrap_or_default().chars().take(12).collect();
        let counts = Arc::new(Counts {
            digest,
            short,
            size: descriptor.size,
            had: AtomicU64::new(0),
            read: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            done: AtomicBool::new(false),
        });
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(counts.clone());
        LayerProgress { kind: self.kind, counts }
    }

    /// Does the work, and draws bars meanwhile.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.kind != Kind::Bars {
            return work();
        }
        bars::during(&self.layers, work)
    }

    /// Tells that an image is in the store.
    pub fn finish(&self, manifest: &Digest, unpacked: u64, layers: usize) {
        let read = self.read();
        let text = format!(
            "{} read in {:.1} s, {} unpacked in {}",
            output::size(read),
            self.begun.elapsed().as_secs_f64(),
            output::size(unpacked),
            layers_words(layers)
        );
        let event = json!({"read": read, "unpacked": unpacked, "layers": layers});
        self.end(manifest, &text, event);
    }

    /// Tells that an image is where it was to go.
    pub fn arrived(&self, manifest: &Digest, outcomes: &[Outcome]) {
        let read = self.read();
        let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
        let (mounted, already) = (count(Outcome::Mounted), count(Outcome::Already));
        let mut text = format!("{} sent in {:.1} s", output::size(read), self.begun.elapsed().as_secs_f64());
        for (count, words) in [(mounted, "mounted from another repository"), (already, "there already")] {
            if count > 0 {
                text.push_str(&format!(", {count} of {} blobs {words}", outcomes.len()));
            }
        }
        let event = json!({"sent": read, "blobs": outcomes.len(), "mounted": mounted, "already": already});
        self.end(manifest, &text, event);
    }

    fn end(&self, manifest: &Digest, text: &str, mut event: serde_json::Value) {
        if !self.told.load(Ordering::Relaxed) {
            return;
        }
        match self.kind {
            Kind::Lines | Kind::Bars => output::line(&format!("{} {}: {text}", self.deed.done, self.name)),
            Kind::Json => {
                let done = self.deed.done.split(' ').next().unwrap_or_default();
                event["event"] = done.into();
                event["name"] = self.name.as_str().into();
                event["digest"] = manifest.as_str().into();
                output::line(&event.to_string());
            }
            Kind::Silent => {}
        }
    }

    fn read(&self) -> u64 {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|layer| layer.read.load(Ordering::Relaxed)).sum()
    }
}

fn layers_words(layers: usize) -> String {
    if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") }
}

impl LayerProgress {
    /// Counts what is read, from the start.
    pub fn reader<R: Read>(&self, inner: R) -> Counted<R> {
        self.counts.read.store(0, Ordering::Relaxed);
        self.counts.begun.store(true, Ordering::Relaxed);
        Counted { inner, layer: self.clone() }
    }

    /// Tells of bytes that an earlier run has left.
    pub fn had(&self, bytes: u64) {
        self.counts.had.store(bytes, Ordering::Relaxed);
        match self.kind {
            Kind::Lines => output::line(&format!(
                "layer {}: going on from {} of {}",
                self.counts.short,
                output::size(bytes),
                output::size(self.counts.size)
            )),
            Kind::Json => {
                let event = json!({"event": "layer-resumed", "digest": self.counts.digest, "from": bytes});
                output::line(&event.to_string());
            }
            Kind::Silent | Kind::Bars => {}
        }
    }

    fn add(&self, count: u64) {
        let before = self.counts.read.fetch_add(count, Ordering::Relaxed);
        if self.kind != Kind::Json || count == 0 {
            return;
        }
        // One event for each tenth of the layer.
        let had = self.counts.had.load(Ordering::Relaxed);
        let tenth = |read: u64| (had + read).saturating_mul(10).checked_div(self.counts.size).unwrap_or(10);
        if tenth(before) != tenth(before + count) {
            let event = json!({"event": "layer", "digest": self.counts.digest,
                "read": had + before + count, "size": self.counts.size});
            output::line(&event.to_string());
        }
    }

    /// The layer is in the store.
    pub fn done(&self) {
        self.ended(Outcome::Moved);
    }

    /// The layer is where it was to go.
    pub fn ended(&self, outcome: Outcome) {
        self.counts.begun.store(true, Ordering::Relaxed);
        self.counts.done.store(true, Ordering::Relaxed);
        let how = match outcome {
            Outcome::Moved => "done",
            Outcome::Already => "there already",
            Outcome::Mounted => "mounted from another repository",
        };
        match self.kind {
            Kind::Lines => output::line(&format!(
                "layer {}: {} {how}",
                self.counts.short,
                output::size(self.counts.size)
            )),
            Kind::Json => {
                let mut event = json!({"event": "layer-done", "digest": self.counts.digest});
                if outcome != Outcome::Moved {
                    event["how"] = if outcome == Outcome::Mounted { "mounted" } else { "already" }.into();
                }
                output::line(&event.to_string());
            }
            Kind::Silent | Kind::Bars => {}
        }
    }
}

/// A source whose bytes are counted.
pub struct Counted<R> {
    inner: R,
    layer: LayerProgress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.layer.add(count as u64);
        Ok(count)
    }
}
