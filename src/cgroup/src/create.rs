//! Making the directories.
//!
//! v1: one mkdir(2) per hierarchy when the parent exists. v2: the parents hand their controllers
//! down first. What was made here, and nothing else, is what removal removes (runtime-spec,
//! runtime.md, delete).

use std::cell::RefCell;

use rustix::fs::{CWD, Mode as FileMode};
use rustix::io::Errno;

use crate::dir;
use crate::error::Error;
use crate::host::{Host, Mode, OwnCgroups};
use crate::path::{CgroupPath, Layout, Scope, join};
use crate::record::{Cgroup, CgroupDir, CgroupRecord, DirRecord, Owner};
use crate::resources::FileWrite;
use crate::systemd::Property;

/// How often a parent that is being removed by somebody else is made again.
const RACES: u32 = 10;

/// What [`Cgroup::create`] needs to know beside the path.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions<'a> {
    /// Go on without permission, unless the path is configured or limits need it.
    pub rootless: bool,
    /// The writes that will follow.
    pub limits: &'a [FileWrite],
    /// Properties of the scope, when systemd makes the cgroup.
    pub properties: &'a [Property],
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy. A cgroup that exists is taken only when nobody is
    /// inside and it is not frozen.
    pub fn create(host: &Host, path: &CgroupPath, options: CreateOptions<'_>) -> Result<Cgroup, Error> {
        if let Some(scope) = path.scope() {
            return Cgroup::create_scope(host, path, scope, options);
        }
        let own = if path.is_relative() { OwnCgroups::read()? } else { OwnCgroups::default() };
        let looked;
        let host = if path.is_relative() && host.v1.iter().any(|m| m.root.is_none()) {
            looked = Host::from_own_mountinfo()?;
            &looked
        } else {
            host
        };
        let mut cgroup = Cgroup {
            mode: host.mode,
            owner: Owner::Cgroupfs,
            rootless: options.rootless,
            dirs: Vec::with_capacity(host.v1.len() + 1),
            unit: None,
            birth: RefCell::new(None),
        };
        let tolerant = options.rootless && !path.is_explicit();
        for layout in path.layouts(host, &own) {
            match make(host.mode, &layout, options.limits) {
                Ok(dir) => cgroup.dirs.push(dir),
                // A v1 limit that misses its controller is reported when it is applied.
                Err(error) if tolerant && error.is_permission() => {
                    if host.mode == Mode::V2 && !options.limits.is_empty() {
                        return Err(cgroup.undo(Error::RootlessLimits(Box::new(error))));
                    }
                }
                Err(_) if is_optional(host.mode, &layout) => {}
                Err(error) => return Err(cgroup.undo(error)),
            }
        }
        match cgroup.check_unused() {
            Ok(()) => Ok(cgroup),
            Err(error) => Err(cgroup.undo(error)),
        }
    }

    /// What [`Cgroup::create`] is about to make, to be written down first: a creel that is killed in
    /// between leaves directories that nobody else would know of.
    pub fn intended(host: &Host, path: &CgroupPath) -> Result<CgroupRecord, Error> {
        let own = if path.is_relative() { OwnCgroups::read()? } else { OwnCgroups::default() };
        let dirs = path.layouts(host, &own).into_iter().map(|layout| DirRecord {
            path: join(&layout.mount, &layout.inner),
            made: missing(&layout.mount, &layout.inner),
            controllers: layout.controllers,
        });
        let unit = path.scope().map(Scope::record);
        let owner = if unit.is_some() { Owner::Systemd } else { Owner::Cgroupfs };
        Ok(CgroupRecord { mode: host.mode, owner, rootless: true, dirs: dirs.collect(), unit })
    }

    /// Removes what was made before `error`.
    pub(crate) fn undo(&self, error: Error) -> Error {
        match self.destroy() {
            Ok(()) => error,
            Err(also) => Error::Several(vec![error, also]),
        }
    }

    /// A directory that was there before may be somebody else's. Only the hierarchies by which
    /// the container is frozen and killed are looked at; new ones are empty.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        let found = |dir: &CgroupDir| dir.record.made == 0;
        let unified = self.unified().filter(|d| found(d));
        let mut inside = 0;
        for dir in self.members().filter(|d| found(d) && !d.is_unified()).into_iter().chain(unified) {
            inside = inside.max(dir.pids(true)?.len());
        }
        if inside > 0 {
            return Err(Error::NotEmpty(inside));
        }
        if self.freezer().is_some_and(found) && self.is_frozen()? {
            return Err(Error::Frozen);
        }
        Ok(())
    }
}

