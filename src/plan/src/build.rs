//! Spec, request and facts become a [`Plan`].
//!
//! Every decision that depends on more than one field is made here, where a table can test it:
//! who sets limits, whether a stage is needed, when the filter loads, which mounts stay writable
//! for a while.

mod attributes;
mod devices;
mod labels;
mod mounts;
mod namespaces;
mod process;

pub use attributes::plan_affinity;
pub use process::{ProcessContext, plan_console, plan_process};

use crate::check::{Warning, check, check_rootless, sysctl_path};
use crate::facts::{HostFacts, Request};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::{Propagation, ms};
use crate::spec::{Hook, Linux, NetDevice, SeccompText, Spec};
use crate::steps::{
    Enter, Hide, HideStep, HookStep, HostPlan, InitHooks, InitPlan, Keyring, MapWriter, NetDeviceStep,
    OldGroups, Parameter, Plan, RootSwitch, Rootfs, Seal, StagePlan, StageUser, Sysctl,
};

/// A plan and what the user should hear about it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Oddities that do not stop the container.
    pub warnings: Vec<Warning>,
}

/// The decision: what every process does for this container.
pub fn plan(spec: &Spec, request: &Request, facts: &HostFacts) -> Result<Planned, Invalid> {
    let mut warnings = check(spec)?;
    if facts.is_rootless() {
        check_rootless(spec)?;
    }
    let extensions = crate::annotations::read(&spec.annotations)?;
    let groups = if extensions.keep_groups { OldGroups::Keep } else { OldGroups::Drop };
    let empty = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&empty);
    let mount_context = labels::mount_context(linux, &extensions, facts, &mut warnings);
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Invalid::new(".process", "process property must not be empty"))?;
    let root = spec.root.as_ref().ok_or_else(|| Invalid::new(".root", "root must be specified"))?;

    let mut joining = namespaces::split(linux)?;
    let user = joining.has(NamespaceKind::User);
    let mount = joining.has(NamespaceKind::Mount);
    let propagation = root_propagation(linux);
    check_root(request, propagation)?;
    let id_map = namespaces::id_map(linux, &joining, facts);
    // The initial user namespace's limits and devices are out of reach from inside another.
    let outside = user && !facts.is_rootless();
    let context = ProcessContext {
        has_seccomp: extensions.seccomp_bpf.is_some()
            || linux.seccomp.as_ref().is_some_and(SeccompText::is_enabled),
        keep_groups: extensions.keep_groups,
        setgroups_denied: facts.setgroups_denied
            || id_map.as_ref().is_some_and(|m| m.writer == MapWriter::SingleId)
            // Perhaps in one that is joined; where not, the caller's groups are gone by then.
            || (facts.is_rootless() && id_map.is_none() && process.user.additional_gids.is_empty()),
        preserve_fds: request.preserve_fds,
        env: &request.env,
        limits_by_host: outside,
        memory_policy: linux.memory_policy.as_ref(),
        personality: linux.personality.as_ref(),
        limited_cpus: limits_cpus(linux),
        security: facts.security,
    };
    let (process_plan, host_rlimits) = plan_process(process, &context)?;
    let steps = mounts::plan_mounts(spec, request, &joining, mount_context.as_ref())?;
    // Without a mount namespace they are the host's, and stay there, as with runc.
    let mounts_anything = mount || !steps.mounts.is_empty();
    let devices = devices::plan_devices(spec, user || facts.in_user_namespace)?;
    let hooks = spec.hooks.clone().unwrap_or_default();
    let create_runtime: Vec<HookStep> = hook_steps("prestart", &hooks.prestart)
        .chain(hook_steps("createRuntime", &hooks.create_runtime))
        .collect();
    let oom_score_adj = process.oom_score_adj.and_then(|score| i32::try_from(score).ok());
    let late_ipc = joining.is_new(NamespaceKind::User) && joining.is_new(NamespaceKind::Ipc);
    if late_ipc {
        joining.clone_flags &= !NamespaceKind::Ipc.clone_flag();
    }
    let stage = namespaces::stage(linux, &joining, groups, facts);
    let clone_flags = stage.as_ref().map_or(joining.clone_flags, StagePlan::own_flags);

    let init = InitPlan {
        enter: Enter {
            joins: if stage.is_some() { Vec::new() } else { joining.all_joins() },
            user_namespace: id_map.is_some() && stage.as_ref().is_none_or(|s| s.user != StageUser::New),
            groups,
            ipc_namespace: late_ipc,
            dumpable: facts.is_rootless() && joining.joins.is_empty(),
            cgroup_namespace: joining.is_new(NamespaceKind::Cgroup),
            keyring: (!request.no_new_keyring).then(|| Keyring {
                name: format!("_ses.{}", request.id),
                label: some(&process.selinux_label),
            }),
            loopback: joining.is_new(NamespaceKind::Network),
            wait_for_devices: !linux.net_devices.is_empty(),
            hostname: some(&spec.hostname),
            domainname: some(&spec.domainname),
        },
        rootfs: mounts_anything.then(|| Rootfs {
            path: join(&request.bundle, &root.path),
            propagation: if mount { init_propagation(propagation) } else { 0 },
        }),
        mounts: steps.mounts,
        devices: if mounts_anything { devices.nodes } else { Vec::new() },
        links: if mounts_anything { devices.links } else { Vec::new() },
        late_readonly: steps.late_readonly,
        sysctls: sysctls(linux)?,
        oom_score_adj: oom_score_adj.filter(|_| !outside),
        hooks: InitHooks {
            wait_for_host: !create_runtime.is_empty(),
            create_container: hook_steps("createContainer", &hooks.create_container).collect(),
        },
        root: match (mount, request.no_pivot) {
            (false, _) => RootSwitch::Chroot,
            (true, true) => RootSwitch::Move,
            (true, false) => RootSwitch::Pivot,
        },
        console: plan_console(process, mount),
        hide: if mount { hidden(linux, mount_context.as_ref()) } else { Vec::new() },
        seal: Seal {
            // Private is what the root is already.
            propagation: propagation.filter(|flags| mount && flags & ms::PRIVATE == 0),
            readonly: root.readonly && mount,
            umask: process.user.umask.unwrap_or(0o022),
        },
        process: process_plan,
        start_container: hook_steps("startContainer", &hooks.start_container).collect(),
    };
    let host = HostPlan {
        clone_flags,
        joins: joining.joins,
        id_map,
        open_sources: outside && mount,
        rlimits: host_rlimits,
        oom_score_adj: oom_score_adj.filter(|_| outside),
        net_devices: net_devices(linux),
        create_runtime,
        poststart: hook_steps("poststart", &hooks.poststart).collect(),
        poststop: hook_steps("poststop", &hooks.poststop).collect(),
    };
    Ok(Planned { plan: Plan { host, stage, init }, warnings })
}

