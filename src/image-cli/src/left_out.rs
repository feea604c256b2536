//! What is not written of an image, because of where it is unpacked or of what it is.

use creel_image_lib::store::{Image, Store};
use creel_image_lib::unpack::Skipped;
use serde_json::{Value, json};

use crate::output;

/// How many are named in one line.
const NAMED: usize = 3;

/// What was left out of one or more layers.
#[derive(Debug, Default)]
pub struct LeftOut {
    count: u64,
    /// The first of them.
    first: Vec<Skipped>,
}

impl LeftOut {
    /// Of an image of the store.
    pub fn of(store: &Store, image: &Image) -> anyhow::Result<LeftOut> {
        let mut all = LeftOut::default();
        for layer in &image.layers {
            let Some(snapshot) = store.snapshot(layer)? else { continue };
            let told = snapshot.record.skipped.into_iter().map(|(path, why)| Skipped { path, why });
            all.add(snapshot.record.skipped_count, told);
        }
        Ok(all)
    }

    /// Adds so many, of which the first are told.
    pub fn add(&mut self, count: u64, first: impl IntoIterator<Item = Skipped>) {
        let before = self.first.len();
        self.first.extend(first);
        // Layers of stores that were written before the count was.
        self.count += count.max((self.first.len() - before) as u64);
    }

    /// One line, if there is anything to say.
    pub fn warn(&self, name: &str) {
        if let Some(text) = self.text() {
            output::warning(&format!("{name}: {text}"));
        }
    }

    fn text(&self) -> Option<String> {
        let named =
            self.first.iter().take(NAMED).map(|skipped| format!("{} ({})", skipped.path, skipped.why));
        let named: Vec<String> = named.collect();
        let rest = self.count - named.len() as u64;
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        (self.count > 0).then(|| format!("left out: {}{rest}", named.join(", ")))
    }

    /// For `image inspect`.
    pub fn json(&self) -> Value {
        let first: Vec<Value> =
            self.first.iter().map(|skipped| json!({"path": skipped.path, "why": skipped.why})).collect();
        json!({"count": self.count, "first": first})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_first_are_named_and_the_others_counted() {
        let mut all = LeftOut::default();
        assert_eq!(all.text(), None);
        let some = |n: u32| {
            (0..n).map(|i| Skipped { path: format!("dev/{i}"), why: "device nodes need root".into() })
        };
        all.add(0, some(1));
        assert_eq!(all.text().unwrap(), "left out: dev/0 (device nodes need root)");
        all.add(100, some(64));
        assert!(all.text().unwrap().ends_with("and 98 more"), "{:?}", all.text());
        assert_eq!(all.json()["count"], 101);
    }
}
