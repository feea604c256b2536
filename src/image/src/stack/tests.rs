#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::testing::{Fields, TarBuilder, is_root};
use crate::unpack::{Applied, Devices, Expected, Form, Limits, Options, Owners, Tree, unpack_layer};

#[derive(Debug, Clone)]
enum Op {
    Dir(u32),
    File(u8),
    Symlink(&'static str),
    HardLink(&'static str),
    Whiteout,
    Opaque,
}

type Layer = BTreeMap<&'static str, Op>;

/// `t` and below is where links lead to, as `usr` in an image; no link is made there.
const PATHS: [&str; 14] =
    ["a", "b", "a/a", "a/b", "b/a", "b/c", "a/a/a", "a/b/c", "b/c/a", "t", "t/a", "t/b", "t/b/a", "t/b/c"];

fn op() -> impl Strategy<Value = Op> {
    let path = proptest::sample::select(PATHS.to_vec());
    prop_oneof![
        4 => prop_oneof![Just(0o755), Just(0o700), Just(0o1777)].prop_map(Op::Dir),
        4 => any::<u8>().prop_map(Op::File),
        2 => prop_oneof![Just("t"), Just("/t"), Just("/t/b"), Just("/t/none"), Just("none")].prop_map(Op::Symlink),
        2 => path.prop_map(Op::HardLink),
        2 => Just(Op::Whiteout),
        1 => Just(Op::Opaque),
    ]
}

/// Layers as differences are: each path once, in order.
fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let layer = proptest::collection::btree_map(proptest::sample::select(PATHS.to_vec()), op(), 1..7);
    proptest::collection::vec(layer, 2..5)
}

fn tar(layer: &Layer) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    for (i, (path, op)) in layer.iter().enumerate() {
        let mtime = 1_000_000_000 + i as u64;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match op {
            Op::Dir(mode) => {
                tar.entry(path, &Fields { flag: b'5', mode: *mode, mtime, ..Fields::default() }, b"")
            }
            Op::File(content) => tar.entry(path, &Fields { mtime, ..Fields::default() }, &[*content]),
            Op::Symlink(link) => tar.link(b'2', path, link),
            Op::HardLink(link) => tar.link(b'1', path, link),
            Op::Whiteout => tar.file(&format!("{parent}/.wh.{name}"), b""),
            Op::Opaque => {
                tar.entry(path, &Fields { flag: b'5', mode: 0o755, mtime, ..Fields::default() }, b"");
                tar.file(&format!("{path}/.wh..wh..opq"), b"");
            }
        }
    }
    tar.finish()
}

fn options(form: Form) -> Options {
    let owners = if is_root() { Owners::Recorded } else { Owners::Squashed };
    Options { form, owners, devices: Devices::Skip, user_xattrs: !is_root() }
}

fn apply(tree: &mut Tree, tar: &[u8]) -> Result<Applied, Error> {
    let digest = Digest::of(Algorithm::Sha256, tar);
    let expected = Expected { digest: &digest, size: tar.len() as u64, diff_id: &digest };
    Ok(unpack_layer(tar, expected, &Limits::default(), tree)?.applied)
}

fn flat(dir: &Path, layers: &[Layer]) -> Result<(), Error> {
    let mut tree = Tree::new(open_root(dir).unwrap(), options(Form::Flat))?;
    for layer in layers {
        apply(&mut tree, &tar(layer))?;
    }
    tree.finish().map(drop)
}

/// Unpacks each layer by itself, and gives the roots of snapshots and patches, the highest first.
fn stacked(dir: &Path, layers: &[Layer]) -> Result<Vec<PathBuf>, Error> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let (snapshot, extra) = (dir.join(format!("s{i}")), dir.join(format!("p{i}")));
        std::fs::create_dir(&snapshot).unwrap();
        std::fs::create_dir(&extra).unwrap();
        let mut tree = Tree::new(open_root(&snapshot).unwrap(), options(Form::Overlay))?;
        let applied = apply(&mut tree, &tar(layer))?;
        tree.finish()?;
        let options = options(Form::Overlay);
        let (layer, root) = (open_root(&snapshot).unwrap(), open_root(&extra).unwrap());
        let outcome =
            patch(&root, &layer, &merged(&roots), &applied.needs, options.owners, options.user_xattrs)?;
        roots.insert(0, snapshot);
        if outcome == Outcome::Filled {
            roots.insert(0, extra);
        }
    }
    Ok(roots)
}

