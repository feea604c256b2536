//! From a layout to a container: output, exit code, signals, and what is there afterwards.

use creel_integration::{Cmd, Runtime, wait};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

#[test]
fn container_gives_its_output_and_exit_code() {
    needs_images!();
    let images = Images::new();
    let output = images.run(&[], &images.oci("a"), &[]).output().exits(3);
    assert_eq!(output.stdout, "hello\n");
    let output = images.run(&[], &images.oci("a"), &["sh", "-c", "echo $A; pwd; exit 42"]).output().exits(42);
    // Files are asked again, but nothing is fetched and nothing told.
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("image\n/\n", ""));
    images.assert_clean();
}

#[test]
fn writes_of_a_container_are_gone_with_it() {
    needs_images!();
    let images = Images::new();
    images.run(&[], &images.oci("a"), &["sh", "-c", "echo x >/srv/new; echo y >/etc/plain"]).output().ok();
    let output = images.run(&[], &images.oci("a"), &["sh", "-c", "ls /srv; cat /etc/plain"]).output().ok();
    assert_eq!(output.stdout, "not a program\n");
    images.assert_clean();
}

#[test]
fn layers_outlast_the_machine_though_no_run_waits_for_that() {
    needs_images!();
    let images = Images::new();
    let is_sealed = || {
        let layers = images.stored("snapshots");
        assert_eq!(layers.len(), 1);
        images.store("snapshots").join(&layers[0]).join("sealed").exists()
    };
    images.run(&["-q"], &images.oci("a"), &[]).output().exits(3);
    wait::until("the layer is sealed", is_sealed);
    images.assert_clean();
    std::fs::remove_file(images.store("snapshots").join(&images.stored("snapshots")[0]).join("sealed"))
        .unwrap();
    images.creel(&["pull", "-q", &images.oci("a")]).output().ok();
    assert!(is_sealed());
}

#[test]
fn volumes_of_the_image_are_written_beside_a_read_only_root() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    let volumes = json!({"/data": {}, "/srv/": {}, "/etc": {}, "/sys/fs/cgroup": {}});
    let volume = |name: &str, volumes: serde_json::Value| {
        let config = json!({"Cmd": ["sh"], "User": "7", "Volumes": volumes});
        images.layout.image(name, std::slice::from_ref(&layer), &config);
    };
    volume("v", volumes);
    let host = images.scratch.dir("host").display().to_string();
    let script = "cat /etc/plain; echo x >/data/new && echo x >/etc/new && ls -d /data/new /etc/new && grep -c hosts /proc/mounts; \
        echo x >/new || echo only there";
    let flags = ["-q", "--read-only", "--user", "0", "-v", &format!("{host}:/srv")];
    let run = || images.run(&flags, &images.oci("v"), &["sh", "-c", script]).output().ok();
    let first = run();
    assert_eq!(first.stdout, "not a program\n/data/new\n/etc/new\n1\nonly there\n", "{first}");
    // Each container has its own, which goes with it.
    assert_eq!(run().stdout, first.stdout);
    images.assert_clean();
    let kept = images.run(&["-q", "--keep"], &images.oci("v"), &["ls", "/data"]).output().ok();
    assert_eq!(kept.stdout, "");
    assert_eq!(images.stored(&format!("containers/{}/volumes", images.scratch.name())).len(), 3);
    images.runtime(&["delete", images.scratch.name()]).output().ok();
    images.assert_clean();
    // A bundle has its places in the root itself.
    let bundle = images.scratch.join("bundle");
    images.creel(&["unpack", "-q", &images.oci("v"), bundle.to_str().unwrap()]).output().ok();
    assert!(bundle.join("rootfs/data").is_dir());
    volume("b", json!({"/etc/plain": {}}));
    let refused = images.run(&["-q"], &images.oci("b"), &[]).output().exits(125);
    refused.creel_says(&["volume /etc/plain", "not a directory"]);
    images.assert_clean();
}

#[test]
fn layers_are_stacked_and_shared() {
    needs_images!();
    let images = Images::new();
    let base = images.layout.layer(&images.scratch.join("tree"));
    images.scratch.file("above/srv/file", "above\n");
    images.scratch.file("above/etc/.wh.plain", "");
    let above = images.layout.layer(&images.scratch.join("above"));
    images.layout.image(
        "two",
        &[base, above],
        &json!({"Cmd": ["sh", "-c", "cat /srv/file; cat /etc/plain"]}),
    );
    images.creel(&["pull", "-q", &images.oci("a")]).output().ok();
    let output = images.run(&["--progress", "json"], &images.oci("two"), &[]).output();
    assert_eq!(output.stdout, "above\n", "{output}");
    assert_eq!(output.stderr.matches("layer-done").count(), 1, "{output}");
    assert_eq!(images.stored("snapshots").len(), 2);
    images.assert_clean();
}

