//! `ps`: the host's own ps(1), of which the lines of a container's processes are kept.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use creel_container::Runtime;

use crate::flags::Words;
use crate::output;
use crate::program::reason;

/// What ps(1) shows by default.
const EVERYTHING: &str = "-ef";

/// `ps`: the text to print.
pub fn text(runtime: &Runtime, id: &str, words: &Words<'_>) -> Result<String, String> {
    let pids = creel_container::pids(runtime, id).map_err(|error| error.to_string())?;
    match words.value("format").and_then(OsStr::to_str).unwrap_or("table") {
        "table" => rows(&listing(words.operands.get(1..).unwrap_or_default())?, &pids),
        "json" => Ok(output::pids(&pids)),
        _ => Err("invalid format option".to_owned()),
    }
}

/// What ps(1) prints for `args`.
fn listing(args: &[&OsStr]) -> Result<String, String> {
    let mut ps = Command::new("ps");
    if args.is_empty() {
        ps.arg(EVERYTHING);
    }
    let done = ps.args(args).stdin(Stdio::null()).output().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return r#"exec: "ps": executable file not found in $PATH"#.to_owned();
        }
        format!("exec: \"ps\": {}", reason(&error))
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said: Vec<&str> = said.split_whitespace().collect();
        return Err(format!("ps: {}: {}", done.status, said.join(" ")));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The heading and the lines whose PID column holds one of `pids`.
fn rows(listing: &str, pids: &[i32]) -> Result<String, String> {
    let mut lines = listing.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or("couldn't find PID field in ps output")?;
    let mut text = format!("{heading}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = field.parse().map_err(|_| format!("unable to parse pid: {line:?}"))?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const LISTING: &str = "\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 09:00 ?        00:00:00 init
root         110       1  0 09:00 ?        00:00:00 sleep 11

root          11       1  0 09:00 ?        00:00:00 sleep 110
";

    #[test]
    fn only_lines_with_a_pid_of_the_container_are_kept() {
        assert_eq!(
            rows(LISTING, &[11, 12]).unwrap(),
            "UID          PID    PPID  C STIME TTY          TIME CMD\n\
             root          11       1  0 09:00 ?        00:00:00 sleep 110\n"
        );
        assert_eq!(rows(LISTING, &[]).unwrap().lines().count(), 1);
    }

    #[test]
    fn the_column_is_found_by_its_whole_name() {
        assert_eq!(rows("PPID COMMAND PID\n 5 x 7\n 7 x 5\n", &[7]).unwrap(), "PPID COMMAND PID\n 5 x 7\n");
    }

    #[test]
    fn a_listing_without_pids_is_an_error() {
        for listing in ["", "COMMAND PPID\nsh 1\n"] {
            assert_eq!(rows(listing, &[1]).unwrap_err(), "couldn't find PID field in ps output");
        }
        assert!(rows("COMMAND PID\nsh -c\n", &[1]).unwrap_err().starts_with("unable to parse pid"));
        assert!(rows("COMMAND PID\nsh\n", &[1]).unwrap_err().starts_with("unable to parse pid"));
    }
}
