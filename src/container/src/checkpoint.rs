//! `checkpoint`: CRIU writes the container's processes into image files.
//!
//! Under the lock. Where the container does not go on afterwards it is deleted, as after any other
//! end. What it is made of is read from config.json again: state.json is written at every start and read by
//! every command, and would carry it for this one alone.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use creel_cgroup::{Host, Mode};
use creel_jail::rooted::Root;
use creel_plan::facts::Request;
use creel_plan::spec::Spec;
use creel_plan::steps::Plan;
use creel_sys::Errno;
use rustix::fs::OFlags;

use crate::create::{host_facts, in_file, read_text};
use crate::criu::external::{self, Source, open_root};
use crate::criu::{Features, Kind, Logged, Notify, Number, Options, Program, Session, Switch, Text, Version};
use crate::images::{self, DESCRIPTORS, Images};
use crate::state::{Container, Init};
use crate::{CheckpointRequest, Error, Runtime, Status, delete, hot_mounts};

const LOG: &str = "dump.log";

/// `checkpoint`
pub fn checkpoint(runtime: &Runtime, request: &CheckpointRequest) -> Result<(), Error> {
    let container = Container::open(runtime, &request.id)?;
    container.dir.lock()?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        Status::Created => {
            return Err(Error::Status("container cannot be checkpointed in created state"));
        }
        Status::Stopped => {
            return Err(Error::Status("container cannot be checkpointed in stopped state"));
        }
    }
    images::warn_rootless("checkpoint");
    let init = container.living_init().ok_or(Error::Status("container not running"))?;
    let images = Images::make(&request.criu)?;
    check_parent(request)?;
    let status = request.status_fd.filter(|_| request.criu.lazy_pages).map(status_fd).transpose()?;
    // Nobody but CRIU's client has what the caller passed: a reader waits for the end of file.
    close_inherited()?;
    let program = Program::find()?;
    check_features(&program, request)?;
    let options = options(&container, init, request, &images, &program, status.as_ref())?;
    dump(&program, request, &images, &options, status)?;
    if !request.leave_running && !request.pre_dump {
        delete::destroy(&container)?;
    }
    Ok(())
}

/// CRIU's own message for a wrong one says little.
fn check_parent(request: &CheckpointRequest) -> Result<(), Error> {
    let Some(parent) = &request.parent_path else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::Usage("--parent-path must be relative"));
    }
    let path = request.criu.image_path.join(parent);
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::File { call: "invalid --parent-path: open", path, errno: Errno::NOTDIR }),
        Err(e) => Err(Error::io("invalid --parent-path: stat", path)(e)),
    }
}

/// The descriptor of `--status-fd`, which must be open for writing.
fn status_fd(number: i32) -> Result<OwnedFd, Error> {
    let invalid = |errno| Error::File { call: "invalid --status-fd", path: number.to_string().into(), errno };
    let fd = match number {
        1 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(invalid)?,
        2 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).map_err(invalid)?,
        _ => creel_sys::fd::take_inherited(number).ok_or_else(|| invalid(Errno::BADF))?,
    };
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(invalid)?;
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        Ok(fd)
    } else {
        Err(Error::Usage("invalid --status-fd: not writable"))
    }
}

fn close_inherited() -> Result<(), Error> {
    creel_sys::fd::close_on_exec_from(3).map_err(Error::file("close_range", "inherited descriptors"))
}

fn check_features(program: &Program, request: &CheckpointRequest) -> Result<(), Error> {
    let wanted = Features { mem_track: request.pre_dump, lazy_pages: request.criu.lazy_pages };
    if wanted == Features::default() { Ok(()) } else { program.check(wanted) }
}

fn options(
    container: &Container,
    init: Init,
    request: &CheckpointRequest,
    images: &Images,
    program: &Program,
    status: Option<&OwnedFd>,
) -> Result<Options, Error> {
    let state = &container.state;
    let mut options = images.options(&request.criu, &state.annotations, LOG);
    let rootfs = state.rootfs.to_string_lossy();
    options.text(Text::Root, &rootfs);
    options.number(Number::Pid, i64::from(init.pid));
    options.switch(Switch::LeaveRunning, request.leave_running);
    options.switch(Switch::TcpSkipInFlight, request.tcp_skip_in_flight);
    options.switch(Switch::LinkRemap, request.link_remap);
    if let Some(parent) = &request.parent_path {
        options.text(Text::ParentImg, &parent.to_string_lossy());
        options.switch(Switch::TrackMem, true);
    }
    if let Some((address, port)) = &request.page_server {
        options.page_server(address, *port);
    }
    if let Some(freezer) = freezer(container, program) {
        options.text(Text::FreezeCgroup, freezer);
    }
    // An older CRIU writes to it itself; a later one says `status-ready`.
    if let Some(status) = status.filter(|_| !program.has(Version(31_500))) {
        options.number(Number::StatusFd, i64::from(status.as_raw_fd()));
    }
    let spec = read_spec(container)?;
    add_namespaces(&mut options, &spec, init, program)?;
    if !request.pre_dump {
        let plan = plan(container, &spec)?;
        add_mounts(&mut options, container, init, &plan)?;
        images.write(DESCRIPTORS, &descriptors(container, init)?)?;
    }
    Ok(options)
}

