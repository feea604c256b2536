//! The cgroup hierarchies of this machine.
//!
//! Detected once per command that makes a cgroup. On a pure v2 host that is one statfs(2), on one
//! with the usual v1 layout one per directory of /sys/fs/cgroup. Only other layouts, and relative
//! paths, need /proc/self/mountinfo, whose text grows with every container of the machine.

use rustix::fs::CWD;

use crate::dir;
use crate::error::Error;

/// Default place of the hierarchies.
const CGROUP_DIR: &str = "/sys/fs/cgroup";
/// Of statfs(2).
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
/// Of statfs(2).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// Of statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The v1 controllers there are (cgroups(7)); no new ones are made.
const V1_CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "debug",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// Which interface files mean what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// How the hierarchies are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only v1 controllers.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// v1 controllers, and the unified hierarchy beside them.
    Hybrid,
}

impl Mode {
    /// Resources of a hybrid container are those of v1; its v2 cgroup only groups processes.
    pub fn hierarchy(self) -> Hierarchy {
        match self {
            Mode::V1 | Mode::Hybrid => Hierarchy::V1,
            Mode::V2 => Hierarchy::V2,
        }
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its v1 controllers and `name=`; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Mount point.
    pub point: String,
    /// Which cgroup is at the mount point; not `/` inside a container without cgroup namespace.
    /// `None` when nobody has looked: only relative paths need it.
    pub root: Option<String>,
}

/// The hierarchies of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// How they are mounted.
    pub mode: Mode,
    /// v1 hierarchies, in the order of mountinfo.
    pub v1: Vec<Mount>,
    /// The unified hierarchy.
    pub v2: Option<Mount>,
}

impl Host {
    /// Looks at the mounts of this process.
    pub fn detect() -> Result<Host, Error> {
        let host = match fs_type(CGROUP_DIR) {
            Some(CGROUP2_SUPER_MAGIC) => Some(Host::only_v2()),
            Some(TMPFS_MAGIC) => {
                let mut names = dir::open(CGROUP_DIR).and_then(dir::children).unwrap_or_default();
                names.sort_unstable();
                let names: Vec<String> =
                    names.into_iter().filter_map(|name| name.into_string().ok()).collect();
                Host::from_names(&names, |name| fs_type(&format!("{CGROUP_DIR}/{name}")))
            }
            Some(_) | None => None,
        };
        host.map_or_else(Host::from_own_mountinfo, Ok)
    }

    /// Looks at /proc/self/mountinfo, which also knows the roots of the mounts.
    pub(crate) fn from_own_mountinfo() -> Result<Host, Error> {
        let bytes = read_proc_bytes("/proc/self/mountinfo")?;
        // Every user may mount a FUSE file system on a name that is no text.
        Host::from_mountinfo(&String::from_utf8_lossy(&bytes))
    }

    fn only_v2() -> Host {
        let v2 = Mount { controllers: Vec::new(), point: CGROUP_DIR.to_owned(), root: None };
        Host { mode: Mode::V2, v1: Vec::new(), v2: Some(v2) }
    }

    /// The usual v1 layout: a directory per hierarchy, named after its controllers, `systemd` and
    /// perhaps `unified` beside them. `None` for any other.
    fn from_names(names: &[String], fs_type: impl Fn(&str) -> Option<u64>) -> Option<Host> {
        let mut host = Host { mode: Mode::V1, v1: Vec::with_capacity(names.len()), v2: None };
        for name in names {
            let point = format!("{CGROUP_DIR}/{name}");
            match fs_type(name) {
                Some(CGROUP_SUPER_MAGIC) => {
                    let controllers: Vec<String> = match name.as_str() {
                        "systemd" => vec!["name=systemd".to_owned()],
                        _ if name.split(',').all(|c| V1_CONTROLLERS.contains(&c)) => {
                            name.split(',').map(str::to_owned).collect()
                        }
                        _ => return None,
                    };
                    if host.v1.iter().any(|m| m.controllers.iter().any(|c| controllers.contains(c))) {
                        return None;
                    }
                    host.v1.push(Mount { controllers, point, root: None });
                }
                Some(CGROUP2_SUPER_MAGIC) if host.v2.is_none() => {
                    host.mode = Mode::Hybrid;
                    host.v2 = Some(Mount { controllers: Vec::new(), point, root: None });
                }
                Some(TMPFS_MAGIC) => {}
                Some(_) | None => return None,
            }
        }
        (!host.v1.is_empty()).then_some(host)
    }

