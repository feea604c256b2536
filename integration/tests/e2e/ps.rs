//! ps: the processes of a container as the host sees them.

use creel_integration::{Container, wait};
use serde_json::{Value, json};

/// A running container of two processes, and the pid of its init.
fn two() -> (Container, i32) {
    let container = Container::shell("sleep 1234 & touch /ready; wait");
    container.run_detached();
    container.wait_file("ready");
    let init = container.init().pid();
    wait::until("the second process has its program", || {
        children(init).iter().any(|pid| command(*pid).starts_with("sleep"))
    });
    (container, init)
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn command(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn sorted(document: &Value) -> Vec<i64> {
    let mut pids: Vec<i64> = document.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn json_is_the_pids_on_one_line() {
    let (container, init) = two();
    let mut expected = vec![i64::from(init)];
    expected.extend(children(init).into_iter().map(i64::from));
    expected.sort_unstable();
    for flags in [["-f", "json"], ["--format", "json"]] {
        let output = container.call("ps", &flags).output().ok();
        assert_eq!(sorted(&output.json()), expected);
        assert!(output.stdout.starts_with('[') && output.stdout.ends_with("]\n"), "{output}");
        assert!(!output.stdout.contains(' '), "{output}");
    }
}

#[test]
fn table_has_the_lines_of_the_container_alone() {
    let (container, init) = two();
    for output in
        [container.call("ps", &[]).output().ok(), container.call("ps", &["-f", "table"]).output().ok()]
    {
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert!(lines[0].starts_with("UID") && lines[0].contains("PPID"), "{output}");
        assert_eq!(lines.len(), 3, "{output}");
        assert!(lines.iter().any(|line| line.contains(&init.to_string())), "{output}");
        assert!(lines.iter().any(|line| line.contains("sleep 1234")), "{output}");
    }
}

#[test]
fn arguments_after_the_id_go_to_ps() {
    let (container, init) = two();
    let output = container.cmd(["ps", container.id(), "-e", "-o", "pid,comm"]).output().ok();
    let lines: Vec<Vec<&str>> = output.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["PID", "COMMAND"]);
    assert_eq!(lines.len(), 3, "{output}");
    assert_eq!(lines[1][0], init.to_string());
    // Also one that ps of the runtime knows itself.
    let output = container.cmd(["ps", container.id(), "-f", "-e"]).output().ok();
    assert!(output.stdout.starts_with("UID"), "{output}");
}

#[test]
fn listing_without_a_pid_column_is_refused() {
    let (container, _) = two();
    let no_pid = container.cmd(["ps", container.id(), "-e", "-o", "comm"]).output();
    no_pid.exits(1).says(&["couldn't find PID field in ps output"]);
    container.cmd(["ps", container.id(), "--no-such-flag"]).output().exits(1).says(&["exit status"]);
    container.call("ps", &["-f", "xml"]).output().exits(1).says(&["invalid format option"]);
}

#[test]
fn container_without_processes_has_none_to_show() {
    let (container, _) = two();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    wait::until("all are gone", || container.call("ps", &["-f", "json"]).output().ok().json() == json!(null));
    assert_eq!(container.call("ps", &[]).output().ok().stdout.lines().count(), 1);
    container.delete();
    container.call("ps", &[]).output().exits(1).says(&["container does not exist"]);
    container.cmd(["ps"]).output().exits(1).says(&["requires a minimum of 1 argument"]);
}
