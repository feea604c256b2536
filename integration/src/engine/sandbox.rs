//! Namespaces of their own for one engine: mount, network and PID, with an empty `/run`.
//!
//! Its first process only waits for the end of its standard input, which is a pipe held by the test:
//! when the test ends, however it ends, the kernel kills everything in the PID namespace, and mounts,
//! bridges and iptables rules go with the namespaces.
//!
//! Where systemd makes the cgroups (`CREEL_TEST_CGROUP`) the PID namespace is the machine's, because runtimes
//! tell systemd pids, and `/run` has systemd's sockets. A process then belongs to the sandbox by its mount
//! namespace or by its cgroup, and what is left ends with the sandbox's slice.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cgroup::Top;
use super::command::{Call, ended_within};
use crate::leaks::KEPT_FILTERS;
use crate::owner::Owner;

/// Directories whose contents the host and the sandbox do not share.
pub const PRIVATE: [&str; 4] = ["/run", "/var/lib", "/opt", "/dev/shm"];

/// The scratch directory as seen in the sandbox, on its own tmpfs and short enough for socket names.
pub const SCRATCH: &str = "/run/engine";

/// Set up inside the new namespaces. sysfs is mounted again because it shows the network namespace of its
/// mounter. The cgroup mounts step aside meanwhile, and the old one goes, since podman --uidmap unmounts all
/// that the mount table has below /sys/kernel. CNI's address files (/var/lib/cni), containerd's plugins
/// (/opt/containerd) and podman's locks (/dev/shm) are not the host's. SIGCHLD is ignored so that orphans are
/// reaped. `$KEEP` are directories of the host's `/run`, found by a descriptor that mount(8) must not resolve
/// (`-c`).
const SETUP: &str = "set -e
exec 9</run
mount -t tmpfs -o mode=755 tmpfs /run
for dir in $KEEP; do
    [ -d /proc/self/fd/9/$dir ] || continue
    mkdir /run/$dir
    mount -c --rbind /proc/self/fd/9/$dir /run/$dir
done
exec 9<&-
mkdir -p /run/lock /run/engine/tmp /run/cgroup
chown -R $OWNER /run/engine
mount --move /sys/fs/cgroup /run/cgroup
umount --lazy /sys
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
rmdir /run/cgroup
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /opt
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
echo ready
exec env --ignore-signal=CHLD cat >/dev/null";

/// A running sandbox. Dropping it ends every process in it and removes its cgroups.
#[derive(Debug)]
pub struct Sandbox {
    unshare: Child,
    first: u32,
    cgroup: Top,
    owner: Owner,
    user: Option<u32>,
}

impl Sandbox {
    /// Start one for `engine`, whose name becomes part of the cgroup's.
    pub fn start(engine: &str) -> Result<Self> {
        Self::start_for(None, engine)
    }

    /// Start one in which [`Sandbox::call`] is that user's, who has a systemd; the scratch directory too.
    pub fn start_for(user: Option<u32>, engine: &str) -> Result<Self> {
        let owner = Owner::under_test();
        let systemd = owner == Owner::Systemd;
        // A dash in a slice's name makes it one of another slice.
        let name = format!("creel-{engine}-{}", std::process::id());
        let name = if systemd { format!("{}.slice", name.replace('-', "")) } else { name };
        let manager = |uid: u32| format!("user.slice/user-{uid}.slice/user@{uid}.service");
        let cgroup = Top::new(user.map(manager).unwrap_or_default(), name);
        let own_pids: &[&str] = if systemd { &[] } else { &["--pid", "--mount-proc"] };
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--net", "--fork", "--kill-child"])
            .args(own_pids)
            .args(["--propagation", "private", "--", "sh", "-c", SETUP])
            .env("KEEP", if systemd { "systemd dbus user" } else { "" })
            .env("OWNER", user.unwrap_or(0).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        let stdout = unshare.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            unshare.kill()?;
            bail!("sandbox for {engine}: not set up ({})", unshare.wait()?);
        }
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let children = fs::read_to_string(&children).context(children)?;
        let first = children.trim().parse().with_context(|| format!("children {children:?}"))?;
        Ok(Self { unshare, first, cgroup, owner, user })
    }

    /// The sandbox's first process, as the test sees it.
    pub fn first_process(&self) -> u32 {
        self.first
    }

    /// Name of the cgroup below which its containers belong, or of the slice.
    pub fn cgroup(&self) -> &str {
        self.cgroup.name()
    }

    /// Whose sandbox it is, unless it is root's.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// Whether systemd makes the cgroups.
    pub fn has_systemd(&self) -> bool {
        self.owner == Owner::Systemd
    }

    /// A path in the scratch directory, as the sandbox sees it.
    pub fn inside(&self, name: &str) -> PathBuf {
        Path::new(SCRATCH).join(name)
    }

