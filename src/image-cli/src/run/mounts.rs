//! `-v`, `--mount`, `--tmpfs`, and the devices of privileged containers.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::runtime_config::Mount;
use serde_json::{Value, json};

use super::flags::bytes;
use crate::cli;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// All mounts that the flags ask for.
pub fn read(words: &ArgMatches) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for text in cli::values(words, "volume") {
        mounts.push(volume(&text).with_context(|| format!("-v {text}"))?);
    }
    for text in cli::values(words, "mount") {
        mounts.push(mount(&text).with_context(|| format!("--mount {text}"))?);
    }
    for text in cli::values(words, "tmpfs") {
        mounts.push(tmpfs(&text).with_context(|| format!("--tmpfs {text}"))?);
    }
    let mut places: Vec<&str> = mounts.iter().map(|mount| mount.destination.trim_end_matches('/')).collect();
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two mounts at {}", pair[0]);
    }
    Ok(mounts)
}

fn destination(text: &str) -> Result<String> {
    if !text.starts_with('/') || text.trim_end_matches('/').is_empty() {
        bail!("the destination {text:?} is not an absolute path below /");
    }
    Ok(text.to_owned())
}

/// The source of a bind mount, which must be there: docker would make an empty directory of root's.
fn bind_source(text: &str) -> Result<String> {
    if !text.starts_with('/') && !text.starts_with('.') {
        bail!("named volumes are not there; write a path, such as ./{text}");
    }
    let path = std::path::absolute(text).with_context(|| text.to_owned())?;
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    path.to_str().map(str::to_owned).ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))
}

fn bind(source: &str, target: &str, mut options: Vec<String>) -> Result<Mount> {
    if !options.iter().any(|option| PROPAGATIONS.contains(&option.as_str())) {
        options.insert(0, "rprivate".to_owned());
    }
    options.insert(0, "rbind".to_owned());
    Ok(Mount {
        destination: destination(target)?,
        kind: "bind".to_owned(),
        source: bind_source(source)?,
        options,
    })
}

/// A volume of the image, which is there as long as the container.
pub fn volume_of_image(source: PathBuf, destination: String) -> Result<Mount> {
    let source = source.into_os_string().into_string();
    let source = source.map_err(|path| anyhow!("{} is not UTF-8", path.display()))?;
    let options = ["rbind", "rprivate"].map(str::to_owned).to_vec();
    Ok(Mount { destination, kind: "bind".to_owned(), source, options })
}

/// `SOURCE:DEST[:OPTIONS]`
fn volume(text: &str) -> Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [source, target] => (source, target, ""),
        [source, target, words] => (source, target, *words),
        _ => bail!("not SOURCE:DEST or SOURCE:DEST:OPTIONS"),
    };
    let mut options = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "rw" | "ro" | "nosuid" | "nodev" | "noexec" | "suid" | "dev" | "exec" => {
                options.push(word.to_owned())
            }
            word if PROPAGATIONS.contains(&word) => options.push(word.to_owned()),
            // Labels are of SELinux; without it docker and podman pass over them too.
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            word => bail!("unknown option {word:?}"),
        }
    }
    bind(source, target, options)
}

/// `type=bind,source=...,target=...` and `type=tmpfs,target=...`
fn mount(text: &str) -> Result<Mount> {
    let (mut kind, mut source, mut target) = (None, None, None);
    let mut options = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match (key, value) {
            ("type", value) => kind = Some(value),
            ("source" | "src", value) => source = Some(value),
            ("target" | "destination" | "dst", value) => target = Some(value),
            ("readonly" | "ro", "" | "true" | "1") => options.push("ro".to_owned()),
            ("readonly" | "ro", "false" | "0") => {}
            ("bind-propagation", value) if PROPAGATIONS.contains(&value) => options.push(value.to_owned()),
            ("tmpfs-size", value) => options.push(format!("size={}", bytes(value)?)),
            ("tmpfs-mode", value) if u32::from_str_radix(value, 8).is_ok() => {
                options.push(format!("mode={value}"))
            }
            _ => bail!("unknown field {field:?}"),
        }
    }
    let target = target.context("a target is missing")?;
    let of_tmpfs = options.iter().any(|option| option.contains('='));
    match (kind, source) {
        (Some("bind"), Some(source)) if !of_tmpfs => bind(source, target, options),
        (Some("bind"), Some(_)) => bail!("sizes and modes are for type=tmpfs"),
        (Some("bind"), None) => bail!("a source is missing"),
        (Some("tmpfs"), None) => Ok(new_tmpfs(destination(target)?, options)),
        (Some("tmpfs"), Some(_)) => bail!("a tmpfs has no source"),
        (Some("volume") | None, _) => bail!("named volumes are not there; write type=bind or type=tmpfs"),
        (Some(other), _) => bail!("unknown type {other:?}; there are bind and tmpfs"),
    }
}

