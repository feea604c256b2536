//! What a container may leave behind: mounts, cgroups, state, processes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cgroups;

/// Directory of the runtime's root that belongs to no container: its compiled seccomp filters.
pub const KEPT_FILTERS: &str = "@seccomp";

/// Everything outside the scratch directory's own files that still carries the test's name.
#[derive(Debug, Default)]
pub struct Leaks {
    /// Mount points of the test's mount namespace that were not there before.
    pub mounts: Vec<String>,
    /// cgroup directories with the name.
    pub cgroups: Vec<PathBuf>,
    /// Names in the state directory.
    pub state: Vec<String>,
    /// `pid: command line` of processes in such a cgroup, or with the name in their arguments,
    /// working directory or root.
    pub processes: Vec<String>,
}

impl Leaks {
    /// Looks for leftovers of `name`, whose state directories are in `root`.
    pub fn of(name: &str, root: &Path, mounts_before: &[String]) -> Leaks {
        let mounts = mounts();
        let state = fs::read_dir(root).into_iter().flatten().flatten();
        let state = state.filter(|entry| entry.file_name() != KEPT_FILTERS);
        Leaks {
            mounts: mounts.into_iter().filter(|mount| !mounts_before.contains(mount)).collect(),
            cgroups: cgroups::named(name),
            state: state.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
            processes: processes(name),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
            && self.cgroups.is_empty()
            && self.state.is_empty()
            && self.processes.is_empty()
    }
}

/// `target type source` of each mount of this thread's namespace. Ids are left out: they are given
/// again after a mount is gone.
pub fn mounts() -> Vec<String> {
    let bytes = fs::read("/proc/thread-self/mountinfo").unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let target = front.split(' ').nth(4)?;
        let kind: Vec<&str> = back.split(' ').take(2).collect();
        Some(format!("{target} {}", kind.join(" ")))
    };
    text.lines().filter_map(line).collect()
}

/// Reaps children of this process that are dead and were in a cgroup with `name`.
pub(crate) fn reap(name: &str) {
    let parent = format!("{}", std::process::id());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let zombie = fields.next() == Some("Z") && fields.next() == Some(&parent);
        let cgroup = || fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if zombie && has_name(&cgroup(), name) {
            let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            // Another wait for it may have been faster: ECHILD then.
            waitpid(pid, WaitOptions::NOHANG).ok();
        }
    }
}

fn processes(name: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let numbers = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let numbers = numbers.map(|pid| pid.to_string_lossy().into_owned());
    numbers
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && *pid != own)
        .filter_map(|pid| belongs(&pid, name).map(|line| format!("{pid}: {line}")))
        .collect()
}

/// The command line of a live process that has to do with `name`.
fn belongs(pid: &str, name: &str) -> Option<String> {
    let dir = Path::new("/proc").join(pid);
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // A zombie is only waiting for its parent, which may be this very test process.
    if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])) {
        return None;
    }
    let line = String::from_utf8_lossy(&fs::read(dir.join("cmdline")).ok()?).replace('\0', " ");
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let link = |file: &str| fs::read_link(dir.join(file)).unwrap_or_default().to_string_lossy().into_owned();
    let traces = [cgroup, link("cwd"), link("root"), line.clone()];
    traces.iter().any(|trace| has_name(trace, name)).then_some(line)
}

/// `name` ends in a number, and must not be found in that of test 12 when it is that of test 1.
pub(crate) fn has_name(text: &str, name: &str) -> bool {
    text.match_indices(name)
        .any(|(at, _)| !text[at + name.len()..].starts_with(|next: char| next.is_ascii_digit()))
}
