//! Whether a process still lives, by its number and the moment it began (proc_pid_stat(5)).

use serde::{Deserialize, Serialize};

/// A process of this machine, since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    /// Clock ticks from the machine's start to its own.
    start: u64,
}

impl Process {
    /// The caller, who may become another program by execve(2) and stays the same process. None where /proc is not
    /// mounted.
    pub(super) fn own() -> Option<Process> {
        let pid = rustix::process::getpid().as_raw_pid();
        start(pid).map(|start| Process { pid, start })
    }

    pub(super) fn lives(self) -> bool {
        start(self.pid) == Some(self.start)
    }
}

/// Whether there is a process of this number, dead ones that nobody has waited for left out.
pub(super) fn is_there(pid: i32) -> bool {
    start(pid).is_some()
}

fn start(pid: i32) -> Option<u64> {
    // A name may have spaces and brackets in it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}
