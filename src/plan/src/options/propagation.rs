//! Propagation types, mount_namespaces(7).

use super::ms;

/// How mount events travel, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    /// Both ways.
    Shared,
    /// Only in.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and the mount cannot be bound elsewhere.
    Unbindable,
}

/// A change of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// New type.
    pub kind: PropagationKind,
    /// The `r` words: also of everything mounted below.
    pub recursive: bool,
}

impl Propagation {
    /// Words of `.linux.rootfsPropagation`, which are also mount options.
    pub const WORDS: [&str; 8] =
        ["private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"];

    /// The change that config.json calls `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        let (kind, recursive) = match word {
            "shared" => (PropagationKind::Shared, false),
            "rshared" => (PropagationKind::Shared, true),
            "slave" => (PropagationKind::Slave, false),
            "rslave" => (PropagationKind::Slave, true),
            "private" => (PropagationKind::Private, false),
            "rprivate" => (PropagationKind::Private, true),
            "unbindable" => (PropagationKind::Unbindable, false),
            "runbindable" => (PropagationKind::Unbindable, true),
            _ => return None,
        };
        Some(Self { kind, recursive })
    }

    /// `propagation` of mount_setattr(2); the values are those of mount(2) without MS_REC.
    pub const fn attr(self) -> u64 {
        match self.kind {
            PropagationKind::Shared => ms::SHARED,
            PropagationKind::Slave => ms::SLAVE,
            PropagationKind::Private => ms::PRIVATE,
            PropagationKind::Unbindable => ms::UNBINDABLE,
        }
    }

    /// Flags of mount(2).
    pub const fn ms_flags(self) -> u64 {
        self.attr() | if self.recursive { ms::REC } else { 0 }
    }
}
