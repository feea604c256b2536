//! Where the container's cgroup lies, who makes it, and what is written into it.

use std::path::{Path, PathBuf};

use creel_cgroup::systemd::{self, Instance, Property, Systemd};
use creel_cgroup::{
    Cgroup, CgroupPath, CgroupRecord, CreateOptions, DirRecord, FileWrite, Host, Mode, Mount, Owner, devices,
    plan_writes,
};
use creel_jail::{CgroupView, Failed, V1Hierarchy};
use creel_plan::facts::HostFacts;
use creel_plan::names::NamespaceKind;
use creel_plan::spec::{Resources, Spec};
use creel_plan::steps::Plan;

use crate::create::{Draft, namespaces};
use crate::store::{CGROUP, StateDir};
use crate::{CreateRequest, Error, Rootless, Runtime};

/// Name of a cgroup in the scope that is to hold the container; crun's annotation.
const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// Name of a cgroup below the container's that init is moved into and may do with as it likes; crun's
/// annotation.
pub const DELEGATED: &str = "run.oci.delegate-cgroup";

/// The decision about a container's cgroup.
pub struct Placement {
    /// The hierarchies of the machine.
    pub host: Host,
    /// Limits.
    pub writes: Vec<FileWrite>,
    /// Access to devices.
    pub rules: Vec<devices::Rule>,
    path: CgroupPath,
    properties: Vec<Property>,
    rootless: bool,
    /// `--cgroup-manager disabled`
    none: bool,
}

impl Placement {
    /// Decides; nothing is made.
    pub fn plan(runtime: &Runtime, request: &CreateRequest, draft: &Draft) -> Result<Placement, Error> {
        let host = Host::detect()?;
        let hierarchy = host.mode.hierarchy();
        let none = Resources::default();
        let resources = draft.resources().unwrap_or(&none);
        let mut writes = plan_writes(resources, hierarchy)?;
        let rules = devices::plan_rules(resources)?;
        let configured = draft.spec.linux.as_ref().map_or("", |l| l.cgroups_path.as_str());
        let mut properties = Vec::new();
        let path = if runtime.systemd_cgroup {
            let annotations = &draft.spec.annotations;
            properties = systemd::plan(&mut writes, &rules, hierarchy, annotations)?;
            let instance = instance(runtime, &draft.facts);
            if instance == Instance::User && host.mode != Mode::V2 {
                return Err(Error::Usage("cannot use rootless systemd cgroups manager on cgroup v1"));
            }
            let below = annotations.get(SUBGROUP).map_or("", String::as_str);
            CgroupPath::parse_scope(configured, &request.id, below, Systemd::find(instance)?)?
        } else {
            CgroupPath::parse(configured, &request.id)
        };
        let rootless = is_rootless(runtime, &draft.facts);
        Ok(Placement { host, writes, rules, path, properties, rootless, none: runtime.no_cgroup })
    }

    /// Makes the directories, after they were noted; none with `--cgroup-manager disabled`, where the
    /// container stays in the caller's.
    pub fn make(&self, dir: &StateDir) -> Result<Cgroup, Error> {
        let Placement { host, writes, path, properties, rootless, .. } = self;
        if self.none {
            if let Some(write) = writes.first() {
                let why = "a limit needs a cgroup, and --cgroup-manager disabled makes none";
                return Err(creel_plan::Invalid::new(write.at.as_ref(), why).into());
            }
            return Ok(Cgroup::from_record(&CgroupRecord {
                mode: host.mode,
                owner: Owner::Cgroupfs,
                rootless: true,
                dirs: Vec::new(),
                unit: None,
            }));
        }
        let intended = serde_json::to_vec(&Cgroup::intended(host, path)?)
            .map_err(|e| Error::Corrupt { path: dir.file(CGROUP), why: e.to_string() })?;
        dir.write_early(CGROUP, &intended)?;
        let options = CreateOptions { rootless: *rootless, limits: writes, properties };
        let made = Cgroup::create(host, path, options);
        if let Err(error @ creel_cgroup::Error::Call { .. }) = made {
            return Err(Error::NoCgroup(error));
        }
        Ok(made?)
    }
}

