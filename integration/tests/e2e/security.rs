//! Attacks of the past, each with its CVE.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use creel_integration::scratch::Scratch;
use creel_integration::{
    Cmd, Container, Runtime, cgroups, ids, is_creel, needs_root, needs_runc, probe, skip, wait,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

fn executable(container: &Container, path: &str, content: &str) {
    let file = container.bundle.rootfs(path);
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn identity(path: &std::path::Path) -> (u64, u64, u64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.size(), meta.mode().into(), meta.mtime())
}

#[test]
fn entry_point_that_is_the_runtime_itself_cannot_write_it() {
    // CVE-2019-5736: `#!/proc/self/exe` makes the runtime the container's program.
    let runtime = Runtime::under_test().path();
    let (before, bytes) = (identity(runtime), fs::read(runtime).unwrap());
    let mut container = Container::new();
    executable(&container, "bin/entry", "#!/proc/self/exe\n");
    container.bundle.args(["/bin/entry"]);
    // Whether this runs, and what it says, is of no interest.
    let output = container.call("run", &[]).output();
    assert_eq!(identity(runtime), before);
    assert!(fs::read(runtime).unwrap() == bytes);
    drop(output);
}

/// Whether `exe`, held by somebody who had a look at the runtime while it ran, can be written to now that
/// nobody runs it.
fn can_be_written(exe: &fs::File, runtime: &std::path::Path) -> bool {
    let held = exe.metadata().unwrap();
    let host = fs::metadata(runtime).unwrap();
    let is_host_file = (held.dev(), held.ino()) == (host.dev(), host.ino());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(exe));
    is_host_file && fs::OpenOptions::new().write(true).open(path).is_ok()
}

#[test]
fn runtime_that_the_container_holds_on_to_cannot_be_written_later() {
    // CVE-2019-5736, its second half: /proc/PID/exe is kept open until the runtime has ended.
    let runtime = Scratch::new();
    let path = runtime.join(Runtime::under_test().path().file_name().unwrap());
    // By a process of its own: other tests fork, and a child that had a copy of our descriptor for writing
    // would make the binary busy.
    let copy = [Runtime::under_test().path(), &path].map(|path| path.to_str().unwrap());
    Cmd::new("cp").args(copy).output().ok();
    let size = fs::metadata(&path).unwrap().size();
    // Under runc it is a copy of the binary.
    let exe = |pid: i32| {
        let exe = fs::File::open(format!("/proc/{pid}/exe")).ok()?;
        (exe.metadata().unwrap().size() == size).then_some(exe)
    };

    let container = Container::of(&Runtime::at(&path));
    container.create();
    let created = exe(container.init().pid()).unwrap();
    container.call("delete", &["--force"]).output().ok();
    assert!(!can_be_written(&created, &path), "by the init of a created container");

    let mut container = Container::of(&Runtime::at(&path));
    container.bundle.shell("touch /ready; while true; do sleep 100; done");
    container.run_detached();
    container.wait_file("ready");
    if !cgroups::freeze(&container.cgroup(), true) {
        skip!("no freezer");
    }
    // It stops in the container's cgroup before it is the program.
    let running = container.exec(&["--ignore-paused"], &["true"]).spawn();
    let controller = if cgroups::is_v2() { "pids" } else { "freezer" };
    let mut held = None;
    wait::until("the exec process", || {
        let pids = cgroups::read(controller, &container.cgroup(), "cgroup.procs").unwrap_or_default();
        held = pids.lines().filter_map(|pid| pid.parse().ok()).find_map(exe);
        held.is_some()
    });
    let held = held.unwrap();
    cgroups::freeze(&container.cgroup(), false);
    running.output().ok();
    container.stop_and_delete();
    assert!(!can_be_written(&held, &path), "by the process of an exec");
}

