//! Attributes of a mount and flags of a superblock, in the numbers of both generations of calls:
//! mount_setattr(2) and fsconfig(2), and mount(2).

/// MOUNT_ATTR_* of linux/mount.h, without the access time field.
pub mod attr {
    /// MOUNT_ATTR_RDONLY
    pub const RDONLY: u64 = 0x0000_0001;
    /// MOUNT_ATTR_NOSUID
    pub const NOSUID: u64 = 0x0000_0002;
    /// MOUNT_ATTR_NODEV
    pub const NODEV: u64 = 0x0000_0004;
    /// MOUNT_ATTR_NOEXEC
    pub const NOEXEC: u64 = 0x0000_0008;
    /// MOUNT_ATTR__ATIME: not bits but a field of three values.
    pub const ATIME_MASK: u64 = 0x0000_0070;
    /// MOUNT_ATTR_NODIRATIME
    pub const NODIRATIME: u64 = 0x0000_0080;
    /// MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14 in mount_setattr(2).
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// MS_* of linux/mount.h, the flags of mount(2).
pub mod ms {
    /// MS_RDONLY
    pub const RDONLY: u64 = 1;
    /// MS_NOSUID
    pub const NOSUID: u64 = 2;
    /// MS_NODEV
    pub const NODEV: u64 = 4;
    /// MS_NOEXEC
    pub const NOEXEC: u64 = 8;
    /// MS_SYNCHRONOUS
    pub const SYNCHRONOUS: u64 = 16;
    /// MS_REMOUNT
    pub const REMOUNT: u64 = 32;
    /// MS_MANDLOCK, without effect since Linux 5.15.
    pub const MANDLOCK: u64 = 64;
    /// MS_DIRSYNC
    pub const DIRSYNC: u64 = 128;
    /// MS_NOSYMFOLLOW
    pub const NOSYMFOLLOW: u64 = 256;
    /// MS_NOATIME
    pub const NOATIME: u64 = 1024;
    /// MS_NODIRATIME
    pub const NODIRATIME: u64 = 2048;
    /// MS_BIND
    pub const BIND: u64 = 4096;
    /// MS_REC
    pub const REC: u64 = 16384;
    /// MS_SILENT
    pub const SILENT: u64 = 32768;
    /// MS_UNBINDABLE
    pub const UNBINDABLE: u64 = 1 << 17;
    /// MS_PRIVATE
    pub const PRIVATE: u64 = 1 << 18;
    /// MS_SLAVE
    pub const SLAVE: u64 = 1 << 19;
    /// MS_SHARED
    pub const SHARED: u64 = 1 << 20;
    /// MS_RELATIME
    pub const RELATIME: u64 = 1 << 21;
    /// MS_I_VERSION
    pub const I_VERSION: u64 = 1 << 23;
    /// MS_STRICTATIME
    pub const STRICTATIME: u64 = 1 << 24;
    /// MS_LAZYTIME
    pub const LAZYTIME: u64 = 1 << 25;
}

/// When reading updates the access time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atime {
    /// The kernel's default: only if older than the last change, or than a day.
    Relatime,
    /// Never.
    Noatime,
    /// Always.
    Strictatime,
}

impl Atime {
    /// Value of the MOUNT_ATTR__ATIME field.
    pub const fn attr(self) -> u64 {
        match self {
            Self::Relatime => 0,
            Self::Noatime => 0x10,
            Self::Strictatime => 0x20,
        }
    }

    /// Flag of mount(2).
    pub const fn ms_flag(self) -> u64 {
        match self {
            Self::Relatime => ms::RELATIME,
            Self::Noatime => ms::NOATIME,
            Self::Strictatime => ms::STRICTATIME,
        }
    }
}

/// A change of mount attributes: no bit is in both masks, and the access time is apart because it
/// is a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear.
    pub clear: u64,
    /// Access time mode, if one was asked for.
    pub atime: Option<Atime>,
    /// That mode is the kernel's default because another was taken back, not because it was named.
    pub atime_reset: bool,
}

