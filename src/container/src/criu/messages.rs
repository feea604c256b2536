//! Requests to CRIU and its answers (images/rpc.proto of CRIU).
//!
//! The discriminants are the field numbers of `criu_opts`.

use super::wire::{Message, Value, fields};

/// `criu_req_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// Switches of `criu_opts`.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Switch {
    LeaveRunning = 3,
    ExtUnixSk = 4,
    TcpEstablished = 5,
    EvasiveDevices = 6,
    ShellJob = 7,
    FileLocks = 8,
    NotifyScripts = 12,
    TrackMem = 15,
    AutoDedup = 16,
    LinkRemap = 18,
    ManageCgroups = 24,
    RstSibling = 26,
    TcpSkipInFlight = 46,
    LazyPages = 48,
    OrphanPtsMaster = 50,
    TcpClose = 52,
}

/// Numbers of `criu_opts`; descriptors are numbers of this process unless said otherwise.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Number {
    ImagesDirFd = 1,
    Pid = 2,
    LogLevel = 9,
    WorkDirFd = 17,
    ManageCgroupsMode = 34,
    EmptyNs = 38,
    StatusFd = 49,
    NetworkLock = 64,
}

/// Texts of `criu_opts`.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Text {
    LogFile = 10,
    Root = 13,
    ParentImg = 14,
    External = 37,
    FreezeCgroup = 44,
    ConfigFile = 51,
    LsmProfile = 53,
    LsmMountContext = 63,
}

/// `criu_opts`
#[derive(Debug, Default, Clone)]
pub struct Options(Message);

impl Options {
    /// Sets or clears a switch; one that is not named keeps what CRIU's own configuration says.
    pub fn switch(&mut self, switch: Switch, on: bool) {
        self.0.number(switch as u32, i64::from(on));
    }

    /// Sets a number.
    pub fn number(&mut self, number: Number, value: i64) {
        self.0.number(number as u32, value);
    }

    /// Sets a text, or adds one where there may be several.
    pub fn text(&mut self, text: Text, value: &str) {
        self.0.text(text as u32, value);
    }

    /// `ps`: the page server.
    pub fn page_server(&mut self, address: &str, port: u16) {
        const PS: u32 = 11;
        let mut server = Message::default();
        server.text(1, address);
        server.number(2, i64::from(port));
        self.0.message(PS, &server);
    }

    /// `ext_mnt`: on dump a mount point and the name that it gets, on restore a name and the path of
    /// what is mounted there.
    pub fn external_mount(&mut self, key: &str, value: &str) {
        const EXT_MNT: u32 = 23;
        self.pair(EXT_MNT, key, value);
    }

    /// `cg_root`: where the tasks of a controller's hierarchy go.
    pub fn cgroup_root(&mut self, controller: &str, path: &str) {
        const CG_ROOT: u32 = 25;
        self.pair(CG_ROOT, controller, path);
    }

    /// `join_ns`: a namespace that the restored processes join.
    pub fn join_namespace(&mut self, kind: &str, path: &str) {
        const JOIN_NS: u32 = 39;
        self.pair(JOIN_NS, kind, path);
    }

    /// `inherit_fd`: descriptor `fd` of the CRIU process stands for what the image calls `key`.
    pub fn inherit_fd(&mut self, key: &str, fd: i32) {
        const INHERIT_FD: u32 = 27;
        let mut inherit = Message::default();
        inherit.text(1, key);
        inherit.number(2, i64::from(fd));
        self.0.message(INHERIT_FD, &inherit);
    }

    fn pair(&mut self, field: u32, first: &str, second: &str) {
        let mut pair = Message::default();
        pair.text(1, first);
        pair.text(2, second);
        self.0.message(field, &pair);
    }
}

/// `criu_features`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Memory that has changed can be told from memory that has not.
    pub mem_track: bool,
    /// Pages can be fetched after the restore.
    pub lazy_pages: bool,
}

/// A request with options, or without.
pub fn request(kind: Kind, options: Option<&Options>) -> Message {
    let mut message = Message::default();
    message.number(1, kind as i64);
    if let Some(Options(options)) = options {
        message.message(2, options);
    }
    message
}

/// The answer to a notification.
pub fn acknowledge() -> Message {
    let mut message = request(Kind::Notify, None);
    message.number(3, 1);
    message
}

/// Asks which of `wanted` there are.
pub fn feature_check(wanted: Features) -> Message {
    let mut features = Message::default();
    for (field, wanted) in [(1, wanted.mem_track), (2, wanted.lazy_pages)] {
        if wanted {
            features.number(field, 1);
        }
    }
    let mut message = request(Kind::FeatureCheck, None);
    message.message(5, &features);
    message
}

