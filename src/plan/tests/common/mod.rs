//! Configs that the golden plans and the properties share: what engines and people write.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::BTreeMap;

use creel_plan::facts::{AppArmor, HostFacts, Request, SecurityModules};
use serde_json::{Value, json};

/// An ordinary user of the host.
pub const USER: HostFacts = HostFacts { euid: 1000, egid: 1000, ..HostFacts::ROOT };
/// root of a user namespace: a runtime inside a container, or under `podman unshare`.
pub const NESTED: HostFacts = HostFacts { in_user_namespace: true, ..HostFacts::ROOT };
/// root on a machine with both security modules, itself confined by AppArmor.
pub const LABELLED: HostFacts = HostFacts {
    security: SecurityModules { selinux: true, apparmor: AppArmor::Confined },
    ..HostFacts::ROOT
};

/// One line of the matrix.
pub struct Case {
    /// Name of its golden file.
    pub name: &'static str,
    /// config.json
    pub config: Value,
    /// The command line's part.
    pub request: Request,
    /// The machine's part.
    pub facts: HostFacts,
}

impl Case {
    fn new(name: &'static str, config: Value) -> Case {
        let request = Request { id: "web".into(), bundle: "/bundle".into(), ..Request::default() };
        Case { name, config, request, facts: HostFacts::ROOT }
    }

    fn on(self, facts: HostFacts) -> Case {
        Case { facts, ..self }
    }

    fn asked(mut self, change: impl FnOnce(&mut Request)) -> Case {
        change(&mut self.request);
        self
    }
}

/// Every case, by name.
pub fn cases() -> Vec<Case> {
    let mut cases = engines();
    cases.extend(user_namespaces());
    cases.extend(joined_namespaces());
    cases.extend(idmapped_mounts());
    cases.extend(features());
    cases.extend(requests());
    cases
}

fn engines() -> Vec<Case> {
    let mut clocks = rootless(1);
    push(&mut clocks, "/linux/namespaces", json!({ "type": "time" }));
    set(&mut clocks, "/linux/timeOffsets", json!({ "monotonic": { "secs": 7 } }));
    vec![
        Case::new("default-root-v1", default(&["pid", "network", "ipc", "uts", "mount"])),
        Case::new("default-root-v2", default(&["pid", "network", "ipc", "uts", "mount", "cgroup"])),
        Case::new("default-nested-root", default(&["pid", "network", "ipc", "uts", "mount"])).on(NESTED),
        Case::new("kubernetes-root", kubernetes()),
        Case::new("rootless-single-id", rootless(1)).on(USER),
        Case::new("rootless-time-offsets", clocks).on(USER),
        Case::new("rootless-subordinate-ids", rootless(65536)).on(USER),
    ]
}

fn user_namespaces() -> Vec<Case> {
    let mut config = kubernetes();
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    set(&mut config, "/linux/uidMappings", maps.clone());
    set(&mut config, "/linux/gidMappings", maps);
    push(&mut config, "/linux/namespaces", json!({ "type": "user" }));
    let mut stage = config.clone();
    join(&mut stage, "network", "/run/netns/pod");
    vec![
        Case::new("user-namespace-root", config.clone()),
        Case::new("user-namespace-nested-root", config).on(NESTED),
        Case::new("user-namespace-root-joined-network", stage),
    ]
}

fn joined_namespaces() -> Vec<Case> {
    let joined = |kinds: &[&str]| {
        let mut config = default(&["pid", "network", "ipc", "uts", "mount"]);
        for kind in kinds {
            join(&mut config, kind, &format!("/proc/77/ns/{kind}"));
        }
        config
    };
    let mut rootless = rootless(1);
    join(&mut rootless, "user", "/proc/77/ns/user");
    join(&mut rootless, "network", "/proc/77/ns/net");
    for map in ["/linux/uidMappings", "/linux/gidMappings"] {
        set(&mut rootless, map, json!([]));
    }
    vec![
        Case::new("joined-network-ipc-uts", joined(&["network", "ipc", "uts"])),
        Case::new("joined-pid", joined(&["pid"])),
        Case::new("joined-user", joined(&["user", "network"])),
        Case::new("joined-user-rootless", rootless).on(USER),
        Case::new("joined-mount", joined(&["mount", "network"])),
        Case::new("joined-time", joined(&["time"])),
        Case::new("joined-cgroup", joined(&["cgroup"])),
    ]
}

