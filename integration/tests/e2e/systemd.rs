//! systemd as the owner of cgroups: scopes, their properties, and what happens when it does not answer.

use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_integration::skip::say;
use creel_integration::{Cmd, Container, Owner, Running, Runtime, cgroups, ids, is_creel, skip, wait};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::json;

const MIB: u64 = 1 << 20;
const SLICE: &str = "creeltest-e2e.slice";
const SLICE_DIR: &str = "/sys/fs/cgroup/creeltest.slice/creeltest-e2e.slice";

/// Whether this machine was booted with systemd, and root may ask it.
fn runs() -> bool {
    ids::are_roots()
        && Path::new("/run/systemd/system").is_dir()
        && Path::new("/run/systemd/private").exists()
}

macro_rules! needs_systemd {
    () => {
        if !runs() {
            skip!("no systemd here that the tests may ask");
        }
        if !cgroups::is_v2() {
            skip!("systemd's files are looked for on cgroup v2");
        }
    };
}

/// A container in a scope of [`SLICE`].
fn idle() -> Container {
    in_scope(Container::idle())
}

fn in_scope(mut container: Container) -> Container {
    container.with_global("--systemd-cgroup");
    let path = format!("{SLICE}:test:{}", container.id());
    container.bundle.set("linux/cgroupsPath", path);
    container
}

fn unit(container: &Container) -> String {
    format!("test-{}.scope", container.id())
}

fn dir(container: &Container) -> PathBuf {
    Path::new(SLICE_DIR).join(unit(container))
}

fn file(container: &Container, name: &str) -> String {
    let path = dir(container).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// A property as systemd has it.
fn property(unit: &str, name: &str) -> String {
    let args = ["show", "--value", "--property", name, unit];
    Cmd::new("systemctl").args(args).output().ok().stdout.trim().to_owned()
}

/// A unit that systemd has forgotten, or never knew, is not found.
fn is_forgotten(unit: &str) -> bool {
    property(unit, "LoadState") == "not-found" && property(unit, "ActiveState") == "inactive"
}

#[test]
fn a_container_is_a_scope_with_its_limits() {
    needs_systemd!();
    let mut container = idle();
    container.bundle.set(
        "linux/resources",
        json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB },
            "cpu": { "shares": 512, "quota": 50_500, "period": 100_000 },
            "pids": { "limit": 20 },
            "unified": { "memory.high": "60000000", "memory.oom.group": "1" },
        }),
    );
    container.bundle.set("annotations/org.systemd.property.TimeoutStopSec", "uint64 7");
    container.create();
    let unit = unit(&container);
    for (name, value) in [
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "60000000"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "510ms"),
        ("TasksMax", "20"),
        ("DevicePolicy", "strict"),
        ("TimeoutStopUSec", "7s"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert!(property(&unit, "DeviceAllow").contains("/dev/char/1:3 rwm"));
    for (name, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("cpu.weight", "59"),
        ("cpu.max", "51000 100000"),
        ("pids.max", "20"),
        ("memory.oom.group", "1"),
        ("cgroup.procs", &container.init().pid().to_string()),
    ] {
        assert_eq!(file(&container, name), value, "{name}");
    }
    container.start();
    container.stop_and_delete();
    wait::until("the scope is forgotten", || is_forgotten(&unit));
}

#[test]
fn limits_and_devices_outlive_a_daemon_reload() {
    needs_systemd!();
    let mut container = idle();
    container.bundle.set(
        "linux/resources",
        json!({
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" },
            ],
            "pids": { "limit": 25 },
            "blockIO": { "weight": 500 },
        }),
    );
    // The kernel's log and the loop devices' master, of which the container may have the former.
    for (path, major, minor) in [("/dev/log", 1, 11), ("/dev/loop", 10, 237)] {
        let device = json!({ "path": path, "type": "c", "major": major, "minor": minor });
        container.bundle.set("linux/devices/-", device);
    }
    container.run_detached();
    container.wait_file("/ready");
    let opened = || {
        let open = |name: &str| container.exec(&[], &["sh", "-c", &format!("true >/dev/{name}")]).output();
        let (log, other) = (open("log"), open("loop"));
        assert!(log.code() == 0, "an allowed device\n{log}");
        assert!(other.stderr.contains("Operation not permitted"), "{other}");
    };
    opened();
    Cmd::new("systemctl").args(["daemon-reload"]).output().ok();
    opened();
    assert_eq!(file(&container, "pids.max"), "25");
    assert_eq!(file(&container, "io.weight"), "default 4950");
    container.stop_and_delete();
}

