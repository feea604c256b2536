//! A case: what it changes, what it runs, and what is seen.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use creel_integration::{Container, Output, Runtime};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::normal;

/// One row of a table. `SCRATCH`, `ROOTFS` and `ID` in strings stand for the case's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique.
    pub name: String,
    /// The oldest runc 1.x that can do it.
    #[serde(default)]
    pub min_runc: u32,
    /// Files to write, by path below the scratch directory (`bundle/rootfs/...` is the rootfs).
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Directories to make likewise.
    #[serde(default)]
    dirs: Vec<String>,
    /// Symlinks to make likewise, in the place of a file or empty directory.
    #[serde(default)]
    links: BTreeMap<String, String>,
    /// With user namespace and maps from 100000.
    #[serde(default)]
    user_namespace: bool,
    /// JSON pointers to remove.
    #[serde(default)]
    remove: Vec<String>,
    /// Namespaces to leave out.
    #[serde(default)]
    without: Vec<String>,
    /// JSON pointers and values to set, in the order of their keys: see `Bundle::set`.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    /// What to run: sections of the probe,
    probe: Option<String>,
    /// or a script,
    shell: Option<String>,
    /// or what `set` says.
    #[serde(default)]
    how: How,
    /// Flags of the command.
    #[serde(default)]
    flags: Vec<String>,
    /// Arguments of `exec`, after the id.
    #[serde(default)]
    exec: Vec<String>,
}

/// The commands that are compared.
#[derive(Debug, Default, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum How {
    /// `run`: exit code, stdout, whether stderr is empty.
    #[default]
    Run,
    /// `create`: its exit code, the state, the start's exit code, init's exit code.
    Create,
    /// `run --detach` of an idle container, and `exec` in it.
    Exec,
}

impl Case {
    /// Runs the case on a runtime, and returns what is seen without what differs from run to run.
    pub fn observe(&self, runtime: &Runtime) -> Value {
        let container = self.container(runtime);
        let seen = match self.how {
            How::Run => {
                let output = container.cmd(self.command("run", &container)).output();
                let mut seen = self.output(&container, &output);
                seen["clean"] = json!(container.leaks().is_empty());
                seen
            }
            How::Create => self.create(&container),
            How::Exec => {
                container.run_detached();
                container.wait_file("ready");
                let mut args = self.command("exec", &container);
                args.extend(self.exec.iter().map(|arg| fill(arg, &container)));
                self.output(&container, &container.cmd(args).output())
            }
        };
        drop(container);
        seen
    }

    fn container(&self, runtime: &Runtime) -> Container {
        let mut container = Container::of(runtime);
        let scratch = |path: &str| container.scratch().join(path);
        for dir in &self.dirs {
            std::fs::create_dir_all(scratch(dir)).unwrap();
        }
        for (path, content) in &self.files {
            container.scratch().file(path, content);
        }
        for (path, target) in &self.links {
            let path = scratch(path);
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).ok();
            symlink(fill(target, &container), path).unwrap();
        }
        if self.user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        for kind in &self.without {
            container.bundle.without_namespace(kind);
        }
        for pointer in &self.remove {
            container.bundle.remove(pointer);
        }
        match (&self.probe, &self.shell) {
            (Some(sections), None) => drop_ref(container.bundle.probe(sections)),
            (None, Some(script)) => drop_ref(container.bundle.shell(script)),
            (None, None) => {}
            (Some(_), Some(_)) => panic!("{}: probe and shell", self.name),
        }
        for (pointer, value) in &self.set {
            let value: Value = serde_json::from_str(&fill(&value.to_string(), &container)).unwrap();
            // Several values for one place of an array: `-`, `-2`, `-3`.
            let pointer =
                pointer.trim_end_matches(|last: char| last.is_ascii_digit() && pointer.contains("/-"));
            container.bundle.set(pointer, value);
        }
        if matches!(self.how, How::Exec) {
            container
                .bundle
                .shell("trap 'exit 0' TERM; touch /ready; while true; do sleep 100 & wait $!; done");
        }
        container
    }

    fn command(&self, command: &str, container: &Container) -> Vec<String> {
        let flags = self.flags.iter().map(|flag| fill(flag, container));
        std::iter::once(command.to_owned()).chain(flags).chain([container.id().to_owned()]).collect()
    }

    fn output(&self, container: &Container, output: &Output) -> Value {
        let report = (output.code() == 0).then(|| serde_json::from_str(output.stdout.trim()).ok()).flatten();
        json!({
            "code": output.code(),
            "stdout": match report {
                Some(report) => normal::report(&report, container),
                None if output.stdout.is_empty() => Value::Null,
                // Of a failure only the code counts: the words are each runtime's own.
                None if self.probe.is_some() => json!("no report"),
                None => json!(normal::text(&output.stdout, container)),
            },
        })
    }

    fn create(&self, container: &Container) -> Value {
        let created = container.cmd(self.command("create", container)).output();
        if created.code() != 0 {
            return json!({ "code": created.code(), "clean": container.leaks().is_empty() });
        }
        let before = normal::state(&container.state(), container);
        let init = container.init();
        let start = container.call("start", &[]).output();
        if start.code() != 0 {
            return json!({ "code": created.code(), "created": before, "start": start.code() });
        }
        let code = init.exited();
        let after = normal::state(&container.state(), container);
        let delete = container.call("delete", &[]).output();
        json!({
            "code": created.code(), "created": before, "start": start.code(), "init": code, "stopped": after,
            "delete": delete.code(), "clean": container.leaks().is_empty(),
        })
    }
}

fn fill(text: &str, container: &Container) -> String {
    let rootfs = container.bundle.rootfs("");
    let rootfs = rootfs.to_str().unwrap().trim_end_matches('/');
    let scratch = container.scratch().path().to_str().unwrap();
    text.replace("ROOTFS", rootfs).replace("SCRATCH", scratch).replace("ID", container.id())
}

/// The builder methods return the bundle for chaining.
fn drop_ref<T>(_: &mut T) {}