    /// Reads the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)). Of several mounts of one
    /// hierarchy that below /sys/fs/cgroup counts, then the first: the others are bind mounts that
    /// belong to somebody's container.
    pub fn from_mountinfo(text: &str) -> Result<Host, Error> {
        let mut v1: Vec<Mount> = Vec::new();
        let mut v2: Option<Mount> = None;
        for line in text.lines() {
            let Some((fields, tail)) = line.split_once(" - ") else { continue };
            let is_v2 = tail.starts_with("cgroup2 ");
            if !is_v2 && !tail.starts_with("cgroup ") {
                continue;
            }
            let mut fields = fields.split(' ').skip(3);
            let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
            let mut mount =
                Mount { controllers: Vec::new(), point: unescape(point), root: Some(unescape(root)) };
            if is_v2 {
                if v2.as_ref().is_none_or(|old| mount.replaces(old)) {
                    v2 = Some(mount);
                }
                continue;
            }
            let options = tail.rsplit(' ').next().unwrap_or_default();
            mount.controllers = options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect();
            if mount.controllers.is_empty() {
                continue;
            }
            match v1.iter_mut().find(|old| old.controllers == mount.controllers) {
                Some(old) if mount.replaces(old) => *old = mount,
                Some(_) => {}
                None => v1.push(mount),
            }
        }
        let mode = match (v1.is_empty(), &v2) {
            (true, None) => return Err(Error::NotMounted("cgroup file system")),
            (true, Some(_)) => Mode::V2,
            (false, None) => Mode::V1,
            (false, Some(_)) => Mode::Hybrid,
        };
        Ok(Host { mode, v1, v2 })
    }
}

/// f_type of statfs(2).
fn fs_type(path: &str) -> Option<u64> {
    // f_type has a different width and sign on each architecture.
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type depends on the architecture")]
    rustix::fs::statfs(path).ok().map(|stat| stat.f_type as u64)
}

impl Mount {
    fn replaces(&self, old: &Mount) -> bool {
        let usual = |point: &str| {
            point.strip_prefix(CGROUP_DIR).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        usual(&self.point) && !usual(&old.point)
    }
}

/// Tells controllers and named hierarchies from the other super block options of a v1 mount.
fn is_controller(option: &str) -> bool {
    if let Some(name) = option.strip_prefix("name=") {
        // Other named hierarchies belong to whoever mounted them.
        return name == "systemd";
    }
    const OPTIONS: [&str; 9] =
        ["rw", "ro", "noprefix", "clone_children", "cpuset_v2_mode", "xattr", "none", "all", "favordynmods"];
    !option.is_empty() && !option.contains('=') && !OPTIONS.contains(&option)
}

/// Undoes the octal escapes of mountinfo: space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            Some(_) | None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The cgroups of this process, from /proc/self/cgroup (cgroups(7)). Only a relative cgroupsPath
/// needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnCgroups(Vec<(Vec<String>, String)>);

impl OwnCgroups {
    /// Reads /proc/self/cgroup.
    pub fn read() -> Result<OwnCgroups, Error> {
        Ok(OwnCgroups::from_text(&read_proc("/proc/self/cgroup")?))
    }

    /// Reads the text of /proc/PID/cgroup.
    pub fn from_text(text: &str) -> OwnCgroups {
        let entry = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            let names = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
            Some((names, path.to_owned()))
        };
        OwnCgroups(text.lines().filter_map(entry).collect())
    }

