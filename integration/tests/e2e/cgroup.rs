//! `.linux.cgroupsPath` and `.linux.resources`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use creel_integration::{Container, Owner, cgroups, is_creel, needs_cgroupfs, needs_root, needs_runc, skip};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};

/// A running container with the resources.
fn with(resources: Value) -> Container {
    let mut container = Container::idle();
    for (name, value) in resources.as_object().unwrap() {
        container.bundle.set(&format!("linux/resources/{name}"), value.clone());
    }
    container.create();
    container
}

/// Asserts the value of the v1 file, or of the v2 file where the controller is on the unified hierarchy.
#[track_caller]
fn assert_value(container: &Container, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
    let (file, value) = if cgroups::is_v2() { v2 } else { v1 };
    if file.is_empty() {
        return;
    }
    let seen = cgroups::read(controller, &container.cgroup(), file);
    assert_eq!(seen.as_deref(), Some(value), "{controller} {file}");
}

#[test]
fn memory_is_limited() {
    if cgroups::mount("memory").is_none() {
        skip!("no memory controller");
    }
    let container = with(json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432 } }));
    assert_value(&container, "memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864"));
    assert_value(
        &container,
        "memory",
        ("memory.soft_limit_in_bytes", "33554432"),
        ("memory.low", "33554432"),
    );
}

#[test]
fn process_above_its_memory_limit_is_killed() {
    if cgroups::mount("memory").is_none() {
        skip!("no memory controller");
    }
    let mut container = Container::shell("exec tail -c 200000000 /dev/zero");
    container.bundle.set("linux/resources/memory", json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    if cgroups::read("memory", "/", "memory.memsw.limit_in_bytes").is_none() {
        container.bundle.set("linux/resources/memory", json!({ "limit": 33_554_432 }));
    }
    container.run().exits(128 + 9);
}

#[test]
fn cpu_is_limited() {
    if cgroups::mount("cpu").is_none() {
        skip!("no cpu controller");
    }
    let container = with(json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 } }));
    assert_value(&container, "cpu", ("cpu.shares", "512"), ("", ""));
    assert_value(&container, "cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
    assert_value(&container, "cpu", ("cpu.cfs_period_us", "100000"), ("", ""));
}

#[test]
fn pids_are_limited() {
    if cgroups::mount("pids").is_none() {
        skip!("no pids controller");
    }
    let container = with(json!({ "pids": { "limit": 17 } }));
    assert_value(&container, "pids", ("pids.max", "17"), ("pids.max", "17"));
}

#[test]
fn unlimited_pids_are_written_as_max() {
    if cgroups::mount("pids").is_none() {
        skip!("no pids controller");
    }
    let container = with(json!({ "pids": { "limit": -1 } }));
    assert_value(&container, "pids", ("pids.max", "max"), ("pids.max", "max"));
}

#[test]
fn fork_above_the_pids_limit_fails() {
    if cgroups::mount("pids").is_none() {
        skip!("no pids controller");
    }
    let mut container = Container::shell("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all");
    container.bundle.set("linux/resources/pids", json!({ "limit": 8 }));
    let output = container.run();
    assert!(!output.stdout.contains("all"), "{output}");
}

#[test]
fn cpuset_is_set_and_inherited() {
    if cgroups::mount("cpuset").is_none() {
        skip!("no cpuset controller");
    }
    let container = with(json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    assert_value(&container, "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    assert_value(&container, "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0"));
    let container = with(json!({}));
    let all =
        cgroups::read("cpuset", "/", if cgroups::is_v2() { "cpuset.cpus.effective" } else { "cpuset.cpus" });
    if !cgroups::is_v2() {
        assert_eq!(cgroups::read("cpuset", &container.cgroup(), "cpuset.cpus"), all);
    }
}

#[test]
fn blkio_throttling_is_set() {
    let Some(mount) = cgroups::mount("blkio").or_else(|| cgroups::mount("io")) else {
        skip!("no block controller")
    };
    // partitions(5): any whole disk will do, since nothing is written to it.
    let text = std::fs::read_to_string("/proc/partitions").unwrap();
    let disk = text.lines().skip(2).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Path::new("/sys/block").join(fields[3]).exists().then(|| (fields[0].to_owned(), fields[1].to_owned()))
    });
    let Some((major, minor)) = disk.last() else { skip!("no block device") };
    if !mount.join("blkio.throttle.read_bps_device").exists() && !cgroups::is_v2() {
        skip!("no block throttling");
    }
    let rate = json!([{ "major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": 1_048_576 }]);
    let container =
        with(json!({ "blockIO": { "throttleReadBpsDevice": rate, "throttleWriteIOPSDevice": rate } }));
    if cgroups::is_v2() {
        let text = cgroups::read("io", &container.cgroup(), "io.max").unwrap();
        assert!(text.contains("rbps=1048576") && text.contains("wiops=1048576"), "{text}");
    } else {
        for file in ["blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"] {
            let text = cgroups::read("blkio", &container.cgroup(), file).unwrap();
            assert_eq!(text, format!("{major}:{minor} 1048576"), "{file}");
        }
    }
}

