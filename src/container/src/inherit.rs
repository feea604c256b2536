//! What the caller hands down: descriptors and systemd's socket activation.

use std::collections::BTreeMap;

use crate::{Error, ListenFds};

/// Number of descriptors from 3 on for the container, after making sure that the caller really
/// opened them: a descriptor that creel opened itself must not be taken for one (runc#5474).
/// Everything that creel opens is close-on-exec, what was passed to it cannot be.
pub fn check_descriptors(preserve: u32, listen: Option<&ListenFds>) -> Result<u32, Error> {
    let count = preserve.saturating_add(listen.map_or(0, |l| l.count));
    for fd in 3..count.saturating_add(3) {
        let number = i32::try_from(fd).unwrap_or(i32::MAX);
        if !creel_sys::fd::is_inherited(number) {
            return Err(Error::NotOpen { fd, count });
        }
    }
    // Nobody but the container's process gets them: hooks and helpers run before it.
    creel_sys::fd::close_on_exec_from(3).map_err(|errno| Error::File {
        call: "close_range",
        path: "inherited descriptors".into(),
        errno,
    })?;
    Ok(count)
}

/// LISTEN_* as the container's process, which is pid 1, expects them (sd_listen_fds(3)).
pub fn listen_env(listen: Option<&ListenFds>) -> BTreeMap<String, String> {
    let Some(listen) = listen else { return BTreeMap::new() };
    let mut env = BTreeMap::from([
        ("LISTEN_FDS".to_string(), listen.count.to_string()),
        ("LISTEN_PID".to_string(), "1".to_string()),
    ]);
    if let Some(names) = &listen.names {
        env.insert("LISTEN_FDNAMES".to_string(), names.clone());
    }
    env
}
