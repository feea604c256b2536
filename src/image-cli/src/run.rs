//! `pull-and-run`: an image, pulled if need be, to a running container.
//!
//! The store gives the layers, a directory for the container and the root, mounted; the image's configuration
//! and the flags give config.json. Then this process becomes `creel run`. What can be known to fail is looked
//! at before that, so that nothing has to be cleaned up and the message says what is wrong.

mod command;
mod flags;
mod mounts;
pub mod network;
pub mod sealing;
pub mod user_namespace;

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use clap::ArgMatches;
use creel_image_lib::config::ImageConfig;
use creel_image_lib::mount::Writes;
use creel_image_lib::root::Root;
use creel_image_lib::runtime_config::{Network, Run, runtime_config, volumes};
use creel_image_lib::store::{Container, Kept, Places, Settings};
use serde_json::Value;

use crate::container::{self, Made};
use crate::pull::{self, Policy, Wanted};
use crate::{cli, output, setup};

/// An exit code that says more than that something failed.
#[derive(Debug)]
pub struct ExitWith(pub u8, pub String);

impl fmt::Display for ExitWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for ExitWith {}

/// What the flags say of the container besides its config.json.
struct Options {
    id: String,
    detach: bool,
    keep: bool,
    stdin: bool,
    pid_file: Option<PathBuf>,
}

impl Options {
    fn new(words: &ArgMatches) -> Result<Options> {
        let detach = cli::flag(words, "detach");
        if detach && cli::flag(words, "tty") {
            bail!("-d and -t: a detached container has nobody who would hold its terminal");
        }
        let pid_file = cli::value::<String>(words, "pid-file");
        Ok(Options {
            id: cli::value(words, "name").map_or_else(random_id, Ok)?,
            detach,
            keep: cli::flag(words, "keep") || !cli::value::<bool>(words, "rm").unwrap_or(true),
            stdin: cli::flag(words, "interactive"),
            pid_file: pid_file.map(std::path::absolute).transpose()?,
        })
    }
}

/// Twelve hexadecimal digits.
fn random_id() -> Result<String> {
    let mut bytes = [0; 6];
    let mut source = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes).context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `creel pull-and-run`
pub fn command(globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    // The whole command line is read before anything is fetched.
    let options = Options::new(words)?;
    let mut run = flags::read(words)?;
    let runtime = setup::beside("creel")?;
    let wanted = Wanted::new(words, policy(words))?;
    let store = setup::store(globals)?;
    let state_root = setup::state_root(globals, &store);
    let state = state_root.join(&options.id);
    let bundle = setup::bundle_root(&state_root).join(&options.id);
    if state.exists() {
        bail!("the name {:?} is in use; \"creel delete {}\" frees it", options.id, options.id);
    }
    let image = pull::pull(&store, &wanted)?;
    sealing::begin(&store.unsealed(&image))?;
    // A detached init outlives its runtime; the store keeps its number where nothing else of it may be left.
    let pid_file = options.pid_file.clone().or_else(|| options.detach.then(|| PathBuf::from("pid")));
    let kept = if options.keep { Kept::Yes } else { Kept::No };
    let mut made = Made::new(&store, &options.id, &image, Places { bundle, state, pid_file, kept })?;
    flags::names(words, &options.id, &mut run);
    run.within = if store.settings() == Settings::root() { None } else { user_namespace::maps()? };
    let bundle = made.container.places().bundle.clone();
    network::provide_files(&bundle, &mut run)?;
    made.enter_mounts()?;
    if let Network::Made(path) = &mut run.network {
        *path = network::namespace(&bundle).display().to_string();
        network::start_pasta(&bundle)?;
    }
    made.mount(if options.keep { Writes::Durable } else { Writes::Volatile })?;
    let root = Root::open(made.container.rootfs())?;
    let config = write_bundle((&store.config(&image)?, &root), &made.container, &mut run)?;
    command::check(&root, &config, &run)?;
    let mut call = Command::new(runtime);
    call.args(cli::values(globals, "runtime-arg"))
        .arg("--root")
        .arg(&state_root)
        .arg("run")
        .arg("--bundle")
        .arg(&bundle);
    if options.detach {
        call.arg("--detach");
        if state_root.starts_with(store.root()) {
            let root = state_root.display();
            output::warning(&format!(
                "XDG_RUNTIME_DIR is not set: \"creel --root {root}\" finds the container"
            ));
        }
        output::write(&format!("{}\n", options.id))?;
    }
    if options.keep {
        call.arg("--keep");
    }
    if let Some(path) = made.container.pid_file() {
        call.arg("--pid-file").arg(path);
    }
    if !options.stdin {
        call.stdin(Stdio::null());
    }
    call.arg(&options.id);
    made.keep()?;
    let error = call.exec();
    made.take_back();
    Err(Error::from(error).context("execve creel"))
}

fn policy(words: &ArgMatches) -> Policy {
    match cli::value::<String>(words, "pull").as_deref() {
        Some("always") => Policy::Always,
        Some("never") => Policy::Never,
        Some("newer") => Policy::Newer,
        Some(_) | None => Policy::Missing,
    }
}

/// Writes config.json.
fn write_bundle((image, root): (&ImageConfig, &Root), container: &Container, run: &mut Run) -> Result<Value> {
    for place in volumes(image, run) {
        run.mounts.push(mounts::volume_of_image(container.make_volume(&place)?, place)?);
    }
    let rootfs = container.rootfs();
    let rootfs = rootfs.to_str().with_context(|| format!("{} is not UTF-8", rootfs.display()))?;
    let mut value = runtime_config(image, run, &root.users()?, rootfs)?;
    value["hooks"] = container::hooks(container)?;
    if run.privileged || run.cap_add.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        keep_held_capabilities(&mut value["process"]["capabilities"])?;
    }
    let path = container.places().bundle.join("config.json");
    std::fs::write(&path, serde_json::to_vec(&value)?).with_context(|| path.display().to_string())?;
    Ok(value)
}

/// "All" are those that this process has: a container of a container cannot have more, and capset(2) would
/// refuse to give them.
fn keep_held_capabilities(sets: &mut Value) -> Result<()> {
    let held = rustix::thread::capabilities(None).context("capget")?.permitted;
    let held: Vec<String> = held.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    for set in ["bounding", "effective", "permitted"] {
        if let Some(names) = sets[set].as_array_mut() {
            names.retain(|name| held.iter().any(|held| name == held));
        }
    }
    Ok(())
}
