//! The six kinds of hooks.

use std::path::PathBuf;

use creel_integration::wait::{self, Process};
use creel_integration::{Container, is_creel, needs_runc, skip};
use serde_json::{Value, json};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The host's /tmp is not there inside: hooks that run in the container's namespaces write to its
/// rootfs, below `/`, which for hooks outside is the bundle's.
fn log(container: &Container) -> PathBuf {
    container.bundle.rootfs("hooks")
}

/// A hook that writes its state document to `<name>.state` and its name to the log. createContainer
/// and startContainer run in the container's mount namespace, the former before the root is switched.
fn note(container: &Container, kind: &str) -> Value {
    let dir = if kind == "startContainer" {
        "/".to_owned()
    } else {
        container.bundle.rootfs("").display().to_string()
    };
    let script = format!("cat > {dir}/{kind}.state; echo {kind} >> {dir}/hooks");
    let shell = if kind == "startContainer" { "/bin/sh" } else { "/bin/busybox" };
    let args: Vec<&str> = if kind == "startContainer" {
        vec!["sh", "-c", &script]
    } else {
        vec!["busybox", "sh", "-c", &script]
    };
    json!({ "path": shell, "args": args, "env": ["PATH=/bin", "HOOK=yes"] })
}

fn with_all_hooks(script: &str) -> Container {
    let mut container = Container::shell(script);
    for kind in KINDS {
        let hook = note(&container, kind);
        container.bundle.set(&format!("hooks/{kind}"), json!([hook]));
    }
    container
}

/// The log; without poststart of runc, which runs it before the process (runc#4347).
fn lines(container: &Container) -> Vec<String> {
    let text = std::fs::read_to_string(log(container)).unwrap_or_default();
    text.lines().filter(|line| is_creel() || *line != "poststart").map(str::to_owned).collect()
}

#[test]
fn hooks_run_in_order_around_the_process() {
    let container = with_all_hooks("echo process >> /hooks; sleep 1000");
    container.create();
    assert_eq!(lines(&container), ["prestart", "createRuntime", "createContainer"]);
    container.start();
    wait::for_text(&log(&container), |text| text.contains("process") && text.contains("poststart"));
    let seen = lines(&container);
    assert_eq!(seen[3], "startContainer");
    let init = container.init();
    container.kill("KILL");
    init.exited();
    assert!(!lines(&container).contains(&"poststop".to_owned()));
    container.delete();
    assert_eq!(lines(&container).last().unwrap(), "poststop");
}

#[test]
fn hooks_read_the_state_of_their_phase() {
    let mut container = with_all_hooks("true");
    container.bundle.set("annotations", json!({ "org.example.key": "value" }));
    container.create();
    let pid = container.init().pid();
    let init = container.init();
    container.start();
    init.exited();
    container.delete();
    for (kind, statuses) in [
        ("prestart", &["creating", "created"][..]),
        ("createRuntime", &["creating", "created"]),
        ("createContainer", &["creating", "created"]),
        ("startContainer", &["created"]),
        // The container may be over already; runc runs it before the process.
        ("poststart", if is_creel() { &["running", "stopped"] } else { &["created", "running", "stopped"] }),
        ("poststop", &["stopped"]),
    ] {
        let text = std::fs::read_to_string(container.bundle.rootfs(&format!("{kind}.state"))).unwrap();
        let state: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text}"));
        assert_eq!(state["id"], container.id(), "{kind}");
        assert_eq!(state["bundle"], container.bundle.dir().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        let status = state["status"].as_str().unwrap();
        assert!(statuses.contains(&status), "{kind}: {status}");
        // In the container's pid namespace init is 1.
        let seen = state["pid"].as_i64().unwrap_or_default();
        let expected = if kind == "poststop" { vec![0, i64::from(pid)] } else { vec![i64::from(pid), 1] };
        assert!(expected.contains(&seen), "{kind}: {seen}, init is {pid}");
    }
}

#[test]
fn hooks_run_in_the_right_namespaces() {
    let mut container = Container::idle();
    let root = container.bundle.rootfs("").display().to_string();
    for (kind, dir) in [
        ("prestart", root.as_str()),
        ("createRuntime", &root),
        ("createContainer", &root),
        ("startContainer", "/"),
    ] {
        let script = format!(
            "readlink /proc/self/ns/net > {dir}/{kind}.net; readlink /proc/self/ns/mnt > {dir}/{kind}.mnt"
        );
        let hook = json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
        container.bundle.set(&format!("hooks/{kind}"), json!([hook]));
    }
    container.run_detached();
    container.wait_file("ready");
    let of_init = |name: &str| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{name}", container.init().pid())).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let own = |name: &str| {
        std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap().to_str().unwrap().to_owned()
    };
    let seen = |kind: &str, name: &str| {
        std::fs::read_to_string(container.bundle.rootfs(&format!("{kind}.{name}"))).unwrap().trim().to_owned()
    };
    for name in ["net", "mnt"] {
        assert_eq!(seen("prestart", name), own(name));
        assert_eq!(seen("createRuntime", name), own(name));
        assert_eq!(seen("createContainer", name), of_init(name));
        assert_eq!(seen("startContainer", name), of_init(name));
    }
}

#[test]
fn hook_gets_its_own_arguments_and_environment() {
    let mut container = Container::shell("true");
    let file = container.scratch().join("seen");
    let script = format!("echo \"$0 $1 $HOOK $(env | wc -l)\" > {}", file.display());
    container.bundle.set(
        "hooks/createRuntime",
        json!([
            { "path": "/bin/busybox", "args": ["sh", "-c", script, "zero", "one"], "env": ["HOOK=yes"] }
        ]),
    );
    container.run().ok();
    let seen = std::fs::read_to_string(&file).unwrap();
    assert!(seen.starts_with("zero one yes "), "{seen}");
}

