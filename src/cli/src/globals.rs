//! Global flags: everything before the subcommand, and where containers live.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use creel_container::{Rootless, Runtime};

use crate::flags::{Flag, Item, Scanner, not_defined, parse_bool};
use crate::program::reason;

/// The one table of global flags.
pub static GLOBALS: [Flag; 11] = [
    Flag::switch("debug", "enable debug logging"),
    Flag::value("log", "FILE", "[file:]FILE to append log lines to, journald:ID or syslog:ID")
        .default("standard error"),
    Flag::value("log-format", "FORMAT", "format of log lines: text or json").default("text"),
    Flag::value("root", "DIR", "directory for the state of containers, best on a tmpfs").default(SYSTEM_ROOT),
    Flag::value("log-level", "LEVEL", "what the log takes: error, warning or debug").default("warning"),
    Flag::value("cgroup-manager", "NAME", "who makes cgroups: cgroupfs, systemd, or disabled for nobody")
        .default("cgroupfs"),
    Flag::switch("systemd-cgroup", "let systemd make cgroups; cgroupsPath is slice:prefix:name"),
    Flag::value("rootless", "BOOL", "ignore cgroup permission errors: true, false or auto").default("auto"),
    Flag::switch("help", "show help").short('h'),
    Flag::switch("version", "print the version").short('v'),
    // crun's letter for it.
    Flag::switch("V", ""),
];

/// What the global flags say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// `--debug`
    pub debug: bool,
    /// `--log`, unchecked.
    pub log: Option<OsString>,
    /// `--log-format`, unchecked.
    pub log_format: OsString,
    /// `--log-level`, unchecked.
    pub log_level: OsString,
    /// `--cgroup-manager`, unchecked.
    pub cgroup_manager: OsString,
    /// `--root`, unchecked.
    pub root: Option<OsString>,
    /// `--systemd-cgroup`
    pub systemd_cgroup: bool,
    /// `--rootless`, unchecked.
    pub rootless: OsString,
    /// `--help`
    pub help: bool,
    /// `--version`
    pub version: bool,
}

impl Globals {
    /// Reads flags up to the subcommand; returns them and the words from the subcommand on.
    pub fn scan(args: &[OsString]) -> Result<(Globals, &[OsString]), String> {
        let mut globals = Globals::default();
        let mut scanner = Scanner::new(args, |name| GLOBALS.iter().find(|flag| flag.is_named(name)));
        loop {
            let from_here = scanner.rest();
            match scanner.item()? {
                Some(Item::Switch(flag, on)) => globals.turn(flag.long, on),
                Some(Item::Value(flag, value)) => globals.set(flag.long, value),
                Some(Item::Unknown(name, _)) => return Err(not_defined(&name)),
                Some(Item::Operand(_)) => return Ok((globals, from_here)),
                Some(Item::End) | None => return Ok((globals, scanner.rest())),
            }
        }
    }

    fn turn(&mut self, long: &str, on: bool) {
        match long {
            "debug" => self.debug = on,
            "systemd-cgroup" => self.systemd_cgroup = on,
            "help" => self.help = on,
            _ => self.version = on,
        }
    }

    fn set(&mut self, long: &str, value: &OsStr) {
        match long {
            "log" => self.log = (!value.is_empty()).then(|| value.to_owned()),
            "log-level" => self.log_level = value.to_owned(),
            "cgroup-manager" => self.cgroup_manager = value.to_owned(),
            "log-format" => self.log_format = value.to_owned(),
            "root" => self.root = Some(value.to_owned()),
            _ => self.rootless = value.to_owned(),
        }
    }

    /// Where containers live, for the lifecycle.
    pub fn runtime(&self) -> Result<Runtime, String> {
        let root = match &self.root {
            Some(root) => absolute(root)?,
            None => Environment::read().default_root(),
        };
        // An empty value, `/`, and as many `..` as it takes all end up here.
        if root == Path::new("/") {
            return Err("Option --root argument should not be set to /".to_owned());
        }
        let (systemd_cgroup, no_cgroup) = self.cgroup_owner()?;
        Ok(Runtime { root, systemd_cgroup, rootless: parse_rootless(&self.rootless)?, no_cgroup })
    }

