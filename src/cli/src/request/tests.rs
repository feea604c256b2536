#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;

use super::*;
use crate::commands::Subcommand;
use crate::program::Program;

fn with_words<T>(subcommand: Subcommand, args: &[&str], test: impl FnOnce(&Words<'_>) -> T) -> T {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let program = Program { argv0: "creel".to_owned(), name: "creel" };
    test(&subcommand.parse(&program, &args).unwrap().unwrap())
}

fn exec_of(args: &[&str]) -> Result<ExecRequest, String> {
    with_words(Subcommand::Exec, args, |words| exec(id(&words.operands)?, words))
}

fn flags_of(args: &[&str]) -> Result<ExecFlags, String> {
    match exec_of(args)?.process {
        ExecProcess::Flags(flags) => Ok(*flags),
        ExecProcess::File(file) => Err(format!("unexpected --process {}", file.display())),
    }
}

#[test]
fn containerds_create_becomes_a_request() {
    let bundle = tempfile::tempdir().unwrap();
    let directory = bundle.path().to_str().unwrap();
    let args = [
        "--bundle",
        directory,
        "--pid-file",
        "/b/init.pid",
        "--console-socket",
        "/s",
        "--no-pivot",
        "--no-new-keyring",
        "-preserve-fds",
        "2",
        "web",
    ];
    let request =
        with_words(Subcommand::Create, &args, |words| create(&id(&words.operands).unwrap(), words).unwrap());
    assert_eq!(request.id, "web");
    assert_eq!(request.bundle, bundle.path().canonicalize().unwrap());
    assert_eq!(request.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
    assert_eq!(request.console_socket.as_deref(), Some(Path::new("/s")));
    assert_eq!(request.pidfd_socket, None);
    assert!(request.no_pivot && request.no_new_keyring);
    assert_eq!(request.preserve_fds, 2);
}

#[test]
fn paths_are_absolute_and_the_bundle_defaults_to_the_current_directory() {
    let here = std::env::current_dir().unwrap();
    let request =
        with_words(Subcommand::Create, &["--pid-file", "a/../p", "x"], |words| create("x", words).unwrap());
    assert_eq!(request.bundle, here.canonicalize().unwrap());
    assert_eq!(request.pid_file, Some(here.join("p")));
}

#[test]
fn a_missing_bundle_is_named() {
    let why = with_words(Subcommand::Create, &["-b", "/proc/no-such", "x"], |words| {
        create("x", words).unwrap_err()
    });
    assert_eq!(why, "bundle /proc/no-such: ENOENT (no such file or directory)");
}

#[test]
fn run_ends_as_its_flags_say() {
    let mode = |args: &[&str]| with_words(Subcommand::Run, args, run_mode);
    assert!(matches!(mode(&["-d", "x"]), RunMode::Detached));
    assert!(matches!(mode(&["x"]), RunMode::Foreground { keep: false, subreaper: true }));
    assert!(matches!(
        mode(&["--keep", "-no-subreaper", "x"]),
        RunMode::Foreground { keep: true, subreaper: false }
    ));
}

#[test]
fn exec_flags_are_collected_and_commas_do_not_separate() {
    let args = [
        "-e",
        "A=1,2",
        "--env=B=",
        "-t",
        "-u",
        "1000:100",
        "-g",
        "4",
        "-g=5",
        "--cwd",
        "/tmp",
        "-c",
        "CAP_SYS_PTRACE",
        "--no-new-privs",
        "--apparmor",
        "p",
        "--process-label",
        "l",
        "web",
        "ls",
        "-t",
    ];
    let flags = flags_of(&args).unwrap();
    assert_eq!(flags.args, ["ls", "-t"]);
    assert_eq!(flags.env, ["A=1,2", "B="]);
    assert_eq!(flags.user, Some((1000, Some(100))));
    assert_eq!(flags.additional_gids, [4, 5]);
    assert_eq!(flags.cwd.as_deref(), Some("/tmp"));
    assert_eq!(flags.caps, ["CAP_SYS_PTRACE"]);
    assert_eq!(flags.apparmor.as_deref(), Some("p"));
    assert_eq!(flags.process_label.as_deref(), Some("l"));
    assert!(flags.tty && flags.no_new_privs);
}

#[test]
fn exec_needs_a_command_or_a_process_file() {
    assert_eq!(exec_of(&["web"]).unwrap_err(), "exec args cannot be empty");
    let request = exec_of(&["-d", "--ignore-paused", "-p", "/p.json", "web"]).unwrap();
    assert!(matches!(request.process, ExecProcess::File(file) if file == Path::new("/p.json")));
    assert!(request.detach && request.ignore_paused);
}

#[test]
fn a_user_that_is_not_plain_decimal_is_refused() {
    for text in [
        "",
        "a",
        "0x1",
        "1:",
        ":1",
        "+1",
        "-1",
        "1 ",
        " 1",
        "4294967296",
        "4294967295",
        "1:4294967296",
        "1:2:3",
    ] {
        let why = flags_of(&["--user", text, "web", "ls"]).unwrap_err();
        assert!(why.starts_with("bad uid ") || why.starts_with("bad gid "), "{text:?}: {why}");
    }
    for (text, expected) in [("0", (0, None)), ("1:2", (1, Some(2))), ("4294967294", (u32::MAX - 1, None))] {
        assert_eq!(flags_of(&["-u", text, "web", "ls"]).unwrap().user, Some(expected));
    }
    assert!(flags_of(&["-g", "-1", "web", "ls"]).unwrap_err().starts_with("bad additional gid \"-1\""));
}

#[test]
fn cgroups_are_one_path_or_paths_by_controller() {
    let cgroups = |args: &[&str]| cgroups(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    assert_eq!(cgroups(&["sub"]).unwrap(), [(vec![], "sub".to_owned())]);
    let two = cgroups(&["cpu,cpuacct:/a", "memory:b:c"]).unwrap();
    assert_eq!(two[0], (vec!["cpu".to_owned(), "cpuacct".to_owned()], "/a".to_owned()));
    assert_eq!(two[1], (vec!["memory".to_owned()], "b:c".to_owned()));
    for (args, why) in [
        (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
        (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
        (&["cpu,:a"], "invalid --cgroup argument: cpu,:a (empty <controller> prefix)"),
        (&["cpu:a", "cpu:b"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
    ] {
        assert_eq!(cgroups(args).unwrap_err(), why);
    }
}

#[test]
fn sockets_are_taken_only_when_listen_pid_is_ours() {
    let with = |pid: &'static str, count: &'static str| {
        listen_fds_of(7, move |name| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(count.to_owned()),
            _ => Some("web:admin".to_owned()),
        })
    };
    let taken = with("7", "2").unwrap();
    assert_eq!((taken.count, taken.names.as_deref()), (2, Some("web:admin")));
    for (pid, count) in [("8", "2"), ("7", "0"), ("7", "-1"), ("x", "2"), ("", "2")] {
        assert!(with(pid, count).is_none(), "{pid} {count}");
    }
    assert!(listen_fds_of(7, |_| None).is_none());
}

#[test]
fn an_empty_id_is_refused() {
    assert_eq!(id(&[OsStr::new("")]).unwrap_err(), "container id cannot be empty");
}
