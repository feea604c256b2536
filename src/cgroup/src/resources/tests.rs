//! Golden lists: one JSON fragment, the writes on v1 and on v2.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

fn lines(json: &str, hierarchy: Hierarchy) -> Vec<String> {
    let line = |w: &FileWrite| {
        let missing = match &w.if_missing {
            IfMissing::Fail => String::new(),
            IfMissing::Skip => " (or skip)".to_owned(),
            IfMissing::Instead { file, value } => format!(" (or {file} = {value})"),
        };
        format!("{} = {}{}{missing}", w.file, w.value, if w.reorder { " ~" } else { "" })
    };
    plan_writes(&resources(json), hierarchy).unwrap().iter().map(line).collect()
}

fn invalid(json: &str, hierarchy: Hierarchy) -> String {
    plan_writes(&resources(json), hierarchy).unwrap_err().to_string()
}

#[track_caller]
fn golden(json: &str, v1: &[&str], v2: &[&str]) {
    assert_eq!(lines(json, Hierarchy::V1), v1, "v1");
    assert_eq!(lines(json, Hierarchy::V2), v2, "v2");
}

#[test]
fn nothing_asked_nothing_written() {
    golden("{}", &[], &[]);
    golden(r#"{"memory":{},"cpu":{},"pids":{},"blockIO":{},"network":{}}"#, &[], &[]);
    golden(r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0}}"#, &[], &[]);
}

#[test]
fn memory_limits() {
    golden(
        r#"{"memory":{"limit":536870912,"swap":1073741824,"reservation":268435456,"kernel":1,"kernelTCP":2,
            "swappiness":10,"disableOOMKiller":true}}"#,
        &[
            "memory.limit_in_bytes = 536870912 ~",
            "memory.memsw.limit_in_bytes = 1073741824 ~",
            "memory.soft_limit_in_bytes = 268435456",
            "memory.oom_control = 1",
            "memory.swappiness = 10",
        ],
        &["memory.swap.max = 536870912", "memory.max = 536870912", "memory.low = 268435456"],
    );
}

#[test]
fn memory_without_limit() {
    golden(
        r#"{"memory":{"limit":-1,"reservation":-1}}"#,
        &[
            "memory.limit_in_bytes = -1 ~",
            "memory.memsw.limit_in_bytes = -1 ~ (or skip)",
            "memory.soft_limit_in_bytes = -1",
        ],
        &["memory.swap.max = max (or skip)", "memory.max = max", "memory.low = max"],
    );
}

#[test]
fn memory_without_swap() {
    golden(
        r#"{"memory":{"limit":4096,"swap":4096}}"#,
        &["memory.limit_in_bytes = 4096 ~", "memory.memsw.limit_in_bytes = 4096 ~"],
        &["memory.swap.max = 0 (or skip)", "memory.max = 4096"],
    );
}

#[test]
fn check_before_update_guards_the_v2_limits() {
    let json = r#"{"memory":{"limit":4096,"swap":8192,"checkBeforeUpdate":true}}"#;
    let guards: Vec<Option<u64>> =
        plan_writes(&resources(json), Hierarchy::V2).unwrap().iter().map(|w| w.above_usage).collect();
    assert_eq!(guards, [Some(8192), Some(4096)]);
}

#[test]
fn cpu_and_cpuset() {
    golden(
        r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":1000,"idle":1,"cpus":"0-1","mems":"0",
            "realtimeRuntime":5000,"realtimePeriod":1000000}}"#,
        &[
            "cpuset.cpus = 0-1",
            "cpuset.mems = 0",
            "cpu.shares = 1024",
            "cpu.cfs_period_us = 100000 ~",
            "cpu.cfs_quota_us = 50000 ~",
            "cpu.cfs_burst_us = 1000 ~ (or skip)",
            "cpu.idle = 1",
            "cpu.rt_period_us = 1000000 ~",
            "cpu.rt_runtime_us = 5000 ~",
        ],
        &[
            "cpuset.cpus = 0-1",
            "cpuset.mems = 0",
            "cpu.weight = 100",
            "cpu.max = 50000 100000 ~",
            "cpu.max.burst = 1000 ~",
            "cpu.idle = 1",
        ],
    );
}

