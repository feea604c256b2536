//! Golden tests on directories that hold what a kernel wrote.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use super::*;
use crate::host::Mode;
use crate::record::{CgroupRecord, DirRecord, Owner};

/// A cgroup whose directories are in a temporary one: a file is `controller/name` on v1, a name on
/// v2.
struct Fixture {
    root: tempfile::TempDir,
    mode: Mode,
    rootless: bool,
}

impl Fixture {
    fn new(mode: Mode, files: &[(&str, &str)]) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Fixture { root, mode, rootless: false }
    }

    fn cgroup(&self) -> Cgroup {
        let dir = |controllers: &[&str], path: &Path| DirRecord {
            controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
            path: path.to_str().unwrap().to_owned(),
            made: 0,
        };
        let dirs = match self.mode {
            Mode::V2 => vec![dir(&[], self.root.path())],
            Mode::V1 | Mode::Hybrid => {
                let one = |name| dir(&[name], &self.root.path().join(name));
                ["cpuset", "memory", "pids", "blkio", "hugetlb"]
                    .into_iter()
                    .map(one)
                    .chain([dir(&["cpu", "cpuacct"], &self.root.path().join("cpu,cpuacct"))])
                    .collect()
            }
        };
        let (mode, rootless) = (self.mode, self.rootless);
        Cgroup::from_record(&CgroupRecord { mode, owner: Owner::Cgroupfs, rootless, dirs, unit: None })
    }

    fn json(&self) -> String {
        serde_json::to_string(&self.cgroup().stats().unwrap()).unwrap()
    }

    fn error(&self) -> String {
        self.cgroup().stats().unwrap_err().to_string()
    }
}

const V1: &[(&str, &str)] = &[
    ("cpu,cpuacct/cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 4000\n"),
    ("cpu,cpuacct/cpuacct.stat", "user 7\nsystem 2\n"),
    ("cpu,cpuacct/cpuacct.usage", "90000001\n"),
    ("cpu,cpuacct/cpuacct.usage_percpu", "50000000 40000001 \n"),
    ("cpu,cpuacct/cpuacct.usage_all", "cpu user system\n0 40000000 10000000\n1 30000001 10000000\n"),
    ("cpuset/cpuset.cpus", "0-1,4\n"),
    ("cpuset/cpuset.mems", "0\n"),
    ("cpuset/cpuset.sched_load_balance", "1\n"),
    ("cpuset/cpuset.sched_relax_domain_level", "-1\n"),
    ("memory/memory.stat", "cache 4096\nrss 8192\nhierarchical_memory_limit 33554432\nswap -12288\n"),
    ("memory/memory.usage_in_bytes", "12288\n"),
    ("memory/memory.max_usage_in_bytes", "16384\n"),
    ("memory/memory.limit_in_bytes", "33554432\n"),
    ("memory/memory.failcnt", "2\n"),
    ("memory/memory.kmem.usage_in_bytes", "100\n"),
    ("memory/memory.kmem.max_usage_in_bytes", "200\n"),
    ("memory/memory.kmem.failcnt", "0\n"),
    ("pids/pids.current", "3\n"),
    ("pids/pids.max", "max\n"),
    ("blkio/blkio.bfq.io_serviced_recursive", "Total 0\n"),
    ("blkio/blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Total 3\nTotal 3\n"),
    ("blkio/blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n"),
];

#[test]
fn v1_is_told_as_runc_tells_it() {
    let expected = concat!(
        r#"{"cpu":{"usage":{"total":90000001,"percpu":[50000000,40000001],"percpu_kernel":[10000000,10000000],"#,
        r#""percpu_user":[40000000,30000001],"kernel":20000000,"user":70000000},"#,
        r#""throttling":{"periods":10,"throttledPeriods":3,"throttledTime":4000}},"#,
        r#""cpuset":{"cpus":[0,1,4],"cpu_exclusive":0,"mems":[0],"mem_hardwall":0,"mem_exclusive":0,"#,
        r#""memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"#,
        r#""sched_load_balance":1,"sched_relax_domain_level":-1},"#,
        r#""memory":{"cache":4096,"usage":{"limit":33554432,"usage":12288,"max":16384,"failcnt":2},"#,
        r#""kernel":{"limit":0,"usage":100,"max":200,"failcnt":0},"#,
        r#""raw":{"cache":4096,"hierarchical_memory_limit":33554432,"rss":8192,"swap":0}},"#,
        r#""pids":{"current":3},"#,
        r#""blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":4096},{"major":8,"op":"Total","value":4096}],"#,
        r#""ioServicedRecursive":[{"major":8,"op":"Read","value":3},{"major":8,"op":"Total","value":3}]},"#,
        r#""hugetlb":{}}"#,
    );
    assert_eq!(Fixture::new(Mode::V1, V1).json(), expected);
    assert_eq!(Fixture::new(Mode::Hybrid, V1).json(), expected);
}

