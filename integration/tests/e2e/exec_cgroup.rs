//! Where `exec` puts its process on cgroup v2, when it cannot be the cgroup that `create` made.

use std::fs;
use std::path::{Path, PathBuf};

use creel_integration::{Cmd, Container, cgroups, skip, wait};
use serde_json::json;

/// An ordinary user.
const USER: u32 = 65534;
const AS_USER: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// Where the unified hierarchy is mounted.
fn unified() -> Option<PathBuf> {
    let place = if cgroups::is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    Path::new(place).join("cgroup.controllers").exists().then(|| PathBuf::from(place))
}

/// On a host that has nothing but the unified hierarchy, in a cgroup of it.
fn on_v2(cmd: Cmd, cgroup: &str) -> Cmd {
    let mut script = String::new();
    if !cgroup.is_empty() {
        script += &format!("echo $$ > {}/{cgroup}/cgroup.procs && ", unified().unwrap().display());
    }
    if cgroups::is_v2() {
        script += "exec \"$@\"";
        return cmd.behind(["sh", "-c", &script, "sh"]);
    }
    script += "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec \"$@\"";
    cmd.behind(["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"])
}

/// A container that [`USER`] may run. `None` when that user cannot reach the runtime.
fn rootless() -> Option<Container> {
    let mut container = Container::idle();
    container.without_systemd();
    container.bundle.namespace("user", None).remove("linux/cgroupsPath").remove("linux/resources");
    for ids in ["linux/uidMappings", "linux/gidMappings"] {
        container.bundle.set(ids, json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
    }
    let probe = container.cmd(["--version"]).behind(AS_USER).output();
    (probe.code() == 0).then_some(container)
}

fn give_away(path: &Path) {
    let owner = format!("{USER}:{USER}");
    Cmd::new("chown").args(["-R", &owner, path.to_str().unwrap()]).output().ok();
}

#[test]
fn exec_into_a_rootless_container_without_a_cgroup_stays_in_the_callers() {
    if unified().is_none() {
        skip!("no unified hierarchy");
    }
    let Some(container) = rootless() else { skip!("an ordinary user cannot reach the runtime") };
    container.bundle.write();
    give_away(container.scratch().path());
    let run = |cmd: Cmd| on_v2(cmd.behind(AS_USER), "").output();
    run(container.call("run", &["--detach"])).ok();
    container.wait_file("/ready");
    let output = run(container.exec(&[], &["echo", "inside"])).ok();
    assert_eq!(output.stdout.trim(), "inside", "{output}");
    on_v2(container.call("delete", &["--force"]), "").output().ok();
}

#[test]
fn rootless_exec_from_outside_the_delegated_tree_stays_in_the_callers_cgroup() {
    let Some(unified) = unified() else { skip!("no unified hierarchy") };
    let Some(mut container) = rootless() else { skip!("an ordinary user cannot reach the runtime") };
    let tree = unified.join(format!("{}-tree", container.id()));
    fs::create_dir_all(tree.join("caller")).unwrap();
    give_away(&tree);
    let name = tree.file_name().unwrap().to_str().unwrap().to_owned();
    container.bundle.set("linux/cgroupsPath", format!("/{name}/web"));
    container.bundle.write();
    give_away(container.scratch().path());
    on_v2(container.call("run", &["--detach"]).behind(AS_USER), &format!("{name}/caller")).output().ok();
    container.wait_file("/ready");
    assert!(tree.join("web").exists());
    let inside = on_v2(container.exec(&[], &["echo", "inside"]).behind(AS_USER), "").output();
    on_v2(container.call("delete", &["--force"]), "").output().ok();
    for dir in [tree.join("caller"), tree] {
        fs::remove_dir(dir).unwrap();
    }
    assert_eq!(inside.ok().stdout.trim(), "inside");
}

#[test]
fn exec_joins_an_init_whose_first_cgroup_is_gone() {
    let Some(unified) = unified() else { skip!("no unified hierarchy") };
    let mut container = Container::idle();
    container.bundle.remove("linux/resources");
    on_v2(container.call("run", &["--detach"]), "").output().ok();
    container.wait_file("/ready");
    let first = unified.join(container.cgroup().trim_start_matches('/'));
    let moved = first.with_file_name(format!("{}-moved", container.id()));
    fs::create_dir(&moved).unwrap();
    wait::until("the first cgroup is gone", || {
        // systemd removes it itself when it is empty.
        let left = fs::read_to_string(first.join("cgroup.procs")).unwrap_or_default();
        // One that has just ended cannot be moved any more (ESRCH).
        left.lines().for_each(|pid| drop(fs::write(moved.join("cgroup.procs"), pid)));
        drop(fs::remove_dir(&first));
        !first.exists()
    });
    let output = on_v2(container.exec(&[], &["cat", "/proc/self/cgroup"]), "").output();
    on_v2(container.call("delete", &["--force"]), "").output().ok();
    fs::remove_dir(&moved).unwrap();
    let seen = output.ok().stdout;
    let unified = seen.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    assert!(unified.ends_with("-moved"), "{seen}");
}
