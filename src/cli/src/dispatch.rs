//! Runs the subcommand that the command line names and gives its exit code.

use std::ffi::OsString;
use std::path::Path;

use creel_container::{Error, Runtime, Target};
use regex_lite::Regex;

use crate::commands::Subcommand;
use crate::flags::Words;
use crate::globals::Globals;
use crate::program::{Failure, Program, reason};
use crate::{
    checkpoint, companion, events, features, help, mounts, output, ps, request, restore, signal, spec,
    update, version,
};

/// Exit code of an `exec` that failed before its process ran: any lower one could be the
/// process's own.
const EXEC_FAILED: u8 = 255;

/// Exit code for a command that does not exist, as runc's.
const NO_SUCH_COMMAND: u8 = 3;

/// Runs `command_line`, whose first word is the subcommand; `words` are those before it, which `globals` says.
pub fn run(
    program: &Program,
    globals: &Globals,
    words: &[OsString],
    command_line: &[OsString],
) -> Result<u8, Failure> {
    if globals.help {
        return print(&help::overview(program));
    }
    if globals.version {
        return print(&version::text(program.name));
    }
    // runc refuses a wrong --root before it looks at the command.
    let runtime = globals.runtime()?;
    let Some((name, args)) = command_line.split_first() else {
        return print(&help::overview(program));
    };
    if name == "help" || name == "h" {
        return match args.first() {
            Some(name) if companion::has(name) => {
                Err(Failure::new(companion::exec(words, &runtime.root, &[name.clone(), "--help".into()])))
            }
            _ => help_about(program, args),
        };
    }
    if companion::has(name) {
        return Err(Failure::new(companion::exec(words, &runtime.root, command_line)));
    }
    let subcommand = Subcommand::named(name).ok_or_else(|| no_help_topic(name))?;
    let Some(words) = subcommand.parse(program, args)? else {
        return print(&subcommand.help(program));
    };
    // The others say so when they have made sure of their binary, for which creel may execute itself anew.
    if !matches!(subcommand, Subcommand::Create | Subcommand::Run | Subcommand::Exec) {
        tracing::debug!("{}: {runtime:?}", subcommand.name());
    }
    match subcommand {
        Subcommand::Checkpoint => on_container("checkpoint", &words, |id| {
            let request = checkpoint::request(id, &words)?;
            creel_container::checkpoint(&runtime, &request).map_err(one_line)?;
            Ok(0)
        }),
        Subcommand::Create => on_container("create", &words, |id| create(globals, &runtime, id, &words)),
        Subcommand::Delete => on_containers("delete", &runtime, &words, |id| {
            creel_container::delete(&runtime, id, words.has("force")).map_err(one_line)
        }),
        Subcommand::Events => on_container("events", &words, |id| {
            events::print(&runtime, id, &words)?;
            Ok(0)
        }),
        Subcommand::Exec => exec(&runtime, &words),
        Subcommand::Features => print(&features::document()),
        Subcommand::Kill => on_containers("kill", &runtime, &words, |id| kill(&runtime, id, &words)),
        Subcommand::List => list(globals, &runtime, &words),
        Subcommand::Mounts => mounts::run(&runtime, &words),
        Subcommand::Pause => on_container("pause", &words, |id| {
            creel_container::pause(&runtime, id).map_err(one_line)?;
            Ok(0)
        }),
        Subcommand::Ps => on_container("ps", &words, |id| {
            output::write(&ps::text(&runtime, id, &words)?)?;
            Ok(0)
        }),
        Subcommand::Restore => on_container("restore", &words, |id| {
            globals.keep_root(&runtime.root)?;
            let request = restore::request(id, &words)?;
            creel_container::restore(&runtime, &request).map_err(one_line)
        }),
        Subcommand::Resume => on_container("resume", &words, |id| {
            creel_container::resume(&runtime, id).map_err(one_line)?;
            Ok(0)
        }),
        Subcommand::Run => on_container("run", &words, |id| run_container(globals, &runtime, id, &words)),
        Subcommand::Spec => {
            spec::write(words.value("bundle"), words.value("file"), words.has("rootless"))?;
            Ok(0)
        }
        Subcommand::Start => on_container("start", &words, |id| {
            let notify = request::notify_socket();
            creel_container::start(&runtime, id, notify.as_deref()).map_err(one_line)?;
            Ok(0)
        }),
        Subcommand::State => on_container("state", &words, |id| {
            let view = creel_container::state(&runtime, id).map_err(one_line)?;
            output::write(&output::state(&view))?;
            Ok(0)
        }),
        Subcommand::Update => on_container("update", &words, |id| {
            let (resources, schemata) = (update::resources(&words)?, update::schemata(&words)?);
            creel_container::update(&runtime, id, &resources, &schemata).map_err(one_line)?;
            Ok(0)
        }),
    }
}

