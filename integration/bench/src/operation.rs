//! The operations and the command line of each.

use std::path::Path;

use crate::peer::{Kind, Peer};

/// One row of the table per peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `run` of a container whose process exits at once.
    Run,
    /// `create`; its init lives on and is not part of the CPU time.
    Create,
    Start,
    State,
    /// `exec` of /bin/true in the running container.
    Exec,
    /// `kill` with SIGKILL.
    Kill,
    /// `delete` after the init has ended.
    Delete,
    /// Sum of create, start, kill and delete of one container, with its init's CPU time.
    Cycle,
    /// Several `run` at once.
    Parallel,
    /// One `run` after the other, without pause.
    Sequential,
    /// `list` of all that live, in the scenario of many.
    List,
    /// Several `create` at once, in the scenario of many.
    Creates,
}

impl Operation {
    /// In the order of the table.
    pub const ALL: [Self; 12] = [
        Self::Run,
        Self::Create,
        Self::Start,
        Self::State,
        Self::Exec,
        Self::Kill,
        Self::Delete,
        Self::Cycle,
        Self::Parallel,
        Self::Sequential,
        Self::List,
        Self::Creates,
    ];

    /// The commands sent to one created container, in order.
    pub const LIFECYCLE: [Self; 6] =
        [Self::Create, Self::Start, Self::State, Self::Exec, Self::Kill, Self::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Create => "create",
            Self::Start => "start",
            Self::State => "state",
            Self::Exec => "exec",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::Cycle => "cycle",
            Self::Parallel => "parallel",
            Self::Sequential => "sequential",
            Self::List => "list",
            Self::Creates => "creates",
        }
    }

    /// Whether the sum [`Operation::Cycle`] counts it.
    pub fn in_cycle(self) -> bool {
        matches!(self, Self::Create | Self::Start | Self::Kill | Self::Delete)
    }
}

/// Where one container of one peer lives.
#[derive(Debug)]
pub struct Container<'a> {
    /// Where the runtime keeps its state.
    pub root: &'a Path,
    pub id: &'a str,
    /// The bundle, which for the floor program gives the rootfs and the volume.
    pub bundle: &'a Path,
    pub pid_file: &'a Path,
    /// The config's directory, with `rootfs` and `podvol`.
    pub shared: &'a Path,
    /// `min`, `k8s` or `userns`.
    pub config: &'a str,
    /// systemd makes the cgroup.
    pub systemd: bool,
}

/// The command of a runtime, or of the floor program for `run` and the runs in bulk.
pub fn argv(peer: &Peer, operation: Operation, container: &Container<'_>) -> Vec<String> {
    match &peer.kind {
        Kind::Runtime => runtime_argv(peer, operation, container),
        Kind::Floor { filter } => floor_argv(peer, filter.as_deref(), container),
    }
}

fn runtime_argv(peer: &Peer, operation: Operation, container: &Container<'_>) -> Vec<String> {
    let mut words = vec![text(&peer.path), "--root".into(), text(container.root)];
    if container.systemd {
        words.push("--systemd-cgroup".into());
    }
    let bundle = || ["--bundle".to_owned(), text(container.bundle)];
    match operation {
        Operation::Run | Operation::Parallel | Operation::Sequential => {
            words.push("run".into());
            words.extend(bundle());
        }
        Operation::Create | Operation::Cycle | Operation::Creates => {
            words.push("create".into());
            words.extend(bundle());
            words.extend(["--pid-file".into(), text(container.pid_file)]);
        }
        Operation::Start => words.push("start".into()),
        Operation::State => words.push("state".into()),
        Operation::Exec => words.push("exec".into()),
        Operation::Kill => words.push("kill".into()),
        Operation::Delete => words.push("delete".into()),
        Operation::List => {
            words.push("list".into());
            return words;
        }
    }
    words.push(container.id.to_owned());
    match operation {
        Operation::Exec => words.push("/bin/true".into()),
        Operation::Kill => words.push("KILL".into()),
        Operation::Run
        | Operation::Create
        | Operation::Start
        | Operation::State
        | Operation::Delete
        | Operation::Cycle
        | Operation::Parallel
        | Operation::Sequential
        | Operation::List
        | Operation::Creates => {}
    }
    words
}

fn floor_argv(peer: &Peer, filter: Option<&Path>, container: &Container<'_>) -> Vec<String> {
    let shape = if container.config == "min" { "min" } else { "k8s" };
    let mut words = vec![text(&peer.path), "-q".into(), "-n".into(), "1".into(), "-c".into(), shape.into()];
    words.extend(["-r".into(), text(&container.shared.join("rootfs"))]);
    words.extend(["-b".into(), text(&container.shared.join("podvol"))]);
    if container.config == "userns" {
        words.push("-U".into());
    }
    if let Some(filter) = filter.filter(|_| shape == "k8s") {
        words.extend(["-s".into(), text(filter)]);
    }
    words
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
