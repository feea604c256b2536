//! What is kept of a container, and its status, which is derived and never stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use creel_cgroup::{Cgroup, CgroupRecord};
use creel_jail::{HookOutput, HookState};
use creel_plan::spec::{MemoryPolicy, Personality};
use creel_plan::steps::HookStep;
use serde::{Deserialize, Serialize};

use crate::resctrl;
use crate::store::{INIT, STATE, StateDir, check_id};
use crate::{Error, Runtime, StateView, Status};

/// state.json: written once, before init is born.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// ociVersion of the bundle.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root file system, absolute.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// `.annotations`
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// uid that made the container.
    pub owner_uid: u32,
    /// The cgroup.
    pub cgroup: CgroupRecord,
    /// Groups of the resctrl file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// CLONE_NEW* of the namespaces that the container has of its own.
    pub namespaces: u64,
    /// The pid namespace is new: its end is the end of every process in it.
    pub own_pid_namespace: bool,
    /// What the standard streams of creel are, which init gets: for checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
    /// What exec must know.
    pub exec: ExecFacts,
    /// poststart hooks.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// poststop hooks.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

/// What `exec` needs of the container's config.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFacts {
    /// Session keyring.
    pub keyring: Option<String>,
    /// `run.oci.keep_original_groups`
    #[serde(default)]
    pub keep_groups: bool,
    /// setgroups(2) is denied in the user namespace.
    pub setgroups_denied: bool,
    /// Limits are set from outside.
    pub limits_by_host: bool,
    /// umask(2) of the container's process.
    pub umask: u32,
    /// A filter is in seccomp.bpf.
    pub has_seccomp: bool,
    /// `.linux.seccomp.listenerPath`
    pub listener_path: String,
    /// `.linux.seccomp.listenerMetadata`
    pub listener_metadata: String,
    /// `.linux.memoryPolicy`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// `.linux.personality`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// `.linux.resources.cpu.cpus` is given.
    #[serde(default)]
    pub limited_cpus: bool,
    /// The container's own process has attributes that an exec takes over where it names none.
    #[serde(default)]
    pub inherits: bool,
}

/// A hook with its place in config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hook {
    /// `.hooks.poststop[0]`
    pub at: String,
    /// The hook.
    pub hook: creel_plan::spec::Hook,
}

impl From<&HookStep> for Hook {
    fn from(step: &HookStep) -> Self {
        Hook { at: step.at.clone(), hook: step.hook.clone() }
    }
}

impl From<&Hook> for HookStep {
    fn from(hook: &Hook) -> Self {
        HookStep { at: hook.at.clone(), hook: hook.hook.clone() }
    }
}

/// Init as the host knows it. The start time tells it from another process with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// Pid in the host's pid namespace.
    pub pid: i32,
    /// starttime of proc_pid_stat(5), clock ticks since boot.
    pub start_time: u64,
}

impl Init {
    /// Looks up the start time of a process that is known to live.
    pub fn of(pid: i32) -> Option<Init> {
        let (_, start_time) = process_stat(pid)?;
        Some(Init { pid, start_time })
    }

    /// Whether that very process still runs.
    pub fn is_alive(&self) -> bool {
        matches!(process_stat(self.pid), Some((state, start)) if start == self.start_time && !"ZXx".contains(state))
    }
}

/// State letter and start time of /proc/PID/stat.
fn process_stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&crate::store::read_proc(&format!("/proc/{pid}/stat")).ok()?)
}

/// The command name, in parentheses, may hold anything; the fields count from after the last one.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

/// A container that some command works on.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub dir: StateDir,
    /// Its state.
    pub state: State,
    /// Init, once it was born.
    pub init: Option<Init>,
}

impl Container {
    /// Opens a container; one that is still being made does not exist yet.
    pub fn open(runtime: &Runtime, id: &str) -> Result<Container, Error> {
        let container = Container::open_any(runtime, id)?;
        if container.init.is_none() { Err(Error::NotFound) } else { Ok(container) }
    }

    /// Opens a container in any stage of its making that has a state.json.
    pub fn open_any(runtime: &Runtime, id: &str) -> Result<Container, Error> {
        Container::load(StateDir::open(&runtime.root, id)?)
    }

