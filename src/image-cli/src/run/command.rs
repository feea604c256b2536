//! Whether the container's command is there, looked at before the runtime is called.

use std::path::Path;

use anyhow::Result;
use creel_image_lib::root::Root;
use creel_image_lib::runtime_config::Run;
use rustix::fs::FileType;
use serde_json::Value;

use super::ExitWith;

/// Exit codes of shells, docker and podman: found and not to be executed, not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Executable,
    Other,
}

/// Looks for the command in the mounted root, by the PATH and working directory of config.json. Mounts of the
/// user may bring it: then only the runtime knows.
pub fn check(root: &Root, config: &Value, run: &Run) -> Result<()> {
    let process = &config["process"];
    let command = process["args"][0].as_str().unwrap_or_default();
    let cwd = process["cwd"].as_str().unwrap_or("/");
    let env = process["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    let search = env.iter().filter_map(Value::as_str).find_map(|text| text.strip_prefix("PATH="));
    let own = |destination: &str| !matches!(destination, "/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf");
    if run.mounts.iter().any(|mount| own(&mount.destination)) {
        return Ok(());
    }
    let found: Vec<Found> = if command.contains('/') {
        // An absolute one takes the place of the directory.
        vec![look(root, &Path::new(cwd).join(command))?]
    } else {
        let directories = search.unwrap_or_default().split(':').filter(|dir| !dir.is_empty());
        directories.map(|dir| look(root, &Path::new(dir).join(command))).collect::<Result<_>>()?
    };
    if found.contains(&Found::Executable) {
        return Ok(());
    }
    let (code, why) = if found.contains(&Found::Other) {
        (NOT_EXECUTABLE, format!("{command:?} is not an executable file"))
    } else if command.contains('/') {
        (NOT_FOUND, format!("{command:?}: no such file or directory in the image"))
    } else {
        (NOT_FOUND, format!("{command:?}: executable file not found in $PATH"))
    };
    Err(ExitWith(code, why).into())
}

fn look(root: &Root, path: &Path) -> Result<Found> {
    Ok(match root.find(path)? {
        None => Found::Nothing,
        Some(stat) => {
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_file && stat.st_mode & 0o111 != 0 { Found::Executable } else { Found::Other }
        }
    })
}
