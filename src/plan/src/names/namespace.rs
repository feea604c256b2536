//! namespaces(7).

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    /// mount_namespaces(7)
    Mount,
    /// cgroup_namespaces(7)
    Cgroup,
    /// uts_namespaces(7)
    Uts,
    /// ipc_namespaces(7)
    Ipc,
    /// user_namespaces(7)
    User,
    /// pid_namespaces(7)
    Pid,
    /// network_namespaces(7)
    Network,
    /// time_namespaces(7)
    Time,
}

impl NamespaceKind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Self; 8] =
        [Self::Mount, Self::Cgroup, Self::Uts, Self::Ipc, Self::User, Self::Pid, Self::Network, Self::Time];

    /// CLONE_NEW* of linux/sched.h. CLONE_NEWTIME shares its bit with CSIGNAL: clone3(2) and
    /// unshare(2) take it, clone(2) does not.
    pub const fn clone_flag(self) -> u64 {
        match self {
            Self::Mount => 0x0002_0000,
            Self::Cgroup => 0x0200_0000,
            Self::Uts => 0x0400_0000,
            Self::Ipc => 0x0800_0000,
            Self::User => 0x1000_0000,
            Self::Pid => 0x2000_0000,
            Self::Network => 0x4000_0000,
            Self::Time => 0x0000_0080,
        }
    }

    /// Name of the file in /proc/PID/ns.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Cgroup => "cgroup",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Time => "time",
        }
    }

    /// Word of config.json: `.linux.namespaces[].type`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Time => "time",
        }
    }

    /// The kind that config.json calls `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_flags_are_distinct_bits() {
        let mut seen = 0;
        for kind in NamespaceKind::ALL {
            assert_eq!(NamespaceKind::from_word(kind.word()), Some(kind));
            assert_eq!(kind.clone_flag().count_ones(), 1);
            assert_eq!(seen & kind.clone_flag(), 0);
            seen |= kind.clone_flag();
        }
        assert_eq!(seen, 0x7e02_0080);
    }

    #[test]
    fn the_names_of_proc_are_not_words() {
        assert_eq!(NamespaceKind::from_word("mnt"), None);
        assert_eq!(NamespaceKind::from_word("net"), None);
    }
}
