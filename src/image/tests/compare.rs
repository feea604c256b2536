//! What creel unpacks is what umoci unpacks, path by path, and what skopeo copies is read alike.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{choose, have, is_root, layer, listing, run, write_layout};
use creel_image_lib::layout::Layout;
use creel_image_lib::reference::Source;
use creel_image_lib::unpack::{Devices, Expected, Form, Limits, Options, Owners, Tree, unpack_layer};

/// Every feature of tar that a file system and GNU tar can make.
const ODD: &str = r#"
mkdir -p usr/bin etc var/empty tmp a/deep/tree locked
ln -s usr/bin bin
ln -s /etc/none dangling
echo tool > usr/bin/tool; chmod 4755 usr/bin/tool
echo other > usr/bin/other; chown 12:34 usr/bin/other; chmod 2755 usr/bin/other
ln usr/bin/other etc/hard
ln dangling etc/hard-to-link
chmod 1777 tmp; chmod 0 var/empty; chown 1000:1000 a; chmod 2775 a
mkfifo a/fifo; mknod a/null c 1 3; mknod a/loop b 7 0
long=$(printf 'n%.0s' $(seq 200)); echo long > "a/deep/$long"
mkdir -p "$long/$long"; echo longer > "$long/$long/file"; ln -s "$long/$long/file" link-to-long
printf 'utf-8 \303\244' > "$(printf 'a/\303\244 b')"; printf x > "$(printf 'a/bad\377name')"
truncate -s 1000000 a/sparse; printf end >> a/sparse; printf mid | dd of=a/sparse bs=1 seek=500000 conv=notrunc 2>/dev/null
: > empty; chown 3000000:4000000 empty
setcap cap_net_raw+ep usr/bin/tool 2>/dev/null || true
echo secret > locked/file; chmod 000 locked/file; chmod 555 locked
find . -exec touch -h -d '2001-02-03 04:05:06.789 UTC' {} +
touch -d '1969-12-31 00:00:00 UTC' etc
"#;

const REPLACE: &str = r#"
mkdir -p etc a usr/bin dangling
: > etc/.wh.hard
: > a/.wh..wh..opq; echo new > a/new
echo new > usr/bin/other
echo in > dangling/in
: > .wh.tmp
find . -exec touch -h -d '2011-02-03 04:05:06 UTC' {} +
"#;

fn unpack_flat(layout: &Path, to: &Path) {
    let source: Source = format!("oci:{}:a", layout.display()).parse().unwrap();
    let layout = Layout::open(&source, to).unwrap();
    let (chosen, config, _) = choose(&layout);
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

fn assert_same_as_umoci(scratch: &Path, layout: &Path) {
    let (ours, theirs) = (scratch.join("ours"), scratch.join("theirs"));
    std::fs::create_dir(&ours).unwrap();
    unpack_flat(layout, &ours);
    let image = format!("{}:a", layout.display());
    run("umoci", &["raw", "unpack", "--image", &image, theirs.to_str().unwrap()]);
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    let mut different = Vec::new();
    for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        if ours.get(path) != theirs.get(path) {
            different.push(format!("{path:?}\n  creel {:?}\n  umoci {:?}", ours.get(path), theirs.get(path)));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), ours.len(), different.join("\n"));
    assert!(ours.len() > 5);
}

#[test]
fn odd_layers_are_unpacked_as_umoci_does() {
    if !have("umoci") || !have("tar") {
        return;
    }
    if !is_root() {
        common::skip("owners and devices need root");
        return;
    }
    // umoci reads no sparse files: those are compared with each other in a test of their own.
    for format in ["--format=pax --xattrs --xattrs-include=*", "--format=gnu"] {
        let scratch = tempfile::tempdir().unwrap();
        let layers = [layer(scratch.path(), "1", ODD, format), layer(scratch.path(), "2", REPLACE, format)];
        let layout = scratch.path().join("layout");
        write_layout(&layout, &layers);
        assert_same_as_umoci(scratch.path(), &layout);
    }
}

/// A system like Debian's: merged /usr, set-id programs, alternatives, caches; then 19 layers on it.
const DEBIAN: &str = r#"
mkdir -p usr/bin usr/sbin usr/lib/python3/dist-packages usr/share/doc etc/alternatives var/lib/dpkg/info var/cache/apt \
    var/log root home srv run tmp var/tmp dev