/// Whether the container may use some CPUs only: SCHED_DEADLINE is refused then (sched_setattr(2)).
pub fn limits_cpus(linux: &Linux) -> bool {
    let cpu = linux.resources.as_ref().and_then(|r| r.cpu.as_ref());
    cpu.is_some_and(|cpu| !cpu.cpus.is_empty())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

/// A path of config.json, which is relative to the bundle.
pub(crate) fn join(bundle: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("{}/{path}", bundle.trim_end_matches('/')) }
}

/// What the root switch cannot do.
fn check_root(request: &Request, propagation: Option<u64>) -> Result<(), Invalid> {
    if request.no_pivot && propagation.is_some_and(|flags| flags & ms::PRIVATE != 0) {
        return Err(Invalid::new(".linux.rootfsPropagation", "[r]private is not possible with --no-pivot"));
    }
    Ok(())
}

/// `.linux.rootfsPropagation` in MS_* flags; the word was checked.
fn root_propagation(linux: &Linux) -> Option<u64> {
    Propagation::from_word(&linux.rootfs_propagation).map(Propagation::ms_flags)
}

/// What init's copy of the host's mounts becomes. What is unbindable could not be cloned any more; the
/// old tree goes away in any case.
fn init_propagation(root: Option<u64>) -> u64 {
    root.filter(|flags| flags & ms::UNBINDABLE == 0).unwrap_or(ms::SLAVE | ms::REC)
}

fn net_devices(linux: &Linux) -> Vec<NetDeviceStep> {
    let step = |(name, device): (&String, &NetDevice)| NetDeviceStep {
        at: crate::invalid::key_path(".linux.netDevices", name),
        name: name.clone(),
        new_name: some(&device.name).unwrap_or_else(|| name.clone()),
    };
    linux.net_devices.iter().map(step).collect()
}

fn hook_steps<'a>(kind: &'a str, hooks: &'a [Hook]) -> impl Iterator<Item = HookStep> + 'a {
    hooks
        .iter()
        .enumerate()
        .map(move |(i, hook)| HookStep { at: format!(".hooks.{kind}[{i}]"), hook: hook.clone() })
}

/// Read-only paths first: a masked path below a read-only one is covered last, on top.
fn hidden(linux: &Linux, context: Option<&Parameter>) -> Vec<HideStep> {
    let steps = |name: &'static str, paths: &[String], how: Hide| -> Vec<HideStep> {
        let mut seen = std::collections::BTreeSet::new();
        paths
            .iter()
            .enumerate()
            .filter(|(_, path)| seen.insert(path.trim_end_matches('/').to_string()))
            .map(|(i, path)| HideStep {
                at: format!(".linux.{name}[{i}]"),
                path: path.clone(),
                how: how.clone(),
            })
            .collect()
    };
    let mut all = steps("readonlyPaths", &linux.readonly_paths, Hide::Readonly);
    all.extend(steps("maskedPaths", &linux.masked_paths, Hide::Mask { context: context.cloned() }));
    all
}

fn sysctls(linux: &Linux) -> Result<Vec<Sysctl>, Invalid> {
    linux
        .sysctl
        .iter()
        .map(|(key, value)| {
            let at = crate::invalid::key_path(".linux.sysctl", key);
            let path = sysctl_path(key).map_err(|why| Invalid::new(&at, why))?;
            Ok(Sysctl { at, path, value: value.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_bundle() {
        assert_eq!(join("/b/", "rootfs"), "/b/rootfs");
        assert_eq!(join("/b", "/abs"), "/abs");
    }
}
