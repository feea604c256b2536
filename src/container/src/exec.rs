//! `exec`: one more process in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use creel_cgroup::Join;
use creel_jail::InitResources;
use creel_jail::join::{JoinPlan, JoinSetup, open_init, spawn};
use creel_jail::{Attach, Filter};
use creel_plan::build::{ProcessContext, plan_affinity, plan_console, plan_process};
use creel_plan::names::NamespaceKind;
use creel_plan::ranges::Ranges;
use creel_plan::spec::{Capabilities, Process};
use creel_plan::steps::{Keyring, OldGroups, RlimitStep};

use crate::create::{jail_filter, write_pid_file};
use crate::foreground::{Signals, Waiter};
use crate::protect::protect_own_binary;
use crate::seccomp_agent::Agent;
use crate::sockets::CallerSocket;
use crate::state::Container;
use crate::store::{EXEC, FILTER};
use crate::{Error, ExecFlags, ExecProcess, ExecRequest, Runtime, inherit, security_modules};

/// `exec`. The process's exit code, 0 when detached.
pub fn exec(runtime: &Runtime, request: &ExecRequest) -> Result<u8, Error> {
    let protection = protect_own_binary()?;
    tracing::debug!("exec: {runtime:?}");
    let preserve_fds = inherit::check_descriptors(request.preserve_fds, request.listen_fds.as_ref())?;
    let container = Container::open(runtime, &request.id)?;
    let init = container.living_init().ok_or(Error::Status("cannot exec in a stopped container"))?;
    let cgroup = container.cgroup();
    if !request.ignore_paused && cgroup.is_frozen()? {
        return Err(Error::Status("cannot exec in a paused container (use --ignore-paused to override)"));
    }
    let process = read_process(&container, &request.process)?;
    check_terminal(process.terminal, request)?;
    let (plan, limits) = plan(&container, &process, request, preserve_fds)?;

    let console_socket = request.console_socket.as_deref().map(CallerSocket::connect).transpose()?;
    let pidfd_socket = request.pidfd_socket.as_deref().map(CallerSocket::connect).transpose()?;
    let pidfd = open_init(init.pid)?;
    if !init.is_alive() {
        return Err(Error::Status("cannot exec in a stopped container"));
    }
    let of_init = match request.cgroups.is_empty() {
        true => cgroup.clone_into_cgroup_of(init.pid)?,
        false => None,
    };
    let joined = match cgroup.exec_join(&request.cgroups) {
        // It is gone or out of reach; init has another one.
        Err(_) if of_init.is_some() => Join { tasks: Vec::new(), into: None },
        joined => joined?,
    };
    // That of the container may take no process: controllers may be on in it.
    let into: Vec<OwnedFd> = joined.into.into_iter().chain(of_init).collect();
    let signals = if request.detach { None } else { Some(Signals::block()?) };
    let resources =
        InitResources { cgroup_tasks: joined.tasks, filter: filter(&container)?, ..InitResources::default() };
    let rootless = container.state.cgroup.rootless;
    let attach = |pid| {
        if !cgroup.is_systemds() {
            // A rootless exec stays in the caller's cgroup where it may not leave it, as in runc.
            return Ok(());
        }
        let mut attached = Ok(());
        for dir in &into {
            attached = creel_cgroup::path_of(dir).and_then(|dir| cgroup.attach_by_systemd(&dir, pid));
            if attached.is_ok() {
                break;
            }
        }
        attached.map_err(|e| creel_jail::Failed::said(e.to_string()))
    };
    let cgroups: Vec<BorrowedFd<'_>> = into.iter().map(AsFd::as_fd).collect();
    let setup = JoinSetup {
        plan: &plan,
        init: pidfd.as_fd(),
        resources,
        cgroups: &cgroups,
        attach: (cgroup.is_systemds() || rootless).then_some(Attach(&attach)),
    };
    let bound = plan.affinity.as_ref().and_then(|a| a.initial.as_ref()).map(bind_to_cpus).transpose()?;
    // In runc's words, as in `create`.
    tracing::debug!("nsexec container setup: clone a process beside init {}", init.pid);
    let mut child = spawn(setup).map_err(|failed| match init.is_alive() {
        true => Error::Failed(failed),
        // It died while its namespaces were being joined.
        false => Error::Status("cannot exec in a stopped container"),
    })?;
    if let Some(before) = bound {
        creel_sys::best_effort(creel_sys::sched::set_affinity(&before));
    }
    tracing::debug!("child process in init(): pid {}", child.pid());
    for limit in &limits {
        creel_sys::limits::set(child.pid(), limit.resource, limit.soft, limit.hard).map_err(|errno| {
            creel_jail::Failed::host(format!("prlimit64({})", limit.name), errno).at(&limit.at)
        })?;
    }
    if let Some(group) = container.state.resctrl.as_ref().filter(|group| group.path.exists()) {
        group.add(child.pid())?;
    }
    let agent = Agent::new(&container.state);
    child.until_ready(&[], &container.hook_state(), &mut |pid, fd| agent.send(pid, "running", fd))?;
    let console = hand_over_console(child.take_console(), console_socket.as_ref())?;
    if let Some(socket) = &pidfd_socket {
        socket.send(b"pidfd", child.pidfd())?;
    }
    if let Some(path) = &request.pid_file {
        write_pid_file(path, child.pid())?;
    }
    let pid = child.pid();
    // Before the program can ask for it.
    console.iter().for_each(crate::terminal::copy_size);
    tracing::debug!("setns_init: about to exec {:?}", process.args);
    let pidfd = child.start()?;
    drop(protection);
    if request.detach {
        return Ok(0);
    }
    Waiter { pid, pidfd, console, signals, proxy: None }.wait()
}

