//! Scheduling, I/O priority, CPUs, memory policy, execution domain, resctrl: of init and of exec.

use creel_integration::{Container, Output, is_creel, needs_runc, skip};
use serde_json::{Value, json};

/// Field of proc_pid_stat(5), counted from 1. The command in field 2 is one word here.
fn stat_field(line: &str, number: usize) -> i64 {
    line.split_whitespace().nth(number - 1).unwrap().parse().unwrap()
}

const NICE: usize = 19;
const POLICY: usize = 41;
const SCHED_BATCH: i64 = 3;
const SCHED_IDLE: i64 = 5;

fn exec_shell(container: &Container, script: &str) -> String {
    container.exec(&[], &["/bin/sh", "-c", script]).output().ok().stdout
}

/// `exec --process` of a shell script with some more fields.
fn exec_process(container: &Container, script: &str, more: &Value) -> Output {
    let mut process = json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
    });
    for (key, value) in more.as_object().unwrap() {
        process[key] = value.clone();
    }
    let file = container.scratch().file("process.json", process.to_string());
    let args = ["exec", "--process", file.to_str().unwrap(), container.id()];
    container.cmd(args).output()
}

#[test]
fn scheduler_is_that_of_the_config_or_of_the_exec() {
    needs_runc!(2, "scheduler");
    let mut container = Container::idle();
    container.bundle.set("process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 19 }));
    container.run_detached();
    container.wait_file("ready");
    let init = exec_shell(&container, "cat /proc/1/stat");
    assert_eq!((stat_field(&init, POLICY), stat_field(&init, NICE)), (SCHED_BATCH, 19), "{init}");
    let own = exec_shell(&container, "cat /proc/self/stat");
    assert_eq!((stat_field(&own, POLICY), stat_field(&own, NICE)), (SCHED_BATCH, 19), "{own}");
    let idle = json!({ "scheduler": { "policy": "SCHED_IDLE" } });
    let own = exec_process(&container, "cat /proc/self/stat", &idle).ok().stdout;
    assert_eq!(stat_field(&own, POLICY), SCHED_IDLE, "{own}");
    container.stop_and_delete();
}

#[test]
fn deadline_scheduling_and_a_cpuset_exclude_each_other() {
    needs_runc!(4, "scheduler and cpuset");
    if std::thread::available_parallelism().unwrap().get() < 2 {
        skip!("one CPU: the cpuset would be all of them");
    }
    let mut container = Container::idle();
    let deadline =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000 });
    container.bundle.set("process/scheduler", deadline).set("linux/resources/cpu/cpus", "0");
    container
        .create_fails()
        .says(&["process scheduler can't be used together with AllowedCPUs"])
        .creel_says(&[".process.scheduler", "sched_setattr(SCHED_DEADLINE)", "EPERM"]);
}

#[test]
fn io_priority_is_that_of_the_config_or_of_the_exec() {
    needs_runc!(2, "ioPriority");
    let mut container = Container::idle();
    container.bundle.set("process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 }));
    container.run_detached();
    container.wait_file("ready");
    assert_eq!(
        exec_shell(&container, "ionice -p 1; ionice -p $$"),
        "best-effort: prio 4\nbest-effort: prio 4\n"
    );
    let idle = json!({ "ioPriority": { "class": "IOPRIO_CLASS_IDLE" } });
    assert!(exec_process(&container, "ionice -p $$", &idle).ok().stdout.starts_with("idle"));
    container.stop_and_delete();
}

#[test]
fn personality_is_that_of_the_container_for_exec_too() {
    needs_runc!(2, "personality");
    if std::env::consts::ARCH != "x86_64" {
        skip!("LINUX32 changes what uname(2) says on x86_64");
    }
    let mut container = Container::shell("uname -m > /ready; sleep 1000");
    container.bundle.set("linux/personality", json!({ "domain": "LINUX32" }));
    // The filter of the container is not for the runtime's own call.
    let rule = json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO" }]);
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    container.run_detached();
    container.wait_file("ready");
    creel_integration::wait::for_text(&container.bundle.rootfs("ready"), |text| text.ends_with('\n'));
    assert_eq!(std::fs::read_to_string(container.bundle.rootfs("ready")).unwrap(), "i686\n");
    assert_eq!(exec_shell(&container, "uname -m"), "i686\n");
    container.stop_and_delete();
}

#[test]
fn memory_policy_is_that_of_the_container_for_exec_too() {
    needs_runc!(5, "memoryPolicy");
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        skip!("a kernel without NUMA");
    }
    let mut container = Container::idle();
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    container.bundle.set("linux/memoryPolicy", policy);
    container.run_detached();
    container.wait_file("ready");
    let seen = exec_shell(&container, "head -n 1 /proc/1/numa_maps; head -n 1 /proc/self/numa_maps");
    for line in seen.lines() {
        let policy = line.split(' ').nth(1).unwrap();
        assert!(policy.starts_with("bind") && policy.contains("static") && policy.ends_with('0'), "{seen}");
    }
    container.stop_and_delete();
}

