//! crun's annotations, `run.oci.*`, which runc ignores.

use std::os::unix::fs::PermissionsExt;

use creel_integration::sockets::FdSocket;
use creel_integration::{Cmd, Container, is_creel, needs_root, skip};
use serde_json::json;

#[test]
fn the_caller_s_groups_are_kept_when_asked() {
    needs_root!("may set groups");
    if !is_creel() {
        skip!("runc has no such annotation");
    }
    for user_namespace in [false, true] {
        let mut container = Container::idle();
        container.bundle.set("annotations", json!({ "run.oci.keep_original_groups": "1" }));
        container.bundle.set("process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [9] }));
        if user_namespace {
            container.bundle.user_namespace(100_000, 65536);
        }
        let with_groups = ["setpriv", "--groups", "100001,100002", "--"];
        container.call("run", &["--detach"]).behind(with_groups).output().ok();
        container.wait_file("ready");
        let groups = |pid: &str| {
            let text =
                container.exec(&[], &["cat", &format!("/proc/{pid}/status")]).behind(with_groups).output();
            let text = text.ok().stdout;
            text.lines().find_map(|line| line.strip_prefix("Groups:\t")).unwrap().trim().to_owned()
        };
        let expected = if user_namespace { "1 2" } else { "100001 100002" };
        assert_eq!((groups("1").as_str(), groups("self").as_str()), (expected, expected));
        container.stop_and_delete();
    }
}

#[test]
fn output_of_hooks_goes_to_files_also_from_inside() {
    if !is_creel() {
        skip!("runc has no such annotation");
    }
    let mut container = Container::new();
    let (out, err) = (container.scratch().join("out"), container.scratch().join("err"));
    container.bundle.set(
        "annotations",
        json!({ "run.oci.hooks.stdout": out.to_str().unwrap(), "run.oci.hooks.stderr": err.to_str().unwrap() }),
    );
    for kind in ["createRuntime", "createContainer", "startContainer", "poststop"] {
        let shell = if kind == "startContainer" { "/bin/sh" } else { "/bin/busybox" };
        let script = format!("echo {kind}; echo error of {kind} >&2");
        let args = if kind == "startContainer" {
            json!(["sh", "-c", script])
        } else {
            json!(["busybox", "sh", "-c", script])
        };
        container.bundle.set(&format!("hooks/{kind}"), json!([{ "path": shell, "args": args }]));
    }
    container.bundle.shell("ls /proc/self/fd | wc -l");
    // 0, 1, 2 and the directory: the hooks' files are not the program's.
    assert_eq!(container.run().ok().stdout, "4\n");
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(text, "createRuntime\ncreateContainer\nstartContainer\npoststop\n");
    assert_eq!(std::fs::read_to_string(&err).unwrap().lines().count(), 4);
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn a_socket_receives_the_pidfd() {
    if !is_creel() {
        skip!("runc has no such annotation");
    }
    let mut container = Container::idle();
    let socket = FdSocket::listen(&container.scratch().join("pidfd"));
    container.bundle.set("annotations", json!({ "run.oci.pidfd_receiver": socket.path().to_str().unwrap() }));
    let running = container.call("create", &[]).spawn();
    let message = socket.receive();
    running.output().ok();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&message.fds[0]);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let pid = container.init().pid();
    assert!(info.lines().any(|line| line == format!("Pid:\t{pid}")), "{info}");
    container.kill("KILL");
}

#[test]
fn a_compiled_filter_takes_the_place_of_the_profile() {
    if !is_creel() {
        skip!("runc has no such annotation");
    }
    // ld [0] (the number); jeq chroot, 0, 1; ret ERRNO|EXDEV; ret ALLOW
    let chroot: u32 = if cfg!(target_arch = "x86_64") { 161 } else { 51 };
    let program = [
        (0x20u16, 0u8, 0u8, 0u32),
        (0x15, 0, 1, chroot),
        (0x06, 0, 0, 0x0005_0000 | 18),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes: Vec<u8> = program
        .iter()
        .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
        .collect();
    let mut container = Container::new();
    let file = container.scratch().file("filter", bytes);
    let text = Cmd::new("base64").args(["-w0", file.to_str().unwrap()]).output().ok().stdout;
    container.bundle.set("annotations", json!({ "run.oci.seccomp_bpf_data": text }));
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_KILL" }));
    assert_eq!(container.seen("call=chroot")["call"]["chroot"], "EXDEV");
    container.bundle.set("annotations", json!({ "run.oci.seccomp_bpf_data": "AAAA" }));
    container.create_fails().creel_says(&["run.oci.seccomp_bpf_data", "instructions"]);
}

#[test]
fn a_listener_may_come_from_the_annotation() {
    if !is_creel() {
        skip!("runc has no such annotation");
    }
    let mut container = Container::idle();
    let socket = FdSocket::listen(&container.scratch().join("agent"));
    container
        .bundle
        .set("annotations", json!({ "run.oci.seccomp.receiver": socket.path().to_str().unwrap() }));
    let rule = json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]);
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    let running = container.call("create", &[]).spawn();
    assert_eq!(socket.receive().fds.len(), 1);
    running.output().ok();
    container.kill("KILL");
}

#[test]
fn unknown_annotations_and_handlers_are_only_metadata() {
    let mut container = Container::new();
    let annotations = json!({ "run.oci.handler": "krun", "run.oci.nosuch": "", "org.example": "x" });
    container.bundle.set("annotations", annotations);
    container.run().ok();
}