/// Runs a command on the container that its first operand names, and puts both names before its
/// error.
fn on_container(
    name: &str,
    words: &Words<'_>,
    command: impl FnOnce(&str) -> Result<u8, String>,
) -> Result<u8, Failure> {
    let id = request::id(&words.operands).map_err(|why| Failure::new(format!("{name}: {why}")))?;
    command(&id).map_err(|why| Failure::new(format!("{name} {id}: {why}")))
}

/// The same, or with `--regex` on every container whose id the first operand matches. One that fails
/// does not keep the others; each is named.
fn on_containers(
    name: &str,
    runtime: &Runtime,
    words: &Words<'_>,
    command: impl Fn(&str) -> Result<(), String>,
) -> Result<u8, Failure> {
    if !words.has("regex") {
        return on_container(name, words, |id| command(id).map(|()| 0));
    }
    let failed = |why: String| Failure::new(format!("{name}: {why}"));
    let pattern = request::id(&words.operands).map_err(failed)?;
    let pattern = Regex::new(&pattern)
        .map_err(|error| failed(format!("invalid regular expression {pattern:?}: {error}")))?;
    let ids = creel_container::ids(runtime).map_err(|error| failed(error.to_string()))?;
    let outcomes = ids.iter().filter(|id| pattern.is_match(id)).map(|id| (id, command(id)));
    let errors: Vec<String> =
        outcomes.filter_map(|(id, outcome)| outcome.err().map(|why| format!("{id}: {why}"))).collect();
    if errors.is_empty() { Ok(0) } else { Err(failed(errors.join("; "))) }
}

fn one_line(error: Error) -> String {
    error.to_string()
}

fn create(globals: &Globals, runtime: &Runtime, id: &str, words: &Words<'_>) -> Result<u8, String> {
    globals.keep_root(&runtime.root)?;
    let request = request::create(id, words)?;
    creel_container::create(runtime, &request).map_err(one_line)?;
    Ok(0)
}

fn run_container(globals: &Globals, runtime: &Runtime, id: &str, words: &Words<'_>) -> Result<u8, String> {
    globals.keep_root(&runtime.root)?;
    let request = request::create(id, words)?;
    if words.has("dry-run") {
        output::write(&creel_container::dry_run(runtime, &request).map_err(one_line)?)
            .map_err(|failure| failure.to_string())?;
        return Ok(0);
    }
    creel_container::run(runtime, &request, request::run_mode(words)).map_err(one_line)
}

fn kill(runtime: &Runtime, id: &str, words: &Words<'_>) -> Result<(), String> {
    let given = words.operands.get(1).filter(|signal| !signal.is_empty());
    let signal = given.map_or("SIGTERM".into(), |signal| signal.to_string_lossy());
    let signal = signal::parse(&signal)?;
    let target = if words.has("all") { Target::All } else { Target::Init };
    creel_container::kill(runtime, id, signal, target).map_err(one_line)
}

fn exec(runtime: &Runtime, words: &Words<'_>) -> Result<u8, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("exec failed: {why}")).code(EXEC_FAILED);
    let request = request::id(&words.operands).and_then(|id| request::exec(id, words));
    let request = request.map_err(|why| failed(&why))?;
    creel_container::exec(runtime, &request).map_err(|error| failed(&error))
}

fn list(globals: &Globals, runtime: &Runtime, words: &Words<'_>) -> Result<u8, Failure> {
    // A default root that nobody has made yet holds no containers; one that was asked for is a
    // mistake.
    if globals.root.is_some() {
        let root: &Path = &runtime.root;
        root.metadata()
            .map_err(|error| Failure::new(format!("list: open {}: {}", root.display(), reason(&error))))?;
    }
    let failed = |why: String| Failure::new(format!("list: {why}"));
    let views = creel_container::list(runtime).map_err(|error| failed(error.to_string()))?;
    let format = words.value("format").unwrap_or("table".as_ref());
    let text = if words.has("quiet") {
        output::ids(&views)
    } else {
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        match format.to_str() {
            Some("table") => output::table(&views, &passwd),
            Some("json") => output::array(&views, &passwd),
            _ => return Err(failed("invalid format option".to_owned())),
        }
    };
    print(&text)
}

fn help_about(program: &Program, args: &[OsString]) -> Result<u8, Failure> {
    match args.first() {
        None => print(&help::overview(program)),
        Some(name) => {
            let subcommand = Subcommand::named(name).ok_or_else(|| no_help_topic(name))?;
            print(&subcommand.help(program))
        }
    }
}

fn no_help_topic(name: &OsString) -> Failure {
    Failure::new(format!("No help topic for '{}'", name.to_string_lossy())).code(NO_SUCH_COMMAND)
}

fn print(text: &str) -> Result<u8, Failure> {
    output::write(text)?;
    Ok(0)
}
