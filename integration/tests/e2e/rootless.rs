//! Users who are not root: what they cannot have is refused, and what they do not ask for is not missed.

use creel_integration::{Cmd, Container, needs_root, skip};
use serde_json::json;

/// Ids of somebody with nothing but these.
const NOBODY: u32 = 65534;

/// A container that needs nothing of the host but a user namespace, with one id of each kind.
fn with_one_id(mut container: Container, id: u32) -> Container {
    container.bundle.namespace("user", None).remove("linux/cgroupsPath").remove("linux/resources");
    for ids in ["linux/uidMappings", "linux/gidMappings"] {
        container.bundle.set(ids, json!([{ "containerID": 0, "hostID": id, "size": 1 }]));
    }
    container
}

/// Runs a command of the container as [`NOBODY`], who owns everything of it. `None` when that user cannot
/// reach the runtime.
fn as_nobody(container: &Container, cmd: Cmd) -> Option<Cmd> {
    let owner = format!("{NOBODY}:{NOBODY}");
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let behind = |cmd: Cmd| cmd.behind(["setpriv", &ids[0], &ids[1], "--clear-groups", "--"]);
    Cmd::new("chown").args(["-R", &owner, container.scratch().path().to_str().unwrap()]).output().ok();
    (behind(container.cmd(["--version"])).output().code() == 0).then(|| behind(cmd))
}

#[test]
fn a_limit_without_a_cgroup_is_refused_and_no_limit_is_not_missed() {
    needs_root!("may become another user");
    let mut container = with_one_id(Container::shell("echo fine"), NOBODY);
    for (limits, expected) in [
        (json!(null), Ok("fine\n")),
        (json!({ "pids": { "limit": 20 } }), Err("pids")),
        (json!({ "memory": { "limit": 1 << 26 } }), Err("memory")),
    ] {
        container.bundle.set("linux/resources", limits);
        let run = container.call("run", &[]);
        let Some(run) = as_nobody(&container, run) else { skip!("a user cannot reach the runtime") };
        let output = run.output();
        match expected {
            Ok(stdout) => assert_eq!(output.ok().stdout, stdout),
            // runc's words are those of v2, or the limit's.
            Err(limit) => {
                let output = output.exits(1);
                let known = ["rootless needs no limits", "could not join or create cgroup", limit];
                assert!(known.iter().any(|words| output.stderr.contains(words)), "{output}");
                container.assert_clean(&output);
            }
        }
    }
}

/// As in a container of somebody else's: root there, and nobody outside.
#[test]
fn a_user_namespace_that_somebody_else_made_will_do() {
    const OUTER: [&str; 8] =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--"];
    if Cmd::new("true").behind(OUTER).output().code() != 0 {
        skip!("no user namespaces here");
    }
    let mut container = with_one_id(Container::new(), 0);
    // Another user namespace inside, or none.
    for inner in [true, false] {
        if !inner {
            container
                .bundle
                .without_namespace("user")
                .remove("linux/uidMappings")
                .remove("linux/gidMappings");
        }
        container.bundle.probe("status uid_map");
        let output = container.call("run", &[]).behind(OUTER).output().ok();
        let report = output.json();
        assert_eq!(report["status"]["Uid"], "0\t0\t0\t0");
        let map = report["uid_map"][0].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let outside = if inner { 0 } else { rustix::process::geteuid().as_raw() };
        assert_eq!(map, format!("0 {outside} 1"));
        container.assert_clean(&output);
    }
}
