//! Images that are wrong: one line, an exit code, and nothing half-made that is used later.

use creel_integration::Output;
use serde_json::json;

use crate::harness::Images;
use crate::layout::{Layer, architecture};
use crate::needs_images;

/// An image `b` of one layer with a file in it.
fn with_layer(images: &Images) -> Layer {
    let big: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    images.scratch.file("b/file", big);
    let layer = images.layout.layer(&images.scratch.join("b"));
    images.layout.image("b", std::slice::from_ref(&layer), &json!({"Cmd": ["/bin/true"]}));
    layer
}

/// Asserts that it was refused in one line and that the store has nothing of it.
#[track_caller]
fn refused(images: &Images, output: Output, said: &[&str]) {
    // What comes before is the progress.
    let last = output.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("creel: "), "{output}");
    for word in said {
        assert!(last.contains(word), "expected {word:?}\n{output}");
    }
    output.exits(1);
    assert!(
        images.stored("snapshots").is_empty()
            && images.stored("images").is_empty()
            && images.stored("refs").is_empty()
    );
    images.assert_clean();
}

#[test]
fn layer_with_a_wrong_byte_is_refused_and_the_right_one_taken_later() {
    needs_images!();
    let images = Images::new();
    let layer = with_layer(&images);
    let path = images.layout.blob(&layer.hex());
    let right = std::fs::read(&path).unwrap();
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    refused(&images, images.creel(&["pull", &images.oci("b")]).output(), &["layer", ":b: "]);
    std::fs::write(&path, right).unwrap();
    images.creel(&["pull", &images.oci("b")]).output().ok();
    assert_eq!(images.stored("snapshots").len(), 1);
}

#[test]
fn words_of_an_image_give_the_terminal_no_orders() {
    needs_images!();
    let images = Images::new();
    let layer = with_layer(&images);
    let manifest = images.layout.manifest(&[layer], &json!({}), "amd64");
    let mut entry = manifest.clone();
    entry["platform"] = json!({"os": "linux\n\u{1b}[31mcreel: fake", "architecture": "\u{9b}2J"});
    images.layout.name(images.layout.index(&[entry]), "red");
    let output = images.creel(&["pull", "-q", &images.oci("red")]).output().exits(1);
    output.creel_says(&["no image for", "linux\\u000a\\u001b[31mcreel: fake/\\u009b2J"]);
    let artifact = |name: &str, kind: &str, title: &str| {
        let mut layer = images.layout.put("text/plain", b"x");
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
        let kinds = "application/vnd.oci.image.manifest.v1+json";
        let document = json!({"schemaVersion": 2, "mediaType": kinds, "artifactType": kind, "subject": manifest,
            "config": images.layout.put("application/vnd.oci.empty.v1+json", b"{}"), "layers": [layer]});
        let mut entry = images.layout.put(kinds, document.to_string().as_bytes());
        entry["artifactType"] = json!(kind);
        images.layout.name(entry, name);
    };
    images.layout.name(manifest.clone(), "plain");
    artifact("typed", "a/b\u{1b}[31m\nfake", "x");
    let table = images.creel_nested(&["artifact", "ls", &images.oci("plain")]).output().ok().stdout;
    assert!(table.contains("a/b\\u001b[31m\\u000afake") && table.lines().count() == 2, "{table}");
    artifact("titled", "a/b", "x\u{1b}[31m");
    let out = images.scratch.join("out").display().to_string();
    let words = ["artifact", "pull", "-q", "-o", &out, &images.oci("titled")];
    images.creel_nested(&words).output().exits(1).creel_says(&["no name for a file"]);
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 0);
}

#[test]
fn layer_of_another_content_is_refused_by_its_digest() {
    needs_images!();
    let images = Images::new();
    let layer = with_layer(&images);
    // A whole gzip of a whole tar, and of the right size: only the digest tells.
    let path = images.layout.blob(&layer.hex());
    let mut other = std::fs::read(&path).unwrap();
    // Byte 4 to 7 of gzip are a time that no decompressor looks at (RFC 1952).
    other[4] ^= 1;
    std::fs::write(&path, other).unwrap();
    refused(
        &images,
        images.creel(&["pull", &images.oci("b")]).output(),
        &["the content has the digest", &layer.hex()],
    );
}

