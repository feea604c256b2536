//! What creel is to reach beside the newest crun, and beside the floor program: ratios of medians.

use crate::figures::figures;
use crate::operation::Operation;
use crate::peer::{Peer, newest};
use crate::rounds::{Outcome, Series};
use crate::scale;

/// One line of the table of goals.
pub struct Goal {
    pub row: &'static str,
    scenario: &'static str,
    operation: Operation,
    /// Against the floor program instead of crun.
    floor: bool,
    pub cpu: Option<f64>,
    pub wall: Option<f64>,
    pub rss: Option<f64>,
}

/// A goal and what was measured.
pub struct Reached {
    pub goal: Goal,
    pub cpu: f64,
    pub wall: f64,
    pub rss: f64,
}

impl Reached {
    /// Whether everything that is asked for is there.
    pub fn met(&self) -> bool {
        let within = |measured: f64, goal: Option<f64>| goal.is_none_or(|goal| measured <= goal);
        within(self.cpu, self.goal.cpu)
            && within(self.wall, self.goal.wall)
            && within(self.rss, self.goal.rss)
    }
}

const TIGHT: &str = "back-to-back";
const PAUSED: &str = "k8s";

fn goals() -> Vec<Goal> {
    let goal = |row, scenario, operation, cpu, wall| Goal {
        row,
        scenario,
        operation,
        floor: false,
        cpu: Some(cpu),
        wall: Some(wall),
        rss: None,
    };
    use Operation::{Create, Delete, Exec, Kill, Parallel, Run, Sequential, Start, State};
    vec![
        goal("state", TIGHT, State, 0.25, 0.30),
        goal("start", TIGHT, Start, 0.25, 0.30),
        goal("kill", TIGHT, Kill, 0.25, 0.30),
        goal("create", TIGHT, Create, 0.45, 0.40),
        goal("exec /bin/true", TIGHT, Exec, 0.35, 0.30),
        goal("delete", TIGHT, Delete, 0.35, 0.40),
        goal("run /bin/true", TIGHT, Run, 0.45, 0.40),
        goal("run, 30 ms pause between containers", PAUSED, Run, 0.45, 0.30),
        goal("20 runs in parallel", PAUSED, Parallel, 0.45, 0.40),
        goal("100 runs in sequence", PAUSED, Sequential, 0.50, 0.60),
        Goal {
            cpu: None,
            wall: None,
            rss: Some(0.45),
            ..goal("peak RSS of create", PAUSED, Create, 0.0, 0.0)
        },
        Goal { floor: true, ..goal("run against the floor program", TIGHT, Run, 1.35, 1.35) },
        Goal { floor: true, ..goal("the same, 30 ms pause", PAUSED, Run, 1.35, 1.35) },
    ]
}

/// The goals whose two sides were measured.
pub fn reached(peers: &[Peer], outcome: &Outcome) -> Vec<Reached> {
    let one = |goal: Goal| {
        let other =
            if goal.floor { peers.iter().find(|peer| peer.name == "floor")? } else { newest(peers, "crun")? };
        let of = |peer: &Peer| {
            let is = |s: &&Series| {
                s.scenario == goal.scenario
                    && s.operation == goal.operation
                    && std::ptr::eq(&peers[s.peer], peer)
            };
            figures(&outcome.series.iter().find(is)?.samples)
        };
        let (own, other) = (of(newest(peers, "creel")?)?, of(other)?);
        Some(Reached {
            goal,
            cpu: own.cpu.median / other.cpu.median,
            wall: own.wall.median / other.wall.median,
            rss: own.rss_kib / other.rss_kib,
        })
    };
    goals().into_iter().filter_map(one).collect()
}

/// What one more container costs beside many, over what it costs beside few, per operation: creel's CPU time.
pub fn growth(peers: &[Peer], outcome: &Outcome, many: usize) -> Vec<(Operation, f64)> {
    let cpu = |table: &str, operation: Operation| {
        let is = |s: &&Series| {
            s.scenario == table
                && s.operation == operation
                && newest(peers, "creel").is_some_and(|creel| std::ptr::eq(&peers[s.peer], creel))
        };
        Some(figures(&outcome.series.iter().find(is)?.samples)?.cpu.median)
    };
    let one = |operation| {
        let (few, many) = (cpu(&scale::table(scale::FEW), operation)?, cpu(&scale::table(many), operation)?);
        Some((operation, many / few))
    };
    Operation::ALL.into_iter().filter_map(one).collect()
}