#[test]
fn exec_shows_no_writable_runtime_to_the_container() {
    // CVE-2019-5736: a process of the container opens /proc/<pid of the runtime>/exe for writing.
    let runtime = Runtime::under_test().path();
    let (before, bytes) = (identity(runtime), fs::read(runtime).unwrap());
    let script = "touch /ready; while true; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) \
        (echo overwritten > $p/exe) 2>/dev/null && echo $p >> /written ;; esac; done; done";
    let mut container = Container::shell(script);
    container.bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    // What the container overwrites is its own busybox, unless that is mounted read-only.
    container.bundle.set("root/readonly", false).mount("/bin", "bind", "rootfs/bin", &["bind", "ro"]);
    container.run_detached();
    container.wait_file("ready");
    for _ in 0..20 {
        container.exec(&[], &["/proc/self/exe"]).output();
        container.exec(&[], &["true"]).output();
    }
    assert!(!container.bundle.rootfs("written").exists());
    assert_eq!(identity(runtime), before);
    assert!(fs::read(runtime).unwrap() == bytes);
}

#[test]
fn working_directory_through_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626.
    for number in (0..=12).chain([100, 1000]) {
        for path in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../../../.."),
            format!("/proc/thread-self/fd/{number}"),
        ] {
            let mut container = Container::new();
            container.bundle.set("process/cwd", path.as_str()).probe("cwd tree=.");
            let output = container.call("run", &[]).output();
            container.assert_clean(&output);
            if output.code() == 0 {
                // Refused or harmless: what the name leads to must be in the container.
                let report = output.json();
                let cwd = report["cwd"].as_str().unwrap_or_else(|| panic!("{path}: {report:#}"));
                assert!(
                    cwd.starts_with('/') && report["tree"]["."].get("vmlinuz").is_none(),
                    "{path}: {report:#}"
                );
                assert!(!cwd.contains("unreachable"), "{path}: {cwd}");
            }
        }
    }
}

#[test]
fn working_directory_outside_is_refused_even_where_a_descriptor_leads_there() {
    // CVE-2024-21626 without a leak: the caller hands a directory of the host down.
    let mut container = Container::new();
    container.bundle.set("process/cwd", "/proc/self/fd/3").probe("cwd");
    let run = container.call("run", &["--preserve-fds", "1"]).through_shell("exec \"$@\" 3</");
    let output = run.output();
    assert_ne!(output.code(), 0, "{output}");
    output.creel_says(&[".process.cwd", "outside of the container's root"]);
}

#[test]
fn working_directory_is_made_inside() {
    // CVE-2025-24965 in its kind: what the runtime makes in the root does not follow the image out of it.
    for no_pivot in [false, true] {
        let mut container = Container::new();
        let outside = container.scratch().dir("outside");
        symlink(&outside, container.bundle.rootfs("link")).unwrap();
        container.bundle.set("process/cwd", "/link/new/dir").shell("pwd");
        let flags: &[&str] = if no_pivot { &["--no-pivot"] } else { &[] };
        let output = container.call("run", flags).output();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{output}");
    }
}

#[test]
fn exec_into_a_working_directory_through_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626.
    let container = Container::idle();
    container.run_detached();
    for number in 3..=12 {
        let path = format!("/proc/self/fd/{number}");
        container.exec(&["--cwd", &path], &["true"]).output().exits(255);
    }
}

#[test]
fn program_through_a_leaked_descriptor_of_the_host_is_not_found() {
    // CVE-2024-21626, the attack by the program's own name: the kernel resolves it, and the
    // interpreter of a script, while descriptors that execve will close are still open.
    const UP: &str = "../../../../../../..";
    for number in 3..=40 {
        let host = format!("/proc/self/fd/{number}/{UP}/bin/busybox");
        let mut container = Container::new();
        container.bundle.set("process/args", json!([host, "sh", "-c", "echo out; ls /"]));
        let output = container.call("run", &[]).output();
        assert_ne!(output.code(), 0, "{output}");
        container.assert_clean(&output);

        let mut container = Container::new();
        executable(&container, "script", &format!("#!{host} true\n"));
        container.bundle.set("process/args", json!(["/script"]));
        let output = container.call("run", &[]).output();
        assert_ne!(output.code(), 0, "{output}");
        container.assert_clean(&output);
    }
}