fn idmapped_mounts() -> Vec<Case> {
    let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1000 }]);
    let with = |mut config: Value, mounts: &[Value]| {
        mounts.iter().for_each(|m| push(&mut config, "/mounts", m.clone()));
        config
    };
    let own = |options: &[&str]| {
        let mut mount = mount("/own", "", "data", options);
        mount["uidMappings"] = map(5000);
        mount["gidMappings"] = map(6000);
        mount
    };
    let implied = mount("/implied", "bind", "/data", &["rbind", "ro", "ridmap"]);
    let base = || default(&["pid", "network", "ipc", "uts", "mount"]);
    let mut user = base();
    push(&mut user, "/linux/namespaces", json!({ "type": "user" }));
    set(&mut user, "/linux/uidMappings", map(100_000));
    set(&mut user, "/linux/gidMappings", map(200_000));
    let mut joined = base();
    join(&mut joined, "user", "/proc/77/ns/user");
    vec![
        Case::new("idmapped-mounts", with(base(), &[own(&["bind"]), own(&["rbind", "ridmap"])])),
        Case::new("idmapped-mounts-user-namespace", with(user, &[own(&["bind"]), implied.clone()])),
        Case::new("idmapped-mounts-joined-user", with(joined, &[own(&["bind", "idmap"]), implied])),
    ]
}

