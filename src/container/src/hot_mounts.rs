//! `mounts add` and `mounts remove`: bind mounts and tmpfs of a running container.
//!
//! Under the lock. What was added is noted in the state directory with the kernel's number for it: only that
//! is removed again, so that a container which moves its directories about cannot make creel take away a
//! mask or a read-only path instead.

use std::os::fd::AsFd;
use std::path::Path;

use creel_jail::hot::{MountId, Target, add_mounts, remove_mounts};
use creel_plan::facts::Request;
use creel_plan::names::NamespaceKind;
use creel_plan::steps::{MountSource, Plan};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::create::{host_facts, in_file, read_text};
use crate::state::{Container, Init};
use crate::store::StateDir;
use crate::{Error, Runtime};

/// What was added, in the state directory.
const ADDED: &str = "mounts.json";
/// More at once is a mistake; their numbers go through a pipe.
const MOST: usize = 1000;

/// A mount that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// `.destination`, cleaned.
    pub destination: String,
    /// Bound from the host.
    pub bind: bool,
    id: u64,
    unique: u64,
}

impl Added {
    fn mount_id(&self) -> MountId {
        MountId { id: self.id, unique: self.unique }
    }
}

/// `mounts add`: all mounts of the file, or none.
pub fn add(runtime: &Runtime, id: &str, file: &Path) -> Result<(), Error> {
    let _protection = crate::protect::protect_own_binary()?;
    let (container, init) = open(runtime, id)?;
    let mut plan = plan(&container, file)?;
    let pidfd = pidfd(init)?;
    let ids = add_mounts(target(&container, &pidfd), &mut plan)?;
    let mut added = added(&container.dir)?;
    added.extend(plan.init.mounts.iter().zip(ids).map(|(step, id)| Added {
        destination: step.destination.clone(),
        bind: matches!(step.source, MountSource::Bind { .. }),
        id: id.id,
        unique: id.unique,
    }));
    note(&container.dir, &added)
}

/// `mounts remove`: the mounts of the file, by their destinations.
pub fn remove(runtime: &Runtime, id: &str, file: &Path) -> Result<(), Error> {
    let _protection = crate::protect::protect_own_binary()?;
    let (container, init) = open(runtime, id)?;
    let plan = plan(&container, file)?;
    let mut left = added(&container.dir)?;
    let pidfd = pidfd(init)?;
    let mut gone = Vec::new();
    for step in &plan.init.mounts {
        // The last one of a destination lies on top.
        let found = left.iter().rposition(|added| added.destination == step.destination);
        let Some(found) = found else {
            let why = format!("nothing was added at {:?} by `mounts add`", step.destination);
            return Err(creel_plan::Invalid::new(step.at.clone(), why).into());
        };
        gone.push(left.remove(found).mount_id());
    }
    if !gone.is_empty() {
        remove_mounts(target(&container, &pidfd), &gone)?;
    }
    note(&container.dir, &left)
}

/// What was added to a container and not removed by creel.
pub fn added(dir: &StateDir) -> Result<Vec<Added>, Error> {
    match dir.read(ADDED) {
        Ok(text) => serde_json::from_slice(&text).map_err(corrupt(dir)),
        Err(Error::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn note(dir: &StateDir, added: &[Added]) -> Result<(), Error> {
    dir.write(ADDED, &serde_json::to_vec(added).map_err(corrupt(dir))?)
}

fn corrupt(dir: &StateDir) -> impl Fn(serde_json::Error) -> Error {
    let path = dir.file(ADDED);
    move |e| Error::Corrupt { path: path.clone(), why: e.to_string() }
}

fn open(runtime: &Runtime, id: &str) -> Result<(Container, Init), Error> {
    let container = Container::open(runtime, id)?;
    container.dir.lock()?;
    let init = container.living_init().ok_or(Error::Status("container not running"))?;
    if container.state.namespaces & NamespaceKind::Mount.clone_flag() == 0 {
        return Err(Error::Status("the container has no mount namespace of its own"));
    }
    Ok((container, init))
}

/// Init, which is the container's still.
fn pidfd(init: Init) -> Result<std::os::fd::OwnedFd, Error> {
    let pidfd = creel_jail::join::open_init(init.pid)?;
    if init.is_alive() { Ok(pidfd) } else { Err(Error::Status("container not running")) }
}

fn target<'a>(container: &Container, init: &'a std::os::fd::OwnedFd) -> Target<'a> {
    Target { init: init.as_fd(), namespaces: container.state.namespaces }
}

/// The mounts of a file as the container's config would have them: with its user namespace, its bundle and
/// the same checks.
fn plan(container: &Container, file: &Path) -> Result<Plan, Error> {
    let not_json = |path: &Path| {
        let path = path.to_path_buf();
        move |e: serde_json::Error| Error::Corrupt { path: path.clone(), why: e.to_string() }
    };
    let mounts: Value = serde_json::from_str(&read_text(file)?).map_err(not_json(file))?;
    match mounts.as_array() {
        Some(mounts) if mounts.len() <= MOST => {}
        Some(_) => return Err(corrupt_file(file, format!("more than {MOST} mounts at once"))),
        None => return Err(corrupt_file(file, "mounts must be an array".into())),
    }
    let path = container.state.bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&read_text(&path)?).map_err(not_json(&path))?;
    match config.as_object_mut() {
        Some(config) => config.insert("mounts".into(), mounts),
        None => return Err(corrupt_file(&path, "config.json must be an object".into())),
    };
    let spec = creel_plan::parse::parse(&config.to_string()).map_err(|e| in_file(e, file))?;
    let request = Request {
        id: container.state.id.clone(),
        bundle: container.state.bundle.to_string_lossy().into_owned(),
        ..Request::default()
    };
    let plan = creel_plan::plan(&spec, &request, &host_facts(&spec))?.plan;
    check(&plan)?;
    Ok(plan)
}

fn corrupt_file(path: &Path, why: String) -> Error {
    Error::Corrupt { path: path.to_path_buf(), why }
}

/// Other file systems take a device, or show a namespace, that would be looked up in the container.
fn check(plan: &Plan) -> Result<(), Error> {
    let at = |at: &str, why| Err(creel_plan::Invalid::new(at, why).into());
    for step in &plan.init.mounts {
        match &step.source {
            MountSource::Bind { inside: Some(_), .. } => {
                return at(&step.at, "what lies below the container's own root cannot be added to it");
            }
            MountSource::Bind { .. } => {}
            MountSource::FileSystem { fstype, .. } if fstype != "tmpfs" => {
                return at(&step.at, "only bind mounts and tmpfs can be added to a running container");
            }
            MountSource::FileSystem { copy_up: true, .. } => {
                return at(&step.at, "tmpcopyup cannot be had in a running container");
            }
            MountSource::FileSystem { .. } => {}
            MountSource::Cgroup { .. } | MountSource::Remount { .. } => {
                return at(&step.at, "only bind mounts and tmpfs can be added to a running container");
            }
        }
    }
    Ok(())
}
