//! `restore`: CRIU makes the processes of a checkpoint run again as a new container.
//!
//! ```text
//!   config.json ─ lock ─ cgroup, limits ─ state.json ─ roots and sources for CRIU ─ criu swrk ─ its notifications:
//!       setup-namespaces    prestart and createRuntime hooks
//!       orphan-pts-master   the terminal, to --console-socket or to this process
//!       post-restore        state.json with the namespaces as they are now, init
//!   pid file ─ wait and delete, unless detached
//! ```
//!
//! CRIU makes init as a sibling of its own, a child of this process (`rst_sibling`).

mod stage;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use creel_cgroup::stats::rdt::resctrl_root;
use creel_cgroup::{Cgroup, Host};
use creel_jail::{CgroupView, Failed, run_hooks_before};
use creel_plan::names::NamespaceKind;
use creel_plan::spec::Spec;
use creel_plan::steps::Plan;
use rustix::fs::{Mode, OFlags};

use self::stage::Stage;
use crate::create::{Draft, new_state, save, write_pid_file};
use crate::criu::external::{self, Source, open_root};
use crate::criu::{Kind, Logged, Notify, Options, Program, Session, Switch, Text, Version};
use crate::foreground::{Signals, Waiter};
use crate::images::{self, DESCRIPTORS, Images};
use crate::placement::{self, Placement};
use crate::resctrl;
use crate::sockets::CallerSocket;
use crate::state::{Container, Init, State, format_init, hook_state};
use crate::store::{INIT, STATE, StateDir};
use crate::undo::Undo;
use crate::{Error, RestoreRequest, RunMode, Runtime, delete};

const LOG: &str = "restore.log";

/// `restore`. The container's exit code, 0 when detached.
pub fn restore(runtime: &Runtime, request: &RestoreRequest) -> Result<u8, Error> {
    images::warn_rootless("restore");
    let detached = matches!(request.mode, RunMode::Detached);
    let draft = Draft::read(runtime, &request.create, detached)?;
    refuse_cgroup_namespace(&draft.spec)?;
    drop(Images::find(&request.criu)?);
    let program = Program::find()?;
    check_versions(&program, &draft.spec, request)?;
    let signals = if detached { None } else { Some(Signals::block()?) };
    let dir = StateDir::make(&runtime.root, &request.create.id)?;
    if let RunMode::Foreground { subreaper: true, .. } = request.mode {
        crate::foreground::become_subreaper()?;
    }
    let Restored { init, console, undo } = make(runtime, request, &draft, &dir, &program)?;
    let pidfd = creel_jail::join::open_init(init.pid)?;
    console.iter().for_each(crate::terminal::copy_size);
    if let Some(path) = &request.create.pid_file {
        write_pid_file(path, init.pid)?;
    }
    undo.keep();
    dir.unlock();
    let RunMode::Foreground { keep, .. } = request.mode else { return Ok(0) };
    let code = Waiter { pid: init.pid, pidfd, console, signals, proxy: None }.wait();
    if !keep {
        match dir.lock() {
            Ok(()) => delete::destroy(&Container::load(dir)?)?,
            // Somebody else was faster.
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    code
}

/// CRIU joins every kind of namespace but this.
fn refuse_cgroup_namespace(spec: &Spec) -> Result<(), Error> {
    match images::namespace_path(spec, NamespaceKind::Cgroup) {
        Some(_) => {
            let why = "a container in a cgroup namespace given by path cannot be restored";
            Err(creel_plan::Invalid::new(".linux.namespaces", why).into())
        }
        None => Ok(()),
    }
}

fn check_versions(program: &Program, spec: &Spec, request: &RestoreRequest) -> Result<(), Error> {
    for (kind, oldest) in images::EXTERNAL_NAMESPACES {
        if images::namespace_path(spec, kind).is_some() {
            program.needs(oldest, images::namespace_purpose(kind))?;
        }
    }
    if request.lsm_profile.is_some() {
        program.needs(Version(31_600), "--lsm-profile")?;
    }
    if request.lsm_mount_context.is_some() {
        program.needs(Version(31_600), "--lsm-mount-context")?;
    }
    Ok(())
}

/// A container that runs again. Dropped, it is taken back.
struct Restored<'a> {
    init: Init,
    console: Option<OwnedFd>,
    undo: Undo<'a>,
}

fn make<'a>(
    runtime: &Runtime,
    request: &RestoreRequest,
    draft: &Draft,
    dir: &'a StateDir,
    program: &Program,
) -> Result<Restored<'a>, Error> {
    let create = &request.create;
    let mut undo = Undo::new(dir);
    let socket = create.console_socket.as_deref().map(CallerSocket::connect).transpose()?;
    if create.notify_socket.is_some() {
        crate::notify::make_directory(dir)?;
    }
    let placement = Placement::plan(runtime, create, draft)?;
    let cgroup = undo.cgroup(placement.make(dir)?);
    cgroup.apply(&placement.writes)?;
    cgroup.apply_devices(&placement.rules)?;
    if let Some(uid) = placement::owner(&draft.spec, &draft.plan) {
        cgroup.give_to(uid)?;
    }
    let host = placement.host;
    let rdt = draft.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
    let group = rdt.map(|rdt| resctrl::make(dir, rdt, &create.id)).transpose()?;
    group.iter().for_each(|group| undo.resctrl(group));
    let state = State { resctrl: group, ..new_state(create, draft, &cgroup) };
    save(&runtime.root, dir, draft, &state)?;
    undo.hooks(&draft.plan.host.poststop, hook_state(&state, 0));
    let mut container = Restoring { dir, draft, state, socket, console: None, init: None };

    let joined = open_namespaces(&draft.spec)?;
    let stage = Stage::enter(dir, &draft.plan, &container.state.rootfs)?;
    // Opened in there: CRIU mounts in its working directory, which has to be of its own namespace.
    let images = Images::find(&request.criu)?;
    let mut options = images.options(&request.criu, &container.state.annotations, LOG);
    add_flags(&mut options, request);
    add_namespaces(&mut options, &draft.spec, &joined);
    add_descriptors(&mut options, &images)?;
    options.text(Text::Root, &stage.root().to_string_lossy());
    add_mounts(&mut options, &stage, &container, &host)?;
    let inherited: Vec<BorrowedFd<'_>> = joined.iter().map(|(_, file)| file.as_fd()).collect();
    // With a terminal the streams are its; they come from the image.
    let stdio = draft.plan.init.console.is_none();
    let mut session = Session::start(&program.path, "restore", &inherited, stdio)?;
    stage.leave()?;
    drop(joined);
    let placed = join_cgroup(&cgroup, session.pid())?;
    // CRIU is in the scope, which lives without its placeholder now.
    cgroup.settle()?;
    if let (Some(group), Some(rdt), Some(root)) = (&container.state.resctrl, rdt, resctrl_root()) {
        group.add(i32::try_from(session.pid()).unwrap_or(i32::MAX))?;
        group.limit(&root, rdt)?;
    }
    placed.iter().for_each(|(controller, path)| options.cgroup_root(controller, path));
    let logged = Logged { program, log: images.log(LOG) };
    session.serve(Kind::Restore, &options, &logged, &mut |notify, fd| container.notified(notify, fd))?;
    session.end()?;
    let gone = || Failed::said("init vanished while it was restored");
    let init = container.init.ok_or_else(gone)?;
    Ok(Restored { init, console: container.console, undo })
}

