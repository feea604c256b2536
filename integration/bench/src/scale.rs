//! Many containers alive: what one more costs, how long `list` takes, and creates at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::args::Settings;
use crate::bundle;
use crate::measure::Pattern;
use crate::operation::Operation;
use crate::peer::{Peer, newest};
use crate::rounds::{Outcome, Place};
use crate::scenario::{self, Scenario};
use crate::stand::Stand;

/// The other number of containers.
pub const FEW: usize = 10;
/// Creates at once.
pub const AT_ONCE: usize = 64;

const SCENARIO: Scenario = Scenario {
    name: scenario::SCALE,
    about: "one more container beside ten and beside many",
    config: "k8s",
    pause: Duration::from_millis(30),
    cold: false,
    mounts: 0,
    rounds: 20,
    bulk_rounds: 0,
};

/// Name of the table with so many containers alive.
pub fn table(alive: usize) -> String {
    format!("{} {alive}", scenario::SCALE)
}

/// Measures creel, and the newest crun beside it.
pub fn measure(settings: &Settings, peers: &[Peer], outcome: &mut Outcome) -> Result<()> {
    let Some(many) = settings.containers else { return Ok(()) };
    eprintln!("creel-bench: {}: {} ({many})", SCENARIO.name, SCENARIO.about);
    let directory = tempfile::Builder::new().prefix("creel-bench.").tempdir()?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let chosen = [newest(peers, "creel"), newest(peers, "crun")];
    for peer in chosen.into_iter().flatten() {
        let Some(index) = peers.iter().position(|other| std::ptr::eq(other, peer)) else { continue };
        let place = Place::make(&directory.path().join(&peer.name), settings, &SCENARIO)?;
        let mut crowd = Crowd::new(settings, index, peer, &place)?;
        let result = crowd.beside(FEW, outcome).and_then(|()| crowd.beside(many, outcome));
        crowd.end();
        result?;
    }
    Ok(())
}

/// The containers that are just there.
struct Crowd<'a> {
    stand: Stand<'a>,
    place: &'a Place,
    config: serde_json::Value,
    alive: usize,
}

impl<'a> Crowd<'a> {
    fn new(settings: &Settings, index: usize, peer: &'a Peer, place: &'a Place) -> Result<Self> {
        let config = bundle::config(SCENARIO.config)?;
        let mut stand = Stand::new(settings, index, peer, &SCENARIO, place, &config)?;
        for number in 0..AT_ONCE {
            stand.bundle(&at_once(&number.to_string()), &config, &["/bin/sleep", "3600"])?;
        }
        Ok(Self { stand, place, config, alive: 0 })
    }

    /// Fills up to `alive` and measures.
    fn beside(&mut self, alive: usize, outcome: &mut Outcome) -> Result<()> {
        while self.alive < alive {
            let slot = member(self.alive);
            self.stand.bundle(&slot, &self.config, &["/bin/sleep", "3600"])?;
            self.alive += 1;
            for operation in [Operation::Create, Operation::Start] {
                self.call(operation, &slot)?;
            }
        }
        for round in 0..2 + SCENARIO.rounds {
            if round == 2 {
                self.stand.forget();
            }
            self.stand.lifecycle();
            self.stand.take(Operation::List, "", Pattern::Sequential(1));
        }
        for _ in 0..3 {
            self.creates_at_once();
        }
        let taken = self.stand.series.iter_mut().filter(|series| !series.samples.is_empty());
        outcome.series.extend(taken.map(|series| {
            let empty = crate::rounds::Series::new(table(alive), series.operation, series.peer);
            crate::rounds::Series { samples: std::mem::take(&mut series.samples), ..empty }
        }));
        Ok(())
    }

    fn creates_at_once(&mut self) {
        let pid_file = self.pid_file(&at_once("{n}"));
        let argv = self.stand.argv(Operation::Creates, &at_once("{n}"), &pid_file);
        match crate::measure::sample(&argv, Pattern::Parallel(AT_ONCE), &self.stand.errors) {
            Ok(sample) => self.stand.of(Operation::Creates).into_iter().for_each(|s| s.samples.push(sample)),
            Err(error) => self.stand.fail(Operation::Creates, format!("{error:#}")),
        }
        (0..AT_ONCE).for_each(|number| self.remove(&at_once(&number.to_string())));
    }

    fn pid_file(&self, slot: &str) -> PathBuf {
        self.place.run.path().join(format!("pid-{slot}"))
    }

    /// A command that is not measured.
    fn call(&self, operation: Operation, slot: &str) -> Result<()> {
        let argv = self.stand.argv(operation, slot, &self.pid_file(slot));
        let mut command = Command::new(&argv[0]);
        // The container keeps its standard streams: no pipe may wait for their end.
        let errors = fs::File::create(&self.stand.errors)?;
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let status = command.status().with_context(|| argv[0].clone())?;
        if !status.success() {
            let why = fs::read_to_string(&self.stand.errors).unwrap_or_default();
            bail!("{} {}: {}", self.stand.peer.name, operation.name(), why.trim());
        }
        Ok(())
    }

    /// What is not there is not removed.
    fn remove(&self, slot: &str) {
        if self.stand.end_init(&self.pid_file(slot)).is_ok() {
            self.call(Operation::Delete, slot).ok();
        }
        fs::remove_file(self.pid_file(slot)).ok();
    }

    fn end(self) {
        (0..self.alive).for_each(|number| self.remove(&member(number)));
        self.stand.clean_up();
    }
}

fn member(number: usize) -> String {
    format!("crowd-{number}")
}

fn at_once(number: &str) -> String {
    format!("once-{number}")
}
