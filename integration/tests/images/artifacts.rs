//! Artifacts of any type, and what refers to an image, in a registry and in a layout.

use std::process::Command;

use creel_integration::skip;
use creel_test_servers::server::{Server, forward};
use serde_json::{Value, json};

use crate::harness::Images;
use crate::{needs_images, registry_with};

const SBOM: &str = "application/vnd.example.sbom+json";

fn listed(images: &Images, image: &str, flags: &[&str]) -> Vec<Value> {
    let words = [&["artifact", "ls", "--format", "json"], flags, &[image]].concat();
    let found = images.creel_nested(&words).output().ok().json();
    found["referrers"].as_array().unwrap().clone()
}

#[test]
fn files_come_back_as_they_went() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (one, two) = (images.scratch.file("one.json", "{\"a\":1}"), images.scratch.file("two.bin", "binary"));
    let one = format!("{}:application/json", one.display());
    let places = [registry.image("art/x:1"), format!("oci:{}:x", images.scratch.join("arts").display())];
    for (n, to) in places.iter().enumerate() {
        let out = images.scratch.join(format!("out{n}"));
        let words = ["artifact", "push", "-q", "--artifact-type", SBOM, "--annotation", "k=v", to, &one];
        images.creel_nested(&[&words[..], &[two.to_str().unwrap()]].concat()).output().ok();
        let raw = images.creel(&["inspect", "--raw", to]).output().ok().json();
        assert_eq!((raw["artifactType"].as_str(), raw["annotations"]["k"].as_str()), (Some(SBOM), Some("v")));
        assert_eq!(raw["layers"][0]["mediaType"], "application/json");
        let pull = ["artifact", "pull", "-q", "-o", out.to_str().unwrap(), to];
        images.creel_nested(&pull).output().ok();
        assert_eq!(std::fs::read_to_string(out.join("one.json")).unwrap(), "{\"a\":1}");
        assert_eq!(std::fs::read_to_string(out.join("two.bin")).unwrap(), "binary");
        images.creel_nested(&pull).output().exits(1).creel_says(&["is there already", "--force"]);
        images.creel_nested(&[&pull[..], &["--force"]].concat()).output().ok();
        // It is no image.
        images.creel(&["pull", "-q", to]).output().exits(1).creel_says(&["an artifact of type", SBOM]);
    }
    let raw = |image: &str| images.creel(&["inspect", "--raw", image]).output().ok().stdout;
    assert_eq!(raw(&places[0]), raw(&places[1]));
    images.creel(&["copy", "-q", &places[1], &registry.image("art/y:1")]).output().ok();
    assert_eq!(raw(&registry.image("art/y:1")), raw(&places[0]));
    let words = ["artifact", "push", "-q", "--artifact-type", SBOM, &registry.image("art/x")];
    images.creel_nested(&words).output().exits(1).creel_says(&["needs a tag"]);
    let words = ["artifact", "push", "-q", "--artifact-type", "no type", &registry.image("art/x:1")];
    images.creel_nested(&words).output().exits(1).creel_says(&["a media type has the form"]);
}

#[test]
fn what_refers_to_an_image_is_listed_by_the_tag_schema() {
    needs_images!();
    let images = Images::new();
    // Debian's registry keeps no list of its own.
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    assert_eq!(listed(&images, &image, &[]), Vec::<Value>::new());
    let sbom = images.scratch.file("sbom.json", "{}").display().to_string();
    let repository = registry.image("test/a");
    let refer = |kind: &str, subject: &str| {
        let words =
            ["artifact", "push", "-q", "--artifact-type", kind, "--subject", subject, &repository, &sbom];
        images.creel_nested(&words).output().ok().stdout.trim().to_owned()
    };
    let first = refer(SBOM, "1");
    let second = refer("application/vnd.example.signature", "1");
    let found = listed(&images, &image, &[]);
    let digests: Vec<&str> = found.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [first.as_str(), second.as_str()]);
    let only = listed(&images, &image, &["--artifact-type", SBOM]);
    assert_eq!(only.len(), 1);
    let table = images.creel_nested(&["artifact", "ls", &image]).output().ok().stdout;
    assert!(table.contains(SBOM) && table.contains(&first), "{table}");
    // A signature of the SBOM, by its digest.
    let third = refer("application/vnd.example.signature", &first);
    assert_eq!(listed(&images, &format!("{repository}@{first}"), &[])[0]["digest"], third);
    // All of it goes with the image.
    let to = registry.image("copied/a:1");
    images.creel(&["copy", "-q", "--referrers", &image, &to]).output().ok();
    assert_eq!(listed(&images, &to, &[]).len(), 2);
    assert_eq!(listed(&images, &format!("{}@{first}", registry.image("copied/a")), &[]).len(), 1);
    let layout = format!("oci:{}", images.scratch.join("with").display());
    images.creel(&["copy", "-q", "--referrers", &to, &layout]).output().ok();
    assert_eq!(listed(&images, &layout, &[]).len(), 2);
    images.creel(&["copy", "-q", "--referrers", &layout, &registry.image("third/a:1")]).output().ok();
    assert_eq!(listed(&images, &registry.image("third/a:1"), &[]).len(), 2);
    let words = ["artifact", "push", "-q", "--artifact-type", SBOM, "--subject", "none", &repository, &sbom];
    images.creel_nested(&words).output().exits(1).creel_says(&["--subject none", "404"]);
    let out = images.scratch.join("out").display().to_string();
    let words = ["artifact", "pull", "-q", "-o", &out, &format!("{repository}@{first}")];
    images.creel_nested(&words).output().ok();
}

