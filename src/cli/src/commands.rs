//! The subcommands: names, flags, number of operands, and help, which clap renders.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::checkpoint::{CHECKPOINT, CRIU};
use crate::companion;
use crate::flags::{Flag, Kind, Words};
use crate::globals::GLOBALS;
use crate::program::{Failure, Program};
use crate::restore::RESTORE;

/// A subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subcommand {
    Checkpoint,
    Create,
    Delete,
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
const ALL: [Subcommand; 17] = [
    Subcommand::Checkpoint,
    Subcommand::Create,
    Subcommand::Delete,
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
        ALL.into_iter().find(|subcommand| name == subcommand.name())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Subcommand::Checkpoint => "checkpoint",
            Subcommand::Create => "create",
            Subcommand::Delete => "delete",
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

    fn about(self) -> &'static str {
        match self {
            Subcommand::Checkpoint => "save a running container to files, by CRIU",
            Subcommand::Create => "create a container",
            Subcommand::Delete => "delete a container and what was made for it",
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

    fn operands(self) -> (Operands, &'static str) {
        match self {
            Subcommand::Features | Subcommand::List | Subcommand::Spec => (Operands::Exactly(0), ""),
            Subcommand::Exec => {
                (Operands::AtLeast(1), " <container-id> <command> [argument...] || -p FILE <container-id>")
            }
            Subcommand::Kill => (Operands::Between(1, 2), " <container-id> [signal]"),
            Subcommand::Mounts => (Operands::Exactly(3), " add|remove <container-id> <file>"),
            Subcommand::Ps => (Operands::AtLeast(1), " <container-id> [ps argument...]"),
            Subcommand::Checkpoint
            | Subcommand::Create
            | Subcommand::Delete
            | Subcommand::Pause
            | Subcommand::Restore
            | Subcommand::Resume
            | Subcommand::Run
            | Subcommand::Start
            | Subcommand::State
            | Subcommand::Update => (Operands::Exactly(1), " <container-id>"),
        }
    }

    fn flags(self) -> impl Iterator<Item = &'static Flag> + Clone {
        let (own, shared): (&[Flag], &[Flag]) = match self {
            Subcommand::Checkpoint => (&CHECKPOINT, &CRIU),
            Subcommand::Restore => (&RESTORE, &CRIU),
            Subcommand::Create => (&[], &CONTAINER),
            Subcommand::Run => (&RUN, &CONTAINER),
            Subcommand::Exec => (&EXEC, &[]),
            Subcommand::Delete => (&DELETE, &[]),
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
        shared.iter().chain(own).chain(&HELP)
    }

    /// Its help text.
    pub fn help(self, program: &Program) -> String {
        let shown = self.flags().filter(|flag| !flag.help.is_empty());
        let options = if shown.clone().count() > HELP.len() { " [options]" } else { "" };
        let usage = format!("{} {}{options}{}", program.name, self.name(), self.operands().1);
        Command::new(self.name())
            .about(self.about())
            .override_usage(usage)
            .disable_help_flag(true)
            .args(shown.map(argument))
            .render_help()
            .to_string()
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

/// Help of the whole program.
pub fn overview(program: &Program) -> String {
    let mut command = Command::new("creel")
        .bin_name(program.name)
        .about("low-level OCI runtime: runs containers from bundles and images")
        .override_usage(format!("{} [global options] command [options] [arguments...]", program.name))
        .subcommand_help_heading("Commands")
        .disable_help_flag(true)
        .disable_help_subcommand(true);
    command = command.args(GLOBALS.iter().map(argument));
    for subcommand in ALL {
        command = command.subcommand(Command::new(subcommand.name()).about(subcommand.about()));
    }
    for (name, about) in companion::COMMANDS {
        command = command.subcommand(Command::new(name).about(about));
    }
    command = command.subcommand(Command::new("help").about("show this help, or a command's"));
    command.render_help().to_string()
}

/// A flag as clap's help shows it.
fn argument(flag: &'static Flag) -> Arg {
    let argument = Arg::new(flag.long).long(flag.long).short(flag.short).help(flag.help);
    match flag.kind {
        Kind::Switch => argument.action(ArgAction::SetTrue),
        Kind::Value(name) => argument.value_name(name),
        Kind::Number => argument.value_name("N"),
    }
}

static HELP: [Flag; 1] = [Flag::switch("help", "show help").short('h')];

static CONTAINER: [Flag; 7] = [
    Flag::value("bundle", "DIR", "bundle directory (default: the current one)").short('b'),
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
    Flag::value("additional-gids", "GID", "add a supplementary group (repeatable)").short('g'),
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

static DELETE: [Flag; 1] = [Flag::switch("force", "kill the container first if it runs").short('f')];

/// runc has hidden it: a stopped container is no error then.
static KILL: [Flag; 1] = [Flag::switch("all", "").short('a')];

static LIST: [Flag; 2] = [
    Flag::value("format", "FORMAT", "table (default) or json").short('f'),
    Flag::switch("quiet", "show only ids").short('q'),
];

static PS: [Flag; 1] = [Flag::value("format", "FORMAT", "table (default) or json").short('f')];

static SPEC: [Flag; 2] = [
    Flag::value("bundle", "DIR", "bundle directory (default: the current one)").short('b'),
    Flag::switch("rootless", "for a container of a user without privileges"),
];

/// The two without help are runc's, which ignores them.
static UPDATE: [Flag; 19] = [
    Flag::value("resources", "FILE", "limits as JSON, - for standard input, instead of flags").short('r'),
    Flag::value("blkio-weight", "WEIGHT", "block I/O weight, 10 to 1000"),
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
    Flag::value("pids-limit", "N", "number of processes, -1 for no limit"),
    Flag::value("l3-cache-schema", "SCHEMA", "Intel RDT/CAT schema (not available)"),
    Flag::value("mem-bw-schema", "SCHEMA", "Intel RDT/MBA schema (not available)"),
    Flag::value("kernel-memory", "SIZE", ""),
    Flag::value("kernel-memory-tcp", "SIZE", ""),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const RUNC: Program = Program { argv0: String::new(), name: "runc" };

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

    #[test]
    fn help_shows_usage_and_visible_flags_under_the_invoked_name() {
        let help = Subcommand::Kill.help(&RUNC);
        assert!(help.contains("Usage: runc kill <container-id> [signal]"), "{help}");
        assert!(!help.contains("--all"), "{help}");
        let help = overview(&RUNC);
        for subcommand in ALL {
            assert!(help.contains(&format!("  {} ", subcommand.name())), "{help}");
        }
        for (name, _) in companion::COMMANDS {
            assert!(help.contains(&format!("  {name} ")), "{help}");
            assert_eq!(Subcommand::named(name.as_ref()), None);
        }
        assert!(help.contains("-v, --version"), "{help}");
    }
}
