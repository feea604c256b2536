//! Layers made of the worst names there are, unpacked to a directory: nothing beside it may change.
//!
//! The bytes choose entries from tables, so that each input is a tar whose entries matter. There are two layers,
//! applied to one directory, and each to its own with the patch that the second needs above the first.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use creel_image_lib::digest::{Algorithm, Digest};
use creel_image_lib::stack::{Merged, patch};
use creel_image_lib::unpack::{
    Devices, Error, Expected, Form, Limits, Options, Owners, Tree, Unpacked, unpack_layer,
};

const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    "..",
    ".",
    "",
    "../..",
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    ".wh.",
    ".wh..",
    "outside",
    "secret",
    "a/b",
    "a/../..",
];

/// Where a link leads. `@` is the directory that must not change.
const TARGETS: [&str; 12] = [
    "..",
    "../..",
    "/",
    "a",
    "b",
    "../outside",
    "@",
    "@/secret",
    "../../../../../../../..",
    "a/../../outside",
    "../outside/secret",
    "/proc/self/root",
];

const KINDS: [u8; 8] = [b'0', b'0', b'1', b'2', b'2', b'5', b'3', b'6'];

/// More would only be slower.
const MAX_ENTRIES: usize = 24;

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }
}

fn field(block: &mut [u8], at: usize, text: &str) {
    block[at..at + text.len()].copy_from_slice(text.as_bytes());
}

fn extension(tar: &mut Vec<u8>, flag: u8, body: &[u8]) {
    header(tar, flag, "x", "", 0, body.len());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn header(tar: &mut Vec<u8>, flag: u8, path: &str, link: &str, mode: usize, size: usize) {
    let mut block = [0; 512];
    field(&mut block, 0, &path[..path.len().min(99)]);
    field(&mut block, 100, &format!("{mode:07o}"));
    field(&mut block, 108, "0000000");
    field(&mut block, 116, "0000000");
    field(&mut block, 124, &format!("{size:011o}"));
    field(&mut block, 136, "00000000001");
    field(&mut block, 148, "        ");
    block[156] = flag;
    field(&mut block, 157, &link[..link.len().min(99)]);
    field(&mut block, 257, "ustar\x0000");
    field(&mut block, 329, "0000001");
    field(&mut block, 337, "0000003");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    field(&mut block, 148, &format!("{sum:06o}\0"));
    tar.extend_from_slice(&block);
}

fn layer(bytes: &mut Bytes<'_>, outside: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    let count = bytes.next() % MAX_ENTRIES;
    for _ in 0..count {
        let what = bytes.next();
        let kind = KINDS[what % KINDS.len()];
        let mut path = if what & 0x80 == 0 { String::new() } else { "/".to_owned() };
        for _ in 0..=what >> 3 & 3 {
            path.push_str(PARTS[bytes.next() % PARTS.len()]);
            path.push('/');
        }
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let to = bytes.next();
        let link = if to & 0x40 == 0 { TARGETS[to % TARGETS.len()] } else { PARTS[to % PARTS.len()] };
        let link = link.replace('@', outside);
        if what & 0x40 != 0 {
            let record = |key: &str, value: &str| {
                let bare = key.len() + value.len() + 3;
                let length = (bare..).find(|n| *n == bare + n.to_string().len()).unwrap_or(bare);
                format!("{length} {key}={value}\n")
            };
            let records = [
                record("SCHILY.xattr.trusted.overlay.opaque", "y"),
                record("SCHILY.xattr.user.overlay.redirect", "/"),
                record("SCHILY.xattr.user.a", "b"),
            ];
            extension(&mut tar, b'x', records.concat().as_bytes());
        }
        let body = if kind == b'0' { &b"overwritten"[..to % 12] } else { b"" };
        header(&mut tar, kind, path, &link, (to * 0o11) & 0o7777, body.len());
        tar.extend_from_slice(body);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar
}

/// All that could be seen to change, of what is beside the roots.
fn state(of: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![of.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let content = if meta.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            String::new()
        } else {
            fs::read_to_string(&path).unwrap_or_default()
        };
        let told = format!(
            "{:o} {} {} {} {}.{} {}.{} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        found.insert(path, told);
    }
    found
}

fn apply(tar: &[u8], tree: &mut Tree) -> Result<Unpacked, Error> {
    let digest = Digest::of(Algorithm::Sha256, tar);
    let expected = Expected { digest: &digest, size: tar.len() as u64, diff_id: &digest };
    unpack_layer(tar, expected, &Limits::default(), tree)
}

fn open(path: &Path) -> OwnedFd {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::File::open(path).map(OwnedFd::from).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn run(data: &[u8]) {
    let scratch = tempfile::tempdir_in(shared_memory()).unwrap_or_else(|error| panic!("{error}"));
    let outside = scratch.path().join("outside");
    drop(open(&outside.join("directory")));
    fs::write(outside.join("secret"), "secret").unwrap_or_else(|error| panic!("{error}"));
    fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o640))
        .unwrap_or_else(|error| panic!("{error}"));
    let before = state(&outside);

    let mut bytes = Bytes(data.iter());
    let layers = [(); 2].map(|()| layer(&mut bytes, &outside.to_string_lossy()));
    let root = rustix::process::geteuid().is_root();
    let owners = if root { Owners::Recorded } else { Owners::Squashed };
    let devices = if root { Devices::Make } else { Devices::Skip };
    let options = |form| Options { form, owners, devices, user_xattrs: !root };

    let flat = open(&scratch.path().join("flat"));
    if let Ok(mut tree) = Tree::new(flat, options(Form::Flat)) {
        let applied = layers.iter().all(|layer| apply(layer, &mut tree).is_ok());
        if applied {
            tree.finish().unwrap_or_else(|error| panic!("{error}"));
        }
    }
    let mut needs = Vec::new();
    let mut whole = true;
    for (at, layer) in layers.iter().enumerate() {
        let own = open(&scratch.path().join(at.to_string()));
        let Ok(mut tree) = Tree::new(own, options(Form::Overlay)) else { return };
        match apply(layer, &mut tree) {
            Ok(unpacked) => needs = unpacked.applied.needs,
            Err(_) => whole = false,
        }
        whole &= tree.finish().is_ok();
    }
    if whole {
        let [lower, upper] = ["0", "1"].map(|name| open(&scratch.path().join(name)));
        let into = open(&scratch.path().join("patch"));
        drop(patch(&into, &upper, &Merged::new(vec![lower]), &needs, owners, !root));
    }
    assert_eq!(state(&outside), before);
    let mut beside: Vec<_> =
        fs::read_dir(scratch.path()).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    beside.retain(|name| !["outside", "flat", "0", "1", "patch"].iter().any(|known| name == known));
    assert!(beside.is_empty(), "{beside:?}");
}

/// A file system in memory, where there is one.
fn shared_memory() -> PathBuf {
    let path = Path::new("/dev/shm");
    if path.is_dir() { path.to_path_buf() } else { std::env::temp_dir() }
}