/// [`attr`] bits beside their [`ms`] bits.
const ATTR_AND_MS: [(u64, u64); 6] = [
    (attr::RDONLY, ms::RDONLY),
    (attr::NOSUID, ms::NOSUID),
    (attr::NODEV, ms::NODEV),
    (attr::NOEXEC, ms::NOEXEC),
    (attr::NODIRATIME, ms::NODIRATIME),
    (attr::NOSYMFOLLOW, ms::NOSYMFOLLOW),
];

fn to_ms(bits: u64) -> u64 {
    ATTR_AND_MS.iter().filter(|row| bits & row.0 != 0).fold(0, |flags, row| flags | row.1)
}

impl AttrChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `attr_set` of mount_setattr(2), also the attributes of fsmount(2).
    pub fn attr_set(&self) -> u64 {
        self.set | self.atime.map_or(0, Atime::attr)
    }

    /// `attr_clr` of mount_setattr(2). A new access time needs its whole field cleared, or the call
    /// answers EINVAL.
    pub fn attr_clr(&self) -> u64 {
        self.clear | self.atime.map_or(0, |_| attr::ATIME_MASK)
    }

    /// The flags of mount(2) that say the same as `set` and `atime`.
    pub fn ms_flags(&self) -> u64 {
        to_ms(self.set) | self.atime.map_or(0, Atime::ms_flag)
    }

    /// The flags of mount(2) that must be absent.
    pub fn ms_cleared(&self) -> u64 {
        to_ms(self.clear)
    }

    pub(super) fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    pub(super) fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// `atime`, `norelatime`, `nostrictatime`: back to the kernel's default, unless another mode
    /// was chosen before (mount(8)).
    pub(super) fn not_atime(&mut self, mode: Atime) {
        if self.atime.is_none_or(|chosen| chosen == mode) {
            self.atime = Some(Atime::Relatime);
            self.atime_reset = true;
        }
    }

    /// `relatime`, `noatime`, `strictatime`
    pub(super) fn choose_atime(&mut self, mode: Atime) {
        self.atime = Some(mode);
        self.atime_reset = false;
    }
}

/// Flags of the superblock, in [`ms`] bits; none is in both masks. Read-only is not among them: see
/// [`attr::RDONLY`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SbFlags {
    /// SYNCHRONOUS, MANDLOCK, DIRSYNC, SILENT, I_VERSION, LAZYTIME to set.
    pub set: u64,
    /// The same to clear.
    pub clear: u64,
}

/// Flag keys that fsconfig(2) takes for every file system (fs/fs_context.c): bit, key that sets
/// it, key that clears it. Nothing clears dirsync.
const SB_KEYS: [(u64, &str, Option<&str>); 4] = [
    (ms::SYNCHRONOUS, "sync", Some("async")),
    (ms::DIRSYNC, "dirsync", None),
    (ms::LAZYTIME, "lazytime", Some("nolazytime")),
    (ms::MANDLOCK, "mand", Some("nomand")),
];

impl SbFlags {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Keys for FSCONFIG_SET_FLAG.
    pub fn fsconfig_keys(&self) -> impl Iterator<Item = &'static str> {
        let Self { set, clear } = *self;
        SB_KEYS.into_iter().filter_map(move |(bit, on, off)| {
            if set & bit != 0 {
                Some(on)
            } else if clear & bit != 0 {
                off
            } else {
                None
            }
        })
    }

    /// Flags that only mount(2) can pass: fsconfig(2) has no key for MS_I_VERSION. (MS_SILENT has
    /// none either, but fsopen(2) puts the kernel's words into its own log anyway.)
    pub fn mount2_only(&self) -> u64 {
        self.set & ms::I_VERSION
    }

    pub(super) fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    pub(super) fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }
}
