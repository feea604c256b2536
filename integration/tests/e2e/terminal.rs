//! Terminals: through a console socket, and relayed by a foreground `run`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use creel_integration::command::Running;
use creel_integration::sockets::FdSocket;
use creel_integration::{Container, is_creel, needs_runc, pty, skip, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

fn with_terminal(script: &str) -> Container {
    let mut container = Container::shell(script);
    container.bundle.set("process/terminal", true);
    container
}

/// Runs in the foreground with the slave as controlling terminal.
fn run_on(container: &Container, slave: &OwnedFd) -> Running {
    let [input, output, error] = [(); 3].map(|()| slave.try_clone().unwrap());
    container.call("run", &[]).behind(["setsid", "--ctty"]).stdin(input).spawn_with(output, error)
}

#[test]
fn console_socket_receives_the_master() {
    let container = with_terminal("tty; read x; echo got $x; exit 3");
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let running = container.call("create", &["--console-socket", socket.path().to_str().unwrap()]).spawn();
    let message = socket.receive();
    running.output().ok();
    assert_eq!((message.fds.len(), message.count), (1, 1), "{message:?}");
    let name = String::from_utf8(message.payload).unwrap();
    assert!(name.contains("pt"), "{name:?}");
    let mut master = pty::Master::new(message.fds.into_iter().next().unwrap());
    let init = container.init();
    container.start();
    // /dev/console is the same terminal, and is what ttyname(3) may find first.
    master.expect("/dev/");
    master.send("word\n");
    master.expect("got word");
    assert_eq!(init.exited(), Some(3));
    container.delete();
}

#[test]
fn process_leads_a_session_with_the_terminal() {
    let mut container = with_terminal("");
    container.bundle.probe("ids tty fds dev");
    let (mut master, slave) = pty::open();
    let running = run_on(&container, &slave);
    let text = master.expect("}\r\n");
    running.output().ok();
    let report: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(report["ids"]["session"], report["ids"]["pid"]);
    assert_ne!(report["ids"]["tty_nr"], 0);
    assert!(report["tty"].as_array().unwrap().iter().all(|tty| !tty.is_null()), "{report:#}");
    assert_eq!(report["fds"].as_object().unwrap().len(), 3, "{report:#}");
    assert_eq!(report["dev"]["console"]["type"], "char");
}

#[test]
fn foreground_terminal_is_relayed_and_restored() {
    let container = with_terminal("read x; echo got $x; exit 5");
    let (mut master, slave) = pty::open();
    let before = tcgetattr(&slave).unwrap();
    let running = run_on(&container, &slave);
    master.send("word\n");
    master.expect("got word");
    let output = running.output().exits(5);
    let after = tcgetattr(&slave).unwrap();
    assert_eq!(before.local_modes, after.local_modes);
    assert!(after.local_modes.contains(LocalModes::ECHO));
    container.assert_clean(&output);
}

#[test]
fn window_size_is_passed_on_and_follows() {
    let script = "trap 'stty size' WINCH; stty size; echo ready; while true; do read line && exit 0; done";
    let container = with_terminal(script);
    let (mut master, slave) = pty::open();
    master.resize(33, 77);
    let running = run_on(&container, &slave);
    let text = master.expect("ready");
    assert!(text.contains("33 77"), "{text:?}");
    master.resize(40, 120);
    master.expect("40 120");
    master.send("end\n");
    running.output().ok();
}

#[test]
fn control_c_reaches_the_process_and_not_the_runtime() {
    let container = with_terminal(
        "trap 'echo interrupted; exit 9' INT; echo ready; while true; do sleep 100 & wait $!; done",
    );
    let (mut master, slave) = pty::open();
    let running = run_on(&container, &slave);
    master.expect("ready");
    master.send("\x03");
    master.expect("interrupted");
    running.output().exits(9);
}

#[test]
fn console_size_sets_the_terminal() {
    let mut container = with_terminal("stty size");
    container.bundle.set("process/consoleSize", json!({ "height": 21, "width": 63 }));
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let running = container.call("create", &["--console-socket", socket.path().to_str().unwrap()]).spawn();
    let (master, _) = socket.receive_one();
    running.output().ok();
    let mut master = pty::Master::new(master);
    assert_eq!(master.size(), (21, 63));
    let init = container.init();
    container.start();
    master.expect("21 63");
    init.exited();
    container.delete();
}

#[test]
fn terminal_belongs_to_the_user() {
    needs_runc!(2, "a check of the terminal's owner");
    let mut container = with_terminal("stat -c 'owner %u' $(readlink /proc/self/fd/0)");
    container.bundle.set("process/user", json!({ "uid": 1000, "gid": 1000 }));
    let (mut master, slave) = pty::open();
    let running = run_on(&container, &slave);
    master.expect("owner 1000");
    running.output().ok();
}

#[test]
fn terminal_and_console_socket_must_fit_together() {
    let container = with_terminal("true");
    container
        .call("create", &[])
        .output()
        .exits(1)
        .says(&["cannot allocate tty if", "without setting console socket"]);
    let output = container.call("run", &["--detach"]).output().exits(1);
    container.assert_clean(&output);
    let container = Container::shell("true");
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let flags = ["--console-socket", socket.path().to_str().unwrap()];
    let output = container.call("run", &flags).output().exits(1).says(&["cannot use console socket"]);
    container.assert_clean(&output);
}

#[test]
fn console_socket_that_nobody_listens_on_is_an_error() {
    let container = with_terminal("true");
    let path = container.scratch().join("nosuch");
    let output = container.call("create", &["--console-socket", path.to_str().unwrap()]).output().exits(1);
    container.assert_clean(&output);
}

/// Reads until the output contains `text`, and returns all of it.
fn read_until(from: &mut File, text: &str) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        assert!(wait::readable(&*from, wait::DEADLINE), "{} bytes, then silence", all.len());
        let count = from.read(&mut some).unwrap();
        assert!(count > 0, "closed after {} bytes", all.len());
        all.extend_from_slice(&some[..count]);
        // What is new, and what may have come before its end.
        let tail = all.len().saturating_sub(count + text.len());
        if String::from_utf8_lossy(&all[tail..]).contains(text) {
            return all;
        }
    }
}

