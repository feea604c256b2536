//! An image's configuration and what the user asked for, to a runtime's `config.json` (image-spec
//! conversion.md, runtime-spec config.md).
//!
//! Pure: it takes texts and gives a value. What stands in the image is taken over verbatim; what neither the
//! image nor the user says is as Docker has it.

mod capabilities;
mod mounts;
mod seccomp;
mod seccomp_profile;
mod seccomp_table;
mod users;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::config::ImageConfig;
use capabilities::Start;
use seccomp_profile::Facts;
pub use users::{Databases, Missing, User};

/// Why there is no config.json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Neither the image nor the user names a command.
    NoCommand,
    /// The image has no such user or group.
    NoUser {
        /// Which of the two.
        kind: Missing,
        /// Its name.
        name: String,
    },
    /// No capability has this name.
    NoCapability(String),
    /// An environment variable without a value.
    NoValue(String),
    /// A mount's destination is not absolute.
    RelativeMount(String),
    /// What is wrong with the user's seccomp profile.
    Seccomp(String),
    /// An id that the user namespace does not have.
    NotMapped(User),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoCommand => f.write_str("the image has no command; name one after the image"),
            Error::NoUser { kind, name } => write!(f, "the image has no {kind} {name:?}"),
            Error::NoCapability(name) => write!(f, "{name:?} is not a capability"),
            Error::NoValue(name) => write!(f, "{name:?} is not NAME=value"),
            Error::Seccomp(why) => write!(f, "the seccomp profile: {why}"),
            Error::NotMapped(user) => write!(
                f,
                "user {}:{} is not in your user namespace; ranges in /etc/subuid and /etc/subgid give you more ids",
                user.uid, user.gid
            ),
            Error::RelativeMount(path) => write!(f, "mount destination {path:?} is not absolute"),
        }
    }
}

impl std::error::Error for Error {}

/// The network that a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own, with nothing in it but what others put there.
    #[default]
    Own,
    /// The machine's.
    Host,
    /// That of a namespace file.
    Path(String),
    /// That of a namespace file, made for this container alone.
    Made(String),
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A profile of the user's, with or without the conditions of Docker's format.
    Profile {
        /// The profile.
        profile: Value,
        /// The kernel that the conditions are about, the first two numbers of its version.
        kernel: (u32, u32),
    },
}

/// One range of an id map: container, host, size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    fn has(&self, id: u32) -> bool {
        id.checked_sub(self.container).is_some_and(|offset| offset < self.size)
    }
}

/// The maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMaps {
    fn maps_uid(&self, uid: u32) -> bool {
        self.uids.iter().any(|range| range.has(uid))
    }

    /// The last of the groups that are mapped without a gap, from 0 on.
    fn last_gid(&self) -> u32 {
        let mut ranges = self.gids.clone();
        ranges.sort_by_key(|range| range.container);
        let next = ranges.iter().fold(0u32, |next, range| {
            if range.container == next { next.saturating_add(range.size) } else { next }
        });
        next.saturating_sub(1)
    }

    fn maps_gid(&self, gid: u32) -> bool {
        self.gids.iter().any(|range| range.has(gid))
    }
}

/// A mount that the user asked for, as runtime-spec has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// File system type; `bind` for bind mounts.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// mount(8)'s words.
    pub options: Vec<String>,
}

/// What the user asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// What stands after the image; replaces its Cmd.
    pub args: Vec<String>,
    /// Replaces the image's entrypoint, and clears its Cmd.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`; each replaces the image's of that name.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// User, in any of the image's forms.
    pub user: Option<String>,
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// Host name.
    pub hostname: Option<String>,
    /// Whether the root is read-only.
    pub read_only: bool,
    /// All capabilities and devices, nothing masked, no filter. `devices` is not filled in by it.
    pub privileged: bool,
    /// Capabilities beyond the default ones.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default ones.
    pub cap_drop: Vec<String>,
    /// More mounts, after the standard ones. One at the place of a standard one replaces it.
    pub mounts: Vec<Mount>,
    /// More `linux.devices`, as runtime-spec has them.
    pub devices: Vec<Value>,
    /// Memory limit in bytes; swap may hold as much again.
    pub memory: Option<i64>,
    /// Thousandths of a CPU.
    pub millicpus: Option<u64>,
    /// Most processes.
    pub pids_limit: Option<i64>,
    /// Network.
    pub network: Network,
    /// Annotations, over the image's.
    pub annotations: BTreeMap<String, String>,
    /// System calls.
    pub seccomp: Seccomp,
    /// Whether execve(2) may give no new privileges.
    pub no_new_privileges: bool,
    /// Whether nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// AppArmor profile, which the machine has.
    pub apparmor: Option<String>,
    /// Maps of the user namespace that the runtime is in, if it is not the first one.
    pub within: Option<IdMaps>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
}

