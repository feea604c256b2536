//! A container of a test: scratch directory, bundle, id and the runtime's commands on it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::bundle::Bundle;
use crate::command::{Cmd, Output};
use crate::leaks::{self, Leaks};
use crate::owner::Owner;
use crate::runtime::Runtime;
use crate::scratch::Scratch;
use crate::wait::{self, Process};
use crate::{cgroups, probe};

/// One container. Dropping it deletes what is left of it by `delete --force`, and fails the test when
/// anything remains after that.
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    scratch: Scratch,
    /// Its bundle; config.json is written from it by [`Container::cmd`].
    pub bundle: Bundle,
    id: String,
    global: Vec<String>,
    owner: Owner,
    mounts_before: Vec<String>,
}

impl Container {
    /// A container of the runtime under test.
    #[allow(clippy::new_without_default, reason = "making one writes a bundle")]
    pub fn new() -> Container {
        Container::of(Runtime::under_test())
    }

    /// A container of the runtime under test that runs a script.
    pub fn shell(script: &str) -> Container {
        let mut container = Container::new();
        container.bundle.shell(script);
        container
    }

    /// A container of the runtime under test that runs the probe for sections separated by blanks.
    pub fn probe(sections: &str) -> Container {
        let mut container = Container::new();
        container.bundle.probe(sections);
        container
    }

    /// A container of the runtime under test that does nothing until it is killed. SIGTERM ends it
    /// with code 0, although it is PID 1. `/ready` exists once it runs: `start` may return before the
    /// program is there.
    pub fn idle() -> Container {
        Container::shell("trap 'exit 0' TERM; touch /ready; while true; do sleep 100 & wait $!; done")
    }

    /// A container of `runtime`.
    pub fn of(runtime: &Runtime) -> Container {
        Container::owned(runtime, Owner::under_test())
    }

    /// A container of `runtime` with a cgroup of that owner.
    pub fn owned(runtime: &Runtime, owner: Owner) -> Container {
        let scratch = Scratch::new();
        let bundle = Bundle::make(&scratch.dir("bundle"), &owner.cgroups_path(scratch.name()));
        let id = scratch.name().to_owned();
        scratch.dir("root");
        let mounts_before = leaks::mounts();
        let global = owner.flag().into_iter().map(str::to_owned).collect();
        Container { runtime: runtime.clone(), scratch, bundle, id, global, owner, mounts_before }
    }

    /// Every command gets this global flag from now on.
    pub fn with_global(&mut self, flag: &str) {
        if !self.global.iter().any(|known| known == flag) {
            self.global.push(flag.to_owned());
        }
    }

    /// systemd does not make its cgroup, whoever makes those of the other tests: for users who have none.
    pub fn without_systemd(&mut self) {
        if self.owner != Owner::Systemd {
            return;
        }
        self.owner = Owner::Runtime("/".to_owned());
        self.global.retain(|flag| flag != "--systemd-cgroup");
        self.bundle.set("linux/cgroupsPath", self.owner.cgroups_path(&self.id));
    }

    /// Container id; part of the name of its cgroup.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Path of its cgroup below the mount points of the hierarchies, unless the test has changed cgroupsPath.
    pub fn cgroup(&self) -> String {
        self.owner.cgroup(&self.id)
    }

    /// Its cgroup in the hierarchy of a controller, which it is in once it is created.
    pub fn cgroup_dir(&self, controller: &str) -> Option<PathBuf> {
        Some(cgroups::mount(controller)?.join(self.cgroup().trim_start_matches('/')))
    }

