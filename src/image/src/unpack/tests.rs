#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::testing::{Fields, TarBuilder, gzip, is_root};

fn options(form: Form) -> Options {
    let root = is_root();
    Options {
        form,
        owners: if root { Owners::Recorded } else { Owners::Squashed },
        devices: if root { Devices::Make } else { Devices::Skip },
        user_xattrs: !root,
    }
}

fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn unpack_blob(tree: &mut Tree, blob: &[u8], tar: &[u8], limits: &Limits) -> Result<Unpacked, Error> {
    let (digest, diff_id) = (Digest::of(Algorithm::Sha256, blob), Digest::of(Algorithm::Sha256, tar));
    let expected = Expected { digest: &digest, size: blob.len() as u64, diff_id: &diff_id };
    unpack_layer(blob, expected, limits, tree)
}

fn unpack(form: Form, layers: &[Vec<u8>]) -> (tempfile::TempDir, Result<Vec<Applied>, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(open(dir.path()), options(form)).unwrap();
    let applied = layers
        .iter()
        .map(|layer| unpack_blob(&mut tree, layer, layer, &Limits::default()).map(|done| done.applied))
        .collect();
    if let Ok(applied) = applied {
        tree.finish().unwrap();
        return (dir, Ok(applied));
    }
    (dir, applied)
}

fn layer(build: impl FnOnce(&mut TarBuilder)) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    build(&mut tar);
    tar.finish()
}

/// Every path below a directory with a word for its type and, for files, the content.
fn tree_of(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let word = if meta.is_dir() {
                todo.push(path.clone());
                "dir".to_string()
            } else if meta.is_symlink() {
                format!("-> {}", path.read_link().unwrap().display())
            } else if meta.is_file() {
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()
            } else if meta.file_type().is_char_device() {
                format!("char {}", meta.rdev())
            } else {
                "other".to_string()
            };
            found.insert(path.strip_prefix(dir).unwrap().display().to_string(), word);
        }
    }
    found
}

fn assert_tree(dir: &Path, expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(path, word)| (path.to_string(), word.to_string())).collect();
    assert_eq!(tree_of(dir), expected);
}

fn lower() -> Vec<u8> {
    layer(|tar| {
        for dir in ["d", "d/sub", "gone"] {
            tar.dir(dir, 0o755);
        }
        tar.file("d/low", b"low");
        tar.file("d/sub/low", b"low");
        tar.file("gone/x", b"low");
        tar.file("f", b"low");
    })
}

#[test]
fn whiteouts_touch_only_what_is_below_wherever_they_stand() {
    let upper = layer(|tar| {
        tar.file("d/sub/new", b"new");
        tar.file("f2", b"new");
        tar.file("d/.wh..wh..opq", b"");
        tar.file(".wh.gone", b"");
        tar.file(".wh.f2", b"");
        tar.file(".wh.f", b"");
        tar.file(".wh.never", b"");
        tar.file(".wh..wh.plnk/x", b"");
    });
    let (dir, applied) = unpack(Form::Flat, &[lower(), upper]);
    applied.unwrap();
    assert_tree(dir.path(), &[("d", "dir"), ("d/sub", "dir"), ("d/sub/new", "new"), ("f2", "new")]);
}

#[test]
fn a_whiteout_before_its_name_makes_place_for_it() {
    let upper = layer(|tar| {
        tar.file(".wh.d", b"");
        tar.dir("d", 0o700);
        tar.file("d/new", b"new");
        tar.file(".wh.f", b"");
        tar.file("f", b"new");
    });
    let (dir, applied) = unpack(Form::Flat, &[lower(), upper]);
    applied.unwrap();
    let expected = [("d", "dir"), ("d/new", "new"), ("f", "new"), ("gone", "dir"), ("gone/x", "low")];
    assert_tree(dir.path(), &expected);
}

