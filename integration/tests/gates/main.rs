//! What a command costs where no clock is needed to tell: system calls, page faults, instructions of
//! the user side, and the binary itself. `limits.json` says how much each may be; a change that makes
//! one larger fails here, on any machine and under any load, and not months later in a benchmark.
//!
//! `UPDATE_LIMITS=1` writes what is measured into limits.json, with a little room. A limit that grows
//! wants its reason in the commit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use creel_integration::scratch::Scratch;
use creel_integration::{Cmd, Container, Runtime, skip, wait};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

/// By kind of cost, then by command.
type Costs = BTreeMap<String, BTreeMap<String, u64>>;

/// Percent added when limits are written, for what differs between machines: cgroup hierarchies and
/// the depth of a directory; the compiler.
const ROOM: [(&str, u64); 5] =
    [("syscalls", 6), ("faults", 12), ("instructions", 12), ("bytes", 5), ("relocations", 10)];

/// Page faults are those of the best of so many rounds: the first may find a page not in memory.
const ROUNDS: u32 = 5;

#[test]
fn commands_stay_within_their_limits() {
    let tools = ["strace", "valgrind", "readelf"];
    if let Some(missing) = tools.into_iter().find(|tool| which(tool).is_none()) {
        skip!("{missing} is not installed");
    }
    if !Path::new("/sys/fs/cgroup/memory").is_dir() {
        skip!("the limits are those of a host with cgroup v1, which takes the most system calls");
    }
    let path = Runtime::under_test().path();
    if fs::read(path).unwrap().windows(13).any(|text| text == b"GNU C Library") {
        skip!("the limits are those of a creel that is built with musl (hack/build.sh)");
    }
    let mut costs = Costs::new();
    binary(path, &mut costs);
    // How much of a file one page fault maps depends on how the page cache came to have it; not so
    // with a tmpfs.
    let place = Scratch::new();
    let runtime = on_tmpfs(path, &place);
    let sleeper = pod(&runtime, &["/bin/sh", "-c", "touch /ready; sleep 100"]);
    let short = pod(&runtime, &["/bin/true"]);
    // The first container with a profile compiles and keeps the filter.
    for container in [&sleeper, &short] {
        container.create();
        container.stop_and_delete();
    }
    system_calls(&sleeper, &short, &mut costs);
    for _ in 0..ROUNDS {
        page_faults(&sleeper, &short, &mut costs);
    }
    user_side(&sleeper, &mut costs);

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gates/limits.json");
    if std::env::var_os("UPDATE_LIMITS").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&with_room(costs)).unwrap() + "\n").unwrap();
        return;
    }
    let limits: Costs = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let wrong = complaints(&limits, &costs);
    eprintln!("{}", serde_json::to_string_pretty(&costs).unwrap());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What costs more than its limit, has none, or was not measured.
fn complaints(limits: &Costs, costs: &Costs) -> Vec<String> {
    let pairs = |of: &Costs| -> Vec<(String, String)> {
        let kind = |(kind, names): (&String, &BTreeMap<String, u64>)| {
            names.keys().map(|name| (kind.clone(), name.clone())).collect::<Vec<_>>()
        };
        of.iter().flat_map(kind).collect()
    };
    let mut all = [pairs(limits), pairs(costs)].concat();
    all.sort();
    all.dedup();
    let amount = |of: &Costs, kind: &str, name: &str| of.get(kind).and_then(|names| names.get(name)).copied();
    all.iter()
        .filter_map(|(kind, name)| match (amount(limits, kind, name), amount(costs, kind, name)) {
            (Some(limit), Some(cost)) if cost <= limit => None,
            (Some(limit), Some(cost)) => Some(format!("{kind} of {name}: {cost}, limit {limit}")),
            (None, _) => Some(format!("{kind} of {name}: no limit")),
            (_, None) => Some(format!("{kind} of {name}: not measured")),
        })
        .collect()
}

#[test]
fn what_has_no_limit_or_was_not_measured_is_complained_of() {
    let costs = |amount| Costs::from([("syscalls".to_owned(), BTreeMap::from([("run".to_owned(), amount)]))]);
    assert_eq!(complaints(&costs(10), &costs(10)), [""; 0]);
    assert_eq!(complaints(&costs(9), &costs(10)), ["syscalls of run: 10, limit 9"]);
    assert_eq!(complaints(&Costs::new(), &costs(10)), ["syscalls of run: no limit"]);
    assert_eq!(complaints(&costs(10), &Costs::new()), ["syscalls of run: not measured"]);
}

fn with_room(mut costs: Costs) -> Costs {
    for (kind, percent) in ROOM {
        for cost in costs.get_mut(kind).into_iter().flat_map(BTreeMap::values_mut) {
            *cost += (*cost * percent).div_ceil(100);
        }
    }
    costs
}

fn on_tmpfs(path: &Path, place: &Scratch) -> Runtime {
    let dir = place.dir("bin");
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
    let copy = dir.join("creel");
    fs::copy(path, &copy).unwrap();
    Runtime::at(&copy)
}