#[test]
fn device_rules_forbid_and_allow() {
    needs_root!("may make devices");
    let mut container = Container::shell(
        "cat /dev/fuse-like 2>&1; head -c 1 /dev/kmsg-like 2>&1 >/dev/null; echo; head -c 1 /dev/zero > /dev/null && echo zero",
    );
    container.bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    container.bundle.set(
        "linux/devices",
        json!([
            { "path": "/dev/fuse-like", "type": "c", "major": 1, "minor": 4, "fileMode": 0o666 },
            { "path": "/dev/kmsg-like", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 },
        ]),
    );
    container.bundle.set(
        "linux/resources/devices",
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
        ]),
    );
    let output = container.run().ok();
    let text = &output.stdout;
    assert!(text.contains("fuse-like") && text.contains("Operation not permitted"), "{output}");
    assert!(!text.contains("kmsg-like"), "{output}");
    assert!(text.contains("zero"), "{output}");
}

#[test]
fn device_rules_are_written_to_the_v1_hierarchy() {
    if cgroups::is_v2() || cgroups::mount("devices").is_none() {
        skip!("no v1 devices controller");
    }
    let container = with(json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "access": "r" },
    ] }));
    let list = cgroups::read("devices", &container.cgroup(), "devices.list").unwrap();
    let lines: Vec<&str> = list.lines().collect();
    for expected in ["c 10:229 rw", "b 7:* r", "c 1:3 rwm", "c 1:5 rwm", "c 5:0 rwm", "c 136:* rwm"] {
        assert!(lines.contains(&expected), "{expected} in {list}");
    }
    assert!(!lines.contains(&"a *:* rwm"), "{list}");
}

