//! checkpoint and restore before a stand-in for CRIU: what is asked for, and what comes of its answers.
//! [`crate::criu`] has the real one.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use creel_integration::sockets::FdSocket;
use creel_integration::{Cmd, Container, cgroups, is_creel, needs_root, probe, skip, wait};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

/// A container, and the directory of the `criu` that its runtime finds.
fn with_fake(container: Container) -> Container {
    let bin = container.scratch().dir("criu");
    symlink(probe::fake_criu(), bin.join("criu")).unwrap();
    container
}

fn idle() -> Container {
    let container = with_fake(Container::idle());
    container.run_detached();
    container
}

/// `COMMAND FLAGS... ID` with the stand-in in front of PATH.
fn call(container: &Container, command: &str, flags: &[&str]) -> Cmd {
    let dir = container.scratch().join("criu");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    container.call(command, flags).env("PATH", path).env("FAKE_CRIU_DIR", &dir)
}

/// What was asked for: the options by field number, and what CRIU found around it.
fn noted(container: &Container, kind: &str) -> Value {
    let text = std::fs::read(container.scratch().join(format!("criu/{kind}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn asked(container: &Container, kind: &str) -> Value {
    noted(container, kind)["asked"].clone()
}

/// A dump after which the container goes on, and what it asked for.
fn dumped(container: &Container, flags: &[&str]) -> Value {
    call(container, "checkpoint", &[&["--leave-running"], flags].concat()).output().ok();
    asked(container, "dump")
}

/// The pairs of a field that maps texts to texts.
fn pairs(options: &Value, field: &str) -> Vec<(String, String)> {
    let all = options[field].as_array().cloned().unwrap_or_default();
    let text = |pair: &Value, n: &str| pair[n][0].as_str().unwrap_or_default().to_owned();
    all.iter().map(|pair| (text(pair, "1"), text(pair, "2"))).collect()
}

#[test]
fn every_flag_of_checkpoint_reaches_criu() {
    let container = idle();
    let plain = dumped(&container, &[]);
    let pid = container.state()["pid"].clone();
    let rootfs = container.bundle.rootfs("/").canonicalize().unwrap();
    for (field, value) in [
        ("2", pid),
        ("3", json!(1)),                         // leave_running
        ("4", json!(0)),                         // ext_unix_sk
        ("5", json!(0)),                         // tcp_established
        ("7", json!(0)),                         // shell_job
        ("8", json!(0)),                         // file_locks
        ("9", json!(4)),                         // log_level
        ("10", json!("dump.log")),               // log_file
        ("12", json!(1)),                        // notify_scripts
        ("13", json!(rootfs.to_str().unwrap())), // root
        ("16", json!(0)),                        // auto_dedup
        ("18", json!(0)),                        // link_remap
        ("24", json!(1)),                        // manage_cgroups
        ("34", json!(6)),                        // manage_cgroups_mode: default
        ("38", json!(0x4000_0000)),              // empty_ns: network
        ("46", json!(0)),                        // tcp_skip_in_flight
        ("48", json!(0)),                        // lazy_pages
        ("50", json!(1)),                        // orphan_pts_master
        ("51", json!("/etc/criu/runc.conf")),    // config_file
    ] {
        assert_eq!(plain[field], json!([value]), "field {field} of {plain:#}");
    }
    for (flags, field, value) in [
        (&["--ext-unix-sk"][..], "4", json!(1)),
        (&["--tcp-established"], "5", json!(1)),
        (&["--shell-job"], "7", json!(1)),
        (&["--file-locks"], "8", json!(1)),
        (&["--auto-dedup"], "16", json!(1)),
        (&["--link-remap"], "18", json!(1)),
        (&["--tcp-skip-in-flight"], "46", json!(1)),
        (&["--lazy-pages"], "48", json!(1)),
        (&["--manage-cgroups-mode", "ignore"], "34", json!(0)),
        (&["--manage-cgroups-mode", "soft"], "34", json!(3)),
        (&["--manage-cgroups-mode=full"], "34", json!(4)),
        (&["--manage-cgroups-mode", "strict"], "34", json!(5)),
        (&["--empty-ns", "network"], "38", json!(0x4000_0000)),
        (&["--page-server", "10.1.2.3:27"], "11", json!({ "1": ["10.1.2.3"], "2": [27] })),
    ] {
        let options = dumped(&container, flags);
        assert_eq!(options[field], json!([value]), "{flags:?}");
    }
    if is_creel() {
        assert_eq!(dumped(&container, &["--network-lock", "skip"])["64"], json!([3]));
    }
    assert_eq!(container.status(), "running");
    container.stop_and_delete();
}

#[test]
fn freezer_and_cgroups_are_the_containers() {
    let container = idle();
    let options = dumped(&container, &[]);
    match container.cgroup_dir("freezer") {
        Some(dir) => assert_eq!(options["44"][0], dir.to_str().unwrap()),
        None if cgroups::is_v2() => {
            assert!(options["44"][0].as_str().unwrap().ends_with(&container.cgroup()));
        }
        None => assert!(options["44"].is_null()),
    }
    container.stop_and_delete();
}

#[test]
fn images_and_logs_go_where_they_are_asked_to() {
    let container = idle();
    let (images, work) = (container.scratch().join("a/images"), container.scratch().join("work"));
    dumped(&container, &["--image-path", images.to_str().unwrap(), "--work-path", work.to_str().unwrap()]);
    assert!(images.join("inventory.img").exists());
    let descriptors = std::fs::read_to_string(images.join("descriptors.json")).unwrap();
    assert!(descriptors.starts_with("[\"/dev/null\","), "{descriptors}");
    assert!(work.is_dir());
    // Beside the caller without a flag.
    dumped(&container, &[]);
    assert!(container.bundle.dir().join("checkpoint/inventory.img").exists());
    container.stop_and_delete();
}

#[test]
fn pre_dump_and_its_parent_track_memory() {
    let container = idle();
    let dir = |name: &str| container.scratch().join(name).to_str().unwrap().to_owned();
    call(&container, "checkpoint", &["--pre-dump", "--image-path", &dir("one")]).output().ok();
    assert_eq!(container.status(), "running");
    assert_eq!(asked(&container, "features")["5"][0]["1"], json!([1]));
    let options = asked(&container, "pre-dump");
    assert!(options["23"].is_null() && options["14"].is_null(), "{options:#}");
    let options = dumped(&container, &["--image-path", &dir("two"), "--parent-path", "../one"]);
    assert_eq!((&options["14"], &options["15"]), (&json!(["../one"]), &json!([1])));
    for bad in [dir("one").as_str(), "../none"] {
        let flags = ["--image-path", &dir("two"), "--parent-path", bad];
        call(&container, "checkpoint", &flags).output().exits(1).says(&["--parent-path"]);
    }
    let mut pre_dump = call(&container, "checkpoint", &["--pre-dump"]).env("FAKE_CRIU_HOW", "no-features");
    pre_dump = pre_dump.env("LC_ALL", "C");
    pre_dump.output().exits(1).creel_says(&["memory tracking (--pre-dump, mem_dirty_track)"]);
    assert_eq!(container.status(), "running");
    container.stop_and_delete();
}

#[test]
fn what_is_bound_from_the_host_is_external() {
    let mut container = with_fake(Container::idle());
    let data = container.scratch().dir("data");
    container.scratch().file("file", "text");
    let scratch = container.scratch().path().to_str().unwrap().to_owned();
    std::fs::create_dir_all(container.bundle.rootfs("real/conf")).unwrap();
    symlink("/real/conf", container.bundle.rootfs("conf")).unwrap();
    container.bundle.mount("/conf", "bind", data.to_str().unwrap(), &["bind"]);
    container.bundle.mount("/etc/file", "bind", &format!("{scratch}/file"), &["bind", "ro"]);
    container.bundle.mount("/conf/below/it", "bind", data.to_str().unwrap(), &["bind"]);
    container.run_detached();
    let external = pairs(&dumped(&container, &[]), "23");
    for (key, name) in [("/real/conf", "/real/conf"), ("/etc/file", "/etc/file"), ("/proc/keys", "/dev/null")]
    {
        assert!(external.contains(&(key.into(), name.into())), "{key} in {external:?}");
    }
    // A masked directory is a tmpfs, and no part of the host.
    assert!(external.iter().all(|(key, _)| key != "/proc/acpi"), "{external:?}");
    if is_creel() {
        // Mounted at its real place, known by the place that the host sees.
        let nested = external.iter().find(|(key, _)| key == "/real/conf/below/it");
        assert!(nested.is_some(), "{external:?}");
    }
    container.stop_and_delete();
}

#[test]
fn namespaces_given_by_path_stay_outside_of_the_images() {
    needs_root!("may make a network namespace alone");
    let mut container = with_fake(Container::idle());
    let holder = Cmd::new("unshare").args(["--net", "--", "sh", "-c", "echo made; exec sleep 1000"]).spawn();
    wait::until("the namespace is made", || holder.stdout_so_far() == "made\n");
    let path = format!("/proc/{}/ns/net", holder.pid());
    container.bundle.namespace("network", Some(&path));
    container.run_detached();
    let inode = std::fs::read_link(&path).unwrap().to_string_lossy().replace("net:[", "").replace(']', "");
    let options = dumped(&container, &[]);
    assert_eq!(options["37"], json!([format!("net[{inode}]:extRootNetNS")]));
    if is_creel() {
        let old = call(&container, "checkpoint", &[]).env("FAKE_CRIU_VERSION", "31000");
        old.output().exits(1).creel_says(&["is CRIU 3.10, too old", "network namespace", "needs 3.11"]);
    }
    call(&container, "checkpoint", &[]).output().ok();
    call(&container, "restore", &["--detach"]).output().ok();
    let note = noted(&container, "restore");
    assert_eq!(note["asked"]["27"][0]["1"][0], "extRootNetNS");
    assert_eq!(note["around"]["inherited"][0], format!("net:[{inode}]"));
    container.stop_and_delete();
    holder.signal(rustix::process::Signal::KILL);
    holder.output();
}

#[test]
fn annotation_names_crius_configuration() {
    for (annotation, expected) in [("/etc/other.conf", json!(["/etc/other.conf"])), ("", Value::Null)] {
        let mut container = with_fake(Container::idle());
        container.bundle.set("annotations", json!({ "org.criu.config": annotation }));
        container.run_detached();
        assert_eq!(dumped(&container, &[])["51"], expected);
        container.stop_and_delete();
    }
}

#[test]
fn saved_container_is_gone_and_its_poststop_hooks_have_run() {
    let mut container = with_fake(Container::idle());
    let seen = container.scratch().join("poststop");
    let script = format!("cat > {}", seen.display());
    container.bundle.set("hooks/poststop/-", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    container.run_detached();
    let output = call(&container, "checkpoint", &[]).output().ok();
    container.assert_clean(&output);
    let state: Value = serde_json::from_slice(&std::fs::read(seen).unwrap()).unwrap();
    assert_eq!(state["status"], "stopped");
}

#[test]
fn status_decides_what_can_be_saved() {
    let container = with_fake(Container::idle());
    container.create();
    call(&container, "checkpoint", &[]).output().exits(1).says(&["be checkpointed in created state"]);
    container.start();
    if !cgroups::is_v2() && cgroups::mount("freezer").is_none() {
        skip!("no freezer");
    }
    container.call("pause", &[]).output().ok();
    dumped(&container, &[]);
    assert_eq!(container.status(), "paused");
    container.call("resume", &[]).output().ok();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    call(&container, "checkpoint", &[]).output().exits(1).says(&["be checkpointed in stopped state"]);
    container.delete();
    call(&container, "checkpoint", &[]).output().exits(1).says(&["container does not exist"]);
}

#[test]
fn status_descriptor_gets_a_nul_and_an_end_when_pages_can_be_asked_for() {
    let container = idle();
    let (read, write) = pipe_with(PipeFlags::empty()).unwrap();
    let flags = ["--leave-running", "--lazy-pages", "--status-fd", "9"];
    let lazy =
        call(&container, "checkpoint", &flags).stdin(write).through_shell("exec \"$@\" 9<&0 0</dev/null");
    lazy.output().ok();
    assert_eq!(wait::read_to_end(read), [0]);
    if is_creel() {
        // An older CRIU writes to it itself.
        let (_read, write) = pipe_with(PipeFlags::empty()).unwrap();
        let old = call(&container, "checkpoint", &flags).env("FAKE_CRIU_VERSION", "31400").stdin(write);
        old.through_shell("exec \"$@\" 9<&0 0</dev/null").output().ok();
        assert_eq!(asked(&container, "dump")["49"], json!([9]));
    }
    let read_only = call(&container, "checkpoint", &flags).through_shell("exec \"$@\" 9</dev/null");
    read_only.output().exits(1).says(&["invalid --status-fd", "not writable"]);
    call(&container, "checkpoint", &flags).output().exits(1).says(&["invalid --status-fd"]);
    container.stop_and_delete();
}

#[test]
fn failures_of_criu_say_why_and_leave_the_container_alone() {
    let container = idle();
    let work = container.scratch().join("work");
    let flags = ["--work-path", work.to_str().unwrap()];
    let log = work.join("dump.log");
    let fails = |how: &str, words: &[&str]| {
        let command = call(&container, "checkpoint", &flags).env("FAKE_CRIU_HOW", how);
        command.output().exits(1).creel_says(words);
        assert_eq!(container.status(), "running", "{how}");
        std::fs::remove_file(&log).ok();
    };
    fails("refuse", &["dump failed: fake: it must not be; see ", log.to_str().unwrap()]);
    fails("unfit", &["dump failed: vdso: unknown shape; CRIU 4.2 does not fit kernel ", "dump.log"]);
    fails("silent", &["dump failed: EBADE"]);
    fails("die", &["dump: it ended without an answer"]);
    fails("garbage", &["dump: an answer that cannot be read"]);
    let old = call(&container, "checkpoint", &[]).env("FAKE_CRIU_VERSION", "21200");
    old.output().exits(1).creel_says(&["is CRIU 2.12, too old: creel needs 3.0 or newer"]);
    let none = call(&container, "checkpoint", &[]).env("PATH", "/nowhere");
    none.output().exits(1).says(&["criu", "executable file not found in $PATH"]);
    for flags in [
        &["--manage-cgroups-mode", "props"][..],
        &["--empty-ns", "pid"],
        &["--page-server", "here"],
        &["--page-server", "here:there"],
    ] {
        call(&container, "checkpoint", flags).output().exits(1);
    }
    assert_eq!(container.status(), "running");
    container.stop_and_delete();
}

/// A container that was saved: its images are there, it is not.
fn saved(container: Container) -> Container {
    container.run_detached();
    container.wait_file("ready");
    call(&container, "checkpoint", &[]).output().ok();
    container
}

#[test]
fn restored_container_is_running_and_has_all_that_create_makes() {
    needs_root!("may have CRIU restore");
    let mut container = with_fake(Container::idle());
    let data = container.scratch().dir("data");
    container.bundle.mount("/data/deep", "bind", data.to_str().unwrap(), &["bind"]);
    let hook = container.scratch().join("hook");
    let script = format!("cat > {}", hook.display());
    container.bundle.set("hooks/prestart/-", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    let container = saved(container);
    std::fs::remove_file(&hook).unwrap();
    // The mount point is made again.
    std::fs::remove_dir_all(container.bundle.rootfs("data")).unwrap();
    let pid_file = container.scratch().join("pid");
    call(&container, "restore", &["--detach", "--pid-file", pid_file.to_str().unwrap()]).output().ok();
    let state = container.state();
    assert_eq!(state["status"], "running");
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());
    let told: Value = serde_json::from_slice(&std::fs::read(hook).unwrap()).unwrap();
    assert_eq!((&told["pid"], &told["id"]), (&state["pid"], &state["id"]));
    assert!(container.bundle.rootfs("data/deep").is_dir());

    let note = noted(&container, "restore");
    let options = &note["asked"];
    for (field, value) in [("6", 1), ("26", 1), ("50", 1), ("12", 1)] {
        assert_eq!(options[field], json!([value]), "field {field}");
    }
    assert_eq!(options["10"], json!(["restore.log"]));
    // The root is a mount that nobody else sees, and so is what is bound.
    let root = options["13"][0].as_str().unwrap();
    assert!(note["around"]["mounts"].as_array().unwrap().contains(&json!(root)), "{note:#}");
    assert!(note["around"]["root"].as_array().unwrap().contains(&json!("bin")), "{note:#}");
    assert!(!std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(root));
    let external = pairs(options, "23");
    assert!(external.contains(&("/dev/null".into(), "/dev/null".into())), "{external:?}");
    assert!(external.iter().any(|(name, _)| name == "/data/deep"), "{external:?}");
    // CRIU is where the container will be, and told so.
    let cgroup = note["around"]["cgroup"].as_str().unwrap();
    let roots = pairs(options, "25");
    if let Some(line) = cgroup.lines().find(|line| line.contains(":pids:") || line.starts_with("0::")) {
        assert!(line.ends_with(&container.cgroup()), "{cgroup}");
        let path = line.rsplit(':').next().unwrap();
        assert!(roots.iter().any(|(_, root)| root == path), "{roots:?}");
    }
    container.stop_and_delete();
}

#[test]
fn every_flag_of_restore_reaches_criu() {
    needs_root!("may have CRIU restore");
    let container = saved(with_fake(Container::idle()));
    for (flags, field, value) in [
        (&["--ext-unix-sk"][..], "4", json!(1)),
        (&["--tcp-established"], "5", json!(1)),
        (&["--shell-job"], "7", json!(1)),
        (&["--file-locks"], "8", json!(1)),
        (&["--auto-dedup"], "16", json!(1)),
        (&["--lazy-pages"], "48", json!(1)),
        (&["--manage-cgroups-mode", "ignore"], "34", json!(0)),
        (&["--empty-ns=network"], "38", json!(0x4000_0000)),
        (&["--lsm-profile", "apparmor:x"], "53", json!("apparmor:x")),
        (&["--lsm-mount-context", "a:b"], "63", json!("a:b")),
        (&["--no-subreaper"], "26", json!(1)),
        (&["--no-pivot"], "26", json!(1)),
    ] {
        call(&container, "restore", &[&["-d"], flags].concat()).output().ok();
        assert_eq!(asked(&container, "restore")[field], json!([value]), "{flags:?}");
        container.stop_and_delete();
    }
    if is_creel() {
        call(&container, "restore", &["-d", "--tcp-close"]).output().ok();
        assert_eq!(asked(&container, "restore")["52"], json!([1]));
        container.stop_and_delete();
    }
    let old = call(&container, "restore", &["-d", "--lsm-profile", "apparmor:x"]);
    let output = old.env("FAKE_CRIU_VERSION", "31500").output().exits(1).says(&["--lsm-profile", "3.16"]);
    container.assert_clean(&output);
}

#[test]
fn pipes_of_the_saved_container_become_the_callers() {
    needs_root!("may have CRIU restore");
    let container = with_fake(Container::idle());
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let null = || std::fs::File::open("/dev/null").unwrap();
    container.call("run", &["-d"]).spawn_with(write, null()).output().ok();
    let pipe = std::fs::read_link(format!("/proc/{}/fd/1", container.state()["pid"])).unwrap();
    call(&container, "checkpoint", &[]).output().ok();
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let own = creel_link(&write);
    call(&container, "restore", &["-d"]).spawn_with(write, null()).output().ok();
    let note = noted(&container, "restore");
    assert_eq!(note["asked"]["27"], json!([{ "1": [pipe.to_str().unwrap()], "2": [1] }]));
    assert_eq!(note["around"]["inherited"], json!([own]));
    container.stop_and_delete();
}

#[test]
fn pipe_of_the_containers_own_is_not_taken_for_the_callers() {
    let script = "sleep 1000 | sleep 1000 & until readlink /proc/$!/fd/0 | grep -q pipe; do :; done; \
        exec 0< /proc/$!/fd/0; touch /ready; while true; do sleep 100 & wait $!; done";
    let container = with_fake(Container::shell(script));
    container.run_detached();
    container.wait_file("/ready");
    let stdin = std::fs::read_link(format!("/proc/{}/fd/0", container.state()["pid"])).unwrap();
    assert!(stdin.to_str().unwrap().starts_with("pipe:"), "{stdin:?}");
    dumped(&container, &[]);
    let noted = container.bundle.dir().join("checkpoint/descriptors.json");
    let links: Value = serde_json::from_slice(&std::fs::read(noted).unwrap()).unwrap();
    assert_eq!(links[0], "/dev/null");
    container.stop_and_delete();
}

fn creel_link(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    link.to_string_lossy().into_owned()
}

#[test]
fn restored_container_in_the_foreground_gives_its_exit_code_and_is_deleted() {
    needs_root!("may have CRIU restore");
    let container = saved(with_fake(Container::idle()));
    let fifo = container.scratch().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let script = format!("read code < {}; exit $code", fifo.display());
    let running = call(&container, "restore", &[]).env("FAKE_CRIU_RESTORED", script).spawn();
    std::fs::write(fifo, "7\n").unwrap();
    let output = running.output().exits(7);
    container.assert_clean(&output);
}

#[test]
fn terminal_goes_to_the_console_socket() {
    needs_root!("may have CRIU restore");
    let mut container = with_fake(Container::idle());
    container.bundle.set("process/terminal", true);
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let path = socket.path().to_str().unwrap();
    let run = container.call("run", &["-d", "--console-socket", path]).spawn();
    let terminal = socket.receive();
    run.output().ok();
    call(&container, "checkpoint", &[]).output().ok();
    drop(terminal);
    call(&container, "restore", &["-d"]).output().exits(1).says(&["without setting console socket"]);
    let restore =
        call(&container, "restore", &["-d", "--console-socket", path]).env("FAKE_CRIU_TTY", "1").spawn();
    let terminal = socket.receive();
    restore.output().ok();
    assert_eq!(terminal.fds.len(), 1);
    assert!(rustix::termios::isatty(&terminal.fds[0]));
    assert_eq!(noted(&container, "restore")["around"]["stdin"], "/dev/null");
    container.stop_and_delete();
}

#[test]
fn failed_restore_leaves_nothing_behind() {
    needs_root!("may have CRIU restore");
    let mut container = with_fake(Container::idle());
    let data = container.scratch().dir("data");
    container.bundle.mount("/data", "bind", data.to_str().unwrap(), &["bind"]);
    let container = saved(container);
    for (how, words) in [
        ("refuse", &["restore failed: fake: it must not be; see ", "restore.log"][..]),
        ("die", &["restore: it ended without an answer"]),
        ("garbage", &["restore: an answer that cannot be read"]),
    ] {
        let output = call(&container, "restore", &["-d"]).env("FAKE_CRIU_HOW", how).output().exits(1);
        container.assert_clean(&output);
        output.creel_says(words);
        std::fs::remove_file(container.bundle.dir().join("checkpoint/restore.log")).ok();
    }
    // The container's own files were in reach of all that.
    assert!(container.bundle.rootfs("bin/busybox").exists() && data.exists());
    let output = call(&container, "restore", &["-d", "--image-path", "/nowhere/at/all"]).output().exits(1);
    container.assert_clean(&output);
    let none = call(&container, "restore", &["-d"]).env("PATH", "/nowhere").output().exits(1);
    container.assert_clean(&none.says(&["criu", "executable file not found in $PATH"]));
}

#[test]
fn failed_hook_ends_the_restore() {
    needs_root!("may have CRIU restore");
    let mut container = with_fake(Container::idle());
    let flag = container.scratch().join("fail");
    let script = format!("test ! -e {} || {{ echo no more >&2; exit 3; }}", flag.display());
    container.bundle.set("hooks/createRuntime/-", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    let container = saved(container);
    std::fs::write(&flag, "").unwrap();
    let output = call(&container, "restore", &["-d"]).output().exits(1);
    output.clone().creel_says(&[".hooks.createRuntime[0]", "no more"]);
    wait::until("all is gone", || container.leaks().is_empty());
}

#[test]
fn restore_into_an_id_in_use_is_refused() {
    let container = saved(with_fake(Container::idle()));
    let id = format!("{}-b", container.id());
    let root = container.root();
    assert!(Path::new(&root).exists());
    container.run_detached();
    let init = container.state()["pid"].clone();
    let output = call(&container, "restore", &["-d"]).output().exits(1);
    output.says(&["container with given ID already exists"]);
    assert_eq!(container.state()["pid"], init, "{id}");
    container.stop_and_delete();
}
