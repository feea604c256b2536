//! The subcommands: names, flags, number of operands, and what help says of them.

use std::ffi::OsString;

use crate::checkpoint::{CHECKPOINT, CRIU};
use crate::flags::{Flag, Words};
use crate::help;
use crate::program::{Failure, Program};
use crate::restore::RESTORE;

/// A subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subcommand {
    Checkpoint,
    Create,
    Delete,
    Events,
    Exec,
    Features,
    Kill,
    List,
    Mounts,
    Pause,
    Ps,
    Restore,
    Resume,
    Run,
    Spec,
    Start,
    State,
    Update,
}

/// All of them, in the order of the help.
pub const ALL: &[Subcommand] = &[
    Subcommand::Checkpoint,
    Subcommand::Create,
    Subcommand::Delete,
    Subcommand::Events,
    Subcommand::Exec,
    Subcommand::Features,
    Subcommand::Kill,
    Subcommand::List,
    Subcommand::Mounts,
    Subcommand::Pause,
    Subcommand::Ps,
    Subcommand::Restore,
    Subcommand::Resume,
    Subcommand::Run,
    Subcommand::Spec,
    Subcommand::Start,
    Subcommand::State,
    Subcommand::Update,
];

/// How many operands a subcommand takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operands {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

impl Operands {
    /// What is wrong with a number of operands, in runc's words.
    fn complaint(self, given: usize) -> Option<String> {
        let exactly = |n| format!("requires exactly {n} argument(s)");
        let minimum = |n| format!("requires a minimum of {n} argument(s)");
        let maximum = |n| format!("requires a maximum of {n} argument(s)");
        match self {
            Operands::Exactly(n) => (given != n).then(|| exactly(n)),
            Operands::AtLeast(n) => (given < n).then(|| minimum(n)),
            Operands::Between(low, _) if given < low => Some(minimum(low)),
            Operands::Between(_, high) => (given > high).then(|| maximum(high)),
        }
    }
}

