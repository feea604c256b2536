//! The plan: what each process of a container's creation does, as typed data.
//!
//! Three processes act (docs/architecture.md has the picture):
//!
//! * the **host** process is the runtime outside. It opens what only it may open, clones, writes id
//!   maps and runs the hooks of the runtime's namespaces.
//! * the **stage** process exists only when a namespace must be joined, or a clock set, before init
//!   is born. It is a child of the host and clones init as its sibling.
//! * **init** becomes the container's process. The fields of [`InitPlan`] are its phases, in order.
//!
//! A step knows the config path it came from, so that a failure names it. Nothing here was looked
//! up on the machine: the same spec, request and facts give the same plan.

use crate::names::NamespaceKind;
use crate::ranges::Ranges;
use crate::spec::Hook;

/// Where in config.json a step comes from, as a jq path: `.mounts[3]`.
pub type At = String;

/// Everything to do for `create` and `run`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The host's part.
    pub host: HostPlan,
    /// Present when init cannot be cloned by the host itself.
    pub stage: Option<StagePlan>,
    /// Init's part.
    pub init: InitPlan,
}

/// The host's part.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPlan {
    /// CLONE_NEW* flags of the clone3 that makes init, or the stage.
    pub clone_flags: u64,
    /// Namespace files that the host opens, for the stage or init to join.
    pub joins: Vec<Join>,
    /// Id maps written for init's new user namespace.
    pub id_map: Option<IdMap>,
    /// The root and the sources of bind mounts are opened by the host: inside the user namespace
    /// init may lack permission to reach them.
    pub open_sources: bool,
    /// Limits set on init from outside, because init's user namespace cannot raise them.
    pub rlimits: Vec<RlimitStep>,
    /// oom_score_adj written from outside, for the same reason.
    pub oom_score_adj: Option<i32>,
    /// Network devices to move once init is in its network namespace.
    pub net_devices: Vec<NetDeviceStep>,
    /// prestart and createRuntime hooks.
    pub create_runtime: Vec<HookStep>,
    /// poststart hooks.
    pub poststart: Vec<HookStep>,
    /// poststop hooks.
    pub poststop: Vec<HookStep>,
}

/// A namespace to join by path.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// `.linux.namespaces[i].path`
    pub at: At,
    /// Which one.
    pub kind: NamespaceKind,
    /// Namespace file on the host.
    pub path: String,
}

/// A network device of the runtime's network namespace that becomes the container's.
#[derive(Debug, Clone, PartialEq)]
pub struct NetDeviceStep {
    /// `.linux.netDevices.eth0`
    pub at: At,
    /// Its name on the host.
    pub name: String,
    /// Its name in the container.
    pub new_name: String,
}

/// Lines for /proc/PID/uid_map and gid_map (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq)]
pub struct IdMap {
    /// `(first id inside, first id outside, count)`
    pub uids: Vec<(u32, u32, u32)>,
    /// Likewise for groups.
    pub gids: Vec<(u32, u32, u32)>,
    /// Who may write them.
    pub writer: MapWriter,
}

/// How id maps get written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapWriter {
    /// The host process has CAP_SETUID and CAP_SETGID over the parent namespace.
    Privileged,
    /// An ordinary user maps only itself: setgroups(2) is denied first.
    SingleId,
    /// An ordinary user with subordinate ids: newuidmap(1) and newgidmap(1).
    Helpers,
}

/// The stage process: join, set clocks, clone init.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Indices into [`HostPlan::joins`], joined in this order.
    pub joins: Vec<usize>,
    /// Of which user namespace it becomes root.
    pub user: StageUser,
    /// Which groups are left then.
    pub groups: OldGroups,
    /// New time namespace with these offsets.
    pub clocks: Option<Vec<ClockOffset>>,
    /// CLONE_NEW* flags of the clone3 that makes init.
    pub clone_flags: u64,
}

impl StagePlan {
    /// CLONE_NEW* flags of the clone3 that makes the stage itself.
    pub fn own_flags(&self) -> u64 {
        if self.user == StageUser::New { NamespaceKind::User.clone_flag() } else { 0 }
    }
}

