//! The v2 path, on the unified hierarchy of this machine in a private mount namespace. Controllers
//! that v1 holds are absent there, so their values are only tested as plans.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common::{Scratch, Shell, V2_VIEW, inside, is_root, name, resources, skip};
use creel_cgroup::devices::plan_rules;
use creel_cgroup::{Cgroup, CgroupPath, CgroupRecord, CreateOptions, Hierarchy, Host, Mode, plan_writes};
use rustix::process::Signal;

const V2: Hierarchy = Hierarchy::V2;

/// The host as seen in the private namespace; the outer run ends here.
macro_rules! host {
    ($test:literal) => {{
        if !is_root() {
            skip!("needs root");
        }
        match inside(&V2_VIEW, $test) {
            Ok(true) => Host::detect().unwrap(),
            Ok(false) => return,
            Err(reason) => skip!("{reason}"),
        }
    }};
}

fn controllers(dir: &str, file: &str) -> Vec<String> {
    fs::read_to_string(format!("{dir}/{file}")).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn controllers_are_handed_down_and_directories_removed() {
    let host = host!("controllers_are_handed_down_and_directories_removed");
    assert_eq!(host.mode, Mode::V2);
    let top = name();
    let scratch = Scratch::at(&host, format!("/{top}/pod/web")).unwrap();
    let record = scratch.cgroup.record();
    assert_eq!((record.dirs.len(), record.dirs[0].made), (1, 3));
    assert_eq!(
        controllers(&scratch.dir(""), "cgroup.controllers"),
        controllers("/sys/fs/cgroup", "cgroup.controllers")
    );
    // The second finds everything handed down.
    let second = Scratch::at(&host, format!("/{top}/pod/other")).unwrap();
    assert_eq!(second.cgroup.record().dirs[0].made, 1);
    drop(second);
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<CgroupRecord>(&json).unwrap(), record);
    scratch.cgroup.destroy().unwrap();
    assert!(!fs::exists(format!("/sys/fs/cgroup/{top}")).unwrap());
}

