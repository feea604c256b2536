//! The measuring itself: peers take turns, so that what disturbs the machine disturbs all.

use std::fs;
use std::thread::sleep;

use anyhow::Result;

use crate::args::Settings;
use crate::bundle;
use crate::measure::{Pattern, Sample, sample};
use crate::operation::Operation;
use crate::peer::Peer;
use crate::stand::Stand;

/// Rounds that fill the page cache and the runtimes' own caches, and are thrown away.
const WARM_UP: usize = 2;

/// The samples of one operation of one peer under one config.
#[derive(Debug)]
pub struct Series {
    pub config: String,
    pub operation: Operation,
    /// Index into the peers.
    pub peer: usize,
    pub samples: Vec<Sample>,
    /// Why there are no more of them.
    pub failure: Option<String>,
}

/// All that was measured.
#[derive(Debug)]
pub struct Outcome {
    pub series: Vec<Series>,
    /// A static program that exits at once: the least that any row can show.
    pub least: Vec<Sample>,
}

/// Measures every config of the settings on every peer.
pub fn measure(settings: &Settings, peers: &[Peer]) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("creel-bench.").tempdir()?;
    // A container's mapped root has to pass.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut outcome = Outcome { series: Vec::new(), least: Vec::new() };
    for name in &settings.configs {
        let config = bundle::config(name)?;
        let shared = directory.path().join(name);
        fs::create_dir(&shared)?;
        bundle::make_shared(&shared, &settings.busybox, &config)?;
        let mut stands = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let mut stand = Stand::new(settings, index, peer, name, &shared, &config)?;
            stand.prove();
            stands.push(stand);
        }
        run_rounds(settings, &mut stands, &mut outcome.least)?;
        for stand in stands {
            stand.clean_up();
            outcome.series.extend(stand.series);
        }
    }
    Ok(outcome)
}

fn run_rounds(settings: &Settings, stands: &mut [Stand<'_>], least: &mut Vec<Sample>) -> Result<()> {
    for round in 0..WARM_UP + settings.rounds {
        if round == WARM_UP {
            stands.iter_mut().for_each(Stand::forget);
        }
        stands.rotate_left(1);
        sleep(settings.pause);
        if let Some(stand) = stands.first() {
            let exit = [stand.shared.join("rootfs/bin/true").display().to_string()];
            least.push(sample(&exit, Pattern::Sequential(1), &stand.errors)?);
        }
        stands.iter_mut().for_each(|stand| stand.run_once(settings));
        stands.iter_mut().for_each(|stand| stand.lifecycle(settings));
    }
    for _ in 0..settings.bulk_rounds {
        stands.rotate_left(1);
        for stand in stands.iter_mut() {
            stand.bulk(Operation::Parallel, Pattern::Parallel(settings.parallel));
            stand.bulk(Operation::Sequential, Pattern::Sequential(settings.sequential));
        }
    }
    stands.sort_by_key(|stand| stand.index);
    Ok(())
}
