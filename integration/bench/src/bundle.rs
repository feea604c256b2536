//! The bundles: one root file system per config, one config.json per container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Host id of the container's root in `userns.json`.
const MAPPED_ROOT: u32 = 100_000;

/// The config as shipped, before a container's own paths are put in.
pub fn config(name: &str) -> Result<Value> {
    let text = match name {
        "min" => include_str!("../configs/min.json"),
        "k8s" => include_str!("../configs/k8s.json"),
        "userns" => include_str!("../configs/userns.json"),
        _ => bail!("no config \"{name}\"; there is min, k8s and userns"),
    };
    serde_json::from_str(text).with_context(|| name.to_owned())
}

/// Makes `rootfs` (a static busybox as /bin/true, /bin/sh and /bin/sleep) and `podvol` (what the
/// k8s config binds) in `directory`. For a config with a user namespace they belong to its root.
pub fn make_shared(directory: &Path, busybox: &Path, config: &Value) -> Result<()> {
    let bin = directory.join("rootfs/bin");
    let volume = directory.join("podvol");
    fs::create_dir_all(&bin)?;
    for name in ["data", "sa"] {
        fs::create_dir_all(volume.join(name))?;
    }
    for name in ["hosts", "resolv.conf"] {
        fs::write(volume.join(name), "")?;
    }
    let first = bin.join("busybox");
    fs::copy(busybox, &first).with_context(|| format!("{}; install busybox-static", busybox.display()))?;
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755))?;
    for name in ["true", "sh", "sleep"] {
        fs::hard_link(&first, bin.join(name))?;
    }
    if !config["linux"]["uidMappings"].is_null() {
        for path in ["rootfs", "rootfs/bin", "rootfs/bin/busybox", "podvol", "podvol/data", "podvol/sa"] {
            chown(directory.join(path), Some(MAPPED_ROOT), Some(MAPPED_ROOT))?;
        }
    }
    Ok(())
}

/// Writes `bundle`, which runs `command` in the cgroup `cgroup` (as `.linux.cgroupsPath`), on the
/// rootfs of `shared`.
pub fn write(bundle: &Path, shared: &Path, mut config: Value, command: &[&str], cgroup: &str) -> Result<()> {
    fs::create_dir(bundle)?;
    config["process"]["args"] = json!(command);
    config["root"]["path"] = json!(shared.join("rootfs"));
    config["linux"]["cgroupsPath"] = json!(cgroup);
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(source) = mount["source"].as_str().filter(|source| source.starts_with("podvol/")) {
            mount["source"] = json!(shared.join(source));
        }
    }
    Ok(fs::write(bundle.join("config.json"), config.to_string())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_bundle_names_its_own_cgroup_and_absolute_sources() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("a");
        let config = config("k8s").unwrap();
        write(&bundle, directory.path(), config, &["/bin/sleep", "9"], "/creel-x").unwrap();
        let written: Value =
            serde_json::from_str(&fs::read_to_string(bundle.join("config.json")).unwrap()).unwrap();
        assert_eq!(written["linux"]["cgroupsPath"], "/creel-x");
        assert_eq!(written["process"]["args"], json!(["/bin/sleep", "9"]));
        let binds: Vec<&str> = written["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .map(|mount| mount["source"].as_str().unwrap())
            .collect();
        assert_eq!(binds.len(), 4);
        assert!(binds.iter().all(|source| Path::new(source).starts_with(directory.path())), "{binds:?}");
    }

    #[test]
    fn an_unknown_config_is_named_in_the_error() {
        assert!(config("big").unwrap_err().to_string().contains("\"big\""));
    }
}
