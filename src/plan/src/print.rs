//! A plan in words, one line a step: `creel run --dry-run`, and what the golden tests compare.

use std::fmt::{self, Display, Formatter};

use crate::names::NamespaceKind;
use crate::steps::{
    Attr, Attributes, Console, DeviceStep, Enter, Hide, HookStep, HostPlan, IdMap, IdmapStep, InitPlan,
    Keyring, Labels, MountIds, MountSource, MountStep, NetDeviceStep, OldGroups, Parameter, Plan,
    ProcessPlan, ProfileStep, RlimitStep, RootSwitch, SeccompAt, SourceLink, StagePlan, StageUser,
};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Plan { host, stage, init } = self;
        host_lines(f, host, &init.mounts)?;
        if let Some(stage) = stage {
            stage_lines(f, stage, host)?;
        }
        init_lines(f, init, host)
    }
}

/// `mount|pid|network`
fn namespaces(flags: u64) -> String {
    let names: Vec<&str> = NamespaceKind::ALL
        .iter()
        .filter(|kind| flags & kind.clone_flag() != 0)
        .map(|kind| kind.word())
        .collect();
    if names.is_empty() { "none".into() } else { names.join("|") }
}

/// `0:100000:65536,70000:1:1`
fn map(lines: &[(u32, u32, u32)]) -> String {
    let words: Vec<String> =
        lines.iter().map(|(inside, outside, count)| format!("{inside}:{outside}:{count}")).collect();
    words.join(",")
}

fn idmap_line(f: &mut Formatter<'_>, step: &IdmapStep, source: &str, host: &HostPlan) -> fmt::Result {
    let IdmapStep { at, ids, recursive } = step;
    let ids = match ids {
        MountIds::Maps { of: _, uids, gids } => format!("uid {} gid {}", map(uids), map(gids)),
        MountIds::Joined(i) => host.joins.get(*i).map_or_else(String::new, |j| format!("as {}", j.path)),
    };
    writeln!(f, "host   idmap       {source} {ids}{} # {at}", if *recursive { " recursive" } else { "" })
}

fn host_lines(f: &mut Formatter<'_>, host: &HostPlan, mounts: &[MountStep]) -> fmt::Result {
    for join in &host.joins {
        writeln!(f, "host   open        {} {} # {}", join.kind.word(), join.path, join.at)?;
    }
    if host.open_sources {
        writeln!(f, "host   open        root and bind sources")?;
    }
    for step in mounts {
        if let MountSource::Bind { source, idmap: Some(idmap), .. } = &step.source {
            idmap_line(f, idmap, source, host)?;
        }
    }
    if host.clone_flags != 0 {
        writeln!(f, "host   clone       {}", namespaces(host.clone_flags))?;
    } else {
        writeln!(f, "host   clone       no new namespaces")?;
    }
    if let Some(IdMap { uids, gids, writer }) = &host.id_map {
        writeln!(f, "host   id map      uid {} gid {} {writer:?}", map(uids), map(gids))?;
    }
    for NetDeviceStep { at, name, new_name } in &host.net_devices {
        writeln!(f, "host   netdev      {name} as {new_name} # {at}")?;
    }
    rlimit_lines(f, "host  ", &host.rlimits)?;
    if let Some(score) = host.oom_score_adj {
        writeln!(f, "host   oom         {score}")?;
    }
    hook_lines(f, "host  ", &host.create_runtime)?;
    hook_lines(f, "host  ", &host.poststart)?;
    hook_lines(f, "host  ", &host.poststop)
}

fn kept(groups: OldGroups) -> &'static str {
    match groups {
        OldGroups::Drop => "",
        OldGroups::Keep => " with the caller's groups",
    }
}

fn stage_lines(f: &mut Formatter<'_>, stage: &StagePlan, host: &HostPlan) -> fmt::Result {
    for &i in &stage.joins {
        if let Some(join) = host.joins.get(i) {
            writeln!(f, "stage  join        {} # {}", join.kind.word(), join.at)?;
        }
    }
    if stage.user != StageUser::Host {
        writeln!(f, "stage  identity    root of the user namespace{}", kept(stage.groups))?;
    }
    for clock in stage.clocks.iter().flatten() {
        writeln!(
            f,
            "stage  clock       {} {}.{:09} # {}",
            clock.clock, clock.secs, clock.nanosecs, clock.at
        )?;
    }
    writeln!(f, "stage  clone       {}", namespaces(stage.clone_flags))
}

