//! The tables as text, and the JSON document.

use serde_json::{Value, json};

use crate::args::Settings;
use crate::figures::{Figures, figures, samples_json};
use crate::goals;
use crate::machine::Machine;
use crate::operation::Operation;
use crate::peer::{Peer, newest};
use crate::rounds::{Outcome, Series};
use crate::scale;

/// Everything that a report is about.
pub struct Run<'a> {
    pub settings: &'a Settings,
    pub machine: &'a Machine,
    pub load_after: &'a str,
    pub peers: &'a [Peer],
    pub outcome: &'a Outcome,
}

impl Run<'_> {
    /// Name and explanation of each table.
    pub fn tables(&self) -> Vec<(String, String)> {
        let scenarios = self.settings.scenarios.iter();
        let mut tables: Vec<(String, String)> =
            scenarios.map(|s| (s.name.to_owned(), format!("{}; {} rounds", s.about, s.rounds))).collect();
        for alive in self.settings.containers.iter().flat_map(|&many| [scale::FEW, many]) {
            tables.push((scale::table(alive), format!("one more beside {alive} containers alive")));
        }
        tables
    }

    /// The series of one row of a table, by peer.
    pub fn row(&self, table: &str, operation: Operation) -> Vec<&Series> {
        let is = |s: &&Series| s.scenario == table && s.operation == operation;
        self.outcome.series.iter().filter(is).collect()
    }

    /// The runtimes that others are set in relation to: the newest crun and the newest runc.
    pub fn references(&self) -> Vec<&Peer> {
        ["crun", "runc"].into_iter().filter_map(|program| newest(self.peers, program)).collect()
    }

    /// Figures of a peer among the series of a row.
    pub fn figures_of(&self, row: &[&Series], peer: &Peer) -> Option<Figures> {
        let series = row.iter().find(|s| std::ptr::eq(&self.peers[s.peer], peer))?;
        if series.failure.is_some() { None } else { figures(&series.samples) }
    }
}

/// What is printed: machine, peers, and the tables.
pub fn text(run: &Run<'_>) -> String {
    let mut lines = run.machine.lines(run.load_after);
    for peer in run.peers {
        let (path, size) = (peer.path.display(), peer.size / 1024);
        lines.push(format!("{:12} {path} ({size} KiB) {}", peer.name, peer.version));
    }
    if let Some(least) = figures(&run.outcome.least) {
        lines.push(format!(
            "least        a static program that exits at once: wall {:.2}, cpu {:.2}, rss {:.0}",
            least.wall.median, least.cpu.median, least.rss_kib
        ));
    }
    for (table, about) in run.tables() {
        lines.extend([String::new(), format!("{table}: {about}; ms, KiB; ratios of medians")]);
        lines.extend(rows(run, &table));
    }
    lines.push(String::new());
    for reached in goals::reached(run.peers, run.outcome) {
        let part = |name: &str, measured: f64, goal: Option<f64>| {
            goal.map(|goal| format!("  {name} {measured:.2} of {goal:.2}")).unwrap_or_default()
        };
        lines.push(format!(
            "{:4} {:36}{}{}{}",
            if reached.met() { "ok" } else { "MISS" },
            reached.goal.row,
            part("cpu", reached.cpu, reached.goal.cpu),
            part("wall", reached.wall, reached.goal.wall),
            part("rss", reached.rss, reached.goal.rss)
        ));
    }
    lines.join("\n") + "\n"
}

fn rows(run: &Run<'_>, table: &str) -> Vec<String> {
    let mut header = format!(
        "{:10} {:12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6} {:>4}",
        "op", "peer", "wall med", "p10", "p99", "cpu med", "p10", "p99", "rss", "calls", "n"
    );
    for peer in run.references() {
        header.push_str(&format!(
            " {:>14} {:>14}",
            format!("wall/{}", peer.name),
            format!("cpu/{}", peer.name)
        ));
    }
    let mut lines = vec![header];
    for operation in Operation::ALL {
        let row = run.row(table, operation);
        lines.extend(row.iter().map(|series| line(run, series, &row)));
    }
    lines
}

fn line(run: &Run<'_>, series: &Series, row: &[&Series]) -> String {
    let mut line = format!("{:10} {:12}", series.operation.name(), run.peers[series.peer].name);
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
    let calls = series.calls.map_or_else(|| "-".to_owned(), |calls| calls.to_string());
    line.push_str(&format!(" {:>7.0} {calls:>6} {:>4}", own.rss_kib, series.samples.len()));
    for reference in run.references() {
        match run.figures_of(row, reference) {
            Some(other) => line.push_str(&format!(
                " {:>14.2} {:>14.2}",
                wall.median / other.wall.median,
                cpu.median / other.cpu.median
            )),
            None => line.push_str(&format!(" {:>14} {:>14}", "-", "-")),
        }
    }
    line
}

/// Settings, machine, peers, and every series with its samples in microseconds and KiB.
pub fn json(run: &Run<'_>) -> Value {
    let Run { settings, peers, outcome, .. } = run;
    let peer = |peer: &Peer| json!({"name": peer.name, "path": peer.path, "version": peer.version, "bytes": peer.size});
    let series = |series: &Series| {
        json!({
            "scenario": series.scenario,
            "operation": series.operation.name(),
            "peer": peers[series.peer].name,
            "failure": series.failure,
            "systemCalls": series.calls,
            "summary": figures(&series.samples).map(|figures| figures.json()),
            "samples": samples_json(&series.samples),
        })
    };
    let goal = |reached: &goals::Reached| {
        json!({
            "row": reached.goal.row,
            "cpu": {"goal": reached.goal.cpu, "measured": reached.cpu},
            "wall": {"goal": reached.goal.wall, "measured": reached.wall},
            "rss": {"goal": reached.goal.rss, "measured": reached.rss},
            "met": reached.met(),
        })
    };
    json!({
        "machine": run.machine.json(run.load_after),
        "tables": run.tables().into_iter().map(|(name, about)| json!({"name": name, "about": about})).collect::<Vec<_>>(),
        "settings": {"parallel": settings.parallel, "sequential": settings.sequential},
        "peers": peers.iter().map(peer).collect::<Vec<_>>(),
        "least": figures(&outcome.least).map(|figures| figures.json()),
        "goals": goals::reached(peers, outcome).iter().map(goal).collect::<Vec<_>>(),
        "series": outcome.series.iter().map(series).collect::<Vec<_>>(),
    })
}
