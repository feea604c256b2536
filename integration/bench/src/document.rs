//! The measured part of docs/performance.md.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::figures::{Figures, figures};
use crate::goals;
use crate::operation::Operation;
use crate::peer::{Kind, newest};
use crate::plot;
use crate::report::Run;
use crate::rounds::Series;
use crate::scale;

const BEGIN: &str = "<!-- measured: begin. Written by `make bench` -->";
const END: &str = "<!-- measured: end -->";

/// Puts the measured part between the marks of `file`, and the plot beside it.
pub fn write(run: &Run<'_>, file: &Path, seccomp: Option<&Value>) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let marks = || format!("{} has no place for the measured part", file.display());
    let (before, rest) = text.split_once(BEGIN).with_context(marks)?;
    let (_, after) = rest.split_once(END).with_context(marks)?;
    let picture = file.with_extension("svg");
    let name = picture.file_name().unwrap_or_default().to_string_lossy();
    let measured = markdown(run, &name, seccomp);
    std::fs::write(file, format!("{before}{BEGIN}\n\n{measured}\n{END}{after}"))?;
    let table = run.tables().into_iter().next().map(|(table, _)| table).unwrap_or_default();
    Ok(std::fs::write(&picture, plot::svg(run, &table))?)
}

fn markdown(run: &Run<'_>, picture: &str, seccomp: Option<&Value>) -> String {
    let mut lines = vec!["```".to_owned()];
    lines.extend(run.machine.lines(run.load_after));
    lines.extend(
        run.peers.iter().map(|peer| format!("{:12} {} KiB  {}", peer.name, peer.size / 1024, peer.version)),
    );
    if let Some(least) = figures(&run.outcome.least) {
        lines.push(format!("least        a static program that exits at once: {}", brief(&least)));
    }
    lines.extend(["```".to_owned(), String::new()]);
    lines.extend(goal_table(run));
    lines.extend([format!("![wall time by operation]({picture})"), String::new()]);
    for (table, about) in run.tables() {
        lines.extend([format!("### {table}: {about}"), String::new()]);
        lines.extend(rows(run, &table));
        lines.push(String::new());
    }
    lines.extend(growth(run));
    lines.extend(seccomp.into_iter().flat_map(filters));
    lines.join("\n")
}

/// `wall [cpu]`
fn brief(figures: &Figures) -> String {
    format!("{:.2} [{:.2}]", figures.wall.median, figures.cpu.median)
}

fn goal_table(run: &Run<'_>) -> Vec<String> {
    let crun = newest(run.peers, "crun").map_or("crun", |peer| peer.version.as_str());
    let mut lines = vec![
        format!("Ratios of creel's medians to those of {crun}, or of the floor program:"),
        String::new(),
        "| | CPU | goal | wall | goal | RSS | goal | |".to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for reached in goals::reached(run.peers, run.outcome) {
        let pair = |measured: f64, goal: Option<f64>| match goal {
            Some(goal) => format!("{measured:.2} | {goal:.2}"),
            None => " | ".to_owned(),
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} |",
            reached.goal.row,
            pair(reached.cpu, reached.goal.cpu),
            pair(reached.wall, reached.goal.wall),
            pair(reached.rss, reached.goal.rss),
            if reached.met() { "" } else { "missed" }
        ));
    }
    lines.push(String::new());
    lines
}

fn rows(run: &Run<'_>, table: &str) -> Vec<String> {
    let creel = newest(run.peers, "creel");
    let mut header = "| op |".to_owned();
    run.peers.iter().for_each(|peer| header.push_str(&format!(" {} |", peer.name)));
    for reference in run.references() {
        header.push_str(&format!(" wall, cpu ÷ {} |", reference.name));
    }
    header.push_str(" RSS | calls |");
    let columns = header.matches('|').count() - 1;
    let mut lines = vec![header, format!("|{}", "---|".repeat(columns))];
    for operation in Operation::ALL {
        let row = run.row(table, operation);
        if row.iter().all(|series| series.samples.is_empty()) {
            continue;
        }
        let all: Vec<Option<Figures>> = run.peers.iter().map(|peer| run.figures_of(&row, peer)).collect();
        let mut line = format!("| {} |", operation.name());
        all.iter()
            .for_each(|one| line.push_str(&format!(" {} |", one.as_ref().map(brief).unwrap_or_default())));
        let own = creel.and_then(|creel| run.figures_of(&row, creel));
        for reference in run.references() {
            let ratio = own.as_ref().zip(run.figures_of(&row, reference)).map(|(own, other)| {
                format!(
                    "{:.2}, {:.2}",
                    own.wall.median / other.wall.median,
                    own.cpu.median / other.cpu.median
                )
            });
            line.push_str(&format!(" {} |", ratio.unwrap_or_default()));
        }
        let runtimes = || run.peers.iter().zip(&all).filter(|(peer, _)| peer.kind == Kind::Runtime);
        let rss: Vec<String> =
            runtimes().filter_map(|(_, one)| Some(format!("{:.0}", one.as_ref()?.rss_kib))).collect();
        let counted = |series: &&Series| series.calls.map_or("–".to_owned(), |calls| calls.to_string());
        let calls: Vec<String> = match row.iter().any(|series| series.calls.is_some()) {
            true => row.iter().map(counted).collect(),
            false => Vec::new(),
        };
        line.push_str(&format!(" {} | {} |", rss.join(", "), calls.join(", ")));
        lines.push(line);
    }
    lines
}

fn growth(run: &Run<'_>) -> Vec<String> {
    let Some(many) = run.settings.containers else { return Vec::new() };
    let words: Vec<String> = goals::growth(run.peers, run.outcome, many)
        .into_iter()
        .map(|(operation, ratio)| format!("{} {ratio:.2}", operation.name()))
        .collect();
    let text = format!(
        "creel's CPU time beside {many} containers over that beside {}: {}. `creates` is {} at once.",
        scale::FEW,
        words.join(", "),
        scale::AT_ONCE
    );
    vec![text, String::new()]
}

fn filters(measured: &Value) -> Vec<String> {
    let mut lines = vec![
        "### Seccomp filters".to_owned(),
        String::new(),
        "The profile of `k8s`: microseconds, medians.".to_owned(),
        String::new(),
        "| architectures | by | instructions | compile | load |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for row in measured.as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_f64().unwrap_or_default();
        lines.push(format!(
            "| {} | {} | {} | {:.0} | {:.0} |",
            row["architectures"],
            text("by"),
            row["instructions"],
            number("compileUs"),
            number("loadUs")
        ));
    }
    lines.push(String::new());
    lines
}