#[test]
fn hugetlb_limits_read_back() {
    let host = host!("hugetlb_limits_read_back");
    if !controllers("/sys/fs/cgroup", "cgroup.controllers").contains(&"hugetlb".to_owned()) {
        skip!("no hugetlb controller on v2");
    }
    let scratch = Scratch::new(&host);
    scratch.apply(V2, r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#).unwrap();
    assert_eq!(scratch.read("", "hugetlb.2MB.max"), "4194304");
    assert_eq!(scratch.read("", "hugetlb.2MB.rsvd.max"), "4194304");
    let error =
        scratch.apply(V2, r#"{"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#).unwrap_err().to_string();
    assert!(error.ends_with("ENOENT (no such file or directory); this kernel has no such file"), "{error}");
}

#[test]
fn unified_values_are_written_line_by_line() {
    let host = host!("unified_values_are_written_line_by_line");
    let scratch = Scratch::new(&host);
    scratch.apply(V2, r#"{"unified":{"cgroup.max.depth":"7\n5"}}"#).unwrap();
    assert_eq!(scratch.read("", "cgroup.max.depth"), "5");
}

#[test]
fn a_missing_controller_is_named() {
    let host = host!("a_missing_controller_is_named");
    let scratch = Scratch::new(&host);
    if controllers(&scratch.dir(""), "cgroup.controllers").contains(&"pids".to_owned()) {
        skip!("the pids controller is on v2 here");
    }
    let error = scratch.apply(V2, r#"{"pids":{"limit":3}}"#).unwrap_err().to_string();
    assert!(error.starts_with(".linux.resources.pids.limit: write(\""), "{error}");
    assert!(error.ends_with("; the cgroup has no pids controller"), "{error}");
}

#[test]
fn freeze_and_kill_reach_nested_processes() {
    let host = host!("freeze_and_kill_reach_nested_processes");
    let scratch = Scratch::new(&host);
    let mut shell = Shell::new();
    let nested = format!("{}/nested", scratch.dir(""));
    fs::create_dir(&nested).unwrap();
    fs::write(format!("{nested}/cgroup.procs"), shell.pid().to_string()).unwrap();
    assert!(scratch.cgroup.pids(false).unwrap().is_empty());
    assert_eq!(scratch.cgroup.pids(true).unwrap().len(), 1);
    scratch.cgroup.freeze().unwrap();
    assert!(scratch.cgroup.is_frozen().unwrap());
    assert!(scratch.read("", "cgroup.events").contains("frozen 1"));
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.is_frozen().unwrap());
    assert_eq!(shell.run(":"), 0);
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill_all(Signal::KILL).unwrap();
    assert_eq!(shell.wait_signal(), Some(9));
    scratch.cgroup.destroy().unwrap();
    assert!(!scratch.exists());
}

#[test]
fn other_signals_are_sent_one_by_one() {
    let host = host!("other_signals_are_sent_one_by_one");
    let scratch = Scratch::new(&host);
    let mut shell = Shell::new();
    scratch.add(shell.pid());
    scratch.cgroup.kill_all(Signal::TERM).unwrap();
    assert_eq!(shell.wait_signal(), Some(15));
}

#[test]
fn an_occupied_or_frozen_cgroup_is_refused() {
    let host = host!("an_occupied_or_frozen_cgroup_is_refused");
    let scratch = Scratch::new(&host);
    scratch.cgroup.freeze().unwrap();
    let again = || Scratch::at(&host, scratch.path.clone()).err().unwrap().to_string();
    assert_eq!(again(), "container's cgroup unexpectedly frozen");
    scratch.cgroup.thaw().unwrap();
    let shell = Shell::new();
    scratch.add(shell.pid());
    assert_eq!(again(), "container's cgroup is not empty: 1 process(es) found");
}

#[test]
fn exec_joins_one_sub_cgroup() {
    let host = host!("exec_joins_one_sub_cgroup");
    let scratch = Scratch::new(&host);
    fs::create_dir(format!("{}/sub", scratch.dir(""))).unwrap();
    let join = scratch.cgroup.exec_join(&[(Vec::new(), "sub".to_owned())]).unwrap();
    assert!(join.tasks.is_empty() && join.into.is_some());
    assert!(scratch.cgroup.join_fds().unwrap().is_empty());
    assert!(scratch.cgroup.clone_into().unwrap().is_some());
    let error = scratch.cgroup.exec_join(&[(vec!["pids".to_owned()], "sub".to_owned())]).unwrap_err();
    assert!(error.to_string().contains("cgroup v2 has one path for all controllers"));
}

#[test]
fn exec_follows_an_init_that_moved() {
    let host = host!("exec_follows_an_init_that_moved");
    let scratch = Scratch::new(&host);
    let shell = Shell::new();
    // The container names its cgroups, and no name keeps exec out.
    for name in [b"init.scope".as_slice(), b"odd\xff"] {
        let nested = Path::new(&scratch.dir("")).join(OsStr::from_bytes(name));
        fs::create_dir(&nested).unwrap();
        fs::write(nested.join("cgroup.procs"), shell.pid().to_string()).unwrap();
        let fd = scratch.cgroup.clone_into_cgroup_of(shell.pid().try_into().unwrap()).unwrap().unwrap();
        let opened = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(opened, nested);
    }
}

#[test]
fn device_program_decides_and_is_replaced() {
    let host = host!("device_program_decides_and_is_replaced");
    let scratch = Scratch::new(&host);
    let allow_kmsg = |scratch: &Scratch, access: &str| {
        let json = format!(
            r#"{{"devices":[{{"allow":false,"access":"rwm"}},
                {{"allow":true,"type":"c","major":1,"minor":11,"access":"{access}"}}]}}"#
        );
        scratch.cgroup.apply_devices(&plan_rules(&resources(&json)).unwrap()).unwrap();
    };
    allow_kmsg(&scratch, "r");
    let mut shell = Shell::new();
    assert_eq!(shell.run("true 3>>/dev/kmsg"), 0, "root outside may write");
    scratch.add(shell.pid());
    assert_eq!(shell.run("true 3</dev/null 4>/dev/null"), 0);
    assert_eq!(shell.run("(true 3</dev/kmsg)"), 0);
    assert_ne!(shell.run("(true 3>>/dev/kmsg)"), 0);
    // A later command knows the cgroup from its record and replaces the program.
    let later = Scratch { cgroup: Cgroup::from_record(&scratch.cgroup.record()), path: scratch.path.clone() };
    allow_kmsg(&later, "rw");
    assert_eq!(shell.run("(true 3>>/dev/kmsg)"), 0);
    let dir = fs::File::open(scratch.dir("")).unwrap();
    assert_eq!(creel_sys::bpf::prog_query(dir.as_fd()).unwrap().len(), 1);
}