/// `criu_notify`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notify {
    /// What happens now: `setup-namespaces`, `post-restore`, ...
    pub script: String,
    /// The process that it happens to.
    pub pid: i32,
}

/// `criu_resp`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// `criu_req_type` of what is answered.
    pub kind: i32,
    /// Whether it went well.
    pub success: bool,
    /// A notification, which waits for [`acknowledge`].
    pub notify: Option<Notify>,
    /// errno(3) of a failure, if CRIU knows one.
    pub errno: i32,
    /// Words of a failure.
    pub message: String,
    /// Answer to [`feature_check`].
    pub features: Features,
    /// Major, minor and sub-level, 10000 to one.
    pub version: u32,
}

impl Response {
    /// Reads an answer; None when it is none.
    pub fn parse(bytes: &[u8]) -> Option<Response> {
        let mut response = Response::default();
        for field in fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => response.kind = value.as_i32(),
                2 => response.success = value.as_bool(),
                5 => response.notify = Some(notify(value)?),
                7 => response.errno = value.as_i32(),
                8 => response.features = features(value)?,
                9 => response.message = value.as_text(),
                10 => response.version = version(value)?,
                _ => {}
            }
        }
        Some(response)
    }
}

fn notify(value: Value<'_>) -> Option<Notify> {
    let mut notify = Notify::default();
    for field in fields(value.as_bytes()) {
        match field? {
            (1, script) => notify.script = script.as_text(),
            (2, pid) => notify.pid = pid.as_i32(),
            _ => {}
        }
    }
    Some(notify)
}

fn features(value: Value<'_>) -> Option<Features> {
    let mut features = Features::default();
    for field in fields(value.as_bytes()) {
        match field? {
            (1, there) => features.mem_track = there.as_bool(),
            (2, there) => features.lazy_pages = there.as_bool(),
            _ => {}
        }
    }
    Some(features)
}

/// A build between releases, which has a `gitid`, counts as the next minor release's beginning.
fn version(value: Value<'_>) -> Option<u32> {
    let (mut major, mut minor, mut sublevel, mut unreleased) = (0, 0, 0, false);
    for field in fields(value.as_bytes()) {
        match field? {
            (1, number) => major = number.as_i32(),
            (2, number) => minor = number.as_i32(),
            (3, gitid) => unreleased = !gitid.as_bytes().is_empty(),
            (4, number) => sublevel = number.as_i32(),
            _ => {}
        }
    }
    let release = major.checked_mul(10_000)?.checked_add(minor.checked_mul(100)?)?;
    u32::try_from(if unreleased { release.checked_add(100)? } else { release.checked_add(sublevel)? }).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The version message of CRIU `major.minor.sublevel`.
    fn answer(major: i64, minor: i64, sublevel: i64, gitid: &str) -> Message {
        let mut version = Message::default();
        version.number(1, major);
        version.number(2, minor);
        if !gitid.is_empty() {
            version.text(3, gitid);
        }
        version.number(4, sublevel);
        let mut message = Message::default();
        message.number(1, Kind::Version as i64);
        message.number(2, 1);
        message.message(10, &version);
        message
    }

    #[test]
    fn versions_are_numbers_that_compare() {
        let read = |m: Message| Response::parse(m.as_bytes()).unwrap().version;
        assert_eq!(read(answer(3, 17, 1, "")), 31_701);
        assert_eq!(read(answer(4, 2, 0, "")), 40_200);
        assert_eq!(read(answer(4, 2, 0, "v4.2-7-gabc")), 40_300);
    }

    #[test]
    fn notifications_and_failures_are_read() {
        let mut notify = Message::default();
        notify.text(1, "post-restore");
        notify.number(2, 4711);
        let mut message = Message::default();
        message.number(1, Kind::Notify as i64);
        message.number(2, 1);
        message.message(5, &notify);
        let read = Response::parse(message.as_bytes()).unwrap();
        assert_eq!(read.notify, Some(Notify { script: "post-restore".into(), pid: 4711 }));
        assert!(read.success);

        let mut message = Message::default();
        message.number(1, Kind::Dump as i64);
        message.number(2, 0);
        message.number(7, 52);
        message.text(9, "bad");
        let read = Response::parse(message.as_bytes()).unwrap();
        assert_eq!((read.success, read.errno, read.message.as_str()), (false, 52, "bad"));
        assert_eq!(Response::parse(b"\x08"), None);
    }
}