fn add_flags(options: &mut Options, request: &RestoreRequest) {
    options.switch(Switch::EvasiveDevices, true);
    options.switch(Switch::RstSibling, true);
    if request.tcp_close {
        options.switch(Switch::TcpClose, true);
    }
    if let Some(profile) = &request.lsm_profile {
        options.text(Text::LsmProfile, profile);
    }
    if let Some(context) = &request.lsm_mount_context {
        options.text(Text::LsmMountContext, context);
    }
}

/// The namespaces that are outside of the images.
fn open_namespaces(spec: &Spec) -> Result<Vec<(NamespaceKind, OwnedFd)>, Error> {
    let kinds = images::EXTERNAL_NAMESPACES.into_iter();
    let paths = kinds.filter_map(|(kind, _)| Some((kind, images::namespace_path(spec, kind)?)));
    paths
        .map(|(kind, path)| {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            Ok((kind, file.map_err(Error::file("open", path))?))
        })
        .collect()
}

fn add_namespaces(options: &mut Options, spec: &Spec, joined: &[(NamespaceKind, OwnedFd)]) {
    for (kind, file) in joined {
        options.inherit_fd(images::namespace_key(*kind), file.as_raw_fd());
    }
    for kind in NamespaceKind::ALL {
        if joined.iter().any(|(other, _)| *other == kind) {
            continue;
        }
        if let Some(path) = images::namespace_path(spec, kind) {
            options.join_namespace(kind.proc_name(), path);
        }
    }
}

/// Standard streams that were pipes are now the caller's.
fn add_descriptors(options: &mut Options, images: &Images) -> Result<(), Error> {
    let links: Vec<String> = serde_json::from_slice(&images.read(DESCRIPTORS)?)
        .map_err(|e| Error::Corrupt { path: DESCRIPTORS.into(), why: e.to_string() })?;
    for (fd, link) in (0..).zip(&links) {
        if link.contains("pipe:") {
            options.inherit_fd(link, fd);
        }
    }
    Ok(())
}