/// Waits until the pipe takes nothing more. Its size does not tell: short writes leave pages half empty.
fn wait_full(stdout: &OwnedFd) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    wait::until("a full pipe", || poll(&mut [PollFd::new(stdout, PollFlags::OUT)], Some(&now)).unwrap() == 0);
}

#[test]
fn much_input_and_much_output_do_not_wait_for_each_other() {
    if !is_creel() {
        skip!("runc relays only to a terminal of its own");
    }
    let container = with_terminal(
        "stty raw -echo; printf go; dd if=/dev/zero bs=1000 count=2000 2>/dev/null | tr '\\0' x;
        head -c 250000 | wc -c; read end",
    );
    let [(stdin, input), (output, stdout)] = [(); 2].map(|()| pipe_with(PipeFlags::CLOEXEC).unwrap());
    let (mut input, mut output) = (File::from(input), File::from(output));
    let running =
        container.call("run", &[]).stdin(stdin).spawn_with(stdout, File::open("/dev/null").unwrap());
    let mut all = read_until(&mut output, "go");
    let writer = std::thread::spawn(move || {
        input.write_all(&[b'y'; 250_000]).unwrap();
        input
    });
    all.extend(read_until(&mut output, "250000\n"));
    assert_eq!(all.iter().filter(|&&byte| byte == b'x').count(), 2_000_000);
    writer.join().unwrap().write_all(b"\n").unwrap();
    running.output().ok();
}

/// Output that is not read yet, whatever the pipe's mode, is not lost and holds up no signal.
fn stalled_output(mode: PipeFlags) {
    let container = with_terminal(
        "stty raw -echo; trap 'echo > /signalled' USR1;
        dd if=/dev/zero bs=1000 count=400 2>/dev/null | tr '\\0' x & touch /ready; wait; wait;
        echo end; until test -e /seen; do sleep 0.05; done; exit 6",
    );
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::ioctl_fionbio(&stdout, mode.contains(PipeFlags::NONBLOCK)).unwrap();
    let mut output = File::from(output);
    let running =
        container.call("run", &[]).spawn_with(stdout.try_clone().unwrap(), File::open("/dev/null").unwrap());
    container.wait_file("/ready");
    wait_full(&stdout);
    running.signal(rustix::process::Signal::USR1);
    container.wait_file("/signalled");
    let all = read_until(&mut output, "end\n");
    assert_eq!(all.iter().filter(|&&byte| byte == b'x').count(), 400_000);
    std::fs::write(container.bundle.rootfs("seen"), "").unwrap();
    running.output().exits(6);
}

#[test]
fn slow_reader_of_the_output_does_not_hold_up_signals() {
    if !is_creel() {
        skip!("runc relays only to a terminal of its own");
    }
    stalled_output(PipeFlags::empty());
}

#[test]
fn output_survives_a_stdout_that_does_not_block() {
    if !is_creel() {
        skip!("runc relays only to a terminal of its own");
    }
    stalled_output(PipeFlags::NONBLOCK);
}

#[test]
fn exit_is_not_held_up_by_output_that_nobody_reads() {
    if !is_creel() {
        skip!("runc relays only to a terminal of its own");
    }
    let container =
        with_terminal("dd if=/dev/zero bs=1000 count=400 & until test -e /end; do sleep 0.05; done");
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let running =
        container.call("run", &[]).spawn_with(stdout.try_clone().unwrap(), File::open("/dev/null").unwrap());
    wait_full(&stdout);
    std::fs::write(container.bundle.rootfs("end"), "").unwrap();
    let ended = running.output().ok();
    container.assert_clean(&ended);
    drop(output);
}

#[test]
fn terminal_that_is_closed_and_opened_again_is_relayed_on() {
    // The pause is what a relay may take for the end.
    let container = with_terminal(
        "echo ONE; exec </dev/null >/dev/null 2>&1; sleep 1; read line </dev/console; echo TWO $line >/dev/console;
        until test -e /seen; do sleep 0.05; done; exit 4",
    );
    let (mut master, slave) = pty::open();
    let running = run_on(&container, &slave);
    master.expect("ONE");
    master.send("word\n");
    master.expect("TWO word");
    std::fs::write(container.bundle.rootfs("seen"), "").unwrap();
    running.output().exits(4);
}

#[test]
fn end_of_the_callers_input_does_not_end_the_output() {
    if !is_creel() {
        skip!("runc relays only to a terminal of its own");
    }
    let container = with_terminal("sleep 0.5; test -t 0 && echo word; read line; echo got $line");
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (stdin, mut input) = pipe_with(PipeFlags::CLOEXEC).map(|(r, w)| (r, File::from(w))).unwrap();
    input.write_all(b"line\n").unwrap();
    drop(input);
    let error = File::open("/dev/null").unwrap();
    let running = container.call("run", &[]).stdin(stdin).spawn_with(stdout, error);
    read_until(&mut File::from(output), "got line\n");
    running.output().ok();
}