for name in bin sbin lib; do ln -s "usr/$name" "$name"; done
chmod 1777 tmp var/tmp; chmod 700 root; chgrp 8 srv; chmod 2775 srv
for n in $(seq 60); do
    echo "program $n" > usr/bin/p$n; chmod 755 usr/bin/p$n
    echo "module = $n" > usr/lib/python3/dist-packages/m$n.py
    echo list > var/lib/dpkg/info/p$n.list; mkdir -p usr/share/doc/p$n; echo text > usr/share/doc/p$n/copyright
    ln -s ../../usr/bin/p$n etc/alternatives/a$n; ln -s /etc/alternatives/a$n usr/bin/a$n
done
chmod 4755 usr/bin/p1; chmod 2755 usr/bin/p2; chgrp 42 usr/bin/p2; ln usr/bin/p3 usr/bin/same-as-p3
echo 'root:x:0:0::/root:/bin/sh' > etc/passwd; printf 'x:!:1::::::' > etc/shadow; chmod 640 etc/shadow; chgrp 42 etc/shadow
head -c 300000 /dev/zero > var/cache/apt/pkgcache.bin; mkfifo run/initctl; chown -R 33:33 var/log
find . -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +
"#;

/// Layer `$n` replaces, removes and adds, some of it through the links of the first.
const ABOVE: &str = r#"
mkdir -p usr/bin etc var/lib/dpkg/info usr/lib/python3/dist-packages usr/share/doc srv/$n/deep
echo "program $n of layer" > usr/bin/p$n; chmod 75$((n % 8)) usr/bin/p$n
echo "module = -$n" > usr/lib/python3/dist-packages/m$n.py; : > usr/lib/python3/dist-packages/.wh.m$((n + 20)).py
: > usr/share/doc/.wh.p$((n + 20)); ln -s ../p$n usr/share/doc/link$n; echo status $n > var/lib/dpkg/status
ln usr/bin/p$n srv/$n/hard; echo x > srv/$n/deep/file; chmod 70$((n % 8)) srv/$n; chown $n:$n srv/$n/deep
if [ $n -gt 3 ]; then : > srv/.wh.$((n - 2)); fi
if [ $((n % 5)) = 0 ]; then mkdir -p var/lib/dpkg/info; : > var/lib/dpkg/info/.wh..wh..opq; echo $n > var/lib/dpkg/info/only; fi
if [ $((n % 7)) = 0 ]; then mkdir -p etc/alternatives/a$n; echo $n > etc/alternatives/a$n/inside; fi
find . -exec touch -h -d "2022-02-03 04:05:$((n + 10)) UTC" {} +
"#;

