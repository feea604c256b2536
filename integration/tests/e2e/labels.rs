//! Labels of the security modules: AppArmor profiles and SELinux contexts.
//!
//! Each test needs its module in force; the last ones need neither. Only one of the two can be, so half of
//! them are skipped anywhere.

use std::fs;
use std::path::Path;

use creel_integration::{Cmd, Container, Output, is_creel, needs_root, probe, skip};
use rustix::fs::{XattrFlags, lsetxattr};
use serde_json::{Value, json};

/// What a process is, as it reads it itself.
const CURRENT: &str = "text=/proc/self/attr/current";

fn label(report: &Value) -> &str {
    probe::text(report, "text/~1proc~1self~1attr~1current").trim_end_matches('\0')
}

/// The same from outside.
fn label_of(container: &Container) -> String {
    let text = fs::read_to_string(format!("/proc/{}/attr/current", container.init().pid())).unwrap();
    text.trim_end_matches(['\n', '\0']).to_owned()
}

/// AppArmor takes profiles here.
fn has_apparmor() -> bool {
    let tool =
        ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"].iter().any(|path| Path::new(path).exists());
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with('Y')) && tool
}

macro_rules! needs_apparmor {
    () => {
        if !has_apparmor() {
            skip!("no AppArmor, or no apparmor_parser");
        }
    };
}

macro_rules! needs_profiles {
    () => {
        needs_apparmor!();
        needs_root!("may load profiles");
    };
}

macro_rules! needs_selinux {
    () => {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            skip!("no SELinux");
        }
    };
}

/// A loaded profile that allows everything but /denied-NAME, unloaded on drop.
struct Profile {
    name: String,
    namespace: Option<String>,
}

impl Profile {
    fn load(name: &str) -> Profile {
        Profile::load_in(name, None)
    }

    fn load_in(name: &str, namespace: Option<&str>) -> Profile {
        let profile = Profile { name: name.to_owned(), namespace: namespace.map(str::to_owned) };
        profile.parser("--replace").ok();
        profile
    }

    fn parser(&self, action: &str) -> Output {
        let name = &self.name;
        let rules = "file, capability, network, mount, remount, umount, pivot_root, ptrace, signal, unix, dbus, \
            change_profile,";
        let text =
            format!("profile {name} flags=(attach_disconnected) {{ {rules} deny /denied-{name} r, }}\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut parser = Cmd::new("apparmor_parser").args([action, "--skip-cache"]);
        if let Some(namespace) = &self.namespace {
            parser = parser.args(["--namespace", namespace]);
        }
        parser.args([file.path()]).output()
    }

    /// Has the container read what the profile forbids; that it is that profile's is then proved.
    fn denies(&self, report: &Value) -> bool {
        let path = format!("text/~1denied-{}/error", self.name);
        report.pointer(&format!("/{path}")).is_some_and(|errno| errno == "EACCES")
    }

    /// Sections of the probe that show the label and what is denied, of a container that has the file.
    fn sections(&self, container: &Container) -> String {
        fs::write(container.bundle.rootfs(&format!("denied-{}", self.name)), "secret").unwrap();
        format!("{CURRENT} text=/denied-{}", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let output = self.parser("--remove");
        assert!(output.code() == 0 || std::thread::panicking(), "{output}");
    }
}

#[test]
fn apparmor_profile_is_enforced() {
    needs_profiles!();
    let mut container = Container::new();
    let profile = Profile::load(container.id());
    let sections = profile.sections(&container);
    container.bundle.probe(&sections);
    let report = container.report();
    assert!(!profile.denies(&report), "{report:#}");
    for no_new_privileges in [true, false] {
        container
            .bundle
            .set("process/apparmorProfile", profile.name.as_str())
            .set("process/noNewPrivileges", no_new_privileges);
        let report = container.report();
        assert_eq!(label(&report), format!("{} (enforce)", profile.name));
        assert!(profile.denies(&report), "{report:#}");
    }
}

#[test]
fn apparmor_profile_is_enforced_in_a_user_namespace_and_for_a_user() {
    needs_profiles!();
    let mut container = Container::new();
    let profile = Profile::load(container.id());
    let sections = profile.sections(&container);
    container.bundle.probe(&sections).user_namespace(100_000, 65536);
    container
        .bundle
        .set("process/apparmorProfile", profile.name.as_str())
        .set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    let report = container.report();
    assert_eq!(label(&report), format!("{} (enforce)", profile.name));
    assert!(profile.denies(&report), "{report:#}");
}

#[test]
fn apparmor_profile_is_set_before_a_filter_could_forbid_it() {
    needs_profiles!();
    if !is_creel() {
        skip!("runc needs these calls itself");
    }
    let mut container = Container::new();
    let profile = Profile::load(container.id());
    container.bundle.probe(CURRENT).set("process/apparmorProfile", profile.name.as_str());
    let denied = json!({ "names": ["openat2", "fstatfs"], "action": "SCMP_ACT_ERRNO" });
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied] }));
    for no_new_privileges in [true, false] {
        container.bundle.set("process/noNewPrivileges", no_new_privileges);
        assert_eq!(label(&container.report()), format!("{} (enforce)", profile.name));
    }
}