fn init_lines(f: &mut Formatter<'_>, init: &InitPlan, host: &HostPlan) -> fmt::Result {
    if let Some(score) = init.oom_score_adj {
        writeln!(f, "init   oom         {score}")?;
    }
    enter_lines(f, &init.enter, host)?;
    if let Some(rootfs) = &init.rootfs {
        writeln!(f, "init   root        {} propagation {:#x}", rootfs.path, rootfs.propagation)?;
    }
    for mount in &init.mounts {
        mount_line(f, mount)?;
    }
    for device in &init.devices {
        device_line(f, device)?;
    }
    for (path, target) in &init.links {
        writeln!(f, "init   link        {path} -> {target}")?;
    }
    for sysctl in &init.sysctls {
        writeln!(f, "init   sysctl      {} = {} # {}", sysctl.path, sysctl.value, sysctl.at)?;
    }
    if init.hooks.wait_for_host {
        writeln!(f, "init   wait        for the host's hooks")?;
    }
    hook_lines(f, "init  ", &init.hooks.create_container)?;
    let switch = match init.root {
        RootSwitch::Pivot => "pivot_root",
        RootSwitch::Move => "move and chroot",
        RootSwitch::Chroot => "chroot",
    };
    writeln!(f, "init   switch      {switch}")?;
    if let Some(Console { size, mount }) = init.console {
        writeln!(f, "init   console     size {size:?}{}", if mount { " at /dev/console" } else { "" })?;
    }
    for (at, path) in &init.late_readonly {
        writeln!(f, "init   readonly    {path} # {at}")?;
    }
    for step in &init.hide {
        let (how, context) = match &step.how {
            Hide::Mask { context } => ("mask    ", context.as_ref()),
            Hide::Readonly => ("readonly", None),
        };
        let context = context.map_or(String::new(), |c| format!(" [{}]", parameter(c)));
        writeln!(f, "init   {how}    {}{context} # {}", step.path, step.at)?;
    }
    let seal = init.seal;
    if let Some(propagation) = seal.propagation {
        writeln!(f, "init   seal        propagation {propagation:#x}")?;
    }
    if seal.readonly {
        writeln!(f, "init   seal        root read-only")?;
    }
    writeln!(f, "init   umask       {:04o}", seal.umask)?;
    process_lines(f, "init  ", &init.process)?;
    hook_lines(f, "init  ", &init.start_container)
}

fn enter_lines(f: &mut Formatter<'_>, enter: &Enter, host: &HostPlan) -> fmt::Result {
    writeln!(f, "init   cgroup      join")?;
    for &i in &enter.joins {
        if let Some(join) = host.joins.get(i) {
            writeln!(f, "init   join        {} # {}", join.kind.word(), join.at)?;
        }
    }
    if enter.user_namespace {
        writeln!(f, "init   identity    root of the user namespace{}", kept(enter.groups))?;
    }
    if enter.ipc_namespace {
        writeln!(f, "init   unshare     ipc")?;
    }
    if enter.dumpable {
        writeln!(f, "init   memory      open to the caller")?;
    }
    if enter.cgroup_namespace {
        writeln!(f, "init   unshare     cgroup")?;
    }
    if let Some(Keyring { name, label }) = &enter.keyring {
        let label = label.as_ref().map_or(String::new(), |label| format!(" labelled {label}"));
        writeln!(f, "init   keyring     {name}{label}")?;
    }
    if enter.loopback {
        writeln!(f, "init   loopback    up")?;
    }
    if enter.wait_for_devices {
        writeln!(f, "init   wait        for network devices")?;
    }
    if let Some(name) = &enter.hostname {
        writeln!(f, "init   hostname    {name}")?;
    }
    if let Some(name) = &enter.domainname {
        writeln!(f, "init   domainname  {name}")?;
    }
    Ok(())
}

fn attr(name: &str, attr: Option<Attr>) -> String {
    match attr {
        Some(Attr { set, clear }) if set != 0 || clear != 0 => format!(" {name} +{set:#x} -{clear:#x}"),
        _ => String::new(),
    }
}

/// `key=value`, or `key`
fn parameter((key, value): &Parameter) -> String {
    value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))
}

