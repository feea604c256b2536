//! From resource limits to execve: the part that init and exec share.
//!
//! Runs in **init** after the root is switched and everything is mounted, and in the **exec**
//! process after it has joined the container's namespaces. From [`become_user`] on the process has
//! no more rights than the program it is about to execute.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use creel_plan::steps::{CapSets, Credentials, Exec, Phase, RlimitStep};
use creel_sys::process::{StringVector, execve};
use rustix::fs::{Access, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Step, StepError};

/// A compiled seccomp filter as the kernel takes it.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The program.
    pub program: Vec<creel_sys::seccomp::Instruction>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
}

/// Sets the limits of the calling process.
pub fn set_rlimits(limits: &[RlimitStep]) -> Result<(), StepError> {
    for (i, limit) in limits.iter().enumerate() {
        creel_sys::limits::set(0, limit.resource, limit.soft, limit.hard)
            .step(Phase::Rlimits, i, || rlimit_call(limit))?;
    }
    Ok(())
}

/// The call as it is shown in errors.
pub fn rlimit_call(limit: &RlimitStep) -> String {
    let name = limit.name.trim_start_matches("RLIMIT_");
    format!("prlimit64({name}, {}, {})", limit.soft, limit.hard)
}

/// prctl(2) PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privileges() -> Result<(), StepError> {
    rustix::thread::set_no_new_privs(true).step(Phase::Credentials, 0, || "prctl(NO_NEW_PRIVS)".into())
}

/// Changes to `cwd`, then to the user's identity and capabilities.
///
/// Order, after capabilities(7): the bounding set shrinks while CAP_SETPCAP is there; keep-caps holds
/// the permitted set over setuid(2); the sets are written last. The directory is entered before the
/// user changes, since root may reach what the user cannot, and again after it if root was refused
/// (a FUSE or NFS volume of the user's).
pub fn become_user(credentials: &Credentials, cwd: &str, entered: bool) -> Result<(), StepError> {
    own_stdio(credentials.uid);
    drop_bounding(credentials.caps.bounding)?;
    let keep = credentials.uid != 0;
    if keep {
        rustix::thread::set_keep_capabilities(true)
            .step(Phase::Credentials, 0, || "prctl(KEEPCAPS)".into())?;
    }
    set_ids(credentials)?;
    if !entered {
        chdir(cwd)?;
        check_directory()?;
    }
    if keep {
        rustix::thread::set_keep_capabilities(false)
            .step(Phase::Credentials, 0, || "prctl(KEEPCAPS)".into())?;
    }
    set_capabilities(&credentials.caps)
}

fn chdir(cwd: &str) -> Result<(), StepError> {
    rustix::process::chdir(cwd).step(Phase::Cwd, 0, || format!("chdir({cwd:?})"))
}

/// Enters and checks `cwd` before a filter that may forbid getcwd(2) is in force. False when the
/// caller may not enter but the user perhaps may.
pub fn enter_directory(cwd: &str) -> Result<bool, StepError> {
    match rustix::process::chdir(cwd) {
        Err(creel_sys::Errno::ACCESS | creel_sys::Errno::PERM) => Ok(false),
        other => {
            other.step(Phase::Cwd, 0, || format!("chdir({cwd:?})"))?;
            check_directory().map(|()| true)
        }
    }
}

/// The working directory must be below the root: getcwd(2) of anything else gives "(unreachable)",
/// or ENOENT. CVE-2024-21626: `cwd: /proc/self/fd/7` with a leaked directory of the host.
fn check_directory() -> Result<(), StepError> {
    let escaped = || {
        StepError::new(
            Phase::Cwd,
            0,
            "current working directory is outside of the container's root; possible container breakout",
        )
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(creel_sys::Errno::NOENT) => Err(escaped()),
        Err(errno) => Err(errno).step(Phase::Cwd, 0, || "getcwd()".into()),
    }
}

