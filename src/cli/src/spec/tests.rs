#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn types(spec: &Spec) -> Vec<&str> {
    spec.linux.as_ref().unwrap().namespaces.iter().map(|namespace| namespace.r#type.as_str()).collect()
}

#[test]
fn what_is_written_reads_back_the_same() {
    let directory = tempfile::tempdir().unwrap();
    write(Some(directory.path().as_os_str()), None, false).unwrap();
    let text = std::fs::read_to_string(directory.path().join(CONFIG)).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n"), "{text}");
    let read: Spec = serde_json::from_str(&text).unwrap();
    let cgroup_v2 = types(&read).contains(&"cgroup");
    assert_eq!(read, example(cgroup_v2));
}

#[test]
fn a_config_that_exists_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(CONFIG);
    std::fs::write(&path, "mine").unwrap();
    let why = write(Some(directory.path().as_os_str()), None, false).unwrap_err();
    assert_eq!(why, "File config.json exists. Remove it first");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn the_cgroup_namespace_comes_with_cgroup_v2() {
    assert_eq!(types(&example(false)), ["pid", "network", "ipc", "uts", "mount"]);
    assert_eq!(types(&example(true)), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
}

#[test]
fn a_rootless_spec_maps_one_user_and_asks_for_nothing_he_lacks() {
    let mut spec = example(true);
    make_rootless(&mut spec, 1000, 100);
    assert_eq!(types(&spec), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    let linux = spec.linux.unwrap();
    assert_eq!(linux.uid_mappings, [IdMapping { container_id: 0, host_id: 1000, size: 1 }]);
    assert_eq!(linux.gid_mappings, [IdMapping { container_id: 0, host_id: 100, size: 1 }]);
    assert_eq!(linux.resources, None);
    let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
    assert_eq!((sys.r#type.as_str(), sys.source.as_str()), ("none", "/sys"));
    assert_eq!(sys.options[0], "rbind");
    assert!(spec.mounts.iter().flat_map(|mount| &mount.options).all(|option| !option.contains("gid=")));
}
