//! docs/runc-compat.md, "Commands and flags", against the tables that the command line is read by.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use crate::commands::{ALL, Subcommand};
use crate::flags::Flag;
use crate::globals::GLOBALS;

const DOCUMENT: &str = include_str!("../../../docs/runc-compat.md");

/// `(command, flag, creel's state)` of every row; the flag as the document writes it.
fn rows() -> Vec<(String, String, String)> {
    let section = DOCUMENT.split("## Commands and flags").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(cells).map(|row| (row[0].clone(), row[1].clone(), row[4].clone())).collect()
}

/// A flag as the document writes it: `--bundle, -b`.
fn written(flag: &Flag) -> String {
    let dashes = if flag.long.chars().count() == 1 { "-" } else { "--" };
    let long = format!("{dashes}{}", flag.long);
    flag.short.map_or(long.clone(), |short| format!("{long}, -{short}"))
}

/// What creel's own tables have.
fn own() -> BTreeSet<(String, String)> {
    let globals = GLOBALS.iter().map(|flag| ("(global)".to_owned(), written(flag)));
    let of = |subcommand: &Subcommand| {
        let name = subcommand.name().to_owned();
        let flags: Vec<_> = subcommand.own_flags().map(|flag| (name.clone(), written(flag))).collect();
        std::iter::once((name, String::new())).chain(flags)
    };
    globals.chain(ALL.iter().flat_map(of)).collect()
}

#[test]
fn every_row_is_there_once_and_has_a_state() {
    let rows = rows();
    assert!(rows.len() > 100, "{}", rows.len());
    let names: BTreeSet<_> = rows.iter().map(|(command, flag, _)| (command, flag)).collect();
    assert_eq!(names.len(), rows.len());
    for (command, flag, state) in &rows {
        assert!(matches!(state.as_str(), "yes" | "no"), "{command} {flag}: {state:?}");
    }
}

#[test]
fn rows_that_say_yes_are_creels_commands_and_flags() {
    let said: BTreeSet<(String, String)> = rows()
        .into_iter()
        .filter(|(_, _, state)| state == "yes")
        .map(|(command, flag, _)| (command, flag))
        .collect();
    let own = own();
    let missing: Vec<_> = own.difference(&said).collect();
    let promised: Vec<_> = said.difference(&own).collect();
    assert!(
        missing.is_empty() && promised.is_empty(),
        "not in the document: {missing:?}; not in creel: {promised:?}"
    );
}
