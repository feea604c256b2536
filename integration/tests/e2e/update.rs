//! update: other limits for a container that has some.

use creel_integration::{Container, cgroups, is_creel, needs_runc, skip};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// A created container with limits, when this machine has the controllers.
fn limited() -> Option<Container> {
    if ["memory", "cpu", "pids"].iter().any(|controller| cgroups::mount(controller).is_none()) {
        return None;
    }
    let mut container = Container::idle();
    container.bundle.set(
        "linux/resources",
        json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": 64 * MIB, "reservation": 32 * MIB },
            "cpu": { "shares": 512, "quota": 20_000, "period": 50_000 },
            "pids": { "limit": 20 },
        }),
    );
    container.create();
    Some(container)
}

macro_rules! limited {
    () => {
        match limited() {
            Some(container) => container,
            None => skip!("no memory, cpu or pids controller"),
        }
    };
}

/// What is in force: memory limit and soft limit, shares or weight, quota, period, number of processes.
#[derive(Debug, Clone, PartialEq)]
struct Limits {
    memory: String,
    reservation: String,
    shares: String,
    quota: String,
    period: String,
    pids: String,
}

impl Limits {
    fn memory(container: &Container) -> String {
        let file = if cgroups::is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        cgroups::read("memory", &container.cgroup(), file).unwrap()
    }

    fn of(container: &Container) -> Limits {
        let read =
            |controller: &str, file: &str| cgroups::read(controller, &container.cgroup(), file).unwrap();
        let pids = read("pids", "pids.max");
        if cgroups::is_v2() {
            let max = read("cpu", "cpu.max");
            let (quota, period) = max.split_once(' ').unwrap();
            return Limits {
                memory: Limits::memory(container),
                reservation: read("memory", "memory.low"),
                shares: read("cpu", "cpu.weight"),
                quota: quota.to_owned(),
                period: period.to_owned(),
                pids,
            };
        }
        Limits {
            memory: Limits::memory(container),
            reservation: read("memory", "memory.soft_limit_in_bytes"),
            shares: read("cpu", "cpu.shares"),
            quota: read("cpu", "cpu.cfs_quota_us"),
            period: read("cpu", "cpu.cfs_period_us"),
            pids,
        }
    }
}

fn bytes(mib: u64) -> String {
    (mib * MIB).to_string()
}

#[test]
fn each_flag_changes_its_limit_and_no_other() {
    let container = limited!();
    let mut expected = Limits::of(&container);
    assert_eq!((expected.quota.as_str(), expected.period.as_str()), ("20000", "50000"));
    let mut check = |flags: [&str; 2], change: &dyn Fn(&mut Limits)| {
        container.call("update", &flags).output().ok();
        change(&mut expected);
        assert_eq!(Limits::of(&container), expected, "{flags:?}");
    };
    check(["--memory", "96m"], &|limits| limits.memory = bytes(96));
    check(["--memory-reservation", "33554433"], &|limits| limits.reservation = bytes(32));
    check(["--memory-reservation", "16MiB"], &|limits| limits.reservation = bytes(16));
    check(["--cpu-quota", "30000"], &|limits| limits.quota = "30000".to_owned());
    check(["--cpu-period", "60000"], &|limits| limits.period = "60000".to_owned());
    check(["--pids-limit", "10"], &|limits| limits.pids = "10".to_owned());
    check(["--pids-limit", "-1"], &|limits| limits.pids = "max".to_owned());
    let shares = if cgroups::is_v2() { "174" } else { "2048" };
    check(["--cpu-share", "2048"], &|limits| limits.shares = shares.to_owned());
    check(["--kernel-memory", "16777216"], &|_| {});
    check(["--kernel-memory-tcp", "16777216"], &|_| {});
}

#[test]
fn period_and_quota_change_together() {
    let container = limited!();
    for (period, quota) in [("100000", "50000"), ("1000", "1000"), ("1000000", "900000"), ("50000", "20000")]
    {
        container.call("update", &["--cpu-period", period, "--cpu-quota", quota]).output().ok();
        let limits = Limits::of(&container);
        assert_eq!((limits.quota.as_str(), limits.period.as_str()), (quota, period));
    }
    container.call("update", &["--cpu-quota", "-1"]).output().ok();
    let limits = Limits::of(&container);
    let none = if cgroups::is_v2() { "max" } else { "-1" };
    assert_eq!((limits.quota.as_str(), limits.period.as_str()), (none, "50000"));
}