    /// Whether systemd makes cgroups, and whether nobody does.
    fn cgroup_owner(&self) -> Result<(bool, bool), String> {
        match self.cgroup_manager.to_str() {
            Some("") => Ok((self.systemd_cgroup, false)),
            Some("cgroupfs") => Ok((false, false)),
            Some("systemd") => Ok((true, false)),
            Some("disabled") => Ok((false, true)),
            _ => Err(format!(
                "invalid --cgroup-manager value {:?}: expected cgroupfs, systemd or disabled",
                self.cgroup_manager
            )),
        }
    }

    /// What `--debug` and `--log-level` ask for; the first is the shorter word for the second.
    pub fn log_level(&self) -> &OsStr {
        if self.debug { "debug".as_ref() } else { &self.log_level }
    }

    /// Makes the default directory below `$XDG_RUNTIME_DIR` when that is the one in use. Its sticky
    /// bit keeps it from being pruned (XDG Base Directory Specification).
    pub fn keep_root(&self, root: &Path) -> Result<(), String> {
        if self.root.is_some() || root == Path::new(SYSTEM_ROOT) {
            return Ok(());
        }
        let sticky = std::fs::Permissions::from_mode(0o1700);
        std::fs::create_dir_all(root)
            .and_then(|()| std::fs::set_permissions(root, sticky))
            .map_err(|error| format!("$XDG_RUNTIME_DIR: {}: {}", root.display(), reason(&error)))
    }
}

/// Root's default directory. It is not runc's `/run/runc` under the name `runc` either: the state
/// files in there are different ones.
const SYSTEM_ROOT: &str = "/run/creel";

/// What decides the default root.
struct Environment {
    xdg_runtime_dir: OsString,
    user: Option<OsString>,
    euid: u32,
    uid_map: String,
}

impl Environment {
    fn read() -> Environment {
        let xdg_runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default();
        // Only a root with that variable needs to know whether it is in a user namespace.
        let euid = rustix::process::geteuid().as_raw();
        let uid_map = if euid == 0 && !xdg_runtime_dir.is_empty() {
            std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
        } else {
            String::new()
        };
        Environment { xdg_runtime_dir, user: std::env::var_os("USER"), euid, uid_map }
    }

    /// `/run/creel`, or `$XDG_RUNTIME_DIR/creel` for whoever cannot write to `/run`: not root, or
    /// root of a user namespace only. As runc, `USER=root` there asks for `/run`.
    fn default_root(&self) -> PathBuf {
        let inherits_run = self.euid == 0
            && (!in_user_namespace(&self.uid_map) || self.user.as_deref() == Some(OsStr::new("root")));
        if self.xdg_runtime_dir.is_empty() || inherits_run {
            Path::new(SYSTEM_ROOT).to_owned()
        } else {
            Path::new(&self.xdg_runtime_dir).join("creel")
        }
    }
}