    /// The same file from outside, for a path as the sandbox sees it.
    pub fn outside(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.first));
        root.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// The sandbox's own view of a process: `pid` counts in its PID namespace.
    pub fn process(&self, pid: u32) -> PathBuf {
        self.outside(Path::new("/proc")).join(pid.to_string())
    }

    /// What `/proc/PID/ns/NAME` of a process in the sandbox points to.
    pub fn namespace(&self, pid: u32, name: &str) -> Result<String> {
        let link = self.process(pid).join("ns").join(name);
        Ok(fs::read_link(&link).with_context(|| link.display().to_string())?.to_string_lossy().into_owned())
    }

    /// [`Sandbox::namespace`] of the sandbox itself.
    pub fn own_namespace(&self, name: &str) -> Result<String> {
        let link = format!("/proc/{}/ns/{name}", self.first);
        Ok(fs::read_link(&link).context(link)?.to_string_lossy().into_owned())
    }

    /// Wait until a process has become this program: engines report a container as started when the runtime
    /// has let it go, which is before its execve(2), and a signal may still find the runtime's handlers.
    pub fn until_running(&self, pid: u32, program: &str) -> Result<()> {
        let comm = self.process(pid).join("comm");
        self.until(program, Duration::from_secs(10), || {
            Ok(fs::read_to_string(&comm).with_context(|| comm.display().to_string())?.trim() == program)
        })
    }

    /// A command in the sandbox. It dies with the nsenter(1) that brings it there.
    pub fn call(&self, words: &[&str]) -> Call {
        let target = self.first.to_string();
        let enter = ["nsenter", "--target", &target, "--mount", "--net", "--pid", "--"];
        let mut prefix: Vec<String> = enter.map(str::to_owned).to_vec();
        if let Some(uid) = self.user {
            let ids = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
            prefix.extend(["setpriv".to_owned()].into_iter().chain(ids));
            prefix.extend(["env".to_owned(), format!("XDG_RUNTIME_DIR=/run/user/{uid}")]);
        }
        prefix.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        Call::new(prefix, words)
    }

    /// Evaluate `condition` until it holds, the deadline passes or the sandbox ends.
    pub fn until(&self, what: &str, deadline: Duration, condition: impl Fn() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            if condition()? {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{what}: not within {deadline:?}");
            ensure!(!ended_within(&self.unshare, Duration::from_millis(20))?, "{what}: the sandbox ended");
        }
    }

    /// Everything there is in the sandbox that a container could leave behind, one line each.
    pub fn inventory(&self, state_roots: &[PathBuf]) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for pid in self.processes()? {
            // A process may end between the listing and the look at it.
            if let Ok(bytes) = fs::read(self.process(pid).join("cmdline")) {
                let words = String::from_utf8_lossy(&bytes).replace('\0', " ");
                let name = fs::read_to_string(self.process(pid).join("comm")).unwrap_or_default();
                found.insert(format!("process {pid} {} {}", name.trim(), words.trim()));
            }
        }
        let mountinfo = fs::read_to_string(format!("/proc/{}/mountinfo", self.first))?;
        for line in mountinfo.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            found.insert(format!(
                "mount {} at {}",
                fields.first().unwrap_or(&""),
                fields.get(4).unwrap_or(&"")
            ));
        }
        let links = fs::read_to_string(format!("/proc/{}/net/dev", self.first))?;
        found.extend(
            links.lines().filter_map(|line| Some(format!("link {}", line.split_once(':')?.0.trim()))),
        );
        found.extend(self.cgroup.directories()?.into_iter().map(|path| format!("cgroup {}", path.display())));
        for root in state_roots {
            let Ok(entries) = fs::read_dir(self.outside(root)) else { continue };
            for entry in entries {
                let name = entry?.file_name();
                if name != KEPT_FILTERS {
                    found.insert(format!("state {}", root.join(name).display()));
                }
            }
        }
        Ok(found)
    }

    fn processes(&self) -> Result<Vec<u32>> {
        let proc = self.outside(Path::new("/proc"));
        let mut pids = Vec::new();
        for entry in fs::read_dir(&proc).with_context(|| proc.display().to_string())? {
            if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
                && (!self.has_systemd() || self.is_inside(pid))
            {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Whether a process of the machine's belongs to the sandbox: an engine's, or a container's.
    fn is_inside(&self, pid: u32) -> bool {
        let mounts = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let cgroup = || fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        pid != self.unshare.id()
            && (mounts(pid).is_some_and(|ns| Some(ns) == mounts(self.first))
                || cgroup().contains(self.cgroup()))
    }

    /// End it, and insist that the engine has ended before and that the cgroups can be removed.
    pub fn stop(mut self) -> Result<()> {
        let alone = || Ok(self.processes()?.len() == 1);
        let ended = self.until("end of the engine", Duration::from_secs(5), alone);
        let left: Vec<String> = match ended {
            Ok(()) => Vec::new(),
            Err(_) => self.inventory(&[])?.into_iter().filter(|line| line.starts_with("process ")).collect(),
        };
        self.end()?;
        ensure!(left.len() <= 1, "still running: {}", left.join("; "));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        // Of a slice that nobody needs any more systemd may know nothing, and says so.
        let whose = if self.user.is_some() { "--user" } else { "--system" };
        let stop = self.call(&["systemctl", whose, "--quiet", "stop", self.cgroup()]);
        let stopped = if self.has_systemd() { stop.output().map(drop) } else { Ok(()) };
        drop(self.unshare.stdin.take());
        if !ended_within(&self.unshare, Duration::from_secs(10))? {
            self.unshare.kill()?;
        }
        self.unshare.wait()?;
        stopped.and(self.cgroup.remove())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.unshare.stdin.is_some()
            && let Err(error) = self.end()
        {
            super::harness::say(&format!("sandbox {}: {error:#}", self.cgroup.name()));
        }
    }
}
