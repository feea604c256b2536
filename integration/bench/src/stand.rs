//! One peer under one config: what it runs, how its figures are taken, and what it leaves removed.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::{fs, process};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::args::Settings;
use crate::bundle;
use crate::measure::{Pattern, Sample, cpu_of_children, sample};
use crate::operation::{Container, Operation, argv};
use crate::peer::{Kind, Peer};
use crate::rounds::Series;

/// One peer under one config: its bundles, and what it has cost so far.
pub struct Stand<'a> {
    pub index: usize,
    peer: &'a Peer,
    config: &'a str,
    pub shared: &'a Path,
    root: PathBuf,
    pub errors: PathBuf,
    pid_file: PathBuf,
    /// Start of every container id; the cgroup and the bundle have the id's name.
    prefix: String,
    /// Ids of all its containers.
    ids: Vec<String>,
    pub series: Vec<Series>,
}

/// The container of `run`, of the lifecycle, of the proof, and (by number) of the parallel runs.
const RUN: &str = "run";
const LIFE: &str = "life";
const PROOF: &str = "proof";
const NUMBERED: &str = "{n}";

impl<'a> Stand<'a> {
    pub fn new(
        settings: &Settings,
        index: usize,
        peer: &'a Peer,
        config_name: &'a str,
        shared: &'a Path,
        config: &Value,
    ) -> Result<Self> {
        let prefix = format!("creel-bench-{}-{config_name}-{}-", process::id(), peer.name);
        let mut ids = Vec::new();
        let numbers: Vec<String> = (0..settings.parallel).map(|n| n.to_string()).collect();
        for slot in [RUN, LIFE, PROOF].into_iter().chain(numbers.iter().map(String::as_str)) {
            let id = format!("{prefix}{slot}");
            let command: &[&str] = match slot {
                LIFE => &["/bin/sleep", "60"],
                PROOF => &["/bin/sh", "-c", "exit 7"],
                _ => &["/bin/true"],
            };
            bundle::write(shared, &id, config.clone(), command, &id)?;
            ids.push(id);
        }
        let series = Operation::ALL
            .into_iter()
            .filter(|&operation| peer.knows(operation))
            .map(|operation| Series {
                config: config_name.to_owned(),
                operation,
                peer: index,
                samples: Vec::new(),
                failure: None,
            })
            .collect();
        let file = |what: &str| shared.join(format!("{}-{what}", peer.name));
        Ok(Self {
            index,
            peer,
            config: config_name,
            shared,
            root: file("root"),
            errors: file("errors"),
            pid_file: file("pid"),
            prefix,
            ids,
            series,
        })
    }

    /// A program that does nothing is fast: only what runs a container at all is measured.
    pub fn prove(&mut self) {
        if self.peer.kind != Kind::Runtime {
            return;
        }
        let why = match self.sample(Operation::Run, PROOF, Pattern::Sequential(1)) {
            Err(error) if error.to_string().starts_with("exit status 7:") => return,
            Err(error) => format!("{error:#}"),
            Ok(_) => "exit status 0 for a container that exits with 7".into(),
        };
        eprintln!("creel-bench: {} {}: {why}", self.config, self.peer.name);
        self.clean_up();
        self.series.iter_mut().for_each(|series| series.failure = Some(why.clone()));
    }

    pub fn forget(&mut self) {
        self.series.iter_mut().for_each(|series| series.samples.clear());
    }

    pub fn run_once(&mut self, settings: &Settings) {
        sleep(settings.pause);
        self.take(Operation::Run, RUN, Pattern::Sequential(1));
    }

    pub fn bulk(&mut self, operation: Operation, pattern: Pattern) {
        let slot = if operation == Operation::Parallel { NUMBERED } else { RUN };
        self.take(operation, slot, pattern);
    }