fn merged(roots: &[PathBuf]) -> Merged {
    Merged::new(roots.iter().map(|root| open_root(root).unwrap()).collect())
}

/// Type, mode, mtime, and content or target, of every path.
fn listing(dir: &Merged, prefix: &str, found: &mut BTreeMap<String, String>) {
    for name in dir.names().unwrap() {
        let path = format!("{prefix}/{}", String::from_utf8_lossy(&name));
        match dir.child(&name).unwrap() {
            Child::Absent => panic!("{path} is listed and absent"),
            Child::Directory(child) => {
                let stat = rustix::fs::fstat(child.0.first().unwrap()).unwrap();
                found.insert(path.clone(), format!("{:o} {}", stat.st_mode, stat.st_mtime));
                listing(&child, &path, found);
            }
            Child::Other(at, stat) => {
                let link = rustix::fs::readlinkat(&at, name.as_slice(), Vec::new());
                let content = match link {
                    Ok(link) => link.into_bytes(),
                    Err(_) => {
                        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                        let fd = rustix::fs::openat(&at, name.as_slice(), flags, Mode::empty()).unwrap();
                        let mut content = Vec::new();
                        std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut content).unwrap();
                        content
                    }
                };
                found.insert(path, format!("{:o} {} {content:?}", stat.st_mode, stat.st_mtime));
            }
        }
    }
}

fn list(roots: &[PathBuf]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    listing(&merged(roots), "", &mut found);
    found
}

/// Leaves out what cannot be applied (entries below files, links to nothing) and what no difference has: two
/// entries of one layer for the same place, one of them by a link, links made behind links, and entries below a
/// hard link.
fn applicable(layers: Vec<Layer>) -> Vec<Layer> {
    let mut kept: Vec<Layer> = Vec::new();
    for layer in layers {
        kept.push(Layer::new());
        let last = kept.len() - 1;
        let mut touched = std::collections::BTreeSet::new();
        for (path, op) in layer {
            let below = |(known, op): (&&str, &Op)| {
                matches!(op, Op::HardLink(_))
                    && path.strip_prefix(*known).is_some_and(|rest| rest.starts_with('/'))
            };
            if kept[last].iter().any(below) {
                continue;
            }
            if matches!(op, Op::Symlink(_)) && path.starts_with('t') {
                continue;
            }
            let links = matches!(op, Op::Symlink(_) | Op::HardLink(_));
            kept[last].insert(path, op);
            let dir = tempfile::tempdir().unwrap();
            let applied = flat(dir.path(), &kept);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let tree = merged(&[dir.path().to_path_buf()]);
            let real = tree.resolve(parent.as_bytes(), LastLink::Follow).map(|found| found.path);
            let mut real = real.unwrap_or_default();
            real.push(name.as_bytes().to_vec());
            let aliased = real != path.split('/').map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
            if applied.is_err() || (aliased && links) || !touched.insert(real.clone()) {
                kept[last].remove(path);
            }
            while real.pop().is_some() {
                touched.insert(real.clone());
            }
        }
    }
    kept
}

fn assert_same(layers: &[Layer]) {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), layers).unwrap();
    let expected = list(&[dir.path().to_path_buf()]);
    let dir = tempfile::tempdir().unwrap();
    let roots = stacked(dir.path(), layers).unwrap_or_else(|error| panic!("{error}: {layers:?}"));
    assert_eq!(list(&roots), expected, "{layers:#?}");
}

