//! The v1 and hybrid paths on real hierarchies, as root.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "the cgroup of a thread is not that of the test process")]

mod common;

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use common::{Scratch, Shell, name, resources, skip, v1_host};
use creel_cgroup::devices::plan_rules;
use creel_cgroup::{Cgroup, CgroupPath, CgroupRecord, CreateOptions, Error, Hierarchy, Host, Mode};
use rustix::process::Signal;

const V1: Hierarchy = Hierarchy::V1;

macro_rules! host {
    () => {
        match v1_host() {
            Ok(host) => host,
            Err(reason) => skip!("{reason}"),
        }
    };
}

fn has(host: &Host, controller: &str) -> bool {
    host.v1.iter().any(|m| m.controllers.iter().any(|c| c == controller))
}

#[test]
fn both_ways_of_detection_agree() {
    let mut quick = host!();
    let mut looked = Host::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap()).unwrap();
    for host in [&mut quick, &mut looked] {
        host.v1.sort_by(|a, b| a.point.cmp(&b.point));
        host.v1.iter_mut().chain(&mut host.v2).for_each(|mount| mount.root = None);
    }
    assert_eq!(quick, looked);
}

#[test]
fn create_makes_and_destroy_removes_every_directory() {
    let host = host!();
    let top = name();
    let scratch = Scratch::at(&host, format!("/{top}/pod/web")).unwrap();
    let record = scratch.cgroup.record();
    assert_eq!(record.dirs.len(), host.v1.len() + usize::from(host.v2.is_some()));
    for dir in &record.dirs {
        assert!(fs::exists(&dir.path).unwrap(), "{}", dir.path);
        assert_eq!(dir.made, 3, "{}", dir.path);
    }
    let first = &host.v1[0];
    assert_eq!(record.paths()[&first.controllers[0]], format!("{}/{top}/pod/web", first.point));
    let json = serde_json::to_string(&record).unwrap();
    let read: CgroupRecord = serde_json::from_str(&json).unwrap();
    assert_eq!(read, record);
    Cgroup::from_record(&read).destroy().unwrap();
    for mount in host.v1.iter().chain(&host.v2) {
        assert!(!fs::exists(format!("{}/{top}", mount.point)).unwrap(), "{}", mount.point);
    }
    // Once more is no error.
    Cgroup::from_record(&read).destroy().unwrap();
}

#[test]
fn parents_stay_while_others_use_them() {
    let host = host!();
    let top = name();
    let first = Scratch::at(&host, format!("/{top}/a")).unwrap();
    let second = Scratch::at(&host, format!("/{top}/b")).unwrap();
    assert_eq!(second.cgroup.record().dirs[0].made, 1);
    first.cgroup.destroy().unwrap();
    assert!(second.exists());
    second.cgroup.destroy().unwrap();
    for mount in host.v1.iter().chain(&host.v2) {
        // The first made it, the second did not: it stays, as with runc, and goes by its name.
        fs::remove_dir(format!("{}/{top}", mount.point)).unwrap();
    }
}

#[test]
fn directories_that_were_there_stay_there() {
    let host = host!();
    let first = Scratch::new(&host);
    let second = Scratch::at(&host, first.path.clone()).unwrap();
    assert!(second.cgroup.record().dirs.iter().all(|d| d.made == 0));
    second.cgroup.destroy().unwrap();
    assert!(first.exists());
}

#[test]
fn limits_read_back() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let json = r#"{
        "memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432, "swappiness": 20, "kernel": 1},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 20000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 100}
    }"#;
    scratch.apply(V1, json).unwrap();
    let want = [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "20"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_burst_us", "20000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "100"),
    ];
    for (controller, file, value) in want {
        assert_eq!(scratch.read(controller, file), value, "{file}");
    }
}

#[test]
fn realtime_values_read_back() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let probe = Scratch::new(&host);
    if !fs::exists(format!("{}/cpu.rt_runtime_us", probe.dir("cpu"))).unwrap() {
        skip!("this kernel has no cpu.rt_runtime_us");
    }
    if fs::write(format!("{}/cpu.rt_runtime_us", probe.dir("cpu")), "20000").is_err() {
        skip!("other cgroups have taken the realtime that the root cgroup gives");
    }
    drop(probe);
    scratch.apply(V1, r#"{"cpu":{"realtimeRuntime":10000,"realtimePeriod":500000}}"#).unwrap();
    assert_eq!(scratch.read("cpu", "cpu.rt_runtime_us"), "10000");
    assert_eq!(scratch.read("cpu", "cpu.rt_period_us"), "500000");
}

