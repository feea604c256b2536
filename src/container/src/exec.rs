//! `exec`: one more process in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use creel_jail::InitResources;
use creel_jail::join::{JoinPlan, JoinSetup, open_init, spawn};
use creel_jail::{Attach, Filter};
use creel_plan::build::{ProcessContext, plan_console, plan_process};
use creel_plan::names::NamespaceKind;
use creel_plan::spec::{Capabilities, Process};
use creel_plan::steps::RlimitStep;

use crate::create::{jail_filter, write_pid_file};
use crate::foreground::{Signals, Waiter};
use crate::protect::protect_own_binary;
use crate::seccomp_agent::Agent;
use crate::sockets::CallerSocket;
use crate::state::Container;
use crate::store::{EXEC, FILTER};
use crate::{Error, ExecFlags, ExecProcess, ExecRequest, Runtime, inherit};

/// `exec`. The process's exit code, 0 when detached.
pub fn exec(runtime: &Runtime, request: &ExecRequest) -> Result<u8, Error> {
    let protection = protect_own_binary()?;
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
    let mut joined = cgroup.exec_join(&request.cgroups)?;
    if request.cgroups.is_empty() {
        // The container's init may have moved on into a cgroup of its own making.
        if let Some(dir) = cgroup.clone_into_cgroup_of(init.pid)? {
            joined.into = Some(dir);
        }
    }
    let signals = if request.detach { None } else { Some(Signals::block()?) };
    let resources =
        InitResources { cgroup_tasks: joined.tasks, filter: filter(&container)?, ..InitResources::default() };
    let attach = |pid| {
        let into = joined.into.as_ref().map(creel_cgroup::path_of).transpose();
        let attached = into.and_then(|into| cgroup.attach_by_systemd(&into.unwrap_or_default(), pid));
        attached.map_err(|e| creel_jail::Failed::said(e.to_string()))
    };
    let setup = JoinSetup {
        plan: &plan,
        init: pidfd.as_fd(),
        resources,
        cgroup: joined.into.as_ref().map(AsFd::as_fd),
        attach: cgroup.is_systemds().then_some(Attach(&attach)),
    };
    let mut child = spawn(setup).map_err(|failed| match init.is_alive() {
        true => Error::Failed(failed),
        // It died while its namespaces were being joined.
        false => Error::Status("cannot exec in a stopped container"),
    })?;
    for limit in &limits {
        creel_sys::limits::set(child.pid(), limit.resource, limit.soft, limit.hard).map_err(|errno| {
            creel_jail::Failed::host(format!("prlimit64({})", limit.name), errno).at(&limit.at)
        })?;
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
        preserve_fds,
        env: &env,
        limits_by_host: facts.limits_by_host,
    };
    let (plan, limits) = plan_process(process, &context)?;
    let namespaces = container.state.namespaces;
    let has_mount = namespaces & NamespaceKind::Mount.clone_flag() != 0;
    let plan = JoinPlan {
        process: plan,
        console: plan_console(process, false),
        oom_score_adj: process.oom_score_adj.and_then(|score| i32::try_from(score).ok()),
        keyring: facts.keyring.clone(),
        namespaces,
        chroot: (!has_mount).then(|| container.state.rootfs.clone()),
        umask: process.user.umask.unwrap_or(facts.umask),
    };
    Ok((plan, limits))
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
            creel_plan::parse::parse_process(&text).map_err(|e| crate::create::in_file(e, path))
        }
        ExecProcess::Flags(flags) => {
            let text = container.dir.read(EXEC)?;
            let base = serde_json::from_slice(&text)
                .map_err(|e| Error::Corrupt { path: container.dir.file(EXEC), why: e.to_string() })?;
            Ok(with_flags(base, flags))
        }
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
}
