//! capabilities(7), linux/capability.h.

/// Highest capability of this table, CAP_CHECKPOINT_RESTORE (Linux 5.9). A kernel may know fewer
/// or more: /proc/sys/kernel/cap_last_cap.
pub const CAP_LAST: u8 = 40;

/// Names by number, in the spelling of config.json.
pub const CAPABILITIES: [&str; CAP_LAST as usize + 1] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Number of a capability. Only the exact spelling counts, as in runc: `cap_chown` and `CHOWN` are
/// unknown.
pub fn capability_number(name: &str) -> Option<u8> {
    let index = CAPABILITIES.iter().position(|known| *known == name)?;
    u8::try_from(index).ok()
}

/// Name of a capability.
pub fn capability_name(number: u8) -> Option<&'static str> {
    CAPABILITIES.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for number in 0..=CAP_LAST {
            assert_eq!(capability_name(number).and_then(capability_number), Some(number));
        }
        assert_eq!(capability_name(CAP_LAST + 1), None);
    }

    #[test]
    fn numbers_are_the_header_s() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_NET_ADMIN", 12),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_MKNOD", 27),
            ("CAP_SETFCAP", 31),
            ("CAP_SYSLOG", 34),
            ("CAP_BPF", 39),
        ] {
            assert_eq!(capability_number(name), Some(number));
        }
    }

    #[test]
    fn only_the_exact_spelling_is_known() {
        for word in ["cap_chown", "CHOWN", "CAP_CHOWN ", "", "CAP_NOPE"] {
            assert_eq!(capability_number(word), None, "{word:?}");
        }
    }
}
