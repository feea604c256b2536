//! Runs the cases of an engine one after the other, each between two looks at what is there.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::image::Archive;
use super::runtime::Runtime;
use super::sandbox::Sandbox;

/// Why a case cannot run here. It travels as an error so that `?` carries it.
#[derive(Debug)]
pub struct Skip(String);

impl Skip {
    /// A machine's limitation or a program that is not installed.
    #[expect(clippy::new_ret_no_self, reason = "a skip is only ever used as an error")]
    pub fn new(reason: &str) -> anyhow::Error {
        anyhow!(Self(reason.to_owned()))
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// An engine that is up.
pub trait Engine {
    /// Where it runs.
    fn sandbox(&self) -> &Sandbox;
    /// Directories in which the runtime keeps one entry per container.
    fn state_roots(&self) -> Vec<PathBuf>;
    /// Whether the engine, not the runtime, keeps this line of the inventory after a container is gone.
    fn keeps(&self, line: &str) -> bool;
    /// The end of its log, for a failure.
    fn log(&self) -> String;
    /// Stop its daemon and its sandbox.
    fn stop(self) -> Result<()>;
}

/// One claim about the runtime under an engine.
pub struct Case<E> {
    /// The claim.
    pub name: &'static str,
    /// Its test.
    pub run: fn(&E) -> Result<()>,
}

/// What every engine starts from.
#[derive(Debug)]
pub struct Ground {
    /// The runtime under test.
    pub runtime: Runtime,
    /// Images to load.
    pub images: Archive,
}

/// Counts and names, printed as the cases end.
#[derive(Debug, Default)]
pub struct Report {
    filter: Vec<String>,
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Report {
    /// Only cases whose `engine: name` contains one of the words run; none means all.
    pub fn new(filter: Vec<String>) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Start an engine, run its cases, stop it.
    pub fn suite<E: Engine>(
        &mut self,
        engine: &str,
        ground: &Ground,
        programs: &[&str],
        start: fn(&Ground) -> Result<E>,
        cases: &[Case<E>],
    ) {
        let wanted: Vec<&Case<E>> =
            cases.iter().filter(|case| self.wants(&title(engine, case.name))).collect();
        if wanted.is_empty() {
            return;
        }
        let begun = Instant::now();
        let started = need_programs(programs).and_then(|()| start(ground));
        let up = match started {
            Ok(up) => up,
            Err(error) => return self.record(&title(engine, "starts"), begun, Err(error), String::new()),
        };
        self.record(&title(engine, "starts"), begun, Ok(()), String::new());
        for case in wanted {
            let begun = Instant::now();
            let outcome = between_looks(&up, case);
            self.record(&title(engine, case.name), begun, outcome, up.log());
        }
        let begun = Instant::now();
        let outcome = up.stop();
        self.record(&title(engine, "stops and leaves nothing"), begun, outcome, String::new());
    }

    /// The ground itself is not there: everything is skipped, or has failed, at once.
    pub fn cannot_start(&mut self, error: anyhow::Error) {
        self.record("every engine", Instant::now(), Err(error), String::new());
    }

    fn wants(&self, title: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| title.contains(word.as_str()))
    }

    fn record(&mut self, title: &str, begun: Instant, outcome: Result<()>, log: String) {
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                say(&format!("ok: {title} ({seconds:.1} s)"));
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(reason) => {
                    self.skipped += 1;
                    say(&format!("skip: {title}: {reason}"));
                }
                None => {
                    say(&format!("FAILED: {title} ({seconds:.1} s)\n  {error:#}\n{log}"));
                    self.failed.push(title.to_owned());
                }
            },
        }
    }

    /// Print the totals; whether all went well.
    pub fn end(&self, begun: Instant) -> bool {
        for title in &self.failed {
            say(&format!("failed: {title}"));
        }
        say(&format!(
            "engines: {} passed, {} failed, {} skipped in {:.0} s",
            self.passed,
            self.failed.len(),
            self.skipped,
            begun.elapsed().as_secs_f64()
        ));
        self.failed.is_empty()
    }
}

fn title(engine: &str, name: &str) -> String {
    format!("{engine}: {name}")
}

/// How many leftovers a failure shows: one cgroup counts once for each hierarchy.
const SHOWN: usize = 15;

/// Engines clean up after they have answered, so the second look is repeated until it agrees.
fn between_looks<E: Engine>(up: &E, case: &Case<E>) -> Result<()> {
    let roots = up.state_roots();
    let before = up.sandbox().inventory(&roots)?;
    let outcome = (case.run)(up);
    let leftovers = || -> Result<BTreeSet<String>> {
        let after = up.sandbox().inventory(&roots)?;
        Ok(after.difference(&before).filter(|line| !up.keeps(line)).cloned().collect())
    };
    let settled = up.sandbox().until("cleanup", Duration::from_secs(5), || Ok(leftovers()?.is_empty()));
    match (outcome, settled) {
        (Ok(()), Err(_)) => {
            let lines: Vec<String> = leftovers()?.into_iter().collect();
            let some = lines.get(..SHOWN).unwrap_or(&lines);
            bail!("left behind, {} in all: {}", lines.len(), some.join("; "))
        }
        (outcome, _) => outcome,
    }
}

/// Skip unless all of these are installed.
pub fn need_programs(names: &[&str]) -> Result<()> {
    for name in names {
        if program(name).is_none() {
            return Err(Skip::new(&format!("{name} is not installed")));
        }
    }
    Ok(())
}

/// Where the distribution put a program; podman's and CNI's are not in PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let directories =
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/podman", "/usr/libexec/podman", "/usr/lib/cni"];
    directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

/// Skip unless the test has this capability, by its bit (capabilities(7), linux/capability.h).
pub fn need_capability(bit: u32, name: &str) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no CapBnd")?;
    if u64::from_str_radix(line.trim(), 16)? >> bit & 1 == 0 {
        return Err(Skip::new(&format!("this machine gives root no {name}")));
    }
    Ok(())
}

/// One line for whoever runs the tests. A reader who left is no reason to fail.
pub fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
