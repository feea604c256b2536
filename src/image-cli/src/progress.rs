//! What a pull tells on standard error while it goes on: bars on a terminal, lines elsewhere, JSON for
//! programs, or nothing.
//!
//! The counts are of compressed bytes read, which is what the manifest tells the total of.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use serde_json::json;

use crate::{cli, output};

/// Between two drawings of the bars.
const FRAME: Duration = Duration::from_millis(100);

/// Characters of a bar.
const WIDTH: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Lines,
    Json,
    Bars,
}

/// The progress of one pull.
pub struct Progress {
    kind: Kind,
    name: String,
    begun: Instant,
    layers: Mutex<Vec<Arc<Counts>>>,
    told: AtomicBool,
}

/// The progress of one layer.
pub struct LayerProgress {
    kind: Kind,
    counts: Arc<Counts>,
}

struct Counts {
    digest: String,
    short: String,
    size: u64,
    read: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    /// Nothing is told before there is something to wait for.
    pub fn new(words: &ArgMatches, name: &str) -> Progress {
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
            Kind::Lines | Kind::Bars => output::line(&format!("pulling {}", self.name)),
            Kind::Json => output::line(&json!({"event": "pull", "name": self.name}).to_string()),
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
            read: AtomicU64::new(0),
            done: AtomicBool::new(false),
        });
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(counts.clone());
        LayerProgress { kind: self.kind, counts }
    }

    /// Does the work, and draws bars meanwhile.
    pub fn during(&self, work: impl FnOnce()) {
        if self.kind != Kind::Bars {
            return work();
        }
        let over = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            scope.spawn(|| self.draw_until(&over));
            work();
            *over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            over.1.notify_all();
        });
    }

    fn draw_until(&self, over: &(Mutex<bool>, Condvar)) {
        let mut drawn = 0;
        let mut ended = over.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let last = *ended;
            drawn = self.draw(drawn);
            if last {
                return;
            }
            ended = over.1.wait_timeout(ended, FRAME).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Draws over what was drawn last, `drawn` lines; tells how many there are now.
    fn draw(&self, drawn: usize) -> usize {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        // Cursor up, then each line is cleared and written (ECMA-48, CUU and EL).
        let mut text = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A") };
        for layer in layers.iter() {
            // A String takes everything.
            writeln!(text, "\x1b[2K{}", layer.bar(seconds)).ok();
        }
        drop(std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()));
        layers.len()
    }

    /// Tells that the image is there.
    pub fn finish(&self, manifest: &Digest, unpacked: u64, layers: usize) {
        if !self.told.load(Ordering::Relaxed) {
            return;
        }
        let read: u64 = self.counted();
        match self.kind {
            Kind::Lines | Kind::Bars => output::line(&format!(
                "pulled {}: {} read in {:.1} s, {} unpacked in {}",
                self.name,
                output::size(read),
                self.begun.elapsed().as_secs_f64(),
                output::size(unpacked),
                if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") }
            )),
            Kind::Json => {
                let event = json!({"event": "pulled", "name": self.name, "digest": manifest.as_str(),
                    "read": read, "unpacked": unpacked, "layers": layers});
                output::line(&event.to_string());
            }
            Kind::Silent => {}
        }
    }

    fn counted(&self) -> u64 {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|layer| layer.read.load(Ordering::Relaxed)).sum()
    }
}

impl Counts {
    fn bar(&self, seconds: f64) -> String {
        let read = self.read.load(Ordering::Relaxed);
        if self.done.load(Ordering::Relaxed) {
            return format!("{} {:>8} done", self.short, output::size(self.size));
        }
        let full = (read.min(self.size) * WIDTH).checked_div(self.size).unwrap_or(0);
        let bar: String = (0..WIDTH).map(|at| if at < full { '#' } else { '.' }).collect();
        let rate = output::size((read as f64 / seconds) as u64);
        format!("{} [{bar}] {} of {}, {rate}/s", self.short, output::size(read), output::size(self.size))
    }
}

impl LayerProgress {
    /// Counts what is read.
    pub fn reader<R: Read>(&self, inner: R) -> Counted<'_, R> {
        Counted { inner, layer: self }
    }

    fn add(&self, count: u64) {
        let before = self.counts.read.fetch_add(count, Ordering::Relaxed);
        if self.kind != Kind::Json || count == 0 {
            return;
        }
        // One event for each tenth of the layer.
        let tenth = |read: u64| read.saturating_mul(10).checked_div(self.counts.size).unwrap_or(10);
        if tenth(before) != tenth(before + count) {
            let event = json!({"event": "layer", "digest": self.counts.digest, "read": before + count,
                "size": self.counts.size});
            output::line(&event.to_string());
        }
    }

    /// The layer is in the store.
    pub fn done(&self) {
        self.counts.done.store(true, Ordering::Relaxed);
        match self.kind {
            Kind::Lines => {
                output::line(&format!(
                    "layer {}: {} done",
                    self.counts.short,
                    output::size(self.counts.size)
                ));
            }
            Kind::Json => {
                output::line(&json!({"event": "layer-done", "digest": self.counts.digest}).to_string());
            }
            Kind::Silent | Kind::Bars => {}
        }
    }
}

/// A source whose bytes are counted.
pub struct Counted<'a, R> {
    inner: R,
    layer: &'a LayerProgress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.layer.add(count as u64);
        Ok(count)
    }
}
