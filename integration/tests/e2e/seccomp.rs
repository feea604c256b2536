//! `.linux.seccomp`.

use creel_integration::sockets::FdSocket;
use creel_integration::{Container, is_creel, needs_runc};
use serde_json::{Value, json};

fn with_rules(rules: Value) -> Container {
    let mut container = Container::new();
    container.bundle.set("linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    container.bundle.capabilities(&[
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_CHOWN",
        "CAP_NET_RAW",
        "CAP_MKNOD",
    ]);
    container
}

fn call(container: &mut Container, name: &str) -> String {
    container.seen(&format!("call={name}"))["call"][name].as_str().unwrap().to_owned()
}

#[test]
fn calls_answer_the_errno_of_the_rule() {
    let mut container = with_rules(json!([
        { "names": ["chroot"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["mount", "umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
        { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 110 },
    ]));
    let report = container.seen("call=chroot call=mount call=umount call=sethostname call=chown status");
    assert_eq!(
        report["call"],
        json!({ "chroot": "EPERM", "mount": "EACCES", "umount": "EACCES", "sethostname": "ETIMEDOUT", "chown": "ok" })
    );
    assert_eq!(report["status"]["Seccomp"], "2");
}

#[test]
fn default_errno_is_that_of_the_profile() {
    let mut container = with_rules(json!([]));
    container.bundle.set(
        "linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95,
            "syscalls": [{ "names": old_calls(&["chroot"]), "action": "SCMP_ACT_ALLOW" }],
        }),
    );
    let report = container.seen("call=mount call=chroot");
    assert_eq!(report["call"], json!({ "mount": "EOPNOTSUPP", "chroot": "ok" }));
}

/// The machine's own architecture, as libseccomp names it.
fn native() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => "SCMP_ARCH_X86_64",
    }
}

/// Calls that the probe and a runtime's last steps need, none newer than Linux 4.18, and `more`.
fn old_calls(more: &[&str]) -> Vec<String> {
    let names = "access arch_prctl brk capget capset chdir close dup dup2 dup3 epoll_ctl epoll_create1 epoll_pwait \
        eventfd2 execve exit exit_group fchdir fchmod fchown fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid \
        getgid getpid getppid getrandom getrlimit gettid getuid ioctl lseek lstat madvise mmap mprotect mremap munmap \
        nanosleep newfstatat open openat pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat rt_sigaction \
        rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list set_tid_address setgid setgroups \
        setresgid setresuid setuid sigaltstack stat statfs sysinfo tgkill umask uname unlink write writev clone statx rseq";
    names.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect()
}

#[test]
fn calls_newer_than_the_profile_are_not_implemented_rather_than_forbidden() {
    let mut container = with_rules(json!([]));
    container.bundle.set(
        "linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": [native()],
            "syscalls": [{ "names": old_calls(&[]), "action": "SCMP_ACT_ALLOW" }],
        }),
    );
    let report =
        container.seen("call=mount call=unshare call=fsopen call=open_tree call=pidfd_open call=openat2");
    for name in ["mount", "unshare"] {
        assert_eq!(report["call"][name], "EPERM", "{name}");
    }
    for name in ["fsopen", "open_tree", "pidfd_open", "openat2"] {
        assert_eq!(report["call"][name], "ENOSYS", "{name}");
    }
}

#[test]
fn rules_look_at_arguments() {
    for (op, value, two, unix, inet) in [
        ("SCMP_CMP_EQ", 2, 0, "ok", "EPERM"),
        ("SCMP_CMP_NE", 2, 0, "EPERM", "ok"),
        ("SCMP_CMP_LT", 2, 0, "EPERM", "ok"),
        ("SCMP_CMP_LE", 1, 0, "EPERM", "ok"),
        ("SCMP_CMP_GE", 2, 0, "ok", "EPERM"),
        ("SCMP_CMP_GT", 1, 0, "ok", "EPERM"),
        ("SCMP_CMP_MASKED_EQ", 3, 2, "ok", "EPERM"),
    ] {
        // AF_UNIX is 1, AF_INET is 2.
        let args = json!([{ "index": 0, "value": value, "valueTwo": two, "op": op }]);
        let mut container =
            with_rules(json!([{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args }]));
        let report = container.seen("call=socket-unix call=socket-inet");
        assert_eq!(report["call"], json!({ "socket-unix": unix, "socket-inet": inet }), "{op}");
    }
}

#[test]
fn all_arguments_of_a_rule_must_match() {
    let args = json!([
        { "index": 0, "value": 2, "op": "SCMP_CMP_EQ" },
        { "index": 2, "value": 1, "op": "SCMP_CMP_EQ" },
    ]);
    let mut container =
        with_rules(json!([{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args }]));
    let report = container.seen("call=socket-inet call=socket-raw");
    assert_eq!(report["call"]["socket-inet"], "ok");
    assert_ne!(report["call"]["socket-raw"], "ok");
}

#[test]
fn kill_ends_the_process_with_sigsys() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        let mut container = with_rules(json!([{ "names": ["sethostname"], "action": action }]));
        container.bundle.probe("call=sethostname");
        container.run().exits(128 + 31);
    }
}

