//! `create`, and the part of `run` up to the program.
//!
//! ```text
//!   parse, check, plan ─ filter ─ lock ─ cgroup, limits ─ state.json ─ spawn ─ until ready ─ init, pid file ─ go
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_cgroup::Cgroup;
use creel_cgroup::stats::rdt::resctrl_root;
use creel_jail::{Attach, Child, Failed, InitResources, Setup};
use creel_plan::annotations;
use creel_plan::facts::{HostFacts, Request};
use creel_plan::names::NamespaceKind;
use creel_plan::spec::{Resources, Spec};
use creel_plan::steps::{HookStep, OldGroups, Plan};
use creel_seccomp::Program;

use crate::filter::Filter;
use crate::placement::{self, Placement};
use crate::protect::protect_own_binary;
use crate::resctrl;
use crate::seccomp_agent::Agent;
use crate::sockets::CallerSocket;
use crate::state::{ExecFacts, Init, State, format_init, hook_state};
use crate::store::{EXEC, INIT, STATE, StateDir};
use crate::undo::Undo;
use crate::{CreateRequest, Error, Runtime, inherit, security_modules};

/// What comes after the container is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Init waits at the exec fifo for `start`.
    Wait,
    /// The same command starts it.
    Start,
}

/// `create`
pub fn create(runtime: &Runtime, request: &CreateRequest) -> Result<(), Error> {
    // Let go last, when init works on its own.
    let _protection = protect_own_binary()?;
    tracing::debug!("create: {runtime:?}");
    let draft = Draft::read(runtime, request, true)?;
    let dir = StateDir::make(&runtime.root, &request.id)?;
    let made = make(runtime, request, &draft, &dir, Then::Wait)?;
    made.child.leave_waiting()?;
    tracing::debug!("init: closing the pipe to signal completion: it waits for start");
    made.undo.keep();
    Ok(())
}

/// `run --dry-run`: the plan in words, one line a step.
pub fn dry_run(runtime: &Runtime, request: &CreateRequest) -> Result<String, Error> {
    Ok(Draft::read(runtime, request, false)?.plan.to_string())
}

/// The config as read and what was decided from it: no trace on the machine yet.
#[derive(Debug)]
pub struct Draft {
    /// config.json
    pub spec: Spec,
    /// The decision.
    pub plan: Plan,
    /// The machine and the user.
    pub facts: HostFacts,
    filter: Option<Filter>,
}

impl Draft {
    /// Reads and plans. `detached`: somebody else will hold the terminal.
    pub fn read(runtime: &Runtime, request: &CreateRequest, detached: bool) -> Result<Draft, Error> {
        crate::store::check_id(&request.id)?;
        let preserve_fds = inherit::check_descriptors(request.preserve_fds, request.listen_fds.as_ref())?;
        let path = request.config.clone().unwrap_or_else(|| request.bundle.join("config.json"));
        let text = read_text(&path)?;
        let spec = creel_plan::parse::parse(&text).map_err(|e| in_file(e, &path))?;
        let facts = host_facts(&spec);
        let mut env = inherit::listen_env(request.listen_fds.as_ref());
        let notify_dir =
            request.notify_socket.as_ref().map(|_| crate::notify::directory(runtime, &request.id));
        if notify_dir.is_some() {
            env.insert("NOTIFY_SOCKET".into(), crate::notify::IN_CONTAINER.into());
        }
        let planned = creel_plan::plan(
            &spec,
            &Request {
                id: request.id.clone(),
                bundle: request.bundle.to_string_lossy().into_owned(),
                no_pivot: request.no_pivot,
                no_new_keyring: request.no_new_keyring,
                preserve_fds,
                env,
                notify_dir: notify_dir.map(|dir| dir.to_string_lossy().into_owned()),
            },
            &facts,
        )?;
        for warning in &planned.warnings {
            tracing::warn!("{warning}");
        }
        check_terminal(planned.plan.init.console.is_some(), detached, request)?;
        check_rootfs(&spec, &request.bundle)?;
        let filter = filter_of(&spec, runtime)?;
        if let Some(filter) = &filter {
            tracing::debug!("seccomp filter flags: {}", filter.compiled.program.flags);
        }
        Ok(Draft { spec, plan: planned.plan, facts, filter })
    }

    /// `.linux.resources`
    pub fn resources(&self) -> Option<&Resources> {
        self.spec.linux.as_ref().and_then(|l| l.resources.as_ref())
    }

    /// poststart hooks.
    pub fn poststart(&self) -> &[HookStep] {
        &self.plan.host.poststart
    }
}

