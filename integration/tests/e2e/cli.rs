//! The command line around the lifecycle: logs, features, --version, spec, and an ordinary user.

use creel_integration::{
    Cmd, Container, Runtime, bundle, is_creel, needs_cgroupfs, needs_root, needs_runc, probe,
    scratch::Scratch, skip,
};
use serde_json::{Value, json};

fn runtime() -> Cmd {
    Cmd::new(Runtime::under_test().path())
}

#[test]
fn json_log_has_exactly_one_line_for_a_failure() {
    let mut container = Container::new();
    container.bundle.args(["nosuchprogram"]);
    let log = container.scratch().join("log.json");
    let global = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let output = container.cmd_with(&global, ["run", container.id()]).output().exits(1);
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["level"], "error");
    assert!(probe::text(&record, "msg").contains("executable file not found in $PATH"), "{record}");
    let time = probe::text(&record, "time");
    // RFC 3339, as Go's time.Parse wants it.
    assert!(
        time.len() >= 20
            && time.as_bytes()[10] == b'T'
            && (time.ends_with('Z') || time[19..].contains(['+', '-'])),
        "{time}"
    );
    assert_eq!(record.as_object().unwrap().len(), 3, "{record}");
    // The same words are on stderr, for those who do not read the log.
    assert!(output.stderr.contains("executable file not found in $PATH"), "{output}");
    container.assert_clean(&output);
}

#[test]
fn log_is_appended_to() {
    let container = Container::new();
    let log = container
        .scratch()
        .file("log.json", "{\"level\":\"info\",\"msg\":\"before\",\"time\":\"2026-01-01T00:00:00Z\"}\n");
    let global = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    for _ in 0..2 {
        container.cmd_with(&global, ["state", "nosuch"]).output().exits(1);
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert!(text.contains("does not exist"), "{text}");
}

#[test]
fn log_stays_empty_when_all_goes_well() {
    let container = Container::shell("true");
    let log = container.scratch().join("log.json");
    let global = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let output = container.cmd_with(&global, ["run", container.id()]).output().ok();
    assert_eq!(std::fs::read_to_string(&log).unwrap_or_default(), "");
    assert_eq!(output.stderr, "");
}

#[test]
fn log_in_text_names_the_failure_too() {
    let container = Container::new();
    let log = container.scratch().join("log");
    container.cmd_with(&["--log", log.to_str().unwrap()], ["state", "nosuch"]).output().exits(1);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("does not exist") && text.contains("error"), "{text}");
}

#[test]
fn unknown_log_format_is_refused() {
    let container = Container::new();
    container.cmd_with(&["--log-format", "nosuch"], ["state", "nosuch"]).output().exits(1);
}

#[test]
fn debug_log_is_json_line_by_line() {
    let container = Container::shell("true");
    let log = container.scratch().join("log.json");
    let global = ["--debug", "--log", log.to_str().unwrap(), "--log-format", "json"];
    container.cmd_with(&global, ["run", container.id()]).output().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(record["time"].is_string() && record["level"].is_string(), "{line}");
    }
    assert!(!text.is_empty());
}