#[test]
fn apparmor_unconfined_is_a_profile_too() {
    needs_apparmor!();
    let mut container = Container::new();
    container.bundle.set("process/apparmorProfile", "unconfined").probe(CURRENT);
    assert_eq!(label(&container.report()), "unconfined");
}

#[test]
fn apparmor_profile_of_exec_is_the_containers_or_the_one_asked_for() {
    needs_profiles!();
    let mut container = Container::idle();
    let own = Profile::load(container.id());
    let other = Profile::load(&format!("{}-other", container.id()));
    container.bundle.set("process/apparmorProfile", own.name.as_str());
    container.run_detached();
    container.wait_file("ready");
    let enforced = |profile: &Profile| format!("{} (enforce)", profile.name);
    assert_eq!(label_of(&container), enforced(&own));
    let sections = own.sections(&container);
    let report = container.exec_seen(&[], &sections);
    assert_eq!(label(&report), enforced(&own));
    assert!(own.denies(&report), "{report:#}");
    let sections = other.sections(&container);
    let report = container.exec_seen(&["--apparmor", &other.name], &sections);
    assert_eq!(label(&report), enforced(&other));
    assert!(other.denies(&report), "{report:#}");

    let process = |profile: Option<&str>| {
        let mut process = container.bundle.config["process"].clone();
        process["args"] = json!(["/bin/probe", CURRENT]);
        process["apparmorProfile"] = json!(profile.unwrap_or_default());
        let file = container.scratch().file("process.json", process.to_string());
        let output = container.cmd(["exec", "--process", file.to_str().unwrap(), container.id()]).output();
        label(&output.ok().json()).to_owned()
    };
    // runc leaves it unconfined.
    if is_creel() {
        assert_eq!(process(None), enforced(&own));
    }
    assert_eq!(process(Some(&other.name)), enforced(&other));
}

#[test]
fn apparmor_profile_of_exec_in_a_user_namespace_is_the_one_asked_for() {
    needs_profiles!();
    let mut container = Container::idle();
    container.bundle.user_namespace(100_000, 65536);
    let profile = Profile::load(container.id());
    container.run_detached();
    container.wait_file("ready");
    let report = container.exec_seen(&["--apparmor", &profile.name], CURRENT);
    assert_eq!(label(&report), format!("{} (enforce)", profile.name));
}

