//! Making processes and leaving them.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::{Errno, Result, check};

/// Proof that the process has one thread, which clone3 without CLONE_VM needs: the child of a
/// threaded process may only call async-signal-safe functions, and creel's children allocate.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// The caller says that no thread was ever started; debug builds look.
    pub fn witness() -> Self {
        #[cfg(debug_assertions)]
        if let Ok(tasks) = std::fs::read_dir("/proc/self/task") {
            assert_eq!(tasks.count(), 1, "clone3 in a process with several threads");
        }
        SingleThreaded(PhantomData)
    }
}

/// The arguments of the program, from those of its `main`. Only glibc hands them to [`std::env::args_os`]
/// too.
///
/// # Safety
/// `argc` and `argv` are as execve(2) laid them out.
pub unsafe fn arguments(argc: libc::c_int, argv: *const *const c_char) -> Vec<OsString> {
    let one = |index| {
        // SAFETY: by the caller, `argv` has `argc` pointers to strings that live as long as the process.
        let argument = unsafe { std::ffi::CStr::from_ptr(*argv.add(index)) };
        OsStr::from_bytes(argument.to_bytes()).to_owned()
    };
    (0..usize::try_from(argc).unwrap_or(0)).map(one).collect()
}

/// What [`clone3`] returns on either side.
#[derive(Debug)]
pub enum Forked {
    /// In the child, which must leave by [`execve`] or [`exit`].
    Child,
    /// In the parent.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: i32,
        /// CLONE_PIDFD.
        pidfd: OwnedFd,
    },
}

/// Lets the calling thread run on every CPU that its cpuset allows, now or later: sched_setaffinity(2)
/// drops from the mask what the kernel and the cpuset do not have.
pub fn reset_affinity() -> Result<()> {
    /// The largest NR_CPUS of any architecture.
    const MAX_CPUS: usize = 8 * 1024;
    let all = [0xffu8; MAX_CPUS / 8];
    // SAFETY: the kernel reads `all`, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, all.len(), all.as_ptr()) }).map(drop)
}

/// CLONE_INTO_CGROUP of linux/sched.h, Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks with `flags` (CLONE_NEW*, CLONE_PARENT), into the cgroup v2 directory `cgroup` if given:
/// clone3(2). The child has a copy of the memory, as after fork(2).
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>, _: &SingleThreaded) -> Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the child sends its grandparent whatever signal the parent was made with.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own memory and, by the witness, the parent had one
    // thread, so no lock is held by a thread that is missing in the child. pidfd outlives the call.
    let ret =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if ret == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: on success the kernel stored a new descriptor that nobody else owns.
    Ok(Forked::Parent { pid: ret as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends the process at once: no atexit handlers, no destructors, which belong to the parent.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A nul-terminated array of C strings, as execve(2) takes argv and envp.
#[derive(Debug)]
pub struct StringVector {
    pointers: Vec<*const c_char>,
    // Owns what the pointers point to.
    _strings: Vec<CString>,
}

impl StringVector {
    /// Takes the strings in order.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        StringVector { pointers, _strings: strings }
    }
}

/// Replaces the process: execve(2). Returns only on error.
pub fn execve(path: &std::ffi::CStr, argv: &StringVector, envp: &StringVector) -> Result<Infallible> {
    // SAFETY: both vectors are nul-terminated arrays of valid C strings owned by their StringVector.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Err(crate::last_errno())
}

/// Replaces the process by the file that `fd` refers to: execveat(2) with AT_EMPTY_PATH.
pub fn fexecve(fd: BorrowedFd<'_>, argv: &StringVector, envp: &StringVector) -> Result<Infallible> {
    // SAFETY: as for execve; the empty path is a valid C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(crate::last_errno())
}

/// Lets SIGHUP, SIGINT, SIGQUIT and SIGTERM end the process until it executes a program. The first
/// process of a pid namespace ignores what it has no handler for, wherever it comes from
/// (pid_namespaces(7)); execve(2) puts the default back.
pub fn end_on_signals() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: `end` is a handler for any signal and touches no memory.
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

/// Makes a write to a pipe that nobody reads an error of write(2).
pub fn ignore_broken_pipes() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Puts signals into the state that a new program expects: nothing blocked, nothing ignored. Ignored
/// signals stay ignored over execve(2), as SIGPIPE would.
pub fn reset_signals() {
    /// Size of the kernel's sigset_t in bytes; signals are 1 to 64.
    const SIGSET: libc::c_long = 8;
    // struct sigaction of the kernel, all zero: SIG_DFL, no flags, empty mask. By system call, since
    // libc keeps 32 and 33 for itself.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads at most 32 bytes of `default`; SIGKILL and SIGSTOP give EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGSET,
            )
        };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Joins the namespaces in `flags` (CLONE_NEW*) of the process or namespace file behind `fd`:
/// setns(2). The caller is single-threaded.
pub fn setns(fd: BorrowedFd<'_>, flags: u64, _: &SingleThreaded) -> Result<()> {
    // SAFETY: plain integers; a single-threaded process may change any of its namespaces without
    // surprising another thread.
    check(libc::c_long::from(unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) })).map(drop)
}

/// Moves the caller into new namespaces: unshare(2) with CLONE_NEW* flags.
pub fn unshare(flags: u64, _: &SingleThreaded) -> Result<()> {
    // SAFETY: as for setns; CLONE_FILES and CLONE_FS are not among the flags that callers pass, and
    // would only unshare from threads that do not exist.
    check(libc::c_long::from(unsafe { libc::unshare(flags as libc::c_int) })).map(drop)
}

/// Lets a child of `command` start with no signal blocked, whatever the caller blocks.
pub fn unblock_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let clear = || {
        // SAFETY: sigset_t is plain data, initialised by sigemptyset before it is read.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(clear) }
}

/// Sends signal number `signal` to a process by pidfd: pidfd_send_signal(2). Takes any number, 0
/// and real-time signals included.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo means the same as kill(2); the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Wait status of a child by pid, blocking: wait4(2). EINTR is retried.
pub fn wait(pid: i32) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int into `status`; rusage is not asked for.
        let ret = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if ret >= 0 {
            return Ok(status);
        }
        match crate::last_errno() {
            Errno::INTR => {}
            other => return Err(other),
        }
    }
}

/// Pid of a child that has ended and is not reaped yet, if there is one: waitid(2) with WNOHANG and
/// WNOWAIT.
pub fn ended_child() -> Result<Option<i32>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is valid; the kernel fills it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `info` outlives the call.
    check(libc::c_long::from(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) }))?;
    // SAFETY: waitid(2) set si_pid, to 0 when no child had ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}