fn features() -> Vec<Case> {
    let base = || default(&["pid", "network", "ipc", "uts", "mount"]);
    let with = |path: &str, value: Value| {
        let mut config = base();
        set(&mut config, path, value);
        config
    };
    let mut clocks = base();
    push(&mut clocks, "/linux/namespaces", json!({ "type": "time" }));
    let still = clocks.clone();
    let offsets = json!({ "monotonic": { "secs": 3600 }, "boottime": { "secs": -5, "nanosecs": 7 } });
    set(&mut clocks, "/linux/timeOffsets", offsets);
    let mut bare = default(&["pid", "ipc", "uts"]);
    for list in ["/mounts", "/linux/maskedPaths", "/linux/readonlyPaths"] {
        set(&mut bare, list, json!([]));
    }
    let mut hosts_own = default(&["pid", "ipc", "uts"]);
    for list in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        set(&mut hosts_own, list, json!([]));
    }
    let mut odd = base();
    for one in [
        mount("/bundle/rootfs/mnt/x", "", "/data", &["rbind", "rw"]),
        mount("/mnt/x/y", "", "/bundle/rootfs/mnt", &["bind", "ro"]),
        mount("/link", "", "data", &["bind", "src-nofollow", "dest-nofollow"]),
        mount("/copy", "", "data", &["bind", "copy-symlink"]),
        mount("/mapped", "", "data", &["bind", "idmap=uids=0-1000-10#10-5-1;gids=0-0-1"]),
        mount("/dev/shm", "", "", &["remount", "ro", "size=1m"]),
    ] {
        push(&mut odd, "/mounts", one);
    }
    let mut annotated = kubernetes();
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    set(&mut annotated, "/linux/uidMappings", maps.clone());
    set(&mut annotated, "/linux/gidMappings", maps);
    push(&mut annotated, "/linux/namespaces", json!({ "type": "user" }));
    set(&mut annotated, "/annotations", json!({ "run.oci.keep_original_groups": "1", "org.x": "y" }));
    let mut hooks = json!({});
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        hooks[kind] = json!([{ "path": format!("/usr/libexec/{kind}"), "args": [kind], "timeout": 5 }]);
    }
    let mut attributes = with("/linux/personality", json!({ "domain": "LINUX32" }));
    let policy = json!({ "mode": "MPOL_PREFERRED", "nodes": "0,2-3", "flags": ["MPOL_F_RELATIVE_NODES"] });
    set(&mut attributes, "/linux/memoryPolicy", policy);
    set(&mut attributes, "/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 }));
    set(&mut attributes, "/process/execCPUAffinity", json!({ "initial": "0", "final": "0-1" }));
    let scheduler = json!({ "policy": "SCHED_BATCH", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    set(&mut attributes, "/process/scheduler", scheduler);
    let devices_to_move = json!({ "eth1": {}, "veth7": { "name": "eth0" } });
    let mut labels = with("/linux/mountLabel", json!("u:object_r:container_file_t:s0:c1,c2"));
    set(&mut labels, "/process/selinuxLabel", json!("u:r:container_t:s0:c1,c2"));
    set(&mut labels, "/process/apparmorProfile", json!("docker-default"));
    push(&mut labels, "/mounts", mount("/own", "tmpfs", "tmpfs", &["context=\"u:object_r:tmp_t:s0:c3,c4\""]));
    let mut fscontext = labels.clone();
    set(&mut fscontext, "/process/noNewPrivileges", json!(false));
    set(&mut fscontext, "/annotations", json!({ "run.oci.mount_context_type": "fscontext" }));
    let mut readonly = with("/root/readonly", json!(true));
    push(&mut readonly, "/mounts", mount("/scratch", "tmpfs", "tmpfs", &["ro", "size=1m", "tmpcopyup"]));
    let mut bound = base();
    set(&mut bound, "/mounts/1", mount("/dev/", "bind", "/dev", &["rbind", "rslave"]));
    vec![
        Case::new("time-namespace", still),
        Case::new("time-offsets", clocks),
        Case::new("no-mount-namespace", bare),
        Case::new("annotations-of-crun", annotated),
        Case::new("mounts-without-namespace", hosts_own),
        Case::new("mounts-of-crun", odd),
        Case::new("terminal", with("/process/terminal", json!(true))),
        Case::new("hooks", with("/hooks", hooks)),
        Case::new("attributes", attributes),
        Case::new("labels", labels).on(LABELLED),
        Case::new("labels-fscontext", fscontext).on(LABELLED),
        Case::new("mount-label-without-selinux", with("/linux/mountLabel", json!("a:b:c"))),
        Case::new("network-devices", with("/linux/netDevices", devices_to_move)),
        Case::new("readonly-root", readonly),
        Case::new("shared-root", with("/linux/rootfsPropagation", json!("rshared"))),
        Case::new("private-root", with("/linux/rootfsPropagation", json!("rprivate"))),
        Case::new("devices", with("/linux/devices", devices())),
        Case::new("devices-nested-root", with("/linux/devices", devices())).on(NESTED),
        Case::new("bound-dev", bound),
        Case::new("sysctls", with("/linux/sysctl", sysctls())),
        Case::new("mount-options", with("/mounts", mounts())),
        Case::new("seccomp-without-no-new-privileges", with("/process/noNewPrivileges", json!(false))),
        Case::new("no-capabilities", with("/process/capabilities", Value::Null)),
        Case::new("user-and-umask", with("/process/user", user())),
    ]
}

fn requests() -> Vec<Case> {
    let base = || default(&["pid", "network", "ipc", "uts", "mount"]);
    vec![
        Case::new("no-pivot", base()).asked(|r| r.no_pivot = true),
        Case::new("no-new-keyring", base()).asked(|r| r.no_new_keyring = true),
        Case::new("notify-socket", base()).asked(|r| {
            r.notify_dir = Some("/run/creel/web/notify".into());
            r.env = BTreeMap::from([("NOTIFY_SOCKET".into(), "/run/notify/notify.sock".into())]);
        }),
        Case::new("listen-fds", base()).asked(|r| {
            r.preserve_fds = 2;
            r.env = [("LISTEN_FDS", "2"), ("LISTEN_PID", "1")].map(|(k, v)| (k.into(), v.into())).into();
        }),
    ]
}

/// What `runc spec` writes, with a filter and a console size.
pub fn default(namespaces: &[&str]) -> Value {
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "consoleSize": { "height": 24, "width": 80 },
            "capabilities": capabilities(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "web",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys"],
            "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
        },
    })
}

