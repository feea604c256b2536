//! Golden cgroups: a hierarchy, a path and resources against the directories, the writes and the
//! device rules that follow, one file a case. Nothing here touches a cgroup.
//!
//! `UPDATE_GOLDEN=1 cargo test -p creel-cgroup --test golden` writes the files anew; the difference
//! is then for a person to read.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use creel_cgroup::{CgroupPath, FileWrite, Host, IfMissing, Mode, OwnCgroups, devices, plan_writes};
use creel_plan::spec::Resources;
use serde_json::{Value, json};

const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "\
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
35 30 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
36 30 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
37 30 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
38 30 0:34 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
39 30 0:35 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb
40 30 0:36 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio
";
const UNIFIED: &str = "41 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

/// Cgroups of root's shell.
const ROOT: &str = "\
11:net_cls,net_prio:/
10:hugetlb:/
9:blkio:/user.slice
8:cpuset:/
7:pids:/user.slice/session-1.scope
6:freezer:/
5:devices:/user.slice
4:memory:/user.slice/session-1.scope
3:cpu,cpuacct:/user.slice
1:name=systemd:/user.slice/session-1.scope
0::/user.slice/session-1.scope
";
/// Cgroups of a user's shell, in a v2 subtree that is the user's.
const USER: &str = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope\n";

struct Case {
    name: String,
    host: Host,
    own: &'static str,
    path: &'static str,
    resources: Value,
}

fn hosts() -> [(&'static str, Host); 3] {
    let host = |text: &str| Host::from_mountinfo(text).unwrap();
    [("v1", host(V1)), ("v2", host(V2)), ("hybrid", host(&format!("{V1}{UNIFIED}")))]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let inputs = [
        ("nothing", ROOT, "", json!({})),
        ("kubernetes", ROOT, "/kubepods/burstable/pod1/web", kubernetes()),
        ("everything", ROOT, "jobs/web", everything()),
        ("devices", ROOT, "/devices-of-web", json!({ "devices": device_rules() })),
        (
            "unified",
            ROOT,
            "/web",
            json!({ "unified": { "memory.high": "1G", "cgroup.max.depth": "3", "io.max": "8:0 rbps=1" } }),
        ),
    ];
    for (host_name, host) in hosts() {
        for (name, own, path, resources) in &inputs {
            let (name, host, resources) = (format!("{name}-{host_name}"), host.clone(), resources.clone());
            cases.push(Case { name, host, own, path, resources });
        }
    }
    let [_, (_, v2), (_, hybrid)] = hosts();
    let limits = json!({ "memory": { "limit": 33_554_432 }, "pids": { "limit": 64 } });
    cases.push(Case { name: "rootless-v2".into(), host: v2, own: USER, path: "", resources: limits.clone() });
    cases.push(Case {
        name: "limits-relative-hybrid".into(),
        host: hybrid,
        own: ROOT,
        path: "",
        resources: limits,
    });
    cases
}

fn kubernetes() -> Value {
    json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "memory": { "limit": 268_435_456, "reservation": 134_217_728, "swap": 268_435_456 },
        "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-3", "mems": "0" },
        "pids": { "limit": 200 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }, { "pageSize": "1GB", "limit": 0 }],
    })
}

fn everything() -> Value {
    json!({
        "devices": [{ "allow": true, "access": "rwm" }],
        "memory": { "limit": -1, "reservation": 1024, "swap": -1, "kernel": 5, "kernelTCP": 6, "swappiness": 60,
            "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true },
        "cpu": { "shares": 2048, "quota": 20_000, "burst": 5000, "period": 40_000, "realtimeRuntime": 100,
            "realtimePeriod": 1000, "idle": 1 },
        "pids": { "limit": 0 },
        "blockIO": { "weight": 500, "leafWeight": 300,
            "weightDevice": [{ "major": 8, "minor": 0, "weight": 100, "leafWeight": 200 }],
            "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1 }],
            "throttleWriteBpsDevice": [{ "major": 8, "minor": 0, "rate": 2 }],
            "throttleReadIOPSDevice": [{ "major": 8, "minor": 0, "rate": 3 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 4 }] },
        "network": { "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 7 }] },
        "rdma": { "mlx5_0": { "hcaHandles": 3, "hcaObjects": 100 } },
    })
}

fn device_rules() -> Value {
    json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
        { "allow": true, "type": "b", "major": 8, "access": "r" },
        { "allow": true, "type": "c", "major": 4, "minor": -1, "access": "rw" },
    ])
}

fn printed(case: &Case) -> String {
    let mut text = format!("{:?}, own cgroups:\n", case.host.mode);
    case.own.lines().for_each(|line| writeln!(text, "  {line}").unwrap());
    writeln!(text, "path {:?}\n", case.path).unwrap();
    let path = CgroupPath::parse(case.path, "web");
    for layout in path.layouts(&case.host, &OwnCgroups::from_text(case.own)) {
        let controllers =
            if layout.controllers.is_empty() { "unified".into() } else { layout.controllers.join(",") };
        writeln!(text, "directory {}/{} ({controllers})", layout.mount, layout.inner).unwrap();
    }
    let resources: Resources = serde_json::from_value(case.resources.clone()).unwrap();
    match plan_writes(&resources, case.host.mode.hierarchy()) {
        Ok(writes) => writes.iter().for_each(|write| text.push_str(&write_line(write))),
        Err(invalid) => writeln!(text, "refused   {invalid}").unwrap(),
    }
    let rules = devices::plan_rules(&resources).unwrap();
    rules.iter().for_each(|rule| writeln!(text, "rule      {rule}").unwrap());
    if case.host.mode == Mode::V2 {
        let program = devices::v2_program(&rules).unwrap();
        writeln!(text, "program   {} instructions", program.len()).unwrap();
    } else {
        for write in devices::v1_writes(&rules).unwrap() {
            let file = if write.allow { "devices.allow" } else { "devices.deny" };
            writeln!(text, "write     {file} = {:?}", write.line).unwrap();
        }
    }
    text
}

fn write_line(write: &FileWrite) -> String {
    let mut line = format!("write     {write}");
    match &write.if_missing {
        IfMissing::Fail => {}
        IfMissing::Skip => line.push_str(", if it exists"),
        IfMissing::Instead { file, value } => write!(line, ", or {file} = {value:?}").unwrap(),
    }
    if write.reorder {
        line.push_str(", in any order");
    }
    if let Some(bytes) = write.above_usage {
        write!(line, ", above {bytes} bytes in use refused").unwrap();
    }
    format!("{line} # {}\n", write.at)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn cgroups_are_as_committed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let path = directory().join(format!("{}.txt", case.name));
        let now = printed(&case);
        if update {
            std::fs::write(&path, &now).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if now != golden {
            wrong.push(format!("{}: expected\n{golden}\nfound\n{now}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts these", wrong.join("\n"));
}

#[test]
fn every_golden_file_has_its_case() {
    let names: Vec<String> = cases().iter().map(|case| format!("{}.txt", case.name)).collect();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{name}");
    }
}
