//! One peer under one scenario: what it runs, how its figures are taken, and what it leaves removed.

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
use crate::measure::{Pattern, Sample, cpu_of_children, sample};
use crate::operation::{Container, Operation, argv};
use crate::peer::{Kind, Peer};
use crate::rounds::{Place, Series};
use crate::scenario::Scenario;
use crate::{bundle, cold};

/// One peer under one scenario: its bundles, and what it has cost so far.
pub struct Stand<'a> {
    pub index: usize,
    pub peer: &'a Peer,
    scenario: &'a Scenario,
    place: &'a Place,
    systemd: bool,
    root: PathBuf,
    pub errors: PathBuf,
    pub pid_file: PathBuf,
    /// Start of every container id; the cgroup and the bundle have the id's name.
    prefix: String,
    /// Ids of all its containers.
    ids: Vec<String>,
    /// What is put out of the page cache, if anything is.
    evicted: Vec<PathBuf>,
    pub series: Vec<Series>,
}

/// The container of `run`, of the lifecycle, of the proof, and (by number) of those at once.
pub const RUN: &str = "run";
pub const LIFE: &str = "life";
const PROOF: &str = "proof";
const NUMBERED: &str = "{n}";

impl<'a> Stand<'a> {
    pub fn new(
        settings: &Settings,
        index: usize,
        peer: &'a Peer,
        scenario: &'a Scenario,
        place: &'a Place,
        config: &Value,
    ) -> Result<Self> {
        let prefix = format!("creel-bench-{}-{}-{}-", process::id(), scenario.name, peer.name);
        let evicted = match scenario.cold {
            true => peer.files.iter().cloned().chain([place.shared.join("rootfs/bin/busybox")]).collect(),
            false => Vec::new(),
        };
        let series = Operation::ALL
            .into_iter()
            .filter(|&operation| peer.knows(operation))
            .map(|operation| Series::new(scenario.name, operation, index))
            .collect();
        let file = |what: &str| place.run.path().join(format!("{}-{what}", peer.name));
        let mut stand = Self {
            index,
            peer,
            scenario,
            place,
            systemd: settings.systemd_cgroup,
            root: file("root"),
            errors: file("errors"),
            pid_file: file("pid"),
            prefix,
            ids: Vec::new(),
            evicted,
            series,
        };
        for (slot, command) in
            [(RUN, &["/bin/true"][..]), (LIFE, &["/bin/sleep", "60"]), (PROOF, &["/bin/sh", "-c", "exit 7"])]
        {
            stand.bundle(slot, config, command)?;
        }
        for number in 0..settings.parallel {
            stand.bundle(&number.to_string(), config, &["/bin/true"])?;
        }
        Ok(stand)
    }

    /// Makes one more container known.
    pub fn bundle(&mut self, slot: &str, config: &Value, command: &[&str]) -> Result<()> {
        let id = format!("{}{slot}", self.prefix);
        // With the slice that an empty one means, which crun 1.21 asks systemd for by the name ''.
        let cgroup = if self.systemd { format!("system.slice:creel-bench:{id}") } else { format!("/{id}") };
        bundle::write(&self.bundle_of(&id), &self.place.shared, config.clone(), command, &cgroup)?;
        self.ids.push(id);
        Ok(())
    }

    fn bundle_of(&self, id: &str) -> PathBuf {
        self.place.run.path().join(id)
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
        eprintln!("creel-bench: {} {}: {why}", self.scenario.name, self.peer.name);
        self.clean_up();
        self.series.iter_mut().for_each(|series| series.failure = Some(why.clone()));
    }

    pub fn forget(&mut self) {
        self.series.iter_mut().for_each(|series| series.samples.clear());
    }

    pub fn run_once(&mut self) {
        self.prepare();
        self.take(Operation::Run, RUN, Pattern::Sequential(1));
    }

    pub fn bulk(&mut self, operation: Operation, pattern: Pattern) {
        let slot = if operation == Operation::Sequential { RUN } else { NUMBERED };
        self.take(operation, slot, pattern);
    }

    /// The conditions of the scenario, before each measured command.
    fn prepare(&self) {
        sleep(self.scenario.pause);
        cold::evict(&self.evicted);
    }

    /// Create to delete of one container; `cycle` is entered when all of its parts succeeded.
    pub fn lifecycle(&mut self) {
        if self.peer.kind != Kind::Runtime || self.failed(Operation::Create) {
            return;
        }
        let mut cycle = Some(Sample { wall_us: 0, cpu_us: 0, rss_kib: 0 });
        for operation in Operation::LIFECYCLE {
            self.prepare();
            let sample = self.take(operation, LIFE, Pattern::Sequential(1));
            if operation.in_cycle() {
                cycle = cycle.zip(sample).map(|(sum, part)| sum.with(part));
            }
            if operation == Operation::Create && sample.is_none() {
                return;
            }
            if operation == Operation::Kill {
                let cpu_us = self.end_init(&self.pid_file);
                cycle =
                    cycle.zip(cpu_us.ok()).map(|(sum, cpu_us)| Sample { cpu_us: sum.cpu_us + cpu_us, ..sum });
            }
        }
        if let (Some(sum), Some(series)) = (cycle, self.of(Operation::Cycle)) {
            series.samples.push(sum);
        }
    }

    /// Waits until the init of a pid file is gone and returns the CPU time it used, in microseconds.
    /// The signal is sent again, so that a peer whose kill did nothing cannot hold up the others.
    pub fn end_init(&self, pid_file: &Path) -> Result<u64> {
        let text = fs::read_to_string(pid_file)?;
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
    pub fn take(&mut self, operation: Operation, slot: &str, pattern: Pattern) -> Option<Sample> {
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
        sample(&self.argv(operation, slot, &self.pid_file), pattern, &self.errors)
    }

    /// The command line of an operation.
    pub fn argv(&self, operation: Operation, slot: &str, pid_file: &Path) -> Vec<String> {
        let id = format!("{}{slot}", self.prefix);
        let container = Container {
            root: &self.root,
            id: &id,
            bundle: &self.bundle_of(&id),
            pid_file,
            shared: &self.place.shared,
            config: self.scenario.config,
            systemd: self.systemd,
        };
        argv(self.peer, operation, &container)
    }

    /// The operation is not measured any more for this peer.
    pub fn fail(&mut self, operation: Operation, why: String) {
        eprintln!("creel-bench: {} {} {}: {why}", self.scenario.name, self.peer.name, operation.name());
        self.clean_up();
        if let Some(series) = self.of(operation) {
            series.failure = Some(why);
        }
    }

    pub fn of(&mut self, operation: Operation) -> Option<&mut Series> {
        self.series.iter_mut().find(|series| series.operation == operation)
    }

    pub fn failed(&self, operation: Operation) -> bool {
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
            let root = Path::new("/sys/fs/cgroup");
            let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
            for hierarchy in hierarchies.chain([root.to_owned()]) {
                let left = hierarchy.join(id);
                if left.is_dir() && fs::remove_dir(&left).is_err() {
                    eprintln!("creel-bench: {} is left", left.display());
                }
            }
        }
    }
}
