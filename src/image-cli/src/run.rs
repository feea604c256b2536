//! `pull-and-run`: an image, pulled if need be, to a running container.
//!
//! The store gives the layers, a directory for the container and the root, mounted; the image's configuration
//! and the flags give config.json. Then this process becomes `creel run`. What can be known to fail is looked
//! at before that, so that nothing has to be cleaned up and the message says what is wrong.

mod command;
mod flags;
mod mounts;

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use clap::ArgMatches;
use creel_image_lib::runtime_config::{Run, runtime_config};
use creel_image_lib::store::{Container, Image, Store};
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
    let state = setup::state_root(globals).join(&options.id);
    if state.exists() {
        bail!("the name {:?} is in use; \"creel delete {}\" frees it", options.id, options.id);
    }
    let image = pull::pull(&store, &wanted)?;
    let mut made = Made::new(&store, &options.id, &image, &state)?;
    flags::names(words, &options.id, &mut run);
    mounts::provide_network_files(made.container.path(), &mut run)?;
    bundle(&store, &image, &made.container, &run)?;
    made.mount()?;
    command::check(&made.container, &run)?;
    let mut call = Command::new(runtime);
    call.args(cli::values(globals, "runtime-arg")).arg("run").arg("--bundle").arg(made.container.path());
    if options.detach {
        call.arg("--detach");
        output::write(&format!("{}\n", options.id))?;
    }
    if options.keep {
        call.arg("--keep");
    }
    if let Some(path) = &options.pid_file {
        call.arg("--pid-file").arg(path);
    }
    if !options.stdin {
        call.stdin(Stdio::null());
    }
    call.arg(&options.id);
    made.keep();
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
fn bundle(store: &Store, image: &Image, container: &Container, run: &Run) -> Result<()> {
    let config = store.config(image)?;
    let mut value = runtime_config(&config, run, &store.users(image)?, "rootfs")?;
    value["hooks"] = container::hooks(container)?;
    if run.privileged || run.cap_add.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        keep_held_capabilities(&mut value["process"]["capabilities"])?;
    }
    write_json(&container.path().join("config.json"), &value)
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

fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, serde_json::to_vec(value)?).with_context(|| path.display().to_string())
}