#[test]
fn registry_with_a_list_of_its_own_is_asked_for_it() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let behind = registry.host.clone();
    let server = Server::start(move |heard| {
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
            "digest": format!("sha256:{}", "1".repeat(64)), "artifactType": SBOM});
        if heard.is("GET", "/referrers/") {
            let body = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
            return creel_test_servers::server::Reply::new(200, body.to_string());
        }
        let mut reply = forward(&behind, heard);
        if heard.is("PUT", "/manifests/") {
            reply = reply.with("OCI-Subject", "sha256:00");
        }
        reply
    });
    let repository = format!("docker://{}/test/a", server.host());
    let file = images.scratch.file("f", "x").display().to_string();
    let words = ["artifact", "push", "-q", "--artifact-type", SBOM, "--subject", "1", &repository, &file];
    images.creel_nested(&words).output().ok();
    // It said that it keeps the list: no tag is made for it.
    assert!(!server.heard().iter().any(|heard| heard.is("PUT", "/manifests/sha256-")));
    assert_eq!(listed(&images, &format!("{repository}:1"), &[]).len(), 1);
}

#[test]
fn two_files_of_one_name_are_refused() {
    needs_images!();
    let images = Images::new();
    let layout = &images.layout;
    let file = |text: &str| {
        let mut layer = layout.put("text/plain", text.as_bytes());
        layer["annotations"] = json!({"org.opencontainers.image.title": "same"});
        layer
    };
    let artifact = |name: &str, layers: Value| {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "artifactType": SBOM,
            "config": layout.put("application/vnd.oci.empty.v1+json", b"{}"), "layers": layers});
        layout.name(layout.put(kind, manifest.to_string().as_bytes()), name);
    };
    artifact("two", json!([file("one"), file("two")]));
    artifact("twice", json!([file("one"), file("one")]));
    let out = images.scratch.join("out");
    let pull = |name: &str| {
        let words = ["artifact", "pull", "-q", "--force", "-o", out.to_str().unwrap(), &images.oci(name)];
        images.creel_nested(&words).output()
    };
    pull("two").exits(1).creel_says(&["two files of the artifact are called \"same\""]);
    assert!(!out.join("same").exists());
    pull("twice").ok();
    assert_eq!(std::fs::read_to_string(out.join("same")).unwrap(), "one");
}

#[test]
fn artifact_that_would_write_elsewhere_is_refused() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let layout = &images.layout;
    let blob = layout.put("text/plain", b"evil");
    for title in ["../evil", "/tmp/evil", ".."] {
        let mut layer = blob.clone();
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": SBOM, "config": layout.put("application/vnd.oci.empty.v1+json", b"{}"), "layers": [layer]});
        layout.name(
            layout.put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes()),
            "evil",
        );
        let out = images.scratch.join("out").display().to_string();
        let words = ["artifact", "pull", "-q", "-o", &out, &images.oci("evil")];
        images.creel_nested(&words).output().exits(1).creel_says(&["leads out of the directory"]);
    }
    assert!(!images.scratch.join("evil").exists());
    drop(registry);
}