/// The user namespace in which the stage works, and init is born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageUser {
    /// The host's; a new one is init's own.
    Host,
    /// One of the joined.
    Joined,
    /// A new one, into which the stage is born: without privileges on the host the right to set clocks
    /// comes from there.
    New,
}

/// The supplementary groups of the caller in a user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OldGroups {
    /// They mean nothing there, and go.
    #[default]
    Drop,
    /// `run.oci.keep_original_groups`: files that only they may read stay readable.
    Keep,
}

/// One line of /proc/PID/timens_offsets (time_namespaces(7)).
#[derive(Debug, Clone, PartialEq)]
pub struct ClockOffset {
    /// `.linux.timeOffsets.boottime`
    pub at: At,
    /// `monotonic` or `boottime`.
    pub clock: &'static str,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// Init's phases, in the order in which they run.
#[derive(Debug, Clone, PartialEq)]
pub struct InitPlan {
    /// oom_score_adj, written through the host's procfs while /proc/self is still the writer's own.
    pub oom_score_adj: Option<i32>,
    /// Cgroup, namespaces, identity.
    pub enter: Enter,
    /// The root's mount and the propagation of everything else; None where nothing is mounted.
    pub rootfs: Option<Rootfs>,
    /// The config's mounts, in its order.
    pub mounts: Vec<MountStep>,
    /// Nodes and links in /dev.
    pub devices: Vec<DeviceStep>,
    /// Links in /dev: `(path, target)`.
    pub links: Vec<(&'static str, &'static str)>,
    /// Kernel parameters of the new namespaces, written through the host's procfs.
    pub sysctls: Vec<Sysctl>,
    /// createContainer hooks; the host's hooks run just before.
    pub hooks: InitHooks,
    /// pivot_root or its substitutes.
    pub root: RootSwitch,
    /// Terminal.
    pub console: Option<Console>,
    /// Mounts that were left writable for the phases above, made read-only now.
    pub late_readonly: Vec<(At, String)>,
    /// Masked and read-only paths.
    pub hide: Vec<HideStep>,
    /// Propagation of the container's own root, and its read-only flag.
    pub seal: Seal,
    /// Limits, identity, filter, program: what exec does too.
    pub process: ProcessPlan,
    /// startContainer hooks.
    pub start_container: Vec<HookStep>,
}

/// First phase: be in the right cgroup and namespaces.
#[derive(Debug, Clone, PartialEq)]
pub struct Enter {
    /// Indices into [`HostPlan::joins`] that init joins itself.
    pub joins: Vec<usize>,
    /// The host writes the id maps; init waits and becomes root of the new user namespace.
    pub user_namespace: bool,
    /// Which groups are left then.
    pub groups: OldGroups,
    /// New IPC namespace, made once init is root of its user namespace: the root of its mqueue file
    /// system belongs to whoever makes it.
    pub ipc_namespace: bool,
    /// Init's memory, a copy of the runtime's, is not kept from processes of the same user: an ordinary
    /// user's runtime needs that to take the seccomp listener and to enter the container before it is
    /// started. Only where nobody is in the namespaces that init gets into (CVE-2016-9962).
    pub dumpable: bool,
    /// New cgroup namespace, made after init is in its cgroup so that this is the namespace's root.
    pub cgroup_namespace: bool,
    /// New session keyring.
    pub keyring: Option<Keyring>,
    /// Bring `lo` up in the new network namespace.
    pub loopback: bool,
    /// The host moves network devices here; init waits.
    pub wait_for_devices: bool,
    /// sethostname(2)
    pub hostname: Option<String>,
    /// setdomainname(2)
    pub domainname: Option<String>,
}

/// A session keyring (keyrings(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    /// `_ses.ID`
    pub name: String,
    /// SELinux context of a new one: that of the process, which could not use it otherwise.
    pub label: Option<String>,
}

/// The root's mount.
#[derive(Debug, Clone, PartialEq)]
pub struct Rootfs {
    /// Absolute path on the host.
    pub path: String,
    /// MS_* propagation set recursively on init's copy of the host's mounts; 0 without a mount
    /// namespace, where the mounts are the host's own.
    pub propagation: u64,
}

impl Rootfs {
    /// There is no mount namespace: what is mounted stays on the host.
    pub fn is_of_the_host(&self) -> bool {
        self.propagation == 0
    }