/// The directory by which CRIU stops all processes at once. Without one it stops them one by one.
fn freezer<'c>(container: &'c Container, program: &Program) -> Option<&'c str> {
    let record = &container.state.cgroup;
    let dir = match record.mode {
        Mode::V2 if !program.has(Version(31_400)) => None,
        Mode::V2 => record.dirs.first(),
        Mode::V1 | Mode::Hybrid => {
            record.dirs.iter().find(|dir| dir.controllers.iter().any(|c| c == "freezer"))
        }
    };
    dir.map(|dir| dir.path.as_str())
}

fn read_spec(container: &Container) -> Result<Spec, Error> {
    let path = container.state.bundle.join("config.json");
    creel_plan::parse::parse(&read_text(&path)?).map_err(|e| in_file(e, &path))
}

fn plan(container: &Container, spec: &Spec) -> Result<Plan, Error> {
    let notify = container.dir.has(crate::notify::DIRECTORY);
    let request = Request {
        id: container.state.id.clone(),
        bundle: container.state.bundle.to_string_lossy().into_owned(),
        notify_dir: notify
            .then(|| container.dir.file(crate::notify::DIRECTORY).to_string_lossy().into_owned()),
        ..Request::default()
    };
    Ok(creel_plan::plan(spec, &request, &host_facts(spec))?.plan)
}

/// Namespaces that the config names by path are not the container's to save: they are found again by
/// the same key.
fn add_namespaces(options: &mut Options, spec: &Spec, init: Init, program: &Program) -> Result<(), Error> {
    for (kind, oldest) in images::EXTERNAL_NAMESPACES {
        if images::namespace_path(spec, kind).is_none() {
            continue;
        }
        program.needs(oldest, images::namespace_purpose(kind))?;
        let path = format!("/proc/{}/ns/{}", init.pid, kind.proc_name());
        let inode = rustix::fs::stat(path.as_str()).map_err(Error::file("stat", &path))?.st_ino;
        let key = images::namespace_key(kind);
        options.text(Text::External, &format!("{}[{inode}]:{key}", kind.proc_name()));
    }
    Ok(())
}

fn add_mounts(options: &mut Options, container: &Container, init: Init, plan: &Plan) -> Result<(), Error> {
    let own = plan.init.enter.cgroup_namespace;
    let view = if own {
        creel_jail::CgroupView::None
    } else {
        crate::placement::view(&Host::detect()?, &container.state.cgroup, plan)?
    };
    let rootfs = open_root(&container.state.rootfs)?;
    let inside = container_root(init)?;
    for mount in external::mounts(plan, &view) {
        let Some((point, directory)) = external::mount_point(&inside, &mount.destination) else { continue };
        match mount.source {
            // A masked directory is a tmpfs, which CRIU makes itself.
            Source::Null if directory => {}
            Source::Null => options.external_mount(&point, external::NULL),
            Source::Bind(..) | Source::Path(_) => {
                options.external_mount(&point, &external::name(&rootfs, &mount.destination));
            }
        }
    }
    // Restored where config.json names them by then.
    for mount in hot_mounts::added(&container.dir)?.iter().filter(|mount| mount.bind) {
        if let Some((point, _)) = external::mount_point(&inside, &mount.destination) {
            options.external_mount(&point, &external::name(&rootfs, &mount.destination));
        }
    }
    Ok(())
}

/// The container's root, of that very init.
fn container_root(init: Init) -> Result<Root, Error> {
    let root = open_root(Path::new(&format!("/proc/{}/root", init.pid)))?;
    if init.is_alive() { Ok(root) } else { Err(Error::Status("container not running")) }
}

/// What the standard streams were that init got from the caller, as runc writes it: a pipe among them is
/// connected to the new process's stream on restore. What init has made of them since is its own: a pipe
/// of the container's must not be taken for the caller's.
fn descriptors(container: &Container, init: Init) -> Result<Vec<u8>, Error> {
    let links = match container.state.stdio.as_slice() {
        // A state.json of an older creel.
        [] => crate::state::stdio_of(&init.pid.to_string()),
        known => known.to_vec(),
    };
    serde_json::to_vec(&links).map_err(|e| Error::Corrupt { path: DESCRIPTORS.into(), why: e.to_string() })
}

fn dump(
    program: &Program,
    request: &CheckpointRequest,
    images: &Images,
    options: &Options,
    mut status: Option<OwnedFd>,
) -> Result<(), Error> {
    let (kind, what) = if request.pre_dump { (Kind::PreDump, "pre-dump") } else { (Kind::Dump, "dump") };
    let mut session = Session::start(&program.path, what, &[], false)?;
    let logged = Logged { program, log: images.log(LOG) };
    session.serve(kind, options, &logged, &mut |notify: &Notify, _| {
        if notify.script == "status-ready" {
            if let Some(fd) = status.take() {
                if let Err(errno) = rustix::io::write(fd.as_fd(), &[0]) {
                    tracing::warn!("--status-fd: {}", creel_jail::errno_words(errno));
                }
            }
        }
        Ok(())
    })?;
    // After a pre-dump CRIU waits for the next; the closed socket is the end, and an error to it.
    if !session.end()? && !request.pre_dump {
        let program = program.path.clone();
        let why = "it ended with an error after it had said that all was well".into();
        return Err(Error::from(crate::criu::Failure::Broken { program, what, why }));
    }
    Ok(())
}