#[test]
fn version_is_in_the_form_that_engines_read() {
    for flag in ["--version", "-v"] {
        let output = runtime().args([flag]).output().ok();
        let mut lines = output.stdout.lines();
        let first = lines.next().unwrap();
        assert!(first.contains(" version "), "{first}");
        assert!(output.stdout.lines().any(|line| line.starts_with("spec: 1.")), "{output}");
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn features_is_one_json_document_and_nothing_else() {
    let output = runtime().args(["features"]).output().ok();
    assert_eq!(output.stderr, "");
    let features = output.json();
    // CRI-O refuses the document without these two.
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].is_string(), "{key}");
    }
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(features["hooks"].as_array().unwrap().contains(&json!(hook)), "{hook}");
    }
    for option in ["ro", "rbind", "rro", "rslave"] {
        assert!(features["mountOptions"].as_array().unwrap().contains(&json!(option)), "{option}");
    }
    for kind in ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"] {
        assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!(kind)), "{kind}");
    }
    assert!(features["linux"]["capabilities"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(features["linux"]["seccomp"]["actions"].as_array().unwrap().contains(&json!("SCMP_ACT_NOTIFY")));
    for key in ["v1", "v2"] {
        assert_eq!(features["linux"]["cgroup"][key], true, "{key}");
    }
}

#[test]
fn features_name_idmapped_mounts() {
    needs_runc!(2, "idmapped mounts");
    let features = runtime().args(["features"]).output().ok().json();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

/// A bundle whose config.json is what `spec` writes, with a process that ends.
fn from_spec(scratch: &Scratch, flags: &[&str]) -> Value {
    let dir = scratch.dir("bundle");
    bundle::fill_rootfs(&dir.join("rootfs"));
    runtime().args(["spec"]).args(flags).cwd(&dir).output().ok();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["process"]["terminal"], true);
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo from spec"]);
    config
}

#[test]
fn spec_writes_a_config_that_runs() {
    needs_root!("may do without a user namespace");
    let scratch = Scratch::new();
    let mut config = from_spec(&scratch, &[]);
    config["linux"]["cgroupsPath"] = json!(format!("/{}", scratch.name()));
    scratch.file("bundle/config.json", config.to_string());
    let root = scratch.dir("root");
    let args = ["--root", root.to_str().unwrap(), "run", scratch.name()];
    assert_eq!(runtime().args(args).cwd(&scratch.join("bundle")).output().ok().stdout, "from spec\n");
}

#[test]
fn spec_does_not_overwrite_a_config() {
    let scratch = Scratch::new();
    let dir = scratch.dir("bundle");
    let file = scratch.file("bundle/config.json", "mine");
    runtime().args(["spec", "--bundle", dir.to_str().unwrap()]).output().exits(1);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn spec_for_rootless_maps_the_caller() {
    let scratch = Scratch::new();
    let config = from_spec(&scratch, &["--rootless"]);
    assert!(config["linux"]["namespaces"].as_array().unwrap().contains(&json!({ "type": "user" })));
    for map in ["uidMappings", "gidMappings"] {
        let caller = rustix::process::geteuid().as_raw();
        assert_eq!(config["linux"][map], json!([{ "containerID": 0, "hostID": caller, "size": 1 }]), "{map}");
    }
    assert!(config["linux"].get("resources").is_none());
}

#[test]
fn ordinary_user_runs_a_rootless_container() {
    needs_root!("may become another user");
    const USER: &str = "65534";
    let scratch = Scratch::new();
    bundle::fill_rootfs(&scratch.dir("bundle/rootfs"));
    let dir = scratch.dir("bundle");
    let root = scratch.dir("root");
    for path in [&dir, &root] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let reachable = Cmd::new("true").output().ok();
    drop(reachable);
    let as_user = |cmd: Cmd| {
        cmd.cwd(&dir).behind(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--"])
    };
    let probe = as_user(runtime().args(["--version"])).output();
    if probe.code() != 0 {
        skip!("an ordinary user cannot reach the runtime: {}", probe.stderr.trim());
    }
    as_user(runtime().args(["spec", "--rootless"])).output().ok();
    let file = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/probe", "status", "uid_map", "mounts"]);
    std::fs::write(&file, config.to_string()).unwrap();
    let output =
        as_user(runtime().args(["--root", root.to_str().unwrap(), "run", scratch.name()])).output().ok();
    let report = output.json();
    assert_eq!(report["status"]["Uid"], "0\t0\t0\t0");
    let map: Vec<&str> = report["uid_map"][0].as_str().unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", USER, "1"]);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn help_has_the_headings_that_scripts_look_for() {
    let base = Runtime::under_test().path().file_name().unwrap().to_string_lossy().into_owned();
    for flag in ["--help", "-h", "help"] {
        let output = runtime().args([flag]).output().ok();
        let mut lines = output.stdout.lines();
        assert_eq!(lines.next(), Some("NAME:"), "{output}");
        assert!(lines.next().unwrap().ends_with(" - Open Container Initiative runtime"), "{output}");
        for heading in ["\nUSAGE:\n", "\nVERSION:\n", "\nCOMMANDS:\n", "\nGLOBAL OPTIONS:\n"] {
            assert!(output.stdout.contains(heading), "{heading:?}: {output}");
        }
    }
    for command in [
        "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run",
        "spec", "start", "state", "update",
    ] {
        for args in [[command, "-h"], [command, "--help"], ["help", command]] {
            let output = runtime().args(args).output().ok();
            let start = format!("NAME:\n   {base} {command} - ");
            assert!(output.stdout.starts_with(&start), "{output}");
            assert!(output.stdout.contains(&format!("\nUSAGE:\n   {base} {command}")), "{output}");
        }
    }
}

#[test]
fn wrong_usage_shows_help_on_stdout_and_says_why() {
    let output = runtime().args(["nonesuch", "-h"]).output();
    assert_eq!(output.code(), 3, "{output}");
    output.says(&["No help topic for 'nonesuch'"]);
    for (args, first, why) in [
        (&["state"][..], "Incorrect Usage.", "requires exactly 1 argument(s)"),
        (&["kill", "a", "9", "b"], "Incorrect Usage.", "requires a maximum of 2 argument(s)"),
        (&["exec"], "Incorrect Usage.", "requires a minimum of 1 argument(s)"),
        (
            &["update", "--pids-limit", "many", "a"],
            "Incorrect Usage: invalid value \"many\" for flag -pids-limit: parse error",
            "for flag -pids-limit: parse error",
        ),
    ] {
        let output = runtime().args(args).output().exits(1).says(&[why]);
        let mut lines = output.stdout.lines();
        assert_eq!(
            (lines.next(), lines.next(), lines.next()),
            (Some(first), Some(""), Some("NAME:")),
            "{output}"
        );
    }
}

#[test]
fn options_of_a_command_end_at_its_first_operand_only_where_others_follow() {
    let container = Container::shell("true");
    // After the id: still an option of delete, but one of the program of exec, and of ps(1).
    container.create();
    container.cmd(["ps", container.id(), "-o", "pid"]).output().ok();
    container.cmd(["delete", container.id(), "--force"]).output().ok();
}

#[test]
fn debug_log_tells_the_stages_once_and_in_order() {
    let container = Container::shell("true");
    let output = container.cmd_with(&["--debug"], ["run", container.id()]).output().ok();
    let stages =
        ["nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"];
    let at: Vec<usize> = stages.iter().map(|stage| output.stderr.find(stage).expect(stage)).collect();
    assert!(at.is_sorted(), "{output}");
    if is_creel() {
        for stage in stages {
            assert_eq!(output.stderr.matches(stage).count(), 1, "{output}");
        }
        assert_eq!(output.stderr.matches("run: Runtime").count(), 1, "{output}");
        assert!(output.stderr.lines().all(|line| line.contains(" level=debug ")), "{output}");
    }
}

#[test]
fn root_of_the_file_system_is_no_root() {
    let output = runtime().args(["--root", "/", "list"]).output();
    assert!(output.code() == 1 || !is_creel(), "{output}");
}

#[test]
fn rootless_flag_takes_three_values() {
    needs_root!("may load device programs");
    // A rootless container is for the user's systemd, and root has none here.
    needs_cgroupfs!();
    let container = Container::shell("true");
    for value in ["auto", "false", "true"] {
        container.cmd_with(&["--rootless", value], ["run", container.id()]).output().ok();
    }
}

#[test]
fn dry_run_prints_the_plan_and_does_nothing() {
    if !is_creel() {
        skip!("runc has no --dry-run");
    }
    let mut container = Container::shell("touch /ran");
    container.bundle.mount("/data", "tmpfs", "tmpfs", &["nosuid"]);
    let output = container.call("run", &["--dry-run"]).output().ok();
    assert!(output.stdout.contains("/data") && output.stdout.contains("touch /ran"), "{output}");
    assert!(!container.bundle.rootfs("ran").exists());
    container.assert_clean(&output);
    container.bundle.mount("/data", "tmpfs", "tmpfs", &["size=1", "nosuchoption"]).set("hostname", 7);
    container.call("run", &["--dry-run"]).output().exits(1).says(&[".hostname"]);
}