#[test]
fn short_and_long_layers_are_refused() {
    needs_images!();
    let images = Images::new();
    let layer = with_layer(&images);
    let path = images.layout.blob(&layer.hex());
    let right = std::fs::read(&path).unwrap();
    std::fs::write(&path, &right[..right.len() / 2]).unwrap();
    refused(&images, images.creel(&["pull", &images.oci("b")]).output(), &["layer", "ends"]);
    std::fs::write(&path, [right.as_slice(), b"more"].concat()).unwrap();
    refused(&images, images.creel(&["pull", &images.oci("b")]).output(), &["layer", "longer than its"]);
    std::fs::remove_file(&path).unwrap();
    refused(&images, images.creel(&["pull", &images.oci("b")]).output(), &["ENOENT"]);
}

#[test]
fn damaged_layer_from_a_registry_is_told_with_its_host() {
    needs_images!();
    let images = Images::new();
    let layer = with_layer(&images);
    if std::process::Command::new("skopeo").arg("--version").output().is_err() {
        creel_integration::skip!("skopeo is not installed");
    }
    let registry = match crate::registry::Registry::try_start("", "") {
        Ok(registry) => registry,
        Err(why) => creel_integration::skip!("{why}"),
    };
    crate::registry::take_in(&registry, &images.oci("b"), "test/b:1");
    let hex = layer.hex();
    let path = registry.blob(&hex);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    refused(&images, images.creel(&["pull", &registry.image("test/b:1")]).output(), &["127.0.0.1", &hex]);
}

#[test]
fn commands_that_are_not_there_have_exit_codes_of_their_own() {
    needs_images!();
    let images = Images::new();
    let run = |command: &[&str]| images.run(&["-q"], &images.oci("a"), command).output();
    run(&["nosuch"]).exits(127).creel_says(&["executable file not found in $PATH"]);
    run(&["/nosuch"]).exits(127).creel_says(&["no such file or directory"]);
    run(&["/etc/plain"]).exits(126).creel_says(&["not an executable file"]);
    run(&["/bin"]).exits(126).creel_says(&["not an executable file"]);
    images.assert_clean();
}

#[test]
fn image_without_a_command_or_user_is_refused() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    images.layout.image("none", std::slice::from_ref(&layer), &json!({}));
    images.run(&["-q"], &images.oci("none"), &[]).output().exits(125).creel_says(&["has no command"]);
    images.layout.image("user", &[layer], &json!({"User": "nobody", "Cmd": ["/bin/true"]}));
    images.run(&["-q"], &images.oci("user"), &[]).output().exits(125).creel_says(&["has no user \"nobody\""]);
    images
        .run(&["-q", "-u", "web:none"], &images.oci("user"), &[])
        .output()
        .exits(125)
        .creel_says(&["no group"]);
    images.assert_clean();
}

#[test]
fn image_for_another_platform_is_refused_and_the_others_are_named() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    let layers = std::slice::from_ref(&layer);
    let foreign = images.layout.manifest(layers, &json!({"Cmd": ["/bin/true"]}), "mips64le");
    images.layout.name(foreign.clone(), "alone");
    images.layout.name(images.layout.index(std::slice::from_ref(&foreign)), "index");
    for name in ["alone", "index"] {
        let output = images.run(&["-q"], &images.oci(name), &[]).output().exits(125);
        output.creel_says(&["linux/mips64le", architecture()]);
    }
    let own = images.layout.manifest(layers, &json!({"Cmd": ["/bin/echo", "own"]}), architecture());
    images.layout.name(images.layout.index(&[foreign, own]), "both");
    assert_eq!(images.run(&["-q"], &images.oci("both"), &[]).output().ok().stdout, "own\n");
    images.creel(&["pull", "-q", "--platform", "linux/mips64le", &images.oci("both")]).output().ok();
    images.assert_clean();
}

#[test]
fn names_that_are_none_are_refused() {
    needs_images!();
    let images = Images::new();
    for (image, said) in [
        ("host.example/UPPER", "lower case"),
        ("docker-daemon:x", "transport"),
        ("oci:/no/such/dir", "/no/such/dir"),
        ("x@sha256:1234", "sha256:1234"),
        ("oci:", "empty"),
    ] {
        images.creel(&["pull", image]).output().exits(1).creel_says(&[said]);
    }
    let absent = images.creel(&["pull", &images.oci("absent")]).output();
    refused(&images, absent, &["absent", "there are a"]);
}
