//! `push` and `copy` to every kind of destination: digests stay, and blobs travel only where they are missing.

use std::process::Command;

use creel_integration::{Cmd, skip};
use creel_test_servers::registry::Registry;
use creel_test_servers::server::{Server, forward};

use crate::harness::Images;
use crate::registry::take_in;
use crate::{needs_images, registry_with};

fn raw(images: &Images, image: &str) -> String {
    images.creel(&["inspect", "--raw", image]).output().ok().stdout
}

/// A proxy before a registry that only listens.
fn listening(registry: &Registry) -> Server {
    let behind = registry.host.clone();
    Server::start(move |heard| forward(&behind, heard))
}

fn at(server: &Server, name: &str) -> String {
    format!("docker://{}/{name}", server.host())
}

#[test]
fn image_of_the_store_is_pushed_as_it_was_pulled() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let from = images.oci("a");
    images.creel(&["pull", "-q", "--store-blobs", &from]).output().ok();
    let to = registry.image("pushed/a:1");
    let file = images.scratch.join("digest");
    let words = ["push", "-q", "--digestfile", file.to_str().unwrap(), &from, &to];
    // By its name in the store, a layout is looked at itself: so the name is taken away first.
    let digest = images.creel(&words).output().ok().stdout;
    assert_eq!(crate::layout::digest(raw(&images, &to).as_bytes()), digest.trim());
    assert_eq!(std::fs::read_to_string(file).unwrap(), digest.trim());
    let by_digest = digest.trim().trim_start_matches("sha256:")[..12].to_owned();
    let second = registry.image("pushed/b:1");
    std::fs::rename(&images.layout.path, images.scratch.join("moved")).unwrap();
    images.creel(&["push", "-q", &by_digest, &second]).output().ok();
    assert_eq!(raw(&images, &second), raw(&images, &to));
    images.creel(&["push", &by_digest]).output().exits(1).creel_says(&["write where to push it"]);
    images.assert_clean();
}

#[test]
fn layers_that_the_store_has_not_kept_come_from_where_they_were_pulled() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let from = registry.image("test/a:1");
    images.creel(&["pull", "-q", &from]).output().ok();
    // In the same registry they do not travel at all.
    let told = images.creel(&["push", &from, &registry.image("other/a:1")]).output().ok();
    told.says(&["2 of 2 blobs mounted from another repository"]);
    assert_eq!(raw(&images, &registry.image("other/a:1")), raw(&images, &from));
    let Ok(elsewhere) = Registry::try_start("", "") else { skip!("docker-registry is not installed") };
    images.creel(&["push", "-q", &from, &elsewhere.image("far/a:2")]).output().ok();
    assert_eq!(raw(&images, &elsewhere.image("far/a:2")), raw(&images, &from));
    // And where they can come from nowhere, it is said what would have helped.
    drop(registry);
    let third = elsewhere.image("third/a:1");
    images.creel(&["push", "-q", &from, &third]).output().exits(1).creel_says(&["connection refused"]);
    images.creel(&["push", "-q", &from]).output().exits(1).creel_says(&["connection refused"]);
}

#[test]
fn blobs_are_uploaded_in_chunks_when_asked_for() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let server = listening(&registry);
    let push = |flags: &[&str], name: &str| {
        let before = server.count("PATCH", "/uploads/");
        images
            .creel(&[&["push", "-q"], flags, &[&images.oci("a"), &at(&server, name)]].concat())
            .output()
            .ok();
        server.count("PATCH", "/uploads/") - before
    };
    assert_eq!(push(&[], "whole/a:1"), 0);
    let size = std::fs::metadata("/bin/busybox").unwrap().len();
    let patches = push(&["--chunk-size", "100k"], "parts/a:1");
    assert!(patches as u64 > size / 4 / 102_400, "{patches}");
    assert_eq!(raw(&images, &registry.image("parts/a:1")), raw(&images, &images.oci("a")));
    let words = ["push", "--chunk-size", "1x", &images.oci("a"), &at(&server, "x")];
    images.creel(&words).output().exits(1).creel_says(&["--chunk-size 1x"]);
    // What is there is not sent again.
    let before = server.count("PATCH", "") + server.count("POST", "");
    let again = ["push", &images.oci("a"), &at(&server, "parts/a:1")];
    images.creel(&again).output().ok().says(&["2 of 2 blobs there already"]);
    assert_eq!(server.count("PATCH", "") + server.count("POST", ""), before);
}

