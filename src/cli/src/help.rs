//! Help in the shape that runc's users know: NAME, USAGE, COMMANDS, OPTIONS, made from the tables of
//! commands and flags.
//!
//! runc's comes from a library for Go (urfave/cli, its templates); scripts look for the headings and
//! for the first line below NAME. The words are creel's own.

use crate::commands::{ALL, Subcommand};
use crate::companion;
use crate::flags::{Flag, Kind};
use crate::globals::GLOBALS;
use crate::program::Program;
use crate::version;

/// Between the columns of a table.
const GAP: usize = 2;

/// What the help of the whole program says of itself.
const ABOUT: &str = "\
Runs containers from OCI bundles, as a supervisor such as containerd, CRI-O, podman or conmon asks
it to, or from the shell; and, with its companion, from OCI images. A bundle is a directory with a
config.json and the root file system that it names; `spec` writes a config.json to start from:

    # mkdir -p web/rootfs && cd web
    # tar -C rootfs -xf IMAGE.tar
    # creel spec
    # creel run web";

/// Help of the whole program.
pub fn overview(program: &Program) -> String {
    let mut text = format!("NAME:\n   {} - Open Container Initiative runtime\n\n{ABOUT}\n\n", program.name);
    text.push_str(&format!(
        "USAGE:\n   {} [global options] command [command options] [arguments...]\n\n",
        program.base()
    ));
    text.push_str(&format!("VERSION:\n   {}\n\nCOMMANDS:\n", version::CREEL));
    let own = ALL.iter().map(|subcommand| (subcommand.name(), subcommand.about()));
    let help = [("help, h", "show this help, or a command's")];
    let rows: Vec<_> = own.chain(help).map(|(name, about)| (name.to_owned(), about.to_owned())).collect();
    table(&mut text, "   ", &rows);
    text.push_str("\n   Images:\n");
    let images = companion::COMMANDS.map(|(name, about)| (name.to_owned(), about.to_owned()));
    table(&mut text, "     ", &images);
    options(&mut text, "GLOBAL OPTIONS", GLOBALS.iter());
    text
}

/// Help of one command.
pub fn of(subcommand: Subcommand, program: &Program) -> String {
    let (base, name) = (program.base(), subcommand.name());
    let shown: Vec<&Flag> = subcommand.own_flags().filter(|flag| !flag.help.is_empty()).collect();
    let flags = if shown.is_empty() { "" } else { " [command options]" };
    let operands = match subcommand.operands_usage() {
        "" => "[arguments...]",
        operands => operands,
    };
    let mut text = format!("NAME:\n   {base} {name} - {}\n\n", subcommand.about());
    text.push_str(&format!("USAGE:\n   {base} {name}{flags} {operands}\n"));
    if !subcommand.description().is_empty() {
        text.push_str(&format!("\nDESCRIPTION:\n   {}\n", subcommand.description()));
    }
    options(&mut text, "OPTIONS", shown.into_iter());
    text
}

/// Two columns, the first as wide as its widest cell and the gap.
fn table(text: &mut String, indent: &str, rows: &[(String, String)]) {
    let width = rows.iter().map(|(first, _)| first.chars().count()).max().unwrap_or(0) + GAP;
    for (first, second) in rows {
        text.push_str(&format!("{indent}{first:<width$}{second}\n"));
    }
}

fn options<'a>(text: &mut String, heading: &str, flags: impl Iterator<Item = &'a Flag>) {
    let rows: Vec<_> =
        flags.filter(|flag| !flag.help.is_empty()).map(|flag| (names(flag), usage(flag))).collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{heading}:\n"));
        table(text, "   ", &rows);
    }
}

/// `--bundle DIR, -b DIR`
fn names(flag: &Flag) -> String {
    let value = match flag.kind {
        Kind::Switch => String::new(),
        Kind::Value(name) => format!(" {name}"),
        Kind::Number => " N".to_owned(),
        Kind::Duration => " DURATION".to_owned(),
    };
    let long = format!("--{}{value}", flag.long);
    flag.short.map_or(long.clone(), |short| format!("{long}, -{short}{value}"))
}

fn usage(flag: &Flag) -> String {
    match flag.default {
        "" => flag.help.to_owned(),
        default => format!("{} (default: {default})", flag.help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(argv0: &str) -> Program {
        Program::of(Some(&std::ffi::OsString::from(argv0)))
    }

    #[test]
    fn the_program_is_named_as_it_was_called() {
        let text = overview(&program("/opt/runc"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["NAME:", "   runc - Open Container Initiative runtime"]);
        assert!(
            text.contains("\nUSAGE:\n   runc [global options] command [command options] [arguments...]\n")
        );
        assert!(overview(&program("x/creel-1")).contains("\n   creel-1 [global options]"));
    }

    #[test]
    fn every_command_is_listed_once() {
        let text = overview(&program("creel"));
        let names = ALL.iter().map(|s| s.name()).chain(companion::COMMANDS.iter().map(|(name, _)| *name));
        for name in names.chain(["help, h"]) {
            let rows = text.lines().filter(|line| line.trim_start().starts_with(&format!("{name}  ")));
            assert_eq!(rows.count(), 1, "{name}: {text}");
        }
        assert!(text.ends_with("   --version, -v          print the version\n"), "{text}");
    }

    #[test]
    fn a_command_shows_its_usage_and_its_visible_flags() {
        let text = of(Subcommand::List, &program("runc"));
        assert_eq!(text.lines().next(), Some("NAME:"));
        assert!(text.contains("\n   runc list [command options] [arguments...]\n"), "{text}");
        assert!(
            text.contains("\nOPTIONS:\n   --format FORMAT, -f FORMAT  table or json (default: table)\n"),
            "{text}"
        );
        let text = of(Subcommand::Update, &program("runc"));
        assert!(!text.contains("kernel-memory"), "{text}");
        let text = of(Subcommand::State, &program("runc"));
        assert!(text.contains("\n   runc state <container-id>\n") && !text.contains("OPTIONS"), "{text}");
    }

    #[test]
    fn no_line_ends_in_a_blank_and_every_command_says_what_it_does() {
        for subcommand in ALL {
            let text = of(*subcommand, &program("creel"));
            assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
            assert!(text.lines().nth(1).is_some_and(|line| line.contains(" - ")), "{text}");
        }
    }
}
