//! What holds for every plan, whatever the config.

use creel_plan::build::Planned;
use creel_plan::facts::HostFacts;
use creel_plan::names::NamespaceKind;
use creel_plan::steps::{HookStep, MountIds, MountSource, Plan, SeccompAt};
use serde_json::Value;

/// Checks them all; the message names the first that does not hold.
pub fn check(config: &Value, facts: &HostFacts, planned: &Planned) -> Result<(), String> {
    let plan = &planned.plan;
    let text = plan.to_string();
    places_exist(config, &text)?;
    namespaces_are_made_once(config, plan)?;
    stage_is_there_when_needed(config, plan)?;
    mounts_are_clean(plan)?;
    mounts_are_idmapped_when_asked(config, plan)?;
    filter_is_where_the_kernel_takes_it(config, plan)?;
    nothing_privileged_follows_credentials(&text)?;
    labels_are_given_when_asked(config, plan)?;
    indices_are_in_range(plan)?;
    rootless_is_modest(facts, plan)
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Every `# .place` of the printed plan is a place of config.json, and every hook's too.
fn places_exist(config: &Value, text: &str) -> Result<(), String> {
    for line in text.lines() {
        let Some((_, at)) = line.rsplit_once(" # ").filter(|(_, at)| at.starts_with('.')) else { continue };
        ensure(resolve(config, at).is_some(), || format!("{at} is not in the config: {line}"))?;
    }
    Ok(())
}

/// The value at a path in jq's notation: `.a.b[3]["k.ey"]`.
pub fn resolve<'a>(config: &'a Value, at: &str) -> Option<&'a Value> {
    let mut value = config;
    let mut rest = at;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"").or_else(|| rest.strip_prefix(".[\"")) {
            let (key, after) = quoted.split_once("\"]")?;
            value = value.get(key)?;
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            value = value.get(index.parse::<usize>().ok()?)?;
            rest = after;
        } else {
            let key = rest.strip_prefix('.')?;
            let end = key.find(['.', '[']).unwrap_or(key.len());
            value = value.get(&key[..end])?;
            rest = &key[end..];
        }
    }
    Some(value)
}

/// Kinds of `.linux.namespaces` with `(kind, is joined)`.
fn namespaces(config: &Value) -> Vec<(NamespaceKind, bool)> {
    let list = config["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    let kind = |n: &Value| NamespaceKind::from_word(n["type"].as_str()?);
    let joined = |n: &Value| n["path"].as_str().is_some_and(|path| !path.is_empty());
    list.iter().filter_map(|n| Some((kind(n)?, joined(n)))).collect()
}

fn has_clocks(config: &Value) -> bool {
    config["linux"]["timeOffsets"].as_object().is_some_and(|offsets| !offsets.is_empty())
}

/// Each new namespace is made once, by the one clone3 that makes init; a stage that is born into the user
/// namespace has it already. But for the cgroup namespace, which init makes when it
/// is in its cgroup, the ipc namespace of a new user namespace, which its root makes, and the time namespace, which the stage makes when its clocks are to be set.
fn namespaces_are_made_once(config: &Value, plan: &Plan) -> Result<(), String> {
    let is_new = |kind: NamespaceKind| namespaces(config).contains(&(kind, false));
    let late_ipc = is_new(NamespaceKind::Ipc) && is_new(NamespaceKind::User);
    let expected = namespaces(config)
        .into_iter()
        .filter(|(kind, joined)| !joined && *kind != NamespaceKind::Cgroup)
        .filter(|(kind, _)| *kind != NamespaceKind::Time || !has_clocks(config))
        .filter(|(kind, _)| *kind != NamespaceKind::Ipc || !late_ipc)
        .fold(0, |flags, (kind, _)| flags | kind.clone_flag());
    let (host, stage) = (plan.host.clone_flags, plan.stage.as_ref().map(|stage| stage.clone_flags));
    let user = NamespaceKind::User.clone_flag();
    let made = match stage {
        Some(stage) => (host & !user == 0 && host & stage == 0).then_some(host | stage),
        None => Some(host),
    };
    ensure(made == Some(expected), || format!("host {host:#x} stage {stage:x?}, expected {expected:#x}"))?;
    ensure(plan.init.enter.ipc_namespace == late_ipc, || "ipc namespace".into())?;
    ensure(plan.init.enter.cgroup_namespace == is_new(NamespaceKind::Cgroup), || "cgroup namespace".into())
}

/// A stage exists only for what clone3 alone cannot do, and then it does all the joining.
fn stage_is_there_when_needed(config: &Value, plan: &Plan) -> Result<(), String> {
    let all = namespaces(config);
    let joins = |kind: NamespaceKind| all.contains(&(kind, true));
    let needed = [NamespaceKind::Pid, NamespaceKind::User, NamespaceKind::Time].into_iter().any(joins)
        || has_clocks(config)
        || (all.contains(&(NamespaceKind::User, false)) && all.iter().any(|(_, joined)| *joined));
    ensure(plan.stage.is_some() == needed, || format!("stage is {:?}, needed: {needed}", plan.stage))?;
    let joined = plan.stage.as_ref().map_or(&plan.init.enter.joins, |stage| &stage.joins);
    let mut every: Vec<usize> = joined.clone();
    every.sort_unstable();
    ensure(every == Vec::from_iter(0..plan.host.joins.len()), || format!("joins {joined:?}"))?;
    ensure(plan.stage.is_none() || plan.init.enter.joins.is_empty(), || "joined twice".into())?;
    // What paths mean changes with the mount namespace.
    let mount = joined.iter().position(|&i| plan.host.joins[i].kind == NamespaceKind::Mount);
    ensure(mount.is_none_or(|at| at + 1 == joined.len()), || format!("mount is not last: {joined:?}"))
}

fn is_clean(path: &str) -> bool {
    path.starts_with('/')
        && (path == "/" || path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != ".."))
}