    /// The scratch directory.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The runtime's `--root`.
    pub fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// `runtime --root ROOT ARGS...`, with config.json written. The working directory is the bundle.
    pub fn cmd<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.cmd_with(&[], args)
    }

    /// [`Container::cmd`] with more global flags.
    pub fn cmd_with<S: AsRef<OsStr>>(&self, global: &[&str], args: impl IntoIterator<Item = S>) -> Cmd {
        self.bundle.write();
        let cmd = Cmd::new(self.runtime.path()).cwd(self.bundle.dir());
        cmd.args([OsStr::new("--root"), self.root().as_os_str()]).args(&self.global).args(global).args(args)
    }

    /// `COMMAND FLAGS... ID`.
    pub fn call(&self, command: &str, flags: &[&str]) -> Cmd {
        self.cmd([&[command], flags, &[self.id()]].concat())
    }

    /// `run` in the foreground, and asserts that it leaves nothing behind.
    pub fn run(&self) -> Output {
        let output = self.call("run", &[]).output();
        self.assert_clean(&output);
        output
    }

    /// `run` of the probe: its report.
    ///
    /// # Panics
    /// When it does not end with code 0 and JSON.
    #[track_caller]
    pub fn report(&self) -> Value {
        self.run().ok().json()
    }

    /// `run` of the probe for sections separated by blanks: its report.
    #[track_caller]
    pub fn seen(&mut self, sections: &str) -> Value {
        self.bundle.probe(sections);
        self.report()
    }

    /// `create`, which must succeed.
    #[track_caller]
    pub fn create(&self) -> Output {
        self.call("create", &[]).output().ok()
    }

    /// `create`, which must fail with code 1 and leave nothing behind.
    #[track_caller]
    pub fn create_fails(&self) -> Output {
        let output = self.call("create", &[]).output().exits(1);
        self.assert_clean(&output);
        output
    }

    /// `start`, which must succeed.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.call("start", &[]).output().ok()
    }

    /// `run --detach`, which must succeed.
    #[track_caller]
    pub fn run_detached(&self) -> Output {
        self.call("run", &["--detach"]).output().ok()
    }

    /// `kill ID SIGNAL`, which must succeed.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.cmd(["kill", self.id(), signal]).output().ok()
    }

    /// `delete`, which must succeed and leave nothing behind.
    #[track_caller]
    pub fn delete(&self) -> Output {
        let output = self.call("delete", &[]).output().ok();
        self.assert_clean(&output);
        output
    }

    /// SIGKILL to the container, the end of its init, `delete`.
    #[track_caller]
    pub fn stop_and_delete(&self) {
        let init = self.init();
        self.kill("KILL");
        init.exited();
        self.delete();
    }

    /// `exec ID ARGS...`.
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Cmd {
        self.cmd([&["exec"], flags, &[self.id()], args].concat())
    }

    /// `exec` of the probe for sections separated by blanks: its report.
    #[track_caller]
    pub fn exec_seen(&self, flags: &[&str], sections: &str) -> Value {
        let args: Vec<&str> = std::iter::once("/bin/probe").chain(sections.split_whitespace()).collect();
        self.exec(flags, &args).output().ok().json()
    }

    /// The document of `state`.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call("state", &[]).output().ok().json()
    }

    /// `.status` of the state.
    #[track_caller]
    pub fn status(&self) -> String {
        probe::text(&self.state(), "status").to_owned()
    }

    /// Init, by the pid of the state.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn init(&self) -> Process {
        let pid = self.state()["pid"].as_i64().unwrap();
        Process::open(i32::try_from(pid).unwrap()).expect("init is gone")
    }

    /// Waits until the state's status is `status`.
    pub fn wait_status(&self, status: &str) {
        wait::until(&format!("status {status}"), || self.status() == status);
    }

    /// Waits until a file of the rootfs exists.
    pub fn wait_file(&self, path: &str) {
        wait::until(path, || self.bundle.rootfs(path).exists());
    }

    /// What is left of the container, its state excepted or not.
    pub fn leaks(&self) -> Leaks {
        Leaks::of(self.scratch.name(), &self.root(), &self.mounts_before)
    }

    /// Asserts that nothing is left behind after the command whose output is given.
    ///
    /// # Panics
    /// With the list of what is left.
    #[track_caller]
    pub fn assert_clean(&self, after: &Output) {
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind: {leaks:#?}\nafter {after}");
    }

    /// The mounts there are now become those that must be there at the end: for tests that mount.
    pub fn accept_mounts(&mut self) {
        self.mounts_before = leaks::mounts();
    }

    /// `delete --force`, while dead processes of the container are reaped: init of a pid namespace ends
    /// only after the last process in it is reaped, and those that `exec --detach` left are ours
    /// (pid_namespaces(7)).
    fn delete_force(&self, id: &OsStr) -> Output {
        let mut delete = self.cmd([OsStr::new("delete"), OsStr::new("--force"), id]).spawn();
        let end = Instant::now() + wait::DEADLINE;
        while !delete.has_exited() && Instant::now() < end {
            leaks::reap(self.scratch.name());
            wait::pause();
        }
        delete.output_within(end)
    }

    /// Deletes every container in the test's root with `delete --force`.
    fn delete_all(&self) {
        for entry in std::fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let id = entry.file_name();
            // Compiled filters, which belong to no container.
            if id == leaks::KEPT_FILTERS {
                continue;
            }
            let output = self.delete_force(&id);
            assert!(output.code() == 0 || std::thread::panicking(), "delete --force\n{output}");
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would end the whole test program.
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.delete_all())));
        } else {
            self.delete_all();
        }
        let leaks = self.leaks();
        if leaks.is_empty() {
            return;
        }
        // So that one failure does not become that of others: by the pids of the test's own cgroups.
        cgroups::kill_and_remove(&cgroups::named(self.scratch.name()));
        if !std::thread::panicking() {
            panic!("left behind after delete --force: {leaks:#?}");
        }
    }
}
