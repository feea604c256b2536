//! `features`: what this runtime supports, for engines to ask before they write a config.json
//! (runtime-spec, features.md).
//!
//! containerd asks for id-mapped mounts only where `mountExtensions.idmap.enabled` is true, CRI-O
//! looks for `rro` among the mount options and refuses a document without both versions. CRI-O
//! decodes standard output and standard error together, so nothing else may be printed.

use std::collections::BTreeMap;

use creel_container::seccomp_names;
use creel_plan::{names, options};
use serde::Serialize;

use crate::commands::Subcommand;
use crate::output;
use crate::version;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Annotations that change what a runtime does: an engine must not take them from an image.
const UNSAFE_ANNOTATIONS: [&str; 4] = ["bundle", "org.systemd.property.", "org.criu.config", "run.oci."];

/// The runc release whose command line and behaviour creel follows; runc reserves the annotation
/// for other runtimes to say so.
const LIKE_RUNC: &str = "1.5.1";

type Names = &'static [&'static str];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Names,
    mount_options: Names,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    potentially_unsafe_config_annotations: Names,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Names,
    capabilities: Names,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Names,
    operators: Names,
    archs: Names,
    known_flags: Names,
    supported_flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

/// The document, indented by four spaces.
pub fn document() -> String {
    output::json(&features(), Some("    ")) + "\n"
}

fn features() -> Features {
    const YES: Enabled = Enabled { enabled: true };
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: version::SPEC,
        hooks: &HOOKS,
        mount_options: options::NAMES,
        linux: Linux {
            namespaces: &NAMESPACES,
            capabilities: &names::CAPABILITIES,
            cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: Seccomp {
                enabled: true,
                actions: seccomp_names::ACTIONS,
                operators: seccomp_names::OPERATORS,
                archs: seccomp_names::ARCHITECTURES,
                known_flags: seccomp_names::FLAGS,
                supported_flags: creel_container::supported_flags(),
            },
            apparmor: YES,
            selinux: YES,
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: memory_policy(),
            mount_extensions: MountExtensions { idmap: YES },
            net_devices: YES,
        },
        annotations: BTreeMap::from([
            ("dev.creel.version", version::CREEL.into()),
            ("dev.creel.commit", version::COMMIT.into()),
            ("io.github.seccomp.libseccomp.version", creel_container::LIBSECCOMP_VERSION.to_owned()),
            ("org.opencontainers.runc.checkpoint.enabled", can_checkpoint().to_string()),
            ("org.opencontainers.runc.version", LIKE_RUNC.into()),
        ]),
        potentially_unsafe_config_annotations: &UNSAFE_ANNOTATIONS,
    }
}

/// The words that a config may use.
fn memory_policy() -> MemoryPolicy {
    let words = |table: &[(&'static str, u32)]| {
        let mut words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
        words.sort_unstable();
        words
    };
    MemoryPolicy { modes: words(names::MEMORY_POLICY_MODES), flags: words(names::MEMORY_POLICY_FLAGS) }
}

fn can_checkpoint() -> bool {
    ["checkpoint", "restore"].iter().all(|name| Subcommand::named(name.as_ref()).is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn cri_o_and_containerd_find_what_they_look_for() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(document["mountOptions"].as_array().unwrap().contains(&"rro".into()));
        assert!(document["linux"]["seccomp"]["enabled"].as_bool().unwrap());
    }

    #[test]
    fn every_field_that_a_feature_stands_for_is_applied() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let linux = &document["linux"];
        for pointer in ["apparmor", "selinux", "netDevices", "intelRdt", "seccomp", "mountExtensions/idmap"] {
            assert_eq!(linux.pointer(&format!("/{pointer}/enabled")), Some(&true.into()), "{pointer}");
        }
        assert!(linux["memoryPolicy"]["modes"].as_array().unwrap().contains(&"MPOL_BIND".into()));
    }

    /// The keys of features.md, runtime-spec 1.3.
    #[test]
    fn every_field_of_the_specification_is_there() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        for pointer in [
            "/ociVersionMin",
            "/ociVersionMax",
            "/hooks",
            "/mountOptions",
            "/annotations",
            "/potentiallyUnsafeConfigAnnotations",
            "/linux/namespaces",
            "/linux/capabilities",
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
            "/linux/seccomp/supportedFlags",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/intelRdt/schemata",
            "/linux/intelRdt/monitoring",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_namespace_kind_is_listed() {
        for kind in names::NamespaceKind::ALL {
            assert!(NAMESPACES.contains(&kind.word()), "{}", kind.word());
        }
    }

    #[test]
    fn lists_are_sorted_and_without_doubles() {
        for list in [
            options::NAMES,
            &NAMESPACES,
            seccomp_names::ACTIONS,
            seccomp_names::OPERATORS,
            seccomp_names::ARCHITECTURES,
        ] {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
        }
    }
}