/// How many components of `inner`, counted from the end, do not exist below `mount`.
fn missing(mount: &str, inner: &str) -> u32 {
    if inner.is_empty() || rustix::fs::stat(join(mount, inner)).is_ok() {
        return 0;
    }
    1 + inner.rsplit_once('/').map_or(0, |(parent, _)| missing(mount, parent))
}

/// Hierarchies that only group processes: the container works without them.
pub(crate) fn is_optional(mode: Mode, layout: &Layout) -> bool {
    match layout.controllers.as_slice() {
        [] => mode == Mode::Hybrid,
        [name] => name == "name=systemd" || name == "misc",
        _ => false,
    }
}

/// Makes the directory of one hierarchy, or leaves none.
pub(crate) fn make(mode: Mode, layout: &Layout, limits: &[FileWrite]) -> Result<CgroupDir, Error> {
    let path = join(&layout.mount, &layout.inner);
    let made = match mode {
        Mode::V2 => make_unified(layout, limits)?,
        Mode::V1 | Mode::Hybrid => make_dirs(&layout.mount, &layout.inner)?,
    };
    let mut dir = CgroupDir::new(DirRecord { controllers: layout.controllers.clone(), path, made });
    dir.fresh = made > 0;
    let result = if dir.has("cpuset") { fill_cpuset(&dir, layout, limits) } else { dir.fd().map(drop) };
    match result {
        Ok(()) => Ok(dir),
        Err(error) => match dir.discard() {
            Ok(()) => Err(error),
            Err(also) => Err(Error::Several(vec![error, also])),
        },
    }
}

/// Makes `inner` below `mount` with its parents; returns how many components were made.
pub(crate) fn make_dirs(mount: &str, inner: &str) -> Result<u32, Error> {
    if inner.is_empty() {
        return Ok(0);
    }
    let path = join(mount, inner);
    let parent = inner.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut parents = 0;
    for _ in 0..RACES {
        match rustix::fs::mkdir(&path, FileMode::from_raw_mode(0o755)) {
            Ok(()) => return Ok(parents + 1),
            Err(Errno::EXIST) => return Ok(0),
            Err(Errno::NOENT) if !parent.is_empty() => parents = make_dirs(mount, parent)?,
            Err(errno) => return Err(Error::Call { call: "mkdir", path, errno }),
        }
    }
    Err(Error::Call { call: "mkdir", path, errno: Errno::NOENT })
}

/// As [`make_dirs`], with every controller of the mount handed down to the new directory: limits
/// may come later by update, and engines read the statistics of all.
fn make_unified(layout: &Layout, limits: &[FileWrite]) -> Result<u32, Error> {
    let (mount, inner) = (layout.mount.as_str(), layout.inner.as_str());
    let Some((parent, _)) = inner.rsplit_once('/').or_else(|| (!inner.is_empty()).then_some(("", inner)))
    else {
        return Ok(0);
    };
    let read = |path: &str, file: &str| dir::read(CWD, &join(path, file));
    let available = read(mount, "cgroup.controllers").map_err(|errno| Error::Call {
        call: "read",
        path: join(mount, "cgroup.controllers"),
        errno,
    })?;
    // What the parent hands down it was handed itself, so one look covers all levels.
    let handed = read(&join(mount, parent), "cgroup.subtree_control").unwrap_or_default();
    let mut parents = 0;
    let all_handed = covers(&handed, &available);
    // Below a threaded cgroup no controller of domains is handed down.
    let maybe_threaded = !all_handed || available.split_whitespace().all(|c| THREADED.contains(&c));
    if !all_handed {
        let mut level = String::new();
        hand_down(mount, &available);
        for name in parent.split('/').filter(|n| !n.is_empty()) {
            level = join(&level, name);
            let made = make_dirs(mount, &level)?;
            parents = if made == 0 { 0 } else { parents + made };
            hand_down(&join(mount, &level), &available);
        }
    }
    let made = match make_dirs(mount, inner)? {
        // Only this level: the parents counted above were made by this call too.
        1 => parents + 1,
        made => made,
    };
    if maybe_threaded {
        if let Err(error) = make_usable(&join(mount, inner), limits) {
            let path = join(mount, inner);
            let dir = CgroupDir::new(DirRecord { controllers: Vec::new(), path, made });
            return Err(match dir.discard() {
                Ok(()) => error,
                Err(also) => Error::Several(vec![error, also]),
            });
        }
    }
    Ok(made)
}