/// The PATH that Docker gives to processes of images without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Period of a CPU quota in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Makes config.json. `root` is the path of the root file system, absolute or below the bundle.
pub fn runtime_config(image: &ImageConfig, run: &Run, users: &Databases, root: &str) -> Result<Value, Error> {
    let mut user = users.resolve(run.user.as_deref().unwrap_or(&image.config.user))?;
    if let Some(maps) = &run.within {
        if !maps.maps_uid(user.uid) || !maps.maps_gid(user.gid) {
            return Err(Error::NotMapped(user));
        }
        user.additional_gids.retain(|gid| maps.maps_gid(*gid));
    }
    let start = if run.privileged { Start::All } else { Start::Default };
    let capabilities = capabilities::capabilities(start, &run.cap_add, &run.cap_drop)?;
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": root, "readonly": run.read_only},
        "process": process(image, run, &user, &capabilities)?,
        "mounts": all_mounts(run)?,
        "annotations": annotations(image, run),
        "linux": linux(image, run, &capabilities)?,
    });
    if let Some(hostname) = &run.hostname {
        config["hostname"] = json!(hostname);
    }
    Ok(config)
}

fn process(image: &ImageConfig, run: &Run, user: &User, capabilities: &[&str]) -> Result<Value, Error> {
    // As in Docker: another entrypoint clears the image's Cmd, which was meant for its own.
    let (entrypoint, cmd) = match &run.entrypoint {
        Some(entrypoint) => (entrypoint, &[][..]),
        None => (&image.config.entrypoint, image.config.cmd.as_slice()),
    };
    let cmd = if run.args.is_empty() { cmd } else { &run.args };
    let args: Vec<&String> = entrypoint.iter().chain(cmd).collect();
    if args.first().is_none_or(|first| first.is_empty()) {
        return Err(Error::NoCommand);
    }
    let cwd = run.cwd.as_deref().unwrap_or(&image.config.working_dir);
    let cwd = if cwd.starts_with('/') { cwd.to_string() } else { format!("/{cwd}") };
    // Only root has effective ones: execve(2) by anybody else clears them anyway.
    let held = if user.uid == 0 { capabilities } else { &[] };
    let mut process = json!({
        "terminal": run.terminal,
        "user": {"uid": user.uid, "gid": user.gid},
        "args": args,
        "env": env(image, run, user)?,
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities, "effective": held, "permitted": held, "inheritable": [], "ambient": []
        },
        "noNewPrivileges": run.no_new_privileges,
    });
    if let Some(profile) = &run.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if !user.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(user.additional_gids);
    }
    Ok(process)
}

