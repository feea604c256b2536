//! Terminals: through a console socket, and relayed by a foreground `run`.

use std::os::fd::OwnedFd;

use creel_integration::command::Running;
use creel_integration::sockets::FdSocket;
use creel_integration::{Container, needs_runc, pty};
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