#[test]
fn trap_ends_the_process_with_sigsys() {
    let mut container = with_rules(json!([{ "names": ["sethostname"], "action": "SCMP_ACT_TRAP" }]));
    container.bundle.probe("call=sethostname");
    container.run().exits(128 + 31);
}

#[test]
fn log_lets_the_call_through() {
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_LOG" }]));
    assert_eq!(call(&mut container, "chroot"), "ok");
}

#[test]
fn trace_without_a_tracer_is_not_implemented() {
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_TRACE" }]));
    assert_eq!(call(&mut container, "chroot"), "ENOSYS");
}

#[test]
fn flags_and_architectures_are_accepted() {
    needs_runc!(2, "seccomp flags");
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }]));
    container
        .bundle
        .set("linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]));
    container
        .bundle
        .set("linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    assert_eq!(call(&mut container, "chroot"), "EPERM");
}

#[test]
fn unknown_call_names_are_ignored() {
    let mut container =
        with_rules(json!([{ "names": ["nosuchcall", "chroot"], "action": "SCMP_ACT_ERRNO" }]));
    assert_eq!(call(&mut container, "chroot"), "EPERM");
}

#[test]
fn filter_is_loaded_without_no_new_privileges() {
    for value in [Some(true), Some(false), None] {
        let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }]));
        container.bundle.remove("process/noNewPrivileges");
        if let Some(value) = value {
            container.bundle.set("process/noNewPrivileges", value);
        }
        let report = container.seen("call=chroot status");
        assert_eq!(report["call"]["chroot"], "EPERM");
        assert_eq!(report["status"]["NoNewPrivs"], if value == Some(true) { "1" } else { "0" });
    }
}

#[test]
fn filter_of_an_ordinary_user_without_capabilities() {
    for no_new_privileges in [true, false] {
        let mut container = with_rules(
            json!([{ "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]),
        );
        container.bundle.capabilities(&[]).set("process/noNewPrivileges", no_new_privileges);
        container.bundle.set("process/user", json!({ "uid": 1000, "gid": 1000 }));
        assert_eq!(call(&mut container, "chmod"), "EOPNOTSUPP");
    }
}

#[test]
fn bad_profiles_are_refused() {
    for profile in [
        json!({ "defaultAction": "SCMP_ACT_NOSUCH" }),
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["chroot"], "action": "NOSUCH" }] }),
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"] }),
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOSUCH"] }),
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH" }] }] }),
    ] {
        let text = profile.to_string();
        let mut container = Container::idle();
        container.bundle.set("linux/seccomp", profile);
        let output = container.call("create", &[]).output();
        assert_eq!(output.code(), 1, "{text}\n{output}");
        container.assert_clean(&output);
        output.creel_says(&[".linux.seccomp"]);
    }
}

#[test]
fn listener_receives_the_descriptor_and_the_state() {
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]));
    let socket = FdSocket::listen(&container.scratch().join("agent"));
    container.bundle.set("linux/seccomp/listenerPath", socket.path().to_str().unwrap());
    container.bundle.set("linux/seccomp/listenerMetadata", "some metadata");
    container.bundle.shell("touch /ready; sleep 1000");
    let running = container.call("create", &[]).spawn();
    let message = socket.receive();
    running.output().ok();
    assert_eq!(message.fds.len(), 1);
    let document: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(document["fds"], json!(["seccompFd"]));
    assert_eq!(document["metadata"], "some metadata");
    assert_eq!(document["pid"], container.init().pid());
    assert_eq!(document["state"]["id"], container.id());
    assert_eq!(document["state"]["bundle"], container.bundle.dir().to_str().unwrap());
    assert!(["creating", "created"].contains(&document["state"]["status"].as_str().unwrap()));
    let name =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&message.fds[0])))
            .unwrap();
    assert_eq!(name.to_str().unwrap(), "anon_inode:seccomp notify");
    container.start();
    container.wait_file("ready");
    container.stop_and_delete();
}

#[test]
fn listener_that_nobody_serves_is_an_error() {
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]));
    let path = container.scratch().join("nosuch");
    container.bundle.set("linux/seccomp/listenerPath", path.to_str().unwrap());
    container.create_fails().creel_says(&["nosuch"]);
}

#[test]
fn notify_without_a_listener_is_refused() {
    let mut container = with_rules(json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]));
    container.bundle.shell("true");
    let output = container.call("create", &[]).output();
    assert!(output.code() == 1 || !is_creel(), "{output}");
}

#[test]
fn profile_of_an_engine_lets_ordinary_programs_run() {
    let mut container = with_rules(json!([]));
    container.bundle.set("linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": old_calls(&["wait4", "vfork", "fork", "setpgid", "getpgrp", "getpgid", "clone3", "pipe", "mkdir"]),
              "action": "SCMP_ACT_ALLOW" },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
        ],
    }));
    container.bundle.shell("ls / | grep bin; echo $(echo nested); mkdir /made && echo made");
    let output = container.run().ok();
    assert_eq!(output.stdout, "bin\nnested\nmade\n");
}
