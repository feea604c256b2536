//! Others' images in creel, and creel's images elsewhere: every digest is the same.

use std::process::Command;

use creel_integration::{Cmd, skip};

use crate::harness::Images;
use crate::{needs_images, registry_with};

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn image_that_buildah_made_and_skopeo_pushed_runs() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    if !has("buildah") {
        skip!("buildah is not installed");
    }
    let context = images.scratch.dir("context");
    std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nENV WHO=buildah\nWORKDIR /srv\n\
        ENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\", \"echo from $WHO in $PWD\"]\nLABEL k=v\n";
    std::fs::write(context.join("Containerfile"), text).unwrap();
    let storage = |program: &str| {
        let at = |name: &str| images.scratch.join("storage").join(name).display().to_string();
        Cmd::new(program).args(["--root", &at("root"), "--runroot", &at("run"), "--storage-driver", "vfs"])
    };
    for (format, name) in [("oci", "built/oci:1"), ("docker", "built/docker:1")] {
        let built = format!("oci-archive:{}", images.scratch.join(format!("{format}.tar")).display());
        let built = if format == "oci" { built } else { built.replace("oci-archive", "docker-archive") };
        let tag = format!("localhost/{format}");
        let words = ["build", "--isolation", "chroot", "--format", format, "-t", &tag];
        storage("buildah").args(words).args([context.as_os_str()]).output().ok();
        storage("buildah").args(["push", &tag, &built]).output().ok();
        let to = registry.image(name);
        let copy = ["copy", "--insecure-policy", "--dest-tls-verify=false", &built, &to];
        Cmd::new("skopeo").args(copy).output().ok();
        let output = images.run(&["-q"], &to, &[]).output().ok();
        assert_eq!(output.stdout, "from buildah in /srv\n", "{format}");
        let ours = images.creel(&["inspect", "--raw", &to]).output().ok().stdout;
        let theirs = Cmd::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &to]).output().ok();
        assert_eq!(ours, theirs.stdout);
        // And from the file itself.
        assert_eq!(images.run(&["-q"], &built, &[]).output().ok().stdout, "from buildah in /srv\n");
    }
    images.assert_clean();
}

#[test]
fn image_that_creel_pushed_is_pulled_by_skopeo_and_podman() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let to = registry.image("creel/a:1");
    let digest =
        images.creel(&["push", "-q", "--chunk-size", "200k", &images.oci("a"), &to]).output().ok().stdout;
    let digest = digest.trim();
    let out = format!("dir:{}", images.scratch.join("skopeo").display());
    let copy = ["copy", "--insecure-policy", "--src-tls-verify=false", "--preserve-digests", &to, &out];
    Cmd::new("skopeo").args(copy).output().ok();
    let manifest = std::fs::read(images.scratch.join("skopeo/manifest.json")).unwrap();
    assert_eq!(crate::layout::digest(&manifest), digest);
    if !has("podman") {
        skip!("podman is not installed");
    }
    let at = |name: &str| images.scratch.join("storage").join(name).display().to_string();
    let storage =
        ["--root", &at("root"), "--runroot", &at("run"), "--storage-driver", "vfs"].map(str::to_owned);
    let podman = |words: &[&str]| Cmd::new("podman").args(&storage).args(words).output().ok().stdout;
    podman(&["pull", "-q", "--tls-verify=false", &to]);
    let name = to.trim_start_matches("docker://");
    assert_eq!(podman(&["image", "inspect", "--format", "{{.Digest}}", name]).trim(), digest);
    // What creel wrote to files is loaded as well.
    for kind in ["docker-archive", "oci-archive"] {
        let file = images.scratch.join(kind).display().to_string();
        let named = if kind == "docker-archive" { ":localhost/loaded:1" } else { "" };
        images.creel(&["copy", "-q", &to, &format!("{kind}:{file}{named}")]).output().ok();
        let loaded = podman(&["load", "-q", "-i", &file]);
        assert!(loaded.contains("Loaded image"), "{loaded}");
    }
    assert!(podman(&["image", "ls"]).contains("localhost/loaded"));
}

#[test]
fn image_that_creel_pushed_is_pulled_by_containerd() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    if !has("containerd") || !has("ctr") {
        skip!("containerd is not installed");
    }
    let to = registry.image("creel/a:1");
    let digest = images.creel(&["push", "-q", &images.oci("a"), &to]).output().ok().stdout;
    let path = |name: &str| images.scratch.join("ctd").join(name).display().to_string();
    std::fs::create_dir_all(images.scratch.join("ctd")).unwrap();
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
        path("root"),
        path("state"),
        path("sock")
    );
    std::fs::write(path("config.toml"), config).unwrap();
    let daemon = Daemon(Some(Cmd::new("containerd").args(["--config", &path("config.toml")]).spawn()));
    creel_integration::wait::until("containerd listens", || images.scratch.join("ctd/sock").exists());
    let ctr = |words: &[&str]| Cmd::new("ctr").args(["--address", &path("sock")]).args(words).output();
    let name = to.trim_start_matches("docker://");
    ctr(&["images", "pull", "--plain-http", "--snapshotter", "native", name]).ok();
    let listed = ctr(&["images", "ls"]).ok();
    assert!(listed.stdout.contains(digest.trim()), "{listed}");
    // And an archive of creel's is imported with the digest it has.
    let file = images.scratch.join("a.tar").display().to_string();
    images.creel(&["copy", "-q", &to, &format!("docker-archive:{file}:localhost/imported:1")]).output().ok();
    ctr(&["images", "import", "--snapshotter", "native", &file]).ok();
    let listed = ctr(&["images", "ls"]).ok();
    let line = listed.stdout.lines().find(|line| line.contains("localhost/imported:1")).unwrap_or_default();
    assert!(line.contains(digest.trim()), "{listed}");
    drop(daemon);
}

/// Ends with the test, however that ends.
struct Daemon(Option<creel_integration::Running>);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(daemon) = self.0.take() {
            daemon.signal(rustix::process::Signal::TERM);
            daemon.output();
        }
    }
}
