//! A layout with layers that GNU tar wrote, and trees told path by path.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use creel_image_lib::choose::Chosen;
use creel_image_lib::config::ImageConfig;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::layout::Layout;
use creel_image_lib::manifest::media_type;
use creel_image_lib::platform::Platform;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test cannot run here, as hack/test-count.sh reads it.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_string();
    eprintln!("skip: {name}: {why}");
}

/// Whether a program is there; if not, the test says that it is skipped.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    output.stdout
}

pub fn sha(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// A shell script makes a tree below its directory; GNU tar packs it.
pub fn layer(scratch: &Path, name: &str, script: &str, tar: &str) -> Vec<u8> {
    let dir = scratch.join(name);
    std::fs::create_dir(&dir).unwrap();
    let script = format!("set -eu\numask 022\ncd '{}'\n{script}", dir.display());
    run("sh", &["-c", &script]);
    let pack = format!("cd '{}' && tar -c --numeric-owner --sort=name {tar} .", dir.display());
    run("sh", &["-c", &pack])
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes a layout with one image named `a`.
pub fn write_layout(dir: &Path, tars: &[Vec<u8>]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let keep = |kind: &str, bytes: &[u8]| {
        std::fs::write(blobs.join(sha(bytes).hex()), bytes).unwrap();
        Descriptor::of(kind, bytes)
    };
    let ids: Vec<Digest> = tars.iter().map(|tar| sha(tar)).collect();
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<Descriptor> = tars.iter().map(|tar| keep(kind, &gzip(tar))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": ids}
    });
    let config = keep(media_type::OCI_CONFIG, config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers
    });
    let mut manifest = keep(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    manifest.annotations.insert("org.opencontainers.image.ref.name".into(), "a".into());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

pub fn choose(layout: &Layout) -> (Chosen, ImageConfig, Vec<u8>) {
    let chosen = layout.choose(&Platform::new("linux", "amd64", None)).unwrap();
    let config = layout.document(&chosen.manifest.config).unwrap();
    let parsed = ImageConfig::parse(&config).unwrap();
    (chosen, parsed, config)
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Type, mode, owner, size, mtime, links, device, target, attributes and content of every path below.
pub fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.mode() & 0o170_000 == 0o020_000 && meta.rdev() == 0 {
                // What overlayfs hides by has no attributes of its own.
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), "whiteout".to_string());
                continue;
            }
            let content = if meta.is_dir() {
                todo.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                String::from_utf8_lossy(path.read_link().unwrap().as_os_str().as_bytes()).into_owned()
            } else if meta.is_file() {
                sha(&std::fs::read(&path).unwrap()).to_string()
            } else {
                meta.rdev().to_string()
            };
            let size = if meta.is_dir() { 0 } else { meta.size() };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let told = format!(
                "{:o} {}:{} {size} {}.{} {links} {:?} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                xattrs(&path)
            );
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), told);
        }
    }
    found
}
