//! checkpoint and restore by the machine's own CRIU, where it fits the kernel.
//!
//! `CREEL_TEST_CRIU` names a directory to look into before PATH. [`crate::checkpoint`] tests what is asked of
//! CRIU where there is none that works.

use std::process::Command;
use std::sync::OnceLock;

use creel_integration::sockets::FdSocket;
use creel_integration::{Cmd, Container, Runtime, is_creel, pty, skip, wait};

/// Skips the test where CRIU cannot save the simplest container.
macro_rules! needs_criu {
    () => {
        if let Err(reason) = usable() {
            skip!("{reason}");
        }
    };
}

fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::var("CREEL_TEST_CRIU").map_or(path.clone(), |dir| format!("{dir}:{path}"))
}

fn usable() -> &'static Result<(), String> {
    static USABLE: OnceLock<Result<(), String>> = OnceLock::new();
    USABLE.get_or_init(|| {
        // By a configuration file of the machine it may leave a log where it is.
        let check =
            Command::new("criu").arg("check").env("PATH", path()).current_dir(std::env::temp_dir()).output();
        let check = check.map_err(|error| format!("no CRIU: {error}"))?;
        if !check.status.success() {
            let said = String::from_utf8_lossy(&check.stderr).into_owned();
            let line = said.lines().find(|line| line.contains("Error")).unwrap_or("it failed").to_owned();
            return Err(format!("criu check: {line}"));
        }
        let container = counting("");
        run(&container);
        let output = call(&container, "checkpoint", &[]).output();
        if output.code() == 0 {
            Ok(())
        } else {
            Err(format!("CRIU cannot save a container: {}", output.stderr.trim()))
        }
    })
}

/// CRIU in its mode that leaves the machine's cgroup file systems as they are.
fn call(container: &Container, command: &str, flags: &[&str]) -> Cmd {
    let flags = [&["--manage-cgroups-mode", "ignore", "--work-path", "work"], flags].concat();
    container.call(command, &flags).env("PATH", path()).deadline(wait::DEADLINE * 4)
}

/// Runs it with streams that CRIU can save: the harness's are files outside of the container.
fn run(container: &Container) {
    let null = || std::fs::File::open("/dev/null").unwrap();
    container.call("run", &["--detach"]).spawn_with(null(), null()).output().ok();
}

/// A container that counts in the file `count` after `before`.
fn counting(before: &str) -> Container {
    Container::shell(&format!("{before}\ni=0; while true; do i=$((i+1)); echo $i > /count; sleep 0.05; done"))
}