    /// Cgroup in the v1 hierarchy of `controller`.
    pub(crate) fn v1(&self, controller: &str) -> Option<&str> {
        self.0.iter().find(|(names, _)| names.iter().any(|n| n == controller)).map(|(_, path)| path.as_str())
    }

    /// Cgroup in the unified hierarchy.
    pub(crate) fn v2(&self) -> Option<&str> {
        self.0.iter().find(|(names, _)| names.is_empty()).map(|(_, path)| path.as_str())
    }
}

/// /proc files are trusted: the host's own /proc is the runtime's.
pub(crate) fn read_proc(path: &str) -> Result<String, Error> {
    dir::read(CWD, path).map_err(|errno| Error::Call { call: "read", path: path.to_owned(), errno })
}

/// One that has what strangers name, which need not be text.
pub(crate) fn read_proc_bytes(path: &str) -> Result<Vec<u8>, Error> {
    let read = dir::open_read(CWD, path).and_then(dir::bytes_of);
    read.map_err(|errno| Error::Call { call: "read", path: path.to_owned(), errno })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    const HYBRID: &str = "\
23 28 0:21 / /proc rw,nosuid - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /var/lib/x/sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
34 31 0:30 / /sys/fs/cgroup/net\\040cls rw,relatime - cgroup cgroup rw,net_cls
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
42 31 0:39 / /sys/fs/cgroup/other rw,relatime - cgroup cgroup rw,name=other
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_host_lists_each_hierarchy_once() {
        let host = Host::from_mountinfo(HYBRID).unwrap();
        assert_eq!(host.mode, Mode::Hybrid);
        let got: Vec<(String, &str)> =
            host.v1.iter().map(|m| (m.controllers.join(","), m.point.as_str())).collect();
        assert_eq!(
            got,
            [
                ("cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct"),
                ("net_cls".to_owned(), "/sys/fs/cgroup/net cls"),
                ("name=systemd".to_owned(), "/sys/fs/cgroup/systemd"),
            ]
        );
        assert_eq!(host.v2.unwrap().point, "/sys/fs/cgroup/unified");
    }

    #[test]
    fn modes_follow_from_the_mounts() {
        let mode = |text: &str| Host::from_mountinfo(text).map(|h| h.mode);
        assert_eq!(mode("1 2 0:3 / /cg rw - cgroup2 none rw\n").unwrap(), Mode::V2);
        assert_eq!(mode("1 2 0:3 / /cg rw - cgroup none rw,pids\n").unwrap(), Mode::V1);
        assert!(mode("1 2 0:3 / /cg rw - tmpfs none rw\n").is_err());
    }

    #[test]
    fn usual_names_need_no_mountinfo() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
            Host::from_names(&names, |name| match name {
                "unified" => Some(CGROUP2_SUPER_MAGIC),
                "lost" => Some(TMPFS_MAGIC),
                "ext" => Some(0xef53),
                _ => Some(CGROUP_SUPER_MAGIC),
            })
        };
        let host = of(&["cpu,cpuacct", "systemd", "unified", "lost"]).unwrap();
        assert_eq!(host.mode, Mode::Hybrid);
        assert_eq!(host.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(host.v1[1].controllers, ["name=systemd"]);
        assert_eq!(host.v2.unwrap().point, "/sys/fs/cgroup/unified");
        assert_eq!(of(&["pids"]).unwrap().mode, Mode::V1);
        for odd in [
            vec!["pids", "elogind"],
            vec!["cpu", "cpu,cpuacct"],
            vec!["pids", "ext"],
            vec!["unified"],
            vec![],
        ] {
            assert_eq!(of(&odd), None, "{odd:?}");
        }
    }

    #[test]
    fn own_cgroups_are_found_by_controller() {
        let own = OwnCgroups::from_text("4:memory:/a:b\n3:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\n");
        assert_eq!(own.v1("memory"), Some("/a:b"));
        assert_eq!(own.v1("cpuacct"), Some("/c"));
        assert_eq!(own.v1("name=systemd"), Some("/d"));
        assert_eq!(own.v1("pids"), None);
        assert_eq!(own.v2(), Some("/e"));
    }
}
