//! `.process`: user, environment, working directory, capabilities, limits and other attributes.

use creel_integration::{Container, is_creel, needs_root, probe};
use serde_json::{Value, json};

fn caps(report: &Value, set: &str) -> u64 {
    u64::from_str_radix(probe::text(report, &format!("status/{set}")), 16).unwrap()
}

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;

#[test]
fn arguments_and_environment_arrive_in_order() {
    let mut container = Container::new();
    container.bundle.args(["/bin/probe", "argv", "env", "a b", "", "ä\"$x"]);
    container.bundle.set("process/env", json!(["Z=1", "A=2", "EMPTY=", "EQ=a=b"]));
    let report = container.report();
    assert_eq!(report["argv"], json!(["/bin/probe", "argv", "env", "a b", "", "ä\"$x"]));
    let env: Vec<&str> = report["env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(env[..4], ["Z=1", "A=2", "EMPTY=", "EQ=a=b"]);
    assert!(env.len() == 4 || env[4..] == ["HOME=/root"], "{env:?}");
}

#[test]
fn home_is_that_of_the_user() {
    let mut container = Container::new();
    container.bundle.set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert!(container.seen("env")["env"].as_array().unwrap().contains(&json!("HOME=/home")));
    container.bundle.set("process/env/-", "HOME=/elsewhere");
    assert!(container.seen("env")["env"].as_array().unwrap().contains(&json!("HOME=/elsewhere")));
}

#[test]
fn program_is_found_on_the_containers_path() {
    let mut container = Container::new();
    container.bundle.args(["echo", "found"]);
    assert_eq!(container.run().ok().stdout, "found\n");
    std::fs::create_dir(container.bundle.rootfs("opt")).unwrap();
    std::os::unix::fs::symlink("/bin/busybox", container.bundle.rootfs("opt/echo")).unwrap();
    container.bundle.set("process/env", json!(["PATH=/nosuch:/opt"]));
    assert_eq!(container.run().ok().stdout, "found\n");
}

#[test]
fn program_is_found_relative_to_the_working_directory() {
    let mut container = Container::new();
    container.bundle.args(["./busybox", "pwd"]).set("process/cwd", "/bin");
    assert_eq!(container.run().ok().stdout, "/bin\n");
}

#[test]
fn working_directory_is_made_when_missing() {
    let mut container = Container::new();
    container.bundle.set("process/cwd", "/new/work/dir");
    assert_eq!(container.seen("cwd")["cwd"], "/new/work/dir");
}

#[test]
fn working_directory_that_only_the_user_may_enter() {
    let mut container = Container::new();
    let dir = container.bundle.rootfs("private");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    container.bundle.set("process/cwd", "/private").set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    container.bundle.capabilities(&[]);
    assert_eq!(container.seen("cwd")["cwd"], "/private");
}

#[test]
fn user_group_and_additional_groups_are_set() {
    let mut container = Container::new();
    container.bundle.set("process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6] }));
    let report = container.seen("status");
    assert_eq!(report["status"]["Uid"], "1000\t1000\t1000\t1000");
    assert_eq!(report["status"]["Gid"], "1001\t1001\t1001\t1001");
    assert_eq!(report["status"]["Groups"], "5 6");
}

#[test]
fn callers_groups_do_not_reach_the_process() {
    needs_root!("may set groups");
    let mut container = Container::new();
    container.bundle.probe("status");
    let output = container.call("run", &[]).behind(["setpriv", "--groups", "1,2,3", "--"]).output().ok();
    assert_eq!(output.json()["status"]["Groups"], "");
}

#[test]
fn umask_is_set() {
    let mut container = Container::new();
    assert_eq!(container.seen("status")["status"]["Umask"], "0022");
    container.bundle.set("process/user/umask", 0o77);
    assert_eq!(container.seen("status")["status"]["Umask"], "0077");
    container.bundle.set("process/user/umask", 0);
    assert_eq!(container.seen("status")["status"]["Umask"], "0000");
}

#[test]
fn five_capability_sets_are_set() {
    let mut container = Container::new();
    for (set, names) in [
        ("bounding", json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"])),
        ("permitted", json!(["CAP_CHOWN", "CAP_KILL"])),
        ("effective", json!(["CAP_KILL"])),
        ("inheritable", json!(["CAP_KILL"])),
        ("ambient", json!(["CAP_KILL"])),
    ] {
        container.bundle.set(&format!("process/capabilities/{set}"), names);
    }
    container.bundle.set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    let report = container.seen("status");
    // execve(2) by an ordinary user: permitted and effective become the ambient set.
    assert_eq!(caps(&report, "CapBnd"), CHOWN | KILL | NET_BIND_SERVICE);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(caps(&report, set), KILL, "{set}");
    }
}

#[test]
fn capabilities_of_root_are_limited_by_the_bounding_set() {
    let mut container = Container::new();
    container.bundle.capabilities(&["CAP_CHOWN", "CAP_KILL"]);
    let report = container.seen("status");
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(caps(&report, set), CHOWN | KILL, "{set}");
    }
    assert_eq!(caps(&report, "CapInh"), 0);
    assert_eq!(caps(&report, "CapAmb"), 0);
}

#[test]
fn no_capabilities_means_none() {
    let mut container = Container::new();
    container.bundle.remove("process/capabilities").set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    let report = container.seen("status");
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(caps(&report, set), 0, "{set}");
    }
    let mut container = Container::new();
    container.bundle.capabilities(&[]);
    let report = container.seen("status");
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(caps(&report, set), 0, "{set}");
    }
}