#[test]
fn block_io_values_read_back() {
    let host = host!();
    let scratch = Scratch::new(&host);
    if !fs::exists(format!("{}/blkio.bfq.weight", scratch.dir("blkio"))).unwrap() {
        skip!("this kernel has no blkio.bfq.weight");
    }
    scratch.apply(V1, r#"{"blockIO":{"weight":200}}"#).unwrap();
    assert_eq!(scratch.read("blkio", "blkio.bfq.weight"), "200");
    let json = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":1}]}}"#;
    let error = scratch.apply(V1, json).unwrap_err().to_string();
    assert!(error.starts_with(".linux.resources.blockIO.throttleReadBpsDevice[0]: write("), "{error}");
    assert!(error.ends_with("; no such block device"), "{error}");
}

#[test]
fn values_that_bound_each_other_can_be_raised_and_lowered() {
    let host = host!();
    let scratch = Scratch::new(&host);
    for (limit, swap) in [(1 << 26, 1 << 27), (1 << 28, 1 << 29), (1 << 25, 1 << 25), (1 << 30, 1 << 30)] {
        scratch.apply(V1, &format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#)).unwrap();
        assert_eq!(scratch.read("memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(scratch.read("memory", "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    scratch.apply(V1, r#"{"memory":{"limit":-1}}"#).unwrap();
    let unlimited = scratch.read("memory", "memory.memsw.limit_in_bytes");
    assert!(unlimited.parse::<u64>().unwrap() > 1 << 60, "{unlimited}");
    for (quota, period, burst) in
        [(50000, 100000, 50000), (2000, 5000, 1000), (900000, 1000000, 900000), (1000, 1000, 0)]
    {
        let json = format!(r#"{{"cpu":{{"quota":{quota},"period":{period},"burst":{burst}}}}}"#);
        scratch.apply(V1, &json).unwrap();
        assert_eq!(scratch.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(scratch.read("cpu", "cpu.cfs_period_us"), period.to_string());
    }
}

#[test]
fn an_update_changes_what_it_names_and_a_refused_one_nothing() {
    let host = host!();
    let scratch = Scratch::new(&host);
    scratch
        .apply(V1, r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"shares":512,"quota":20000,"period":50000}}"#)
        .unwrap();
    let in_force = || {
        [
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.memsw.limit_in_bytes"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu.cfs_period_us"),
        ]
        .map(|(controller, file)| scratch.read(controller, file))
    };
    let update = |json: &str| scratch.cgroup.update(&resources(json));
    update(r#"{"cpu":{"quota":30000}}"#).unwrap();
    assert_eq!(in_force(), ["67108864", "67108864", "512", "30000", "50000"]);
    update(r#"{"cpu":{"period":60000}}"#).unwrap();
    assert_eq!(in_force(), ["67108864", "67108864", "512", "30000", "60000"]);
    update(r#"{"memory":{"swap":134217728}}"#).unwrap();
    update(r#"{"memory":{"limit":33554432}}"#).unwrap();
    let before = ["33554432", "134217728", "512", "30000", "60000"];
    assert_eq!(in_force(), before);
    let refused = r#"{"memory":{"limit":268435456,"swap":268435456},"cpu":{"shares":100,"quota":10}}"#;
    let error = update(refused).unwrap_err().to_string();
    assert!(error.starts_with(".linux.resources.cpu.quota: write("), "{error}");
    assert_eq!(in_force(), before);
    let error = update(r#"{"memory":{"limit":268435456}}"#).unwrap_err().to_string();
    assert!(error.ends_with("; memory and swap together are limited to 134217728"), "{error}");
    assert_eq!(in_force(), before);
}

#[test]
fn idle_and_shares_do_not_exclude_each_other() {
    let host = host!();
    let scratch = Scratch::new(&host);
    scratch.apply(V1, r#"{"cpu":{"shares":300,"idle":1}}"#).unwrap();
    assert_eq!(scratch.read("cpu", "cpu.idle"), "1");
    scratch.apply(V1, r#"{"cpu":{"shares":400,"idle":0}}"#).unwrap();
    assert_eq!(
        (scratch.read("cpu", "cpu.idle"), scratch.read("cpu", "cpu.shares")),
        ("0".into(), "400".into())
    );
}

#[test]
fn a_new_cpuset_inherits_through_parents_that_have_none() {
    let host = host!();
    let Some(mount) = host.v1.iter().find(|m| m.controllers == ["cpuset"]) else {
        skip!("no cpuset hierarchy of its own");
    };
    let top = name();
    // As if made by somebody who did not fill it.
    fs::create_dir(format!("{}/{top}", mount.point)).unwrap();
    let scratch = Scratch::at(&host, format!("/{top}/a/b")).unwrap();
    let root = fs::read_to_string(format!("{}/cpuset.cpus", mount.point)).unwrap();
    assert_eq!(scratch.read("cpuset", "cpuset.cpus"), root.trim());
    assert_eq!(scratch.read("cpuset", "cpuset.mems"), "0");
    scratch.cgroup.destroy().unwrap();
    fs::remove_dir(format!("{}/{top}", mount.point)).unwrap();
}

#[test]
fn join_fds_take_a_single_thread_into_every_hierarchy() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let fds = scratch.cgroup.join_fds().unwrap();
    assert_eq!(fds.len(), host.v1.len());
    let path = scratch.path.clone();
    let joined = std::thread::spawn(move || {
        for fd in &fds {
            rustix::io::write(fd, b"0").unwrap();
        }
        let own = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        own.lines().filter(|line| line.ends_with(&format!(":{path}"))).count()
    });
    assert_eq!(joined.join().unwrap(), host.v1.len());
}

#[test]
fn a_cgroup_with_processes_is_refused_and_not_removed() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let shell = Shell::new();
    scratch.add(shell.pid());
    assert_eq!(scratch.cgroup.pids(false).unwrap(), [i32::try_from(shell.pid()).unwrap()]);
    let error = Scratch::at(&host, scratch.path.clone()).err().unwrap();
    assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
    let error = scratch.cgroup.destroy_within(Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains(&format!("processes inside: [{}]", shell.pid())), "{error}");
    assert!(scratch.exists());
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let host = host!();
    if !has(&host, "freezer") {
        skip!("no freezer hierarchy");
    }
    let scratch = Scratch::new(&host);
    scratch.cgroup.freeze().unwrap();
    let error = Scratch::at(&host, scratch.path.clone()).err().unwrap();
    assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
    scratch.cgroup.thaw().unwrap();
}

#[test]
fn freeze_holds_a_busy_tree_and_kill_reaches_it() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let mut shell = Shell::new();
    scratch.add(shell.pid());
    shell.run("(while :; do /bin/true; done) & :");
    scratch.cgroup.freeze().unwrap();
    assert!(scratch.cgroup.is_frozen().unwrap());
    assert_eq!(scratch.read("freezer", "freezer.state"), "FROZEN");
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.is_frozen().unwrap());
    assert_eq!(shell.run("exit_status() { return 3; }; exit_status"), 3);
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill_all(Signal::KILL).unwrap();
    assert_eq!(shell.wait_signal(), Some(9));
    assert!(!scratch.cgroup.is_frozen().unwrap());
    scratch.cgroup.destroy().unwrap();
    assert!(!scratch.exists());
}

#[test]
fn another_signal_leaves_a_paused_container_paused() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let mut shell = Shell::new();
    scratch.add(shell.pid());
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill_all(Signal::TERM).unwrap();
    assert!(scratch.cgroup.is_frozen().unwrap());
    scratch.cgroup.thaw().unwrap();
    assert_eq!(shell.wait_signal(), Some(15));
}

#[test]
fn destroy_takes_nested_cgroups_along() {
    let host = host!();
    let scratch = Scratch::new(&host);
    for dir in scratch.cgroup.record().dirs {
        fs::create_dir_all(format!("{}/x/y", dir.path)).unwrap();
    }
    scratch.cgroup.destroy().unwrap();
    assert!(!scratch.exists());
}

#[test]
fn device_rules_hold_for_whoever_is_inside() {
    let host = host!();
    if !has(&host, "devices") {
        skip!("no devices hierarchy");
    }
    let scratch = Scratch::new(&host);
    let json = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    scratch.cgroup.apply_devices(&plan_rules(&resources(json)).unwrap()).unwrap();
    let list = scratch.read("devices", "devices.list");
    assert_eq!(list.lines().count(), 12, "{list}");
    assert!(list.lines().any(|l| l == "c 1:11 r") && list.lines().any(|l| l == "c 136:* rwm"), "{list}");
    let fds = scratch.cgroup.join_fds().unwrap();
    let inside = std::thread::spawn(move || {
        for fd in &fds {
            rustix::io::write(fd, b"0").unwrap();
        }
        let open = |write: bool, path: &str| {
            fs::OpenOptions::new().read(!write).write(write).open(path).map(drop).map_err(|e| e.kind())
        };
        (open(true, "/dev/null"), open(false, "/dev/kmsg"), open(true, "/dev/kmsg"))
    });
    assert_eq!(inside.join().unwrap(), (Ok(()), Ok(()), Err(ErrorKind::PermissionDenied)));
    // A privileged container, on a directory that already has rules.
    let all = r#"{"devices":[{"allow":true,"access":"rwm"}]}"#;
    scratch.cgroup.apply_devices(&plan_rules(&resources(all)).unwrap()).unwrap();
    assert_eq!(scratch.read("devices", "devices.list"), "a *:* rwm");
}

#[test]
fn exec_joins_sub_cgroups_but_nothing_above() {
    let host = host!();
    let scratch = Scratch::new(&host);
    fs::create_dir(format!("{}/sub", scratch.dir("pids"))).unwrap();
    let sub = [(vec!["pids".to_owned()], "/sub".to_owned())];
    let join = scratch.cgroup.exec_join(&sub).unwrap();
    assert_eq!((join.tasks.len(), join.into.is_some()), (host.v1.len(), host.mode == Mode::Hybrid));
    let joined = std::thread::spawn(move || {
        for fd in &join.tasks {
            rustix::io::write(fd, b"0").unwrap();
        }
        fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let own = joined.join().unwrap();
    assert!(own.lines().any(|l| l.ends_with(&format!(":pids:{}/sub", scratch.path))), "{own}");
    assert!(own.lines().any(|l| l.ends_with(&format!(":memory:{}", scratch.path))), "{own}");
    let refused = |controllers: &[&str], path: &str| {
        let sub = [(controllers.iter().map(|&c| c.to_owned()).collect(), path.to_owned())];
        scratch.cgroup.exec_join(&sub).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], "../x"), "bad sub cgroup path: ../x");
    assert_eq!(refused(&["nope"], "x"), "unknown controller nope in --cgroup");
    assert!(refused(&[], "absent").contains("ENOENT"));
}

#[test]
fn a_limit_without_its_controller_names_both() {
    let host = host!();
    if has(&host, "hugetlb") {
        skip!("this host has a v1 hugetlb hierarchy");
    }
    let scratch = Scratch::new(&host);
    let error = scratch.apply(V1, r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        ".linux.resources.hugepageLimits[0]: cannot set hugetlb limit: container could not join or create cgroup; \
         no cgroup v1 hierarchy has this controller"
    );
}

#[test]
fn a_refused_value_names_its_place() {
    let host = host!();
    let scratch = Scratch::new(&host);
    let error = scratch.apply(V1, r#"{"cpu":{"quota":50000,"period":1}}"#).unwrap_err().to_string();
    assert!(error.starts_with(".linux.resources.cpu.period: write(\""), "{error}");
    assert!(error.ends_with("cpu.cfs_period_us\", \"1\"): EINVAL (invalid argument)"), "{error}");
}

#[test]
fn oom_kills_are_counted() {
    let host = host!();
    let scratch = Scratch::new(&host);
    assert_eq!(scratch.cgroup.oom_kill_count(), Some(0));
    scratch.apply(V1, r#"{"memory":{"limit":4194304,"swap":4194304}}"#).unwrap();
    let mut shell = Shell::new();
    scratch.add(shell.pid());
    assert_ne!(shell.run("head -c 64M /dev/zero | tail"), 0);
    assert!(scratch.cgroup.oom_kill_count().unwrap() > 0);
}

#[test]
fn relative_paths_lie_below_the_own_cgroup_of_each_controller() {
    let host = host!();
    let id = name();
    let path = CgroupPath::parse("", &id);
    let cgroup = Cgroup::create(&host, &path, CreateOptions::default()).unwrap();
    let record = cgroup.record();
    cgroup.destroy().unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let memory = own.lines().find_map(|l| l.split_once(":memory:")).unwrap().1;
    let dir = record.dirs.iter().find(|d| d.controllers.iter().any(|c| c == "memory")).unwrap();
    assert!(dir.path.ends_with(&format!("{}/{id}", memory.trim_end_matches('/'))), "{}", dir.path);
}

#[test]
fn a_failed_create_leaves_nothing_behind() {
    let mut host = host!();
    let top = name();
    let mut broken = host.v1.iter().find(|m| m.controllers[0] != "name=systemd").unwrap().clone();
    broken.point = "/sys/fs/cgroup/creel-test-no-such-mount".to_owned();
    host.v1.push(broken);
    let error = Scratch::at(&host, format!("/{top}/x")).err().unwrap();
    assert!(matches!(error, Error::Call { call: "mkdir", .. }), "{error}");
    for mount in host.v1.iter().chain(&host.v2) {
        assert!(!fs::exists(format!("{}/{top}", mount.point)).unwrap());
    }
}
