//! Descriptors and sockets that are handed on: `--preserve-fds`, LISTEN_FDS, NOTIFY_SOCKET and
//! `--pidfd-socket`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use creel_integration::sockets::FdSocket;
use creel_integration::{Container, is_creel, needs_root, needs_runc, probe, wait};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};

fn numbers(report: &Value) -> Vec<&str> {
    report["fds"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn preserved_descriptors_keep_their_numbers() {
    let mut container = Container::new();
    container.bundle.probe("fds");
    let file = container.scratch().file("preserved", "");
    let shell = format!("exec \"$@\" 3<{0} 4<{0} 5<{0}", file.display());
    let report = container.call("run", &["--preserve-fds", "2"]).through_shell(&shell).output().ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3", "4"], "{report:#}");
    assert!(probe::text(&report, "fds/3").contains("preserved"));
}

#[test]
fn preserved_descriptors_survive_create_and_start() {
    let container = Container::shell("cat <&3 > /seen");
    let file = container.scratch().file("preserved", "content");
    let shell = format!("exec \"$@\" 3<{}", file.display());
    container.call("create", &["--preserve-fds", "1"]).through_shell(&shell).output().ok();
    container.start();
    wait::for_text(&container.bundle.rootfs("seen"), |text| text == "content");
}

#[test]
fn more_preserved_descriptors_than_there_are_is_an_error() {
    // runc#5474: descriptors of the runtime itself went to the container.
    if !is_creel() {
        creel_integration::skip!("runc passes descriptors of its own");
    }
    let container = Container::probe("fds");
    let output = container.call("run", &["--preserve-fds", "3"]).output().exits(1);
    container.assert_clean(&output);
    let file = container.scratch().file("preserved", "");
    let shell = format!("exec \"$@\" 3<{0} 5<{0}", file.display());
    let output = container.call("run", &["--preserve-fds", "3"]).through_shell(&shell).output().exits(1);
    container.assert_clean(&output);
}

#[test]
fn sockets_of_systemd_are_handed_on() {
    let mut container = Container::new();
    container.bundle.probe("fds env");
    let file = container.scratch().file("socket", "");
    let shell = format!(
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b exec \"$@\" 3<{0} 4<{0} 5<{0}",
        file.display()
    );
    let report = container.call("run", &["--preserve-fds", "1"]).through_shell(&shell).output().ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3", "4", "5"], "{report:#}");
    let env = report["env"].as_array().unwrap();
    for expected in ["LISTEN_FDS=2", "LISTEN_PID=1"] {
        assert!(env.contains(&json!(expected)), "{expected} in {env:?}");
    }
}

#[test]
fn sockets_meant_for_another_process_are_not_handed_on() {
    let mut container = Container::new();
    container.bundle.probe("fds env");
    let file = container.scratch().file("socket", "");
    let shell = format!("LISTEN_PID=1 LISTEN_FDS=2 exec \"$@\" 3<{0} 4<{0}", file.display());
    let report = container.call("run", &[]).through_shell(&shell).output().ok().json();
    assert!(!report["env"].to_string().contains("LISTEN_"), "{report:#}");
    if is_creel() {
        assert_eq!(numbers(&report), ["0", "1", "2"], "{report:#}");
    }
}

#[test]
fn notify_socket_is_there_and_its_message_is_forwarded() {
    needs_runc!(2, "the barrier of sd_notify");
    // busybox's nc speaks no datagrams to unix sockets; that the socket is there can be seen all the same.
    let container = Container::shell(
        "echo $NOTIFY_SOCKET > /seen; grep run/notify /proc/self/mountinfo > /mounted; sleep 1000",
    );
    let path = container.scratch().join("notify");
    let host = UnixDatagram::bind(&path).unwrap();
    container.call("create", &[]).env("NOTIFY_SOCKET", &path).output().ok();
    let starting = container.call("start", &[]).env("NOTIFY_SOCKET", &path).spawn();
    let seen = wait::for_text(&container.bundle.rootfs("seen"), |text| text.ends_with('\n'));
    assert!(seen.starts_with("/run/notify/"), "{seen}");
    let mounted = wait::for_text(&container.bundle.rootfs("mounted"), |text| text.ends_with('\n'));
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mounted.split([' ', ',']).any(|word| word == option), "{option} in {mounted}");
    }
    // The program inside sends through the container's own view of the file.
    let inside = format!("/proc/{}/root{}", container.init().pid(), seen.trim());
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"READY=1\nSTATUS=working\n", &inside).unwrap();
    let mut seen = String::new();
    while !seen.contains("BARRIER=1") {
        assert!(wait::readable(&host, wait::DEADLINE), "so far: {seen}");
        let mut bytes = [0; 4096];
        // The barrier's descriptor has no room to arrive in, and is closed: that lifts the barrier.
        let count = host.recv(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(
        seen.contains("READY=1") && seen.contains(&format!("MAINPID={}", container.init().pid())),
        "{seen}"
    );
    starting.output().ok();
    container.call("delete", &["--force"]).output().ok();
}

#[test]
fn abstract_notify_socket_is_served_in_the_foreground_with_signals() {
    needs_runc!(2, "the barrier of sd_notify");
    let container =
        Container::shell("trap 'exit 5' TERM; touch /ready; while true; do sleep 100 & wait $!; done");
    let name = SocketAddr::from_abstract_name(container.scratch().name()).unwrap();
    let host = UnixDatagram::bind_addr(&name).unwrap();
    host.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    let address = format!("@{}", container.scratch().name());
    let running = container.call("run", &[]).env("NOTIFY_SOCKET", address).spawn();
    container.wait_file("/ready");
    let init = container.init();
    let inside = format!("/proc/{}/root/run/notify/notify.sock", init.pid());
    UnixDatagram::unbound().unwrap().send_to(b"READY=1\n", &inside).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let count = host.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    assert_eq!(next(), format!("MAINPID={}", init.pid()));
    // The barrier is not received yet: the manager is slow. Signals are forwarded all the same.
    let before = Instant::now();
    running.signal(rustix::process::Signal::TERM);
    init.exited();
    assert!(before.elapsed() < Duration::from_secs(20), "the signal waited for the barrier");
    if is_creel() {
        assert_eq!(next(), "BARRIER=1");
    }
    running.output().exits(5);
}

#[test]
fn pidfd_of_init_goes_through_the_socket() {
    needs_runc!(2, "--pidfd-socket");
    let container = Container::idle();
    let socket = FdSocket::listen(&container.scratch().join("pidfd"));
    let running =
        container.call("run", &["--detach", "--pidfd-socket", socket.path().to_str().unwrap()]).spawn();
    let (fd, _) = socket.receive_one();
    running.output().ok();
    let init = container.init();
    let shown = |fd: &std::os::fd::OwnedFd| {
        let number = std::os::fd::AsRawFd::as_raw_fd(fd);
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        text.lines().find(|line| line.starts_with("Pid:")).map(str::to_owned)
    };
    let other = pidfd_open(rustix::process::Pid::from_raw(init.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    assert!(shown(&fd).is_some());
    assert_eq!(shown(&fd), shown(&other));
}

#[test]
fn pidfd_of_an_exec_goes_through_the_socket() {
    needs_runc!(2, "--pidfd-socket");
    let container = Container::idle();
    container.run_detached();
    let socket = FdSocket::listen(&container.scratch().join("pidfd"));
    let flags = ["--pidfd-socket", socket.path().to_str().unwrap()];
    let running = container.exec(&flags, &["sh", "-c", "exit 3"]).spawn();
    let (fd, _) = socket.receive_one();
    running.output().exits(3);
    assert!(wait::readable(&fd, wait::DEADLINE));
}

#[test]
fn pidfd_socket_that_nobody_listens_on_is_an_error() {
    needs_runc!(2, "--pidfd-socket");
    let container = Container::idle();
    let path = container.scratch().join("nosuch");
    let output = container.call("create", &["--pidfd-socket", path.to_str().unwrap()]).output().exits(1);
    if is_creel() {
        // runc leaves the state directory.
        container.assert_clean(&output);
    }
}

#[test]
fn created_container_holds_no_file_but_the_fifo_that_it_waits_at() {
    needs_root!("may look into a process that is not dumpable");
    let container = Container::idle();
    container.create();
    let init = container.init().pid();
    let fds = std::fs::read_dir(format!("/proc/{init}/fd")).unwrap();
    let mut fifos = 0;
    for entry in fds.map(|entry| entry.unwrap()) {
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = std::fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned();
        if number < 3 {
            continue;
        }
        let anonymous = ["socket:[", "pipe:[", "anon_inode:"].iter().any(|kind| target.starts_with(kind));
        fifos += usize::from(target.ends_with("/exec.fifo"));
        assert!(anonymous || target.ends_with("/exec.fifo"), "{number} -> {target}");
    }
    assert_eq!(fifos, 1);
    container.start();
    container.stop_and_delete();
}