const V2: &[(&str, &str)] = &[
    (
        "cpu.stat",
        "usage_usec 900\nuser_usec 700\nsystem_usec 200\nnr_periods 4\nnr_throttled 1\nthrottled_usec 30\nnr_bursts 0\n",
    ),
    (
        "cpu.pressure",
        "some avg10=1.50 avg60=0.07 avg300=2.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    ),
    ("memory.stat", "anon 100\nfile 4096\n"),
    ("memory.current", "8192\n"),
    ("memory.max", "16384\n"),
    ("memory.peak", "9000\n"),
    ("memory.swap.current", "10\n"),
    ("memory.swap.max", "max\n"),
    ("pids.current", "2\n"),
    ("pids.max", "20\n"),
    ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n"),
];

#[test]
fn v2_is_told_as_runc_tells_it() {
    let expected = concat!(
        r#"{"cpu":{"usage":{"total":900000,"kernel":200000,"user":700000},"#,
        r#""throttling":{"periods":4,"throttledPeriods":1,"throttledTime":30000},"#,
        r#""psi":{"some":{"avg10":1.5,"avg60":0.07,"avg300":2,"total":123},"full":{"avg10":0,"avg60":0,"avg300":0,"total":7}}},"#,
        r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
        r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"#,
        r#""memory":{"cache":4096,"usage":{"limit":16384,"usage":8192,"max":9000,"failcnt":0},"#,
        r#""swap":{"limit":18446744073709551615,"usage":8202,"failcnt":0},"raw":{"anon":100,"file":4096}},"#,
        r#""pids":{"current":2,"limit":20},"#,
        r#""blkio":{"ioServiceBytesRecursive":[{"major":8,"minor":16,"op":"Read","value":1},{"major":8,"minor":16,"op":"Write","value":2}],"#,
        r#""ioServicedRecursive":[{"major":8,"minor":16,"op":"Read","value":3},{"major":8,"minor":16,"op":"Write","value":4}]},"#,
        r#""hugetlb":{}}"#,
    );
    assert_eq!(Fixture::new(Mode::V2, V2).json(), expected);
}

#[test]
fn a_cgroup_without_controllers_counts_its_processes() {
    let stats = Fixture::new(Mode::V2, &[("cgroup.procs", "1\n2\n3\n")]).cgroup().stats().unwrap();
    assert_eq!(stats.pids, Pids { current: 3, limit: 0 });
    assert_eq!(stats.memory, Memory::default());
    assert_eq!(stats.cpu.psi, None);
    assert_eq!(Fixture::new(Mode::V1, &[]).cgroup().stats().unwrap(), Stats::default());
}

#[test]
fn every_page_size_of_the_kernel_is_read() {
    let sizes = files::page_sizes();
    let Some(size) = sizes.first() else {
        eprintln!("skip: every_page_size_of_the_kernel_is_read: no huge pages in this kernel");
        return;
    };
    let reserved = [
        (format!("hugetlb.{size}.rsvd.current"), "10\n"),
        (format!("hugetlb.{size}.current"), "5\n"),
        (format!("hugetlb.{size}.events"), "max 4\n"),
    ];
    let reserved: Vec<(&str, &str)> = reserved.iter().map(|(file, text)| (file.as_str(), *text)).collect();
    let stats = Fixture::new(Mode::V2, &reserved).cgroup().stats().unwrap();
    assert_eq!(stats.hugetlb[size], Hugetlb { usage: 10, max: 0, failcnt: 4 });
    let stats = Fixture::new(Mode::V2, &reserved[1..]).cgroup().stats().unwrap();
    assert_eq!(stats.hugetlb[size], Hugetlb { usage: 5, max: 0, failcnt: 4 });
    let v1 = [
        (format!("hugetlb/hugetlb.{size}.usage_in_bytes"), "5\n"),
        (format!("hugetlb/hugetlb.{size}.max_usage_in_bytes"), "6\n"),
        (format!("hugetlb/hugetlb.{size}.failcnt"), "7\n"),
    ];
    let v1: Vec<(&str, &str)> = v1.iter().map(|(file, text)| (file.as_str(), *text)).collect();
    let stats = Fixture::new(Mode::V1, &v1).cgroup().stats().unwrap();
    assert_eq!(stats.hugetlb[size], Hugetlb { usage: 5, max: 6, failcnt: 7 });
}

#[test]
fn page_sizes_are_named_as_the_files_are() {
    for (directory, size) in [
        ("hugepages-64kB", Some("64KB")),
        ("hugepages-2048kB", Some("2MB")),
        ("hugepages-1048576kB", Some("1GB")),
        ("hugepages-2048MB", None),
        ("hugepages-kB", None),
    ] {
        assert_eq!(files::page_size(directory).as_deref(), size, "{directory}");
    }
}

#[test]
fn a_scheduler_with_more_counters_comes_first() {
    let all = |prefix: &str, minor: u64| {
        let file = |name: &str, value: u64| {
            (format!("blkio/{prefix}.{name}"), format!("8:{minor} {value}\nTotal {value}\n"))
        };
        vec![
            file("sectors_recursive", 1),
            file("io_queued_recursive", 2),
            file("time_recursive", 3),
            file("io_wait_time_recursive", 4),
            file("io_merged_recursive", 5),
            file("io_service_time_recursive", 6),
        ]
    };
    let (bfq, cfq) = (all("blkio.bfq", 1), all("blkio", 2));
    let both: Vec<(&str, &str)> = bfq.iter().chain(&cfq).map(|(f, t)| (f.as_str(), t.as_str())).collect();
    let blkio = |files: &[(&str, &str)]| Fixture::new(Mode::V1, files).cgroup().stats().unwrap().blkio;
    assert_eq!(blkio(&both).sectors_recursive[0].minor, 1);
    let of_cfq = blkio(&both[6..]);
    let entry = |value| vec![BlkioEntry { major: 8, minor: 2, op: String::new(), value }];
    assert_eq!(of_cfq.sectors_recursive, entry(1));
    assert_eq!(of_cfq.io_queued_recursive, entry(2));
    assert_eq!(of_cfq.io_time_recursive, entry(3));
    assert_eq!(of_cfq.io_wait_time_recursive, entry(4));
    assert_eq!(of_cfq.io_merged_recursive, entry(5));
    assert_eq!(of_cfq.io_service_time_recursive, entry(6));
    let plain = [("blkio/blkio.throttle.io_serviced", "8:0 Read 9\n")];
    assert_eq!(blkio(&plain).io_serviced_recursive[0].value, 9);
}

#[test]
fn a_file_that_makes_no_sense_is_named() {
    for (mode, file, content) in [
        (Mode::V1, "memory/memory.stat", "cache\n"),
        (Mode::V1, "cpuset/cpuset.cpus", "3-1\n"),
        (Mode::V1, "pids/pids.current", "many\n"),
        (Mode::V1, "cpu,cpuacct/cpuacct.usage_percpu", "1 x\n"),
        (Mode::V1, "cpu,cpuacct/cpuacct.usage_all", "cpu user system\n0 1\n"),
        (Mode::V1, "blkio/blkio.throttle.io_serviced", "8 Read 1\n"),
        (Mode::V2, "cpu.pressure", "some avg10=x\n"),
        (Mode::V2, "io.stat", "8:0 rbytes=x\n"),
        (Mode::V2, "cpu.stat", "usage_usec -x\n"),
    ] {
        let error = Fixture::new(mode, &[(file, content)]).error();
        assert!(error.contains(file) && error.contains("unexpected content"), "{error}");
    }
}

#[test]
fn a_watch_on_v2_tells_kills_and_the_end() {
    let fixture = Fixture::new(
        Mode::V2,
        &[("memory.events", "oom 0\noom_kill 1\n"), ("cgroup.events", "populated 1\nfrozen 0\n")],
    );
    let write = |file: &str, text: &str| std::fs::write(fixture.root.path().join(file), text).unwrap();
    let cgroup = fixture.cgroup();
    let watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.next().unwrap(), OomEvent::Nothing);
    write("memory.events", "oom 1\noom_kill 2\n");
    assert_eq!(watch.next().unwrap(), OomEvent::Oom);
    assert_eq!(watch.next().unwrap(), OomEvent::Nothing);
    write("memory.events", "oom 2\noom_kill 3\n");
    write("cgroup.events", "populated 0\nfrozen 0\n");
    assert_eq!(watch.next().unwrap(), OomEvent::Oom);
    assert_eq!(watch.next().unwrap(), OomEvent::Gone);
    drop(watch);
    std::fs::remove_file(fixture.root.path().join("memory.events")).unwrap();
    write("cgroup.events", "populated 1\n");
    let cgroup = fixture.cgroup();
    let watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.next().unwrap(), OomEvent::Nothing);
    write("cgroup.events", "populated 0\n");
    assert_eq!(watch.next().unwrap(), OomEvent::Gone);
}