/// Pipes and sockets become the user's, so that /dev/stdout can be opened anew by a program that is not
/// root. A file or the caller's terminal is left alone; a refusal (the id is not mapped here) changes nothing.
fn own_stdio(uid: u32) {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let ours = matches!(kind, FileType::Fifo | FileType::Socket) || is_pts(&stat);
        if stat.st_uid != uid && ours {
            creel_sys::best_effort(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None));
        }
    }
}

/// Unix98 pty slaves have majors 136 to 143 (devices.txt). Only the container's own console can
/// satisfy [`own_stdio`]'s "not a name outside": the caller's terminal belongs to another devpts.
fn is_pts(stat: &rustix::fs::Stat) -> bool {
    let container = || rustix::fs::stat("/dev/pts").map(|s| s.st_dev);
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (136..=143).contains(&rustix::fs::major(stat.st_rdev))
        && container().is_ok_and(|dev| dev == stat.st_dev)
}

/// Removes from the bounding set what is not in `keep`, up to the kernel's last capability.
fn drop_bounding(keep: u64) -> Result<(), StepError> {
    for number in 0..63u32 {
        if keep & (1 << number) != 0 {
            continue;
        }
        let cap = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(cap) {
            Ok(()) => {}
            // Past CAP_LAST_CAP.
            Err(creel_sys::Errno::INVAL) => break,
            other => other.step(Phase::Credentials, 0, || format!("prctl(CAPBSET_DROP, {number})"))?,
        }
    }
    Ok(())
}

fn set_ids(credentials: &Credentials) -> Result<(), StepError> {
    if let Some(groups) = &credentials.groups {
        let groups: Vec<Gid> = groups.iter().map(|&g| Gid::from_raw(g)).collect();
        rustix::thread::set_thread_groups(&groups)
            .step(Phase::Credentials, 0, || format!("setgroups({} groups)", groups.len()))?;
    }
    let gid = Gid::from_raw(credentials.gid);
    // setgid(2) and setuid(2), which set all three ids with CAP_SETGID and CAP_SETUID: a filter that is
    // loaded already may allow no other call.
    rustix::thread::set_thread_gid(gid)
        .step(Phase::Credentials, 0, || format!("setgid({})", credentials.gid))?;
    let uid = Uid::from_raw(credentials.uid);
    rustix::thread::set_thread_uid(uid).step(Phase::Credentials, 0, || format!("setuid({})", credentials.uid))
}

