//! docker-registry on loopback: from its name to a container, and without it from the store.

use std::process::Command;

use creel_integration::{Cmd, skip};

use crate::harness::Images;
use crate::needs_images;

pub use creel_test_servers::registry::Registry;

/// Takes an image in from a layout.
pub fn take_in(registry: &Registry, from: &str, name: &str) {
    let to = registry.image(name);
    let args = ["copy", "--insecure-policy", "--all", "--dest-tls-verify=false", from, &to];
    Cmd::new("skopeo").args(args).output().ok();
}

/// A registry with the image `test/a:1`, or the end of the test.
#[macro_export]
macro_rules! registry_with {
    ($images:expr) => {{
        if Command::new("skopeo").arg("--version").output().is_err() {
            skip!("skopeo is not installed");
        }
        match $crate::registry::Registry::try_start("", "") {
            Ok(registry) => {
                $crate::registry::take_in(&registry, &$images.oci("a"), "test/a:1");
                registry
            }
            Err(why) => skip!("{why}"),
        }
    }};
}

#[test]
fn second_run_touches_no_network() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    let first = images.run(&[], &image, &[]).output().exits(3);
    assert_eq!(first.stdout, "hello\n");
    assert!(first.stderr.contains("pulled") && first.stderr.contains("layer"), "{first}");
    drop(registry);
    let second = images.run(&[], &image, &[]).output().exits(3);
    assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("hello\n", ""));
    images.run(&["--pull", "never"], &image, &[]).output().exits(3);
    images.run(&["--pull", "newer"], &image, &[]).output().exits(3).says(&["the image of the store is used"]);
    images
        .run(&["-q", "--pull", "always"], &image, &[])
        .output()
        .exits(125)
        .creel_says(&["connection refused", "127.0.0.1"]);
    images.assert_clean();
}

#[test]
fn newer_image_of_the_same_name_is_fetched_when_asked_for() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    assert_eq!(images.run(&["-q"], &image, &[]).output().stdout, "hello\n");
    let layer = images.layout.layer(&images.scratch.join("tree"));
    images.layout.image("b", &[layer], &serde_json::json!({"Cmd": ["/bin/echo", "newer"]}));
    take_in(&registry, &images.oci("b"), "test/a:1");
    assert_eq!(images.run(&["-q"], &image, &[]).output().stdout, "hello\n");
    assert_eq!(images.run(&["-q", "--pull", "newer"], &image, &[]).output().ok().stdout, "newer\n");
    assert_eq!(images.run(&["-q"], &image, &[]).output().ok().stdout, "newer\n");
    images.assert_clean();
}

#[test]
fn registry_is_looked_into_without_a_pull() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    assert_eq!(images.creel(&["tags", &registry.image("test/a")]).output().ok().stdout, "1\n");
    let shown = images.creel(&["inspect", &image]).output().ok().json();
    assert_eq!(shown["config"]["config"]["Cmd"][0], "sh");
    let raw = images.creel(&["inspect", "--raw", &image]).output().ok().stdout;
    assert_eq!(crate::layout::digest(raw.as_bytes()), shown["digest"].as_str().unwrap());
    assert!(images.stored("snapshots").is_empty());
    images
        .creel(&["pull", &registry.image("test/none:1")])
        .output()
        .exits(1)
        .says(&["404 not found", "check the name"]);
}

#[test]
fn image_by_digest_and_name_in_error() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let pulled = images.creel(&["pull", "-q", &registry.image("test/a:1")]).output().ok().stdout;
    let by_digest = format!("{}@{}", registry.image("test/a"), pulled.trim());
    assert_eq!(images.run(&["-q"], &by_digest, &["echo", "x"]).output().ok().stdout, "x\n");
    let wrong = format!("{}@sha256:{}", registry.image("test/a"), "0".repeat(64));
    images.run(&["-q"], &wrong, &[]).output().exits(125).creel_says(&["404 not found", "0000"]);
    images.assert_clean();
}

#[test]
fn two_pulls_at_once_fetch_a_layer_once() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    let both = [0, 1].map(|_| images.creel(&["pull", "--progress", "json", &image]).spawn());
    let read: Vec<u64> = both
        .into_iter()
        .map(|one| {
            let output = one.output().ok();
            let last = output.stderr.lines().last().unwrap().to_owned();
            serde_json::from_str::<serde_json::Value>(&last).unwrap()["read"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(read.iter().filter(|read| **read > 0).count(), 1, "{read:?}");
    assert_eq!(images.stored("snapshots").len(), 1);
    assert_eq!(images.run(&["--pull", "never"], &image, &[]).output().exits(3).stdout, "hello\n");
    images.assert_clean();
}

#[test]
fn login_is_asked_for_and_stored_and_removed() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let auth = images.scratch.join("auth.json");
    let stored = || std::fs::read_to_string(&auth).unwrap();
    images
        .creel(&["login", &registry.host])
        .output()
        .exits(1)
        .creel_says(&["--username", "--password-stdin"]);
    let password = std::fs::File::open(images.scratch.file("password", "secret\n")).unwrap();
    let words = ["login", "--username", "u", "--password-stdin", &registry.host];
    images.creel(&words).stdin(password).output().ok().says(&["not encrypted"]);
    // base64 of `u:secret`
    assert!(stored().contains(&registry.host) && stored().contains("dTpzZWNyZXQ="), "{}", stored());
    images.creel(&["logout", &registry.host]).output().ok();
    assert!(!stored().contains(&registry.host), "{}", stored());
    images.creel(&["logout", &registry.host]).output().exits(1).creel_says(&["not logged in"]);
}

#[test]
fn one_word_may_be_an_alias() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let meant = registry.image("test/a").replace("docker://", "");
    images.scratch.file(".config/containers/registries.conf", format!("[aliases]\n\"box\" = \"{meant}\"\n"));
    assert_eq!(images.run(&["-q"], "box:1", &[]).output().exits(3).stdout, "hello\n");
    let names = images.creel(&["image", "ls"]).output().ok().stdout;
    assert!(names.contains(&format!("{meant}:1")), "{names}");
    images.creel(&["image", "rm", "box:1"]).output().ok();
    images.assert_clean();
}
