//! The measuring itself: peers take turns, so that what disturbs the machine disturbs all.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;

use anyhow::Result;

use crate::args::Settings;
use crate::host::Tmpfs;
use crate::measure::{Pattern, Sample, sample};
use crate::operation::Operation;
use crate::peer::Peer;
use crate::scenario::Scenario;
use crate::stand::Stand;
use crate::{bundle, calls};

/// Rounds that fill the page cache and the runtimes' own caches, and are thrown away.
const WARM_UP: usize = 2;

/// The samples of one operation of one peer under one scenario.
#[derive(Debug)]
pub struct Series {
    pub scenario: String,
    pub operation: Operation,
    /// Index into the peers.
    pub peer: usize,
    pub samples: Vec<Sample>,
    /// System calls of one command, if they were counted.
    pub calls: Option<u64>,
    /// Why there are no more samples.
    pub failure: Option<String>,
}

impl Series {
    pub fn new(scenario: impl Into<String>, operation: Operation, peer: usize) -> Self {
        let scenario = scenario.into();
        Self { scenario, operation, peer, samples: Vec::new(), calls: None, failure: None }
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Outcome {
    pub series: Vec<Series>,
    /// A static program that exits at once: the least that any row can show.
    pub least: Vec<Sample>,
}

/// Where the containers of a scenario lie.
pub struct Place {
    /// `rootfs` and `podvol`, on the disk.
    pub shared: PathBuf,
    /// State and bundles, on a tmpfs as in /run.
    pub run: Tmpfs,
    /// The many mounts.
    _mounts: Option<Tmpfs>,
}

impl Place {
    pub fn make(directory: &std::path::Path, settings: &Settings, scenario: &Scenario) -> Result<Self> {
        let shared = directory.join(scenario.name);
        fs::create_dir_all(&shared)?;
        bundle::make_shared(&shared, &settings.busybox, &bundle::config(scenario.config)?)?;
        let run = Tmpfs::at(shared.join("run"), 0)?;
        let many = scenario.mounts > 0;
        let mounts = many.then(|| Tmpfs::at(shared.join("mounts"), scenario.mounts)).transpose()?;
        Ok(Self { shared, run, _mounts: mounts })
    }
}

/// Measures every scenario of the settings on every peer.
pub fn measure(settings: &Settings, peers: &[Peer], outcome: &mut Outcome) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("creel-bench.").tempdir()?;
    // A container's mapped root has to pass.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for scenario in &settings.scenarios {
        eprintln!("creel-bench: {}: {}", scenario.name, scenario.about);
        let place = Place::make(directory.path(), settings, scenario)?;
        let config = bundle::config(scenario.config)?;
        let mut stands = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let mut stand = Stand::new(settings, index, peer, scenario, &place, &config)?;
            stand.prove();
            stands.push(stand);
        }
        run_rounds(settings, scenario, &place, &mut stands, &mut outcome.least)?;
        stands.sort_by_key(|stand| stand.index);
        if scenario.bulk_rounds > 0 {
            stands.iter_mut().for_each(calls::count);
        }
        for stand in stands {
            stand.clean_up();
            outcome.series.extend(stand.series);
        }
    }
    Ok(())
}

fn run_rounds(
    settings: &Settings,
    scenario: &Scenario,
    place: &Place,
    stands: &mut [Stand<'_>],
    least: &mut Vec<Sample>,
) -> Result<()> {
    for round in 0..WARM_UP + scenario.rounds {
        if round == WARM_UP {
            stands.iter_mut().for_each(Stand::forget);
        }
        stands.rotate_left(1);
        sleep(scenario.pause);
        if let Some(stand) = stands.first() {
            let exit = [place.shared.join("rootfs/bin/true").display().to_string()];
            least.push(sample(&exit, Pattern::Sequential(1), &stand.errors)?);
        }
        stands.iter_mut().for_each(Stand::run_once);
        stands.iter_mut().for_each(Stand::lifecycle);
    }
    for _ in 0..scenario.bulk_rounds {
        stands.rotate_left(1);
        for stand in stands.iter_mut() {
            stand.bulk(Operation::Parallel, Pattern::Parallel(settings.parallel));
            stand.bulk(Operation::Sequential, Pattern::Sequential(settings.sequential));
        }
    }
    Ok(())
}