fn count(container: &Container) -> u64 {
    let text = std::fs::read_to_string(container.bundle.rootfs("count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn counts_on(container: &Container, from: u64) {
    wait::until(&format!("it counts on from {from}"), || count(container) > from);
}

#[test]
fn processes_go_on_where_they_stopped() {
    needs_criu!();
    let container = counting("mkdir /dev/shm/d; echo kept > /dev/shm/d/f");
    run(&container);
    for _ in 0..2 {
        counts_on(&container, count(&container) + 3);
        let output = call(&container, "checkpoint", &[]).output().ok();
        container.assert_clean(&output);
        let stopped_at = count(&container);
        assert!(stopped_at >= 3);
        call(&container, "restore", &["--detach"]).output().ok();
        counts_on(&container, stopped_at);
        assert_eq!(container.status(), "running");
    }
    // What was in a tmpfs, what is masked, and a process that comes to it.
    let seen = container.exec(&[], &["sh", "-c", "cat /dev/shm/d/f; cat /proc/keys; hostname"]).output().ok();
    assert_eq!(seen.stdout, "kept\ncreel-test\n");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", container.init().pid())).unwrap();
    assert!(cgroup.contains(container.id()), "{cgroup}");
    container.stop_and_delete();
}

#[test]
fn container_that_is_left_running_goes_on() {
    needs_criu!();
    let container = counting("");
    run(&container);
    counts_on(&container, 1);
    let init = container.state()["pid"].clone();
    call(&container, "checkpoint", &["--leave-running"]).output().ok();
    counts_on(&container, count(&container));
    assert_eq!(container.state()["pid"], init);
    container.stop_and_delete();
}

#[test]
fn mount_points_are_made_again_and_bound_files_are_the_hosts() {
    needs_criu!();
    let mut container = counting("");
    let (one, two) = (container.scratch().dir("one"), container.scratch().dir("two"));
    std::fs::write(two.join("f"), "text").unwrap();
    std::fs::create_dir_all(container.bundle.rootfs("real")).unwrap();
    std::os::unix::fs::symlink("/real", container.bundle.rootfs("link")).unwrap();
    container.bundle.mount("/link/one", "bind", one.to_str().unwrap(), &["bind"]);
    container.bundle.mount("/link/one/deep/two", "bind", two.to_str().unwrap(), &["bind", "ro"]);
    let file = container.scratch().file("file", "bound");
    container.bundle.mount("/etc/bound", "bind", file.to_str().unwrap(), &["bind"]);
    run(&container);
    call(&container, "checkpoint", &[]).output().ok();
    std::fs::remove_dir_all(one.join("deep")).unwrap();
    std::fs::remove_file(container.bundle.rootfs("etc/bound")).unwrap();
    call(&container, "restore", &["-d"]).output().ok();
    let seen = container.exec(&[], &["cat", "/real/one/deep/two/f", "/etc/bound"]).output().ok();
    assert_eq!(seen.stdout, "textbound");
    container.exec(&[], &["touch", "/real/one/deep/two/g"]).output().exits(1);
    // On the host nothing was mounted in between.
    assert_eq!(std::fs::read_dir(one.join("deep/two")).unwrap().count(), 0);
    container.stop_and_delete();
}

#[test]
fn processes_of_exec_are_saved_too() {
    needs_criu!();
    let container = counting("");
    run(&container);
    let script = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let pid = container.exec(&[], &["sh", "-c", script]).output().ok().stdout.trim().to_owned();
    call(&container, "checkpoint", &[]).output().ok();
    call(&container, "restore", &["-d"]).output().ok();
    container.exec(&[], &["kill", "-0", &pid]).output().ok();
    container.stop_and_delete();
}

#[test]
fn terminal_is_restored_through_the_console_socket() {
    needs_criu!();
    let mut container = Container::shell("while read x; do echo got $x; done");
    container.bundle.set("process/terminal", true);
    let socket = FdSocket::listen(&container.scratch().join("tty"));
    let path = socket.path().to_str().unwrap();
    let run = container.call("run", &["-d", "--console-socket", path]).spawn();
    let first = socket.receive();
    run.output().ok();
    let mut master = pty::Master::new(first.fds.into_iter().next().unwrap());
    master.send("one\n");
    master.expect("got one");
    call(&container, "checkpoint", &[]).output().ok();
    drop(master);
    let restore = call(&container, "restore", &["-d", "--console-socket", path]).spawn();
    let second = socket.receive();
    restore.output().ok();
    let mut master = pty::Master::new(second.fds.into_iter().next().unwrap());
    master.send("two\n");
    master.expect("got two");
    container.stop_and_delete();
}

#[test]
fn restore_in_the_foreground_waits_and_deletes() {
    needs_criu!();
    let container = counting("trap 'exit 9' TERM");
    run(&container);
    call(&container, "checkpoint", &[]).output().ok();
    let stopped_at = count(&container);
    let running = call(&container, "restore", &[]).spawn();
    counts_on(&container, stopped_at);
    container.kill("TERM");
    let output = running.output().exits(9);
    container.assert_clean(&output);
}

#[test]
fn joined_network_namespace_is_joined_again() {
    needs_criu!();
    let holder = Cmd::new("unshare").args(["--net", "--", "sh", "-c", "echo made; exec sleep 1000"]).spawn();
    wait::until("the namespace is made", || holder.stdout_so_far() == "made\n");
    let path = format!("/proc/{}/ns/net", holder.pid());
    let mut container = counting("");
    container.bundle.namespace("network", Some(&path));
    run(&container);
    call(&container, "checkpoint", &[]).output().ok();
    call(&container, "restore", &["-d"]).output().ok();
    let own = std::fs::read_link(format!("/proc/{}/ns/net", container.init().pid())).unwrap();
    assert_eq!(own, std::fs::read_link(&path).unwrap());
    container.stop_and_delete();
    holder.signal(rustix::process::Signal::KILL);
    holder.output();
}

#[test]
fn images_of_one_runtime_are_restored_by_the_other() {
    needs_criu!();
    if !is_creel() {
        skip!("creel beside runc");
    }
    let Some(runc) = Runtime::runc() else { skip!("no runc") };
    if !runc.has_runc(2) {
        skip!("--manage-cgroups-mode ignore came with runc 1.2");
    }
    for (saves, restores) in
        [(runc.clone(), Runtime::under_test().clone()), (Runtime::under_test().clone(), runc)]
    {
        let mut container = Container::of(&saves);
        container.bundle.config["process"]["args"] = counting("").bundle.config["process"]["args"].clone();
        let data = container.scratch().dir("data");
        container.bundle.mount("/data", "bind", data.to_str().unwrap(), &["bind"]);
        run(&container);
        counts_on(&container, 1);
        call(&container, "checkpoint", &[]).output().ok();
        let stopped_at = count(&container);
        let other = Cmd::new(restores.path()).cwd(container.bundle.dir()).env("PATH", path());
        let root = container.root();
        let root = root.to_str().unwrap();
        let words =
            ["--root", root, "restore", "--manage-cgroups-mode", "ignore", "--work-path", "work", "-d"];
        other.args(words).args([container.id()]).deadline(wait::DEADLINE * 4).output().ok();
        counts_on(&container, stopped_at);
        let delete = Cmd::new(restores.path()).args(["--root", root, "delete", "--force", container.id()]);
        let output = delete.output().ok();
        container.assert_clean(&output);
    }
}

#[test]
fn failure_of_criu_names_its_log() {
    needs_criu!();
    let container = counting("");
    run(&container);
    call(&container, "checkpoint", &[]).output().ok();
    std::fs::remove_file(container.bundle.dir().join("checkpoint/inventory.img")).unwrap();
    let output = call(&container, "restore", &["-d"]).output().exits(1);
    container.assert_clean(&output);
    let log = container.bundle.dir().canonicalize().unwrap().join("work/restore.log");
    output.creel_says(&["restore failed: ", "see ", log.to_str().unwrap()]);
}