/// The host's user who may make cgroups in the container's: that of its process, when it has a cgroup
/// namespace and may write to the mount that shows it (config-linux.md, "Cgroup ownership").
pub fn owner(spec: &Spec, plan: &Plan) -> Option<u32> {
    let is_writable = |m: &creel_plan::spec::Mount| {
        let is_cgroup = m.r#type == "cgroup" || m.r#type == "cgroup2";
        let last = m.options.iter().rev().find(|option| *option == "ro" || *option == "rw");
        is_cgroup
            && m.destination.trim_end_matches('/') == "/sys/fs/cgroup"
            && last.is_none_or(|option| option == "rw")
    };
    let writable = plan.init.enter.cgroup_namespace && spec.mounts.iter().any(is_writable);
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    if writable { host_ids(spec, uid, 0).map(|(uid, _)| uid) } else { None }
}

/// Ids of the container as those of the host. `None` when the maps are not in the config or do not
/// have them.
pub fn host_ids(spec: &Spec, uid: u32, gid: u32) -> Option<(u32, u32)> {
    if namespaces(spec).all(|(kind, _)| kind != NamespaceKind::User) {
        return Some((uid, gid));
    }
    let linux = spec.linux.as_ref()?;
    let mapped = |maps: &[creel_plan::spec::IdMapping], id: u32| {
        maps.iter().find_map(|map| {
            let offset = id.checked_sub(map.container_id).filter(|offset| *offset < map.size)?;
            map.host_id.checked_add(offset)
        })
    };
    Some((mapped(&linux.uid_mappings, uid)?, mapped(&linux.gid_mappings, gid)?))
}

/// Whose systemd makes the cgroup: for a rootless container that of the user.
fn instance(runtime: &Runtime, facts: &HostFacts) -> Instance {
    let of_user = match runtime.rootless {
        Rootless::Yes => true,
        Rootless::No => false,
        Rootless::Auto => {
            facts.euid != 0 || (facts.in_user_namespace && systemd::Environment::own().has_session())
        }
    };
    if of_user { Instance::User } else { Instance::System }
}

/// Puts init where the kernel let nobody but systemd put it.
pub fn attach(cgroup: &Cgroup, dirs: &[DirRecord], pid: i32) -> Result<(), Failed> {
    let into = dirs.iter().find(|dir| dir.controllers.is_empty()).map_or("", |dir| dir.path.as_str());
    cgroup.attach_by_systemd(into, pid).map_err(|e| Failed::said(e.to_string()))
}

/// Whether cgroups that cannot be made are forgiven.
fn is_rootless(runtime: &Runtime, facts: &HostFacts) -> bool {
    match runtime.rootless {
        Rootless::Yes => true,
        Rootless::No => false,
        Rootless::Auto => facts.is_rootless() || facts.in_user_namespace,
    }
}

/// What a mount of type cgroup will show.
pub fn view(host: &Host, record: &CgroupRecord, plan: &Plan) -> Result<CgroupView, Error> {
    let namespaced = plan.init.enter.cgroup_namespace;
    if host.mode == Mode::V2 {
        // A rootless container without a cgroup is in that of its creator, and sees what that sees.
        let path = record.dirs.first().map_or("/sys/fs/cgroup", |dir| dir.path.as_str());
        return Ok(CgroupView::V2 { path: PathBuf::from(path), namespaced });
    }
    let made = |mount: &Mount| {
        let dir = record.dirs.iter().find(|dir| dir.controllers == mount.controllers)?;
        Some(PathBuf::from(&dir.path))
    };
    // Where it has no cgroup of its own (rootless, `--cgroup-manager disabled`) it stays in the caller's.
    let own =
        if host.v1.iter().all(|mount| made(mount).is_some()) { Vec::new() } else { host.own_layouts()? };
    let callers = |mount: &Mount| {
        let own = own.iter().find(|own| own.controllers == mount.controllers)?;
        Some(Path::new(&own.mount).join(&own.inner))
    };
    let hierarchies = host
        .v1
        .iter()
        .filter_map(|mount| {
            let name = mount.point.rsplit('/').next()?.to_string();
            let path = made(mount).or_else(|| callers(mount))?;
            Some(V1Hierarchy { name, parameters: v1_parameters(&mount.controllers), path })
        })
        .collect();
    Ok(CgroupView::V1 { hierarchies, namespaced })
}

/// Mount parameters of a v1 hierarchy; one without controllers needs `none` (cgroups(7)).
fn v1_parameters(controllers: &[String]) -> Vec<(String, Option<String>)> {
    let mut parameters = Vec::new();
    if controllers.iter().all(|c| c.starts_with("name=")) {
        parameters.push(("none".to_string(), None));
    }
    parameters.extend(controllers.iter().map(|c| match c.split_once('=') {
        Some((key, value)) => (key.to_string(), Some(value.to_string())),
        None => (c.clone(), None),
    }));
    parameters
}
