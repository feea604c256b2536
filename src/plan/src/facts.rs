//! What the plan depends on beside config.json: the request on the command line and the machine.
//!
//! Plain values, so that "an ordinary user on this host" is a line in a test and not a machine.

use std::collections::BTreeMap;

/// The machine and the user that runs creel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFacts {
    /// Effective user id of the runtime.
    pub euid: u32,
    /// Effective group id of the runtime.
    pub egid: u32,
    /// The runtime itself runs in a user namespace that is not the initial one.
    pub in_user_namespace: bool,
    /// setgroups(2) is denied in the runtime's own user namespace.
    pub setgroups_denied: bool,
    /// Looked up only for a config with labels.
    pub security: SecurityModules,
}

impl HostFacts {
    /// root of the initial user namespace.
    pub const ROOT: HostFacts = HostFacts {
        euid: 0,
        egid: 0,
        in_user_namespace: false,
        setgroups_denied: false,
        security: SecurityModules::NONE,
    };

    /// Not root, even of a user namespace.
    pub fn is_rootless(&self) -> bool {
        self.euid != 0
    }
}

/// The kernel's security modules that label processes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityModules {
    /// SELinux is on.
    pub selinux: bool,
    /// AppArmor, and what it makes of the runtime itself.
    pub apparmor: AppArmor,
}

impl SecurityModules {
    /// A machine with neither.
    pub const NONE: SecurityModules = SecurityModules { selinux: false, apparmor: AppArmor::Off };
}

/// AppArmor as the runtime sees it from where it runs, perhaps in a namespace of AppArmor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppArmor {
    /// Not there, or off.
    Off,
    /// The runtime may change to any profile.
    Unconfined,
    /// The runtime has a profile of its own.
    Confined,
}

/// The part of `create` and `run` that changes the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Container id.
    pub id: String,
    /// Bundle directory, absolute.
    pub bundle: String,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// Descriptors from 3 on for the container: LISTEN_FDS and `--preserve-fds`.
    pub preserve_fds: u32,
    /// Variables added to the process's environment.
    pub env: BTreeMap<String, String>,
    /// Host directory of the notify socket, bound at /run/notify.
    pub notify_dir: Option<String>,
}