#[test]
fn exec_of_a_link_to_a_leaked_descriptor_finds_nothing() {
    // CVE-2024-21626.
    let container = Container::idle();
    container.run_detached();
    for number in 3..=40 {
        let link = container.bundle.rootfs(&format!("link{number}"));
        symlink(format!("/proc/self/fd/{number}/../../../../../../bin/busybox"), link).unwrap();
        container.exec(&[], &[&format!("/link{number}"), "true"]).output().exits(255);
    }
}

#[test]
fn waiting_init_holds_nothing_of_the_host_open() {
    needs_root!("may look into a process that is not dumpable");
    let mut container = Container::idle();
    // What is written through the host's procfs.
    container
        .bundle
        .set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("process/oomScoreAdj", 500);
    container.create();
    let dir = format!("/proc/{}/fd", container.init().pid());
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let known = number <= 2 || target.starts_with("socket:") || target.contains("/exec.");
        assert!(known || !is_creel(), "{number} -> {target}");
    }
}

#[test]
fn proc_that_is_a_symlink_is_refused() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2025-54867.
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        for target in ["/tmp", "tmp", "/etc"] {
            let mut container = Container::idle();
            let path = container.bundle.rootfs(name);
            fs::remove_dir(&path).unwrap();
            symlink(target, &path).unwrap();
            if kind == "proc" {
                // The masks of the config would be looked for in vain.
                container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
            }
            container.create_fails().says(&["must be mounted on ordinary directory"]);
        }
    }
}

#[test]
fn directory_bound_over_proc_is_refused() {
    // CVE-2019-16884.
    for target in ["/proc", "/proc/self", "/proc/sys"] {
        let mut container = Container::idle();
        let source = container.scratch().dir("fake");
        container.bundle.mount(target, "bind", source.to_str().unwrap(), &["bind"]);
        container.create_fails().says(&["proc"]);
    }
}

#[test]
fn link_of_the_image_into_proc_is_no_mount_point() {
    // CVE-2019-16884: the destination says nothing of /proc.
    for (target, destination) in [("/proc", "/link/self"), ("/proc/self", "/link"), ("proc/1", "/link/attr")]
    {
        let mut container = Container::idle();
        symlink(target, container.bundle.rootfs("link")).unwrap();
        let source = container.scratch().dir("fake");
        container.bundle.mount(destination, "bind", source.to_str().unwrap(), &["bind"]);
        container.create_fails().creel_says(&[".mounts[6]", "proc"]);
        container
            .bundle
            .set("mounts/6", json!({ "destination": destination, "type": "tmpfs", "source": "x" }));
        container.create_fails().creel_says(&[".mounts[6]", "proc"]);
    }
}

#[test]
fn tmpfs_over_proc_is_refused() {
    let mut container = Container::idle();
    container.bundle.mount("/proc/self", "tmpfs", "tmpfs", &[]);
    container.create_fails();
}

#[test]
fn symlinked_mount_points_stay_in_the_rootfs() {
    // CVE-2019-18837, CVE-2021-30465 in their static form.
    for (n, target) in ["absolute", "upward", "chain"].into_iter().enumerate() {
        let mut container = Container::new();
        let outside = container.scratch().dir("outside");
        let source = container.scratch().file("source/file", "content");
        let link = container.bundle.rootfs("link");
        let absolute = outside.to_str().unwrap();
        match n {
            0 => symlink(absolute, &link).unwrap(),
            1 => symlink(format!("../../../../../../../..{absolute}"), &link).unwrap(),
            _ => {
                symlink(absolute, container.bundle.rootfs("second")).unwrap();
                symlink("/second", &link).unwrap();
            }
        }
        container.bundle.mount("/link/made", "bind", source.parent().unwrap().to_str().unwrap(), &["bind"]);
        container.bundle.mount("/link/made-file", "bind", source.to_str().unwrap(), &["bind"]);
        let output = {
            container.bundle.probe("mounts");
            container.run()
        };
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}: made something outside\n{output}");
    }
}

#[test]
fn mount_point_made_in_a_symlinked_volume_stays_inside() {
    // CVE-2024-45310.
    let mut container = Container::new();
    let outside = container.scratch().dir("outside");
    let volume = container.scratch().dir("volume");
    symlink(&outside, volume.join("link")).unwrap();
    container.bundle.mount("/volume", "bind", volume.to_str().unwrap(), &["bind"]);
    container.bundle.mount("/volume/link/new/dir", "tmpfs", "tmpfs", &[]);
    container.bundle.probe("mounts");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{output}");
}

