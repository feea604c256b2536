//! Layers that were just pulled are sealed beside the run, which does not wait for the disk (docs/design/0016).
//!
//! The process that does it is nobody's child: what `creel run` does not know it need not wait for. It is outside of
//! the terminal's group, and holds neither the store nor the container's mount namespace.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use creel_image_lib::store;

/// What the process is called by that leaves another one behind, and that one.
pub const LEAVE: &str = "leave-sealing";
pub const SEAL: &str = "seal";

fn call(name: &str) -> Result<Command> {
    let own = std::env::current_exe().context("readlink /proc/self/exe")?;
    let mut command = Command::new(own);
    command.arg(name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    Ok(command)
}

/// Has these directories sealed, and does not wait for that.
pub fn begin(directories: &[PathBuf]) -> Result<()> {
    if directories.is_empty() {
        return Ok(());
    }
    let status = call(LEAVE)?.args(directories).status().context("start the sealing of layers")?;
    if !status.success() {
        bail!("start the sealing of layers: {status}");
    }
    Ok(())
}

/// `creel-image leave-sealing DIR...`: starts the process that seals, and ends before it does.
pub fn leave(directories: &[OsString]) -> Result<()> {
    call(SEAL)?.args(directories).process_group(0).spawn().map(drop).context("start the sealing of layers")
}

/// `creel-image seal DIR...`
pub fn seal_now(directories: &[OsString]) -> Result<()> {
    Ok(store::seal(&directories.iter().map(PathBuf::from).collect::<Vec<_>>())?)
}
