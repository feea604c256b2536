//! Files of procfs and directory listings.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::calls::errno_of;

/// A file's text without the newline at its end.
pub fn text(path: &str) -> Value {
    match fs::read(path) {
        Ok(bytes) => json!(String::from_utf8_lossy(&bytes).trim_end()),
        Err(error) => json!({ "error": errno_of(&error) }),
    }
}

/// A file's lines.
pub fn lines(path: &str) -> Value {
    match fs::read(path) {
        Ok(bytes) => json!(String::from_utf8_lossy(&bytes).lines().collect::<Vec<_>>()),
        Err(error) => json!({ "error": errno_of(&error) }),
    }
}

/// mountinfo, one object a line (proc_pid_mountinfo(5)).
pub fn mounts() -> Value {
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => text.lines().map(mount).collect(),
        Err(error) => json!({ "error": errno_of(&error) }),
    }
}

fn mount(line: &str) -> Value {
    let (front, back) = line.split_once(" - ").unwrap_or((line, ""));
    let front: Vec<&str> = front.split(' ').collect();
    let back: Vec<&str> = back.splitn(3, ' ').collect();
    let field = |at: usize| front.get(at).copied().unwrap_or_default();
    let last = |at: usize| back.get(at).copied().unwrap_or_default();
    json!({
        "id": field(0), "parent": field(1), "dev": field(2), "root": field(3), "target": field(4),
        "options": field(5).split(',').collect::<Vec<_>>(),
        "optional": front.get(6..).unwrap_or_default(),
        "type": last(0), "source": last(1), "super": last(2).split(',').collect::<Vec<_>>(),
    })
}

/// Every name below a directory of the same file system, with what it is.
pub fn tree(top: &str) -> Value {
    let mut seen = Map::new();
    let device = fs::metadata(top).map(|meta| meta.dev()).unwrap_or_default();
    walk(Path::new(top), Path::new(top), device, &mut seen);
    Value::Object(seen)
}

fn walk(top: &Path, dir: &Path, device: u64, seen: &mut Map<String, Value>) {
    let Ok(names) = fs::read_dir(dir) else { return };
    for name in names.flatten() {
        let path = name.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let short = path.strip_prefix(top).unwrap_or(&path).to_string_lossy().into_owned();
        seen.insert(short, entry(&path, &meta));
        if meta.is_dir() && meta.dev() == device {
            walk(top, &path, device, seen);
        }
    }
}

/// Type, permissions, owner, and device number or link target of one file.
pub fn entry(path: &Path, meta: &Metadata) -> Value {
    let kind = meta.file_type();
    let name = match () {
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    };
    let mut seen = json!({
        "type": name,
        "mode": format!("{:04o}", meta.mode() & 0o7777),
        "uid": meta.uid(),
        "gid": meta.gid(),
    });
    if kind.is_char_device() || kind.is_block_device() {
        let device = meta.rdev();
        seen["device"] = json!([rustix::fs::major(device), rustix::fs::minor(device)]);
    }
    if kind.is_symlink() {
        seen["link"] = json!(fs::read_link(path).unwrap_or_default());
    }
    seen
}
