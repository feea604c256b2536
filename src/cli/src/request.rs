//! From the words of a command line to a request of the lifecycle: paths made absolute, the
//! environment looked up, values checked.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use creel_container::{CreateRequest, ExecFlags, ExecProcess, ExecRequest, ListenFds, RunMode};

use creel_sys::Errno;
use rustix::fs::{Mode, OFlags};

use crate::flags::Words;
use crate::globals::absolute;
use crate::program::reason;

/// The container id, which comes first.
pub fn id(operands: &[&OsStr]) -> Result<String, String> {
    let id = operands.first().copied().unwrap_or_default();
    if id.is_empty() {
        return Err("container id cannot be empty".to_owned());
    }
    utf8(id, "container id")
}

/// `create` and the part of `run` that is `create`.
pub fn create(id: &str, words: &Words<'_>) -> Result<CreateRequest, String> {
    let bundle = words.value("bundle").map_or(Path::new("."), Path::new);
    Ok(CreateRequest {
        id: id.to_owned(),
        bundle: own_path(bundle)
            .map_err(|errno| format!("bundle {}: {}", bundle.display(), reason(&errno.into())))?,
        config: path(words, "config")?,
        pid_file: path(words, "pid-file")?,
        console_socket: path(words, "console-socket")?,
        pidfd_socket: path(words, "pidfd-socket")?,
        no_pivot: words.has("no-pivot"),
        no_new_keyring: words.has("no-new-keyring"),
        preserve_fds: count(words, "preserve-fds"),
        listen_fds: listen_fds(),
        notify_socket: notify_socket(),
    })
}

/// The path that getcwd(2) would show after entering it: realpath(3) would look at each component.
fn own_path(path: &Path) -> Result<PathBuf, Errno> {
    let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::with_capacity(256))?;
    Ok(OsString::from_vec(path.into_bytes()).into())
}

/// NOTIFY_SOCKET of a service manager (sd_notify(3)).
pub fn notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// How `run` ends.
pub fn run_mode(words: &Words<'_>) -> RunMode {
    if words.has("detach") {
        RunMode::Detached
    } else {
        RunMode::Foreground { keep: words.has("keep"), subreaper: !words.has("no-subreaper") }
    }
}

/// `exec`
pub fn exec(id: String, words: &Words<'_>) -> Result<ExecRequest, String> {
    let process = match path(words, "process")? {
        Some(file) => ExecProcess::File(file),
        None => ExecProcess::Flags(Box::new(exec_flags(words)?)),
    };
    Ok(ExecRequest {
        id,
        process,
        detach: words.has("detach"),
        pid_file: path(words, "pid-file")?,
        console_socket: path(words, "console-socket")?,
        pidfd_socket: path(words, "pidfd-socket")?,
        preserve_fds: count(words, "preserve-fds"),
        listen_fds: listen_fds(),
        cgroups: cgroups(&texts(words, "cgroup")?)?,
        ignore_paused: words.has("ignore-paused"),
    })
}

fn exec_flags(words: &Words<'_>) -> Result<ExecFlags, String> {
    let args = words.operands.iter().skip(1);
    let args: Vec<String> = args.map(|arg| utf8(arg, "argument")).collect::<Result<_, _>>()?;
    if args.is_empty() {
        return Err("exec args cannot be empty".to_owned());
    }
    Ok(ExecFlags {
        args,
        cwd: text(words, "cwd")?,
        env: texts(words, "env")?,
        tty: words.has("tty"),
        user: texts(words, "user")?.last().map(|text| user(text)).transpose()?,
        additional_gids: texts(words, "additional-gids")?
            .iter()
            .map(|gid| number(gid).map_err(|why| format!("bad additional gid {gid:?}: {why}")))
            .collect::<Result<_, _>>()?,
        process_label: text(words, "process-label")?,
        apparmor: text(words, "apparmor")?,
        no_new_privs: words.has("no-new-privs"),
        caps: texts(words, "cap")?,
    })
}

/// `UID[:GID]`, digits only: a lenient reader has turned `4294967296` into root (CVE-2026-30892).
fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let uid = number(uid).map_err(|why| format!("bad uid {uid:?}: {why}"))?;
    let gid = gid.map(|gid| number(gid).map_err(|why| format!("bad gid {gid:?}: {why}"))).transpose()?;
    Ok((uid, gid))
}

/// An id; 4294967295 is `(uid_t) -1`, which setresuid(2) takes for "unchanged".
fn number(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("expected a decimal number");
    }
    match text.parse() {
        Ok(u32::MAX) | Err(_) => Err("expected a number below 4294967295"),
        Ok(id) => Ok(id),
    }
}

/// `--cgroup`: one path, or any number of `controller[,controller...]:path`.
fn cgroups(args: &[String]) -> Result<Vec<(Vec<String>, String)>, String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut cgroups = Vec::with_capacity(args.len());
    for arg in args {
        let Some((controllers, path)) = arg.split_once(':') else {
            if args.len() > 1 {
                return Err(format!("invalid --cgroup argument: {arg} (missing <controller>: prefix)"));
            }
            cgroups.push((Vec::new(), arg.clone()));
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(format!("invalid --cgroup argument: {arg} (empty <controller> prefix)"));
            }
            if seen.contains(&controller) {
                return Err(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                ));
            }
            seen.push(controller);
        }
        cgroups.push((controllers.split(',').map(str::to_owned).collect(), path.to_owned()));
    }
    Ok(cgroups)
}

/// sd_listen_fds(3): the sockets are for this process only if LISTEN_PID names it.
fn listen_fds() -> Option<ListenFds> {
    let variable = |name| std::env::var(name).ok();
    listen_fds_of(std::process::id(), variable)
}

fn listen_fds_of(pid: u32, variable: impl Fn(&'static str) -> Option<String>) -> Option<ListenFds> {
    let for_pid: u32 = variable("LISTEN_PID")?.parse().ok()?;
    let count: u32 = variable("LISTEN_FDS")?.parse().ok()?;
    (for_pid == pid && count > 0).then(|| ListenFds { count, names: variable("LISTEN_FDNAMES") })
}

/// How many; a negative number is none, as in runc.
fn count(words: &Words<'_>, flag: &str) -> u32 {
    words.number(flag).map_or(0, |number| u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

fn path(words: &Words<'_>, flag: &str) -> Result<Option<PathBuf>, String> {
    words.value(flag).map(absolute).transpose()
}

fn text(words: &Words<'_>, flag: &str) -> Result<Option<String>, String> {
    words.value(flag).map(|value| utf8(value, flag)).transpose()
}

fn texts(words: &Words<'_>, flag: &str) -> Result<Vec<String>, String> {
    words.all(flag).map(|value| utf8(value, flag)).collect()
}

/// Text that goes into JSON.
fn utf8(word: &OsStr, what: &str) -> Result<String, String> {
    word.to_str().map(str::to_owned).ok_or_else(|| format!("{what} {word:?} is not UTF-8"))
}

#[cfg(test)]
mod tests;
