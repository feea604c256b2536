//! config.json as written: the runtime-spec 1.3 document, Linux part, with no meaning added.
//!
//! These are creel's own types rather than `oci_spec::runtime`, which refuses valid documents
//! (an unknown capability, a null field, `SCHED_FLAG_RESET_ON_FORK`) and drops fields
//! (`intelRdt.enableCMT`); docs/dependencies.md has the list. They read what Go's decoder in runc
//! reads ([`crate::decode`]). Names that the
//! specification enumerates stay strings here, so that [`crate::check`] can say where the wrong
//! one stands and what was expected.
//!
//! Field meanings: <https://github.com/opencontainers/runtime-spec/blob/main/config.md> and
//! `config-linux.md`.

use std::collections::BTreeMap;

use serde::de::MapAccess;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::decode::{self, Object, Place};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The name that [`Object`] compares keys with.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}

/// Declares structs of the document: every field may be absent or null. Fields before the `;` are
/// always written out, the others only when they are not the zero value.
macro_rules! document {
    ($( $(#[$meta:meta])* $name:ident {
        $( $(#[$kmeta:meta])* $kept:ident : $kty:ty $(= $kjson:literal)?, )* ;
        $( $(#[$fmeta:meta])* $field:ident : $ty:ty $(= $json:literal)?, )*
    } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $( $(#[$kmeta])* $(#[serde(rename = $kjson)])? pub $kept: $kty, )*
            $( $(#[$fmeta])* #[serde(skip_serializing_if = "is_default" $(, rename = $json)?)] pub $field: $ty, )*
        }

        impl Object for $name {
            const FIELDS: &'static [&'static str] =
                &[$( name!($kept $($kjson)?), )* $( name!($field $($json)?), )*];

            fn field<'de, A: MapAccess<'de>>(&mut self, number: usize, map: &mut A) -> Result<(), A::Error> {
                let mut numbers = 0..;
                $( if numbers.next() == Some(number) { return map.next_value_seed(Place(&mut self.$kept)); } )*
                $( if numbers.next() == Some(number) { return map.next_value_seed(Place(&mut self.$field)); } )*
                Ok(())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                decode::object(deserializer)
            }
        }
    )* };
}

document! {
    /// The whole document (config.md).
    Spec {
        /// Version of the specification that the bundle follows, for example `1.2.0`.
        oci_version: String,
        ;
        /// The process to run; may be absent for `create`, never for `start`.
        process: Option<Process>,
        /// The root file system.
        root: Option<Root>,
        /// Host name in the container's UTS namespace.
        hostname: String,
        /// NIS domain name in the container's UTS namespace.
        domainname: String,
        /// Mounts in the order in which they are made.
        mounts: Vec<Mount>,
        /// Programs run at fixed points of the container's life.
        hooks: Option<Hooks>,
        /// Arbitrary metadata.
        annotations: BTreeMap<String, String>,
        /// Linux-specific part.
        linux: Option<Linux>,
    }

    /// `.process`
    Process {
        /// Identity of the process.
        user: User,
        /// Working directory, absolute, in the container.
        cwd: String,
        ;
        /// Attach a pseudo-terminal.
        terminal: bool,
        /// Size of the terminal in characters.
        console_size: Option<ConsoleSize>,
        /// argv; the first element is looked up in the container's PATH.
        args: Vec<String>,
        /// `KEY=value` strings.
        env: Vec<String>,
        /// capabilities(7) sets; absent means all empty.
        capabilities: Option<Capabilities>,
        /// prlimit(2) resource limits.
        rlimits: Vec<Rlimit>,
        /// prctl(2) PR_SET_NO_NEW_PRIVS.
        no_new_privileges: Option<bool>,
        /// AppArmor profile to change to on exec.
        apparmor_profile: String,
        /// Value for /proc/self/oom_score_adj, -1000 to 1000.
        oom_score_adj: Option<i64>,
        /// sched_setattr(2) attributes.
        scheduler: Option<Scheduler>,
        /// SELinux label of the process.
        selinux_label: String,
        /// ioprio_set(2) class and priority.
        io_priority: Option<IoPriority>,
        /// CPU sets used while a process is being placed by exec.
        exec_cpu_affinity: Option<CpuAffinity> = "execCPUAffinity",
    }

    /// `.process.consoleSize`, in characters.
    ConsoleSize {
        /// Rows.
        height: u64,
        /// Columns.
        width: u64,
        ;
    }

    /// `.process.user`
    User {
        /// User id in the container.
        uid: u32,
        /// Group id in the container.
        gid: u32,
        ;
        /// umask(2) of the process; absent keeps the runtime's.
        umask: Option<u32>,
        /// Supplementary groups.
        additional_gids: Vec<u32>,
    }

    /// `.process.capabilities`: names such as `CAP_CHOWN`.
    Capabilities {
        ;
        /// Bounding set.
        bounding: Vec<String>,
        /// Effective set.
        effective: Vec<String>,
        /// Inheritable set.
        inheritable: Vec<String>,
        /// Permitted set.
        permitted: Vec<String>,
        /// Ambient set.
        ambient: Vec<String>,
    }

    /// `.process.rlimits[]`
    Rlimit {
        /// `RLIMIT_*` of getrlimit(2).
        r#type: String = "type",
        /// Hard limit.
        hard: u64,
        /// Soft limit.
        soft: u64,
        ;
    }

    /// `.process.scheduler`, see sched_setattr(2).
    Scheduler {
        /// `SCHED_*` policy.
        policy: String,
        ;
        /// Nice value for SCHED_OTHER and SCHED_BATCH.
        nice: i32,
        /// Static priority for SCHED_FIFO and SCHED_RR.
        priority: i32,
        /// `SCHED_FLAG_*`.
        flags: Vec<String>,
        /// SCHED_DEADLINE runtime, nanoseconds.
        runtime: u64,
        /// SCHED_DEADLINE deadline, nanoseconds.
        deadline: u64,
        /// SCHED_DEADLINE period, nanoseconds.
        period: u64,
    }

    /// `.process.ioPriority`, see ioprio_set(2).
    IoPriority {
        /// `IOPRIO_CLASS_*`.
        class: String,
        /// 0 (highest) to 7.
        priority: i64,
        ;
    }

    /// `.process.execCPUAffinity`: cpu lists such as `0-3,7`.
    CpuAffinity {
        ;
        /// While the runtime moves the process into its cgroup.
        initial: String,
        /// After that.
        r#final: String = "final",
    }

    /// `.root`
    Root {
        /// Path of the root file system, relative to the bundle or absolute.
        path: String,
        ;
        /// Mount it read-only.
        readonly: bool,
    }

    /// `.mounts[]`
    Mount {
        /// Absolute path in the container.
        destination: String,
        ;
        /// File system type; `bind` or empty with a bind option for bind mounts.
        r#type: String = "type",
        /// Device, file system name, or host path relative to the bundle.
        source: String,
        /// Mount options, fstab-style.
        options: Vec<String>,
        /// Id mapping of an idmapped mount.
        uid_mappings: Vec<IdMapping>,
        /// Id mapping of an idmapped mount.
        gid_mappings: Vec<IdMapping>,
    }

    /// `.hooks`
    Hooks {
        ;
        /// Deprecated: as createRuntime.
        prestart: Vec<Hook>,
        /// In the runtime's namespaces, after the namespaces exist, before pivot_root.
        create_runtime: Vec<Hook>,
        /// In the container's namespaces, before pivot_root.
        create_container: Vec<Hook>,
        /// In the container, before the process is executed.
        start_container: Vec<Hook>,
        /// In the runtime's namespaces, after the process has started.
        poststart: Vec<Hook>,
        /// In the runtime's namespaces, after the container is deleted.
        poststop: Vec<Hook>,
    }

    /// One hook.
    Hook {
        /// Absolute path of the program.
        path: String,
        ;
        /// argv, with argv[0].
        args: Vec<String>,
        /// Environment; nothing is inherited.
        env: Vec<String>,
        /// Seconds after which the hook is killed; must be positive.
        timeout: Option<i64>,
    }

    /// `.linux`
    Linux {
        ;
        /// User namespace's uid map.
        uid_mappings: Vec<IdMapping>,
        /// User namespace's gid map.
        gid_mappings: Vec<IdMapping>,
        /// Kernel parameters of the container's namespaces.
        sysctl: BTreeMap<String, String>,
        /// cgroup limits.
        resources: Option<Resources>,
        /// cgroup of the container: absolute, relative, or `slice:prefix:name` for systemd.
        cgroups_path: String,
        /// Namespaces to create or join.
        namespaces: Vec<Namespace>,
        /// Device nodes to make.
        devices: Vec<Device>,
        /// Network devices to move into the container.
        net_devices: BTreeMap<String, NetDevice>,
        /// System call filter.
        seccomp: Option<SeccompText>,
        /// Propagation of the root mount: shared, slave, private or unbindable, each with `r`.
        rootfs_propagation: String,
        /// Paths hidden from the container.
        masked_paths: Vec<String>,
        /// Paths made read-only.
        readonly_paths: Vec<String>,
        /// SELinux context of the mounts.
        mount_label: String,
        /// Resctrl (Intel RDT, AMD PQoS).
        intel_rdt: Option<IntelRdt>,
        /// set_mempolicy(2).
        memory_policy: Option<MemoryPolicy>,
        /// personality(2).
        personality: Option<Personality>,
        /// Offsets of the time namespace's clocks: `monotonic`, `boottime`.
        time_offsets: BTreeMap<String, TimeOffset>,
    }

    /// `.linux.uidMappings[]` and the like: one line of /proc/PID/uid_map.
    IdMapping {
        /// First id in the container.
        container_id: u32 = "containerID",
        /// First id on the host.
        host_id: u32 = "hostID",
        /// Number of ids.
        size: u32,
        ;
    }

    /// `.linux.namespaces[]`
    Namespace {
        /// pid, network, mount, ipc, uts, user, cgroup or time.
        r#type: String = "type",
        ;
        /// Namespace file to join; empty makes a new namespace.
        path: String,
    }

    /// `.linux.devices[]`
    Device {
        /// Absolute path in the container.
        path: String,
        /// `c`, `u`, `b` or `p`.
        r#type: String = "type",
        ;
        /// Device major number.
        major: i64,
        /// Device minor number.
        minor: i64,
        /// Permission bits.
        file_mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    }

    /// `.linux.netDevices{}`: the key is the name on the host.
    NetDevice {
        ;
        /// Name in the container; empty keeps it.
        name: String,
    }

    /// `.linux.timeOffsets{}`
    TimeOffset {
        ;
        /// Seconds.
        secs: i64,
        /// Nanoseconds.
        nanosecs: u32,
    }

    /// `.linux.intelRdt`
    IntelRdt {
        ;
        /// Name of the resctrl group.
        clos_id: String = "closID",
        /// Lines for the schemata file.
        schemata: Vec<String>,
        /// L3 lines of the schemata file.
        l3_cache_schema: String,
        /// MB lines of the schemata file.
        mem_bw_schema: String,
        /// Make a monitoring group for the container.
        enable_monitoring: bool,
    }

    /// `.linux.memoryPolicy`, see set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_*` mode.
        mode: String,
        ;
        /// Node list such as `0,2-3`.
        nodes: String,
        /// `MPOL_F_*` flags.
        flags: Vec<String>,
    }

    /// `.linux.personality`, see personality(2).
    Personality {
        /// `LINUX` or `LINUX32`.
        domain: String,
        ;
        /// None is defined.
        flags: Vec<String>,
    }

    /// `.linux.resources`
    Resources {
        ;
        /// Device rules, in order.
        devices: Vec<DeviceRule>,
        /// Memory limits.
        memory: Option<Memory>,
        /// CPU limits.
        cpu: Option<Cpu>,
        /// Number of tasks.
        pids: Option<Pids>,
        /// Block I/O weights and throttles.
        block_io: Option<BlockIo> = "blockIO",
        /// Huge page limits.
        hugepage_limits: Vec<HugepageLimit>,
        /// net_cls and net_prio (cgroup v1).
        network: Option<Network>,
        /// RDMA limits by device.
        rdma: BTreeMap<String, Rdma>,
        /// cgroup v2 file name to value, written as it is.
        unified: BTreeMap<String, String>,
    }

    /// `.linux.resources.devices[]`
    DeviceRule {
        /// Allow or deny.
        allow: bool,
        ;
        /// `a`, `b` or `c`; empty means `a`.
        r#type: String = "type",
        /// Major number; absent means all.
        major: Option<i64>,
        /// Minor number; absent means all.
        minor: Option<i64>,
        /// Letters of `rwm`.
        access: String,
    }

    /// `.linux.resources.memory`: bytes, -1 is unlimited.
    Memory {
        ;
        /// Hard limit, bytes.
        limit: Option<i64>,
        /// Soft limit, bytes.
        reservation: Option<i64>,
        /// Memory plus swap, bytes.
        swap: Option<i64>,
        /// Kernel memory, bytes; ignored since Linux 5.4's deprecation, as in runc.
        kernel: Option<i64>,
        /// Kernel TCP memory, bytes; ignored likewise.
        kernel_tcp: Option<i64> = "kernelTCP",
        /// 0 to 100 (v1).
        swappiness: Option<u64>,
        /// Pause instead of kill when out of memory (v1).
        disable_oom_killer: Option<bool> = "disableOOMKiller",
        /// memory.use_hierarchy (v1).
        use_hierarchy: Option<bool>,
        /// Refuse a limit below the present use when updating.
        check_before_update: Option<bool>,
    }

    /// `.linux.resources.cpu`
    Cpu {
        ;
        /// Relative weight, 2 to 262144.
        shares: Option<u64>,
        /// Microseconds per period; -1 is unlimited.
        quota: Option<i64>,
        /// Microseconds that may be saved up.
        burst: Option<u64>,
        /// Microseconds.
        period: Option<u64>,
        /// Realtime microseconds per period.
        realtime_runtime: Option<i64>,
        /// Realtime period, microseconds.
        realtime_period: Option<u64>,
        /// cpuset.cpus list.
        cpus: String,
        /// cpuset.mems list.
        mems: String,
        /// 1 puts the cgroup into SCHED_IDLE.
        idle: Option<i64>,
    }

    /// `.linux.resources.pids`
    Pids {
        ;
        /// Number of tasks; negative is unlimited.
        limit: Option<i64>,
    }

    /// `.linux.resources.blockIO`
    BlockIo {
        ;
        /// 10 to 1000.
        weight: Option<u16>,
        /// 10 to 1000 (CFQ, v1).
        leaf_weight: Option<u16>,
        /// Weight by device.
        weight_device: Vec<WeightDevice>,
        /// Bytes per second read.
        throttle_read_bps_device: Vec<ThrottleDevice>,
        /// Bytes per second written.
        throttle_write_bps_device: Vec<ThrottleDevice>,
        /// Operations per second read.
        throttle_read_iops_device: Vec<ThrottleDevice> = "throttleReadIOPSDevice",
        /// Operations per second written.
        throttle_write_iops_device: Vec<ThrottleDevice> = "throttleWriteIOPSDevice",
    }

    /// `.linux.resources.blockIO.weightDevice[]`
    WeightDevice {
        /// Device major number.
        major: i64,
        /// Device minor number.
        minor: i64,
        ;
        /// 10 to 1000.
        weight: Option<u16>,
        /// 10 to 1000 (CFQ, v1).
        leaf_weight: Option<u16>,
    }

    /// `.linux.resources.blockIO.throttle*Device[]`
    ThrottleDevice {
        /// Device major number.
        major: i64,
        /// Device minor number.
        minor: i64,
        /// Per second.
        rate: u64,
        ;
    }

    /// `.linux.resources.hugepageLimits[]`
    HugepageLimit {
        /// Such as `2MB`.
        page_size: String,
        /// Bytes.
        limit: u64,
        ;
    }

    /// `.linux.resources.network`
    Network {
        ;
        /// net_cls.classid.
        class_id: Option<u32> = "classID",
        /// net_prio.ifpriomap.
        priorities: Vec<InterfacePriority>,
    }

    /// `.linux.resources.network.priorities[]`
    InterfacePriority {
        /// Interface.
        name: String,
        /// Priority.
        priority: u32,
        ;
    }

    /// `.linux.resources.rdma{}`
    Rdma {
        ;
        /// Number of handles.
        hca_handles: Option<u32>,
        /// Number of objects.
        hca_objects: Option<u32>,
    }

    /// `.linux.seccomp`
    Seccomp {
        /// `SCMP_ACT_*` for system calls that no rule names.
        default_action: String,
        ;
        /// errno of the default action.
        default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_*`; empty means the native one.
        architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_*`; absent is not the same as none (runc's default applies).
        flags: Option<Vec<String>>,
        /// Socket that gets the notify fd.
        listener_path: String,
        /// Opaque text for the listener.
        listener_metadata: String,
        /// Rules.
        syscalls: Vec<Syscall>,
    }

    /// `.linux.seccomp.syscalls[]`
    Syscall {
        /// System call names.
        names: Vec<String>,
        /// `SCMP_ACT_*`.
        action: String,
        ;
        /// errno or trace message of the action.
        errno_ret: Option<u32>,
        /// Argument checks, all of which must hold.
        args: Vec<SyscallArg>,
    }

    /// `.linux.seccomp.syscalls[].args[]`
    SyscallArg {
        /// Argument number, 0 to 5.
        index: u32,
        /// Value compared with.
        value: u64,
        /// `SCMP_CMP_*`.
        op: String,
        ;
        /// Second value, for SCMP_CMP_MASKED_EQ.
        value_two: u64,
    }
}

impl Seccomp {
    /// Whether the section asks for a filter at all: one without an action and without rules is the
    /// zero value, which engines write for "none".
    pub fn is_enabled(&self) -> bool {
        !self.default_action.is_empty() || !self.syscalls.is_empty()
    }
}

/// `.linux.seccomp` as it stands in the document. It is most of what engines write, and read only
/// when no compiled filter for this very text is at hand.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SeccompText(Box<RawValue>);

impl SeccompText {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// [`Seccomp::is_enabled`], without reading the text where the prefix of every action is in it. A
    /// text that is wrong asks for a filter; who compiles it reports what is wrong.
    pub fn is_enabled(&self) -> bool {
        self.as_str().contains("SCMP_ACT_")
            || crate::parse::parse_seccomp(self).map_or(true, |seccomp| seccomp.is_enabled())
    }
}

impl PartialEq for SeccompText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