impl Subcommand {
    /// Finds a subcommand by its name.
    pub fn named(name: &std::ffi::OsStr) -> Option<Subcommand> {
        ALL.iter().copied().find(|subcommand| name == subcommand.name())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Subcommand::Checkpoint => "checkpoint",
            Subcommand::Create => "create",
            Subcommand::Delete => "delete",
            Subcommand::Events => "events",
            Subcommand::Exec => "exec",
            Subcommand::Features => "features",
            Subcommand::Kill => "kill",
            Subcommand::List => "list",
            Subcommand::Mounts => "mounts",
            Subcommand::Pause => "pause",
            Subcommand::Ps => "ps",
            Subcommand::Restore => "restore",
            Subcommand::Resume => "resume",
            Subcommand::Run => "run",
            Subcommand::Spec => "spec",
            Subcommand::Start => "start",
            Subcommand::State => "state",
            Subcommand::Update => "update",
        }
    }

    /// One line of help.
    pub fn about(self) -> &'static str {
        match self {
            Subcommand::Checkpoint => "save a running container to files, by CRIU",
            Subcommand::Create => "create a container",
            Subcommand::Delete => "delete a container and what was made for it",
            Subcommand::Events => "show what a container uses, at intervals, and when it ran out of memory",
            Subcommand::Exec => "run another process in a container",
            Subcommand::Features => "show what this runtime supports, as JSON",
            Subcommand::Kill => "send a signal (default: SIGTERM) to a container's init process",
            Subcommand::List => "list the containers below the root directory",
            Subcommand::Mounts => "add mounts to a running container, or remove them",
            Subcommand::Pause => "stop every process of a container where it stands",
            Subcommand::Ps => "show the processes of a container",
            Subcommand::Restore => "make a container run again from the files of a checkpoint, by CRIU",
            Subcommand::Resume => "let the processes of a paused container go on",
            Subcommand::Run => "create and start a container",
            Subcommand::Spec => "write a config.json to start from",
            Subcommand::Start => "start the process of a created container",
            Subcommand::State => "show the state of a container, as JSON",
            Subcommand::Update => "change the limits of a container",
        }
    }

    /// More about it, below its usage.
    pub fn description(self) -> &'static str {
        match self {
            Subcommand::Events => EVENTS_TEXT,
            Subcommand::Exec => EXEC_TEXT,
            Subcommand::Kill => KILL_TEXT,
            Subcommand::List => "The containers of another root directory: creel --root DIR list.",
            Subcommand::Ps => {
                "Shows the lines of the host's ps(1) that belong to the container; without options, ps -ef."
            }
            Subcommand::Checkpoint => "criu(8) does the work; it is found in PATH.",
            Subcommand::Mounts => {
                "FILE has an array like .mounts of config.json. What add made, remove takes away by its destinations."
            }
            Subcommand::Spec => SPEC_TEXT,
            Subcommand::Update => UPDATE_TEXT,
            Subcommand::Create
            | Subcommand::Delete
            | Subcommand::Features
            | Subcommand::Pause
            | Subcommand::Restore
            | Subcommand::Resume
            | Subcommand::Run
            | Subcommand::Start
            | Subcommand::State => "",
        }
    }

    /// What follows the flags.
    pub fn operands_usage(self) -> &'static str {
        self.operands().1
    }

    fn operands(self) -> (Operands, &'static str) {
        match self {
            Subcommand::Features | Subcommand::List | Subcommand::Spec => (Operands::Exactly(0), ""),
            Subcommand::Exec => {
                (Operands::AtLeast(1), "<container-id> <command> [argument...] || -p FILE <container-id>")
            }
            Subcommand::Kill => (Operands::Between(1, 2), "<container-id> [signal]"),
            Subcommand::Mounts => (Operands::Exactly(3), "add|remove <container-id> <file>"),
            Subcommand::Ps => (Operands::AtLeast(1), "<container-id> [ps options]"),
            Subcommand::Checkpoint
            | Subcommand::Create
            | Subcommand::Delete
            | Subcommand::Events
            | Subcommand::Pause
            | Subcommand::Restore
            | Subcommand::Resume
            | Subcommand::Run
            | Subcommand::Start
            | Subcommand::State
            | Subcommand::Update => (Operands::Exactly(1), "<container-id>"),
        }
    }

    /// Its flags but `--help`, which every command has.
    pub fn own_flags(self) -> impl Iterator<Item = &'static Flag> + Clone {
        let (own, shared): (&[Flag], &[Flag]) = match self {
            Subcommand::Checkpoint => (&CHECKPOINT, &CRIU),
            Subcommand::Restore => (&RESTORE, &CRIU),
            Subcommand::Create => (&CREATE, &CONTAINER),
            Subcommand::Run => (&RUN, &CONTAINER),
            Subcommand::Exec => (&EXEC, &[]),
            Subcommand::Delete => (&DELETE, &[]),
            Subcommand::Events => (&EVENTS, &[]),
            Subcommand::Kill => (&KILL, &[]),
            Subcommand::List => (&LIST, &[]),
            Subcommand::Ps => (&PS, &[]),
            Subcommand::Spec => (&SPEC, &[]),
            Subcommand::Update => (&UPDATE, &[]),
            Subcommand::Features
            | Subcommand::Mounts
            | Subcommand::Pause
            | Subcommand::Resume
            | Subcommand::Start
            | Subcommand::State => (&[], &[]),
        };
        shared.iter().chain(own)
    }

    fn flags(self) -> impl Iterator<Item = &'static Flag> + Clone {
        self.own_flags().chain(&HELP)
    }

    /// Its help text.
    pub fn help(self, program: &Program) -> String {
        help::of(self, program)
    }

    /// Reads the words after its name; `None` when help was asked for.
    pub fn parse<'a>(self, program: &Program, args: &'a [OsString]) -> Result<Option<Words<'a>>, Failure> {
        let flags_stop = matches!(self, Subcommand::Exec | Subcommand::Ps);
        let words = Words::read(args, flags_stop, |name| self.flags().find(|flag| flag.is_named(name)))
            .map_err(|message| {
                Failure::usage(format!("Incorrect Usage: {message}"), self.help(program), message)
            })?;
        if words.has("help") {
            return Ok(None);
        }
        if let Some(complaint) = self.operands().0.complaint(words.operands.len()) {
            let message = format!("{}: {:?} {complaint}", program.argv0, self.name());
            return Err(Failure::usage("Incorrect Usage.".to_owned(), self.help(program), message));
        }
        Ok(Some(words))
    }
}

static HELP: [Flag; 1] = [Flag::switch("help", "show help").short('h')];

/// crun has it, and ignores it: `create` never waits.
static CREATE: [Flag; 1] = [Flag::switch("no-subreaper", "")];

