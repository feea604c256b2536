//! The table and the JSON document.

use serde_json::{Value, json};

use crate::args::Settings;
use crate::machine::Machine;
use crate::measure::Sample;
use crate::operation::Operation;
use crate::peer::Peer;
use crate::rounds::{Outcome, Series};
use crate::stats::{Summary, summary};

/// The runtimes that the others are set in relation to, where they were measured.
const REFERENCES: [&str; 2] = ["crun", "runc"];

/// Times in milliseconds, memory in KiB.
struct Figures {
    wall: Summary,
    cpu: Summary,
    rss_kib: f64,
}

fn figures(samples: &[Sample]) -> Option<Figures> {
    Some(Figures {
        wall: summary(samples.iter().map(|sample| sample.wall_us))?.scaled(1e-3),
        cpu: summary(samples.iter().map(|sample| sample.cpu_us))?.scaled(1e-3),
        rss_kib: summary(samples.iter().map(|sample| sample.rss_kib))?.median,
    })
}

/// What is printed: machine, peers, and a table per config.
pub fn text(
    settings: &Settings,
    machine: &Machine,
    load_after: &str,
    peers: &[Peer],
    outcome: &Outcome,
) -> String {
    let mut lines = Vec::new();
    lines.push(format!("kernel   {}", machine.kernel));
    lines.push(format!(
        "machine  {} x {}, {} MiB",
        machine.cpus,
        machine.cpu_model,
        machine.memory_kib / 1024
    ));
    lines.push(format!("cgroup   {}", machine.cgroup));
    lines.push(format!("load     {} before, {load_after} after", machine.load));
    for peer in peers {
        lines.push(format!(
            "{:8} {} ({} KiB) {}",
            peer.name,
            peer.path.display(),
            peer.size / 1024,
            peer.version
        ));
    }
    if let Some(least) = figures(&outcome.least) {
        lines.push(format!(
            "least    a static program that exits at once: wall {:.2}, cpu {:.2}, rss {:.0}",
            least.wall.median, least.cpu.median, least.rss_kib
        ));
    }
    for config in &settings.configs {
        lines.push(String::new());
        lines.push(format!(
            "{config}: {} rounds, {} ms pause; parallel {}, sequential {}, {} rounds; ms, KiB; ratios of medians",
            settings.rounds,
            settings.pause.as_millis(),
            settings.parallel,
            settings.sequential,
            settings.bulk_rounds
        ));
        lines.extend(table(config, peers, outcome));
    }
    lines.push(String::new());
    lines.push(
        "cpu: user + system of the command and all it waited for. create leaves its init behind, whose"
            .into(),
    );
    lines.push(
        "share is in cycle = create + start + kill + delete + init. rss: peak of the largest process.".into(),
    );
    lines.join("\n") + "\n"
}

fn table(config: &str, peers: &[Peer], outcome: &Outcome) -> Vec<String> {
    let mut header = format!(
        "{:10} {:8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>4}",
        "op", "peer", "wall med", "p10", "p99", "cpu med", "p10", "p99", "rss", "n"
    );
    let references: Vec<&str> =
        REFERENCES.into_iter().filter(|name| peers.iter().any(|peer| peer.name == *name)).collect();
    for name in &references {
        header.push_str(&format!(" {:>10} {:>10}", format!("wall/{name}"), format!("cpu/{name}")));
    }
    let mut lines = vec![header];
    for operation in Operation::ALL {
        let rows: Vec<&Series> =
            outcome.series.iter().filter(|s| s.config == config && s.operation == operation).collect();
        for series in &rows {
            lines.push(row(series, &rows, &references, peers));
        }
    }
    lines
}

fn row(series: &Series, rows: &[&Series], references: &[&str], peers: &[Peer]) -> String {
    let mut line = format!("{:10} {:8}", series.operation.name(), peers[series.peer].name);
    if let Some(failure) = &series.failure {
        line.push_str(&format!(" {failure}"));
        return line;
    }
    let Some(own) = figures(&series.samples) else {
        line.push_str(" no sample");
        return line;
    };
    let (wall, cpu) = (own.wall, own.cpu);
    for value in [wall.median, wall.p10, wall.p99, cpu.median, cpu.p10, cpu.p99] {
        line.push_str(&format!(" {value:>9.2}"));
    }
    line.push_str(&format!(" {:>7.0} {:>4}", own.rss_kib, series.samples.len()));
    for name in references {
        let reference = rows
            .iter()
            .find(|row| peers[row.peer].name == *name && row.failure.is_none())
            .and_then(|row| figures(&row.samples));
        match reference {
            Some(other) => line.push_str(&format!(
                " {:>10.2} {:>10.2}",
                wall.median / other.wall.median,
                cpu.median / other.cpu.median
            )),
            None => line.push_str(&format!(" {:>10} {:>10}", "-", "-")),
        }
    }
    line
}

/// Settings, machine, peers, and every series with its samples in microseconds and KiB.
pub fn json(
    settings: &Settings,
    machine: &Machine,
    load_after: &str,
    peers: &[Peer],
    outcome: &Outcome,
) -> Value {
    let peers_json: Vec<Value> = peers
        .iter()
        .map(
            |peer| json!({"name": peer.name, "path": peer.path, "version": peer.version, "bytes": peer.size}),
        )
        .collect();
    let series: Vec<Value> = outcome
        .series
        .iter()
        .map(|series| {
            json!({
                "config": series.config,
                "operation": series.operation.name(),
                "peer": peers[series.peer].name,
                "failure": series.failure,
                "summary": figures(&series.samples).map(|figures| figures.json()),
                "samples": samples_json(&series.samples),
            })
        })
        .collect();
    json!({
        "machine": machine.json(load_after),
        "settings": {
            "rounds": settings.rounds,
            "bulkRounds": settings.bulk_rounds,
            "parallel": settings.parallel,
            "sequential": settings.sequential,
            "pauseMs": u64::try_from(settings.pause.as_millis()).unwrap_or(u64::MAX),
        },
        "peers": peers_json,
        "least": figures(&outcome.least).map(|figures| figures.json()),
        "series": series,
    })
}

impl Figures {
    fn json(&self) -> Value {
        let times = |s: &Summary| json!({"median": s.median, "p10": s.p10, "p99": s.p99});
        json!({"wallMs": times(&self.wall), "cpuMs": times(&self.cpu), "rssKiB": self.rss_kib})
    }
}

fn samples_json(samples: &[Sample]) -> Value {
    json!({
        "wallUs": samples.iter().map(|sample| sample.wall_us).collect::<Vec<_>>(),
        "cpuUs": samples.iter().map(|sample| sample.cpu_us).collect::<Vec<_>>(),
        "rssKiB": samples.iter().map(|sample| sample.rss_kib).collect::<Vec<_>>(),
    })
}