#[test]
fn update_changes_the_unit_and_the_files() {
    needs_systemd!();
    let mut container = idle();
    container.bundle.set(
        "linux/resources",
        json!({
            "memory": { "limit": 64 * MIB },
            "cpu": { "quota": 20_000, "period": 50_000 },
            "pids": { "limit": 20 },
        }),
    );
    container.run_detached();
    let unit = unit(&container);
    container.call("update", &["--pids-limit", "30", "--cpu-quota", "25000"]).output().ok();
    container.call("update", &["--memory", "100M"]).output().ok();
    assert_eq!(property(&unit, "TasksMax"), "30");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(property(&unit, "CPUQuotaPeriodUSec"), "50ms", "what was not named stays");
    assert_eq!(property(&unit, "MemoryMax"), (100 * MIB).to_string());
    assert_eq!(file(&container, "cpu.max"), "25000 50000");
    assert_eq!(file(&container, "pids.max"), "30");
    container.call("pause", &[]).output().ok();
    assert_eq!(file(&container, "cgroup.freeze"), "1");
    container.call("resume", &[]).output().ok();
    container.stop_and_delete();
}

#[test]
fn a_limit_of_one_process_is_no_limit_for_the_start() {
    needs_systemd!();
    let mut container = in_scope(Container::shell("cat /proc/self/cgroup & wait"));
    container.bundle.set("linux/resources/pids/limit", 1);
    let output = container.run();
    assert!(output.stderr.contains("fork"), "{output}");
    container.bundle.args(["cat", "/proc/self/cgroup"]);
    assert!(container.run().ok().stdout.starts_with("0::/"));
    // The same as the unit's own property.
    container.bundle.set("linux/resources/pids", json!({}));
    container.bundle.set("annotations/org.systemd.property.TasksMax", "uint64 1");
    container.bundle.shell("cat /proc/self/cgroup & wait");
    let output = container.run();
    assert!(output.stderr.contains("fork"), "{output}");
}

#[test]
fn a_slice_or_a_name_that_systemd_has_not_is_refused() {
    needs_systemd!();
    let mut container = idle();
    for (path, words) in [
        ("/a/b", "expected cgroupsPath to be of format"),
        ("a--b.slice:x:y", "invalid slice name"),
        ("a.slice:x:y z", "invalid unit name"),
    ] {
        container.bundle.set("linux/cgroupsPath", path);
        let output = container.create_fails();
        assert!(output.stderr.contains(words), "{output}");
    }
}

#[test]
fn a_failed_unit_of_the_same_name_is_no_hindrance() {
    needs_systemd!();
    let container = idle();
    let unit = unit(&container);
    let args = ["--unit", &unit, "--scope", "--slice", SLICE, "sh", "-c", "kill -9 $$"];
    Cmd::new("systemd-run").args(args).output();
    // A scope whose process was killed need not have failed; one that has is reset.
    container.create();
    assert_eq!(property(&unit, "ActiveState"), "active");
    container.call("delete", &["--force"]).output().ok();
    wait::until("the scope is forgotten", || is_forgotten(&unit));
}

#[test]
fn a_scope_that_is_in_use_is_not_taken() {
    needs_systemd!();
    let first = idle();
    first.create();
    let mut second = idle();
    second.bundle.set("linux/cgroupsPath", format!("{SLICE}:test:{}", first.id()));
    let output = second.create_fails();
    assert!(output.stderr.contains("container's cgroup is not empty"), "{output}");
    assert_eq!(first.status(), "created");
    first.call("delete", &["--force"]).output().ok();
}

#[test]
fn the_container_may_live_below_the_scope() {
    needs_systemd!();
    if !is_creel() {
        skip!("annotations of crun's");
    }
    let mut container = in_scope(Container::shell("cat /proc/self/cgroup"));
    container.bundle.set("annotations/run.oci.systemd.subgroup", "inner");
    container.bundle.set("annotations/run.oci.delegate-cgroup", "given");
    container.bundle.set("linux/resources/pids/limit", 20);
    container.bundle.namespace("cgroup", None);
    let inside = container.run().ok().stdout;
    assert!(inside.starts_with("0::/given\n"), "{inside}");

    container.bundle.shell("trap 'exit 0' TERM; while true; do sleep 100 & wait $!; done");
    container.create();
    assert_eq!(file(&container, "inner/pids.max"), "20");
    assert_eq!(file(&container, "inner/given/cgroup.procs"), container.init().pid().to_string());
    assert_eq!(file(&container, "cgroup.procs"), "");
    container.call("delete", &["--force"]).output().ok();
    wait::until("the scope is forgotten", || is_forgotten(&unit(&container)));

    container.bundle.set("annotations/run.oci.delegate-cgroup", "../x");
    let output = container.create_fails();
    assert!(output.stderr.contains("bad delegated cgroup"), "{output}");
}