fn hand_over_console(
    master: Option<OwnedFd>,
    socket: Option<&CallerSocket>,
) -> Result<Option<OwnedFd>, Error> {
    match (master, socket) {
        (Some(master), Some(socket)) => {
            socket.send(crate::console::name(&master).as_bytes(), master.as_fd())?;
            Ok(None)
        }
        (master, _) => {
            master.iter().for_each(crate::terminal::keep_line_feeds);
            Ok(master)
        }
    }
}

fn check_terminal(terminal: bool, request: &ExecRequest) -> Result<(), Error> {
    match (terminal && request.detach, request.console_socket.is_some()) {
        (true, false) => {
            Err(Error::Usage("cannot allocate tty if creel will detach without setting console socket"))
        }
        (false, true) => {
            Err(Error::Usage("cannot use console socket if creel will not detach or allocate tty"))
        }
        (true, true) | (false, false) => Ok(()),
    }
}

fn plan(
    container: &Container,
    process: &Process,
    request: &ExecRequest,
    preserve_fds: u32,
) -> Result<(JoinPlan, Vec<RlimitStep>), Error> {
    for warning in creel_plan::check::check_process(process, ".process")? {
        tracing::warn!("{warning}");
    }
    let facts = &container.state.exec;
    let env: BTreeMap<String, String> = inherit::listen_env(request.listen_fds.as_ref());
    let context = ProcessContext {
        has_seccomp: facts.has_seccomp,
        setgroups_denied: facts.setgroups_denied,
        keep_groups: facts.keep_groups,
        preserve_fds,
        env: &env,
        limits_by_host: facts.limits_by_host,
        memory_policy: facts.memory_policy.as_ref(),
        personality: facts.personality.as_ref(),
        limited_cpus: facts.limited_cpus,
        security: security_modules::of(Some(process), ""),
    };
    let (plan, limits) = plan_process(process, &context)?;
    let namespaces = container.state.namespaces;
    let has_mount = namespaces & NamespaceKind::Mount.clone_flag() != 0;
    let plan = JoinPlan {
        console: plan_console(process, false),
        affinity: plan_affinity(process.exec_cpu_affinity.as_ref())?,
        oom_score_adj: process.oom_score_adj.and_then(|score| i32::try_from(score).ok()),
        groups: if facts.keep_groups { OldGroups::Keep } else { OldGroups::Drop },
        keyring: facts.keyring.clone().map(|name| Keyring { name, label: plan.labels.selinux.clone() }),
        namespaces,
        chroot: (!has_mount).then(|| container.state.rootfs.clone()),
        umask: process.user.umask.unwrap_or(facts.umask),
        process: plan,
    };
    Ok((plan, limits))
}

/// Binds this process to the CPUs that the child is to be born with; those that it had before.
fn bind_to_cpus(cpus: &Ranges) -> Result<Vec<u8>, Error> {
    let fail = |errno| {
        creel_jail::Failed::host(format!("sched_setaffinity({cpus})"), errno)
            .at(".process.execCPUAffinity.initial")
    };
    let before = creel_sys::sched::affinity().map_err(fail)?;
    creel_sys::sched::set_affinity(&cpus.bytes()).map_err(fail)?;
    let now = creel_sys::sched::affinity().map_err(fail)?;
    let first = now.iter().take(8).rev().fold(0u64, |mask, byte| mask << 8 | u64::from(*byte));
    // runc's words for the first process of an exec.
    tracing::debug!("nsexec: affinity: {first:#x}");
    Ok(before)
}

fn filter(container: &Container) -> Result<Option<Filter>, Error> {
    if !container.state.exec.has_seccomp {
        return Ok(None);
    }
    let bytes = container.dir.read(FILTER)?;
    let compiled = creel_seccomp::Compiled::from_bytes(&bytes)
        .map_err(|e| Error::Corrupt { path: container.dir.file(FILTER), why: e.to_string() })?;
    Ok(Some(jail_filter(&compiled.program)))
}

fn read_process(container: &Container, wanted: &ExecProcess) -> Result<Process, Error> {
    match wanted {
        ExecProcess::File(path) => {
            let text = crate::create::read_text(path)?;
            let process =
                creel_plan::parse::parse_process(&text).map_err(|e| crate::create::in_file(e, path))?;
            let whole = process.capabilities.is_some() && process.no_new_privileges.is_some();
            if whole && !container.state.exec.inherits {
                return Ok(process);
            }
            Ok(inherit_from(&own_process(container)?, process))
        }
        ExecProcess::Flags(flags) => Ok(with_flags(own_process(container)?, flags)),
    }
}