#[test]
fn apparmor_profile_that_is_not_loaded_is_an_error_that_leaves_nothing() {
    needs_apparmor!();
    let mut container = Container::idle();
    container.bundle.set("process/apparmorProfile", "creel-no-such-profile");
    container.create_fails().says(&["apparmor failed to apply profile"]).creel_says(&[
        ".process.apparmorProfile: init: ",
        "creel-no-such-profile",
        "ENOENT",
        "the profile is not loaded",
    ]);
    let container = Container::idle();
    container.run_detached();
    let output = container.exec(&["--apparmor", "creel-no-such-profile"], &["true"]).output().exits(255);
    output.creel_says(&[".process.apparmorProfile: exec: ", "the profile is not loaded"]);
    container.exec(&[], &["true"]).output().ok();
}

#[test]
fn apparmor_profile_is_stacked_on_that_of_a_confined_runtime() {
    needs_profiles!();
    if !is_creel() {
        skip!("runc cannot change a profile with no_new_privs");
    }
    let mut container = Container::new();
    let runtimes = Profile::load(&format!("{}-runtime", container.id()));
    let profile = Profile::load(container.id());
    let sections = format!("{} text=/denied-{}", profile.sections(&container), runtimes.name);
    fs::write(container.bundle.rootfs(&format!("denied-{}", runtimes.name)), "secret").unwrap();
    container.bundle.probe(&sections).set("process/apparmorProfile", profile.name.as_str());
    let confined = |container: &Container| {
        let run = container.call("run", &[]).behind(["aa-exec", "-p", &runtimes.name, "--"]);
        run.output().ok().json()
    };
    let report = confined(&container);
    assert!(label(&report).contains("//&"), "{report:#}");
    assert!(profile.denies(&report) && runtimes.denies(&report), "{report:#}");

    container.bundle.set("process/noNewPrivileges", false);
    let report = confined(&container);
    assert_eq!(label(&report), format!("{} (enforce)", profile.name));
    assert!(profile.denies(&report) && !runtimes.denies(&report), "{report:#}");
}

#[test]
fn apparmor_profile_of_a_policy_namespace_is_taken_from_inside_and_outside() {
    needs_profiles!();
    let mut container = Container::new();
    let namespaces = Path::new("/sys/kernel/security/apparmor/policy/namespaces");
    let namespace = format!("{}-ns", container.id());
    if fs::create_dir(namespaces.join(&namespace)).is_err() {
        skip!("no namespace of AppArmor's can be made");
    }
    let outer = Profile::load(&format!("{}-outer", container.id()));
    let inner = Profile::load_in(container.id(), Some(&namespace));
    let sections = inner.sections(&container);
    container.bundle.probe(&sections).set("process/apparmorProfile", format!(":{namespace}:{}", inner.name));
    let report = container.report();
    assert!(inner.denies(&report), "{report:#}");

    // As in an LXD container: confined by the host, unconfined in a namespace of its own.
    container.bundle.set("process/apparmorProfile", inner.name.as_str());
    let stack = format!("{}//&:{namespace}:unconfined", outer.name);
    let report = container.call("run", &[]).behind(["aa-exec", "-p", &stack, "--"]).output().ok().json();
    assert!(inner.denies(&report), "{report:#}");
    drop(inner);
    fs::remove_dir(namespaces.join(&namespace)).unwrap();
}

