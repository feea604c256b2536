//! The machine's cgroup hierarchies, seen from outside.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Every directory below the cgroup mounts whose name contains `name`, not followed by a digit.
pub fn named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        walk(&path, name, found);
        if crate::leaks::has_name(&entry.file_name().to_string_lossy(), name) {
            found.push(path);
        }
    }
}

/// Removes directories that [`named`] found, deepest first as it lists them. Those that stay are
/// busy, and for the leak check to report.
pub fn remove(found: &[PathBuf]) {
    for dir in found {
        drop(std::fs::remove_dir(dir));
    }
}

/// Kills the processes in directories that [`named`] found, and removes those that get empty in time.
pub(crate) fn kill_and_remove(found: &[PathBuf]) {
    let end = Instant::now() + wait::DEADLINE;
    while found.iter().any(|dir| dir.exists()) && Instant::now() < end {
        for dir in found {
            drop(std::fs::write(dir.join("freezer.state"), "THAWED"));
            let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                // It may have ended by itself.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        remove(found);
        wait::pause();
    }
}

/// Whether the unified hierarchy is the only one.
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The mount of a v1 controller, or of the unified hierarchy where that has the controller.
pub fn mount(controller: &str) -> Option<PathBuf> {
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    if v1.is_dir() && !is_v2() {
        return Some(v1);
    }
    let unified = if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    let controllers = std::fs::read_to_string(Path::new(unified).join("cgroup.controllers")).ok()?;
    controllers.split_whitespace().any(|word| word == controller).then(|| PathBuf::from(unified))
}

/// Value of `file` in the cgroup `path` (absolute, as in cgroupsPath) of a controller.
pub fn read(controller: &str, path: &str, file: &str) -> Option<String> {
    let file = mount(controller)?.join(path.trim_start_matches('/')).join(file);
    Some(std::fs::read_to_string(file).ok()?.trim_end().to_owned())
}

/// Path of this process's own cgroup in a v1 hierarchy, "" for the unified one.
pub fn own(controller: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut rows = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    rows.find(|(names, _)| names.split(',').any(|name| name == controller))
        .map_or_else(|| "/".to_owned(), |(_, path)| path.to_owned())
}

/// Freezes or thaws the cgroup `path`; false when there is no freezer.
///
/// # Panics
/// When it does not get there.
pub fn freeze(path: &str, frozen: bool) -> bool {
    let relative = path.trim_start_matches('/');
    if is_v2() {
        let dir = Path::new("/sys/fs/cgroup").join(relative);
        std::fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let state = if frozen { "frozen 1" } else { "frozen 0" };
        wait::for_text(&dir.join("cgroup.events"), |text| text.contains(state));
        return true;
    }
    let Some(mount) = mount("freezer") else { return false };
    let file = mount.join(relative).join("freezer.state");
    let state = if frozen { "FROZEN" } else { "THAWED" };
    // A v1 cgroup may stay FREEZING while a task is in vfork(2); writing again makes it look again.
    wait::until(state, || {
        std::fs::write(&file, state).unwrap();
        std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == state)
    });
    true
}