/// `.process` of the container.
fn own_process(container: &Container) -> Result<Process, Error> {
    let text = container.dir.read(EXEC)?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::Corrupt { path: container.dir.file(EXEC), why: e.to_string() })
}

/// Whether the container's process has what [`inherit_from`] hands on beside capabilities and
/// noNewPrivileges.
pub fn is_inherited_from(own: &Process) -> bool {
    !own.rlimits.is_empty()
        || !own.apparmor_profile.is_empty()
        || !own.selinux_label.is_empty()
        || own.io_priority.is_some()
        || own.scheduler.is_some()
        || own.exec_cpu_affinity.is_some()
        || own.oom_score_adj.is_some()
}

/// What the file of `exec --process` leaves open is as in the container's own process, as in runc.
fn inherit_from(own: &Process, process: Process) -> Process {
    let word = |word: String, own: &String| if word.is_empty() { own.clone() } else { word };
    Process {
        capabilities: process.capabilities.or_else(|| own.capabilities.clone()),
        no_new_privileges: process.no_new_privileges.or(own.no_new_privileges),
        rlimits: if process.rlimits.is_empty() { own.rlimits.clone() } else { process.rlimits },
        apparmor_profile: word(process.apparmor_profile, &own.apparmor_profile),
        selinux_label: word(process.selinux_label, &own.selinux_label),
        io_priority: process.io_priority.or_else(|| own.io_priority.clone()),
        scheduler: process.scheduler.or_else(|| own.scheduler.clone()),
        exec_cpu_affinity: process.exec_cpu_affinity.or_else(|| own.exec_cpu_affinity.clone()),
        oom_score_adj: process.oom_score_adj.or(own.oom_score_adj),
        ..process
    }
}

/// The container's own process, changed as the flags of `exec` say. Added capabilities are not
/// inheritable (CVE-2022-29162).
fn with_flags(base: Process, flags: &ExecFlags) -> Process {
    let mut process = Process { args: flags.args.clone(), terminal: flags.tty, ..base };
    if let Some(cwd) = &flags.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(flags.env.iter().cloned());
    if let Some((uid, gid)) = flags.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(&flags.additional_gids);
    if let Some(label) = &flags.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &flags.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if flags.no_new_privs {
        process.no_new_privileges = Some(true);
    }
    if !flags.caps.is_empty() {
        let caps = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.extend(flags.caps.iter().cloned());
        }
        // Ambient capabilities must be inheritable, and these are not made so here.
        if !caps.inheritable.is_empty() {
            caps.ambient.extend(flags.caps.iter().cloned());
        }
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let flags = ExecFlags { caps: vec!["CAP_NET_RAW".into()], ..ExecFlags::default() };
        let process = with_flags(Process::default(), &flags);
        let caps = process.capabilities.unwrap_or_default();
        assert_eq!(caps.effective, ["CAP_NET_RAW"]);
        assert_eq!(caps.bounding, ["CAP_NET_RAW"]);
        assert!(caps.inheritable.is_empty() && caps.ambient.is_empty());
    }

    #[test]
    fn added_capabilities_are_ambient_where_the_config_has_inheritable_ones() {
        let flags = ExecFlags { caps: vec!["CAP_SYSLOG".into()], ..ExecFlags::default() };
        let inheritable = vec!["CAP_CHOWN".to_string()];
        let capabilities = Some(Capabilities { inheritable, ..Capabilities::default() });
        let caps = with_flags(Process { capabilities, ..Process::default() }, &flags)
            .capabilities
            .unwrap_or_default();
        assert_eq!(caps.ambient, ["CAP_SYSLOG"]);
        assert_eq!(caps.inheritable, ["CAP_CHOWN"]);
    }

    #[test]
    fn a_user_without_a_group_keeps_the_containers() {
        let mut base = Process::default();
        base.user.gid = 5;
        let flags = ExecFlags { user: Some((7, None)), ..ExecFlags::default() };
        let process = with_flags(base, &flags);
        assert_eq!((process.user.uid, process.user.gid), (7, 5));
    }

    #[test]
    fn a_process_file_takes_over_what_it_leaves_open() {
        let own = r#"{"capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}],
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}}"#;
        let own = creel_plan::parse::parse_process(own).unwrap_or_default();
        assert!(is_inherited_from(&own) && !is_inherited_from(&Process::default()));
        let bare = inherit_from(&own, Process::default());
        assert_eq!((&bare.capabilities, &bare.rlimits), (&own.capabilities, &own.rlimits));
        assert_eq!((bare.no_new_privileges, &bare.io_priority), (Some(true), &own.io_priority));
        let said = Process { no_new_privileges: Some(false), ..Process::default() };
        assert_eq!(inherit_from(&own, said).no_new_privileges, Some(false));
    }
}