#[test]
fn apparmor_profile_is_never_written_to_a_fake_proc() {
    // CVE-2019-16884, CVE-2019-19921, CVE-2023-28642, CVE-2025-52881: the image brings a /proc of its own.
    needs_profiles!();
    if !is_creel() {
        skip!("runc runs nothing without a procfs");
    }
    let mut container = Container::idle();
    let profile = Profile::load(container.id());
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
    let mut baits = Vec::new();
    for process in ["self", "thread-self", "1"] {
        for file in ["attr/exec", "attr/apparmor/exec", "attr/current", "attr/apparmor/current"] {
            let bait = container.bundle.rootfs(&format!("proc/{process}/{file}"));
            fs::create_dir_all(bait.parent().unwrap()).unwrap();
            fs::write(&bait, "bait").unwrap();
            baits.push(bait);
        }
    }
    container.bundle.set("process/apparmorProfile", profile.name.as_str());
    container.call("run", &["--detach"]).output();
    container.wait_file("ready");
    assert_eq!(label_of(&container), format!("{} (enforce)", profile.name));
    // By another profile, of the process that joins; it tells by the path that only this one denies.
    let other = Profile::load(&format!("{}-other", container.id()));
    let denied = format!("/denied-{}", other.name);
    fs::write(container.bundle.rootfs(&denied), "secret").unwrap();
    container.exec(&[], &["cat", &denied]).output().ok();
    let output = container.exec(&["--apparmor", &other.name], &["cat", &denied]).output();
    assert_ne!(output.code(), 0, "{output}");

    // The same /proc by way of the mount namespace.
    let mut second = Container::idle();
    let mount = format!("/proc/{}/ns/mnt", container.init().pid());
    second.bundle.namespace("mount", Some(&mount)).set("mounts", json!([]));
    second.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
    second.bundle.set("root/path", "/").set("process/apparmorProfile", other.name.as_str());
    second.call("run", &["--detach"]).output();
    assert_eq!(label_of(&second), format!("{} (enforce)", other.name));
    for bait in baits {
        assert_eq!(fs::read_to_string(&bait).unwrap(), "bait", "{}", bait.display());
    }
    drop(second);
}

/// A context that the loaded policy knows; its categories are told apart.
fn context(role: &str, kind: &str, categories: &str) -> String {
    format!("system_u:{role}:{kind}:s0:{categories}")
}

fn process_context(categories: &str) -> String {
    context("system_r", "container_t", categories)
}

fn file_context() -> String {
    context("object_r", "container_file_t", "c1,c2")
}

/// Gives a file, and all below a directory, an SELinux context, as engines do.
fn relabel(path: &Path, context: &str) {
    lsetxattr(path, "security.selinux", context.as_bytes(), XattrFlags::empty()).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            relabel(&entry.unwrap().path(), context);
        }
    }
}

/// Makes what a container is made of usable with any categories; a process of [`process_context`] can execute
/// and read little else.
fn shared(container: &mut Container) {
    let context = "system_u:object_r:container_file_t:s0";
    container.bundle.set("linux/mountLabel", context);
    relabel(&container.bundle.rootfs(""), context);
}

#[test]
fn selinux_label_is_that_of_the_process() {
    needs_selinux!();
    let mut container = Container::new();
    for no_new_privileges in [true, false] {
        container
            .bundle
            .set("process/selinuxLabel", process_context("c1,c2"))
            .set("process/noNewPrivileges", no_new_privileges)
            .probe(CURRENT);
        shared(&mut container);
        assert_eq!(label(&container.report()), process_context("c1,c2"));
    }
    container.bundle.user_namespace(100_000, 65536);
    assert_eq!(label(&container.report()), process_context("c1,c2"));
}

#[test]
fn selinux_label_is_enforced() {
    needs_selinux!();
    if fs::read_to_string("/sys/fs/selinux/enforce").unwrap() != "1" {
        skip!("SELinux is permissive");
    }
    let mut container = Container::new();
    container
        .bundle
        .set("process/selinuxLabel", process_context("c1,c2"))
        .set("linux/mountLabel", file_context());
    for name in ["own", "other"] {
        fs::write(container.bundle.rootfs(name), name).unwrap();
    }
    container.bundle.probe("text=/own text=/other");
    relabel(&container.bundle.rootfs(""), &file_context());
    relabel(&container.bundle.rootfs("other"), &context("object_r", "container_file_t", "c3,c4"));
    let report = container.report();
    assert_eq!(probe::text(&report, "text/~1own"), "own");
    assert_eq!(report.pointer("/text/~1other/error").unwrap(), "EACCES", "{report:#}");
}