/// Ends a racing thread, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn mount_point_that_is_swapped_for_a_symlink_meanwhile_stays_inside() {
    // CVE-2021-30465, CVE-2024-45310: another container of the same volume exchanges directory and link.
    needs_runc!(2, "protection against races in mount points");
    let mut container = Container::new();
    let outside = container.scratch().dir("outside");
    let volume = container.scratch().dir("volume");
    fs::create_dir(volume.join("target")).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    container.bundle.mount("/volume", "bind", volume.to_str().unwrap(), &["rbind"]);
    container.bundle.mount("/volume/target/made/deep", "tmpfs", "tmpfs", &[]);
    container.bundle.shell("true");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (target, link) = (volume.join("target"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &target, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let _stops = Stop(&stop);
        for _ in 0..25 {
            container.call("run", &[]).output();
        }
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made something outside");
}

#[test]
fn masked_path_is_not_covered_by_a_fake_null_device() {
    // CVE-2025-31133, CVE-2025-62161: /dev/null of the image leads elsewhere.
    needs_runc!(4, "a check of the null device");
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
    symlink("/bait", container.bundle.rootfs("dev/null")).unwrap();
    container.bundle.set("linux/maskedPaths", json!(["/proc/version"]));
    container.bundle.probe("access=/proc/version");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    if output.code() == 0 {
        assert_eq!(output.json()["access"]["/proc/version"]["stat"]["device"], json!([1, 3]), "{output}");
    }
    assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
}

#[test]
fn null_device_from_a_volume_is_verified() {
    // CVE-2025-31133: the volume under /dev has a symlink for null.
    needs_runc!(4, "a check of the null device");
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let volume = container.scratch().dir("volume");
    symlink("/proc/version", volume.join("null")).unwrap();
    container.bundle.mount("/dev", "bind", volume.to_str().unwrap(), &["bind"]);
    container.bundle.set("linux/maskedPaths", json!(["/proc/version"]));
    container.bundle.probe("access=/proc/version");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    if output.code() == 0 {
        assert_eq!(output.json()["access"]["/proc/version"]["stat"]["device"], json!([1, 3]), "{output}");
    }
}

#[test]
fn standard_streams_on_null_do_not_become_a_file_of_the_image() {
    // CVE-2025-31133: they are taken off the host's null device, but not to whatever has its name.
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    container.bundle.remove("linux/maskedPaths");
    fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
    symlink("/bait", container.bundle.rootfs("dev/null")).unwrap();
    container.bundle.shell("cat; echo over >&0");
    let output = container.run();
    assert!(!output.stdout.contains("bait"), "{output}");
    assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
    // An ordinary user's device is bound over what the link leads to.
    if ids::are_roots() {
        output.creel_says(&["the container's /dev/null is not the null device"]);
    }
}

#[test]
fn dev_that_is_a_symlink_makes_nothing_outside() {
    // CVE-2026-41579, CVE-2026-47766.
    needs_runc!(5, "protection of /dev");
    for upward in [false, true] {
        let mut container = Container::new();
        let outside = container.scratch().dir("outside");
        let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let dev = container.bundle.rootfs("dev");
        fs::remove_dir(&dev).unwrap();
        let absolute = outside.to_str().unwrap();
        symlink(if upward { format!("../../../../../..{absolute}") } else { absolute.to_owned() }, &dev)
            .unwrap();
        container
            .bundle
            .set("linux/devices", json!([{ "path": "/dev/extra", "type": "c", "major": 1, "minor": 3 }]));
        container.bundle.shell("true");
        let output = container.call("run", &[]).output();
        container.assert_clean(&output);
        let made: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(made.is_empty(), "{made:?}\n{output}");
    }
}

/// A container whose /dev is the image's own but for the terminals.
fn with_own_dev() -> Container {
    let mut container = Container::new();
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| {
        let at = mount["destination"].as_str().unwrap();
        !at.starts_with("/dev") || at == "/dev/pts"
    });
    container
}