#[test]
fn cpu_without_quota_and_leaving_idle() {
    golden(
        r#"{"cpu":{"quota":-1,"shares":2,"idle":0}}"#,
        &["cpu.idle = 0", "cpu.shares = 2", "cpu.cfs_quota_us = -1 ~"],
        &["cpu.idle = 0", "cpu.weight = 1", "cpu.max = max 100000 ~"],
    );
    assert_eq!(lines(r#"{"cpu":{"period":5000}}"#, Hierarchy::V2), ["cpu.max = max 5000 ~"]);
}

#[test]
fn pids_limit() {
    for (limit, value) in [("10", "10"), ("0", "1"), ("-1", "max"), ("-5", "max")] {
        let want = format!("pids.max = {value}");
        golden(&format!(r#"{{"pids":{{"limit":{limit}}}}}"#), &[&want], &[&want]);
    }
}

#[test]
fn block_io() {
    golden(
        r#"{"blockIO":{"weight":100,"leafWeight":20,
            "weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
            "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
            "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":4}]}}"#,
        &[
            "blkio.weight = 100 (or blkio.bfq.weight = 100)",
            "blkio.leaf_weight = 20",
            "blkio.weight_device = 8:0 500 (or blkio.bfq.weight_device = 8:0 500)",
            "blkio.leaf_weight_device = 8:0 300",
            "blkio.throttle.read_bps_device = 8:0 1",
            "blkio.throttle.write_bps_device = 8:0 2",
            "blkio.throttle.read_iops_device = 8:0 3",
            "blkio.throttle.write_iops_device = 8:16 4",
        ],
        &[
            "io.bfq.weight = 100 (or io.weight = 910)",
            "io.bfq.weight = 8:0 500 (or io.weight = 8:0 4950)",
            "io.max = 8:0 rbps=1",
            "io.max = 8:0 wbps=2",
            "io.max = 8:0 riops=3",
            "io.max = 8:16 wiops=4",
        ],
    );
}

#[test]
fn hugetlb_network_and_rdma() {
    golden(
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
            "network":{"classID":1048577,"priorities":[{"name":"lo","priority":5}]},
            "rdma":{"mlx4_0":{"hcaHandles":2,"hcaObjects":3},"mlx5_1":{"hcaObjects":4}}}"#,
        &[
            "hugetlb.2MB.limit_in_bytes = 4194304",
            "hugetlb.2MB.rsvd.limit_in_bytes = 4194304 (or skip)",
            "net_cls.classid = 1048577",
            "net_prio.ifpriomap = lo 5",
            "rdma.max = mlx4_0 hca_handle=2 hca_object=3",
            "rdma.max = mlx5_1 hca_object=4",
        ],
        &[
            "hugetlb.2MB.max = 4194304",
            "hugetlb.2MB.rsvd.max = 4194304 (or skip)",
            "rdma.max = mlx4_0 hca_handle=2 hca_object=3",
            "rdma.max = mlx5_1 hca_object=4",
        ],
    );
}

#[test]
fn unified_comes_last_on_v2_and_is_an_error_on_v1() {
    let json = r#"{"unified":{"memory.high":"1000","cgroup.max.depth":"3"},"pids":{"limit":3}}"#;
    assert_eq!(lines(json, Hierarchy::V2), ["pids.max = 3", "cgroup.max.depth = 3", "memory.high = 1000"]);
    assert_eq!(
        invalid(json, Hierarchy::V1),
        ".linux.resources.unified: invalid configuration: cannot use unified on cgroup v1"
    );
}

#[test]
fn wrong_values_name_their_place() {
    let cases = [
        (
            Hierarchy::V2,
            r#"{"memory":{"limit":2,"swap":1}}"#,
            ".linux.resources.memory.swap: memory+swap limit should be >= memory limit",
        ),
        (
            Hierarchy::V2,
            r#"{"unified":{"a/b.c":"1"}}"#,
            ".linux.resources.unified[\"a/b.c\"]: unified resource \"a/b.c\" must be a file name (no slashes)",
        ),
        (
            Hierarchy::V2,
            r#"{"unified":{"memory":"1"}}"#,
            ".linux.resources.unified[\"memory\"]: unified resource \"memory\" must be in the form CONTROLLER.PARAMETER",
        ),
        (
            Hierarchy::V1,
            r#"{"memory":{"swappiness":101}}"#,
            ".linux.resources.memory.swappiness: invalid memory swappiness value: 101 (valid range is 0-100)",
        ),
        (
            Hierarchy::V1,
            r#"{"cpu":{"shares":1}}"#,
            ".linux.resources.cpu.shares: the minimum allowed cpu-shares is 2",
        ),
        (
            Hierarchy::V1,
            r#"{"cpu":{"shares":262145}}"#,
            ".linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144",
        ),
        (
            Hierarchy::V1,
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
            ".linux.resources.hugepageLimits[0].pageSize: \"../x\" is no page size; expected one such as \"2MB\"",
        ),
        (
            Hierarchy::V1,
            r#"{"rdma":{"a b":{}}}"#,
            ".linux.resources.rdma[\"a b\"]: no RDMA device has such a name",
        ),
    ];
    for (hierarchy, json, want) in cases {
        assert_eq!(invalid(json, hierarchy), want);
    }
}
