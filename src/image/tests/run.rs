//! The bundle that is made of an image runs: config.json and the mounted root are given to runc.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{choose, have, is_root, layer, write_layout};
use creel_image_lib::layout::Layout;
use creel_image_lib::root::Root;
use creel_image_lib::runtime_config::{Run, runtime_config};
use creel_image_lib::store::{Blob, Kept, Layer, Places, Settings, Store};
use creel_image_lib::unpack::Limits;

const SCRATCH: &str = "CREEL_TEST_SCRATCH";
const BUSYBOX: &str = "/bin/busybox";

/// Runs in a mount namespace of its own; nothing when it is run as a test.
#[test]
fn child() {
    let Some(scratch) = std::env::var_os(SCRATCH).map(PathBuf::from) else { return };
    let source = format!("oci:{}:a", scratch.join("layout").display()).parse().unwrap();
    let layout = Layout::open(&source, &scratch).unwrap();
    let store = Store::open(&scratch.join("store"), Settings::root()).unwrap();
    let (chosen, config, config_bytes) = choose(&layout);
    let descriptor = &chosen.manifest.layers[0];
    if let Layer::Missing(slot) = store.layer(&config.rootfs.diff_ids[0]).unwrap() {
        let digest = descriptor.digest().unwrap();
        let blob = layout.blob(descriptor).unwrap();
        slot.unpack(blob, &digest, descriptor.size, &Limits::default(), Blob::Stream).unwrap();
    }
    let image = store.add_image(&chosen.digest, &chosen.bytes, &config_bytes).unwrap();
    let id = format!("creel-image-{}", std::process::id());
    let container = store
        .make_container(
            &id,
            &image,
            Places {
                bundle: scratch.join("bundle"),
                state: scratch.join("state"),
                pid_file: None,
                kept: Kept::No,
            },
        )
        .unwrap();
    let bundle = container.places().bundle.clone();
    std::fs::create_dir(&bundle).unwrap();
    container.mount(creel_image_lib::mount::Writes::Volatile).unwrap();
    let script = "id -u; id -G; pwd; echo $HOME $A; cat /proc/self/status | grep -E 'CapBnd|Seccomp:'; ls /proc/acpi; \
        unshare -U true 2>&1 || echo refused; echo x > /written && echo writes; echo y > /proc/sys/kernel/hostname || echo kept";
    let run = Run {
        args: ["sh", "-c", script].map(str::to_string).to_vec(),
        user: Some("web".to_string()),
        cwd: Some("/srv".to_string()),
        env: vec!["A=1".to_string()],
        cgroups_path: Some(format!("/{id}")),
        ..Run::default()
    };
    let users = Root::open(container.rootfs()).unwrap().users().unwrap();
    let value = runtime_config(&config, &run, &users, container.rootfs().to_str().unwrap()).unwrap();
    std::fs::write(bundle.join("config.json"), value.to_string()).unwrap();
    let state = scratch.join("state");
    let output = Command::new("runc")
        .arg("--root")
        .arg(&state)
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(&id)
        .output()
        .unwrap();
    store.remove_container(&container).unwrap();
    let told = [output.stdout, b"--\n".to_vec(), output.stderr].concat();
    std::fs::write(scratch.join("told"), told).unwrap();
}

#[test]
fn the_bundle_of_an_image_runs() {
    if !have("tar") || !have("runc") || !have("unshare") {
        return;
    }
    if !is_root() || !std::path::Path::new(BUSYBOX).exists() {
        common::skip("needs root and {BUSYBOX}");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let script = format!(
        "mkdir -p bin etc proc sys dev srv; chmod 1777 .; cp {BUSYBOX} bin/busybox
        for name in sh id pwd cat grep ls unshare; do ln -s busybox bin/$name; done
        echo 'web:x:33:34::/home/web:/bin/sh' > etc/passwd; echo 'extra:x:7:web' > etc/group"
    );
    let tar = layer(scratch.path(), "1", &script, "--format=gnu");
    write_layout(&scratch.path().join("layout"), &[tar]);
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(SCRATCH, scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let told = std::fs::read_to_string(scratch.path().join("told")).unwrap();
    let (out, errors) = told.split_once("--\n").unwrap();
    if errors.contains("cgroup") && out.is_empty() {
        common::skip("runc has no cgroup here: {errors}");
        return;
    }
    let expected = "33\n34 7\n/srv\n/home/web 1\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n";
    assert!(out.starts_with(expected), "{told}");
    assert!(out.contains("refused") && out.contains("writes") && out.contains("kept"), "{told}");
}
