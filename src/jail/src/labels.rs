//! Labels of the security modules: SELinux contexts and AppArmor profiles.
//!
//! Runs in **init** and in the **exec** process through the host's procfs ([`crate::procfs`]), which is told
//! before no_new_privs is set and rights are dropped what execve is to make of the process: an unprivileged
//! change of profile may be one to a stack (apparmor.d(5)). Hooks of the container's namespace that run
//! after this get the labels too, as under runc.

use std::os::fd::{AsFd, OwnedFd};

use creel_plan::steps::{Keyring, Labels, Phase, ProfileStep};
use creel_sys::Errno;
use rustix::fs::{Mode, OFlags, XattrFlags};

use crate::error::{Step, StepError};
use crate::init::{InitResources, join_keyring};

/// Takes effect with the next execve.
pub fn set_on_exec(labels: &Labels, resources: &InitResources) -> Result<(), StepError> {
    let Labels { selinux, apparmor } = labels;
    if let Some(label) = selinux {
        resources.proc(Phase::Labels)?.write(Phase::Labels, 0, "self/attr/exec", label.as_bytes())?;
    }
    if let Some(ProfileStep { profile, how }) = apparmor {
        let text = format!("{} {profile}", how.word());
        // AppArmor's own file, Linux 5.8: attr/exec is the first module's.
        let path = "self/attr/apparmor/exec";
        let written = resources.proc(Phase::Labels)?.write(Phase::Labels, 1, path, text.as_bytes());
        written
            .map_err(|e| StepError { call: format!("apparmor failed to apply profile: {}", e.call), ..e })?;
    }
    Ok(())
}

/// A new session keyring, of the label if there is one, or the one of that name.
pub fn join_labelled_keyring(keyring: &Keyring, resources: &InitResources) -> Result<(), StepError> {
    let Keyring { name, label } = keyring;
    let Some(label) = label else { return join_keyring(name) };
    let proc = resources.proc(Phase::Enter)?;
    let write = |label: &str| proc.write(Phase::Enter, 4, "self/attr/keycreate", label.as_bytes());
    write(label)?;
    let joined = join_keyring(name);
    // What else the process makes before it is the program is not the container's.
    write("").and(joined)
}

/// Labels the root of a new file system that takes no context as a parameter.
pub fn label_root(i: usize, mount: &OwnedFd, label: &str) -> Result<(), StepError> {
    const SELINUX: &str = "security.selinux";
    let call = || format!("fsetxattr({SELINUX}, {label:?})");
    let root: Result<OwnedFd, Errno> = rustix::fs::openat(
        mount.as_fd(),
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    root.and_then(|root| rustix::fs::fsetxattr(&root, SELINUX, label.as_bytes(), XattrFlags::empty())).step(
        Phase::Mounts,
        i,
        call,
    )
}

/// Whether a plan's labels are written through the host's procfs.
pub fn are_written(labels: &Labels, keyring: Option<&Keyring>) -> bool {
    !labels.is_empty() || keyring.is_some_and(|keyring| keyring.label.is_some())
}