/// One capset(2) for all three sets, then the ambient set, which the kernel keeps within them.
fn set_capabilities(caps: &CapSets) -> Result<(), StepError> {
    let set = CapabilitySet::from_bits_retain;
    let sets = CapabilitySets {
        effective: set(caps.effective),
        permitted: set(caps.permitted),
        inheritable: set(caps.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).step(Phase::Credentials, 1, || {
        format!(
            "capset(effective {:#x}, permitted {:#x}, inheritable {:#x})",
            caps.effective, caps.permitted, caps.inheritable
        )
    })?;
    rustix::thread::clear_ambient_capability_set()
        .step(Phase::Credentials, 2, || "prctl(CAP_AMBIENT_CLEAR_ALL)".into())?;
    for number in (0..64).filter(|n| caps.ambient & (1 << n) != 0) {
        let cap = set(1 << number);
        // Outside permitted or inheritable the kernel says EPERM; runc warns and goes on, and the
        // program gets no more than it was given.
        match rustix::thread::configure_capability_in_ambient_set(cap, true) {
            Err(creel_sys::Errno::PERM) | Ok(()) => {}
            other => other.step(Phase::Credentials, 2, || format!("prctl(CAP_AMBIENT_RAISE, {number})"))?,
        }
    }
    Ok(())
}

/// Loads the filter; the notify descriptor if it asks for one.
pub fn load_filter(filter: &Filter) -> Result<Option<OwnedFd>, StepError> {
    creel_sys::seccomp::load(&filter.program, filter.flags).step(Phase::Seccomp, 0, || {
        format!("seccomp(SET_MODE_FILTER, {:#x}, {} instructions)", filter.flags, filter.program.len())
    })
}

/// The program, resolved and with its argument vectors made: nothing is left to fail but execve.
#[derive(Debug)]
pub struct Program {
    path: CString,
    preserve_fds: u32,
    argv: StringVector,
    envp: StringVector,
    env: Vec<String>,
}

impl Program {
    /// Finds the executable as execvp(3) would in the container's PATH and builds argv and envp.
    /// Runs as the program's user, since it is that user who must be allowed to execute it.
    pub fn find(exec: &Exec, uid: u32) -> Result<Program, StepError> {
        let name = exec.args.first().map_or("", String::as_str);
        let path = look_up(name, &exec.env)?;
        let mut env = exec.env.clone();
        if !env.iter().any(|e| e.starts_with("HOME=")) {
            env.push(format!("HOME={}", home_of(uid)));
        }
        let vector = |items: &[String]| -> Result<StringVector, StepError> {
            Ok(StringVector::new(items.iter().map(|item| c_string(item)).collect::<Result<_, _>>()?))
        };
        let (argv, envp) = (vector(&exec.args)?, vector(&env)?);
        Ok(Program { path, preserve_fds: exec.preserve_fds, argv, envp, env })
    }

    /// The environment it gets, HOME included.
    pub fn env(&self) -> &[String] {
        &self.env
    }

    /// An error if the kernel could not run it for want of an interpreter, which execve(2) reports with
    /// an ENOENT that seems to speak of the program.
    fn check_interpreter(&self) -> Result<(), StepError> {
        match missing_interpreter(&self.path) {
            Some(what) => {
                let (path, words) = (self.path.to_string_lossy(), go_words(creel_sys::Errno::NOENT));
                Err(StepError::new(Phase::Exec, 0, format!("exec {path}: {words}: {what}")))
            }
            None => Ok(()),
        }
    }

    /// Becomes the program. Returns only on failure.
    pub fn run(&self) -> StepError {
        // Only now: no hook gets them.
        for fd in (3..).take(self.preserve_fds as usize) {
            if let Err(error) =
                creel_sys::fd::keep_on_exec(fd).step(Phase::Exec, 0, || format!("fcntl({fd}, F_SETFD)"))
            {
                return error;
            }
        }
        let errno = match execve(&self.path, &self.argv, &self.envp) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        if errno == creel_sys::Errno::NOENT {
            if let Err(better) = self.check_interpreter() {
                return better;
            }
        }
        StepError {
            phase: Phase::Exec,
            index: 0,
            call: format!("exec {:?}", self.path.to_string_lossy()),
            errno: errno.raw_os_error(),
        }
    }
}

fn c_string(text: &str) -> Result<CString, StepError> {
    CString::new(text).map_err(|_| StepError::new(Phase::Exec, 0, format!("{text:?} contains a NUL byte")))
}

/// What execvp(3) does, with the words that engines match on (docker's exit codes 126 and 127).
fn look_up(name: &str, env: &[String]) -> Result<CString, StepError> {
    let fail = |errno: creel_sys::Errno| {
        let noexec = errno == creel_sys::Errno::ACCESS
            && rustix::fs::statvfs(name).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC));
        let why = if noexec { ": it is mounted with noexec" } else { "" };
        StepError::new(Phase::Exec, 0, format!("exec: {name:?}: {}{why}", go_words(errno)))
    };
    if name.contains('/') {
        executable(name).map_err(fail)?;
        return c_string(name);
    }
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
    // An element that is not absolute would mean the working directory, which an image may own.
    for dir in path.split(':').filter(|dir| !name.is_empty() && dir.starts_with('/')) {
        let candidate = format!("{dir}/{name}");
        if executable(&candidate).is_ok() {
            return c_string(&candidate);
        }
    }
    Err(StepError::new(Phase::Exec, 0, format!("exec: {name:?}: executable file not found in $PATH")))
}

/// The texts that runc's users and podman's error table know.
fn go_words(errno: creel_sys::Errno) -> String {
    match errno {
        creel_sys::Errno::NOENT => "no such file or directory".into(),
        creel_sys::Errno::ACCESS => "permission denied".into(),
        creel_sys::Errno::ISDIR => "is a directory".into(),
        other => crate::error::errno_words(other),
    }
}