#[test]
fn memory_policy_that_cannot_be_is_refused_in_runc_s_words() {
    needs_runc!(5, "memoryPolicy");
    for (policy, words) in [
        (json!({}), "invalid memory policy"),
        (json!({ "mode": "INTERLEAVE", "nodes": "0" }), "invalid memory policy mode"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["bad"] }), "invalid memory policy flag"),
        (json!({ "mode": "MPOL_DEFAULT", "nodes": "0-7" }), "mode requires 0 nodes but got 8"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }), "invalid memory policy node"),
    ] {
        let mut container = Container::idle();
        container.bundle.set("linux/memoryPolicy", policy);
        container.create_fails().says(&[words]).creel_says(&[".linux.memoryPolicy"]);
    }
}

fn allowed_cpus(output: &str) -> &str {
    output.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap()
}

#[test]
fn cpus_of_the_caller_are_not_those_of_the_container() {
    needs_runc!(3, "resetting the CPU affinity");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    if std::thread::available_parallelism().unwrap().get() < 2 {
        skip!("one CPU");
    }
    let container = Container::shell("cat /proc/self/status");
    let output = container.call("run", &[]).behind(["taskset", "-c", "0"]).output().ok();
    assert_eq!(allowed_cpus(&output.stdout), allowed_cpus(&own));
}

#[test]
fn exec_runs_on_the_final_cpus_after_the_initial_ones() {
    needs_runc!(3, "execCPUAffinity");
    if std::thread::available_parallelism().unwrap().get() < 2 {
        skip!("one CPU");
    }
    let mut container = Container::idle();
    container.bundle.set("process/execCPUAffinity", json!({ "initial": "0", "final": "1" }));
    container.run_detached();
    container.wait_file("ready");
    let status = "cat /proc/self/status";
    let output = container.cmd_with(&["--debug"], ["exec", container.id(), "/bin/sh", "-c", status]);
    let output = output.output().ok().says(&["nsexec", "affinity: 0x1"]);
    assert_eq!(allowed_cpus(&output.stdout), "1");
    // What the file says comes before what the config says. Initial alone stays, but before Linux 6.2 a cpuset of
    // cgroup v1 gives what joins it all of its CPUs.
    let initial = json!({ "execCPUAffinity": { "initial": "1" } });
    let allowed = allowed_cpus(&exec_process(&container, status, &initial).ok().stdout).to_owned();
    assert!(allowed == "1" || skip::kernel() < (6, 2), "{allowed}");
    let wrong = json!({ "execCPUAffinity": { "initial": "1-0" } });
    assert_eq!(exec_process(&container, status, &wrong).code(), 255);
    container.stop_and_delete();
}

#[test]
fn a_process_file_without_limits_or_capabilities_has_those_of_the_container() {
    let mut container = Container::idle();
    container.bundle.set("process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 78 }]));
    container.run_detached();
    container.wait_file("ready");
    let script = "ulimit -n; grep CapBnd /proc/self/status";
    let own = exec_shell(&container, script);
    assert!(own.starts_with("77\n"), "{own}");
    assert_eq!(exec_process(&container, script, &json!({})).ok().stdout, own);
    container.stop_and_delete();
}

#[test]
fn resctrl_that_the_machine_does_not_have_is_an_error() {
    if std::path::Path::new("/sys/fs/resctrl/info").exists() {
        skip!("the machine has resctrl");
    }
    let mut container = Container::idle();
    container.bundle.set("linux/intelRdt", json!({ "closID": "creel-none", "l3CacheSchema": "L3:0=f" }));
    let output = container.create_fails();
    if is_creel() {
        output.creel_says(&[".linux.intelRdt: resctrl is not mounted"]);
    }
}