#[test]
fn process_is_in_the_cgroup_of_the_config() {
    let mut container = Container::new();
    let report = container.seen("cgroup");
    let rows: Vec<&str> =
        report["cgroup"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    let own = container.cgroup();
    let inside = rows.iter().filter(|row| row.ends_with(&own)).count();
    assert!(inside >= 1, "{rows:?}");
    if let Some(row) = rows.iter().find(|row| row.contains(":pids:")) {
        assert!(row.ends_with(&own), "{row}");
    }
}

#[test]
fn relative_path_lies_below_the_callers_cgroup() {
    needs_cgroupfs!();
    let mut container = Container::new();
    container.bundle.set("linux/cgroupsPath", container.id().to_owned());
    let report = container.seen("cgroup");
    if cgroups::is_v2() {
        skip!("v1 only");
    }
    for row in report["cgroup"].as_array().unwrap() {
        let mut fields = row.as_str().unwrap().splitn(3, ':').skip(1);
        let (controller, path) = (fields.next().unwrap(), fields.next().unwrap());
        if controller == "pids" || controller == "memory" {
            let own = cgroups::own(controller);
            assert_eq!(path, Path::new(&own).join(container.id()).to_str().unwrap(), "{controller}");
        }
    }
}

#[test]
fn without_a_path_the_cgroup_has_the_id() {
    let mut container = Container::new();
    container.bundle.remove("linux/cgroupsPath");
    let report = container.seen("cgroup");
    assert!(report["cgroup"].to_string().contains(container.id()), "{report:#}");
}

#[test]
fn dots_in_the_path_do_not_lead_out() {
    needs_cgroupfs!();
    let mut container = Container::new();
    let path = format!("/../../../{}", container.id());
    container.bundle.set("linux/cgroupsPath", path).probe("cgroup");
    let output = container.call("run", &[]).output();
    container.assert_clean(&output);
    if output.code() == 0 {
        assert!(!output.stdout.contains(".."), "{output}");
    }
}

#[test]
fn delete_leaves_what_create_did_not_make() {
    needs_cgroupfs!();
    let mut container = Container::idle();
    let Some(dir) = container.cgroup_dir("pids") else { skip!("no pids controller") };
    let parent = dir.with_file_name(format!("{}-parent", container.id()));
    std::fs::create_dir(&parent).unwrap();
    container.bundle.set("linux/cgroupsPath", format!("{}-parent/{}", container.cgroup(), container.id()));
    container.create();
    let init = container.init();
    container.call("delete", &["--force"]).output().ok();
    init.exited();
    assert!(parent.is_dir(), "a parent that was there before must stay");
    assert!(!parent.join(container.id()).exists());
    std::fs::remove_dir(&parent).unwrap();
    if is_creel() {
        assert_eq!(cgroups::named(container.id()), Vec::<std::path::PathBuf>::new());
    }
    // runc leaves the parents that it made in the other hierarchies.
    cgroups::remove(&cgroups::named(container.id()));
}

#[test]
fn cgroup_that_is_in_use_is_refused() {
    needs_runc!(2, "an error for a cgroup in use");
    let first = Container::idle();
    first.create();
    let mut second = Container::idle();
    second.bundle.set("linux/cgroupsPath", first.bundle.config["linux"]["cgroupsPath"].clone());
    let output = second.call("create", &[]).output().exits(1).says(&["not empty"]);
    second.assert_clean(&output);
    assert_eq!(first.status(), "created");
}

#[test]
fn empty_cgroup_that_was_there_may_be_used() {
    needs_cgroupfs!();
    let container = Container::idle();
    let Some(dir) = container.cgroup_dir("pids") else { skip!("no pids controller") };
    std::fs::create_dir(dir).unwrap();
    container.create();
    container.start();
    container.call("delete", &["--force"]).output().ok();
    cgroups::remove(&cgroups::named(container.id()));
}

#[test]
fn create_that_fails_kills_nobody_in_a_cgroup_that_was_there() {
    needs_cgroupfs!();
    let mut container = Container::idle();
    // The hierarchy by which creel finds the processes.
    let Some(dir) = container.cgroup_dir("devices").or_else(|| container.cgroup_dir("pids")) else {
        skip!("no devices controller")
    };
    std::fs::create_dir(&dir).unwrap();
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let script = format!("echo {} > {}/cgroup.procs; exit 1", other.id(), dir.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    container.bundle.set("hooks/createRuntime", hook);
    container.call("create", &[]).output().exits(1);
    let lives = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(lives, "it came into the cgroup after create had found it empty");
    cgroups::remove(&cgroups::named(container.id()));
}

#[test]
fn cgroups_that_the_container_made_are_deleted_too() {
    let container = Container::idle();
    let Some(dir) = container.cgroup_dir("pids") else { skip!("no pids controller") };
    container.run_detached();
    for name in ["sub", "sub/deep"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn somebodys_mount_on_a_name_that_is_no_text_is_no_hindrance() {
    needs_root!("may mount");
    let mut container = Container::shell("true");
    // Relative: /proc/self/mountinfo is asked where that lies.
    container.bundle.remove("linux/cgroupsPath");
    let odd = container.scratch().path().join(OsStr::from_bytes(b"odd\xff"));
    std::fs::create_dir(&odd).unwrap();
    mount_bind(&odd, &odd).unwrap();
    let output = container.call("run", &[]).output();
    unmount(&odd, UnmountFlags::DETACH).unwrap();
    container.assert_clean(&output.ok());
}

#[test]
fn process_left_in_the_cgroup_is_killed_by_delete() {
    needs_root!("may mount procfs of its own PID namespace");
    let mut container = Container::shell("sleep 1000 & touch /ready; exit 0");
    container.bundle.without_namespace("pid");
    container.create();
    let init = container.init();
    container.start();
    init.exited();
    assert_eq!(container.status(), "stopped");
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn values_that_the_kernel_refuses_are_an_error_that_names_them() {
    if cgroups::mount("cpu").is_none() {
        skip!("no cpu controller");
    }
    let mut container = Container::idle();
    // systemd's quotas are whole percents, and so is what creel writes then.
    if Owner::under_test() != Owner::Systemd {
        container.bundle.set("linux/resources/cpu", json!({ "quota": 1, "period": 100_000 }));
        container.create_fails().says(&["invalid argument"]).creel_says(&[".linux.resources.cpu"]);
    }
    container.bundle.set("linux/resources/cpu", json!({ "cpus": "4095" }));
    container.create_fails().creel_says(&[".linux.resources.cpu.cpus"]);
}

#[test]
fn unified_values_need_the_unified_hierarchy() {
    let mut container = Container::idle();
    container.bundle.set("linux/resources/unified", json!({ "pids.max": "12" }));
    if cgroups::is_v2() {
        container.create();
        assert_eq!(cgroups::read("pids", &container.cgroup(), "pids.max").as_deref(), Some("12"));
    } else {
        container.create_fails();
    }
}

#[test]
fn cgroups_that_a_container_nests_deeper_than_paths_go_are_killed_and_removed() {
    needs_root!("may mount procfs of the host's PID namespace");
    // Deeper than PATH_MAX, and than descriptors are allowed to the runtime.
    const DEPTH: usize = 1200;
    let mut container = Container::idle();
    // The hierarchy by which creel finds the processes.
    let Some(cgroup) = container.cgroup_dir("devices").or_else(|| container.cgroup_dir("pids")) else {
        skip!("no devices controller")
    };
    container.bundle.without_namespace("pid");
    container.run_detached();
    container.wait_file("/ready");
    let open = |path: &std::path::Path| {
        rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap()
    };
    let mut here = open(&cgroup);
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&here, "deep", rustix::fs::Mode::RWXU).unwrap();
        here =
            rustix::fs::openat(&here, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let limited = |args: &[&str]| {
        container.cmd(args.iter().copied()).behind(["prlimit", "--nofile=1024", "--"]).output()
    };
    limited(&["ps", "--format", "json", container.id()]).ok();
    let init = container.init();
    limited(&["kill", "--all", container.id(), "KILL"]).ok();
    init.exited();
    let output = limited(&["delete", container.id()]).ok();
    container.assert_clean(&output);
}
