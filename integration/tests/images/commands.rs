//! The commands around the store.

use serde_json::json;

use crate::harness::Images;
use crate::needs_images;

#[test]
fn images_are_listed_shown_and_removed() {
    needs_images!();
    let images = Images::new();
    let layer = images.layout.layer(&images.scratch.join("tree"));
    images.layout.image("b", &[layer], &json!({"Cmd": ["/bin/true"], "Labels": {"k": "v"}}));
    let file = images.scratch.join("digest");
    let words = ["pull", "-q", "--digestfile", file.to_str().unwrap(), &images.oci("a")];
    let digest = images.creel(&words).output().ok().stdout;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), digest.trim());
    images.creel(&["pull", "-q", &images.oci("b")]).output().ok();
    let table = images.creel(&["image", "ls"]).output().ok().stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("NAME") && table.contains(&images.oci("b")), "{table}");
    let list = images.creel(&["image", "ls", "--format", "json"]).output().ok().json();
    assert_eq!(list[0]["digest"].as_str().unwrap(), digest.trim());
    let shown = images.creel(&["image", "inspect", &images.oci("b")]).output().ok().json();
    assert_eq!(shown["config"]["config"]["Labels"]["k"], "v");
    let by_digest =
        images.creel(&["image", "inspect", &digest.trim()["sha256:".len()..][..12]]).output().ok().json();
    assert_eq!(by_digest["names"][0].as_str().unwrap(), images.oci("a"));
    images.creel(&["image", "rm", &images.oci("a")]).output().ok();
    images.creel(&["image", "rm", &images.oci("a")]).output().exits(1).creel_says(&["no such image"]);
    images.creel(&["image", "prune"]).output().ok();
    assert_eq!((images.stored("images").len(), images.stored("snapshots").len()), (1, 1));
    images.creel(&["image", "rm", &images.oci("b")]).output().ok();
    images.creel(&["image", "prune"]).output().ok();
    assert!(images.stored("images").is_empty() && images.stored("snapshots").is_empty());
    assert!(images.stored("blobs/sha256").is_empty());
}

#[test]
fn what_is_left_out_of_an_image_is_told() {
    needs_images!();
    let images = Images::new();
    // A device in an image that overlayfs would take for a whiteout.
    let tree = images.scratch.dir("odd");
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("odd"), kind, mode, 0).unwrap();
    let layer = images.layout.layer(&tree);
    images.layout.image("odd", &[layer], &json!({"Cmd": ["/bin/true"]}));
    let name = images.oci("odd");
    let told = "left out: odd (character device 0:0 is overlayfs's whiteout)";
    let pulled = images.creel(&["pull", &name]).output().ok();
    assert!(pulled.stderr.contains(told), "{pulled}");
    let shown = images.creel(&["image", "inspect", &name]).output().ok().json();
    assert_eq!(
        (&shown["leftOut"]["count"], &shown["leftOut"]["first"][0]["path"]),
        (&json!(1), &json!("odd"))
    );
    let again = images.creel(&["pull", &name]).output().ok();
    assert!(!again.stderr.contains("left out"), "{again}");
    let bundle = images.scratch.join("bundle").display().to_string();
    let unpacked = images.creel(&["unpack", &name, &bundle]).output().ok();
    assert!(unpacked.stderr.contains(told), "{unpacked}");
}

#[test]
fn layout_is_shown_without_a_pull() {
    needs_images!();
    let images = Images::new();
    let shown = images.creel(&["inspect", &images.oci("a")]).output().ok().json();
    assert_eq!(shown["config"]["config"]["Cmd"][2], "echo hello; exit 3");
    let config = images.creel(&["inspect", "--config", &images.oci("a")]).output().ok().stdout;
    assert_eq!(
        crate::layout::digest(config.as_bytes()),
        shown["manifest"]["config"]["digest"].as_str().unwrap()
    );
    images.creel(&["tags", &images.oci("a")]).output().exits(1).creel_says(&["only repositories"]);
}

#[test]
fn help_is_one_for_both_programs() {
    needs_images!();
    let images = Images::new();
    let overview = images.runtime(&["help"]).output().ok().stdout;
    for name in ["pull-and-run", "pull", "image", "unpack", "copy", "tags", "inspect", "login", "logout"] {
        assert!(overview.contains(&format!("  {name} ")), "{overview}");
        let help = images.runtime(&[name, "--help"]).output().ok().stdout;
        assert!(help.contains(&format!("Usage: creel {name}")), "{help}");
        assert_eq!(images.runtime(&["help", name]).output().ok().stdout, help);
    }
    images.runtime(&["pull"]).output().exits(2).creel_says(&["IMAGE"]);
}

#[test]
fn compressed_layers_are_kept_when_asked_for() {
    needs_images!();
    let images = Images::new();
    images.creel(&["pull", "-q", &images.oci("a")]).output().ok();
    assert_eq!(images.stored("blobs/sha256").len(), 2);
    images.creel(&["image", "rm", &images.oci("a")]).output().ok();
    images.creel(&["image", "prune"]).output().ok();
    images.creel(&["pull", "-q", "--store-blobs", &images.oci("a")]).output().ok();
    assert_eq!(images.stored("blobs/sha256").len(), 3);
}
