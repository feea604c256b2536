//! events: statistics once and at intervals, and OOM notifications.

use creel_integration::command::Running;
use creel_integration::{Container, cgroups, is_creel, skip, wait};
use serde_json::Value;

/// The lines that a running `events` has printed whole.
fn lines(running: &Running) -> Vec<Value> {
    let text = running.stdout_so_far();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn statistics_once_are_one_line_in_runcs_shape() {
    let container = Container::idle();
    container.run_detached();
    container.wait_file("ready");
    let output = container.call("events", &["--stats"]).output().ok();
    assert!(output.stdout.ends_with("}\n") && output.stdout.lines().count() == 1, "{output}");
    let event = output.json();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id());
    let data = event["data"].as_object().unwrap();
    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    for key in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    assert_eq!(keys.len(), 8, "{keys:?}");
    if cgroups::mount("pids").is_some() {
        // The shell and its sleep, or the shell between two sleeps.
        assert!(matches!(data["pids"]["current"].as_u64(), Some(1 | 2)), "{output}");
    }
    if cgroups::mount("memory").is_some() {
        assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{output}");
        assert!(!data["memory"]["raw"].as_object().unwrap().is_empty(), "{output}");
    }
    assert!(data["cpu"]["usage"]["kernel"].is_u64() && data["cpu"]["usage"]["user"].is_u64(), "{output}");
    assert_eq!(data["network_interfaces"], Value::Null);
    container.stop_and_delete();
}

#[test]
fn limits_are_told_with_what_is_used() {
    let Some(_) = cgroups::mount("pids").or_else(|| cgroups::mount("memory")) else {
        skip!("neither the pids nor the memory controller")
    };
    let mut container = Container::idle();
    if cgroups::mount("pids").is_some() {
        container.bundle.set("linux/resources/pids/limit", 77);
    }
    if cgroups::mount("memory").is_some() {
        container.bundle.set("linux/resources/memory/limit", 64 << 20);
    }
    container.run_detached();
    let data = container.call("events", &["--stats"]).output().ok().json()["data"].clone();
    if cgroups::mount("pids").is_some() {
        assert_eq!(data["pids"]["limit"], 77);
    }
    if cgroups::mount("memory").is_some() {
        assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    }
    container.stop_and_delete();
}

#[test]
fn stream_goes_on_at_its_interval_until_the_container_is_deleted() {
    if cgroups::mount("memory").is_none() && !cgroups::is_v2() {
        skip!("no memory controller to watch");
    }
    let container = Container::idle();
    container.run_detached();
    let events = container.call("events", &["--interval", "50ms"]).spawn();
    wait::until("three reports", || lines(&events).len() >= 3);
    for event in lines(&events) {
        assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &container.id().into()));
    }
    // `delete` would find the running `events` of this container left behind.
    container.call("delete", &["--force"]).output().ok();
    events.output().ok();
}

#[test]
fn a_process_that_finds_no_memory_is_reported() {
    if cgroups::mount("memory").is_none() && !cgroups::is_v2() {
        skip!("no memory controller");
    }
    let mut container = Container::idle();
    container.bundle.set("linux/resources/memory/limit", 32 << 20);
    if cgroups::read("memory", &cgroups::own("memory"), "memory.memsw.limit_in_bytes").is_some()
        || cgroups::is_v2()
    {
        container.bundle.set("linux/resources/memory/swap", 32 << 20);
    }
    container.run_detached();
    container.wait_file("ready");
    let events = container.call("events", &["--interval", "50ms"]).spawn();
    // The watch is there once something was said.
    wait::until("a report", || !lines(&events).is_empty());
    let hog = container.exec(&[], &["sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x)"]).output();
    assert_ne!(hog.code(), 0, "{hog}");
    wait::until("an OOM notification", || lines(&events).iter().any(|event| event["type"] == "oom"));
    let of_oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", container.id());
    assert!(events.stdout_so_far().contains(&of_oom));
    container.call("delete", &["--force"]).output().ok();
    events.output().ok();
}

#[test]
fn interfaces_of_the_containers_own_network_are_told() {
    if !is_creel() {
        skip!("runc and crun do not tell them");
    }
    let container = Container::idle();
    container.run_detached();
    let pid = container.init().pid().to_string();
    let nsenter = |words: &[&str]| {
        creel_integration::Cmd::new("nsenter").args(["-t", &pid, "-n", "--"]).args(words).output()
    };
    let made = nsenter(&["ip", "link", "add", "creel0", "type", "veth", "peer", "name", "creel1"]);
    if made.code() != 0 {
        skip!("no veth here: {}", made.stderr.trim());
    }
    let data = container.call("events", &["--stats"]).output().ok().json()["data"].clone();
    let interfaces = data["network_interfaces"].as_array().unwrap();
    let names: Vec<&str> = interfaces.iter().map(|one| one["Name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "{data}");
    assert!(names.contains(&"creel0") && names.contains(&"creel1"), "{data}");
    assert!(interfaces[0]["TxBytes"].is_u64(), "{data}");
    container.stop_and_delete();
}

#[test]
fn events_need_a_container_that_runs_and_an_interval() {
    let container = Container::shell("true");
    container.call("events", &["--stats"]).output().exits(1).says(&["container does not exist"]);
    container.cmd(["events"]).output().exits(1).says(&["requires exactly 1 argument"]);
    let words = ["for flag -interval: parse error"];
    container.call("events", &["--interval", "often"]).output().exits(1).says(&words);
    container.create();
    let words = ["duration interval must be greater than 0"];
    container.call("events", &["--interval", "0s"]).output().exits(1).says(&words);
    // A created one counts already.
    container.call("events", &["--stats"]).output().ok();
    let init = container.init();
    container.start();
    init.exited();
    container.call("events", &["--stats"]).output().exits(1).says(&["not running"]);
    if is_creel() {
        container.call("events", &[]).output().exits(1).says(&["container not running"]);
    }
    container.delete();
}