    /// Whether mounts made later would travel to the host.
    pub fn is_shared(&self) -> bool {
        self.propagation & crate::options::ms::SHARED != 0
    }
}

/// MOUNT_ATTR_* bits to set and to clear (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

/// One mount of the config.
#[derive(Debug, Clone, PartialEq)]
pub struct MountStep {
    /// `.mounts[i]`
    pub at: At,
    /// Absolute path in the container, not resolved.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of the mount itself. For a bind mount None keeps those of the source.
    pub attr: Option<Attr>,
    /// Attributes of the mount and all below it.
    pub recursive: Option<Attr>,
    /// MS_* propagation changes with recursion flag, in order.
    pub propagation: Vec<(u64, bool)>,
    /// MOUNT_ATTR_* bits that an option takes back by name (`rw`): to keep them is an error.
    pub taken_back: u64,
    /// `dest-nofollow`: the destination exists, and if it is a link it is mounted on itself.
    pub nofollow: bool,
}

/// A parameter for fsconfig(2): `key=value`, or a flag.
pub type Parameter = (String, Option<String>);

/// What a mount step mounts.
#[derive(Debug, Clone, PartialEq)]
pub enum MountSource {
    /// A new instance of a file system.
    FileSystem {
        /// Type as in /proc/filesystems.
        fstype: String,
        /// Source shown in mountinfo, or the device.
        source: String,
        /// Parameters for fsconfig(2), `key=value` or `flag`.
        parameters: Vec<Parameter>,
        /// Copy what the directory held into the new tmpfs.
        copy_up: bool,
        /// SELinux context for the root of a file system that takes none as a parameter.
        label: Option<String>,
    },
    /// A tree of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// With what is mounted below it.
        recursive: bool,
        /// Owners are shown mapped, which takes the host's rights.
        idmap: Option<IdmapStep>,
        /// The same path below the container's root, if it lies there: what the mounts before this one
        /// show is meant, so that init looks it up when its turn has come.
        inside: Option<String>,
        /// What a source that is a symbolic link means.
        link: SourceLink,
    },
    /// A change of what is mounted at the destination (mount(2), MS_REMOUNT).
    Remount {
        /// MS_* flags.
        flags: u64,
        /// Data of mount(2).
        data: String,
    },
    /// The container's view of the cgroup hierarchies; which ones is known when the cgroup exists.
    Cgroup {
        /// SELinux context of the tmpfs that holds those of cgroup v1.
        context: Option<Parameter>,
    },
}

/// What becomes of a bind source that is a symbolic link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceLink {
    /// What it leads to is bound.
    #[default]
    Follow,
    /// `src-nofollow`: it is bound itself.
    Bind,
    /// `copy-symlink`: it is made again at the destination.
    Copy,
}

/// MOUNT_ATTR_IDMAP of mount_setattr(2) on the detached tree of a bind mount. Only the host has the
/// rights over the file system that it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct IdmapStep {
    /// `.mounts[i].uidMappings`, or the option where the mount has no mappings of its own.
    pub at: At,
    /// How ids are mapped.
    pub ids: MountIds,
    /// What is mounted below is mapped too.
    pub recursive: bool,
}

/// Where the id maps of an idmapped mount come from. The kernel takes them from a user namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum MountIds {
    /// A user namespace made for its maps alone.
    Maps {
        /// What has them in config.json: `.mounts[i]` or `.linux`.
        of: At,
        /// `(first id in the file system, first id in the host's user namespace, count)`
        uids: Vec<(u32, u32, u32)>,
        /// Likewise for groups.
        gids: Vec<(u32, u32, u32)>,
    },
    /// The user namespace that the container joins: index into [`HostPlan::joins`].
    Joined(usize),
}

/// A device node.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStep {
    /// `.linux.devices[i]`, or `.linux` for those that every container has.
    pub at: At,
    /// Absolute path in the container.
    pub path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    /// Device major number.
    pub major: u32,
    /// Device minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the host's node instead of making one: mknod(2) needs CAP_MKNOD in the initial user
    /// namespace.
    pub bind: bool,
}