#[test]
fn below_threads_a_cgroup_is_for_threads() {
    let host = host!("below_threads_a_cgroup_is_for_threads");
    let top = format!("/sys/fs/cgroup/{}", name());
    fs::create_dir(&top).unwrap();
    fs::create_dir(format!("{top}/threads")).unwrap();
    fs::write(format!("{top}/threads/cgroup.type"), "threaded").unwrap();
    assert_eq!(fs::read_to_string(format!("{top}/cgroup.type")).unwrap(), "domain threaded\n");
    let below = top.trim_start_matches("/sys/fs/cgroup");

    let scratch = Scratch::at(&host, format!("{below}/web")).unwrap();
    assert_eq!(scratch.read("", "cgroup.type"), "threaded");
    // No cgroup.kill there, and no cgroup.procs to read.
    let mut shell = Shell::new();
    scratch.add(shell.pid());
    assert_eq!(scratch.cgroup.pids(true).unwrap(), [i32::try_from(shell.pid()).unwrap()]);
    scratch.cgroup.kill_all(Signal::KILL).unwrap();
    assert_eq!(shell.wait_signal(), Some(9));
    scratch.cgroup.destroy().unwrap();

    // What is counted per process is not to be had there.
    let path = CgroupPath::parse(&format!("{below}/web"), "unused");
    for (json, is_refused) in [
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#, true),
        (r#"{"memory":{"limit":1000000}}"#, true),
        (r#"{"pids":{"limit":5},"cpu":{"shares":5,"cpus":"0"}}"#, false),
    ] {
        let limits = plan_writes(&resources(json), V2).unwrap();
        let options = CreateOptions { limits: &limits, ..CreateOptions::default() };
        match Cgroup::create(&host, &path, options) {
            Ok(cgroup) => {
                assert!(!is_refused, "{json}");
                cgroup.destroy().unwrap();
            }
            Err(error) => {
                let words = error.to_string();
                assert!(is_refused && words.contains("with domain controllers"), "{json}: {words}");
                assert!(words.ends_with("its type is \"domain invalid\""), "{words}");
            }
        }
        assert!(!fs::exists(format!("{top}/web")).unwrap(), "{json}");
    }
    fs::remove_dir(format!("{top}/threads")).unwrap();
    fs::remove_dir(&top).unwrap();
}

fn owner(path: &str) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn what_is_for_delegation_is_given_away_and_limits_are_not() {
    let host = host!("what_is_for_delegation_is_given_away_and_limits_are_not");
    let scratch = Scratch::new(&host);
    let dir = scratch.dir("");
    scratch.cgroup.give_to(12345).unwrap();
    for file in ["", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"] {
        assert_eq!(owner(&format!("{dir}{file}")), (12345, 0), "{file}");
    }
    for file in ["/cgroup.freeze", "/cgroup.max.depth"] {
        assert_eq!(owner(&format!("{dir}{file}")), (0, 0), "{file}");
    }
}

#[test]
fn init_is_moved_into_the_delegated_cgroup() {
    let host = host!("init_is_moved_into_the_delegated_cgroup");
    let scratch = Scratch::new(&host);
    let shell = Shell::new();
    scratch.add(shell.pid());
    let pid = i32::try_from(shell.pid()).unwrap();
    for bad in ["..", "a/../../b", "", "/", "."] {
        let error = scratch.cgroup.delegate_below(bad, pid, (1, 2)).unwrap_err().to_string();
        assert!(error.starts_with("bad delegated cgroup"), "{error}");
    }
    scratch.cgroup.delegate_below("/given/away", pid, (12345, 6789)).unwrap();
    let below = format!("{}/given/away", scratch.dir(""));
    assert_eq!(fs::read_to_string(format!("{below}/cgroup.procs")).unwrap().trim(), pid.to_string());
    assert_eq!(owner(&below), (12345, 6789));
    assert_eq!(owner(&format!("{below}/cgroup.procs")), (12345, 6789));
    assert_eq!(owner(&scratch.dir("")), (0, 0));
    // Removal takes what is below along.
    drop(shell);
    scratch.cgroup.destroy().unwrap();
    assert!(!scratch.exists());
}
