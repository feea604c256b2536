//! Who makes the cgroups of the tests' containers, and where they are, by `CREEL_TEST_CGROUP`.

use crate::cgroups;

/// Owner of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The runtime, below this path of the hierarchies: `/`, or any other that the tests are given.
    Runtime(String),
    /// systemd: the machine's for root, otherwise the user's own.
    Systemd,
}

impl Owner {
    /// `CREEL_TEST_CGROUP`: `systemd`, or a path; nothing means `/`.
    pub fn under_test() -> Owner {
        match std::env::var("CREEL_TEST_CGROUP").unwrap_or_default().as_str() {
            "systemd" => Owner::Systemd,
            path => Owner::Runtime(format!("{}/", path.trim_end_matches('/'))),
        }
    }

    /// `.linux.cgroupsPath` for a container of this name.
    pub fn cgroups_path(&self, name: &str) -> String {
        match self {
            Owner::Runtime(parent) => format!("{parent}{name}"),
            Owner::Systemd => format!(":e2e:{name}"),
        }
    }

    /// The cgroup that comes of that, below the mount points of the hierarchies.
    pub fn cgroup(&self, name: &str) -> String {
        match self {
            Owner::Runtime(parent) => format!("{parent}{name}"),
            Owner::Systemd if rustix::process::geteuid().is_root() => {
                format!("/system.slice/e2e-{name}.scope")
            }
            Owner::Systemd => format!("{}/user.slice/e2e-{name}.scope", users_systemd()),
        }
    }

    /// The global flag that asks for it.
    pub fn flag(&self) -> Option<&'static str> {
        (*self == Owner::Systemd).then_some("--systemd-cgroup")
    }
}

/// The cgroup of the user's systemd, in which the tests run.
///
/// # Panics
/// When they do not.
fn users_systemd() -> String {
    let own = cgroups::own("");
    let unit = format!("/user@{}.service", rustix::process::geteuid().as_raw());
    let (front, _) = own.split_once(&unit).unwrap_or_else(|| panic!("the tests run in {own}"));
    format!("{front}{unit}")
}