/// A file below /proc/sys.
#[derive(Debug, Clone, PartialEq)]
pub struct Sysctl {
    /// `.linux.sysctl["net.core.somaxconn"]`
    pub at: At,
    /// Path below /proc/sys, for example `net/core/somaxconn`.
    pub path: String,
    /// Value as written.
    pub value: String,
}

/// Hooks around init's root switch.
#[derive(Debug, Clone, PartialEq)]
pub struct InitHooks {
    /// The host has hooks to run: init waits for it.
    pub wait_for_host: bool,
    /// createContainer hooks.
    pub create_container: Vec<HookStep>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq)]
pub struct HookStep {
    /// `.hooks.poststop[0]`
    pub at: At,
    /// What to run.
    pub hook: Hook,
}

/// How the container's tree becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootSwitch {
    /// pivot_root(2)
    Pivot,
    /// `--no-pivot`: MS_MOVE's effect and chroot(2), for initramfs.
    Move,
    /// Without a mount namespace: chroot(2).
    Chroot,
}

/// A pseudo-terminal for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console {
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    /// Put it at /dev/console too (init, not exec).
    pub mount: bool,
}

/// A path hidden or made read-only. A path that does not exist is skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct HideStep {
    /// `.linux.maskedPaths[i]` or `.linux.readonlyPaths[i]`
    pub at: At,
    /// Absolute path in the container.
    pub path: String,
    /// What to do with it.
    pub how: Hide,
}

/// What to do with a hidden path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hide {
    /// /dev/null over a file, an empty read-only tmpfs over a directory.
    Mask {
        /// SELinux context of the tmpfs.
        context: Option<Parameter>,
    },
    /// A read-only bind mount of itself.
    Readonly,
}

/// The container's root after everything is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// MS_* propagation (with MS_REC) of the new root; None keeps it.
    pub propagation: Option<u64>,
    /// `.root.readonly`
    pub readonly: bool,
    /// umask(2) of the process.
    pub umask: u32,
}

/// What init and exec share: from resource limits to execve.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessPlan {
    /// Limits that the process sets itself.
    pub rlimits: Vec<RlimitStep>,
    /// What execve makes of it for the security modules.
    pub labels: Labels,
    /// prctl(2) PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// Scheduling, memory policy, execution domain: set with the rights of root, before a filter that
    /// may forbid it.
    pub attributes: Attributes,
    /// When the filter is loaded.
    pub seccomp: SeccompAt,
    /// Identity.
    pub credentials: Credentials,
    /// Program.
    pub exec: Exec,
}

/// Labels that the security modules give the process with execve(2); None leaves it to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// `.process.selinuxLabel`
    pub selinux: Option<String>,
    /// `.process.apparmorProfile`
    pub apparmor: Option<ProfileStep>,
}

impl Labels {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.selinux.is_none() && self.apparmor.is_none()
    }
}

/// A change of the AppArmor profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileStep {
    /// Its name.
    pub profile: String,
    /// What becomes of the runtime's own.
    pub how: ProfileChange,
}

/// aa_change_onexec(3) or aa_stack_onexec(3), as /proc/self/attr/apparmor/exec takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileChange {
    /// The profile replaces it.
    Exec,
    /// The profile is added to it: all that no_new_privs leaves to a confined process.
    Stack,
}

impl ProfileChange {
    /// The word that the kernel knows it by.
    pub fn word(self) -> &'static str {
        match self {
            ProfileChange::Exec => "exec",
            ProfileChange::Stack => "stack",
        }
    }
}

/// What the process has from `.process.scheduler` to `.linux.personality`; what the config does not name
/// stays as the runtime has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    /// `.process.scheduler`
    pub scheduler: Option<SchedulerStep>,
    /// `.process.ioPriority`, as ioprio_set(2) takes it: class << 13 | level.
    pub io_priority: Option<u32>,
    /// `.linux.personality`: PER_* of personality(2).
    pub personality: Option<u32>,
    /// `.linux.memoryPolicy`
    pub memory_policy: Option<MemoryPolicyStep>,
}

