//! The same configs on the runtime under test and on runc: exit code, output, the probe's report and
//! the state must be equal, or the difference is listed in `allowed.rs` with its reason.
//!
//! The cases are data, in `cases/*.json`; each names what it changes in the harness's base config.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod allowed;
mod case;
mod normal;

use std::collections::BTreeSet;
use std::io::Write;

use creel_integration::{Runtime, skip};
use serde_json::Value;

use case::Case;

/// Runs every case of one table on both runtimes.
fn compare(table: &str, text: &str) {
    let Some(reference) = Runtime::runc() else { skip!("no runc to compare with") };
    let subject = Runtime::under_test();
    let cases: Vec<Case> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{table}: {error}"));
    let (mut equal, mut allowed, mut old, mut failures) = (0, 0, 0, Vec::new());
    for case in &cases {
        if !reference.has_runc(case.min_runc) || !subject.has_runc(case.min_runc) {
            old += 1;
            continue;
        }
        let (ours, theirs) = (case.observe(subject), case.observe(&reference));
        let differences = differences(&ours, &theirs);
        let (known, new): (Vec<_>, Vec<_>) = differences
            .into_iter()
            .partition(|difference| allowed::reason(&case.name, &difference.at, &reference).is_some());
        equal += usize::from(known.is_empty() && new.is_empty());
        allowed += known.len();
        failures.extend(new.iter().map(|difference| format!("{}: {difference}", case.name)));
    }
    let summary = format!(
        "differential: {table}: {} cases, {equal} equal, {allowed} differences allowed, {old} need a newer runc\n",
        cases.len()
    );
    // libtest hides what the print macros of passing tests write.
    std::io::stderr().write_all(summary.as_bytes()).unwrap();
    assert!(failures.is_empty(), "differences from runc that are not allowed:\n{}", failures.join("\n"));
}

/// One place where two observations differ.
struct Difference {
    /// Keys from the top, joined by `.`.
    at: String,
    ours: Value,
    theirs: Value,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} instead of {}", self.at, self.ours, self.theirs)
    }
}

fn differences(ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), ours, theirs, &mut found);
    found
}

fn walk(at: String, ours: &Value, theirs: &Value, found: &mut Vec<Difference>) {
    if let (Some(left), Some(right)) = (ours.as_object(), theirs.as_object()) {
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        for key in keys {
            let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            walk(below, left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null), found);
        }
    } else if ours != theirs {
        found.push(Difference { at, ours: ours.clone(), theirs: theirs.clone() });
    }
}

macro_rules! tables {
    ($($name:ident),+) => {$(
        #[test]
        fn $name() {
            compare(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".json")));
        }
    )+};
}

tables!(cgroups, commands, devices_and_paths, errors, mounts, namespaces, process, seccomp);

/// Every name is used once, and so says what failed.
#[test]
fn names_are_unique_and_there_are_enough() {
    let tables = [
        include_str!("cases/cgroups.json"),
        include_str!("cases/commands.json"),
        include_str!("cases/devices_and_paths.json"),
        include_str!("cases/errors.json"),
        include_str!("cases/mounts.json"),
        include_str!("cases/namespaces.json"),
        include_str!("cases/process.json"),
        include_str!("cases/seccomp.json"),
    ];
    let cases: Vec<Case> =
        tables.iter().flat_map(|text| serde_json::from_str::<Vec<Case>>(text).unwrap()).collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(names.len() >= 60, "{}", names.len());
    for row in allowed::TABLE.iter().filter(|row| row.case != "*") {
        assert!(names.contains(row.case), "allowed.rs names {}, which is no case", row.case);
        assert!(!row.reason.is_empty());
    }
}