    /// Create to delete of one container; `cycle` is entered when all of its parts succeeded.
    pub fn lifecycle(&mut self, settings: &Settings) {
        if self.peer.kind != Kind::Runtime || self.failed(Operation::Create) {
            return;
        }
        let mut cycle = Some(Sample { wall_us: 0, cpu_us: 0, rss_kib: 0 });
        for operation in Operation::LIFECYCLE {
            sleep(settings.pause);
            let sample = self.take(operation, LIFE, Pattern::Sequential(1));
            if operation.in_cycle() {
                cycle = cycle.zip(sample).map(|(sum, part)| sum.with(part));
            }
            if operation == Operation::Create && sample.is_none() {
                return;
            }
            if operation == Operation::Kill {
                let cpu_us = self.end_init();
                cycle =
                    cycle.zip(cpu_us.ok()).map(|(sum, cpu_us)| Sample { cpu_us: sum.cpu_us + cpu_us, ..sum });
            }
        }
        if let (Some(sum), Some(series)) = (cycle, self.of(Operation::Cycle)) {
            series.samples.push(sum);
        }
    }

    /// Waits until the container's init is gone and returns the CPU time it used, in microseconds.
    /// The signal is sent again, so that a peer whose kill did nothing cannot hold up the others.
    fn end_init(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.pid_file)?;
        let pid = Pid::from_raw(text.trim().parse().context("pid file")?);
        let before = cpu_of_children()?;
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("kill of the init"),
        }
        waitpid(pid, None).context("wait for the init")?;
        let used = cpu_of_children()? - before;
        // A runtime may have left helpers of its own to this process.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {
        }
        Ok(used)
    }

    /// One sample, kept and returned; nothing once the operation has failed for this peer.
    fn take(&mut self, operation: Operation, slot: &str, pattern: Pattern) -> Option<Sample> {
        if self.failed(operation) {
            return None;
        }
        match self.sample(operation, slot, pattern) {
            Ok(sample) => {
                self.of(operation)?.samples.push(sample);
                Some(sample)
            }
            Err(error) => {
                self.fail(operation, format!("{error:#}"));
                None
            }
        }
    }

    fn sample(&self, operation: Operation, slot: &str, pattern: Pattern) -> Result<Sample> {
        let id = format!("{}{slot}", self.prefix);
        let container = Container {
            root: &self.root,
            id: &id,
            bundle: &self.shared.join(&id),
            pid_file: &self.pid_file,
            shared: self.shared,
            config: self.config,
        };
        sample(&argv(self.peer, operation, &container), pattern, &self.errors)
    }

    /// The operation is not measured any more for this peer.
    fn fail(&mut self, operation: Operation, why: String) {
        eprintln!("creel-bench: {} {} {}: {why}", self.config, self.peer.name, operation.name());
        self.clean_up();
        if let Some(series) = self.of(operation) {
            series.failure = Some(why);
        }
    }

    fn of(&mut self, operation: Operation) -> Option<&mut Series> {
        self.series.iter_mut().find(|series| series.operation == operation)
    }

    fn failed(&self, operation: Operation) -> bool {
        self.series.iter().any(|series| series.operation == operation && series.failure.is_some())
    }

    /// Removes what a failed operation may have left: the containers and cgroups of this stand, by
    /// their exact names.
    pub fn clean_up(&self) {
        for id in &self.ids {
            if self.root.join(id).exists() {
                let status = process::Command::new(&self.peer.path)
                    .arg("--root")
                    .arg(&self.root)
                    .args(["delete", "--force", id])
                    .stdout(process::Stdio::null())
                    .status();
                if !status.is_ok_and(|status| status.success()) {
                    eprintln!("creel-bench: {} delete --force {id} did not succeed", self.peer.name);
                }
            }
            for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let left = hierarchy.path().join(id);
                if left.is_dir() && fs::remove_dir(&left).is_err() {
                    eprintln!("creel-bench: {} is left", left.display());
                }
            }
        }
    }
}