/// sched_setattr(2)
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerStep {
    /// `SCHED_BATCH`
    pub name: String,
    /// Its number.
    pub policy: u32,
    /// SCHED_FLAG_*
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Runtime, deadline and period of SCHED_DEADLINE in nanoseconds.
    pub deadline: (u64, u64, u64),
    /// `.linux.resources.cpu.cpus` leaves the container some CPUs only.
    pub limited_cpus: bool,
}

/// set_mempolicy(2)
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryPolicyStep {
    /// MPOL_* and MPOL_F_*.
    pub mode: u32,
    /// The nodes.
    pub nodes: Ranges,
}

/// CPUs of an exec (config.md, execCPUAffinity).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Affinity {
    /// While the process is on its way into the container's cgroup.
    pub initial: Option<Ranges>,
    /// From then on.
    pub last: Option<Ranges>,
}

/// setrlimit(2)
#[derive(Debug, Clone, PartialEq)]
pub struct RlimitStep {
    /// `.process.rlimits[i]`
    pub at: At,
    /// `RLIMIT_NOFILE`
    pub name: String,
    /// Its number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// When the seccomp filter is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompAt {
    /// No filter.
    Never,
    /// Before privileges are dropped: without no_new_privs loading needs CAP_SYS_ADMIN.
    BeforeCredentials,
    /// Last, so that the profile need not allow what dropping privileges takes.
    BeforeExec,
}

/// uid, gid, groups and capability sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; None where setgroups(2) is denied.
    pub groups: Option<Vec<u32>>,
    /// Capability sets.
    pub caps: CapSets,
}

/// capabilities(7) as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// The program.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// argv
    pub args: Vec<String>,
    /// Environment, one entry per variable. HOME is added from the container's passwd if missing.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Descriptors from 3 on that stay open.
    pub preserve_fds: u32,
}

/// A phase of a process, to say where something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// [`StagePlan`], index into its joins.
    Stage,
    /// [`InitPlan::enter`], index into its joins.
    Join,
    /// The rest of [`InitPlan::enter`].
    Enter,
    /// [`InitPlan::rootfs`]
    Rootfs,
    /// [`InitPlan::mounts`]
    Mounts,
    /// [`InitPlan::devices`]
    Devices,
    /// [`InitPlan::links`]
    Links,
    /// [`InitPlan::late_readonly`]
    LateReadonly,
    /// [`InitPlan::sysctls`]
    Sysctls,
    /// [`InitPlan::oom_score_adj`]
    OomScoreAdj,
    /// [`InitHooks::create_container`]
    CreateContainer,
    /// [`InitPlan::root`]
    Root,
    /// [`InitPlan::console`]
    Console,
    /// [`InitPlan::hide`]
    Hide,
    /// [`InitPlan::seal`]
    Seal,
    /// [`ProcessPlan::rlimits`]
    Rlimits,
    /// [`ProcessPlan::labels`]: 0 SELinux's, 1 AppArmor's.
    Labels,
    /// [`ProcessPlan::attributes`]
    Attributes,
    /// [`ProcessPlan::no_new_privileges`] and [`ProcessPlan::credentials`]
    Credentials,
    /// [`Exec::cwd`]
    Cwd,
    /// [`ProcessPlan::seccomp`]
    Seccomp,
    /// [`InitPlan::start_container`]
    StartContainer,
    /// [`ProcessPlan::exec`]
    Exec,
    /// Talking to the host.
    Conversation,
}

impl Phase {
    /// The phase with this number, as sent in a frame.
    pub fn from_u8(number: u8) -> Option<Phase> {
        const ALL: [Phase; 24] = [
            Phase::Stage,
            Phase::Join,
            Phase::Enter,
            Phase::Rootfs,
            Phase::Mounts,
            Phase::Devices,
            Phase::Links,
            Phase::LateReadonly,
            Phase::Sysctls,
            Phase::OomScoreAdj,
            Phase::CreateContainer,
            Phase::Root,
            Phase::Console,
            Phase::Hide,
            Phase::Seal,
            Phase::Rlimits,
            Phase::Labels,
            Phase::Attributes,
            Phase::Credentials,
            Phase::Cwd,
            Phase::Seccomp,
            Phase::StartContainer,
            Phase::Exec,
            Phase::Conversation,
        ];
        ALL.get(usize::from(number)).copied()
    }
}