#[test]
fn selinux_label_of_exec_is_the_containers_or_the_one_asked_for() {
    needs_selinux!();
    for user_namespace in [false, true] {
        let mut container = Container::idle();
        container.bundle.set("process/selinuxLabel", process_context("c1,c2"));
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        shared(&mut container);
        container.run_detached();
        container.wait_file("ready");
        assert_eq!(label_of(&container), process_context("c1,c2"));
        assert_eq!(label(&container.exec_seen(&[], CURRENT)), process_context("c1,c2"));
        let other = process_context("c3,c4");
        assert_eq!(label(&container.exec_seen(&["--process-label", &other], CURRENT)), other);
    }
}

#[test]
fn selinux_label_that_the_policy_does_not_know_is_an_error_that_leaves_nothing() {
    needs_selinux!();
    let wrong = "system_u:system_r:creel_no_such_type_t:s0";
    let mut container = Container::idle();
    container.bundle.set("process/selinuxLabel", wrong);
    container.create_fails().creel_says(&[".process.selinuxLabel: init: ", wrong, "EINVAL"]);
    let mut container = Container::idle();
    container.bundle.set("linux/mountLabel", wrong);
    container.create_fails().creel_says(&[".mounts[1]: init: ", wrong, "EINVAL"]);
}

#[test]
fn selinux_mount_label_is_the_context_of_what_is_mounted() {
    needs_selinux!();
    if !is_creel() {
        skip!("runc hands over both contexts of a mount that has its own");
    }
    let mut container = Container::new();
    container.bundle.set("linux/mountLabel", file_context());
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    container.bundle.mount(
        "/own",
        "tmpfs",
        "tmpfs",
        &[&format!("context=\"{}\"", context("object_r", "tmp_t", "c7,c8"))],
    );
    container.bundle.set("linux/maskedPaths/-", "/sys/fs/selinux");
    let report = container.seen("mounts text=/proc/mounts");
    let mounts = probe::text(&report, "text/~1proc~1mounts");
    let options = |target: &str| {
        let line = mounts.lines().rev().find(|line| line.split(' ').nth(1) == Some(target));
        line.unwrap_or_else(|| panic!("{target}: {mounts}")).split(' ').nth(3).unwrap().to_owned()
    };
    let context = format!("context=\"{}\"", file_context());
    for target in ["/dev", "/dev/pts", "/dev/shm"] {
        assert!(options(target).contains(&context), "{target}: {mounts}");
    }
    for target in ["/proc", "/sys", "/dev/mqueue"] {
        assert!(!options(target).contains("context="), "{target}: {mounts}");
    }
    assert!(options("/own").contains("tmp_t:s0:c7,c8"), "{mounts}");
}

#[test]
fn selinux_mount_label_is_on_masks_and_the_queue_file_system() {
    needs_selinux!();
    let mut container = Container::idle();
    container.bundle.set("linux/mountLabel", file_context()).set("linux/maskedPaths", json!(["/sys/kernel"]));
    container.run_detached();
    container.wait_file("ready");
    let label = |path: &str| {
        let path = format!("/proc/{}/root{path}", container.init().pid());
        let mut value = [0u8; 256];
        let length = rustix::fs::getxattr(&path, "security.selinux", &mut value).unwrap();
        String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned()
    };
    for path in ["/sys/kernel", "/dev/mqueue", "/dev/null", "/dev/pts/ptmx"] {
        assert_eq!(label(path), file_context(), "{path}");
    }
}

#[test]
fn selinux_mount_label_survives_what_only_mount_2_can_take_and_is_on_what_is_added_later() {
    needs_selinux!();
    if !is_creel() {
        skip!("runc has no mounts command");
    }
    let mut container = Container::idle();
    let lower = ["a", "b"].map(|name| container.scratch().dir(&name.repeat(150)).display().to_string());
    container.bundle.set("linux/mountLabel", file_context());
    container.bundle.mount("/mnt", "overlay", "overlay", &["ro", &format!("lowerdir={}", lower.join(":"))]);
    container.bundle.mount("/tmp", "tmpfs", "tmpfs", &["tmpcopyup"]);
    container.run_detached();
    container.wait_file("ready");
    let added = json!([{ "destination": "/added", "type": "tmpfs", "source": "tmpfs" }]);
    let file = container.scratch().file("mounts.json", added.to_string());
    container.cmd(["mounts", "add", container.id(), file.to_str().unwrap()]).output().ok();
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", container.init().pid())).unwrap();
    let context = format!("context=\"{}\"", file_context());
    for target in ["/mnt", "/tmp", "/added"] {
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(target));
        assert!(line.is_some_and(|line| line.contains(&context)), "{target}: {mounts}");
    }
}

