//! Differences from runc that stay, as docs/runc-compat.md lists them.

use creel_integration::Runtime;

/// One difference.
pub struct Row {
    /// Name of the case, `*` for all.
    pub case: &'static str,
    /// Place in the observation; those below it are meant too.
    pub at: &'static str,
    /// Only beside a runc older than 1.x: creel does what newer ones do.
    pub before: Option<u32>,
    /// Why it stays.
    pub reason: &'static str,
}

const fn old(case: &'static str, at: &'static str, reason: &'static str) -> Row {
    Row { case, at, before: Some(2), reason }
}

const MASK: &str = "runc limits the size of the masks' tmpfs since 1.2";
const MODE: &str = "a tmpfs without a mode takes that of its mount point since runc 1.2";

const fn ours(case: &'static str, at: &'static str, reason: &'static str) -> Row {
    Row { case, at, before: None, reason }
}

const STDIO: &str = "a foreground process has the caller's own standard streams, not pipes that are copied";
const CGROUP_RO: &str = "with the option ro the tmpfs that holds the v1 hierarchies is read-only too";

const DEFAULTS: &str = "the mount option defaults changes nothing; runc hands it to the file system";
const NO_PROC: &str = "runc needs the container's /proc to start it, creel does not";
const NO_CAPS: &str = "a config without capabilities gives none; runc since 1.2 leaves all of root's";

/// All of them.
pub const TABLE: &[Row] = &[
    ours("defaults", "stdout.fds", STDIO),
    ours("exec-defaults", "stdout.fds", STDIO),
    ours("cgroup-mount", "stdout.mounts./sys/fs/cgroup.0.options", CGROUP_RO),
    ours("cgroup-mount-in-namespace", "stdout.mounts./sys/fs/cgroup.0.options", CGROUP_RO),
    ours(
        "namespace-user",
        "stdout.dev.mqueue.gid",
        "the root of the mqueue file system is root's group's too",
    ),
    ours("mount-defaults-option", "code", DEFAULTS),
    ours("mount-defaults-option", "stdout", DEFAULTS),
    ours("no-mounts", "code", NO_PROC),
    ours("no-mounts", "stdout", NO_PROC),
    ours("exec-user", "stdout.status.Groups", "runc 1.5 gives a group of --additional-gids twice"),
    old("*", "stdout.mounts./proc/acpi.0.super", MASK),
    old("*", "stdout.mounts./sys/firmware.0.super", MASK),
    old("masked-paths", "stdout.mounts./secret.0.super", MASK),
    old("mount-tmpfs", "stdout.access./mnt.stat.mode", "runc 1.1 overwrites the mode of the config"),
    old("mount-tmpfs-bare", "stdout.mounts./mnt.0.super", MODE),
    old("mount-tmpfs-readonly", "stdout.mounts./mnt.0.super", MODE),
    old("mount-sync", "stdout.mounts./mnt.0.super", MODE),
    old("mount-cleared-options", "stdout.mounts./mnt.0.super", MODE),
    old("stacked", "stdout.mounts./mnt", MODE),
    old("tmpcopyup", "stdout.mounts./data.0.super", MODE),
    old("exec-environment", "stdout.env", "of two equal names runc keeps the place of the last since 1.2"),
    old(
        "environment-duplicates",
        "stdout.env",
        "of two equal names runc keeps the place of the last since 1.2",
    ),
    old("user-groups-duplicates", "stdout.status.Groups", "runc 1.1 drops groups that are given twice"),
    old("user-large", "code", "runc 1.1 takes user ids above 2147483647 for errors"),
    old("user-large", "stdout", "runc 1.1 takes user ids above 2147483647 for errors"),
    old("user-large", "clean", "runc 1.1 takes user ids above 2147483647 for errors"),
    ours("capabilities-none", "stdout.status", NO_CAPS),
    ours("capabilities-none-user", "stdout.status", NO_CAPS),
];

/// The reason why `case` may differ at `at` from `reference`.
pub fn reason(case: &str, at: &str, reference: &Runtime) -> Option<&'static str> {
    let below =
        |place: &str| at.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let old = |row: &Row| row.before.is_none_or(|minor| !reference.has_runc(minor));
    let row = TABLE.iter().find(|row| (row.case == "*" || row.case == case) && below(row.at) && old(row))?;
    Some(row.reason)
}
