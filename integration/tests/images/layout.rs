//! Image layouts made by hand, so that each byte of them can be wrong.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use creel_image_lib::digest::{Algorithm, Digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The only program of the images; the others are links to it.
pub const BUSYBOX: &str = "/bin/busybox";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layout.
pub struct Layout {
    pub path: PathBuf,
}

/// A layer that is in a layout.
#[derive(Clone)]
pub struct Layer {
    descriptor: Value,
    diff_id: String,
}

impl Layer {
    /// Name of its blob.
    pub fn hex(&self) -> String {
        self.descriptor["digest"].as_str().unwrap().replace("sha256:", "")
    }
}

pub fn digest(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// What this machine is called in images.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Layout {
    pub fn new(path: PathBuf) -> Layout {
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(path.join("index.json"), json!({"schemaVersion": 2, "manifests": []}).to_string())
            .unwrap();
        Layout { path }
    }

    pub fn blob(&self, hex: &str) -> PathBuf {
        self.path.join("blobs/sha256").join(hex)
    }

    /// A blob, with its descriptor.
    pub fn put(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        std::fs::write(self.blob(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// A layer of what is in a directory.
    pub fn layer(&self, tree: &Path) -> Layer {
        self.layer_of(&tar(tree, "."))
    }

    /// A layer that is this tar.
    pub fn layer_of(&self, tar: &[u8]) -> Layer {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(tar).unwrap();
        Layer { descriptor: self.put(LAYER, &gzip.finish().unwrap()), diff_id: digest(tar) }
    }

    /// A manifest, not in the index yet.
    pub fn manifest(&self, layers: &[Layer], config: &Value, architecture: &str) -> Value {
        let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.put(CONFIG, config.to_string().as_bytes()), "layers": layers,
        });
        let mut entry = self.put(MANIFEST, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    }

    /// An index, not in the layout's own yet.
    pub fn index(&self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.put(INDEX, index.to_string().as_bytes())
    }

    /// Gives an entry a name.
    pub fn name(&self, mut entry: Value, name: &str) {
        let path = self.path.join("index.json");
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let entries = index["manifests"].as_array_mut().unwrap();
        entries.retain(|other| other["annotations"] != entry["annotations"]);
        entries.push(entry);
        std::fs::write(path, index.to_string()).unwrap();
    }

    /// An image for this machine.
    pub fn image(&self, name: &str, layers: &[Layer], config: &Value) {
        self.name(self.manifest(layers, config, architecture()), name);
    }
}

/// A tar of a part of a tree.
pub fn tar(tree: &Path, part: &str) -> Vec<u8> {
    let tar = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "-C"])
        .arg(tree)
        .args(["-cf", "-", part])
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// The entry of a hard link, which has no body (POSIX, pax "ustar").
pub fn hard_link(name: &str, target: &str) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\x0000000000000\x0000000000000\0        1");
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A root with busybox in it.
pub fn busybox_tree(path: &Path) -> PathBuf {
    for dir in ["bin", "etc", "tmp", "srv"] {
        std::fs::create_dir_all(path.join(dir)).unwrap();
    }
    std::fs::copy(BUSYBOX, path.join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "echo", "id", "ls", "sleep", "true", "pwd", "hostname", "touch", "grep", "wc", "head"]
    {
        std::os::unix::fs::symlink("busybox", path.join("bin").join(name)).unwrap();
    }
    std::fs::write(path.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
        .unwrap();
    std::fs::write(path.join("etc/group"), "root:x:0:\nweb:x:34:\nstaff:x:50:web\n").unwrap();
    std::fs::write(path.join("etc/plain"), "not a program\n").unwrap();
    path.to_owned()
}