/// Runs it on a terminal of the test's; what was on it, and whether it ended well.
fn on_terminal(container: &Container, expected: &str) {
    let (mut master, slave) = creel_integration::pty::open();
    let [input, output, error] = [(); 3].map(|()| slave.try_clone().unwrap());
    drop(slave);
    let running =
        container.call("run", &[]).behind(["setsid", "--ctty"]).stdin(input).spawn_with(output, error);
    master.expect(expected);
    running.output();
}

#[test]
fn console_is_the_terminal_and_not_what_the_image_says() {
    // CVE-2025-52565.
    let mut container = with_own_dev();
    fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
    symlink("/bait", container.bundle.rootfs("dev/console")).unwrap();
    container.bundle.set("process/terminal", true).shell("stat -c %F /bait; echo x > /dev/console");
    on_terminal(&container, "character special file");
    assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
}

#[test]
fn console_of_the_image_does_not_lead_into_proc() {
    // CVE-2025-52565: the terminal would cover, or make reachable, a file of procfs.
    needs_runc!(4, "a check of the console");
    if !is_creel() {
        skip!("runc has words of its own");
    }
    let mut container = with_own_dev();
    symlink("/proc/version", container.bundle.rootfs("dev/console")).unwrap();
    container.bundle.set("process/terminal", true).shell("echo in");
    on_terminal(&container, "leads into a procfs");
}

#[test]
fn terminal_is_no_file_of_the_image() {
    // CVE-2025-52565: a /dev/pts of the image's making.
    if !is_creel() {
        skip!("runc has words of its own");
    }
    for link in ["/bait", "/dev/null"] {
        let mut container = with_own_dev();
        let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/pts");
        fs::write(container.bundle.rootfs("bait"), "bait").unwrap();
        fs::create_dir(container.bundle.rootfs("dev/pts")).unwrap();
        symlink(link, container.bundle.rootfs("dev/pts/ptmx")).unwrap();
        container.bundle.set("process/terminal", true).shell("echo in");
        on_terminal(&container, "not on a devpts");
        assert_eq!(fs::read_to_string(container.bundle.rootfs("bait")).unwrap(), "bait");
    }
}

/// Gives the image a /proc of its own, whose files hold `bait`, and the config no procfs.
fn fake_proc(container: &mut Container, files: &[&str]) -> Vec<std::path::PathBuf> {
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    container.bundle.remove("linux/maskedPaths").remove("linux/readonlyPaths");
    let make = |file: &&str| {
        let path = container.bundle.rootfs(&format!("proc/{file}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "bait").unwrap();
        path
    };
    files.iter().map(make).collect()
}

/// A kernel parameter of a process's network namespace.
fn sysctl_of(pid: i32, path: &str) -> String {
    let cat = ["--net", "--target", &pid.to_string(), "cat", path].map(str::to_owned);
    Cmd::new("nsenter").args(cat).output().ok().stdout.trim_end().to_owned()
}

#[test]
fn nothing_is_written_to_a_proc_that_the_image_brings() {
    needs_root!("may look into a network namespace");
    // CVE-2019-19921, CVE-2025-52881, where no mount is refused, since there is none.
    const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    let mut first = Container::idle();
    let files = ["sys/net/ipv4/ip_forward", "self/oom_score_adj", "self/timens_offsets", "self/setgroups"];
    let baits = fake_proc(&mut first, &files);
    first.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })).set("process/oomScoreAdj", 600);
    if is_creel() {
        first.run_detached();
        first.wait_file("ready");
    } else if first.call("run", &["--detach"]).output().code() != 0 {
        skip!("runc runs nothing without a procfs");
    }
    let init = first.init().pid();
    assert_eq!(sysctl_of(init, FORWARD), "1");
    assert_eq!(fs::read_to_string(format!("/proc/{init}/oom_score_adj")).unwrap().trim(), "600");
    // An exec joins that mount namespace, and so may another container, before it has written anything.
    let process = first.bundle.config["process"].clone();
    let mut process = process.as_object().unwrap().clone();
    process.insert("oomScoreAdj".into(), json!(700));
    process.insert("args".into(), json!(["/bin/sh", "-c", "touch /second; sleep 100"]));
    let file = first.scratch().file("process.json", serde_json::to_string(&process).unwrap());
    let exec =
        ["exec", "--detach", "--pid-file", "exec.pid", "--process", file.to_str().unwrap(), first.id()];
    first.cmd(exec).output().ok();
    first.wait_file("second");
    let pid = fs::read_to_string(first.bundle.dir().join("exec.pid")).unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "700");

    let mut second = Container::idle();
    second.bundle.namespace("mount", Some(&format!("/proc/{init}/ns/mnt"))).set("mounts", json!([]));
    second.bundle.set("root/path", "/").remove("linux/maskedPaths").remove("linux/readonlyPaths");
    second.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })).set("process/oomScoreAdj", 800);
    let clocks = fs::exists("/proc/self/ns/time").unwrap();
    if clocks {
        second.bundle.namespace("time", None).set("linux/timeOffsets/boottime/secs", 1000);
    }
    second.run_detached();
    let init = second.init().pid();
    assert_eq!(sysctl_of(init, FORWARD), "1");
    assert_eq!(fs::read_to_string(format!("/proc/{init}/oom_score_adj")).unwrap().trim(), "800");
    let offsets = fs::read_to_string(format!("/proc/{init}/timens_offsets")).unwrap_or_default();
    assert!(!clocks || offsets.contains("1000"), "{offsets}");
    for bait in baits {
        assert_eq!(fs::read_to_string(&bait).unwrap(), "bait", "{}", bait.display());
    }
}