/// The image's variables as they are, the user's in their place or behind them, and what Docker adds where
/// neither has it.
fn env(image: &ImageConfig, run: &Run, user: &User) -> Result<Vec<String>, Error> {
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let mut env = image.config.env.clone();
    for variable in &run.env {
        if variable.find('=').is_none_or(|at| at == 0) {
            return Err(Error::NoValue(variable.clone()));
        }
        match env.iter_mut().find(|known| name(known) == name(variable)) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    let mut defaults = vec![("PATH", DEFAULT_PATH)];
    if run.terminal {
        defaults.push(("TERM", "xterm"));
    }
    if let Some(hostname) = &run.hostname {
        defaults.push(("HOSTNAME", hostname));
    }
    defaults.push(("HOME", user.home.as_deref().unwrap_or("/")));
    for (key, value) in defaults {
        if !env.iter().any(|known| name(known) == key) {
            env.push(format!("{key}={value}"));
        }
    }
    Ok(env)
}

/// The volumes of an image that want a directory each: those that nothing else is mounted at. What is below /proc,
/// /sys and /dev is the kernel's; images made for systemd name /sys/fs/cgroup.
pub fn volumes(image: &ImageConfig, run: &Run) -> Vec<String> {
    let is_taken = |path: &str| {
        let kernels = matches!(path.split('/').nth(1), Some("proc" | "sys" | "dev"));
        kernels || run.mounts.iter().any(|mount| mount.destination.trim_end_matches('/') == path)
    };
    image.config.volume_paths().into_iter().filter(|path| !is_taken(path)).collect()
}

/// A mount of the user's at a standard place takes that place; the others follow, the shorter paths first.
fn all_mounts(run: &Run) -> Result<Vec<Value>, Error> {
    let mut own: Vec<Mount> = run.mounts.clone();
    if let Some(relative) = own.iter().find(|mount| !mount.destination.starts_with('/')) {
        return Err(Error::RelativeMount(relative.destination.clone()));
    }
    own.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    let mut mounts = mounts::standard(run);
    // A /dev of the user's is meant with what is in it, as Docker takes it.
    let dev = own.iter().any(|other| other.destination.trim_end_matches('/') == "/dev");
    mounts.retain(|mount| {
        let at = mount["destination"].as_str().unwrap_or_default();
        let replaced = own.iter().any(|other| at == other.destination.trim_end_matches('/'));
        !(replaced || dev && at.starts_with("/dev/"))
    });
    mounts.extend(own.iter().map(|mount| {
        json!({
            "destination": mount.destination,
            "type": mount.kind,
            "source": mount.source,
            "options": mount.options,
        })
    }));
    Ok(mounts)
}

/// What conversion.md lifts, then labels, which win, then the user's.
fn annotations(image: &ImageConfig, run: &Run) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let config = &image.config;
    let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
    let lifted = [
        ("os", Some(image.os.clone())),
        ("architecture", Some(image.architecture.clone())),
        ("variant", image.variant.clone()),
        ("os.version", image.os_version.clone()),
        ("os.features", Some(image.os_features.join(","))),
        ("author", image.author.clone()),
        ("created", image.created.clone()),
        ("stopSignal", config.stop_signal.clone()),
        ("exposedPorts", Some(ports.join(","))),
    ];
    for (key, value) in lifted {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.insert(format!("org.opencontainers.image.{key}"), value);
        }
    }
    found.extend(config.labels.clone());
    found.extend(run.annotations.clone());
    found
}

fn linux(image: &ImageConfig, run: &Run, capabilities: &[&str]) -> Result<Value, Error> {
    let mut namespaces: Vec<Value> =
        ["mount", "uts", "ipc", "pid", "cgroup"].map(|kind| json!({"type": kind})).to_vec();
    match &run.network {
        Network::Own => namespaces.push(json!({"type": "network"})),
        Network::Path(path) | Network::Made(path) => {
            namespaces.push(json!({"type": "network", "path": path}))
        }
        Network::Host => {}
    }
    let mut linux = json!({ "resources": resources(run) });
    if matches!(run.network, Network::Own | Network::Made(_)) {
        // As in Docker: low ports and ping need no capability inside.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            // The kernel takes only groups that are mapped.
            "net.ipv4.ping_group_range": format!("0 {}", run.within.as_ref().map_or(i32::MAX as u32, IdMaps::last_gid)),
        });
    }
    linux["namespaces"] = json!(namespaces);
    if !run.devices.is_empty() {
        linux["devices"] = json!(run.devices);
    }
    if let Some(path) = &run.cgroups_path {
        linux["cgroupsPath"] = json!(path);
    }
    if !run.privileged && !run.unmasked {
        linux["maskedPaths"] = json!(mounts::MASKED);
        linux["readonlyPaths"] = json!(mounts::READ_ONLY);
    }
    let architecture = image.platform().architecture;
    match &run.seccomp {
        Seccomp::Default if !run.privileged => {
            linux["seccomp"] = seccomp::default_profile(capabilities, &architecture);
        }
        Seccomp::Profile { profile, kernel } => {
            let facts = Facts { capabilities, architecture: &architecture, kernel: *kernel };
            linux["seccomp"] = seccomp_profile::resolve(profile, facts).map_err(Error::Seccomp)?;
        }
        Seccomp::Default | Seccomp::Unconfined => {}
    }
    Ok(linux)
}

fn resources(run: &Run) -> Value {
    let mut resources = json!({});
    // A user namespace cannot load device rules; what it can open, the kernel decides.
    if run.within.is_none() {
        resources["devices"] = json!(mounts::device_rules(run));
    }
    if let Some(limit) = run.memory {
        resources["memory"] = json!({"limit": limit, "swap": limit.saturating_mul(2)});
    }
    if let Some(millicpus) = run.millicpus {
        let quota = millicpus.saturating_mul(CPU_PERIOD) / 1000;
        resources["cpu"] = json!({"quota": quota, "period": CPU_PERIOD});
    }
    if let Some(limit) = run.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
    resources
}

#[cfg(test)]
#[path = "runtime_config/tests.rs"]
mod tests;