#[test]
fn memory_and_swap_rise_and_fall_together() {
    let container = limited!();
    let file = if cgroups::is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let both = || cgroups::read("memory", &container.cgroup(), file);
    if both().is_none() {
        skip!("no swap accounting");
    }
    for (memory, swap) in [(64, 96), (128, 160), (32, 32), (48, 64)] {
        let (memory, swap) = (memory * MIB, swap * MIB);
        let flags = ["--memory", &memory.to_string(), "--memory-swap", &swap.to_string()];
        container.call("update", &flags).output().ok();
        assert_eq!(Limits::of(&container).memory, memory.to_string());
        let expected = if cgroups::is_v2() { swap - memory } else { swap };
        assert_eq!(both().unwrap(), expected.to_string(), "{flags:?}");
    }
    container.call("update", &["--memory-swap", &bytes(80)]).output().ok();
    let expected = if cgroups::is_v2() { bytes(80 - 48) } else { bytes(80) };
    assert_eq!((Limits::of(&container).memory, both().unwrap()), (bytes(48), expected));
    container.call("update", &["--memory", "-1"]).output().ok();
    let limits = Limits::of(&container);
    assert!(limits.memory == "max" || limits.memory.parse::<u64>().unwrap() > u64::MAX / 4, "{limits:?}");
}