/// `DEST[:OPTIONS]`
fn tmpfs(text: &str) -> Result<Mount> {
    let (target, words) = text.split_once(':').unwrap_or((text, ""));
    let options = words.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Ok(new_tmpfs(destination(target)?, options))
}

fn new_tmpfs(destination: String, more: Vec<String>) -> Mount {
    let mut options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    options.extend(more);
    Mount { destination, kind: "tmpfs".to_owned(), source: "tmpfs".to_owned(), options }
}

/// The devices below a directory, as runtime-spec has them.
pub fn all_devices(dir: &Path) -> Result<Vec<Value>> {
    let mut devices = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry.with_context(|| dir.display().to_string())?.path();
            // One that went away meanwhile is no device of the container.
            let Ok(meta) = path.symlink_metadata() else { continue };
            let kind = meta.file_type();
            // These are the container's own.
            let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/ptmx"].map(Path::new);
            if own.contains(&path.as_path()) {
                continue;
            }
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_char_device() || kind.is_block_device() {
                let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
                devices.push(json!({
                    "path": path.to_string_lossy(),
                    "type": if kind.is_char_device() { "c" } else { "b" },
                    "major": major, "minor": minor,
                    "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
                }));
            }
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn told(result: Result<Mount>) -> String {
        match result {
            Ok(mount) => {
                format!("{} {} {} {}", mount.kind, mount.source, mount.destination, mount.options.join(","))
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn volumes_are_binds_of_paths() {
        for (text, expected) in [
            ("/usr:/a", "bind /usr /a rbind,rprivate"),
            ("/usr:/a:ro,rslave", "bind /usr /a rbind,ro,rslave"),
            ("data:/a", "named volumes are not there; write a path, such as ./data"),
            ("/usr:a", "the destination \"a\" is not an absolute path below /"),
            ("/usr:/", "the destination \"/\" is not an absolute path below /"),
            ("/usr", "not SOURCE:DEST or SOURCE:DEST:OPTIONS"),
            ("/usr:/a:copy", "unknown option \"copy\""),
        ] {
            assert_eq!(told(volume(text)), expected, "{text}");
        }
        assert!(told(volume("/no/such/path:/a")).starts_with("/no/such/path: "));
    }

    #[test]
    fn mounts_have_fields() {
        for (text, expected) in [
            ("type=bind,src=/usr,dst=/a,readonly", "bind /usr /a rbind,rprivate,ro"),
            ("type=tmpfs,target=/t,tmpfs-size=1m", "tmpfs tmpfs /t nosuid,nodev,noexec,size=1048576"),
            ("type=volume,src=x,dst=/a", "named volumes are not there; write type=bind or type=tmpfs"),
            ("type=bind,dst=/a", "a source is missing"),
            ("type=bind,src=/usr", "a target is missing"),
            ("type=bind,src=/usr,dst=/a,volume-driver=x", "unknown field \"volume-driver=x\""),
        ] {
            assert_eq!(told(mount(text)), expected, "{text}");
        }
        assert_eq!(told(tmpfs("/t:size=1k")), "tmpfs tmpfs /t nosuid,nodev,noexec,size=1k");
    }
}