/// The filter of `run.oci.seccomp_bpf_data`, else that of the profile.
fn filter_of(spec: &Spec, runtime: &Runtime) -> Result<Option<Filter>, Error> {
    let seccomp = spec.linux.as_ref().and_then(|l| l.seccomp.as_ref());
    if let Some(text) = annotations::read(&spec.annotations)?.seccomp_bpf {
        return Filter::given(text, seccomp).map(Some);
    }
    seccomp.filter(|s| s.is_enabled()).map(|text| Filter::of(text, &runtime.root)).transpose()
}

/// Who gets the notify descriptor: `run.oci.seccomp.receiver` where the profile names nobody.
fn listener(draft: &Draft) -> String {
    let named = draft.filter.as_ref().map(|f| f.compiled.listener_path.as_str());
    let receiver = || annotations::read(&draft.spec.annotations).ok()?.seccomp_receiver;
    named.filter(|path| !path.is_empty()).or_else(receiver).unwrap_or_default().to_string()
}

/// Who this process is, and what the machine has.
pub fn host_facts(spec: &Spec) -> HostFacts {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let in_user_namespace = in_user_namespace();
    // user_namespaces(7): once denied, for ever and for every namespace below.
    let setgroups_denied = in_user_namespace
        && std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    let mount_label = spec.linux.as_ref().map_or("", |linux| linux.mount_label.as_str());
    let security = security_modules::of(spec.process.as_ref(), mount_label);
    HostFacts { euid: uid, egid: gid, in_user_namespace, setgroups_denied, security }
}

/// The initial user namespace maps every id to itself (user_namespaces(7)).
pub fn in_user_namespace() -> bool {
    let map = crate::store::read_proc("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    [fields.next(), fields.next(), fields.next()] != [Some("0"), Some("0"), Some("4294967295")]
}

fn check_terminal(terminal: bool, detached: bool, request: &CreateRequest) -> Result<(), Error> {
    match (terminal && detached, request.console_socket.is_some()) {
        (true, false) => {
            Err(Error::Usage("cannot allocate tty if creel will detach without setting console socket"))
        }
        (false, true) => {
            Err(Error::Usage("cannot use console socket if creel will not detach or allocate tty"))
        }
        (true, true) | (false, false) => Ok(()),
    }
}

/// The root of the container, absolute.
pub fn rootfs_path(spec: &Spec, bundle: &Path) -> PathBuf {
    bundle.join(spec.root.as_ref().map_or("", |root| root.path.as_str()))
}

fn check_rootfs(spec: &Spec, bundle: &Path) -> Result<(), Error> {
    let path = rootfs_path(spec, bundle);
    let invalid = |why: String| Error::Invalid(creel_plan::Invalid::new(".root.path", why));
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(invalid(format!("{} is not a directory", path.display()))),
        // Behind a directory that only root of another namespace may enter; init will tell.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(e) => {
            let errno = creel_sys::Errno::from_io_error(&e).unwrap_or(creel_sys::Errno::IO);
            Err(invalid(format!("stat {}: {}", path.display(), creel_jail::errno_words(errno))))
        }
    }
}

/// A container whose init is ready. Dropped, it is taken back.
pub struct Made<'a> {
    /// Init, waiting for its order.
    pub child: Child<'a>,
    /// Takes back what was made.
    pub undo: Undo<'a>,
    /// The state as stored.
    pub state: State,
    /// Init.
    pub init: Init,
    /// The terminal's master, unless it went to `--console-socket`.
    pub console: Option<OwnedFd>,
}