/// Destinations are absolute and clean, bind sources absolute; what is sealed late was mounted.
fn mounts_are_clean(plan: &Plan) -> Result<(), String> {
    let init = &plan.init;
    for step in &init.mounts {
        ensure(is_clean(&step.destination), || format!("destination {:?}", step.destination))?;
        if let MountSource::Bind { source, .. } = &step.source {
            ensure(source.starts_with('/'), || format!("source {source:?}"))?;
        }
    }
    for device in &init.devices {
        ensure(is_clean(&device.path), || format!("device {:?}", device.path))?;
    }
    for (at, path) in &init.late_readonly {
        let known = init.mounts.iter().any(|step| step.at == *at && step.destination == *path);
        ensure(known, || format!("{path} of {at} is sealed but not mounted"))?;
    }
    let mounted = init.rootfs.is_some();
    let own = init.rootfs.as_ref().is_none_or(|rootfs| !rootfs.is_of_the_host());
    ensure(own || (init.hide.is_empty() && !init.seal.readonly), || "the host's tree is sealed".into())?;
    let only_with_root = init.mounts.is_empty() && init.devices.is_empty() && init.hide.is_empty();
    ensure(mounted || only_with_root, || "mounts without a mount namespace".into())
}

/// A mount is idmapped if it has mappings or an option for it, and only then; by its own mappings, else
/// by those of the container's user namespace.
fn mounts_are_idmapped_when_asked(config: &Value, plan: &Plan) -> Result<(), String> {
    for step in plan.init.mounts.iter().filter(|step| step.at.starts_with('.')) {
        let mount = resolve(config, &step.at).unwrap_or(&Value::Null);
        let options: Vec<&str> =
            mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let name = |option: &&str| option.split('=').next().unwrap_or_default().to_owned();
        let last = options.iter().rev().find(|o| matches!(name(o).as_str(), "idmap" | "ridmap"));
        let text = last.is_some_and(|option| option.contains('='));
        let own = mount["uidMappings"].as_array().is_some_and(|lines| !lines.is_empty());
        let MountSource::Bind { idmap, .. } = &step.source else {
            ensure(last.is_none() && !own, || format!("{} is no bind mount", step.at))?;
            continue;
        };
        ensure(idmap.is_some() == (last.is_some() || own), || format!("{} is {idmap:?}", step.at))?;
        let Some(idmap) = idmap else { continue };
        ensure(idmap.recursive == last.is_some_and(|o| name(o) == "ridmap"), || {
            format!("{} recursive", step.at)
        })?;
        let holds = match &idmap.ids {
            MountIds::Maps { of, uids, gids } => {
                let whose = if own { &step.at } else { &idmap.at };
                (of == whose || !(own || text) && of == ".linux") && !uids.is_empty() && !gids.is_empty()
            }
            MountIds::Joined(i) => !own && plan.host.joins[*i].kind == NamespaceKind::User,
        };
        ensure(holds, || format!("{} is mapped by {:?}", step.at, idmap.ids))?;
        ensure(idmap.at.starts_with(&step.at), || format!("{} blames {}", step.at, idmap.at))?;
    }
    Ok(())
}

