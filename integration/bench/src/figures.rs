//! The figures of a series.

use serde_json::{Value, json};

use crate::measure::Sample;
use crate::stats::{Summary, summary};

/// Times in milliseconds, memory in KiB.
pub struct Figures {
    pub wall: Summary,
    pub cpu: Summary,
    pub rss_kib: f64,
}

/// `None` without a sample.
pub fn figures(samples: &[Sample]) -> Option<Figures> {
    Some(Figures {
        wall: summary(samples.iter().map(|sample| sample.wall_us))?.scaled(1e-3),
        cpu: summary(samples.iter().map(|sample| sample.cpu_us))?.scaled(1e-3),
        rss_kib: summary(samples.iter().map(|sample| sample.rss_kib))?.median,
    })
}

impl Figures {
    pub fn json(&self) -> Value {
        let times = |s: &Summary| json!({"median": s.median, "p10": s.p10, "p99": s.p99});
        json!({"wallMs": times(&self.wall), "cpuMs": times(&self.cpu), "rssKiB": self.rss_kib})
    }
}

/// Every sample.
pub fn samples_json(samples: &[Sample]) -> Value {
    json!({
        "wallUs": samples.iter().map(|sample| sample.wall_us).collect::<Vec<_>>(),
        "cpuUs": samples.iter().map(|sample| sample.cpu_us).collect::<Vec<_>>(),
        "rssKiB": samples.iter().map(|sample| sample.rss_kib).collect::<Vec<_>>(),
    })
}