fn add_mounts(
    options: &mut Options,
    stage: &Stage,
    container: &Restoring<'_>,
    host: &Host,
) -> Result<(), Error> {
    let plan = &container.draft.plan;
    let view = own_view(plan, host, &container.state)?;
    let rootfs = open_root(&container.state.rootfs)?;
    let mut masked = false;
    for mount in external::mounts(plan, &view) {
        let name = external::name(&rootfs, &mount.destination);
        match mount.source {
            Source::Bind(i, step) => options.external_mount(&name, &stage.bind(i, step).to_string_lossy()),
            Source::Path(path) => options.external_mount(&name, &path.to_string_lossy()),
            Source::Null => masked = true,
        }
    }
    if masked {
        options.external_mount(external::NULL, external::NULL);
    }
    Ok(())
}

fn own_view(plan: &Plan, host: &Host, state: &State) -> Result<CgroupView, Error> {
    // Mounted by the container's own cgroup namespace: in the image.
    if plan.init.enter.cgroup_namespace {
        Ok(CgroupView::None)
    } else {
        placement::view(host, &state.cgroup, plan)
    }
}

/// Puts CRIU, which is to become the container's processes' parent, into the container's cgroup, and tells where
/// that is: controllers and paths as in proc_pid_cgroup(5).
fn join_cgroup(cgroup: &Rc<Cgroup>, pid: u32) -> Result<Vec<(String, String)>, Error> {
    let pid_text = pid.to_string();
    let fail = || Error::file("write", format!("cgroup of criu ({pid})"));
    for tasks in cgroup.join_fds()? {
        rustix::io::write(&tasks, pid_text.as_bytes()).map_err(fail())?;
    }
    if let Some(dir) = Cgroup::clone_into(cgroup)? {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(dir, "cgroup.procs", flags, Mode::empty()).map_err(fail())?;
        rustix::io::write(&procs, pid_text.as_bytes()).map_err(fail())?;
    }
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", Path::new(&path)))?;
    Ok(cgroup_lines(&text))
}

/// `hierarchy:controllers:path`, one controller at a time.
fn cgroup_lines(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        all.extend(controllers.split(',').map(|one| (one.to_string(), path.to_string())));
    }
    all
}

/// The container while CRIU works on it.
struct Restoring<'a> {
    dir: &'a StateDir,
    draft: &'a Draft,
    state: State,
    socket: Option<CallerSocket>,
    console: Option<OwnedFd>,
    init: Option<Init>,
}

impl Restoring<'_> {
    fn notified(&mut self, notify: &Notify, fd: Option<OwnedFd>) -> Result<(), Error> {
        match notify.script.as_str() {
            "setup-namespaces" => self.run_hooks(notify.pid),
            "orphan-pts-master" => self.take_terminal(fd),
            "post-restore" => self.begin(notify.pid),
            _ => Ok(()),
        }
    }

    fn run_hooks(&self, pid: i32) -> Result<(), Error> {
        let state = hook_state(&self.state, pid);
        let init = creel_jail::join::open_init(pid)?;
        let hooks = &self.draft.plan.host.create_runtime;
        run_hooks_before(hooks, &state, "creating", Some(&state.bundle), Some(init.as_fd()))
            .map_err(|failed| Failed::said(failed.why).at(failed.at).into())
    }

    fn take_terminal(&mut self, fd: Option<OwnedFd>) -> Result<(), Error> {
        let master = fd.ok_or_else(|| Failed::said("criu: a terminal without a descriptor"))?;
        match &self.socket {
            Some(socket) => socket.send(crate::console::name(&master).as_bytes(), master.as_fd()),
            None => {
                crate::terminal::keep_line_feeds(&master);
                self.console = Some(master);
                Ok(())
            }
        }
    }

    /// The processes are there, and stand still until this returns.
    fn begin(&mut self, pid: i32) -> Result<(), Error> {
        let init = Init::of(pid).ok_or_else(|| Failed::said("init vanished while it was restored"))?;
        if is_in_other_time(pid) {
            self.state.namespaces |= NamespaceKind::Time.clone_flag();
        }
        let text = serde_json::to_vec(&self.state)
            .map_err(|e| Error::Corrupt { path: self.dir.file(STATE), why: e.to_string() })?;
        self.dir.write(STATE, &text)?;
        self.dir.note(INIT, &format_init(init))?;
        self.init = Some(init);
        Ok(())
    }
}

/// CRIU gives what it restores a time namespace, in which the clocks go on where they stopped (3.14 and
/// newer): `exec` has to join it.
fn is_in_other_time(pid: i32) -> bool {
    let inode = |path: String| rustix::fs::stat(path).map(|stat| stat.st_ino).ok();
    inode(format!("/proc/{pid}/ns/time")) != inode("/proc/self/ns/time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_its_own_line() {
        let text = "4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n";
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(c, p)| ((*c).to_string(), (*p).to_string())).collect()
        };
        let expected = own(&[("cpu", "/a"), ("cpuacct", "/a"), ("name=systemd", "/b:c"), ("", "/d")]);
        assert_eq!(cgroup_lines(text), expected);
    }
}