static CONTAINER: [Flag; 8] = [
    Flag::value("bundle", "DIR", "bundle directory").short('b').default("the current one"),
    Flag::value("config", "FILE", "another config than the bundle's config.json").short('f'),
    Flag::value("console-socket", "PATH", "unix socket that gets the terminal's master end"),
    Flag::value("pidfd-socket", "PATH", "unix socket that gets a pidfd of the init process"),
    Flag::value("pid-file", "FILE", "file to write the pid of the init process to"),
    Flag::switch("no-pivot", "move the root mount instead of pivot_root, for a rootfs on a ramdisk"),
    Flag::switch("no-new-keyring", "keep the caller's session keyring"),
    Flag::number("preserve-fds", "pass N more file descriptors after 0, 1, 2 and $LISTEN_FDS"),
];

static RUN: [Flag; 4] = [
    Flag::switch("dry-run", "print what would be done, one line a step, and do nothing"),
    Flag::switch("detach", "return when the process has started").short('d'),
    Flag::switch("keep", "keep the container when its process has ended"),
    Flag::switch("no-subreaper", "do not adopt processes whose parent ends"),
];

static EXEC: [Flag; 17] = [
    Flag::value("console-socket", "PATH", "unix socket that gets the terminal's master end"),
    Flag::value("pidfd-socket", "PATH", "unix socket that gets a pidfd of the process"),
    Flag::value("cwd", "DIR", "working directory in the container"),
    Flag::value("env", "KEY=VALUE", "add to the environment (repeatable)").short('e'),
    Flag::switch("tty", "attach a pseudo-terminal").short('t'),
    Flag::value("user", "UID[:GID]", "user and group of the process").short('u'),
    Flag::number("additional-gids", "add a supplementary group (repeatable)").short('g'),
    Flag::value("process", "FILE", "process.json to run instead of flags and arguments").short('p'),
    Flag::switch("detach", "return when the process has started").short('d'),
    Flag::value("pid-file", "FILE", "file to write the pid of the process to"),
    Flag::value("process-label", "LABEL", "SELinux label of the process"),
    Flag::value("apparmor", "PROFILE", "AppArmor profile of the process"),
    Flag::switch("no-new-privs", "set no_new_privs"),
    Flag::value("cap", "CAP", "add a capability (repeatable)").short('c'),
    Flag::number("preserve-fds", "pass N more file descriptors after 0, 1, 2 and $LISTEN_FDS"),
    Flag::value("cgroup", "[CONTROLLERS:]PATH", "run in a cgroup below the container's (repeatable)"),
    Flag::switch("ignore-paused", "also run in a paused container"),
];

static EVENTS: [Flag; 2] = [
    Flag::duration("interval", "time between two reports").default("5s"),
    Flag::switch("stats", "report once, then end"),
];

static DELETE: [Flag; 2] = [
    Flag::switch("force", "kill the container first if it runs").short('f'),
    Flag::switch("regex", "delete every container whose id the regular expression matches").short('r'),
];

static KILL: [Flag; 2] = [
    Flag::switch("all", "signal every process of the container; one without any is no error").short('a'),
    Flag::switch("regex", "signal every container whose id the regular expression matches").short('r'),
];

static LIST: [Flag; 2] = [
    Flag::value("format", "FORMAT", "table or json").short('f').default("table"),
    Flag::switch("quiet", "show only ids").short('q'),
];

static PS: [Flag; 1] = [Flag::value("format", "FORMAT", "table or json").short('f').default("table")];

static SPEC: [Flag; 3] = [
    Flag::value("bundle", "DIR", "bundle directory").short('b').default("the current one"),
    Flag::value("file", "FILE", "where to write it, from the bundle").short('f').default("config.json"),
    Flag::switch("rootless", "for a container of a user without privileges"),
];