/// Controllers that work for threads; the others are for whole domains (cgroups(7), "Thread mode").
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// A cgroup below a threaded one takes processes once it is threaded itself, and no limit of a domain
/// controller. Where the type cannot be read there are no threaded cgroups: the root, Linux 4.13.
fn make_usable(path: &str, limits: &[FileWrite]) -> Result<(), Error> {
    const FILE: &str = "cgroup.type";
    let Ok(found) = dir::read(CWD, &join(path, FILE)) else { return Ok(()) };
    let found = found.trim();
    if found == "domain" {
        return Ok(());
    }
    let is_domain = |w: &&FileWrite| w.controller != "cgroup" && !THREADED.contains(&w.controller.as_ref());
    if let Some(limit) = limits.iter().find(is_domain) {
        return Err(Error::Threaded {
            at: limit.at.clone().into_owned(),
            path: path.to_owned(),
            found: found.to_owned(),
        });
    }
    match found {
        "domain invalid" => dir::write(CWD, &join(path, FILE), "threaded").map_err(|errno| Error::Call {
            call: "write",
            path: join(path, FILE),
            errno,
        }),
        _ => Ok(()),
    }
}

fn covers(handed: &str, available: &str) -> bool {
    available.split_whitespace().all(|c| handed.split_whitespace().any(|h| h == c))
}

/// Turns controllers on in cgroup.subtree_control: all at once, else each that can be. One that
/// cannot be (a parent with processes, no delegation) is missed, with its name, by the limit that
/// needs it.
pub(crate) fn hand_down(path: &str, controllers: &str) {
    const FILE: &str = "cgroup.subtree_control";
    let Ok(fd) = dir::open_write(CWD, &join(path, FILE)) else { return };
    let all: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
    if all.is_empty() || dir::write_all(&fd, &all.join(" ")).is_ok() {
        return;
    }
    for one in &all {
        // Refused ones are reported by the limit, see above.
        dir::write_all(&fd, one).ok();
    }
}

/// A new v1 cpuset has no CPUs and no memory nodes and takes no task (ENOSPC): it inherits from
/// its parent, as the kernel does only under `cgroup.clone_children`. A list that the
/// configuration sets is not inherited first, which `cpuset.cpu_exclusive` might refuse.
fn fill_cpuset(dir: &CgroupDir, layout: &Layout, limits: &[FileWrite]) -> Result<(), Error> {
    let fd = dir.fd()?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = format!("../{file}");
        let parent = layout.inner.rsplit_once('/').map_or("", |(parent, _)| parent);
        let mut inherited = dir::read(fd, &above).map_err(|errno| dir.error("read", &above, errno))?;
        if inherited.trim().is_empty() && !parent.is_empty() {
            inherited = fill_parents(&layout.mount, parent, file)?;
        }
        let configured = limits.iter().any(|w| w.controller == "cpuset" && w.file == file);
        let filled = || dir.read(file).is_ok_and(|now| !now.trim().is_empty());
        if configured || (dir.record.made == 0 && filled()) {
            continue;
        }
        dir.write(file, inherited.trim())?;
    }
    Ok(())
}

/// Value of `file` in `inner`, taken from the nearest ancestor that has one and written on the way.
fn fill_parents(mount: &str, inner: &str, file: &str) -> Result<String, Error> {
    let path = join(mount, inner);
    let error = |call, errno| Error::Call { call, path: join(&path, file), errno };
    let fd = dir::open(&path).map_err(|errno| error("open", errno))?;
    let value = dir::read(&fd, file).map_err(|errno| error("read", errno))?;
    if inner.is_empty() || !value.trim().is_empty() {
        return Ok(value);
    }
    let parent = inner.rsplit_once('/').map_or("", |(parent, _)| parent);
    let value = fill_parents(mount, parent, file)?;
    dir::write(&fd, file, value.trim()).map_err(|errno| error("write", errno))?;
    Ok(value)
}