#[test]
fn twenty_layers_are_unpacked_as_umoci_does() {
    if !have("umoci") || !have("tar") {
        return;
    }
    if !is_root() {
        common::skip("owners and devices need root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut layers = vec![layer(scratch.path(), "0", DEBIAN, "--format=pax")];
    for n in 1..20 {
        layers.push(layer(scratch.path(), &n.to_string(), &format!("n={n}\n{ABOVE}"), "--format=gnu"));
    }
    let layout = scratch.path().join("layout");
    write_layout(&layout, &layers);
    assert_same_as_umoci(scratch.path(), &layout);
}

#[test]
fn debian_with_python_is_unpacked_as_umoci_does() {
    if !have("umoci") || !have("tar") {
        return;
    }
    if !is_root() {
        common::skip("owners and devices need root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let given = std::env::var_os("CREEL_TEST_DEBIAN").map(std::path::PathBuf::from);
    let made = scratch.path().join("debian");
    let debian = match given {
        Some(given) => given,
        None if std::env::var_os("CREEL_TEST_SLOW").is_none() => {
            common::skip("CREEL_TEST_SLOW is not set");
            return;
        }
        None if !have("mmdebstrap") => return,
        None => {
            let include = "--include=python3-minimal";
            run("mmdebstrap", &["--variant=minbase", include, "bookworm", made.to_str().unwrap()]);
            made
        }
    };
    // What a build would have in three layers.
    let pack = |what: &str| {
        let words = format!(
            "cd '{}' && tar -c --numeric-owner --sort=name --xattrs --exclude=./dev {what}",
            debian.display()
        );
        run("sh", &["-c", &words])
    };
    let python = "$(find ./usr/lib/python3* -maxdepth 0)";
    let layers = [
        pack("--exclude='./usr/lib/python3*' --exclude=./var ."),
        pack(&format!("./var {python}")),
        pack("./etc"),
    ];
    let layout = scratch.path().join("layout");
    write_layout(&layout, &layers);
    assert_same_as_umoci(scratch.path(), &layout);
}

#[test]
fn what_umoci_inserts_is_read() {
    if !have("umoci") || !have("tar") {
        return;
    }
    if !is_root() {
        common::skip("owners need root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let layout = scratch.path().join("layout");
    write_layout(&layout, &[layer(scratch.path(), "1", DEBIAN, "--format=gnu")]);
    let file = scratch.path().join("inserted");
    std::fs::write(&file, "not a multiple of a block").unwrap();
    // It leaves out the padding of the last body.
    let image = format!("{}:a", layout.display());
    run("umoci", &["insert", "--image", &image, file.to_str().unwrap(), "/etc/inserted"]);
    assert_same_as_umoci(scratch.path(), &layout);
}

#[test]
fn all_sparse_forms_of_gnu_tar_give_the_same_file() {
    if !have("tar") {
        return;
    }
    if !is_root() {
        common::skip("owners need root");
        return;
    }
    let script = "truncate -s 3000000 s; printf a | dd of=s bs=1 seek=70000 conv=notrunc 2>/dev/null; printf end >> s
        i=0; while [ $i -lt 60 ]; do printf x | dd of=many bs=1 seek=$((i * 9000)) conv=notrunc 2>/dev/null; i=$((i + 1)); done
        touch -d '2001-02-03 UTC' s many .";
    let forms = [
        "--format=gnu",
        "--format=gnu --sparse",
        "--format=pax --sparse --sparse-version=0.0",
        "--format=pax --sparse --sparse-version=0.1",
        "--format=pax --sparse --sparse-version=1.0",
    ];
    let mut all = Vec::new();
    for form in forms {
        let scratch = tempfile::tempdir().unwrap();
        let layout = scratch.path().join("layout");
        let packed = layer(scratch.path(), "1", script, form);
        assert!(!form.contains("sparse") || packed.len() < 1_000_000, "{form}: {} bytes", packed.len());
        write_layout(&layout, &[packed]);
        let to = scratch.path().join("ours");
        std::fs::create_dir(&to).unwrap();
        unpack_flat(&layout, &to);
        all.push(listing(&to));
    }
    assert_eq!(all[0].len(), 2);
    assert!(all.iter().all(|one| *one == all[0]), "{all:#?}");
}

#[test]
fn what_skopeo_copies_is_the_same_image() {
    if !have("skopeo") || !have("tar") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().display();
    let layers = [layer(scratch.path(), "1", "echo hello > file", "--format=gnu")];
    let layout = scratch.path().join("layout");
    write_layout(&layout, &layers);
    let digest = |source: &str| {
        let layout = Layout::open(&source.parse().unwrap(), scratch.path()).unwrap();
        let (chosen, config, _) = choose(&layout);
        let mut blob = Vec::new();
        std::io::Read::read_to_end(&mut layout.blob(&chosen.manifest.layers[0]).unwrap(), &mut blob).unwrap();
        assert_eq!(common::sha(&blob), chosen.manifest.layers[0].digest().unwrap(), "{source}");
        (chosen.digest, config.rootfs.diff_ids)
    };
    let original = digest(&format!("oci:{at}/layout:a"));
    let policy = "--insecure-policy";
    for (to, same) in
        [("oci-archive:{}/a.tar:a", true), ("dir:{}/dir", true), ("docker-archive:{}/d.tar:a:b", false)]
    {
        let to = to.replace("{}", &at.to_string());
        run("skopeo", &[policy, "copy", &format!("oci:{at}/layout:a"), &to]);
        let copied = digest(&to);
        assert_eq!(copied.1, original.1, "{to}");
        // A docker-archive has no manifest of its own.
        assert!(!same || copied.0 == original.0, "{to}");
    }
}