/// seccomp(2) takes a filter from a process with CAP_SYS_ADMIN or with no_new_privs.
fn filter_is_where_the_kernel_takes_it(config: &Value, plan: &Plan) -> Result<(), String> {
    let has = config["linux"].get("seccomp").is_some_and(|seccomp| !seccomp.is_null());
    let process = &plan.init.process;
    let expected = match (has, process.no_new_privileges) {
        (false, _) => SeccompAt::Never,
        (true, true) => SeccompAt::BeforeExec,
        (true, false) => SeccompAt::BeforeCredentials,
    };
    ensure(process.seccomp == expected, || format!("filter {:?}", process.seccomp))
}

/// After the capabilities are dropped a process changes its directory, loads its filter, runs hooks
/// inside and executes its program: nothing that takes a privilege.
fn nothing_privileged_follows_credentials(text: &str) -> Result<(), String> {
    const AFTER: [&str; 4] = ["cwd", "seccomp", "exec", "hook"];
    let verbs: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("init   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let caps = verbs.iter().position(|verb| *verb == "caps");
    let Some(caps) = caps else { return Err("init keeps the runtime's capabilities".into()) };
    ensure(verbs.get(caps.wrapping_sub(1)) == Some(&"user"), || format!("before caps: {verbs:?}"))?;
    let late = verbs[caps + 1..].iter().find(|verb| !AFTER.contains(verb));
    ensure(late.is_none(), || format!("{late:?} after credentials"))?;
    ensure(verbs.contains(&"exec"), || "no program".into())
}

/// No label of the config is lost, and none is made up.
fn labels_are_given_when_asked(config: &Value, plan: &Plan) -> Result<(), String> {
    let asked = |at: &str| resolve(config, at).and_then(Value::as_str).filter(|label| !label.is_empty());
    let process = &plan.init.process.labels;
    let label = asked(".process.selinuxLabel");
    ensure(process.selinux.as_deref() == label, || format!("{label:?} became {process:?}"))?;
    let keyring = plan.init.enter.keyring.as_ref();
    ensure(keyring.is_none_or(|keyring| keyring.label.as_deref() == label), || format!("{keyring:?}"))?;
    let profile = asked(".process.apparmorProfile");
    let planned = process.apparmor.as_ref().map(|step| step.profile.as_str());
    ensure(planned == profile, || format!("{profile:?} became {process:?}"))
}

fn indices_are_in_range(plan: &Plan) -> Result<(), String> {
    let count = plan.host.joins.len();
    let stage = plan.stage.iter().flat_map(|stage| &stage.joins);
    let bad = plan.init.enter.joins.iter().chain(stage).find(|&&i| i >= count);
    ensure(bad.is_none(), || format!("join {bad:?} of {count}"))?;
    let hooks = |steps: &[HookStep]| steps.iter().all(|step| step.hook.path.starts_with('/'));
    let all = hooks(&plan.host.create_runtime)
        && hooks(&plan.host.poststart)
        && hooks(&plan.host.poststop)
        && hooks(&plan.init.hooks.create_container)
        && hooks(&plan.init.start_container);
    ensure(all, || "a hook without an absolute path".into())?;
    let wait = plan.init.hooks.wait_for_host;
    ensure(wait != plan.host.create_runtime.is_empty(), || "who waits for whom".into())?;
    let wait = plan.init.enter.wait_for_devices;
    ensure(wait != plan.host.net_devices.is_empty(), || "who waits for devices".into())
}

/// An ordinary user makes no device node, and leaves to init what init can do as well.
fn rootless_is_modest(facts: &HostFacts, plan: &Plan) -> Result<(), String> {
    if !facts.is_rootless() {
        return Ok(());
    }
    ensure(plan.init.devices.iter().all(|device| device.bind), || "mknod by a user".into())?;
    let idmapped = |source: &MountSource| matches!(source, MountSource::Bind { idmap: Some(_), .. });
    let any = plan.init.mounts.iter().any(|step| idmapped(&step.source));
    ensure(!any, || "a user has no rights over the source's file system".into())?;
    let host = &plan.host;
    let outside = host.open_sources || !host.rlimits.is_empty() || host.oom_score_adj.is_some();
    ensure(!outside, || "the host has no more rights than init".into())
}
