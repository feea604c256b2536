//! Without permission: an ordinary user on a host that delegates nothing.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{inside, is_root, name, resources, skip};
use creel_cgroup::devices::plan_rules;
use creel_cgroup::{Cgroup, CgroupPath, CreateOptions, Error, Host, plan_writes};
use rustix::process::Signal;

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

macro_rules! host {
    ($test:literal) => {{
        if !is_root() && std::env::var_os("CREEL_TEST_INNER").is_none() {
            skip!("needs root to become somebody without rights");
        }
        match inside(&NOBODY, $test) {
            Ok(true) => Host::detect().unwrap(),
            Ok(false) => return,
            Err(reason) => skip!("{reason}"),
        }
    }};
}

fn create(host: &Host, path: &str, rootless: bool) -> Result<Cgroup, Error> {
    let parsed = CgroupPath::parse(path, &name());
    Cgroup::create(host, &parsed, CreateOptions { rootless, ..CreateOptions::default() })
}

#[test]
fn without_limits_and_path_there_is_no_cgroup_and_no_error() {
    let host = host!("without_limits_and_path_there_is_no_cgroup_and_no_error");
    let cgroup = create(&host, "", true).unwrap();
    assert!(cgroup.record().dirs.is_empty(), "{:?}", cgroup.record());
    cgroup.apply_devices(&plan_rules(&resources("{}")).unwrap()).unwrap();
    assert!(cgroup.join_fds().unwrap().is_empty() && cgroup.clone_into().unwrap().is_none());
    assert!(cgroup.pids(true).unwrap().is_empty() && !cgroup.is_frozen().unwrap());
    assert_eq!(
        cgroup.freeze().unwrap_err().to_string(),
        "cannot toggle freezer: cgroups not configured for container"
    );
    cgroup.kill_all(Signal::KILL).unwrap();
    cgroup.destroy().unwrap();
    let limits = plan_writes(&resources(r#"{"pids":{"limit":3}}"#), host.mode.hierarchy()).unwrap();
    let error = cgroup.apply(&limits).unwrap_err().to_string();
    assert!(error.contains("cannot set pids limit: container could not join or create cgroup"), "{error}");
}

#[test]
fn a_configured_path_is_not_given_up() {
    let host = host!("a_configured_path_is_not_given_up");
    let error = create(&host, &format!("/{}", name()), true).unwrap_err().to_string();
    assert!(error.starts_with("mkdir(\"") && error.ends_with("EACCES (permission denied)"), "{error}");
}

#[test]
fn an_ordinary_container_needs_its_cgroup() {
    let host = host!("an_ordinary_container_needs_its_cgroup");
    assert!(create(&host, "", false).is_err());
}
