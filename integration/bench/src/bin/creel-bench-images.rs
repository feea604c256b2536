//! Measures pulls and second runs of images beside other tools, interleaved round by round.
//!
//! `hack/bench-images.sh` makes the images, starts the registry (and containerd) and calls this program:
//!
//!     creel-bench-images PLAN.json
//!
//! The plan has `rounds`, and `groups` of `rows`: each row a name, a shell script that is measured, one before it
//! that is not (a fresh store), and the pid of a daemon whose time counts too. Each script is run by a fresh copy
//! of this program, which has it for its only child: getrusage(2) of that child, and of all it waited for, is its
//! cost. What is printed is the table of docs/performance.md, with ratios of the first row to each other one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

#[path = "../stats.rs"]
#[allow(dead_code, reason = "the runtime benchmark shows more percentiles")]
mod stats;

/// First argument of the copy that measures.
const MEASURE: &str = "--measure";

/// What one run of a script cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_us: u64,
    cpu_us: u64,
    rss_kib: u64,
}

/// One tool with one image.
struct Row {
    name: String,
    before: String,
    script: String,
    daemon: Option<u32>,
    costs: Vec<Cost>,
    failed: Option<String>,
}

struct Group {
    name: String,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [first, script] if first == MEASURE => measure(script),
        [plan] => bench(plan),
        _ => Err(anyhow::anyhow!("usage: creel-bench-images PLAN.json")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("creel-bench-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The copy: one shell script, its wall time and what getrusage says of it.
fn measure(script: &str) -> Result<()> {
    let begin = Instant::now();
    let status =
        Command::new("/bin/sh").args(["-ec", script]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let wall = begin.elapsed().as_micros();
    if !status.success() {
        bail!("{status}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = [usage.user_time(), usage.system_time()].map(|t| t.tv_sec() * 1_000_000 + t.tv_usec());
    let cpu: i64 = cpu.iter().sum();
    say(&format!("{wall} {cpu} {}\n", usage.max_rss()))
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}

fn bench(plan: &str) -> Result<()> {
    let text = std::fs::read(plan).with_context(|| plan.to_owned())?;
    let plan: Value = serde_json::from_slice(&text).with_context(|| plan.to_owned())?;
    let rounds = plan["rounds"].as_u64().unwrap_or(5);
    let groups = plan["groups"].as_array().context("groups")?;
    let mut groups = groups.iter().map(group).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for group in &mut groups {
            let count = group.rows.len();
            for turn in 0..count {
                // Nobody always comes after the same neighbour.
                let row = &mut group.rows[(turn + round as usize) % count];
                if row.failed.is_none() {
                    match sample(row) {
                        Ok(cost) => row.costs.push(cost),
                        Err(error) => row.failed = Some(format!("{error:#}")),
                    }
                }
            }
        }
        eprintln!("creel-bench-images: round {} of {rounds}", round + 1);
    }
    say(&report(&groups))?;
    let broken = groups.iter().any(|group| group.rows.first().is_some_and(|row| row.failed.is_some()));
    if broken { bail!("creel could not be measured in full") } else { Ok(()) }
}

fn group(value: &Value) -> Result<Group> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let row = |value: &Value| -> Result<Row> {
        Ok(Row {
            name: text(value, "name").context("a row without a name")?,
            before: text(value, "before").unwrap_or_default(),
            script: text(value, "script").context("a row without a script")?,
            daemon: value["daemon"].as_u64().and_then(|pid| pid.try_into().ok()),
            costs: Vec::new(),
            failed: None,
        })
    };
    let rows = value["rows"].as_array().context("rows")?;
    Ok(Group {
        name: text(value, "name").context("a group without a name")?,
        rows: rows.iter().map(row).collect::<Result<_>>()?,
    })
}

fn sample(row: &Row) -> Result<Cost> {
    let before = Command::new("/bin/sh").args(["-ec", &row.before]).stdin(Stdio::null()).output()?;
    if !before.status.success() {
        bail!("before it: {}", String::from_utf8_lossy(&before.stderr).trim());
    }
    let daemon = row.daemon.map(daemon).transpose()?;
    let output = Command::new("/proc/self/exe").args([MEASURE, &row.script]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{}", errors.lines().rev().nth(1).or(errors.lines().last()).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let &[wall_us, mut cpu_us, mut rss_kib] = fields.as_slice() else { bail!("no figures: {text}") };
    if let (Some((cpu, _)), Some(pid)) = (daemon, row.daemon) {
        let after = self::daemon(pid)?;
        cpu_us += after.0 - cpu;
        rss_kib = rss_kib.max(after.1);
    }
    Ok(Cost { wall_us, cpu_us, rss_kib })
}

/// CPU time in microseconds of a daemon and of what it waited for, and its peak memory in KiB (proc(5)).
fn daemon(pid: u32) -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the daemon has ended")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime, stime, cutime and cstime, counted from the third field on.
    let ticks: u64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon has ended")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    Ok((ticks * 1_000_000 / u64::try_from(per_second)?, peak.unwrap_or_default()))
}

fn median(row: &Row, of: impl Fn(&Cost) -> u64) -> Option<f64> {
    stats::summary(row.costs.iter().map(of)).map(|summary| summary.median)
}

fn report(groups: &[Group]) -> String {
    let mut text = String::from(
        "| image | tool | wall ms | CPU ms | peak MB | wall: creel / tool | CPU: creel / tool |\n|---|---|---|---|---|---|---|\n",
    );
    for group in groups {
        let figures = |row: &Row| {
            Some((median(row, |c| c.wall_us)?, median(row, |c| c.cpu_us)?, median(row, |c| c.rss_kib)?))
        };
        let own = group.rows.first().and_then(figures);
        for row in &group.rows {
            let (Some((wall, cpu, rss)), Some((own_wall, own_cpu, _))) = (figures(row), own) else {
                let why = row.failed.as_deref().unwrap_or("not measured");
                writeln!(text, "| {} | {} | {why} | | | | |", group.name, row.name).ok();
                continue;
            };
            writeln!(
                text,
                "| {} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} |",
                group.name,
                row.name,
                wall / 1e3,
                cpu / 1e3,
                rss * 1024.0 / 1e6,
                own_wall / wall,
                own_cpu / cpu
            )
            .ok();
        }
    }
    text
}