/// Whether the calling user may execute a regular file of that name.
fn executable(path: &str) -> Result<(), creel_sys::Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(creel_sys::Errno::ISDIR);
    }
    match rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS) {
        // A seccomp profile older than faccessat2(2) is already in force: execve(2) has the last word.
        Err(creel_sys::Errno::PERM | creel_sys::Errno::NOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(creel_sys::Errno::PERM | creel_sys::Errno::NOSYS) => Err(creel_sys::Errno::ACCESS),
        other => other,
    }
}

/// Home directory from the container's own passwd(5), `/` if it does not say.
fn home_of(uid: u32) -> String {
    let found = read_small("/etc/passwd", 1 << 20).and_then(|text| {
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = lines.find(|f| f.get(2).and_then(|u| u.parse::<u32>().ok()) == Some(uid))?;
        line.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_string())
    });
    found.unwrap_or_else(|| "/".into())
}

/// Reads a regular file of the container; a FIFO or device of that name is not waited for.
fn read_small(path: &str, limit: usize) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut data = vec![0; limit.min(usize::try_from(stat.st_size).ok()?.max(1))];
    let mut filled = 0;
    while filled < data.len() {
        match rustix::io::read(fd.as_fd(), &mut data[filled..]).ok()? {
            0 => break,
            n => filled += n,
        }
    }
    data.truncate(filled);
    Some(data)
}

/// `missing interpreter "/bin/bash"` when the file's interpreter does not exist.
fn missing_interpreter(path: &CStr) -> Option<String> {
    let head = read_small(path.to_str().ok()?, 4096)?;
    let (kind, interpreter) = match head.strip_prefix(b"#!") {
        Some(rest) => {
            let line = rest.split(|&b| b == b'\n').next()?;
            let word = line.split(|b| b.is_ascii_whitespace()).find(|w| !w.is_empty())?;
            ("interpreter", String::from_utf8_lossy(word).into_owned())
        }
        None => ("dynamic loader", elf_interpreter(&head)?),
    };
    match rustix::fs::stat(interpreter.as_str()) {
        Err(creel_sys::Errno::NOENT) => Some(format!("missing {kind} {interpreter:?}")),
        _ => None,
    }
}

/// PT_INTERP of a 64-bit ELF file (elf(5)) whose headers are in `head`.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let (table, size, count) = (usize::try_from(u64_at(32)?).ok()?, usize::from(u16_at(54)?), u16_at(56)?);
    for i in 0..usize::from(count) {
        let at = table.checked_add(i.checked_mul(size)?)?;
        let kind = u32::from_ne_bytes(head.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if kind == PT_INTERP {
            let from = usize::try_from(u64_at(at + 8)?).ok()?;
            let len = usize::try_from(u64_at(at + 32)?).ok()?;
            let text = head.get(from..from.checked_add(len)?)?;
            return Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_string());
        }
    }
    None
}

/// Everything from descriptor 3 on closes at execve, but for what [`Program::run`] keeps.
pub fn sweep_descriptors() -> Result<(), StepError> {
    creel_sys::fd::close_on_exec_from(3).step(Phase::Exec, 0, || "close_range(3, CLOEXEC)".into())
}

/// Standard streams that are the host's /dev/null become the container's, whose inode was checked:
/// a descriptor on the host's device node would survive in the container.
pub fn reopen_null(null: &OwnedFd) -> Result<(), StepError> {
    for (number, fd) in
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].iter().enumerate()
    {
        let stat = rustix::fs::fstat(fd).step(Phase::Root, 0, || format!("fstat({number})"))?;
        if is_null(&stat) {
            creel_sys::fd::replace_stdio(null.as_fd(), number as i32)
                .step(Phase::Root, 0, || format!("dup2({}, {number})", null.as_raw_fd()))?;
        }
    }
    Ok(())
}

/// Character device 1:3.
pub fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && rustix::fs::major(stat.st_rdev) == 1
        && rustix::fs::minor(stat.st_rdev) == 3
}
