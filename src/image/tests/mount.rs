//! What overlayfs shows of the snapshots is the flat tree, path by path.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{choose, have, is_root, layer, listing, write_layout};
use creel_image_lib::layout::Layout;
use creel_image_lib::mount::{Error, MAX_LAYERS, Overlay, Writes};
use creel_image_lib::store::{Blob, Kept, Layer, Places, Settings, Store};
use creel_image_lib::unpack::{Devices, Expected, Form, Limits, Options, Owners, Tree, unpack_layer};
use creel_sys::seccomp::Instruction;
use rustix::io::Errno;

const SCRATCH: &str = "CREEL_TEST_SCRATCH";

const LOWER: &str = "mkdir -p usr/bin usr/lib etc/d tmp; ln -s usr/lib lib; chmod 1777 tmp; chmod 700 etc
    echo a > etc/d/a; echo b > etc/d/b; echo gone > gone; echo tool > usr/bin/tool; chmod 4755 usr/bin/tool
    chown 12:34 etc/d/a; find . -exec touch -h -d '2001-02-03 UTC' {} +";

/// Packed without entries for its directories: `lib` is a link below, `etc` and `tmp` have attributes there.
const UPPER: &str = "mkdir -p lib etc tmp; echo new > lib/new; : > .wh.gone; echo t > tmp/t; : > etc/.wh.d
    find . -exec touch -h -d '2002-02-03 UTC' {} +";

fn packed_upper(scratch: &Path) -> Vec<u8> {
    let packed = layer(
        scratch,
        "upper",
        UPPER,
        "--format=gnu --no-recursion lib/new .wh.gone tmp/t etc/.wh.d --exclude=.",
    );
    assert!(packed.len() > 2048);
    packed
}

fn unpack_flat(layout: &Layout, to: &Path) {
    let (chosen, config, _) = choose(layout);
    let options =
        Options { form: Form::Flat, owners: Owners::Recorded, devices: Devices::Make, user_xattrs: false };
    let mut tree = Tree::new(std::fs::File::open(to).unwrap().into(), options).unwrap();
    for (descriptor, diff_id) in chosen.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let digest = descriptor.digest().unwrap();
        let expected = Expected { digest: &digest, size: descriptor.size, diff_id };
        unpack_layer(layout.blob(descriptor).unwrap(), expected, &Limits::default(), &mut tree).unwrap();
    }
    tree.finish().unwrap();
}

/// From here on this thread has a kernel before 6.5: fsconfig(2) takes any key, and what is made of them, the
/// command FSCONFIG_CMD_CREATE, has EINVAL.
fn refuse_what_is_gathered() {
    const FSCONFIG: u32 = 431;
    const CREATE: u32 = 6;
    let load = |offset| Instruction { code: 0x20, jt: 0, jf: 0, k: offset };
    let unless = |k, jf| Instruction { code: 0x15, jt: 0, jf, k };
    let answer = |k| Instruction { code: 0x06, jt: 0, jf: 0, k };
    // Offsets of seccomp_data: the number, and the lower half of the second argument.
    let second = if cfg!(target_endian = "little") { 24 } else { 28 };
    let refused = 0x0005_0000 | Errno::INVAL.raw_os_error().unsigned_abs();
    let program =
        [load(0), unless(FSCONFIG, 3), load(second), unless(CREATE, 1), answer(refused), answer(0x7fff_0000)];
    rustix::thread::set_no_new_privs(true).unwrap();
    creel_sys::seccomp::load(&program, 0).unwrap();
}