#[test]
fn unknown_capability_warns_and_goes_on() {
    let mut container = Container::new();
    container.bundle.capabilities(&["CAP_KILL", "CAP_NOSUCH"]).probe("status");
    let output = container.run().ok();
    assert!(output.stderr.contains("CAP_NOSUCH") || is_creel(), "{output}");
    assert_eq!(caps(&output.json(), "CapBnd"), KILL);
}

#[test]
fn limits_are_set() {
    let mut container = Container::new();
    container.bundle.set(
        "process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 512, "hard": 513 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000 },
            { "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 },
        ]),
    );
    let report = container.seen("limits");
    for (name, soft, hard) in [
        ("Max core file size", "0", "0"),
        ("Max cpu time", "100", "200"),
        ("Max file size", "1000000", "2000000"),
        ("Max locked memory", "4096", "8192"),
    ] {
        assert_eq!(report["limits"][name], json!([soft, hard]), "{name}");
    }
    assert_eq!(report["limits"]["Max open files"][1], "513");
}

#[test]
fn bad_limits_are_refused() {
    let cases = [
        json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }]),
        json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]),
        json!([{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }]),
    ];
    for limits in cases {
        let mut container = Container::idle();
        let twice = limits.as_array().unwrap().len() == 2;
        container.bundle.set("process/rlimits", limits);
        if twice && !is_creel() {
            // The specification forbids it; runc sets both.
            continue;
        }
        container.create_fails().creel_says(&[".process.rlimits"]);
    }
}

#[test]
fn limit_that_may_not_be_raised_is_an_error_that_names_it() {
    let now = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(now) = now.filter(|now| *now < 1 << 40) else {
        creel_integration::skip!("the limit is infinite");
    };
    let capable = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = capable.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    if u64::from_str_radix(effective, 16).unwrap() & 1 << 24 != 0 {
        creel_integration::skip!("CAP_SYS_RESOURCE is there");
    }
    let mut container = Container::idle();
    let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": now + 1, "hard": now + 1 }]);
    container.bundle.set("process/rlimits", limit);
    container.create_fails().says(&["operation not permitted"]).creel_says(&[".process.rlimits[0]"]);
}

#[test]
fn no_new_privileges_follows_the_config() {
    let mut container = Container::new();
    assert_eq!(container.seen("status")["status"]["NoNewPrivs"], "1");
    container.bundle.set("process/noNewPrivileges", false);
    assert_eq!(container.seen("status")["status"]["NoNewPrivs"], "0");
    container.bundle.remove("process/noNewPrivileges");
    assert_eq!(container.seen("status")["status"]["NoNewPrivs"], "0");
}

#[test]
fn oom_score_adjustment_is_set() {
    let mut container = Container::new();
    container.bundle.set("process/oomScoreAdj", 500);
    assert_eq!(container.seen("oom")["oom"], "500");
    container.bundle.set("process/oomScoreAdj", 1000);
    assert_eq!(container.seen("oom")["oom"], "1000");
}

#[test]
fn oom_score_adjustment_out_of_range_is_refused() {
    let mut container = Container::idle();
    container.bundle.set("process/oomScoreAdj", 1001);
    container.create_fails().creel_says(&[".process.oomScoreAdj"]);
}

#[test]
fn process_is_pid_one_and_has_no_parent_inside() {
    let mut container = Container::new();
    let report = container.seen("ids");
    assert_eq!(report["ids"]["pid"], 1);
    assert_eq!(report["ids"]["ppid"], 0);
    assert_eq!(report["ids"]["session"], 1);
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    let container = Container::shell("exec grep Sig /proc/self/status");
    let output = container.run().ok().stdout;
    for set in ["SigBlk", "SigIgn"] {
        let line = output.lines().find(|line| line.starts_with(set)).unwrap();
        // glibc's posix_spawn(3), which starts the runtime, ignores its own signals 32 and 33 in the child.
        let bits = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(bits & !(3 << 31), 0, "{line}");
    }
}

#[test]
fn session_keyring_is_new_unless_told() {
    let mut container = Container::new();
    container.bundle.remove("linux/maskedPaths").probe("keys");
    let name = format!("_ses.{}", container.id());
    let report = container.run().ok().json();
    assert!(report["keys"].to_string().contains(&name), "{report:#}");
    // Another id: the first one's keyring lives on until the kernel has collected it.
    let mut container = Container::new();
    container.bundle.remove("linux/maskedPaths").probe("keys");
    let name = format!("_ses.{}", container.id());
    let report = container.call("run", &["--no-new-keyring"]).output().ok().json();
    assert!(!report["keys"].to_string().contains(&name), "{report:#}");
}