#[test]
fn sysctl_is_not_written_to_what_covers_that_of_the_host() {
    needs_root!("may mount over /proc/sys");
    // CVE-2025-52881 where the runtime itself is in a container that is not well disposed.
    let mut container = Container::new();
    container.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })).shell("true");
    let script = "mount -t tmpfs fake /proc/sys; file=/proc/sys/net/ipv4/ip_forward; mkdir -p ${file%/*}; \
        echo bait > $file; \"$@\"; echo $? $(cat $file)";
    let run = container.call("run", &[]).through_shell(script);
    let output = run.behind(["unshare", "--mount", "--propagation", "private"]).output().ok();
    assert!(output.stdout.ends_with(" bait\n"), "{output}");
    if is_creel() {
        assert!(output.stdout.starts_with("1 "), "{output}");
        output.says(&[".linux.sysctl[", "EXDEV"]);
    }
}

#[test]
fn remount_in_a_joined_mount_namespace_does_not_ask_its_proc_what_to_remount() {
    needs_root!("may join a mount namespace");
    // CVE-2025-52881 in its kind: /proc/self/fd of the other container leads a call that takes a path to
    // where it wants.
    if !is_creel() {
        skip!("runc wants a procfs in the mount namespace");
    }
    let mut first = Container::idle();
    fake_proc(&mut first, &["self/fd/0"]);
    for number in 0..100 {
        let link = first.bundle.rootfs(&format!("proc/self/fd/{number}"));
        fs::remove_file(&link).ok();
        symlink("/victim", link).unwrap();
    }
    first.bundle.mount("/victim", "tmpfs", "tmpfs", &["ro"]);
    first.run_detached();
    first.wait_file("ready");
    let mut second = Container::new();
    let init = first.init().pid();
    second.bundle.namespace("mount", Some(&format!("/proc/{init}/ns/mnt"))).set("mounts", json!([]));
    second.bundle.set("root/path", "/").remove("linux/maskedPaths").remove("linux/readonlyPaths");
    second.bundle.mount("/dev/shm", "tmpfs", "tmpfs", &["remount", "rw", "size=1m"]).shell("true");
    second.call("run", &[]).output().ok();
    let mounts = fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap();
    let options = |target: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target)).unwrap();
        (line.split(' ').nth(5).unwrap().to_owned(), line.rsplit(' ').next().unwrap().to_owned())
    };
    assert!(options("/victim").0.starts_with("ro,"), "{mounts}");
    assert!(options("/dev/shm").1.contains("size=1024k"), "{mounts}");
}