#[test]
fn document_comes_from_a_file_or_standard_input() {
    let container = limited!();
    let before = Limits::of(&container);
    let document =
        |pids: u64| json!({ "memory": { "limit": 80 * MIB }, "pids": { "limit": pids } }).to_string();
    let file = container.scratch().file("resources.json", document(7));
    let output = container.call("update", &["-r", file.to_str().unwrap(), "--cpu-share", "100"]).output();
    output.ok();
    let expected = Limits { memory: bytes(80), pids: "7".to_owned(), ..before };
    assert_eq!(Limits::of(&container), expected, "with a document the flags are ignored");
    let file = container.scratch().file("stdin.json", document(8));
    let stdin = std::fs::File::open(file).unwrap();
    container.call("update", &["--resources", "-"]).stdin(stdin).output().ok();
    assert_eq!(Limits::of(&container), Limits { pids: "8".to_owned(), ..expected.clone() });
    for (text, words) in [("", "empty"), ("{", "line 1"), (r#"{"pids":{"limit":"x"}}"#, ".pids.limit")] {
        let file = container.scratch().file("wrong.json", text);
        let output = container.call("update", &["-r", file.to_str().unwrap()]).output().exits(1);
        output.creel_says(&["update", container.id(), words]);
    }
    container.call("update", &["-r", "/nonexistent"]).output().exits(1);
    assert_eq!(Limits::of(&container).pids, "8");
}

#[test]
fn refused_value_leaves_all_as_it_was() {
    let container = limited!();
    let before = Limits::of(&container);
    // A quota below one millisecond is none (EINVAL), and comes after memory and shares.
    let flags = ["--memory", "48m", "--cpu-share", "100", "--cpu-quota", "10"];
    container.call("update", &flags).output().exits(1).creel_says(&[".linux.resources.cpu.quota", "EINVAL"]);
    if is_creel() {
        assert_eq!(Limits::of(&container), before);
    }
    for flags in [["--memory", "12x"], ["--cpu-share", "x"], ["--cpu-period", "-1"], ["--pids-limit", "many"]]
    {
        container.call("update", &flags).output().exits(1).says(&[flags[0].trim_start_matches('-')]);
    }
    container.call("update", &["--l3-cache-schema", "L3:0=f"]).output().exits(1).says(&["Intel RDT/CAT"]);
    container.call("update", &["--mem-bw-schema", "MB:0=10"]).output().exits(1).says(&["Intel RDT/MBA"]);
}

#[test]
fn limit_below_what_is_in_use_is_refused() {
    if cgroups::mount("memory").is_none() {
        skip!("no memory controller");
    }
    let mut container =
        Container::shell("x=$(head -c 30000000 /dev/zero | tr '\\0' x); touch /ready; sleep 1000; echo $x");
    let swap = cgroups::is_v2() || cgroups::read("memory", "/", "memory.memsw.limit_in_bytes").is_some();
    container.bundle.set("linux/resources/memory", json!({ "limit": 200 * MIB }));
    if swap {
        container.bundle.set("linux/resources/memory/swap", 200 * MIB);
    }
    container.run_detached();
    container.wait_file("ready");
    let mut memory = json!({ "limit": 8 * MIB, "checkBeforeUpdate": true });
    if swap {
        // Else what is in use goes to the swap.
        memory["swap"] = json!(8 * MIB);
    }
    let file = container.scratch().file("resources.json", json!({ "memory": memory }).to_string());
    let output = container.call("update", &["-r", file.to_str().unwrap()]).output().exits(1);
    output.creel_says(&[".linux.resources.memory."]);
    assert_eq!(Limits::memory(&container), bytes(200));
    assert_eq!(container.status(), "running");
    container.call("update", &["--memory", "150m"]).output().ok();
    container.stop_and_delete();
}

#[test]
fn stopped_and_missing_containers_have_no_limits_to_change() {
    let container = limited!();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    container.call("update", &["--pids-limit", "5"]).output().exits(1).says(&["container not running"]);
    container.delete();
    container.call("update", &["--pids-limit", "5"]).output().exits(1).says(&["container does not exist"]);
    container.cmd(["update"]).output().exits(1).says(&["requires exactly 1 argument"]);
}

#[test]
fn running_and_paused_containers_are_updated() {
    let container = limited!();
    container.start();
    container.call("update", &["--pids-limit", "11"]).output().ok();
    if !cgroups::freeze(&container.cgroup(), true) {
        skip!("no freezer");
    }
    container.call("update", &["--pids-limit", "12"]).output().ok();
    assert_eq!(Limits::of(&container).pids, "12");
    assert_eq!(container.status(), "paused");
    cgroups::freeze(&container.cgroup(), false);
    container.stop_and_delete();
}

#[test]
fn burst_and_idle_are_set() {
    needs_runc!(2, "--cpu-burst");
    let container = limited!();
    let (burst, value) =
        if cgroups::is_v2() { ("cpu.max.burst", "10000") } else { ("cpu.cfs_burst_us", "10000") };
    if cgroups::read("cpu", &container.cgroup(), burst).is_none()
        || cgroups::read("cpu", &container.cgroup(), "cpu.idle").is_none()
    {
        skip!("this kernel has no burst or no idle cgroups");
    }
    container.call("update", &["--cpu-burst", "10000"]).output().ok();
    assert_eq!(cgroups::read("cpu", &container.cgroup(), burst).unwrap(), value);
    for idle in ["1", "0"] {
        container.call("update", &["--cpu-idle", idle]).output().ok();
        assert_eq!(cgroups::read("cpu", &container.cgroup(), "cpu.idle").unwrap(), idle);
    }
    container.call("update", &["--cpu-share", "400"]).output().ok();
}

#[test]
fn processors_and_memory_nodes_are_chosen() {
    if cgroups::mount("cpuset").is_none() {
        skip!("no cpuset controller");
    }
    let container = limited!();
    for (flag, file) in [("--cpuset-cpus", "cpuset.cpus"), ("--cpuset-mems", "cpuset.mems")] {
        container.call("update", &[flag, "0"]).output().ok();
        assert_eq!(cgroups::read("cpuset", &container.cgroup(), file).unwrap(), "0");
    }
    container.call("update", &["--cpuset-cpus", "none"]).output().exits(1).says(&["cpus"]);
    assert_eq!(cgroups::read("cpuset", &container.cgroup(), "cpuset.cpus").unwrap(), "0");
}

#[test]
fn weight_of_block_io_is_set() {
    let container = limited!();
    let controller = if cgroups::is_v2() { "io" } else { "blkio" };
    let file = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"]
        .into_iter()
        .find(|file| cgroups::read(controller, &container.cgroup(), file).is_some());
    let Some(file) = file else { skip!("no scheduler here that weighs block I/O") };
    container.call("update", &["--blkio-weight", "300"]).output().ok();
    let value = cgroups::read(controller, &container.cgroup(), file).unwrap();
    // 10 to 1000 are 1 to 10000 there.
    let expected = if file == "io.weight" { "2930" } else { "300" };
    assert_eq!(value.trim_start_matches("default "), expected);
    if is_creel() {
        // runc takes the lowest sixteen bits of it.
        let output = container.call("update", &["--blkio-weight", "65836"]).output().exits(1);
        output.says(&["invalid value for blkio-weight: 65836"]);
    }
    let words = ["for flag -blkio-weight: parse error"];
    container.call("update", &["--blkio-weight", "heavy"]).output().exits(1).says(&words);
}

#[test]
fn realtime_is_set_or_its_file_is_named() {
    let container = limited!();
    if cgroups::read("cpu", &container.cgroup(), "cpu.rt_runtime_us").is_none() {
        skip!("this kernel does not divide realtime among cgroups");
    }
    // The runtime of the parent is 0 unless somebody gave it some: then no child can have any.
    container.call("update", &["--cpu-rt-period", "900000"]).output().ok();
    assert_eq!(cgroups::read("cpu", &container.cgroup(), "cpu.rt_period_us").unwrap(), "900000");
    let output = container.call("update", &["--cpu-rt-runtime", "1000"]).output();
    if output.code() == 0 {
        assert_eq!(cgroups::read("cpu", &container.cgroup(), "cpu.rt_runtime_us").unwrap(), "1000");
    } else {
        output.exits(1).says(&["cpu.rt_runtime_us"]);
    }
}