/// What containerd's CRI plugin writes for a container of a pod.
fn kubernetes() -> Value {
    let mut config = default(&["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    set(&mut config, "/process/oomScoreAdj", json!(986));
    set(&mut config, "/linux/cgroupsPath", json!("/kubepods/pod1/web"));
    for (destination, source, options) in [
        ("/etc/hosts", "/pods/1/hosts", ["rbind", "rprivate", "rw"]),
        ("/etc/resolv.conf", "/pods/1/resolv.conf", ["rbind", "rprivate", "rw"]),
        ("/var/run/secrets/kubernetes.io/serviceaccount", "/pods/1/sa", ["rbind", "rprivate", "ro"]),
    ] {
        push(&mut config, "/mounts", mount(destination, "bind", source, &options));
    }
    config
}

/// What `creel spec --rootless` writes; `size` above 1 adds subordinate ids.
fn rootless(size: u32) -> Value {
    let mut config = default(&["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    let mut map = vec![json!({ "containerID": 0, "hostID": 1000, "size": 1 })];
    if size > 1 {
        map.push(json!({ "containerID": 1, "hostID": 100_000, "size": size }));
    }
    set(&mut config, "/linux/uidMappings", json!(map));
    set(&mut config, "/linux/gidMappings", json!(map));
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    set(&mut config, "/mounts/2", mount("/dev/pts", "devpts", "devpts", &options));
    let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
    set(&mut config, "/mounts/5", mount("/sys", "none", "/sys", &options));
    config
}

fn capabilities(names: &[&str]) -> Value {
    json!({ "bounding": names, "effective": names, "permitted": names })
}

/// One element of `.mounts`.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn devices() -> Value {
    json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 7, "gid": 8 },
        { "path": "/dev/sdz", "type": "b", "major": 8, "minor": 400 },
        { "path": "/run/pipe", "type": "p" },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
    ])
}

fn sysctls() -> Value {
    json!({ "net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "0", "kernel.shmmax": "1048576" })
}

fn mounts() -> Value {
    json!([
        mount("proc/../proc/", "proc", "proc", &["nosuid", "hidepid=2"]),
        mount("/a", "", "data", &["rbind"]),
        mount("/b", "bind", "/data", &["bind", "ro", "nosuid", "noatime"]),
        mount("/c", "bind", "/data", &["rbind", "rro", "rnoexec", "rslave"]),
        mount("/d", "bind", "/data", &["bind", "rw", "exec", "shared", "unbindable"]),
        mount("/e", "tmpfs", "tmpfs", &["size=1m,mode=700", "sync", "nodiratime"]),
        mount("/f", "overlay", "overlay", &["lowerdir=/l1:/l2", "upperdir=/u", "workdir=/w", "ro"]),
        mount("/run/", "tmpfs", "tmpfs", &["ro", "tmpcopyup"]),
    ])
}

fn user() -> Value {
    json!({ "uid": 1001, "gid": 1002, "umask": 0o077, "additionalGids": [5, 6] })
}

/// Puts `value` at a JSON pointer, making the last key.
pub fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match parent.as_array_mut() {
        Some(list) => list[key.parse::<usize>().unwrap()] = value,
        None => parent[key] = value,
    }
}

/// Appends to the array at a JSON pointer.
pub fn push(config: &mut Value, pointer: &str, value: Value) {
    config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
}

/// Makes a namespace one that is joined by path.
fn join(config: &mut Value, kind: &str, path: &str) {
    let list = config.pointer_mut("/linux/namespaces").unwrap().as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != kind);
    list.push(json!({ "type": kind, "path": path }));
}