#[test]
fn selinux_mount_context_type_is_that_of_the_annotation() {
    needs_selinux!();
    if !is_creel() {
        skip!("annotations of crun's");
    }
    let mut container = Container::new();
    container.bundle.set("linux/mountLabel", file_context());
    container.bundle.set("annotations/run.oci.mount_context_type", "rootcontext");
    let report = container.seen("text=/proc/mounts");
    let mounts = probe::text(&report, "text/~1proc~1mounts");
    let shm = mounts.lines().find(|line| line.contains(" /dev/shm ")).unwrap();
    assert!(shm.contains(&format!("rootcontext=\"{}\"", file_context())), "{mounts}");
}

#[test]
fn selinux_label_is_on_the_session_keyring() {
    needs_selinux!();
    const KEYCTL: &str = "/usr/bin/keyctl";
    if !Path::new(KEYCTL).exists() {
        skip!("no keyctl, from keyutils");
    }
    for user_namespace in [false, true] {
        let mut container = Container::idle();
        container.bundle.set("process/selinuxLabel", process_context("c4,c5"));
        for dir in ["/usr", "/lib", "/lib64"].into_iter().filter(|dir| Path::new(dir).exists()) {
            container.bundle.mount(dir, "bind", dir, &["rbind", "ro"]);
        }
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        shared(&mut container);
        container.run_detached();
        container.wait_file("ready");
        let keyring = |flags: &[&str]| {
            let script = format!("{KEYCTL} rdescribe @s; {KEYCTL} security @s");
            container.exec(flags, &["/bin/sh", "-c", &script]).output().ok().stdout
        };
        // Categories that include those of the keyring, which could not be seen otherwise.
        let other = process_context("c4,c5,c6");
        // In a user namespace runc's exec does not find the container's keyring and makes one.
        let flags: &[&[&str]] = if is_creel() { &[&[], &["--process-label", &other]] } else { &[&[]] };
        for flags in flags {
            let text = keyring(flags);
            assert!(text.contains(&format!("_ses.{}", container.id())), "{text}");
            assert!(text.contains(&process_context("c4,c5")), "{text}");
        }
    }
}

#[test]
fn a_label_without_its_security_module_is_an_error() {
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let on = [
        ("apparmorProfile", "--apparmor", apparmor.is_ok_and(|text| text.starts_with('Y'))),
        ("selinuxLabel", "--process-label", Path::new("/sys/fs/selinux/enforce").exists()),
    ];
    let running = Container::idle();
    running.run_detached();
    for (field, flag, _) in on.into_iter().filter(|(_, _, on)| !on) {
        let mut container = Container::idle();
        container.bundle.set(&format!("process/{field}"), "system_u:system_r:container_t:s0");
        let words = [&format!(".process.{field}: "), "is disabled or not supported"];
        container.create_fails().creel_says(&words);
        let exec = running.exec(&[flag, "system_u:system_r:container_t:s0"], &["true"]).output();
        exec.exits(255).creel_says(&words);
    }
}

#[test]
fn a_mount_label_without_selinux_is_only_warned_of() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("SELinux is on");
    }
    if !is_creel() {
        skip!("runc fails to mount");
    }
    let mut container = Container::new();
    container.bundle.set("linux/mountLabel", file_context());
    container.run().ok().says(&[".linux.mountLabel", "SELinux is off"]);
}