#[test]
fn overlay_form_has_devices_and_attributes_for_whiteouts() {
    let upper = layer(|tar| {
        tar.file(".wh.f", b"");
        tar.dir("d", 0o755);
        tar.file("d/.wh..wh..opq", b"");
        tar.file(".wh.gone", b"");
        tar.dir("gone", 0o755);
        tar.dir("new", 0o755);
        tar.file(".wh.new", b"");
        tar.file(".wh..wh..opq", b"");
    });
    let (dir, applied) = unpack(Form::Overlay, &[upper]);
    let applied = applied.unwrap().remove(0);
    assert_tree(dir.path(), &[("d", "dir"), ("f", "char 0"), ("gone", "dir"), ("new", "dir")]);
    assert!(applied.root_opaque && !applied.root_stated && applied.needs.is_empty());
    let name = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    for path in ["d", "gone", "new"] {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(dir.path().join(path), name, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y", "{path}");
    }
}

#[test]
fn paths_that_lead_out_are_refused_or_stay_inside() {
    for name in ["../evil", "a/../../evil", "/../evil"] {
        let (_dir, applied) = unpack(Form::Flat, &[layer(|tar| tar.file(name, b"x"))]);
        assert!(matches!(applied, Err(Error::Escape { why: Escape::AboveRoot, .. })), "{name}");
    }
    let (_dir, applied) = unpack(Form::Flat, &[layer(|tar| tar.link(b'1', "a", "../../etc/hostname"))]);
    assert!(matches!(applied, Err(Error::Escape { why: Escape::AboveRoot, .. })));
    let (_dir, applied) = unpack(Form::Flat, &[layer(|tar| tar.raw(b'2', "./", b""))]);
    assert!(matches!(applied, Err(Error::Escape { why: Escape::Root, .. })));

    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("victim"), "safe").unwrap();
    let target = outside.path().to_str().unwrap();
    let evil = layer(|tar| {
        tar.link(b'2', "abs", target);
        tar.file("abs/victim", b"evil");
        tar.link(b'2', "up", "../../../../../../../../..");
        tar.file("up/top", b"inside");
        tar.link(b'2', "file", &format!("{target}/victim"));
        tar.file("file", b"replaced");
        tar.file("/absolute", b"inside");
        tar.file("abs/.wh.victim2", b"");
        tar.link(b'2', "here", "usr/here");
        tar.file("here/x", b"made through a link");
    });
    let (dir, applied) = unpack(Form::Flat, &[evil]);
    applied.unwrap();
    assert_eq!(std::fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
    let found = tree_of(dir.path());
    assert_eq!(found["top"], "inside");
    assert_eq!(found["file"], "replaced");
    assert_eq!(found["absolute"], "inside");
    assert_eq!(found["usr/here/x"], "made through a link");
    assert_eq!(found[&format!("{}/victim", target.trim_start_matches('/'))], "evil");
}

#[test]
fn links_that_lead_in_a_circle_are_refused() {
    let circle = layer(|tar| {
        tar.link(b'2', "a", "b");
        tar.link(b'2', "b", "a");
        tar.file("a/x", b"");
    });
    let (_dir, applied) = unpack(Form::Flat, &[circle]);
    assert!(matches!(applied, Err(Error::Escape { why: Escape::Loop, .. })));
    let (_dir, applied) = unpack(
        Form::Flat,
        &[layer(|tar| {
            tar.file("f", b"");
            tar.file("f/x", b"")
        })],
    );
    assert!(matches!(applied, Err(Error::Escape { why: Escape::Parent, .. })));
}

#[test]
fn hard_links_share_and_replacing_one_name_leaves_the_other() {
    let first = layer(|tar| {
        tar.file("a", b"shared");
        tar.link(b'1', "b", "/a");
        tar.link(b'2', "s", "nowhere");
        tar.link(b'1', "s2", "s");
        tar.link(b'1', "a", "a");
    });
    let second = layer(|tar| {
        tar.file("a", b"new");
        tar.link(b'1', "c", "b");
    });
    let (dir, applied) = unpack(Form::Flat, &[first, second]);
    applied.unwrap();
    let expected =
        [("a", "new"), ("b", "shared"), ("c", "shared"), ("s", "-> nowhere"), ("s2", "-> nowhere")];
    assert_tree(dir.path(), &expected);
    assert_eq!(dir.path().join("b").metadata().unwrap().nlink(), 2);
    let (_dir, applied) = unpack(Form::Flat, &[layer(|tar| tar.link(b'1', "c", "none"))]);
    assert_eq!(applied.unwrap_err().to_string(), "linkat(\"none\"): ENOENT (no such file or directory)");
}

#[test]
fn a_layer_alone_says_what_it_takes_from_below() {
    let upper = layer(|tar| {
        tar.file("usr/lib/new", b"new");
        tar.link(b'1', "usr/link", "f");
        tar.link(b'1', "gone", "f");
        tar.file("gone", b"replaced");
        tar.file("stated/x", b"");
        tar.dir("stated", 0o700);
        tar.dir("./", 0o755);
    });
    let (_dir, applied) = unpack(Form::Overlay, &[upper]);
    let applied = applied.unwrap().remove(0);
    let expected = [
        Need::Directory(b"usr".to_vec()),
        Need::Directory(b"usr/lib".to_vec()),
        Need::Link { path: b"usr/link".to_vec(), target: b"f".to_vec() },
    ];
    assert_eq!(applied.needs, expected);
    assert!(applied.root_stated);
}

#[test]
fn attributes_survive_in_the_order_that_keeps_them() {
    let stated = |flag, mode, link| Fields {
        flag,
        mode,
        uid: 12,
        gid: 34,
        mtime: 1_234_567_890,
        link,
        ..Fields::default()
    };
    let tar = layer(|tar| {
        tar.entry("dir/", &stated(b'5', 0o2555, ""), b"");
        let cap = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        tar.pax(&[("SCHILY.xattr.security.capability", cap), ("mtime", b"1234567890.25")]);
        tar.entry("dir/cap", &stated(b'0', 0o6755, ""), b"x");
        tar.pax(&[("SCHILY.xattr.user.note", b"a\0b"), ("SCHILY.xattr.user.overlay.opaque", b"y")]);
        tar.entry("dir/none", &stated(b'0', 0, ""), b"");
        tar.entry("dir/link", &stated(b'2', 0o777, "cap"), b"");
        tar.entry("dir/fifo", &stated(b'6', 0o622, ""), b"");
        tar.entry("dir/dev", &Fields { device: (1, 3), ..stated(b'3', 0o666, "") }, b"");
        tar.entry("dir/zero", &Fields { device: (0, 0), ..stated(b'3', 0o666, "") }, b"");
    });
    let (dir, applied) = unpack(Form::Flat, &[tar]);
    let applied = applied.unwrap().remove(0);
    let root = is_root();
    let of = |name: &str| dir.path().join(name).symlink_metadata().unwrap();
    let modes = [("dir", 0o2555), ("dir/cap", 0o6755), ("dir/none", 0), ("dir/fifo", 0o622)];
    for (name, mode) in modes {
        assert_eq!(of(name).mode() & 0o7777, mode, "{name}");
    }
    for name in ["dir", "dir/cap", "dir/none", "dir/link", "dir/fifo"] {
        assert_eq!(of(name).mtime(), 1_234_567_890, "{name}");
        if root {
            assert_eq!((of(name).uid(), of(name).gid()), (12, 34), "{name}");
        }
    }
    assert_eq!(of("dir/cap").mtime_nsec(), 250_000_000);
    assert!(!dir.path().join("dir/zero").exists());
    if root {
        assert_eq!(of("dir/dev").rdev(), rustix::fs::makedev(1, 3));
        let mut value = [0; 64];
        let name = dir.path().join("dir/cap");
        let length = rustix::fs::getxattr(&name, "security.capability", &mut value[..]).unwrap();
        assert_eq!(length, 20);
    }
    if !root {
        // Who is not root reads attributes by the mode, too.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("dir/none"), readable).unwrap();
    }
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(dir.path().join("dir/none"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"a\0b");
    let whys: Vec<&str> = applied.skipped.iter().map(|skipped| skipped.why.as_str()).collect();
    assert!(whys.contains(&"attribute user.overlay.opaque is overlayfs's own"), "{whys:?}");
    assert!(whys.contains(&"character device 0:0 is overlayfs's whiteout"), "{whys:?}");
}

#[test]
fn a_directory_over_a_directory_keeps_what_is_in_it() {
    let upper = layer(|tar| {
        tar.dir("d", 0o711);
        tar.dir("f", 0o755);
        tar.file("gone", b"file");
    });
    let (dir, applied) = unpack(Form::Flat, &[lower(), upper]);
    applied.unwrap();
    let expected = [
        ("d", "dir"),
        ("d/low", "low"),
        ("d/sub", "dir"),
        ("d/sub/low", "low"),
        ("f", "dir"),
        ("gone", "file"),
    ];
    assert_tree(dir.path(), &expected);
    assert_eq!(dir.path().join("d").metadata().unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn sparse_files_have_their_holes() {
    let tar = layer(|tar| {
        tar.pax(&[("GNU.sparse.size", b"1073741824"), ("GNU.sparse.map", b"4096,5,1073741000,2")]);
        tar.file("s", b"abcdeXY");
    });
    let (dir, applied) = unpack(Form::Flat, &[tar]);
    applied.unwrap();
    let meta = dir.path().join("s").metadata().unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() < 100, "{} blocks", meta.blocks());
    let mut part = [0; 7];
    let file = std::fs::File::open(dir.path().join("s")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut part, 4095).unwrap();
    assert_eq!(&part, b"\0abcde\0");
}

#[test]
fn both_digests_are_looked_at_whatever_the_compression() {
    let tar = lower();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let right = Digest::of(Algorithm::Sha256, &tar);
    for blob in [tar.clone(), gzip(&tar), zstd::encode_all(tar.as_slice(), 3).unwrap()] {
        let digest = Digest::of(Algorithm::Sha256, &blob);
        let try_with = |digest: &Digest, size: u64, diff_id: &Digest| {
            let dir = tempfile::tempdir().unwrap();
            let mut tree = Tree::new(open(dir.path()), options(Form::Flat)).unwrap();
            let expected = Expected { digest, size, diff_id };
            unpack_layer(blob.as_slice(), expected, &Limits::default(), &mut tree)
        };
        let size = blob.len() as u64;
        assert_eq!(try_with(&digest, size, &right).unwrap().bytes, tar.len() as u64);
        assert!(matches!(try_with(&digest, size, &other), Err(Error::DiffId { .. })));
        assert!(matches!(try_with(&other, size, &right), Err(Error::Read(_))));
        assert!(matches!(try_with(&digest, size - 1, &right), Err(Error::Read(_))));
        assert!(matches!(try_with(&digest, size + 1, &right), Err(Error::Read(_))));
        if blob != tar {
            assert!(matches!(try_with(&digest, size, &digest), Err(Error::DiffIdOfBlob)));
        }
    }
}

#[test]
fn garbage_behind_the_archive_counts_for_the_diff_id() {
    let tar = [lower(), b"garbage".to_vec()].concat();
    let (_dir, applied) = unpack(Form::Flat, std::slice::from_ref(&tar));
    assert_eq!(applied.unwrap().len(), 1);
}

#[test]
fn limits_end_a_bomb_before_it_fills_the_disk() {
    let zeros = layer(|tar| tar.file("zeros", &vec![0; 8 << 20]));
    let blob = gzip(&zeros);
    let limited = |limits: Limits| {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(open(dir.path()), options(Form::Flat)).unwrap();
        unpack_blob(&mut tree, &blob, &zeros, &limits).unwrap_err().to_string()
    };
    let none = Limits { bytes: u64::MAX, entries: u64::MAX, ratio: u64::MAX, ratio_from: 0 };
    assert_eq!(limited(Limits { entries: 0, ..none }), "the layer has more than 0 entries");
    assert_eq!(limited(Limits { bytes: 1 << 20, ..none }), "the layer has more than 1048576 bytes unpacked");
    let ratio = limited(Limits { ratio: 10, ratio_from: 1 << 20, ..none });
    assert_eq!(ratio, "the layer has more than 10 bytes unpacked for each byte packed");
}

#[test]
fn what_the_source_says_is_told() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("connection reset"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(open(dir.path()), options(Form::Flat)).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"");
    let expected = Expected { digest: &digest, size: 9, diff_id: &digest };
    let error = unpack_layer(Broken, expected, &Limits::default(), &mut tree).unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
}

#[test]
fn a_directory_that_was_replaced_is_not_taken_from_below() {
    let upper = layer(|tar| {
        tar.file("a/b/c", b"new");
        tar.file("a", b"file");
        tar.link(b'1', "linked", "a");
    });
    let (dir, applied) = unpack(Form::Overlay, &[upper]);
    assert_eq!(applied.unwrap()[0].needs, []);
    assert_tree(dir.path(), &[("a", "file"), ("linked", "file")]);
}
