//! The mount options of config.json that are not file system data, and what each one means.

use super::{Atime, PropagationKind, attr, ms};

/// What one option asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `defaults`: nothing.
    Nothing,
    /// A MOUNT_ATTR_* bit of the mount itself.
    Set(u64),
    Clear(u64),
    Atime(Atime),
    NotAtime(Atime),
    /// The same with AT_RECURSIVE.
    RecursiveSet(u64),
    RecursiveClear(u64),
    RecursiveAtime(Atime),
    RecursiveNotAtime(Atime),
    /// An MS_* flag that belongs to the superblock.
    SuperSet(u64),
    SuperClear(u64),
    Remount,
    Bind,
    BindRecursive,
    Propagation(PropagationKind),
    PropagationRecursive(PropagationKind),
    CopyUp,
    /// crun's words for bind mounts whose source or destination is a symbolic link.
    CopySymlink,
    SourceNofollow,
    DestinationNofollow,
    Idmap,
    IdmapRecursive,
}

use Meaning as M;

/// mount(8), "Filesystem-independent mount options", the recursive attributes of runtime-spec, and
/// runc's tmpcopyup and crun's words about links. Sorted by name.
#[rustfmt::skip]
pub(super) const TABLE: [(&str, Meaning); 65] = [
    ("async", M::SuperClear(ms::SYNCHRONOUS)),
    ("atime", M::NotAtime(Atime::Noatime)),
    ("bind", M::Bind),
    ("copy-symlink", M::CopySymlink),
    ("defaults", M::Nothing),
    ("dest-nofollow", M::DestinationNofollow),
    ("dev", M::Clear(attr::NODEV)),
    ("diratime", M::Clear(attr::NODIRATIME)),
    ("dirsync", M::SuperSet(ms::DIRSYNC)),
    ("exec", M::Clear(attr::NOEXEC)),
    ("idmap", M::Idmap),
    ("iversion", M::SuperSet(ms::I_VERSION)),
    ("lazytime", M::SuperSet(ms::LAZYTIME)),
    ("loud", M::SuperClear(ms::SILENT)),
    ("mand", M::SuperSet(ms::MANDLOCK)),
    ("noatime", M::Atime(Atime::Noatime)),
    ("nodev", M::Set(attr::NODEV)),
    ("nodiratime", M::Set(attr::NODIRATIME)),
    ("noexec", M::Set(attr::NOEXEC)),
    ("noiversion", M::SuperClear(ms::I_VERSION)),
    ("nolazytime", M::SuperClear(ms::LAZYTIME)),
    ("nomand", M::SuperClear(ms::MANDLOCK)),
    ("norelatime", M::NotAtime(Atime::Relatime)),
    ("nostrictatime", M::NotAtime(Atime::Strictatime)),
    ("nosuid", M::Set(attr::NOSUID)),
    ("nosymfollow", M::Set(attr::NOSYMFOLLOW)),
    ("private", M::Propagation(PropagationKind::Private)),
    ("ratime", M::RecursiveNotAtime(Atime::Noatime)),
    ("rbind", M::BindRecursive),
    ("rdev", M::RecursiveClear(attr::NODEV)),
    ("rdiratime", M::RecursiveClear(attr::NODIRATIME)),
    ("relatime", M::Atime(Atime::Relatime)),
    ("remount", M::Remount),
    ("rexec", M::RecursiveClear(attr::NOEXEC)),
    ("ridmap", M::IdmapRecursive),
    ("rnoatime", M::RecursiveAtime(Atime::Noatime)),
    ("rnodev", M::RecursiveSet(attr::NODEV)),
    ("rnodiratime", M::RecursiveSet(attr::NODIRATIME)),
    ("rnoexec", M::RecursiveSet(attr::NOEXEC)),
    ("rnorelatime", M::RecursiveNotAtime(Atime::Relatime)),
    ("rnostrictatime", M::RecursiveNotAtime(Atime::Strictatime)),
    ("rnosuid", M::RecursiveSet(attr::NOSUID)),
    ("rnosymfollow", M::RecursiveSet(attr::NOSYMFOLLOW)),
    ("ro", M::Set(attr::RDONLY)),
    ("rprivate", M::PropagationRecursive(PropagationKind::Private)),
    ("rrelatime", M::RecursiveAtime(Atime::Relatime)),
    ("rro", M::RecursiveSet(attr::RDONLY)),
    ("rrw", M::RecursiveClear(attr::RDONLY)),
    ("rshared", M::PropagationRecursive(PropagationKind::Shared)),
    ("rslave", M::PropagationRecursive(PropagationKind::Slave)),
    ("rstrictatime", M::RecursiveAtime(Atime::Strictatime)),
    ("rsuid", M::RecursiveClear(attr::NOSUID)),
    ("rsymfollow", M::RecursiveClear(attr::NOSYMFOLLOW)),
    ("runbindable", M::PropagationRecursive(PropagationKind::Unbindable)),
    ("rw", M::Clear(attr::RDONLY)),
    ("shared", M::Propagation(PropagationKind::Shared)),
    ("silent", M::SuperSet(ms::SILENT)),
    ("slave", M::Propagation(PropagationKind::Slave)),
    ("src-nofollow", M::SourceNofollow),
    ("strictatime", M::Atime(Atime::Strictatime)),
    ("suid", M::Clear(attr::NOSUID)),
    ("symfollow", M::Clear(attr::NOSYMFOLLOW)),
    ("sync", M::SuperSet(ms::SYNCHRONOUS)),
    ("tmpcopyup", M::CopyUp),
    ("unbindable", M::Propagation(PropagationKind::Unbindable)),
];

/// Meaning of an option; `None` makes it data for the file system.
pub(super) fn meaning(option: &str) -> Option<Meaning> {
    let index = TABLE.binary_search_by(|row| row.0.cmp(option)).ok()?;
    TABLE.get(index).map(|row| row.1)
}
