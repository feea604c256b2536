//! Conditions under which the operations are measured.

use std::time::Duration;

/// One table of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    /// One line of explanation.
    pub about: &'static str,
    /// `min`, `k8s` or `userns`.
    pub config: &'static str,
    /// Before each measured command.
    pub pause: Duration,
    /// Binaries, libraries and the root file system are put out of the page cache before each command.
    pub cold: bool,
    /// Mounts that the host has beside its own.
    pub mounts: usize,
    /// Rounds of run, create, start, state, exec, kill, delete.
    pub rounds: usize,
    /// Rounds of the parallel and the sequential runs.
    pub bulk_rounds: usize,
}

/// A node's containers do not start back to back: grace periods of the kernel end in between.
const PAUSE: Duration = Duration::from_millis(30);

const PAUSED: Scenario = Scenario {
    name: "k8s",
    about: "what a kubelet asks for, 30 ms between commands",
    config: "k8s",
    pause: PAUSE,
    cold: false,
    mounts: 0,
    rounds: 40,
    bulk_rounds: 5,
};

/// In the order of the report.
pub const ALL: [Scenario; 6] = [
    PAUSED,
    Scenario {
        name: "back-to-back",
        about: "the same without pauses",
        pause: Duration::ZERO,
        bulk_rounds: 0,
        ..PAUSED
    },
    Scenario {
        name: "cold",
        about: "the same with binaries, libraries and the root file system out of the page cache",
        cold: true,
        rounds: 10,
        bulk_rounds: 0,
        ..PAUSED
    },
    Scenario {
        name: "mounts",
        about: "the same on a host with 1000 more mounts",
        mounts: 1000,
        rounds: 10,
        bulk_rounds: 0,
        ..PAUSED
    },
    Scenario {
        name: "min",
        about: "runc's default spec",
        config: "min",
        rounds: 20,
        bulk_rounds: 0,
        ..PAUSED
    },
    Scenario {
        name: "userns",
        about: "the kubelet's in a user namespace",
        config: "userns",
        rounds: 20,
        bulk_rounds: 0,
        ..PAUSED
    },
];

/// Name that `--scenario` takes for what [`crate::scale`] measures.
pub const SCALE: &str = "scale";