/// Runs in a mount namespace of its own; nothing when it is run as a test.
#[test]
fn child() {
    let Some(scratch) = std::env::var_os(SCRATCH).map(PathBuf::from) else { return };
    let layout = scratch.join("layout");
    let source = format!("oci:{}:a", layout.display()).parse().unwrap();
    let layout = Layout::open(&source, &scratch).unwrap();
    let flat = scratch.join("flat");
    std::fs::create_dir(&flat).unwrap();
    unpack_flat(&layout, &flat);
    let store = Store::open(&scratch.join("store"), Settings::root()).unwrap();
    let (chosen, config, config_bytes) = choose(&layout);
    for (descriptor, diff_id) in chosen.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let Layer::Missing(slot) = store.layer(diff_id).unwrap() else { continue };
        let digest = descriptor.digest().unwrap();
        let blob = layout.blob(descriptor).unwrap();
        slot.unpack(blob, &digest, descriptor.size, &Limits::default(), Blob::Stream).unwrap();
    }
    let image = store.add_image(&chosen.digest, &chosen.bytes, &config_bytes).unwrap();
    assert_eq!(image.lowers.len(), chosen.manifest.layers.len() + 1, "the upper layer needs a patch");
    let places = || Places {
        bundle: scratch.join("bundle"),
        state: scratch.join("state"),
        pid_file: None,
        kept: Kept::No,
    };
    let container = store.make_container("c", &image, places()).unwrap();
    container.mount(Writes::Volatile).unwrap();
    let (mut shown, expected) = (listing(container.rootfs()), listing(&flat));
    // The snapshot's own name of what a patch brings behind a link counts as a link.
    let brought = shown.get_mut(Path::new("usr/lib/new")).unwrap();
    *brought = brought.replacen(" 2 {}", " 1 {}", 1);
    for path in shown.keys().chain(expected.keys()) {
        assert_eq!(shown.get(path), expected.get(path), "{path:?}");
    }
    assert!(shown.contains_key(Path::new("usr/lib/new")) && !shown.contains_key(Path::new("gone")));
    std::fs::write(container.rootfs().join("written"), "x").unwrap();
    assert!(container.path().join("upper/written").exists());
    store.remove_container(&container).unwrap();
    assert!(!container.path().exists());
    let container = store.make_container("old", &image, places()).unwrap();
    let lowers: Vec<PathBuf> = image.lowers.iter().map(|lower| store.root().join(lower)).collect();
    let (upper, work) = (container.path().join("upper"), container.path().join("work"));
    let overlay =
        Overlay { lowers: &lowers, upper: &upper, work: &work, user_xattrs: false, writes: Writes::Durable };
    std::fs::create_dir_all(container.rootfs()).unwrap();
    overlay.mount_by_page(container.rootfs()).unwrap();
    assert_eq!(listing(container.rootfs()).len(), expected.len());
    store.remove_container(&container).unwrap();
    let container = store.make_container("older", &image, places()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            refuse_what_is_gathered();
            container.mount(Writes::Volatile).unwrap();
        });
    });
    assert_eq!(listing(container.rootfs()).len(), expected.len());
    store.remove_container(&container).unwrap();
    std::fs::write(scratch.join("mounted"), "").unwrap();
}

#[test]
fn a_mounted_image_is_the_flat_tree() {
    if !have("tar") || !have("unshare") {
        return;
    }
    if !is_root() {
        common::skip("mounts need root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut layers = vec![layer(scratch.path(), "lower", LOWER, "--format=gnu")];
    // More paths than one page of mount options holds.
    for i in 0..60 {
        layers.push(layer(
            scratch.path(),
            &format!("l{i}"),
            &format!("echo {i} > f{i}; touch -d '2003-02-03 UTC' f{i} ."),
            "--format=gnu",
        ));
    }
    layers.push(packed_upper(scratch.path()));
    write_layout(&scratch.path().join("layout"), &layers);
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(exe)
        .args(["--exact", "child", "--nocapture"])
        .env(SCRATCH, scratch.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    assert!(scratch.path().join("mounted").exists(), "the child did not run");
}

#[test]
fn stacks_beyond_overlayfs_are_refused_by_number() {
    let lowers = vec![PathBuf::from("/"); MAX_LAYERS + 1];
    let none = Path::new("/nonexistent");
    let overlay =
        |lowers| Overlay { lowers, upper: none, work: none, user_xattrs: false, writes: Writes::Durable };
    assert!(matches!(overlay(&lowers).detached(), Err(Error::TooMany(501))));
    assert!(matches!(overlay(&[]).detached(), Err(Error::NoLayers)));
}