#[test]
fn sysctl_is_never_written_to_a_fake_proc() {
    // CVE-2025-52881: the volume stands in for /proc/sys.
    let mut container = Container::idle();
    let fake = container.scratch().dir("fake");
    fs::create_dir_all(fake.join("net/ipv4")).unwrap();
    fs::write(fake.join("net/ipv4/ip_forward"), "bait").unwrap();
    container.bundle.mount("/proc/sys", "bind", fake.to_str().unwrap(), &["bind"]);
    container.bundle.set("linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    container.create_fails();
    assert_eq!(fs::read_to_string(fake.join("net/ipv4/ip_forward")).unwrap(), "bait");
}

#[test]
fn libraries_of_the_image_do_not_reach_the_runtime() {
    // The runtime is static: a preloaded library of the image or the caller's environment has no effect.
    let mut container = Container::new();
    container.bundle.set("process/env/-", "LD_PRELOAD=/nosuch/library.so").shell("echo in");
    let output = container.run().ok();
    assert_eq!(output.stdout, "in\n");
    fs::write(container.bundle.rootfs("etc/ld.so.preload"), "/nosuch/library.so\n").unwrap();
    assert_eq!(container.run().ok().stdout, "in\n");
}

#[test]
fn many_mounts_and_groups_do_not_overflow_anything() {
    // CVE-2021-43784: more than 64 KiB of mount sources; the namespaces must hold all the same.
    let mut container = Container::new();
    let long = container.scratch().dir(&format!("{}/{}", "s".repeat(200), "t".repeat(200)));
    for n in 0..150 {
        container.bundle.mount(&format!("/mnt/{n}"), "bind", long.to_str().unwrap(), &["bind"]);
    }
    let report = container.seen("ns mounts");
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(probe::text(&report, "ns/net"), own.to_str().unwrap());
    assert_eq!(
        report["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| { mount["target"].as_str().unwrap().starts_with("/mnt/") })
            .count(),
        150
    );
}

#[test]
fn cgroups_of_the_host_are_read_only_without_a_cgroup_namespace() {
    // CVE-2023-25809: a user namespace takes the host's /sys as it is, with the hierarchies in it.
    let mut container = Container::new();
    if ids::are_roots() {
        container.bundle.user_namespace(100_000, 65536);
    }
    container.bundle.without_namespace("cgroup").without_namespace("network");
    let mounts = container.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/sys");
    container.bundle.mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &options);
    let report = container.seen("mounts");
    let mounts = report["mounts"].as_array().unwrap();
    let below = |mount: &&serde_json::Value| {
        mount["target"].as_str().is_some_and(|target| target.starts_with("/sys/fs/cgroup"))
    };
    // The last one at a path is on top; those of the host's /sys lie under the container's own.
    let own = mounts.iter().rposition(|mount| mount["target"] == "/sys/fs/cgroup").unwrap();
    for mount in mounts[own..].iter().filter(below) {
        assert!(probe::has_option(mount, "ro"), "{mount:#}");
    }
}

#[test]
fn waiting_init_belongs_to_the_hosts_root_in_procfs() {
    needs_root!("may choose the ids");
    // CVE-2016-9962: its memory is a copy of the runtime's, and not for the root of its user namespace.
    let mut container = Container::idle();
    container.bundle.user_namespace(100_000, 65536);
    container.create();
    let environ = fs::metadata(format!("/proc/{}/environ", container.init().pid())).unwrap();
    assert_eq!(environ.uid(), 0);
}

#[test]
fn inheritable_capabilities_stay_empty_for_run_and_exec() {
    // CVE-2022-29162, CVE-2022-27650, CVE-2025-27612.
    let mut container = Container::idle();
    container.bundle.capabilities(&["CAP_CHOWN", "CAP_KILL"]);
    container.run_detached();
    for flags in [&[][..], &["--cap", "CAP_NET_RAW"]] {
        assert_eq!(container.exec_seen(flags, "status")["status"]["CapInh"], "0000000000000000");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", container.init().pid())).unwrap();
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
}