#[test]
fn detached_container_runs_until_it_is_deleted() {
    needs_images!();
    let images = Images::new();
    let name = images.scratch.name();
    let output = images.run(&["-d", "-q"], &images.oci("a"), &["sleep", "1000"]).output().ok();
    assert_eq!(output.stdout, format!("{name}\n"));
    let state = images.runtime(&["state", name]).output().ok().json();
    assert_eq!(state["status"], "running");
    images.run(&[], &images.oci("a"), &[]).output().exits(125).creel_says(&["is in use", "creel delete"]);
    // What it runs on is not pruned, even without a name.
    images.creel(&["image", "rm", &images.oci("a")]).output().ok();
    images.creel(&["image", "prune"]).output().ok();
    let files = images.runtime(&["exec", name, "ls", "/bin/busybox"]).output().ok();
    assert_eq!(files.stdout, "/bin/busybox\n");
    images.runtime(&["delete", "--force", name]).output().ok();
    images.assert_clean();
    images.creel(&["image", "prune"]).output().ok();
    assert!(images.stored("snapshots").is_empty());
}

#[test]
fn container_whose_state_is_gone_keeps_what_it_writes_while_it_runs() {
    needs_images!();
    let images = Images::new();
    let name = images.scratch.name();
    images.run(&["-d", "-q"], &images.oci("a"), &["sleep", "1000"]).output().ok();
    // What logind does at a user's last logout, for a while.
    let state = images.state();
    let bundles = state.with_file_name(format!("{}-bundles", state.file_name().unwrap().to_str().unwrap()));
    let away = |path: &std::path::Path| path.with_extension("away");
    for path in [&state, &bundles] {
        std::fs::rename(path, away(path)).unwrap();
    }
    images.creel(&["image", "ls"]).output().ok();
    assert_eq!(images.stored("containers"), [name]);
    for path in [&state, &bundles] {
        std::fs::remove_dir_all(path).ok();
        std::fs::rename(away(path), path).unwrap();
    }
    images.runtime(&["delete", "--force", name]).output().ok();
    images.assert_clean();
}

#[test]
fn kept_container_is_there_until_it_is_deleted() {
    needs_images!();
    let images = Images::new();
    let name = images.scratch.name();
    images.run(&["--keep", "-q"], &images.oci("a"), &["sh", "-c", "echo x >/srv/new"]).output().ok();
    // Another command does not take it for left behind.
    images.creel(&["image", "ls"]).output().ok();
    let written = images.store("containers").join(name).join("upper/srv/new");
    assert_eq!(std::fs::read_to_string(written).unwrap(), "x\n");
    images.runtime(&["delete", name]).output().ok();
    images.assert_clean();
}

#[test]
fn standard_input_is_read_only_when_asked_for() {
    needs_images!();
    let images = Images::new();
    let input = images.scratch.file("input", "from outside\n");
    let open = || std::fs::File::open(&input).unwrap();
    let with = images.run(&["-i", "-q"], &images.oci("a"), &["cat"]).stdin(open()).output().ok();
    assert_eq!(with.stdout, "from outside\n");
    let without = images.run(&["-q"], &images.oci("a"), &["cat"]).stdin(open()).output().ok();
    assert_eq!(without.stdout, "");
    images.assert_clean();
}

#[test]
fn signals_reach_the_container() {
    needs_images!();
    let images = Images::new();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 1; done";
    let running = images.run(&["-q"], &images.oci("a"), &["sh", "-c", script]).spawn();
    wait::until("the container says that it is ready", || running.stdout_so_far().contains("ready"));
    running.signal(Signal::TERM);
    running.output().exits(9);
    images.assert_clean();
}

#[test]
fn killed_runtime_leaves_what_the_next_command_removes() {
    needs_images!();
    let images = Images::new();
    let name = images.scratch.name();
    let script = "echo ready; exec sleep 1000";
    let running = images.run(&["-q"], &images.oci("a"), &["sh", "-c", script]).spawn();
    wait::until("the container says that it is ready", || running.stdout_so_far().contains("ready"));
    running.signal(Signal::KILL);
    running.output().exits(-9);
    // The runtime still knows it: nothing is taken from under it.
    images.creel(&["image", "ls"]).output().ok();
    assert_eq!(images.stored("containers"), [name]);
    images.runtime(&["delete", "--force", name]).output().ok();
    images.assert_clean();
}

#[test]
fn what_a_failed_run_leaves_is_removed_by_the_next_command() {
    needs_images!();
    let images = Images::new();
    // Only the kernel knows that this is wrong.
    let output = images.run(&["-q", "--tmpfs", "/t:size=nonsense"], &images.oci("a"), &[]).output();
    assert_ne!(output.code(), 3, "{output}");
    images.creel(&["image", "ls"]).output().ok();
    images.assert_clean();
}

#[test]
fn unpacked_bundle_runs_under_runc() {
    needs_images!();
    let images = Images::new();
    let bundle = images.scratch.join("bundle");
    let bundle_text = bundle.display().to_string();
    images.creel(&["unpack", "-q", &images.oci("a"), &bundle_text]).output().ok();
    images
        .creel(&["unpack", "-q", &images.oci("a"), &bundle_text])
        .output()
        .exits(1)
        .creel_says(&["is there already"]);
    let name = images.scratch.name();
    let output = images.runtime(&["run", "--bundle", &bundle_text, name]).output().exits(3);
    assert_eq!(output.stdout, "hello\n");
    if let Some(runc) = Runtime::runc() {
        let root = images.scratch.join("runc");
        let output = Cmd::new(runc.path())
            .args(["--root".as_ref(), root.as_os_str()])
            .args(["run", "--bundle", &bundle_text, name])
            .output();
        assert_eq!(output.exits(3).stdout, "hello\n");
    }
    assert!(images.stored("snapshots").is_empty());
    images.assert_clean();
}