/// Where systemd is to be reached, the bus and its own socket.
const SOCKETS: [&str; 2] = ["/run/dbus/system_bus_socket", "/run/systemd/private"];

/// Sockets where nobody ever answers lie over systemd's, in the mount namespace of this test.
struct Silence(Vec<UnixListener>);

impl Silence {
    fn over(container: &Container) -> Silence {
        let bind = |(n, socket): (usize, &&str)| {
            let path = container.scratch().join(format!("silent{n}"));
            let listener = UnixListener::bind(&path).unwrap();
            mount_bind(path, *socket).unwrap();
            listener
        };
        Silence(SOCKETS.iter().enumerate().map(bind).collect())
    }

    fn end(self) {
        for socket in SOCKETS {
            unmount(socket, UnmountFlags::DETACH).unwrap();
        }
        drop(self.0);
    }
}

#[test]
fn create_ends_when_systemd_does_not_answer() {
    needs_systemd!();
    if !is_creel() {
        skip!("runc waits without end");
    }
    let container = idle();
    let silence = Silence::over(&container);
    let before = Instant::now();
    let output = container.call("create", &[]).deadline(Duration::from_secs(120)).output().exits(1);
    silence.end();
    assert!(before.elapsed() < Duration::from_secs(90), "{:?}", before.elapsed());
    output.says(&["system_bus_socket: timed out after 5 s waiting for authentication"]);
    wait::until("the scope is forgotten", || is_forgotten(&unit(&container)));
    container.assert_clean(&container.cmd(["list"]).output());
}

#[test]
fn a_bus_that_was_named_has_its_deadline() {
    needs_systemd!();
    if !is_creel() {
        skip!("runc waits without end");
    }
    let container = idle();
    let path = container.scratch().join("bus");
    let _listener = UnixListener::bind(&path).unwrap();
    let output = container
        .call("create", &[])
        .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.display()))
        .deadline(Duration::from_secs(120))
        .output()
        .exits(1)
        .says(&["timed out after 30 s waiting for authentication"]);
    container.assert_clean(&output);
}

#[test]
fn a_dead_container_is_deleted_without_systemd() {
    needs_systemd!();
    if !is_creel() {
        skip!("runc waits without end");
    }
    let container = idle();
    container.create();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    let silence = Silence::over(&container);
    let output = container.call("delete", &[]).deadline(Duration::from_secs(60)).output().ok();
    silence.end();
    container.assert_clean(&output);
    // systemd comes to know by itself.
    wait::until("the scope is forgotten", || is_forgotten(&unit(&container)));
}

#[test]
fn a_living_container_is_deleted_by_force_without_systemd() {
    needs_systemd!();
    if !is_creel() {
        skip!("runc waits without end");
    }
    let container = idle();
    container.create();
    let output = container
        .call("delete", &["--force"])
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
        .output()
        .ok();
    container.assert_clean(&output);
    wait::until("the scope is forgotten", || is_forgotten(&unit(&container)));
}

/// `name=system.slice` of all units that a name fits.
fn units(pattern: &str) -> String {
    let args = ["list-units", "--all", "--no-legend", "--plain", pattern];
    Cmd::new("systemctl").args(args).output().ok().stdout
}

/// Runs 200 containers, 50 at a time, which leave nothing; milliseconds for each.
fn many(runtime: &Runtime, owner: &Owner) -> f64 {
    const ALL: usize = 200;
    const AT_ONCE: usize = 50;
    let mut container = Container::owned(runtime, owner.clone());
    container.bundle.args(["true"]).set("linux/resources/pids/limit", 20);
    // Debian's runc 1.1.15 does not find its mount points below a path that ends with a slash.
    let root = container.bundle.rootfs("");
    container.bundle.set("root/path", root.to_str().unwrap().trim_end_matches('/'));
    let names: Vec<String> = (0..ALL).map(|number| format!("{}-{number}", container.id())).collect();
    for name in &names {
        // One bundle would do, but for the name of the cgroup.
        container.bundle.set("linux/cgroupsPath", owner.cgroups_path(name));
        container.scratch().file(&format!("{name}/config.json"), container.bundle.config.to_string());
    }
    // The first one makes the mount points in the root file system that they share.
    container.call("run", &[]).output().ok();
    let before = Instant::now();
    let mut running = VecDeque::new();
    for name in &names {
        if running.len() == AT_ONCE {
            running.pop_front().map(Running::output).unwrap().ok();
        }
        let bundle = container.scratch().join(name);
        let cmd = container.cmd(["run", "--bundle", bundle.to_str().unwrap(), name]);
        running.push_back(cmd.deadline(Duration::from_secs(600)).spawn());
    }
    running.into_iter().map(Running::output).for_each(|output| drop(output.ok()));
    let each = before.elapsed().as_secs_f64() * 1e3 / ALL as f64;
    wait::until("no unit is left", || units(&format!("*{}-*", container.id())).is_empty());
    assert_eq!(cgroups::named(container.id()), Vec::<PathBuf>::new());
    each
}

