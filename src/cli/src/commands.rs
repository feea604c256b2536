//! The subcommands: names, flags, number of operands and help, as clap builders.
//!
//! Only the builder of the subcommand at hand runs; building all of them with clap's derive would
//! double the time of `state`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::globals::GLOBALS;
use crate::go_flags::{self, Kind};
use crate::program::{Failure, Program};

/// A subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subcommand {
    Create,
    Delete,
    Exec,
    Features,
    Kill,
    List,
    Run,
    Spec,
    Start,
    State,
}

/// All of them, in the order of the help.
const ALL: [Subcommand; 10] = [
    Subcommand::Create,
    Subcommand::Delete,
    Subcommand::Exec,
    Subcommand::Features,
    Subcommand::Kill,
    Subcommand::List,
    Subcommand::Run,
    Subcommand::Spec,
    Subcommand::Start,
    Subcommand::State,
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
            Subcommand::Create => "create",
            Subcommand::Delete => "delete",
            Subcommand::Exec => "exec",
            Subcommand::Features => "features",
            Subcommand::Kill => "kill",
            Subcommand::List => "list",
            Subcommand::Run => "run",
            Subcommand::Spec => "spec",
            Subcommand::Start => "start",
            Subcommand::State => "state",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Subcommand::Create => "create a container",
            Subcommand::Delete => "delete a container and what was made for it",
            Subcommand::Exec => "run another process in a container",
            Subcommand::Features => "show what this runtime supports, as JSON",
            Subcommand::Kill => "send a signal (default: SIGTERM) to a container's init process",
            Subcommand::List => "list the containers below the root directory",
            Subcommand::Run => "create and start a container",
            Subcommand::Spec => "write a config.json to start from",
            Subcommand::Start => "start the process of a created container",
            Subcommand::State => "show the state of a container, as JSON",
        }
    }

    fn operands(self) -> (Operands, &'static str) {
        match self {
            Subcommand::Features | Subcommand::List | Subcommand::Spec => (Operands::Exactly(0), ""),
            Subcommand::Exec => {
                (Operands::AtLeast(1), " <container-id> <command> [argument...] || -p FILE <container-id>")
            }
            Subcommand::Kill => (Operands::Between(1, 2), " <container-id> [signal]"),
            Subcommand::Create
            | Subcommand::Delete
            | Subcommand::Run
            | Subcommand::Start
            | Subcommand::State => (Operands::Exactly(1), " <container-id>"),
        }
    }

    fn flags(self) -> Vec<Arg> {
        match self {
            Subcommand::Create => container_flags(),
            Subcommand::Run => {
                let mut flags = container_flags();
                flags.extend([
                    switch("detach", "return when the process has started").short('d'),
                    switch("keep", "keep the container when its process has ended"),
                    switch("no-subreaper", "do not adopt processes whose parent ends"),
                ]);
                flags
            }
            Subcommand::Exec => exec_flags(),
            Subcommand::Delete => {
                vec![switch("force", "kill the container first if it runs").short('f')]
            }
            Subcommand::Kill => {
                vec![switch("all", "do not fail when the container is stopped").short('a').hide(true)]
            }
            Subcommand::List => vec![
                text("format", "FORMAT", "table or json").short('f').default_value("table"),
                switch("quiet", "show only ids").short('q'),
            ],
            Subcommand::Spec => vec![
                path("bundle", "DIR", "bundle directory (default: the current one)").short('b'),
                switch("rootless", "for a container of a user without privileges"),
            ],
            Subcommand::Features | Subcommand::Start | Subcommand::State => Vec::new(),
        }
    }

    /// The parser of this subcommand.
    fn command(self, program: &Program) -> Command {
        let flags = self.flags();
        let options = if flags.is_empty() { "" } else { " [options]" };
        let operands = self.operands().1;
        Command::new(self.name())
            .bin_name(format!("{} {}", program.name, self.name()))
            .about(self.about())
            .override_usage(format!("{} {}{options}{operands}", program.name, self.name()))
            .disable_help_flag(true)
            .args_override_self(true)
            .args(flags)
            .arg(switch("help", "show help").short('h'))
            .arg(Arg::new(OPERANDS).num_args(0..).last(true).hide(true).value_parser(value_parser!(OsString)))
    }

    /// Its help text.
    pub fn help(self, program: &Program) -> String {
        self.command(program).render_help().to_string()
    }

    /// Reads the words after its name; `None` when help was asked for.
    pub fn parse(self, program: &Program, args: &[OsString]) -> Result<Option<Words>, Failure> {
        let command = self.command(program);
        let wrong = |message: String| {
            Failure::usage(format!("Incorrect Usage: {message}"), self.help(program), message)
        };
        let stop = self == Subcommand::Exec;
        let canonical = go_flags::canonical(&command, stop, args).map_err(wrong)?;
        let mut flags = command.try_get_matches_from(canonical).map_err(|error| wrong(explain(&error)))?;
        if flags.get_flag("help") {
            return Ok(None);
        }
        let operands: Vec<OsString> = flags.remove_many(OPERANDS).into_iter().flatten().collect();
        if let Some(complaint) = self.operands().0.complaint(operands.len()) {
            let message = format!("{}: {:?} {complaint}", program.argv0, self.name());
            let heading = "Incorrect Usage.".to_owned();
            return Err(Failure::usage(heading, self.help(program), message));
        }
        Ok(Some(Words { flags, operands }))
    }
}

