//! Names of process attributes and device nodes.

/// getrlimit(2), asm-generic/resource.h.
pub const RLIMITS: &[(&str, u32)] = &[
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// sched_setattr(2) policies, linux/sched.h. SCHED_ISO (4) is reserved, not implemented.
pub const SCHEDULER_POLICIES: &[(&str, u32)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// sched_setattr(2) flags, linux/sched.h.
pub const SCHEDULER_FLAGS: &[(&str, u32)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// ioprio_set(2) classes, linux/ioprio.h.
pub const IOPRIO_CLASSES: &[(&str, u32)] =
    &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// personality(2) domains, linux/personality.h.
pub const PERSONALITIES: &[(&str, u32)] = &[("LINUX", 0x0000), ("LINUX32", 0x0008)];

/// set_mempolicy(2) modes, linux/mempolicy.h. MPOL_WEIGHTED_INTERLEAVE needs Linux 6.9.
pub const MEMORY_POLICY_MODES: &[(&str, u32)] = &[
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// set_mempolicy(2) mode flags, linux/mempolicy.h.
pub const MEMORY_POLICY_FLAGS: &[(&str, u32)] = &[
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// Number of a `RLIMIT_*` name.
pub fn rlimit_number(name: &str) -> Option<u32> {
    super::number(RLIMITS, name)
}

/// `RLIMIT_*` name of a number.
pub fn rlimit_name(number: u32) -> Option<&'static str> {
    RLIMITS.iter().find(|row| row.1 == number).map(|row| row.0)
}

/// Type of a device node, `.linux.devices[].type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// `c`, or `u` for an unbuffered one, which Linux does not tell apart.
    Char,
    /// `b`
    Block,
    /// `p`
    Fifo,
}

impl DeviceType {
    /// Words of config.json.
    pub const WORDS: [&str; 4] = ["c", "u", "b", "p"];

    /// The type that config.json calls `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "c" | "u" => Some(Self::Char),
            "b" => Some(Self::Block),
            "p" => Some(Self::Fifo),
            _ => None,
        }
    }

    /// S_IF* of inode(7), for mknod(2).
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Char => 0o020_000,
            Self::Block => 0o060_000,
            Self::Fifo => 0o010_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlimits_round_trip() {
        for (name, number) in RLIMITS {
            assert_eq!(rlimit_number(name), Some(*number));
            assert_eq!(rlimit_name(*number), Some(*name));
        }
        assert_eq!(rlimit_number("RLIMIT_NOFILE"), Some(7));
        assert_eq!(rlimit_number("NOFILE"), None);
    }

    #[test]
    fn tables_repeat_neither_name_nor_number() {
        for table in [
            RLIMITS,
            SCHEDULER_POLICIES,
            SCHEDULER_FLAGS,
            IOPRIO_CLASSES,
            PERSONALITIES,
            MEMORY_POLICY_MODES,
            MEMORY_POLICY_FLAGS,
        ] {
            for (index, row) in table.iter().enumerate() {
                assert!(table[..index].iter().all(|other| other.0 != row.0 && other.1 != row.1), "{row:?}");
                assert_eq!(crate::names::number(table, row.0), Some(row.1));
            }
        }
    }

    #[test]
    fn every_device_word_has_a_type() {
        for word in DeviceType::WORDS {
            assert!(DeviceType::from_word(word).is_some(), "{word}");
        }
        assert_eq!(DeviceType::from_word("a"), None);
        assert_eq!(DeviceType::from_word("u").map(DeviceType::mode_bits), Some(0o020_000));
    }
}
