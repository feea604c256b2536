//! Bundles: a small rootfs with busybox and the probe, and a config.json to edit.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::{ids, probe};

/// Applets that the tests use, as links to busybox.
const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
    "ionice", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "nice", "ping", "printf",
    "ps", "pwd", "readlink", "rm", "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr",
    "true", "tty", "umount", "uname", "wc", "yes",
];

/// Where Debian's busybox-static puts its binary.
pub const BUSYBOX: &str = "/bin/busybox";

/// A bundle directory whose config.json is written when a runtime is called.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    /// The config, free to edit.
    pub config: Value,
}

impl Bundle {
    /// Makes `dir` with a rootfs of its own, and the config of [`base_config`]; where an ordinary user runs
    /// the tests, with a user namespace of that user's ids.
    ///
    /// # Panics
    /// When files cannot be written, or busybox is not installed.
    pub fn make(dir: &Path, cgroups_path: &str) -> Bundle {
        fill_rootfs(&dir.join("rootfs"));
        let mut bundle = Bundle { dir: dir.to_owned(), config: base_config(cgroups_path) };
        if let Some(ids) = ids::subordinate() {
            bundle.namespace("user", None);
            bundle.set("linux/uidMappings", ids.uid_map()).set("linux/gidMappings", ids.gid_map());
        }
        bundle
    }

    /// The bundle directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the rootfs, not resolved.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Writes config.json, in one step: `exec` reads it too, and several may run at once.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) {
        let text = serde_json::to_string_pretty(&self.config).unwrap();
        let new = self.dir.join("config.json.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.join("config.json")).unwrap();
    }

    /// Sets the value at a JSON pointer without its first slash, making objects on the way:
    /// `set("linux/resources/pids/limit", 7)`. `-` at the end appends to an array.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Bundle {
        set(&mut self.config, pointer, value.into());
        self
    }

    /// Removes the value at a JSON pointer without its first slash.
    pub fn remove(&mut self, pointer: &str) -> &mut Bundle {
        let (parent, name) = pointer.rsplit_once('/').map_or(("", pointer), |(parent, name)| (parent, name));
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        if let Some(object) = self.config.pointer_mut(&parent).and_then(Value::as_object_mut) {
            object.remove(name);
        }
        self
    }

    /// `process.args`.
    pub fn args<S: Into<String>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Bundle {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        self.set("process/args", args)
    }

    /// `process.args` that runs a script with busybox's shell.
    pub fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(["/bin/sh", "-c", script])
    }

    /// `process.args` that runs the probe for sections separated by blanks.
    pub fn probe(&mut self, sections: &str) -> &mut Bundle {
        self.args(std::iter::once("/bin/probe").chain(sections.split_whitespace()))
    }

    /// Appends a mount.
    pub fn mount(&mut self, target: &str, kind: &str, source: &str, options: &[&str]) -> &mut Bundle {
        self.set(
            "mounts/-",
            json!({ "destination": target, "type": kind, "source": source, "options": options }),
        )
    }

    /// Appends a namespace, by path if there is one, in the place of one of the same type.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Bundle {
        self.without_namespace(kind);
        let mut namespace = json!({ "type": kind });
        if let Some(path) = path {
            namespace["path"] = json!(path);
        }
        self.set("linux/namespaces/-", namespace)
    }

    /// Removes a namespace.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Gives the process every capability in four sets (not ambient) or takes all away.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Bundle {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            let names = if matches!(set, "inheritable" | "ambient") { &[] } else { names };
            self.set(&format!("process/capabilities/{set}"), names.to_vec());
        }
        self
    }

    /// A user namespace that maps `0..size` to `first..`, with the rootfs owned by the mapped root.
    ///
    /// # Panics
    /// When chown(2) fails.
    pub fn user_namespace(&mut self, first: u32, size: u32) -> &mut Bundle {
        let map = json!([{ "containerID": 0, "hostID": first, "size": size }]);
        self.namespace("user", None).set("linux/uidMappings", map.clone()).set("linux/gidMappings", map);
        chown_tree(&self.rootfs("/"), first);
        self
    }
}

fn chown_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown_tree(&entry.unwrap().path(), id);
        }
    }
}

/// Sets the value at a JSON pointer without its first slash, making objects and arrays on the way.
///
/// # Panics
/// When the way leads through something else, or an array has no such place.
pub fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for name in pointer.split('/') {
        if at.is_null() {
            *at = if name == "-" { json!([]) } else { json!({}) };
        }
        if name == "-" {
            at.as_array_mut().unwrap().push(Value::Null);
        }
        at = match at {
            Value::Array(items) => {
                let last = items.len() - 1;
                &mut items[if name == "-" { last } else { name.parse().unwrap() }]
            }
            Value::Object(fields) => fields.entry(name).or_insert(Value::Null),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                panic!("{pointer} leads through {other}")
            }
        };
    }
    *at = value;
}

/// Fills a directory with busybox, the probe and the usual directories.
///
/// # Panics
/// When that is not possible.
pub fn fill_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/run", rootfs.join("var/run")).unwrap();
    copy_program(Path::new(BUSYBOX), &rootfs.join("bin/busybox"));
    copy_program(probe::binary(), &rootfs.join("bin/probe"));
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nplain:x:1000:1000::/home:/bin/sh\n")
        .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nplain:x:1000:\n").unwrap();
}

/// By a process of its own: a child that another test's thread forks meanwhile would have the file open for
/// writing until it executes its program, and the container could not execute the file (ETXTBSY).
fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--preserve=mode").args([from, to]).status().unwrap();
    assert!(status.success(), "{}: apt-get install busybox-static", from.display());
}

/// The config that every test starts from: like `runc spec`, without a terminal, with a cgroup of
/// the test's own, and with a writable rootfs.
pub fn base_config(cgroups_path: &str) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "creel-test",
        "mounts": base_mounts(),
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn base_mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] }
    ])
}