/// A subcommand's flags and operands as they were given.
#[derive(Debug)]
pub struct Words {
    /// Flags by long name.
    pub flags: ArgMatches,
    /// The rest.
    pub operands: Vec<OsString>,
}

/// Id of the argument that collects operands.
const OPERANDS: &str = "operands";

/// A value that does not parse, in the words of Go's flag package; the syntax before that is
/// [`go_flags`]'s.
fn explain(error: &clap::Error) -> String {
    use clap::error::ContextKind;
    let context = |kind| error.get(kind).map(ToString::to_string);
    let flag = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = flag.trim_start_matches('-').split(' ').next().unwrap_or_default().to_owned();
    match context(ContextKind::InvalidValue) {
        Some(value) => format!("invalid value {value:?} for flag -{flag}: parse error"),
        None => format!("invalid value for flag -{flag}: {}", error.kind()),
    }
}

/// Help of the whole program.
pub fn overview(program: &Program) -> String {
    let mut command = Command::new("creel")
        .bin_name(program.name)
        .about("low-level OCI runtime: runs containers from bundles")
        .override_usage(format!("{} [global options] command [options] [arguments...]", program.name))
        .subcommand_help_heading("Commands")
        .disable_help_flag(true)
        .disable_help_subcommand(true);
    for global in &GLOBALS {
        let flag = match global.kind {
            Kind::Switch => switch(global.long, global.help),
            Kind::Value => text(global.long, "VALUE", global.help),
        };
        command = command.arg(match global.short {
            Some(short) => flag.short(short),
            None => flag,
        });
    }
    for subcommand in ALL {
        command = command.subcommand(Command::new(subcommand.name()).about(subcommand.about()));
    }
    command = command.subcommand(Command::new("help").about("show this help, or a command's"));
    command.render_help().to_string()
}

fn container_flags() -> Vec<Arg> {
    vec![
        path("bundle", "DIR", "bundle directory (default: the current one)").short('b'),
        path("console-socket", "PATH", "unix socket that gets the terminal's master end"),
        path("pidfd-socket", "PATH", "unix socket that gets a pidfd of the init process"),
        path("pid-file", "FILE", "file to write the pid of the init process to"),
        switch("no-pivot", "move the root mount instead of pivot_root, for a rootfs on a ramdisk"),
        switch("no-new-keyring", "keep the caller's session keyring"),
        number("preserve-fds", "pass N more file descriptors after 0, 1, 2 and $LISTEN_FDS"),
    ]
}

fn exec_flags() -> Vec<Arg> {
    vec![
        path("console-socket", "PATH", "unix socket that gets the terminal's master end"),
        path("pidfd-socket", "PATH", "unix socket that gets a pidfd of the process"),
        text("cwd", "DIR", "working directory in the container"),
        many(text("env", "KEY=VALUE", "add to the environment").short('e')),
        switch("tty", "attach a pseudo-terminal").short('t'),
        text("user", "UID[:GID]", "user and group of the process").short('u'),
        many(text("additional-gids", "GID", "add a supplementary group").short('g')),
        path("process", "FILE", "process.json to run instead of flags and arguments").short('p'),
        switch("detach", "return when the process has started").short('d'),
        path("pid-file", "FILE", "file to write the pid of the process to"),
        text("process-label", "LABEL", "SELinux label of the process"),
        text("apparmor", "PROFILE", "AppArmor profile of the process"),
        switch("no-new-privs", "set no_new_privs"),
        many(text("cap", "CAP", "add a capability").short('c')),
        number("preserve-fds", "pass N more file descriptors after 0, 1, 2 and $LISTEN_FDS"),
        many(text("cgroup", "[CONTROLLERS:]PATH", "run in a cgroup below the container's")),
        switch("ignore-paused", "also run in a paused container"),
    ]
}

fn switch(long: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).help(help).action(ArgAction::SetTrue)
}

fn text(long: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).value_name(value).help(help)
}

fn path(long: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(long, value, help).value_parser(value_parser!(OsString))
}

fn number(long: &'static str, help: &'static str) -> Arg {
    text(long, "N", help).value_parser(value_parser!(u32))
}

fn many(flag: Arg) -> Arg {
    flag.action(ArgAction::Append)
}