#[test]
fn image_goes_through_every_kind_of_file_with_its_digest() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let first = registry.image("test/a:1");
    let out = images.scratch.dir("out").display().to_string();
    let mut from = first.clone();
    for to in [
        format!("oci:{out}/layout:v1"),
        format!("oci-archive:{out}/a.tar:v1"),
        format!("docker-archive:{out}/d.tar:host.example/app:v1"),
        format!("dir:{out}/dir"),
        registry.image("back/a:1"),
    ] {
        images.creel(&["copy", "-q", &from, &to]).output().ok();
        assert_eq!(raw(&images, &to), raw(&images, &first), "{to}");
        // Others read it as well.
        let shown =
            Cmd::new("skopeo").args(["inspect", "--tls-verify=false", "--config", &to]).output().ok().json();
        assert_eq!(shown["config"]["Cmd"][0], "sh", "{to}");
        from = to;
    }
    let again = ["copy", "-q", &first, &format!("oci-archive:{out}/a.tar")];
    images.creel(&again).output().exits(1).creel_says(&["is there already", "remove it"]);
    images
        .creel(&["copy", "-q", &first, &format!("oci:{out}")])
        .output()
        .exits(1)
        .creel_says(&["other files"]);
}

#[test]
fn archive_on_standard_input_is_run_copied_and_unpacked() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let first = registry.image("test/a:1");
    let out = images.scratch.dir("out");
    for kind in ["oci-archive", "docker-archive"] {
        let file = out.join(kind);
        let to = format!("{kind}:-");
        let stdout = std::fs::File::create(&file).unwrap();
        let stderr = std::process::Stdio::null();
        images.creel(&["copy", "-q", &first, &to]).spawn_with(stdout, stderr).output().ok();
        let open = || std::fs::File::open(&file).unwrap();
        let run = images.run(&["-q"], "-", &[]).stdin(open()).output().exits(3);
        assert_eq!(run.stdout, "hello\n");
        let copied = registry.image(&format!("stdin/{kind}:1"));
        images.creel(&["copy", "-q", "-", &copied]).stdin(open()).output().ok();
        assert_eq!(raw(&images, &copied), raw(&images, &first));
        let bundle = out.join(format!("{kind}.bundle")).display().to_string();
        images.creel(&["unpack", "-q", "-", &bundle]).stdin(open()).output().ok();
        let output = images.runtime(&["run", "--bundle", &bundle, images.scratch.name()]).output().exits(3);
        assert_eq!(output.stdout, "hello\n");
        images.run(&["-i"], "-", &[]).stdin(open()).output().exits(125).creel_says(&["-i: standard input"]);
    }
    let junk = images.scratch.file("junk", "no archive");
    let open = std::fs::File::open(junk).unwrap();
    let refused = images.creel(&["pull", "-q", "-"]).stdin(open).output().exits(1);
    refused.creel_says(&["pull: -: "]);
    images.assert_clean();
}

#[test]
fn pushed_index_has_all_its_platforms() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let layer = images.layout.layer(&images.scratch.join("tree"));
    let of = |architecture: &str| {
        let config = serde_json::json!({"Cmd": ["/bin/true"]});
        images.layout.manifest(std::slice::from_ref(&layer), &config, architecture)
    };
    let entries = [of(crate::layout::architecture()), of("mips64le")];
    images.layout.name(images.layout.index(&entries), "both");
    let to = registry.image("all/a:1");
    images.creel(&["push", "-q", "--all", &images.oci("both"), &to]).output().ok();
    assert_eq!(raw(&images, &to), raw(&images, &images.oci("both")));
    for entry in &entries {
        let one = format!("{}@{}", registry.image("all/a"), entry["digest"].as_str().unwrap());
        assert_eq!(crate::layout::digest(raw(&images, &one).as_bytes()), entry["digest"]);
    }
    let tar = format!("docker-archive:{}", images.scratch.join("x.tar").display());
    images.creel(&["copy", "-q", "--all", &to, &tar]).output().exits(1).creel_says(&["leave out --all"]);
    take_in(&registry, &images.oci("both"), "all/b:1");
    assert_eq!(raw(&images, &registry.image("all/b:1")), raw(&images, &to));
}

#[test]
fn a_digest_in_the_destination_must_be_the_images() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let wrong = format!("{}@sha256:{}", registry.image("test/x"), "0".repeat(64));
    let words = ["push", "-q", &images.oci("a"), &wrong];
    images.creel(&words).output().exits(1).creel_says(&["the digest that was asked for", "0000"]);
    let found = images.creel(&["inspect", &images.oci("a")]).output().ok().json();
    let right = format!("{}@{}", registry.image("test/x"), found["manifestDigest"].as_str().unwrap());
    images.creel(&["push", "-q", &images.oci("a"), &right]).output().ok();
    assert_eq!(raw(&images, &right), raw(&images, &images.oci("a")));
}