    /// Reads the files of an opened directory.
    pub fn load(dir: StateDir) -> Result<Container, Error> {
        let text = dir.read(STATE)?;
        let state = serde_json::from_slice(&text)
            .map_err(|e| Error::Corrupt { path: dir.file(STATE), why: e.to_string() })?;
        let init = match dir.noted(INIT) {
            Ok(text) => Some(parse_init(&text).ok_or_else(|| Error::Corrupt {
                path: dir.file(INIT),
                why: "not a pid and a start time".into(),
            })?),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        Ok(Container { dir, state, init })
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::from_record(&self.state.cgroup)
    }

    /// Init, if it lives.
    pub fn living_init(&self) -> Option<Init> {
        self.init.filter(Init::is_alive)
    }

    /// The status at this moment.
    pub fn status(&self) -> Result<Status, Error> {
        if self.living_init().is_none() {
            return Ok(Status::Stopped);
        }
        if self.cgroup().is_frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.is_waiting() { Status::Created } else { Status::Running })
    }

    /// Whether init waits for `start`.
    pub fn is_waiting(&self) -> bool {
        self.dir.is_waited_at()
    }

    /// What hooks are told.
    pub fn hook_state(&self) -> HookState {
        hook_state(&self.state, self.init.map_or(0, |init| init.pid))
    }

    fn view(&self) -> Result<StateView, Error> {
        let status = self.status()?;
        let pid = if status == Status::Stopped { 0 } else { self.init.map_or(0, |init| init.pid) };
        Ok(StateView {
            oci_version: self.state.oci_version.clone(),
            id: self.state.id.clone(),
            pid,
            status,
            bundle: self.state.bundle.clone(),
            rootfs: self.state.rootfs.clone(),
            created: self.state.created.clone(),
            annotations: self.state.annotations.clone(),
            owner_uid: self.state.owner_uid,
        })
    }
}

/// What the standard streams of a process are, `self` or a pid: the targets of its links in /proc.
pub fn stdio_of(process: &str) -> Vec<String> {
    let link = |n: i32| {
        let link = rustix::fs::readlink(format!("/proc/{process}/fd/{n}"), Vec::with_capacity(64));
        link.map_or_else(|_| String::new(), |target| target.to_string_lossy().into_owned())
    };
    [0, 1, 2].map(link).to_vec()
}

/// What hooks of a container with this state are told.
pub fn hook_state(state: &State, pid: i32) -> HookState {
    let file = |name: Option<&str>| name.map(|path| state.bundle.join(path));
    // They were read before there was a state.
    let asked = creel_plan::annotations::read(&state.annotations).unwrap_or_default();
    HookState {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        bundle: state.bundle.clone(),
        rootfs: state.rootfs.clone(),
        annotations: state.annotations.clone(),
        pid,
        default_env: Vec::new(),
        output: HookOutput::to_files(file(asked.hooks_stdout), file(asked.hooks_stderr)),
    }
}

/// `PID STARTTIME`
pub fn format_init(init: Init) -> String {
    format!("{} {}", init.pid, init.start_time)
}

fn parse_init(text: &[u8]) -> Option<Init> {
    let text = std::str::from_utf8(text).ok()?;
    let (pid, start) = text.trim_end().split_once(' ')?;
    Some(Init { pid: pid.parse().ok()?, start_time: start.parse().ok()? })
}

/// `state`
pub fn state(runtime: &Runtime, id: &str) -> Result<StateView, Error> {
    Container::open(runtime, id)?.view()
}

/// `list`: every container of the root, by id. One that cannot be read, or goes away meanwhile, is
/// left out.
pub fn list(runtime: &Runtime) -> Result<Vec<StateView>, Error> {
    let mut views = Vec::new();
    for id in ids(runtime)? {
        match Container::open(runtime, &id).and_then(|c| c.view()) {
            Ok(view) => views.push(view),
            Err(Error::NotFound) => {}
            Err(error) => tracing::warn!("load container {id}: {error}"),
        }
    }
    Ok(views)
}

/// Ids in use below the root, in order, those of half-made containers too.
pub fn ids(runtime: &Runtime) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(&runtime.root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("open", &runtime.root))?,
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let mut ids: Vec<String> = entries.flatten().filter_map(name).filter(|id| check_id(id).is_ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) S 1) R 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 5";
        assert_eq!(parse_stat(text), Some(('R', 987_654)));
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn this_process_lives_and_a_recycled_pid_does_not() {
        let own = Init::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!Init { start_time: own.start_time + 1, ..own }.is_alive());
    }

    #[test]
    fn init_file_round_trips() {
        let init = Init { pid: 7, start_time: 99 };
        assert_eq!(parse_init(format_init(init).as_bytes()), Some(init));
        assert_eq!(parse_init(b"7"), None);
    }
}
