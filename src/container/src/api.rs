//! What the command line asks of the lifecycle: one plain request per command, every path already
//! absolute, nothing left to look up in the environment.

use std::path::PathBuf;

/// Where containers live and who owns their cgroups: the global flags of the command line.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Directory with one subdirectory per container (`--root`).
    pub root: PathBuf,
    /// `--systemd-cgroup`: cgroupsPath is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// `--rootless`: tolerate cgroups that cannot be made.
    pub rootless: Rootless,
    /// `--cgroup-manager disabled`: containers are made in the caller's cgroups.
    pub no_cgroup: bool,
}

/// `--rootless true|false|auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    /// As if every cgroup permission error may be ignored.
    Yes,
    /// Never ignore them.
    No,
    /// Ignore them when not running as root of the initial user namespace.
    Auto,
}

/// `create` and `run`.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Container id.
    pub id: String,
    /// Bundle directory, absolute.
    pub bundle: PathBuf,
    /// `--config`: another file than the bundle's config.json.
    pub config: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--preserve-fds`: fds 3..3+n go to the container.
    pub preserve_fds: u32,
    /// Sockets of systemd's socket activation meant for this process (LISTEN_PID checked), before
    /// `preserve_fds`.
    pub listen_fds: Option<ListenFds>,
    /// NOTIFY_SOCKET of the environment.
    pub notify_socket: Option<PathBuf>,
}

/// sd_listen_fds(3) environment.
#[derive(Debug, Clone)]
pub struct ListenFds {
    /// LISTEN_FDS.
    pub count: u32,
    /// LISTEN_FDNAMES, passed on unchanged.
    pub names: Option<String>,
}

/// How `run` ends.
#[derive(Debug, Clone, Copy)]
pub enum RunMode {
    /// `--detach`: return when the process has started.
    Detached,
    /// Wait, forward signals, delete unless `keep`.
    Foreground {
        /// `--keep`: leave the stopped container.
        keep: bool,
        /// Not `--no-subreaper`.
        subreaper: bool,
    },
}

/// `exec`.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Container id.
    pub id: String,
    /// `--process FILE` or flags plus arguments.
    pub process: ExecProcess,
    /// `--detach`.
    pub detach: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// LISTEN_FDS likewise.
    pub listen_fds: Option<ListenFds>,
    /// `--cgroup`: `(controllers, path below the container's cgroup)`; no controllers means all.
    pub cgroups: Vec<(Vec<String>, String)>,
    /// `--ignore-paused`.
    pub ignore_paused: bool,
}

/// What `exec` runs.
#[derive(Debug, Clone)]
pub enum ExecProcess {
    /// `--process FILE`: a whole `.process` object.
    File(PathBuf),
    /// The container's own `.process`, changed by flags.
    Flags(Box<ExecFlags>),
}

/// Changes to the container's own `.process`.
#[derive(Debug, Clone, Default)]
pub struct ExecFlags {
    /// argv.
    pub args: Vec<String>,
    /// `--cwd`.
    pub cwd: Option<String>,
    /// `--env KEY=value`, appended.
    pub env: Vec<String>,
    /// `--tty`.
    pub tty: bool,
    /// `--user UID[:GID]`.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`.
    pub additional_gids: Vec<u32>,
    /// `--process-label`.
    pub process_label: Option<String>,
    /// `--apparmor`.
    pub apparmor: Option<String>,
    /// `--no-new-privs`.
    pub no_new_privs: bool,
    /// `--cap`, added to the container's sets.
    pub caps: Vec<String>,
}

/// What `state` and `list` show.
#[derive(Debug, Clone)]
pub struct StateView {
    /// ociVersion of the bundle.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Init's pid, 0 when stopped.
    pub pid: i32,
    /// created, running, paused or stopped.
    pub status: Status,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root file system, absolute.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// `.annotations` of the config, in order of the keys.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// uid that made the container.
    pub owner_uid: u32,
}

/// Container status (runtime.md, State).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Set up, waiting for `start`.
    Created,
    /// The process runs.
    Running,
    /// Frozen.
    Paused,
    /// The process is gone.
    Stopped,
}

impl Status {
    /// The word that state JSON shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What `checkpoint` and `restore` both tell CRIU.
#[derive(Debug, Clone)]
pub struct CriuFlags {
    /// `--image-path`, absolute: where the images are.
    pub image_path: PathBuf,
    /// `--work-path`, absolute: where CRIU logs; with the images when absent.
    pub work_path: Option<PathBuf>,
    /// `--tcp-established`
    pub tcp_established: bool,
    /// `--ext-unix-sk`
    pub ext_unix_sk: bool,
    /// `--shell-job`
    pub shell_job: bool,
    /// `--file-locks`
    pub file_locks: bool,
    /// `--auto-dedup`
    pub auto_dedup: bool,
    /// `--lazy-pages`
    pub lazy_pages: bool,
    /// `--manage-cgroups-mode`
    pub cgroups: CgroupsMode,
    /// `--network-lock`
    pub network_lock: Option<NetworkLock>,
}

/// What CRIU does about cgroups (`criu_cg_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Nothing.
    Ignore = 0,
    /// Limits are restored if restore had to make the cgroup.
    Soft = 3,
    /// Limits are always restored.
    Full = 4,
    /// Cgroups are made and must not be there.
    Strict = 5,
    /// CRIU's own choice.
    Default = 6,
}

/// How CRIU keeps packets away meanwhile (`criu_network_lock_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// iptables(8)
    Iptables = 1,
    /// nftables
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// `checkpoint`
#[derive(Debug, Clone)]
pub struct CheckpointRequest {
    /// Container id.
    pub id: String,
    /// What restore has too.
    pub criu: CriuFlags,
    /// `--parent-path`, relative to the image path: an earlier `--pre-dump`.
    pub parent_path: Option<PathBuf>,
    /// `--leave-running`
    pub leave_running: bool,
    /// `--pre-dump`: only memory, and the container goes on.
    pub pre_dump: bool,
    /// `--tcp-skip-in-flight`
    pub tcp_skip_in_flight: bool,
    /// `--link-remap`
    pub link_remap: bool,
    /// `--page-server`: address and port.
    pub page_server: Option<(String, u16)>,
    /// `--status-fd`: gets a NUL when the lazy pages can be asked for.
    pub status_fd: Option<i32>,
}

/// `restore`
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// What `create` has too.
    pub create: CreateRequest,
    /// What checkpoint has too.
    pub criu: CriuFlags,
    /// How it ends.
    pub mode: RunMode,
    /// `--tcp-close`: established connections are closed.
    pub tcp_close: bool,
    /// `--lsm-profile`, TYPE:NAME.
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`
    pub lsm_mount_context: Option<String>,
}
