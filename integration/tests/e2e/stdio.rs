//! stdio, exit codes and the pid file.

use std::fs::File;
use std::io::Write;

use creel_integration::wait;
use creel_integration::{Container, needs_root, probe};
use rustix::pipe::{PipeFlags, pipe_with};

#[test]
fn exit_code_is_that_of_the_process() {
    for code in [0, 1, 7, 126, 255] {
        Container::shell(&format!("exit {code}")).run().exits(code);
    }
}

#[test]
fn exit_code_of_a_signalled_process_is_128_and_the_signal() {
    let container = Container::idle();
    let running = container.call("run", &[]).spawn();
    wait::until("running", || container.call("state", &[]).output().stdout.contains("running"));
    container.kill("KILL");
    let output = running.output().exits(128 + 9);
    container.assert_clean(&output);
}

#[test]
fn exit_code_of_a_process_that_signals_itself_is_128_and_the_signal() {
    needs_root!("may mount procfs of the host's PID namespace");
    let mut container = Container::shell("kill -TERM $$");
    container.bundle.without_namespace("pid");
    container.run().exits(128 + 15);
}

#[test]
fn stdout_and_stderr_are_apart() {
    let output = Container::shell("echo out; echo err >&2").run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn stdin_reaches_the_process_and_ends() {
    let container = Container::shell("cat; echo end");
    let input = container.scratch().file("input", "line\n");
    let output = container.call("run", &[]).stdin(File::open(input).unwrap()).output().ok();
    assert_eq!(output.stdout, "line\nend\n");
}

#[test]
fn stdin_pipe_that_stays_open_does_not_hold_up_the_end() {
    let container = Container::shell("read line; echo got $line");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let running = container.call("run", &[]).stdin(read).spawn();
    let mut write = File::from(write);
    write.write_all(b"word\n").unwrap();
    let output = running.output().ok();
    assert_eq!(output.stdout, "got word\n");
    drop(write);
}

#[test]
fn large_output_arrives_whole() {
    let output = Container::shell("dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' x").run();
    assert_eq!(output.ok().stdout.len(), 65536 * 64);
}

#[test]
fn detached_container_inherits_the_callers_stdio() {
    let container = Container::shell("read line; echo got $line");
    let input = container.scratch().file("input", "word\n");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    container.call("create", &[]).stdin(File::open(input).unwrap()).spawn_with(write, null).output().ok();
    let init = container.init();
    container.start();
    // The pipe ends with the container: no process of the runtime holds it.
    assert_eq!(wait::read_to_end(read), b"got word\n");
    assert_eq!(init.exited(), Some(0));
    container.delete();
}

#[test]
fn no_file_descriptor_above_two_reaches_the_process() {
    let mut container = Container::new();
    let fds = container.seen("fds");
    let numbers: Vec<&String> = probe::at(&fds, "fds").as_object().unwrap().keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{fds:#}");
}

#[test]
fn callers_own_descriptors_do_not_reach_the_process() {
    let mut container = Container::new();
    container.bundle.probe("fds");
    let secret = container.scratch().file("secret", "x");
    let shell = format!("exec \"$@\" 3<{0} 7<{0} 9<{0}", secret.display());
    let report = container.call("run", &[]).through_shell(&shell).output().ok().json();
    let numbers: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{report:#}");
}

#[test]
fn pid_file_holds_the_pid_and_nothing_is_left_beside_it() {
    let container = Container::idle();
    let dir = container.scratch().dir("pids");
    let file = dir.join("init.pid");
    container.call("create", &["--pid-file", file.to_str().unwrap()]).output().ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), container.init().pid().to_string());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn relative_pid_file_is_relative_to_the_callers_directory() {
    let container = Container::idle();
    let here = container.scratch().dir("here");
    let bundle = container.bundle.dir().to_str().unwrap();
    let flags = ["--bundle", bundle, "--pid-file", "init.pid"];
    container.call("run", &[&flags[..], &["--detach"]].concat()).cwd(&here).output().ok();
    let text = std::fs::read_to_string(here.join("init.pid")).unwrap();
    assert_eq!(text, container.init().pid().to_string());
}

#[test]
fn pid_file_that_cannot_be_written_fails_and_leaves_nothing() {
    let container = Container::idle();
    let file = container.scratch().join("missing/init.pid");
    let output = container.call("create", &["--pid-file", file.to_str().unwrap()]).output().exits(1);
    container.assert_clean(&output);
}
