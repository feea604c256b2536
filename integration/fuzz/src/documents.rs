//! Manifests, indexes and configurations: JSON of strangers, down to a config.json.

use std::cell::Cell;

use creel_image_lib::choose::choose;
use creel_image_lib::config::{ImageConfig, chain_ids};
use creel_image_lib::manifest::{self, Document};
use creel_image_lib::platform::Platform;
use creel_image_lib::runtime_config::{Databases, Run, runtime_config};

const SERVED: [Option<&str>; 4] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json"),
];

pub fn run(data: &[u8]) {
    // What an index points at stands behind it, after a NUL, which JSON has not.
    let mut parts = data.split(|byte| *byte == 0);
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    for served in SERVED {
        if let Ok(Document::Manifest(manifest)) = manifest::parse(first, served)
            && manifest.check_image().is_ok()
        {
            for layer in &manifest.layers {
                drop(layer.digest());
                drop(layer.inline());
            }
        }
        let asked = Cell::new(0);
        let mut fetch = |_: &_| {
            let at = asked.replace(asked.get() + 1);
            rest.get(at).map(|bytes| bytes.to_vec()).ok_or("nothing there")
        };
        drop(choose(first.to_vec(), served, &Platform::new("linux", "amd64", None), &mut fetch));
        // Indexes have no end to their entries, but what is fetched is only what is looked into.
        assert!(asked.get() <= rest.len() + 1);
    }
    if let Ok(config) = ImageConfig::parse(first) {
        assert_eq!(chain_ids(&config.rootfs.diff_ids).len(), config.rootfs.diff_ids.len());
        let text = |at: usize| rest.get(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let users = Databases { passwd: text(0).unwrap_or_default(), group: text(1).unwrap_or_default() };
        if let Ok(value) = runtime_config(&config, &Run::default(), &users, "rootfs") {
            let args = value["process"]["args"].as_array();
            assert!(args.is_some_and(|args| !args.is_empty()), "{value}");
            let cwd = value["process"]["cwd"].as_str();
            assert!(cwd.is_some_and(|cwd| cwd.starts_with('/')), "{value}");
        }
    }
}