/// A container with profile, mounts, masks and limits of the benchmark's pod.
fn pod(runtime: &Runtime, args: &[&str]) -> Container {
    let pod: Value = serde_json::from_str(include_str!("../../bench/configs/k8s.json")).unwrap();
    let mut container = Container::of(runtime);
    let bundle = &mut container.bundle;
    bundle.args(args.iter().copied());
    for name in ["seccomp", "maskedPaths", "readonlyPaths"] {
        bundle.set(&format!("linux/{name}"), pod["linux"][name].clone());
    }
    bundle.set("linux/resources", pod["linux"]["resources"].clone());
    let own = |mount: &&Value| mount["type"] != "bind";
    let mounts: Vec<Value> = pod["mounts"].as_array().unwrap().iter().filter(own).cloned().collect();
    bundle.set("mounts", mounts);
    container
}

/// Keeps the least that was seen.
fn cost(costs: &mut Costs, kind: &str, name: &str, amount: u64) {
    let names = costs.entry(kind.to_owned()).or_default();
    let least = names.entry(name.to_owned()).or_insert(amount);
    *least = amount.min(*least);
}

/// The life of a container, `measure` called for each command but `create` and `run`.
fn live(container: &Container, mut measure: impl FnMut(&str, &[&str])) {
    let id = container.id();
    measure("state", &["state", id]);
    measure("start", &["start", id]);
    container.wait_file("/ready");
    measure("list", &["list"]);
    measure("exec", &["exec", id, "/bin/true"]);
    measure("kill", &["kill", id, "KILL"]);
    container.wait_status("stopped");
    measure("delete", &["delete", id]);
    fs::remove_file(container.bundle.rootfs("/ready")).unwrap();
}

fn system_calls(sleeper: &Container, short: &Container, costs: &mut Costs) {
    let log = sleeper.scratch().join("strace.log");
    let traced = |container: &Container, words: &[&str]| {
        let strace = ["strace", "-f", "-qq", "-e", "signal=none", "-o"].map(PathBuf::from);
        container.cmd(words).bare().behind(strace.iter().chain([&log]))
    };
    let mut count = |name: &str| cost(costs, "syscalls", name, calls_in(&fs::read_to_string(&log).unwrap()));

    traced(short, &["run", short.id()]).output().ok();
    count("run");
    // The tracer does not end before init does.
    let create = traced(short, &["create", short.id()]).spawn();
    wait::until("created", || short.call("state", &[]).output().code() == 0 && short.status() == "created");
    short.start();
    create.output().ok();
    short.wait_status("stopped");
    short.delete();
    count("create");

    sleeper.create();
    live(sleeper, |name, words| {
        traced(sleeper, words).output().ok();
        count(name);
    });
}

/// System calls in a log of strace: those of creel and of its children up to the program that they
/// execute.
fn calls_in(log: &str) -> u64 {
    let mut programs: BTreeMap<&str, u32> = BTreeMap::new();
    let mut calls = 0;
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let first = programs.is_empty();
        let left = programs.entry(pid).or_insert(u32::from(first));
        let executes = call.trim_start().starts_with("execve");
        if executes && *left == 0 {
            *left = u32::MAX;
        }
        if *left == u32::MAX || call.contains(" resumed>") || call.contains("+++") {
            continue;
        }
        if executes {
            *left -= 1;
        }
        calls += 1;
    }
    calls
}

fn page_faults(sleeper: &Container, short: &Container, costs: &mut Costs) {
    let total = || u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().minor_page_faults()).unwrap();
    let mut measure = |container: &Container, name: &str, words: &[&str]| {
        let before = total();
        container.cmd(words).bare().output().ok();
        cost(costs, "faults", name, total() - before);
    };
    measure(short, "run", &["run", short.id()]);
    measure(sleeper, "create", &["create", sleeper.id()]);
    live(sleeper, |name, words| measure(sleeper, name, words));
}

/// Instructions of what valgrind can run: create, run, exec and kill use system calls that it does not know.
fn user_side(container: &Container, costs: &mut Costs) {
    let out = format!("--callgrind-out-file={}", container.scratch().join("callgrind.out").display());
    let mut measure = |name: &str, words: &[&str]| {
        let valgrind = ["valgrind", "--tool=callgrind", &out];
        let output = container.cmd(words).bare().behind(valgrind).output().ok();
        let line = output.stderr.lines().find_map(|line| line.split_once("refs:"));
        let number: String = line.unwrap().1.chars().filter(char::is_ascii_digit).collect();
        cost(costs, "instructions", name, number.parse().unwrap());
    };
    measure("run --dry-run", &["run", "--dry-run", "other"]);
    container.create();
    let id = container.id();
    measure("state", &["state", id]);
    measure("list", &["list"]);
    measure("start", &["start", id]);
    let init = container.init();
    container.kill("KILL");
    init.exited();
    measure("delete", &["delete", id]);
}

/// A larger binary costs each start page faults; a relocation is one write before main.
fn binary(path: &Path, costs: &mut Costs) {
    cost(costs, "bytes", "creel", fs::metadata(path).unwrap().len());
    let output = Cmd::new("readelf").args(["-rW".as_ref(), path.as_os_str()]).output().ok();
    let relocations = output.stdout.lines().filter(|line| line.contains(" R_")).count();
    cost(costs, "relocations", "creel", relocations as u64);
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file())
}