/// Makes everything but the program.
pub fn make<'a>(
    runtime: &Runtime,
    request: &CreateRequest,
    draft: &'a Draft,
    dir: &'a StateDir,
    then: Then,
) -> Result<Made<'a>, Error> {
    let mut undo = Undo::new(dir);
    let plan = &draft.plan;
    let console_socket = request.console_socket.as_deref().map(CallerSocket::connect).transpose()?;
    let receiver = annotations::read(&draft.spec.annotations)?.pidfd_receiver.map(Path::new);
    let pidfd_socket = request.pidfd_socket.as_deref().or(receiver).map(CallerSocket::connect).transpose()?;
    if request.notify_socket.is_some() {
        crate::notify::make_directory(dir)?;
    }

    let placement = Placement::plan(runtime, request, draft)?;
    let cgroup = undo.cgroup(placement.make(dir)?);
    if !has_new_namespace(&draft.spec, NamespaceKind::Pid) && cgroup.record().dirs.is_empty() {
        // As runc warns.
        tracing::warn!(
            "a container with neither a cgroup nor a pid namespace of its own. Such configuration is strongly \
             discouraged, as nobody can tell its processes from others to kill them"
        );
    }
    // Before init joins: a cpuset without processors takes no task, a device rule may be needed.
    cgroup.apply(&placement.writes)?;
    cgroup.apply_devices(&placement.rules)?;
    if let Some(uid) = placement::owner(&draft.spec, plan) {
        cgroup.give_to(uid)?;
    }
    let host = placement.host;

    let rdt = draft.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
    let resctrl = rdt.map(|rdt| resctrl::make(dir, rdt, &request.id)).transpose()?;
    resctrl.iter().for_each(|group| undo.resctrl(group));

    let state = State { resctrl, ..new_state(request, draft, &cgroup) };
    save(&runtime.root, dir, draft, &state)?;
    undo.hooks(&plan.host.poststop, hook_state(&state, 0));
    if let Some(rootfs) = plan.init.rootfs.as_ref().filter(|rootfs| rootfs.is_of_the_host()) {
        undo.host_mount(&rootfs.path);
    }

    let mut resources = InitResources {
        joins: creel_jail::open_joins(&plan.host.joins)?,
        cgroup_tasks: cgroup.join_fds()?,
        cgroup_view: placement::view(&host, &state.cgroup, plan)?,
        filter: draft.filter.as_ref().map(|filter| jail_filter(&filter.compiled.program)),
        gate: if then == Then::Wait { Some(dir.make_gate()?) } else { None },
        ..InitResources::default()
    };
    refuse_sysctls_of_the_host(&draft.spec, &resources)?;
    creel_jail::open_sources(plan, &mut resources)?;
    let hooks = hook_state(&state, 0);
    let attach = |pid| placement::attach(&cgroup, &state.cgroup.dirs, pid);
    let setup = Setup {
        plan,
        resources,
        state: hooks.clone(),
        cgroup: Cgroup::clone_into(&cgroup)?,
        attach: cgroup.is_systemds().then_some(Attach(&attach)),
    };
    // The stages in runc's words: what its users look for in a debug log.
    tracing::debug!("nsexec container setup: clone init with its namespaces");
    let mut child = creel_jail::spawn(setup)?;
    cgroup.settle()?;
    if let (Some(group), Some(rdt)) = (&state.resctrl, rdt) {
        group.add(child.pid())?;
        if let Some(root) = resctrl_root() {
            group.limit(&root, rdt)?;
        }
    }
    tracing::debug!("child process in init(): pid {}", child.pid());
    let agent = Agent::new(&state);
    child
        .until_ready(&plan.host.create_runtime, &hooks, &mut |pid, fd| agent.send(pid, "creating", fd))
        .map_err(|failed| explain_death(failed, &cgroup))?;

    if let Some(name) = draft.spec.annotations.get(placement::DELEGATED) {
        // The cgroup namespace exists: what init moves into is below its root.
        let owner = placement::host_ids(&draft.spec, 0, 0).unwrap_or_default();
        cgroup.delegate_below(name, child.pid(), owner)?;
    }
    let mut console = child.take_console();
    if let (Some(socket), Some(master)) = (&console_socket, console.take_if(|_| console_socket.is_some())) {
        socket.send(crate::console::name(&master).as_bytes(), master.as_fd())?;
    }
    console.iter().for_each(crate::terminal::keep_line_feeds);
    if let Some(socket) = &pidfd_socket {
        socket.send(b"pidfd", child.pidfd())?;
    }
    let init = Init::of(child.pid()).ok_or_else(|| Failed::said("init vanished before it was started"))?;
    dir.note(INIT, &format_init(init))?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, init.pid)?;
    }
    Ok(Made { child, undo, state, init, console })
}

/// A namespace that is joined by path may be the host's own, whose kernel parameters are not the
/// container's to set.
fn refuse_sysctls_of_the_host(spec: &Spec, resources: &InitResources) -> Result<(), Error> {
    let Some(linux) = spec.linux.as_ref().filter(|linux| !linux.sysctl.is_empty()) else { return Ok(()) };
    for kind in NamespaceKind::ALL {
        let Some((file, _)) = resources.joins.iter().find(|(_, flag)| *flag == kind.clone_flag()) else {
            continue;
        };
        let own = format!("/proc/self/ns/{}", kind.proc_name());
        let joined = rustix::fs::fstat(file).map_err(Error::file("stat", &own))?;
        let host = rustix::fs::stat(own.as_str()).map_err(Error::file("stat", &own))?;
        if (joined.st_dev, joined.st_ino) != (host.st_dev, host.st_ino) {
            continue;
        }
        let of_kind = |key: &&String| creel_plan::check::sysctl_namespace(key) == Some(kind);
        if let Some(key) = linux.sysctl.keys().find(of_kind) {
            let why = format!("not allowed in the host's {} namespace", kind.word());
            let at = creel_plan::invalid::key_path(".linux.sysctl", key);
            return Err(creel_plan::Invalid::new(at, why).into());
        }
    }
    Ok(())
}