/// Whether a uid_map is another one than the initial user namespace's (user_namespaces(7)). An
/// unreadable map says nothing.
fn in_user_namespace(uid_map: &str) -> bool {
    !uid_map.is_empty() && !uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn parse_rootless(text: &OsStr) -> Result<Rootless, String> {
    let word = text.to_str().unwrap_or("\u{fffd}");
    if word.is_empty() || word.eq_ignore_ascii_case("auto") {
        return Ok(Rootless::Auto);
    }
    match parse_bool(word) {
        Some(true) => Ok(Rootless::Yes),
        Some(false) => Ok(Rootless::No),
        None => Err(format!("invalid --rootless value {text:?}: expected true, false or auto")),
    }
}

/// Makes a path absolute and resolves `.` and `..` by name only, as Go's `filepath.Abs`: what the
/// path names must not depend on the working directory later.
pub fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, String> {
    let path = path.as_ref();
    let mut clean = if path.is_absolute() {
        PathBuf::new()
    } else {
        std::env::current_dir().map_err(|error| format!("getcwd: {}", reason(&error)))?
    };
    for component in path.components() {
        match component {
            Component::RootDir => clean.push("/"),
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn words(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn containerds_command_line_is_read_up_to_the_subcommand() {
        let args = words(&[
            "--root",
            "/run/containerd/runc/k8s.io",
            "--log=/b/log.json",
            "-log-format",
            "json",
            "--systemd-cgroup",
            "create",
            "--bundle",
            "/b",
            "id",
        ]);
        let (globals, rest) = Globals::scan(&args).unwrap();
        assert_eq!(rest, &words(&["create", "--bundle", "/b", "id"])[..]);
        let expected = Globals {
            log: Some(OsString::from("/b/log.json")),
            log_format: OsString::from("json"),
            root: Some(OsString::from("/run/containerd/runc/k8s.io")),
            systemd_cgroup: true,
            ..Globals::default()
        };
        assert_eq!(globals, expected);
    }

    #[test]
    fn an_unknown_global_flag_is_named() {
        let args = words(&["--foo=1", "state", "x"]);
        assert_eq!(Globals::scan(&args).unwrap_err(), "flag provided but not defined: -foo");
    }

    #[test]
    fn a_root_that_comes_to_slash_is_refused() {
        for root in ["/", "/..", "/run/../", "//"] {
            let globals = Globals { root: Some(OsString::from(root)), ..Globals::default() };
            let message = globals.runtime().unwrap_err();
            assert_eq!(message, "Option --root argument should not be set to /", "{root}");
        }
        let globals = Globals { root: Some(OsString::from("/run/./x//../y/")), ..Globals::default() };
        assert_eq!(globals.runtime().unwrap().root, Path::new("/run/y"));
    }

    #[test]
    fn the_default_root_follows_the_user() {
        const INITIAL: &str = "         0          0 4294967295\n";
        const NESTED: &str = "         0       1000          1\n";
        for (xdg, euid, uid_map, user, root) in [
            ("/run/user/0", 0, INITIAL, None, "/run/creel"),
            ("/run/user/1000", 1000, "", None, "/run/user/1000/creel"),
            ("", 1000, "", None, "/run/creel"),
            ("/run/user/1000", 0, NESTED, Some("joe"), "/run/user/1000/creel"),
            ("/run/user/1000", 0, NESTED, None, "/run/user/1000/creel"),
            ("/run/user/1000", 0, NESTED, Some("root"), "/run/creel"),
        ] {
            let environment = Environment {
                xdg_runtime_dir: OsString::from(xdg),
                user: user.map(OsString::from),
                euid,
                uid_map: uid_map.to_owned(),
            };
            assert_eq!(environment.default_root(), Path::new(root), "{xdg} {euid} {user:?}");
        }
    }

    #[test]
    fn the_cgroup_manager_is_one_of_crun_s() {
        for (manager, systemd_cgroup, expected) in [
            ("", false, Ok((false, false))),
            ("", true, Ok((true, false))),
            ("cgroupfs", true, Ok((false, false))),
            ("systemd", false, Ok((true, false))),
            ("disabled", false, Ok((false, true))),
        ] {
            let globals = Globals { cgroup_manager: manager.into(), systemd_cgroup, ..Globals::default() };
            assert_eq!(globals.cgroup_owner(), expected, "{manager}");
        }
        let globals = Globals { cgroup_manager: "mine".into(), ..Globals::default() };
        assert!(globals.runtime().unwrap_err().contains("\"mine\""));
    }

    #[test]
    fn rootless_takes_gos_booleans_and_auto() {
        for (text, expected) in [
            ("", Rootless::Auto),
            ("AUTO", Rootless::Auto),
            ("true", Rootless::Yes),
            ("1", Rootless::Yes),
            ("F", Rootless::No),
            ("false", Rootless::No),
        ] {
            assert_eq!(parse_rootless(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        assert!(parse_rootless(OsStr::new("bad")).unwrap_err().contains("\"bad\""));
    }

    #[test]
    fn a_users_default_root_is_made_private_and_sticky() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("creel");
        Globals { root: Some(OsString::from("x")), ..Globals::default() }.keep_root(&root).unwrap();
        assert!(!root.exists());
        Globals::default().keep_root(&root).unwrap();
        assert_eq!(root.metadata().unwrap().permissions().mode() & 0o7777, 0o1700);
    }
}
