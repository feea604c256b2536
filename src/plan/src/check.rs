//! Validation of a [`Spec`]: a list of plain functions, each of which looks at one part of the
//! document and stops at the first mistake.
//!
//! Everything here follows from the document alone. What also depends on the host is decided when
//! the plan is made, or by the kernel: whether a namespace path is the host's own
//! ([`sysctl_namespace`] says which one a sysctl needs), whether a bind mount's source is procfs
//! ([`check_proc_destination`]), what an unprivileged runtime may do ([`check_rootless`]).

mod attributes;
mod capabilities;
mod devices;
mod hooks;
mod labels;
mod mappings;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod root;
mod rootless;
mod sysctl;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};

use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::spec::{IdMapping, Namespace, Process, Spec};

pub use mounts::check_proc_destination;
pub use rootless::check_rootless;
pub use sysctl::{sysctl_namespace, sysctl_path};

/// Something that works, but not as written; printed as `{at}: {why}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Path of the field as jq takes it.
    pub at: String,
    /// Lower case, no full stop.
    pub why: String,
}

impl Warning {
    fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Self { at: at.into(), why: why.into() }
    }
}

impl Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

type Check = fn(&Spec, &mut Vec<Warning>) -> Result<(), Invalid>;

/// In the order in which mistakes are reported.
const CHECKS: &[Check] = &[
    root::root,
    namespaces::namespaces,
    namespaces::time_offsets,
    mappings::user_namespace,
    root::host_names,
    process::process,
    mappings::users_are_mapped,
    mounts::mounts,
    paths::rootfs_propagation,
    paths::masked_and_readonly,
    paths::cgroups_path,
    devices::devices,
    devices::device_rules,
    sysctl::sysctl,
    hooks::hooks,
    attributes::memory_policy,
    attributes::personality,
    attributes::net_devices,
    attributes::intel_rdt,
    labels::mount_label,
];

/// Checks a whole document. A mistake is an error, what runc only warns of is a warning.
pub fn check(spec: &Spec) -> Result<Vec<Warning>, Invalid> {
    let mut warnings = Vec::new();
    for check in CHECKS {
        check(spec, &mut warnings)?;
    }
    Ok(warnings)
}

/// Checks a process apart from its container, for `exec`. `at` is the path of the process in the
/// document it came from: empty for the file of `exec --process`.
pub fn check_process(process: &Process, at: &str) -> Result<Vec<Warning>, Invalid> {
    let mut warnings = Vec::new();
    process::check_process(process, at, &mut warnings)?;
    Ok(warnings)
}

/// The namespace of a kind that the container has: a new one, or one joined by path.
fn namespace(spec: &Spec, kind: NamespaceKind) -> Option<&Namespace> {
    let linux = spec.linux.as_ref()?;
    linux.namespaces.iter().find(|namespace| namespace.r#type == kind.word())
}

/// Whether an id of the container has an id on the host.
fn is_mapped(mappings: &[IdMapping], id: u32) -> bool {
    mappings.iter().any(|m| id.checked_sub(m.container_id).is_some_and(|offset| offset < m.size))
}

/// A null byte would end the string in the kernel. Paths are only written out when something is
/// wrong: this runs at every start.
fn no_null(at: impl Display, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(at.to_string(), "must not contain a null byte"));
    }
    Ok(())
}

fn absolute(at: impl Display, path: &str) -> Result<(), Invalid> {
    if path.is_empty() {
        return Err(Invalid::new(at.to_string(), "must not be empty"));
    }
    if !path.starts_with('/') {
        return Err(Invalid::new(at.to_string(), format!("must be an absolute path, found {path:?}")));
    }
    no_null(at, path)
}

/// `NAME=value` entries, as execve(2) passes them on and as programs expect them.
fn environment(at: impl Display, env: &[String]) -> Result<(), Invalid> {
    for (index, entry) in env.iter().enumerate() {
        let wrong = |why: String| Err(Invalid::new(format!("{at}[{index}]"), why));
        no_null(format_args!("{at}[{index}]"), entry)?;
        match entry.find('=') {
            None => return wrong(format!("expected NAME=value, found {entry:?}")),
            Some(0) => return wrong(format!("the name is empty in {entry:?}")),
            Some(_) => {}
        }
    }
    Ok(())
}