/// The two without help are runc's, which ignores them.
static UPDATE: [Flag; 19] = [
    Flag::value("resources", "FILE", "limits as JSON, - for standard input, instead of flags").short('r'),
    Flag::number("blkio-weight", "block I/O weight, 10 to 1000"),
    Flag::value("cpu-period", "USECS", "CPU period"),
    Flag::value("cpu-quota", "USECS", "CPU time in each period, -1 for no limit"),
    Flag::value("cpu-burst", "USECS", "CPU time that may be saved up for a later period"),
    Flag::value("cpu-share", "SHARES", "CPU shares, 2 to 262144"),
    Flag::value("cpu-rt-period", "USECS", "realtime CPU period"),
    Flag::value("cpu-rt-runtime", "USECS", "realtime CPU time in each period"),
    Flag::value("cpuset-cpus", "LIST", "CPUs to use"),
    Flag::value("cpuset-mems", "LIST", "memory nodes to use"),
    Flag::value("cpu-idle", "0|1", "1 for SCHED_IDLE"),
    Flag::value("memory", "SIZE", "memory limit, such as 64m; -1 for none"),
    Flag::value("memory-reservation", "SIZE", "soft memory limit"),
    Flag::value("memory-swap", "SIZE", "limit of memory and swap together"),
    Flag::number("pids-limit", "number of processes, -1 for no limit"),
    Flag::value("l3-cache-schema", "SCHEMA", "line for the L3 cache in the container's resctrl group"),
    Flag::value("mem-bw-schema", "SCHEMA", "line for the memory bandwidth there"),
    Flag::value("kernel-memory", "SIZE", ""),
    Flag::value("kernel-memory-tcp", "SIZE", ""),
];

const EVENTS_TEXT: &str = "Prints one JSON object a line: {\"type\":\"stats\",...} after each interval and
{\"type\":\"oom\",...} when a process could not get memory, until the container's cgroup is gone.";

const EXEC_TEXT: &str =
    "Options end at the container id; what follows is the command's own. The process is the
container's, changed by the options, or the one of process.json. For example

       # creel exec web ps -ef

Ends with the exit code of the process, 128 and the signal's number, or 255 when it was not run.";

const KILL_TEXT: &str =
    "The signal is a name, with or without SIG, or a number; without one SIGTERM. For example

       # creel kill web KILL";

const SPEC_TEXT: &str =
    "Writes config.json: a shell as root with three capabilities, in a read-only root file system
`rootfs`. It never writes over another one. With --rootless the container needs no privileges of
whoever runs it.";

const UPDATE_TEXT: &str =
    "Limits that are not named stay as they are. A document has the form of .linux.resources:

       {\"memory\": {\"limit\": 67108864, \"checkBeforeUpdate\": true}, \"cpu\": {\"quota\": 20000}}";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn complaint(subcommand: Subcommand, args: &[&str]) -> Option<String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let program = Program { argv0: "/sbin/runc".to_owned(), name: "runc" };
        subcommand.parse(&program, &args).err().map(|failure| failure.message)
    }

    #[test]
    fn a_wrong_number_of_operands_is_said_in_runcs_words() {
        for (subcommand, args, message) in [
            (Subcommand::State, &[][..], "/sbin/runc: \"state\" requires exactly 1 argument(s)"),
            (Subcommand::State, &["a", "b"], "/sbin/runc: \"state\" requires exactly 1 argument(s)"),
            (Subcommand::Exec, &[], "/sbin/runc: \"exec\" requires a minimum of 1 argument(s)"),
            (Subcommand::Kill, &[], "/sbin/runc: \"kill\" requires a minimum of 1 argument(s)"),
            (Subcommand::Kill, &["a", "b", "c"], "/sbin/runc: \"kill\" requires a maximum of 2 argument(s)"),
            (Subcommand::Pause, &[], "/sbin/runc: \"pause\" requires exactly 1 argument(s)"),
            (Subcommand::Ps, &[], "/sbin/runc: \"ps\" requires a minimum of 1 argument(s)"),
            (Subcommand::Spec, &["a"], "/sbin/runc: \"spec\" requires exactly 0 argument(s)"),
        ] {
            assert_eq!(complaint(subcommand, args).unwrap(), message);
        }
        assert_eq!(complaint(Subcommand::Kill, &["a", "--all", "9"]), None);
        assert_eq!(complaint(Subcommand::Exec, &["a", "b", "c", "-d"]), None);
        assert_eq!(complaint(Subcommand::Ps, &["-f", "table", "a", "-f", "-x"]), None);
    }

    #[test]
    fn every_flag_is_found_by_its_names_and_they_do_not_collide() {
        for subcommand in ALL {
            let mut names: Vec<String> = subcommand
                .flags()
                .flat_map(|flag| flag.short.map(String::from).into_iter().chain([flag.long.to_owned()]))
                .collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{subcommand:?}");
        }
    }
}
