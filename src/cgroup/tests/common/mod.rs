//! What the tests on real hierarchies share. Every cgroup is named creel-test-PID-N and removed by
//! that name.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use creel_cgroup::{Cgroup, CgroupPath, CreateOptions, Error, Hierarchy, Host, Mode, plan_writes};
use creel_plan::spec::Resources;

/// Ends the test with a counted skip.
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("skip: {}", format!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

pub fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("creel-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The host, when it has v1 hierarchies that this process may use.
pub fn v1_host() -> Result<Host, String> {
    if !is_root() {
        return Err("needs root".to_owned());
    }
    let host = Host::detect().map_err(|e| e.to_string())?;
    if host.mode == Mode::V2 {
        return Err("no cgroup v1 hierarchy here".to_owned());
    }
    Ok(host)
}

/// A cgroup that goes away with the test.
pub struct Scratch {
    pub cgroup: Cgroup,
    pub path: String,
}

impl Scratch {
    pub fn new(host: &Host) -> Scratch {
        Scratch::at(host, format!("/{}", name())).unwrap()
    }

    pub fn at(host: &Host, path: String) -> Result<Scratch, Error> {
        let parsed = CgroupPath::parse(&path, "unused");
        let cgroup = Cgroup::create(host, &parsed, CreateOptions::default())?;
        Ok(Scratch { cgroup, path })
    }

    pub fn apply(&self, hierarchy: Hierarchy, json: &str) -> Result<(), Error> {
        self.cgroup.apply(&plan_writes(&resources(json), hierarchy).unwrap())
    }

    /// Directory of a controller; the unified one for `""`.
    pub fn dir(&self, controller: &str) -> String {
        let record = self.cgroup.record();
        let found = record.dirs.iter().find(|d| {
            if controller.is_empty() {
                d.controllers.is_empty()
            } else {
                d.controllers.iter().any(|c| c == controller)
            }
        });
        found.unwrap_or_else(|| panic!("no {controller} in {record:?}")).path.clone()
    }

    pub fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(format!("{}/{file}", self.dir(controller))).unwrap().trim().to_owned()
    }

    pub fn exists(&self) -> bool {
        self.cgroup.record().dirs.iter().any(|d| fs::exists(&d.path).unwrap())
    }

    /// Moves a process in, as no container is: the tests have no init to join by itself.
    pub fn add(&self, pid: u32) {
        for dir in self.cgroup.record().dirs {
            fs::write(format!("{}/cgroup.procs", dir.path), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let result = self.cgroup.kill_all(rustix::process::Signal::KILL).and_then(|()| self.cgroup.destroy());
        if let Err(error) = result {
            eprintln!("cleanup of {}: {error}", self.path);
        }
    }
}

/// A shell that runs one line at a time; killed and reaped at the end.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    pub fn new() -> Shell {
        let mut child = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Shell { child, input, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Exit status of a command.
    pub fn run(&mut self, command: &str) -> i32 {
        writeln!(self.input, "{{ {command}; }} >/dev/null; echo $?").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// Signal that ended it.
    pub fn wait_signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().unwrap().signal()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// Marks the inner run of a test that runs itself again.
const INNER: &str = "CREEL_TEST_INNER";

/// Runs the named test of this binary again under a command that changes the world first.
/// `Ok(true)`: this is the inner run. `Ok(false)`: the inner run has passed.
pub fn inside(wrapper: &[&str], test: &str) -> Result<bool, String> {
    if std::env::var_os(INNER).is_some() {
        return Ok(true);
    }
    let (program, args) = wrapper.split_first().unwrap();
    let works = Command::new(program).args(args).arg("/bin/true").status();
    if !works.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(format!("{program} does not work here: {works:?}"));
    }
    let output = Command::new(program)
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INNER, "1")
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "inner run:\n{text}");
    match text.lines().find_map(|line| line.split_once("skip: ")) {
        Some((_, reason)) => Err(reason.to_owned()),
        None => Ok(false),
    }
}

/// A private mount namespace in which /sys/fs/cgroup is the unified hierarchy of this machine.
pub const V2_VIEW: [&str; 8] = [
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    "if [ \"$(stat -f -c %t /sys/fs/cgroup)\" != 63677270 ]; then \
     mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 1; fi; exec \"$@\"",
    "sh",
    "env",
];