#[test]
fn several_hooks_of_a_kind_run_in_order() {
    let mut container = Container::shell("true");
    let file = container.scratch().join("seen");
    let hook = |word: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> {}", file.display())] });
    container.bundle.set("hooks/createRuntime", json!([hook("one"), hook("two"), hook("three")]));
    container.run().ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
}

#[test]
fn failing_hook_fails_the_command_with_its_output_and_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut container = Container::idle();
        let hook = json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", "cat > /dev/null; echo reason-why >&2; exit 3"] });
        container.bundle.set(&format!("hooks/{kind}"), json!([hook]));
        let output = container.create_fails().says(&["hook", "reason-why"]);
        output.creel_says(&[&format!(".hooks.{kind}[0]")]);
    }
}

#[test]
fn the_failing_one_of_several_hooks_is_named_as_runc_names_it() {
    needs_runc!(2, "the number of a hook");
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut container = Container::new();
        let (yes, no) = if kind == "startContainer" {
            (json!({ "path": "/bin/true" }), json!({ "path": "/bin/false" }))
        } else {
            let applet = |name: &str| json!({ "path": "/bin/busybox", "args": [name] });
            (applet("true"), applet("false"))
        };
        container.bundle.set(&format!("hooks/{kind}"), json!([yes, no])).shell("sleep 1000");
        let output = container.call("run", &[]).output().exits(1);
        output.says(&[&format!("error running {kind} hook #1:")]).creel_says(&[&format!(".hooks.{kind}[1]")]);
    }
}

#[test]
fn failing_start_container_hook_keeps_the_process_from_running() {
    let mut container = Container::shell("touch /ran");
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo reason-why >&2; exit 3"] });
    container.bundle.set("hooks/startContainer", json!([hook]));
    container.create();
    let init = container.init();
    let output = container.call("start", &[]).output();
    assert!(output.code() == 1 || !is_creel(), "{output}");
    init.exited();
    assert!(!container.bundle.rootfs("ran").exists());
    let output = container.call("delete", &["--force"]).output().ok();
    container.assert_clean(&output);
}

#[test]
fn failing_poststop_hook_does_not_keep_the_container() {
    let mut container = Container::idle();
    container.bundle.set("hooks/poststop", json!([{ "path": "/bin/false" }]));
    container.run_detached();
    let init = container.init();
    container.kill("KILL");
    init.exited();
    let output = container.call("delete", &[]).output();
    container.assert_clean(&output);
}

#[test]
fn missing_hook_is_an_error_that_names_it() {
    let mut container = Container::idle();
    container.bundle.set("hooks/createRuntime", json!([{ "path": "/nosuch/hook" }]));
    container.create_fails().says(&["/nosuch/hook"]).creel_says(&[".hooks.createRuntime[0]"]);
}

#[test]
fn relative_hook_path_is_refused() {
    let mut container = Container::idle();
    container.bundle.set("hooks/createRuntime", json!([{ "path": "hook" }]));
    container.create_fails();
}

#[test]
fn hook_that_takes_too_long_is_ended() {
    let mut container = Container::idle();
    let file = container.scratch().join("hook.pid");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    container.bundle.set(
        "hooks/createRuntime",
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1 }]),
    );
    let output = container.create_fails();
    let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    if let Some(process) = Process::open(pid) {
        // A number that was given again would be another process.
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).unwrap_or_default();
        assert!(process.is_dead() || !line.contains("sleep"), "the hook still runs: {line}");
    }
    output.creel_says(&[".hooks.createRuntime[0]"]);
}

#[test]
fn hooks_get_no_file_descriptors() {
    let mut container = Container::shell("true");
    let file = container.scratch().join("fds");
    let script = format!("ls -l /proc/self/fd > {}", file.display());
    container.bundle.set("hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    container.run().ok();
    let text = std::fs::read_to_string(&file).unwrap();
    // stdin, stdout, stderr, the directory that ls lists, and the head "total 0".
    assert!(text.lines().count() <= 5, "{text}");
}

#[test]
fn poststart_hook_that_fails_late_does_not_touch_another_container_of_the_same_id() {
    let mut container = Container::idle();
    let (at, go) = (container.scratch().join("at"), container.scratch().join("go"));
    creel_integration::Cmd::new("mkfifo").args([&go]).output().ok();
    let script = format!("touch {}; cat {}; exit 1", at.display(), go.display());
    container.bundle.set("hooks/poststart", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let first = container.call("run", &["--detach"]).spawn();
    wait::until("the hook runs", || at.exists());
    container.call("delete", &["--force"]).output().ok();
    container.bundle.remove("hooks");
    container.run_detached();
    std::fs::write(&go, "").unwrap();
    first.output().exits(1);
    assert_eq!(container.status(), "running");
    container.exec(&[], &["true"]).output().ok();
}

#[test]
fn delete_by_force_ends_a_hook_that_hangs() {
    if !is_creel() {
        skip!("runc deletes under a create");
    }
    let mut container = Container::idle();
    let at = container.scratch().join("at");
    let script = format!("touch {}; exec sleep 1000", at.display());
    container.bundle.set("hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let create = container.call("create", &[]).spawn();
    wait::until("the hook runs", || at.exists());
    let delete = container.call("delete", &["--force"]).output().ok();
    create.output().exits(1).says(&["createRuntime hook #0", "init is gone"]);
    container.assert_clean(&delete);
}