/// What is kept of the container.
pub fn new_state(request: &CreateRequest, draft: &Draft, cgroup: &Cgroup) -> State {
    let Draft { spec, plan, .. } = draft;
    let filter = draft.filter.as_ref().map(|filter| &filter.compiled);
    State {
        oci_version: spec.oci_version.clone(),
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: rootfs_path(spec, &request.bundle),
        created: crate::time::now_rfc3339(),
        annotations: spec.annotations.clone(),
        owner_uid: rustix::process::getuid().as_raw(),
        cgroup: cgroup.record(),
        resctrl: None,
        namespaces: namespace_flags(spec),
        own_pid_namespace: has_new_namespace(spec, NamespaceKind::Pid),
        stdio: crate::state::stdio_of("self"),
        exec: ExecFacts {
            keyring: plan.init.enter.keyring.as_ref().map(|keyring| keyring.name.clone()),
            keep_groups: plan.init.enter.groups == OldGroups::Keep,
            setgroups_denied: plan.init.process.credentials.groups.is_none(),
            limits_by_host: plan.host.open_sources,
            umask: plan.init.seal.umask,
            has_seccomp: draft.filter.is_some(),
            listener_path: listener(draft),
            listener_metadata: filter.map(|f| f.listener_metadata.clone()).unwrap_or_default(),
            memory_policy: spec.linux.as_ref().and_then(|l| l.memory_policy.clone()),
            personality: spec.linux.as_ref().and_then(|l| l.personality.clone()),
            limited_cpus: spec.linux.as_ref().is_some_and(creel_plan::build::limits_cpus),
            inherits: spec.process.as_ref().is_some_and(crate::exec::is_inherited_from),
        },
        poststart: plan.host.poststart.iter().map(Into::into).collect(),
        poststop: plan.host.poststop.iter().map(Into::into).collect(),
    }
}

pub fn namespaces(spec: &Spec) -> impl Iterator<Item = (NamespaceKind, bool)> + '_ {
    let all = spec.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    all.iter().filter_map(|n| Some((NamespaceKind::from_word(&n.r#type)?, n.path.is_empty())))
}

fn namespace_flags(spec: &Spec) -> u64 {
    namespaces(spec).fold(0, |flags, (kind, _)| flags | kind.clone_flag())
}

fn has_new_namespace(spec: &Spec, wanted: NamespaceKind) -> bool {
    namespaces(spec).any(|(kind, new)| kind == wanted && new)
}

/// Writes what later commands need.
pub fn save(root: &Path, dir: &StateDir, draft: &Draft, state: &State) -> Result<(), Error> {
    let corrupt = |e: serde_json::Error| Error::Corrupt { path: dir.file(STATE), why: e.to_string() };
    if let Some(process) = &draft.spec.process {
        dir.write_early(EXEC, &serde_json::to_vec(process).map_err(corrupt)?)?;
    }
    if let Some(filter) = &draft.filter {
        filter.save(dir, root)?;
    }
    dir.write(STATE, &serde_json::to_vec(state).map_err(corrupt)?)
}

/// The filter as the kernel takes it.
pub fn jail_filter(program: &Program) -> creel_jail::Filter {
    let instruction = |i: &creel_seccomp::SockFilter| creel_sys::seccomp::Instruction {
        code: i.code,
        jt: i.jt,
        jf: i.jf,
        k: i.k,
    };
    creel_jail::Filter { program: program.filter.iter().map(instruction).collect(), flags: program.flags }
}

/// A killed init is often the memory limit's victim: the cgroup knows.
fn explain_death(failed: Failed, cgroup: &Cgroup) -> Failed {
    let killed = failed.call.starts_with("killed by signal");
    match cgroup.oom_kill_count().filter(|&count| killed && count > 0) {
        Some(count) => Failed {
            call: format!("{}; the cgroup counts {count} OOM kill(s)", failed.call),
            hint: Some(".linux.resources.memory.limit may be too low"),
            ..failed
        },
        None => failed,
    }
}

/// A JSON file as text.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(Error::io("open", path))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Corrupt { path: path.to_path_buf(), why: "the file is not UTF-8".into() })
}

/// An error about the file as a whole names the file, one about a field its place.
pub fn in_file(error: creel_plan::Invalid, path: &Path) -> Error {
    if error.at == "." {
        Error::Corrupt { path: path.to_path_buf(), why: error.why }
    } else {
        Error::Invalid(error)
    }
}

/// The pid in decimal without a newline, complete or absent: engines read it at once.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let draft = path.with_file_name(format!(".{name}"));
    let make = || std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&draft);
    let result = make()
        .or_else(|e| {
            // Of a creel that was killed here.
            if e.kind() == std::io::ErrorKind::AlreadyExists {
                std::fs::remove_file(&draft).and_then(|()| make())
            } else {
                Err(e)
            }
        })
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&draft, path));
    result.map_err(Error::io("write pid file", path))
}
