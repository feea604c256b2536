//! Names without a registry: where they are looked for, by registries.conf.

use std::process::Command;

use creel_integration::skip;
use creel_test_servers::registry::Registry;

use crate::harness::Images;
use crate::{needs_images, registry_with};

#[test]
fn names_without_a_registry_are_searched_for_in_order() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let Ok(empty) = Registry::try_start("", "") else { skip!("docker-registry is not installed") };
    let conf = |mode: &str, order: &[&Registry]| {
        let hosts: Vec<String> = order.iter().map(|registry| format!("{:?}", registry.host)).collect();
        let text =
            format!("unqualified-search-registries = [{}]\nshort-name-mode = {mode:?}\n", hosts.join(", "));
        images.scratch.file(".config/containers/registries.conf", text);
    };
    conf("permissive", &[&empty, &registry]);
    assert_eq!(images.run(&["-q"], "test/a:1", &[]).output().exits(3).stdout, "hello\n");
    let names = images.creel(&["image", "ls"]).output().ok().stdout;
    assert!(names.contains(&format!("{}/test/a:1", registry.host)), "{names}");
    // It is in the store by now: nobody is asked.
    images.run(&["-q", "--pull", "never"], "test/a:1", &[]).output().exits(3);
    let shown = images.creel(&["inspect", "test/a:1"]).output().ok().json();
    assert_eq!(shown["name"], format!("{}/test/a:1", registry.host));
    let none = images.creel(&["pull", "-q", "test/none:1"]).output().exits(1);
    none.creel_says(&["none of the registries", &empty.host, &registry.host]);
    conf("enforcing", &[&empty, &registry]);
    let refused = images.creel(&["pull", "-q", "test/a:1"]).output().exits(1);
    refused.creel_says(&[&empty.host, &registry.host, "short-name-mode", "write the registry before it"]);
    conf("enforcing", &[&registry]);
    images.creel(&["pull", "-q", "test/a:1"]).output().ok();
    images.creel(&["image", "rm", "test/a:1"]).output().ok();
    images.assert_clean();
}

#[test]
fn policy_decides_which_images_are_used() {
    needs_images!();
    let images = Images::new();
    let accepted = serde_json::json!([{"type": "insecureAcceptAnything"}]);
    let policy = |scope: &std::path::Path| {
        let text = serde_json::json!({
            "default": [{"type": "reject"}],
            "transports": {"oci": {scope.display().to_string(): accepted}},
        });
        images.scratch.file(".config/containers/policy.json", text.to_string());
    };
    policy(std::path::Path::new("/no/such/directory"));
    let bundle = images.scratch.join("bundle").display().to_string();
    let copied = format!("oci:{}:x", images.scratch.join("out").display());
    for words in [
        &["pull", "-q", &images.oci("a")][..],
        &["unpack", "-q", &images.oci("a"), &bundle],
        &["copy", "-q", &images.oci("a"), &copied],
        &["push", "-q", &images.oci("a"), "docker://127.0.0.1:1/x:1"],
    ] {
        images.creel(words).output().exits(1).creel_says(&["policy.json (default) forbids it"]);
    }
    images.run(&["-q"], &images.oci("a"), &[]).output().exits(125).creel_says(&["--signature-policy"]);
    assert!(images.stored("snapshots").is_empty());
    let other = serde_json::json!({"default": accepted}).to_string();
    let other = images.scratch.file("policy.json", other).display().to_string();
    images.creel(&["copy", "-q", "--signature-policy", &other, &images.oci("a"), &copied]).output().ok();
    policy(&images.layout.path);
    assert_eq!(images.run(&["-q"], &images.oci("a"), &[]).output().exits(3).stdout, "hello\n");
    images.assert_clean();
}
