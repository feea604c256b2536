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

use creel_integration::{Cmd, Container, Runtime, skip};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

/// By kind of cost, then by command.
type Costs = BTreeMap<String, BTreeMap<String, u64>>;

/// What is added when limits are written: some costs vary with the caller's environment, the number
/// of cgroup hierarchies, or the processor (the C library's string functions).
const ROOM: [(&str, u64); 5] =
    [("syscalls", 6), ("faults", 15), ("instructions", 15), ("bytes", 3), ("relocations", 10)];

#[test]
fn commands_stay_within_their_limits() {
    let tools = ["strace", "valgrind", "readelf"];
    if let Some(missing) = tools.into_iter().find(|tool| which(tool).is_none()) {
        skip!("{missing} is not installed");
    }
    if !Path::new("/sys/fs/cgroup/memory").is_dir() {
        skip!("the limits are those of a host with cgroup v1, which takes the most system calls");
    }
    let mut costs = Costs::new();
    binary(Runtime::under_test().path(), &mut costs);
    let mut container = Container::idle();
    like_a_pod(&mut container);
    lifecycle(&container, &mut costs);
    user_side(&container, &mut costs);

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gates/limits.json");
    if std::env::var_os("UPDATE_LIMITS").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&with_room(costs)).unwrap() + "\n").unwrap();
        return;
    }
    let limits: Costs = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let over: Vec<String> = limits.iter().flat_map(|(kind, limits)| above(kind, limits, &costs)).collect();
    eprintln!("{}", serde_json::to_string_pretty(&costs).unwrap());
    assert!(over.is_empty(), "{over:#?}");
}

fn above(kind: &str, limits: &BTreeMap<String, u64>, costs: &Costs) -> Vec<String> {
    let found = |name: &String| costs.get(kind).and_then(|costs| costs.get(name)).copied();
    limits
        .iter()
        .filter_map(|(name, limit)| match found(name) {
            Some(cost) if cost <= *limit => None,
            Some(cost) => Some(format!("{kind} of {name}: {cost}, limit {limit}")),
            None => Some(format!("{kind} of {name}: not measured")),
        })
        .collect()
}

fn with_room(mut costs: Costs) -> Costs {
    for (kind, percent) in ROOM {
        for cost in costs.get_mut(kind).into_iter().flat_map(BTreeMap::values_mut) {
            *cost += (*cost * percent).div_ceil(100);
        }
    }
    costs
}

/// Profile, mounts, masks and limits of the benchmark's pod.
fn like_a_pod(container: &mut Container) {
    let pod: Value = serde_json::from_str(include_str!("../../bench/configs/k8s.json")).unwrap();
    let bundle = &mut container.bundle;
    for name in ["seccomp", "maskedPaths", "readonlyPaths"] {
        bundle.set(&format!("linux/{name}"), pod["linux"][name].clone());
    }
    bundle.set("linux/resources", pod["linux"]["resources"].clone());
    let own = |mount: &&Value| mount["type"] != "bind";
    let mounts: Vec<Value> = pod["mounts"].as_array().unwrap().iter().filter(own).cloned().collect();
    bundle.set("mounts", mounts);
}

fn lifecycle(container: &Container, costs: &mut Costs) {
    // The first container with a profile compiles and keeps it.
    container.create().ok();
    container.stop_and_delete();

    let mut count = |name: &str, flags: &[&str], after: &[&str]| {
        let words = [&[name], flags, &[container.id()], after].concat();
        cost(costs, "syscalls", name, system_calls(container, &words));
    };
    count("create", &[], &[]);
    count("state", &[], &[]);
    count("start", &[], &[]);
    container.wait_file("/ready");
    count("exec", &[], &["/bin/true"]);
    count("kill", &[], &["KILL"]);
    container.wait_status("stopped");
    count("delete", &[], &[]);

    let mut count = |name: &str, flags: &[&str], after: &[&str]| {
        let words = [&[name], flags, &[container.id()], after].concat();
        cost(costs, "faults", name, page_faults(container, &words));
    };
    count("create", &[], &[]);
    count("state", &[], &[]);
    count("start", &[], &[]);
    container.wait_file("/ready");
    count("kill", &[], &["KILL"]);
    container.wait_status("stopped");
    count("delete", &[], &[]);
}

/// Everything that needs no privilege is what valgrind can run.
fn user_side(container: &Container, costs: &mut Costs) {
    container.create().ok();
    let id = container.id();
    cost(costs, "instructions", "state", instructions(container, &["state", id]));
    cost(costs, "instructions", "list", instructions(container, &["list"]));
    cost(costs, "instructions", "run --dry-run", instructions(container, &["run", "--dry-run", "other"]));
    container.stop_and_delete();
}

fn cost(costs: &mut Costs, kind: &str, name: &str, amount: u64) {
    costs.entry(kind.to_owned()).or_default().insert(name.to_owned(), amount);
}

/// System calls of creel and of its children up to the program that they execute.
fn system_calls(container: &Container, words: &[&str]) -> u64 {
    let log = container.scratch().join("strace.log");
    let tracer = ["strace", "-f", "-qq", "-e", "signal=none", "-o"].map(PathBuf::from);
    container.cmd(words).behind(tracer.iter().chain([&log])).output().ok();
    let text = fs::read_to_string(&log).unwrap();
    let mut programs: BTreeMap<&str, u32> = BTreeMap::new();
    let mut calls = 0;
    for line in text.lines() {
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

fn page_faults(container: &Container, words: &[&str]) -> u64 {
    let faults = || u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().minor_page_faults()).unwrap();
    let before = faults();
    container.cmd(words).output().ok();
    faults() - before
}

fn instructions(container: &Container, words: &[&str]) -> u64 {
    let out = format!("--callgrind-out-file={}", container.scratch().join("callgrind.out").display());
    let valgrind = ["valgrind", "--tool=callgrind", &out];
    let output = container.cmd(words).behind(valgrind).output().ok();
    let line = output.stderr.lines().find_map(|line| line.split_once("refs:"));
    let number: String = line.unwrap().1.chars().filter(char::is_ascii_digit).collect();
    number.parse().unwrap()
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
