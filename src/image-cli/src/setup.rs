//! Where things are: the store, the runtime beside this program, its state.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::store::{Settings, Store, default_root};

use crate::run::user_namespace;
use crate::{access, cli, container, output};

/// Opens the store, and takes away what containers left that ended without a word.
pub fn store(globals: &ArgMatches) -> Result<Store> {
    // Before that, since the user is root afterwards.
    let root = store_root(globals)?;
    if !rustix::process::geteuid().is_root() {
        access::environment();
    }
    let settings = user_namespace::enter()?;
    let store = Store::open(&root, settings)?;
    if let Some(error) = store.left_behind() {
        output::warning(&format!("what an earlier command left is not removed: {error}"));
    }
    container::sweep(&store);
    Ok(store)
}

fn store_root(globals: &ArgMatches) -> Result<PathBuf> {
    if let Some(root) = cli::value::<PathBuf>(globals, "store") {
        return std::path::absolute(&root).with_context(|| root.display().to_string());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    default_root(variable("XDG_DATA_HOME").as_deref(), variable("HOME").as_deref())
        .ok_or_else(|| anyhow!("no place for the store: HOME is not set; name one with --store"))
}

/// Refuses to begin what the file system has no room for.
pub fn check_room(directory: &Path, size: u64, hint: &str) -> Result<()> {
    let Ok(stat) = rustix::fs::statvfs(directory) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < size {
        let (size, free) = (output::size(size), output::size(free));
        bail!("the layers have {size} compressed, {} has {free} left; {hint}", directory.display());
    }
    Ok(())
}

/// A program beside this one, where its real file is.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    let path = own.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(anyhow!("no {name} beside {}; install both", own.display())) }
}

/// Where bundles are made: beside the state, which lies on a tmpfs.
pub fn bundle_root(state_root: &Path) -> PathBuf {
    let mut name = state_root.as_os_str().to_owned();
    name.push("-bundles");
    PathBuf::from(name)
}

/// What `creel` says where XDG_RUNTIME_DIR is not set: a directory that is root's.
const OF_ROOT: &str = "/run/creel";

/// Where the runtime keeps the state of containers: where `creel` says, or, for a user who may not write there, in
/// the store.
pub fn state_root(globals: &ArgMatches, store: &Store) -> PathBuf {
    let told = cli::value::<PathBuf>(globals, "state-root").unwrap_or_else(|| PathBuf::from(OF_ROOT));
    let denied = told == Path::new(OF_ROOT) && store.settings() != Settings::root();
    if denied { store.root().join("run") } else { told }
}