#[test]
fn an_entry_behind_a_lower_link_goes_where_the_link_leads() {
    let lower: Layer = [("b", Op::Dir(0o700)), ("b/c", Op::Dir(0o1777)), ("a", Op::Symlink("/b"))].into();
    let upper: Layer = [("a/b", Op::File(1)), ("a/a/b/c", Op::File(2)), ("b/c/a", Op::File(3))].into();
    assert_same(&[lower, upper]);
}

#[test]
fn a_hard_link_to_a_lower_file_is_that_file() {
    let lower: Layer = [("a", Op::Dir(0o700)), ("a/a", Op::File(1))].into();
    let upper: Layer = [("a/b", Op::HardLink("a/a")), ("c", Op::HardLink("a/b"))].into();
    let dir = tempfile::tempdir().unwrap();
    let roots = stacked(dir.path(), &[lower.clone(), upper.clone()]).unwrap();
    let inode = |name: &str| match merged(&roots).find(name.as_bytes()).unwrap() {
        Child::Other(_, stat) => stat.st_ino,
        Child::Absent | Child::Directory(_) => panic!("{name} is no file"),
    };
    assert_eq!(inode("a/a"), inode("a/b"));
    assert_eq!(inode("a/a"), inode("c"));
    assert_same(&[lower, upper]);
}

/// `a` is a link to `t`, which has `t/b/c`.
fn behind_a_link() -> Layer {
    [
        ("a", Op::Symlink("t")),
        ("t", Op::Dir(0o700)),
        ("t/a", Op::File(1)),
        ("t/b", Op::Dir(0o700)),
        ("t/b/c", Op::File(2)),
    ]
    .into()
}

#[test]
fn a_whiteout_behind_a_lower_link_spares_what_its_own_layer_has_where_the_link_leads() {
    let lower: Layer = [("a", Op::Symlink("t"))].into();
    assert_same(&[lower.clone(), [("a/b", Op::Whiteout), ("t/b/a", Op::Dir(0o755))].into()]);
    assert_same(&[lower, [("a/b", Op::Whiteout), ("t/b/a", Op::Whiteout)].into()]);
    for own in [
        vec![("t/b/a", Op::File(3))],
        vec![("t/b/a/a/a", Op::File(3)), ("t/b/c", Op::Whiteout)],
        vec![("t/b", Op::Dir(0o1777)), ("t/b/a", Op::Dir(0o700)), ("t/b/a/c", Op::File(3))],
        vec![("t/b", Op::File(3))],
        vec![("t/b", Op::HardLink("t/a"))],
        vec![("t/b/a", Op::HardLink("t/a"))],
        vec![],
    ] {
        let upper: Layer = [("a/b", Op::Whiteout)].into_iter().chain(own).collect();
        assert_same(&[behind_a_link(), upper]);
    }
}

#[test]
fn an_opaque_directory_behind_a_lower_link_spares_what_its_own_layer_has_where_the_link_leads() {
    for own in [vec![("t/b/a", Op::File(3))], vec![("t/b/a/c", Op::HardLink("t/a"))], vec![]] {
        let upper: Layer = [("a/b", Op::Opaque)].into_iter().chain(own).collect();
        assert_same(&[behind_a_link(), upper]);
    }
}

#[test]
fn a_whiteout_behind_one_lower_link_spares_what_its_own_layer_has_behind_another() {
    let mut lower = behind_a_link();
    lower.insert("b", Op::Symlink("/t"));
    let upper: Layer = [("a/b", Op::Whiteout), ("b/b/a", Op::File(3))].into();
    assert_same(&[lower, upper]);
}

#[test]
fn a_directory_that_is_hidden_below_lends_no_attributes_to_the_one_a_hard_link_is_in() {
    let lower: Layer = [("b/c", Op::Dir(0o700)), ("t/a", Op::File(0))].into();
    let upper: Layer = [("b", Op::Whiteout), ("b/c/a", Op::HardLink("t/a"))].into();
    assert_same(&[lower, upper]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_stacked_are_layers_applied_one_after_the_other(layers in layers()) {
        assert_same(&applicable(layers));
    }
}
