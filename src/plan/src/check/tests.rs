//! Tables for the checks, and the properties of all of them together.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{check, check_process, check_rootless, sysctl_namespace, sysctl_path};
use crate::options::{NAMES, parse_options};
use crate::parse::parse;
use crate::spec::Spec;

fn merged(base: Value, fragment: &str) -> Value {
    let mut all: Map<String, Value> = base.as_object().unwrap().clone();
    let fragment: Map<String, Value> = serde_json::from_str(fragment).unwrap();
    all.extend(fragment);
    Value::from(all)
}

/// The least valid document with some keys replaced.
pub(super) fn spec(fragment: &str) -> Spec {
    let base = json!({"ociVersion": "1.0.0", "root": {"path": "rootfs"}});
    parse(&merged(base, fragment).to_string()).unwrap()
}

/// `ok`, the error, or the warnings, one a line.
pub(super) fn verdict(fragment: &str) -> String {
    match check(&spec(fragment)) {
        Err(invalid) => invalid.to_string(),
        Ok(warnings) if warnings.is_empty() => "ok".to_owned(),
        Ok(warnings) => {
            warnings.iter().map(|warning| format!("warning {warning}")).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Each document against its verdict.
pub(super) fn table(cases: &[(&str, &str)]) {
    for (fragment, expected) in cases {
        assert_eq!(verdict(fragment), *expected, "{fragment}");
    }
}

/// The same for keys of `.process`; `exec` must come to the same verdict.
pub(super) fn process_table(cases: &[(&str, &str)]) {
    for (fragment, expected) in cases {
        let process = merged(json!({"cwd": "/", "args": ["true"]}), fragment);
        let whole = json!({ "process": process }).to_string();
        assert_eq!(verdict(&whole), *expected, "{fragment}");
        let process = serde_json::from_value(process).unwrap();
        let alone = match check_process(&process, ".process") {
            Err(invalid) => invalid.to_string(),
            Ok(warnings) => warnings.first().map_or("ok".to_owned(), |w| format!("warning {w}")),
        };
        assert_eq!(alone, *expected, "{fragment}");
    }
}

/// A document as containerd writes it for a pod's container.
const POD: &str = r#"{
  "ociVersion": "1.2.1",
  "process": {
    "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]}, "args": ["sh"], "cwd": "/",
    "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=pod"],
    "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1024}],
    "noNewPrivileges": true, "oomScoreAdj": 1000
  },
  "root": {"path": "/run/rootfs", "readonly": false},
  "hostname": "pod",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {"destination": "/etc/hosts", "type": "bind", "source": "/var/hosts", "options": ["rbind", "rprivate", "rw"]}
  ],
  "hooks": {"createRuntime": [{"path": "/bin/hook", "args": ["hook"], "env": ["A=1"], "timeout": 3}]},
  "annotations": {"io.kubernetes.cri.container-type": "container"},
  "linux": {
    "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "uts"}, {"type": "mount"},
      {"type": "network"}, {"type": "user"}, {"type": "cgroup"}, {"type": "time"}],
    "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 0}},
    "sysctl": {"net.ipv4.ip_forward": "1"},
    "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}],
    "cgroupsPath": "/kubepods/pod1/c1",
    "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 1048576}, "cpu": {"shares": 2}},
    "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "rootfsPropagation": "rslave"
  }
}"#;

#[test]
fn a_pod_as_engines_write_it_is_fine() {
    let spec = parse(POD).unwrap();
    assert_eq!(check(&spec).unwrap(), []);
    check_rootless(&spec).unwrap();
}

#[test]
fn first_mistake_in_the_order_of_the_list_is_reported() {
    let mut spec = parse(POD).unwrap();
    spec.process.as_mut().unwrap().args.clear();
    spec.hooks.as_mut().unwrap().create_runtime[0].path.clear();
    assert_eq!(check(&spec).unwrap_err().at, ".process.args");
    spec.root = None;
    assert_eq!(check(&spec).unwrap_err().at, ".root");
}

/// Replaces the `index`-th value of a tree (depth first).
fn replace(tree: &mut Value, index: &mut usize, with: &Value) -> bool {
    if *index == 0 {
        tree.clone_from(with);
        return true;
    }
    *index -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, index, with)),
        Value::Object(map) => map.iter_mut().any(|(_, item)| replace(item, index, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0usize,
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("\0")),
        Just(json!("/")),
        Just(json!("é/../ü=,\\\"")),
        Just(json!(["ro", "bind", "idmap", "x=y"])),
        Just(
            json!([{"containerID": 4_294_967_295_u32, "hostID": 4_294_967_295_u32, "size": 4_294_967_295_u32}])
        ),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(NAMES).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ]
}

/// A jq path to the mistake leads into the document, or to a key that is missing there.
fn assert_path(at: &str) {
    assert!(at.starts_with('.') && !at.contains("..") && !at.ends_with('.'), "{at}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_document_makes_a_check_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 1..5)) {
        let mut tree: Value = serde_json::from_str(POD).unwrap();
        for (index, value) in &changes {
            let mut index = index.index(count(&tree) - 1) + 1;
            prop_assert!(replace(&mut tree, &mut index, value));
        }
        if let Ok(spec) = parse(&tree.to_string()) {
            if let Err(invalid) = check(&spec) {
                assert_path(&invalid.at);
                prop_assert!(!invalid.why.is_empty() && !invalid.why.ends_with('.'));
            }
            if let Err(invalid) = check_rootless(&spec) {
                assert_path(&invalid.at);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = POD.as_bytes().to_vec();
        for (index, byte) in &changes {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
        match parse(&String::from_utf8_lossy(&bytes)) {
            Ok(spec) => { check(&spec).ok(); }
            Err(invalid) => prop_assert!(invalid.at.starts_with('.')),
        }
    }

    #[test]
    fn checked_documents_keep_what_later_stages_rely_on(
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 0..3),
    ) {
        let mut tree: Value = serde_json::from_str(POD).unwrap();
        for (index, value) in &changes {
            let mut index = index.index(count(&tree) - 1) + 1;
            replace(&mut tree, &mut index, value);
        }
        let Ok(spec) = parse(&tree.to_string()) else { return Ok(()) };
        if check(&spec).is_err() {
            return Ok(());
        }
        prop_assert!(spec.root.is_some_and(|root| !root.path.is_empty()));
        if let Some(process) = spec.process {
            prop_assert!(process.cwd.starts_with('/') && !process.args.is_empty());
            prop_assert!(process.env.iter().chain(&process.args).all(|text| !text.contains('\0')));
        }
        prop_assert!(spec.mounts.iter().all(|mount| parse_options(&mount.options).is_ok()));
        for key in spec.linux.iter().flat_map(|linux| linux.sysctl.keys()) {
            let path = sysctl_path(key).unwrap();
            prop_assert!(sysctl_namespace(key).is_some() && !path.starts_with('/') && !path.contains("/../"));
        }
    }
}
