//! cgroup directories as the host sees them: what is below a name, and what a process's files say.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::harness::Skip;

/// A top-level directory that exists in each hierarchy, or in none.
#[derive(Debug)]
pub struct Top {
    parent: String,
    name: String,
}

/// One mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    options: Vec<String>,
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let place: Vec<&str> = place.split(' ').collect();
        let kind: Vec<&str> = kind.split(' ').collect();
        let (Some(&root), Some(&mount), Some(&fstype)) = (place.get(3), place.get(4), kind.first()) else {
            continue;
        };
        if root == "/" && (fstype == "cgroup" || fstype == "cgroup2") {
            let options = kind.get(2).unwrap_or(&"").split(',').map(str::to_owned).collect();
            found.push(Hierarchy { mount: PathBuf::from(mount), unified: fstype == "cgroup2", options });
        }
    }
    Ok(found)
}

impl Top {
    /// Nothing is made yet: engines and runtimes do that. The parent is "" for the top of the hierarchies.
    pub fn new(parent: String, name: String) -> Self {
        Self { parent, name }
    }

    /// The directory's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every directory below it in any hierarchy, parents before children.
    pub fn directories(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for hierarchy in hierarchies()? {
            walk(&hierarchy.mount.join(&self.parent).join(&self.name), &mut found)?;
        }
        Ok(found)
    }

    /// Remove it everywhere. Processes that were just killed may hold it for a moment.
    pub fn remove(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        for directory in self.directories()?.iter().rev() {
            loop {
                match fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < end => {
                        std::thread::yield_now();
                    }
                    Err(error) => return Err(error).with_context(|| directory.display().to_string()),
                }
            }
        }
        self.remove_plain()
    }

    /// podman 4 makes plain directories, with files, where it misses a hierarchy that the host does not have.
    fn remove_plain(&self) -> Result<()> {
        const TMPFS: i64 = 0x0102_1994;
        for place in fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()) {
            let plain = place.join(&self.name);
            if rustix::fs::statfs(&place)?.f_type == TMPFS && plain.exists() {
                fs::remove_dir_all(&plain).with_context(|| plain.display().to_string())?;
            }
        }
        Ok(())
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    };
    found.push(directory.to_owned());
    for entry in entries {
        // A directory may be removed under the walk, ENODEV included.
        let Ok(entry) = entry else { break };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// A value that v1 and v2 keep in different files.
#[derive(Debug, Clone, Copy)]
pub struct File {
    controller: &'static str,
    v1: &'static str,
    v2: &'static str,
}

/// Memory limit in bytes.
pub const MEMORY: File = File { controller: "memory", v1: "memory.limit_in_bytes", v2: "memory.max" };
/// Process count limit.
pub const PIDS: File = File { controller: "pids", v1: "pids.max", v2: "pids.max" };
/// CPUs allowed.
pub const CPUS: File = File { controller: "cpuset", v1: "cpuset.cpus", v2: "cpuset.cpus" };

/// The cgroup directory of a process for a controller, and whether it is the unified one.
/// `process` is its procfs directory.
fn directory(process: &Path, controller: &str) -> Result<(PathBuf, bool)> {
    let text = fs::read_to_string(process.join("cgroup")).with_context(|| process.display().to_string())?;
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let all = hierarchies()?;
    if let Some(hierarchy) =
        all.iter().find(|one| !one.unified && one.options.iter().any(|opt| opt == controller))
    {
        let path = path_of(&|names| names.split(',').any(|name| name == controller));
        return Ok((hierarchy.mount.join(path.context("not in the controller's hierarchy")?), false));
    }
    for hierarchy in all.iter().filter(|one| one.unified) {
        let path = hierarchy.mount.join(path_of(&str::is_empty).context("not in the unified hierarchy")?);
        let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        if controller == "freezer" || controllers.split_whitespace().any(|name| name == controller) {
            return Ok((path, true));
        }
    }
    Err(Skip::new(&format!("no {controller} controller on this machine")))
}

/// Read a limit of a process, as the kernel holds it.
pub fn value(process: &Path, file: File) -> Result<String> {
    let (directory, unified) = directory(process, file.controller)?;
    let path = directory.join(if unified { file.v2 } else { file.v1 });
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
}

/// CPU quota in microseconds and its period, in v2's words `QUOTA PERIOD`.
pub fn cpu_max(process: &Path) -> Result<String> {
    let (directory, unified) = directory(process, "cpu")?;
    let read = |name: &str| fs::read_to_string(directory.join(name)).with_context(|| name.to_owned());
    if unified {
        return Ok(read("cpu.max")?.trim().to_owned());
    }
    Ok(format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()))
}

/// CPU weight: v1's shares, or v2's weight.
pub fn cpu_shares(process: &Path) -> Result<String> {
    value(process, File { controller: "cpu", v1: "cpu.shares", v2: "cpu.weight" })
}

/// How often something has happened in a cgroup.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    file: File,
    key: &'static str,
}

/// Processes that the OOM killer took.
pub const OOM_KILLS: Count = Count {
    file: File { controller: "memory", v1: "memory.oom_control", v2: "memory.events" },
    key: "oom_kill",
};
/// Periods in which the CPU quota was used up.
pub const THROTTLED: Count =
    Count { file: File { controller: "cpu", v1: "cpu.stat", v2: "cpu.stat" }, key: "nr_throttled" };
/// Processes that were one too many.
pub const REFUSED_FORKS: Count =
    Count { file: File { controller: "pids", v1: "pids.events", v2: "pids.events" }, key: "max" };

/// Insist that it has happened, to processes in the cgroup of this one.
pub fn has_happened(process: &Path, count: Count) -> Result<()> {
    let text = value(process, count.file)?;
    let number = text.lines().find_map(|line| line.strip_prefix(count.key)?.strip_prefix(' '));
    ensure!(number.is_some_and(|number| number != "0"), "{} in {text:?}", count.key);
    Ok(())
}

/// Whether the cgroup of a process is frozen.
pub fn frozen(process: &Path) -> Result<bool> {
    let (directory, unified) = directory(process, "freezer")?;
    let read = |name: &str| fs::read_to_string(directory.join(name)).with_context(|| name.to_owned());
    if unified {
        return Ok(read("cgroup.events")?.lines().any(|line| line == "frozen 1"));
    }
    Ok(read("freezer.state")?.trim() == "FROZEN")
}

/// Skip the case where a controller is not to be had.
pub fn need(controller: &str) -> Result<()> {
    directory(Path::new("/proc/self"), controller).map(|_| ())
}

/// Insist on a limit.
pub fn expect(process: &Path, file: File, expected: &str) -> Result<()> {
    let found = value(process, file)?;
    ensure!(found == expected, "{}: expected {expected}, found {found}", file.v1);
    Ok(())
}