#[test]
fn many_at_once_leave_no_unit_and_no_cgroup() {
    needs_systemd!();
    let tell = |runtime: &Runtime| {
        let systemd = many(runtime, &Owner::Systemd);
        let own = many(runtime, &Owner::Runtime("/".to_owned()));
        say(&format!(
            "{}: 200 containers, 50 at a time, {systemd:.1} ms each by systemd, {own:.1} ms without: {:.1} ms for D-Bus",
            runtime.path().display(),
            systemd - own
        ));
    };
    // Minutes, under emulation.
    if std::env::var_os("CREEL_TEST_SLOW").is_none() {
        many(Runtime::under_test(), &Owner::Systemd);
        return;
    }
    tell(Runtime::under_test());
    if let Some(runc) = Runtime::runc() {
        tell(&runc);
    }
}

/// A container in a scope of a user's systemd. This test is in no cgroup of the user's, like
/// the session of a login: only systemd may put a process where it belongs.
#[test]
fn a_user_has_limits_by_the_users_systemd() {
    needs_systemd!();
    let Some(uid) = ids::with_systemd() else { skip!("no user with a running systemd") };
    let mut container = Container::idle();
    container.with_global("--systemd-cgroup");
    container.bundle.namespace("user", None);
    for ids in ["linux/uidMappings", "linux/gidMappings"] {
        container.bundle.set(ids, json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
    }
    container.bundle.set("linux/cgroupsPath", format!(":test:{}", container.id()));
    container
        .bundle
        .set("linux/resources", json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 20 } }));
    container.bundle.write();
    let owner = format!("{uid}:{uid}");
    Cmd::new("chown").args(["-R", &owner, container.scratch().path().to_str().unwrap()]).output().ok();
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
    let runtime_dir = format!("/run/user/{uid}");
    let as_user = |cmd: Cmd| {
        let words = std::iter::once("setpriv".to_owned()).chain(ids.iter().cloned());
        cmd.behind(words).env("XDG_RUNTIME_DIR", &runtime_dir).output()
    };
    as_user(container.call("run", &["--detach"])).ok();
    container.wait_file("/ready");
    let scope = cgroups::named(container.id());
    let [scope] = scope.as_slice() else { panic!("{scope:?}") };
    let home = format!("user@{uid}.service/user.slice/{}", unit(&container));
    assert!(scope.ends_with(home), "{scope:?}");
    let read = |file: &str| std::fs::read_to_string(scope.join(file)).unwrap().trim().to_owned();
    assert_eq!((read("memory.max"), read("pids.max")), ((64 * MIB).to_string(), "20".to_owned()));

    let seen = as_user(container.exec(&[], &["cat", "/proc/self/cgroup"])).ok().stdout;
    assert!(seen.trim().ends_with(&unit(&container)), "{seen}");
    as_user(container.call("update", &["--pids-limit", "30"])).ok();
    assert_eq!(read("pids.max"), "30");
    as_user(container.call("pause", &[])).ok();
    assert_eq!(read("cgroup.freeze"), "1");
    as_user(container.call("resume", &[])).ok();
    let init = container.init();
    as_user(container.cmd(["kill", container.id(), "KILL"])).ok();
    init.exited();
    let output = as_user(container.call("delete", &[])).ok();
    container.assert_clean(&output);

    // What cannot be applied is an error, what is not asked for is none.
    container.bundle.set("linux/resources", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }));
    container.bundle.write();
    let output = as_user(container.call("run", &[])).exits(1);
    assert!(output.stderr.contains("the cgroup has no hugetlb controller"), "{output}");
    container.assert_clean(&output);
}