fn mount_line(f: &mut Formatter<'_>, step: &MountStep) -> fmt::Result {
    let MountStep { at, destination, source, attr: own, recursive, propagation, taken_back, nofollow } = step;
    let what = match source {
        MountSource::FileSystem { fstype, source, parameters, copy_up, label } => {
            let words: Vec<String> = parameters.iter().map(parameter).collect();
            let label = label.as_ref().map_or(String::new(), |label| format!(" labelled {label}"));
            let copy_up = if *copy_up { " copy up" } else { "" };
            format!("{fstype} {source:?} [{}]{copy_up}{label}", words.join(","))
        }
        MountSource::Bind { source, recursive, idmap, inside, link } => {
            let mapped = if idmap.is_some() { " idmapped" } else { "" };
            let inside = inside.as_ref().map_or(String::new(), |path| format!(" (of the container: {path})"));
            let link = match link {
                SourceLink::Follow => "",
                SourceLink::Bind => " or the link itself",
                SourceLink::Copy => " or a copy of the link",
            };
            format!("{} {source}{inside}{link}{mapped}", if *recursive { "rbind" } else { "bind" })
        }
        MountSource::Remount { flags, data } => format!("remount {flags:#x} {data:?}"),
        MountSource::Cgroup { context } => {
            format!("cgroup{}", context.as_ref().map_or(String::new(), |c| format!(" [{}]", parameter(c))))
        }
    };
    let propagation: String = propagation
        .iter()
        .map(|(kind, rec)| format!(" propagation {kind:#x}{}", if *rec { " rec" } else { "" }))
        .collect();
    writeln!(
        f,
        "init   mount       {destination}{} {what}{}{}{}{propagation} # {at}",
        if *nofollow { " or the link there" } else { "" },
        attr("attr", *own),
        if *taken_back == 0 { String::new() } else { format!(" must not keep {taken_back:#x}") },
        attr("recursive", *recursive)
    )
}

fn device_line(f: &mut Formatter<'_>, step: &DeviceStep) -> fmt::Result {
    let DeviceStep { at, path, kind, major, minor, mode, uid, gid, bind } = step;
    let verb = if *bind { "bind device" } else { "mknod      " };
    writeln!(f, "init   {verb} {path} {kind:#o} {major}:{minor} {mode:04o} {uid}:{gid} # {at}")
}

fn hook_lines(f: &mut Formatter<'_>, who: &str, hooks: &[HookStep]) -> fmt::Result {
    hooks.iter().try_for_each(|step| writeln!(f, "{who} hook        {} # {}", step.hook.path, step.at))
}

fn rlimit_lines(f: &mut Formatter<'_>, who: &str, limits: &[RlimitStep]) -> fmt::Result {
    limits
        .iter()
        .try_for_each(|l| writeln!(f, "{who} rlimit      {} {} {} # {}", l.name, l.soft, l.hard, l.at))
}

fn attribute_lines(f: &mut Formatter<'_>, who: &str, attributes: &Attributes) -> fmt::Result {
    let Attributes { scheduler, io_priority, personality, memory_policy } = attributes;
    if let Some(s) = scheduler {
        let (runtime, deadline, period) = s.deadline;
        writeln!(
            f,
            "{who} scheduler   {} flags {:#x} nice {} priority {} runtime {runtime} deadline {deadline} period {period}",
            s.name, s.flags, s.nice, s.priority
        )?;
    }
    if let Some(value) = io_priority {
        writeln!(f, "{who} ioprio      class {} level {}", value >> 13, value & 0x1fff)?;
    }
    if let Some(domain) = personality {
        writeln!(f, "{who} personality {domain:#x}")?;
    }
    match memory_policy {
        Some(policy) => writeln!(f, "{who} mempolicy   {:#x} nodes [{}]", policy.mode, policy.nodes),
        None => Ok(()),
    }
}

fn process_lines(f: &mut Formatter<'_>, who: &str, process: &ProcessPlan) -> fmt::Result {
    rlimit_lines(f, who, &process.rlimits)?;
    let Labels { selinux, apparmor } = &process.labels;
    if let Some(label) = selinux {
        writeln!(f, "{who} selinux     {label} # .process.selinuxLabel")?;
    }
    if let Some(ProfileStep { profile, how }) = apparmor {
        writeln!(f, "{who} apparmor    {} {profile} # .process.apparmorProfile", how.word())?;
    }
    if process.no_new_privileges {
        writeln!(f, "{who} no_new_privs")?;
    }
    attribute_lines(f, who, &process.attributes)?;
    if process.seccomp == SeccompAt::BeforeCredentials {
        writeln!(f, "{who} seccomp     load")?;
    }
    let c = &process.credentials;
    writeln!(f, "{who} user        {}:{} groups {:?}", c.uid, c.gid, c.groups)?;
    writeln!(
        f,
        "{who} caps        bounding {:#x} effective {:#x} permitted {:#x} inheritable {:#x} ambient {:#x}",
        c.caps.bounding, c.caps.effective, c.caps.permitted, c.caps.inheritable, c.caps.ambient
    )?;
    writeln!(f, "{who} cwd         {}", process.exec.cwd)?;
    if process.seccomp == SeccompAt::BeforeExec {
        writeln!(f, "{who} seccomp     load")?;
    }
    let fds = process.exec.preserve_fds;
    writeln!(f, "{who} exec        {:?} env {:?} fds {fds}", process.exec.args, process.exec.env)
}
