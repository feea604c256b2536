//! One measured command.
//!
//! The harness starts a fresh copy of this program for each sample, and that copy starts the
//! command: RUSAGE_CHILDREN of a process that has had one child is the CPU time and peak memory of
//! that child and of everything it waited for (getrusage(2)), to the microsecond, because the kernel
//! scales user plus system time to the scheduler's own clock. Wall time runs from just before the
//! spawn to just after the wait and does not contain the copy's own start.
//!
//! One limit: execve folds the caller's peak memory into ru_maxrss, also after vfork, so no command
//! can be seen below the copy's own size. `rounds` measures a program that exits at once for this.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// First argument of the copy that measures.
pub const SUBCOMMAND: &str = "--measure";

/// No sample takes a tenth of this; a peer that hangs is given up.
const DEADLINE: Duration = Duration::from_secs(60);

/// What one sample cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Microseconds from before the spawn to after the wait.
    pub wall_us: u64,
    /// Microseconds of user and system time of the command and all it waited for.
    pub cpu_us: u64,
    /// Peak resident set in KiB of the largest process among them.
    pub rss_kib: u64,
}

impl Sample {
    /// The two, one after the other.
    pub fn with(self, next: Self) -> Self {
        Self {
            wall_us: self.wall_us + next.wall_us,
            cpu_us: self.cpu_us + next.cpu_us,
            rss_kib: self.rss_kib.max(next.rss_kib),
        }
    }
}

/// User plus system time in microseconds of all children that this process has waited for.
pub fn cpu_of_children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let both = [usage.user_time(), usage.system_time()].map(|t| t.tv_sec() * 1_000_000 + t.tv_usec());
    Ok(u64::try_from(both.iter().sum::<i64>())?)
}

/// How the copies of one command relate in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// All started, then all awaited.
    Parallel(usize),
    /// Each awaited before the next starts.
    Sequential(usize),
}

/// Runs `argv` by a fresh copy of this program and returns its cost. Every `{n}` in an argument
/// becomes the number of the repetition. The command's standard error goes to `errors`.
pub fn sample(argv: &[String], pattern: Pattern, errors: &Path) -> Result<Sample> {
    let (word, count) = match pattern {
        Pattern::Parallel(count) => ("parallel", count),
        Pattern::Sequential(count) => ("sequential", count),
    };
    let mut copy = Command::new("/proc/self/exe")
        .args([SUBCOMMAND, word, &count.to_string()])
        .arg(errors)
        .args(argv)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("start the measuring copy")?;
    let answer = answer_of(&mut copy);
    if answer.is_err() {
        // The process group holds the copy and the command, not a container's init.
        killpg(Pid::from_raw(i32::try_from(copy.id())?), Signal::SIGKILL)?;
    }
    copy.wait()?;
    let text = answer?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let &[wall_us, cpu_us, rss_kib] = fields.as_slice() else {
        let errors = std::fs::read_to_string(errors).unwrap_or_default();
        let last = errors.lines().last().unwrap_or("nothing on standard error");
        bail!("{}: {}", text.trim(), last);
    };
    Ok(Sample { wall_us, cpu_us, rss_kib })
}

fn answer_of(copy: &mut Child) -> Result<String> {
    let mut pipe = copy.stdout.take().context("no pipe")?;
    let timeout = PollTimeout::try_from(DEADLINE)?;
    if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        bail!("no end after {} s", DEADLINE.as_secs());
    }
    let mut text = String::new();
    pipe.read_to_string(&mut text)?;
    Ok(text)
}

/// The measuring copy: `parallel|sequential COUNT ERRORS ARGV...`. Prints the three fields of
/// [`Sample`], or how the first failing command ended.
pub fn child(arguments: &[String]) -> Result<()> {
    let [word, count, errors, argv @ ..] = arguments else { bail!("wrong arguments") };
    let count: usize = count.parse()?;
    let errors = File::create(errors)?;
    let commands = (0..count).map(|n| command(argv, n, &errors)).collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let ends = match word.as_str() {
        "parallel" => all_at_once(commands)?,
        _ => one_by_one(commands)?,
    };
    let wall = begin.elapsed();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    let answer = match ends.iter().find(|end| !end.success()) {
        None => format!("{} {} {peak}", wall.as_micros(), cpu_of_children()?),
        Some(end) => match (end.code(), end.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
        },
    };
    super::say(&answer)
}

fn command(argv: &[String], n: usize, errors: &File) -> Result<Command> {
    let mut words = argv.iter().map(|word| word.replace("{n}", &n.to_string()));
    let mut command = Command::new(words.next().context("no command")?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?);
    Ok(command)
}

fn all_at_once(commands: Vec<Command>) -> Result<Vec<ExitStatus>> {
    let mut children = Vec::with_capacity(commands.len());
    for mut command in commands {
        children.push(command.spawn()?);
    }
    children.into_iter().map(|mut child| Ok(child.wait()?)).collect()
}

fn one_by_one(commands: Vec<Command>) -> Result<Vec<ExitStatus>> {
    commands.into_iter().map(|mut command| Ok(command.status()?)).collect()
}
