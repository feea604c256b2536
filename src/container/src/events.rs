//! `events`: what a container uses, at intervals, and when the OOM killer was in it.
//!
//! Runs in the **host** process beside the container and without its lock: the cgroup, the resource
//! group and the network namespace are read as they are, and the stream ends when the cgroup does.

mod network;

use std::time::{Duration, Instant};

use creel_cgroup::Cgroup;
use creel_cgroup::stats::rdt::{self, IntelRdt};
use creel_cgroup::stats::{OomEvent, OomWatch, Stats};
use creel_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

pub use network::NetworkInterface;

use crate::state::Container;
use crate::{Error, Runtime, Status};

/// The `data` of a `stats` event, in runc's shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ContainerStats {
    /// What the cgroup counts.
    #[serde(flatten)]
    pub cgroup: Stats,
    /// What the container's resctrl group counts.
    pub intel_rdt: IntelRdt,
    /// The interfaces of the container's own network namespace but `lo`; absent when there are none.
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// Something to tell about a container.
#[derive(Debug)]
pub enum Event {
    /// What it has used so far.
    Stats(Box<ContainerStats>),
    /// A process in it could not get memory within the limit.
    Oom,
}

/// `events --stats`
pub fn stats(runtime: &Runtime, id: &str) -> Result<ContainerStats, Error> {
    Ok(Source::open(runtime, id)?.stats()?)
}

/// The events of a container, one after the other.
#[derive(Debug)]
pub struct Events {
    source: Source,
    watch: OomWatch,
    interval: Duration,
    due: Instant,
}

impl Events {
    /// Starts to watch; the first statistics come after one interval.
    pub fn open(runtime: &Runtime, id: &str, interval: Duration) -> Result<Events, Error> {
        let source = Source::open(runtime, id)?;
        let watch = source.cgroup.watch_oom()?;
        Ok(Events { source, watch, interval, due: Instant::now() + interval })
    }

    /// Waits for the next event; `None` when the cgroup is gone. Statistics that cannot be read are
    /// said in the log and not the end.
    fn wait_next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            match self.watch.next()? {
                OomEvent::Oom => return Ok(Some(Event::Oom)),
                OomEvent::Gone => return Ok(None),
                OomEvent::Nothing => {}
            }
            let left = self.due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                self.wait(left)?;
                continue;
            }
            // As a clock ticks: what a slow reader missed is not made up for.
            while self.due <= Instant::now() {
                self.due += self.interval;
            }
            match self.source.stats() {
                Ok(stats) => return Ok(Some(Event::Stats(Box::new(stats)))),
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    fn wait(&self, longest: Duration) -> Result<(), Error> {
        let timeout = Timespec::try_from(longest).ok();
        match poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::File { call: "poll", path: "OOM notifications".into(), errno }),
        }
    }
}

impl Iterator for Events {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait_next().transpose()
    }
}

/// Where statistics come from.
#[derive(Debug)]
struct Source {
    container: Container,
    cgroup: Cgroup,
}

impl Source {
    fn open(runtime: &Runtime, id: &str) -> Result<Source, Error> {
        let container = Container::open(runtime, id)?;
        if container.status()? == Status::Stopped {
            return Err(Error::Status("container not running"));
        }
        let cgroup = container.cgroup();
        Ok(Source { container, cgroup })
    }

    fn stats(&self) -> Result<ContainerStats, creel_cgroup::Error> {
        let init = self.container.living_init().map(|init| init.pid);
        Ok(ContainerStats {
            cgroup: self.cgroup.stats()?,
            intel_rdt: init.map(rdt::of_process).transpose()?.unwrap_or_default(),
            network_interfaces: init.and_then(network::of_process),
        })
    }
}
