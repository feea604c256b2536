//! `.linux.seccomp.flags` -> flags of seccomp(2) SECCOMP_SET_MODE_FILTER.

use crate::error::Error;
use crate::names::FLAGS;

pub(crate) const LOG: u32 = 1 << 1;
pub(crate) const SPEC_ALLOW: u32 = 1 << 2;
pub(crate) const NEW_LISTENER: u32 = 1 << 3;
pub(crate) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Every flag that [`from_names`] may return.
pub(crate) const ALL: u32 = LOG | SPEC_ALLOW | NEW_LISTENER | WAIT_KILLABLE_RECV;

const WAIT_KILLABLE_NAME: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

pub(crate) fn is_wait_killable(name: &str) -> bool {
    name == WAIT_KILLABLE_NAME
}

/// The flags to load with. A profile without a list gets SPEC_ALLOW, as under runc: without it
/// the kernels before 5.16 turn on the speculative store bypass mitigation for every task that
/// has a filter, which costs far more than it protects. TSYNC is accepted and adds nothing,
/// because the task that loads the filter has one thread.
pub(crate) fn from_names(names: Option<&[String]>, notify: bool) -> Result<u32, Error> {
    let mut flags = if names.is_none() { SPEC_ALLOW } else { 0 };
    for (index, name) in names.unwrap_or_default().iter().enumerate() {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            // seccomp(2): EINVAL without SECCOMP_FILTER_FLAG_NEW_LISTENER.
            WAIT_KILLABLE_NAME if !notify => {
                return Err(Error::WaitWithoutNotify { at: format!(".linux.seccomp.flags[{index}]") });
            }
            WAIT_KILLABLE_NAME => WAIT_KILLABLE_RECV,
            _ => return Err(Error::unknown(format!(".linux.seccomp.flags[{index}]"), "flag", name, FLAGS)),
        };
    }
    Ok(if notify { flags | NEW_LISTENER } else { flags })
}
