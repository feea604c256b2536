//! Golden plans: config, request and host facts against the printed plan, one file a case.
//!
//! `UPDATE_GOLDEN=1 cargo test -p creel-plan --test golden` writes the files anew; the difference is
//! then for a person to read.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "the test reads its golden files; the plan does not")]

mod common;

use std::path::{Path, PathBuf};

use common::{Case, cases};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The plan as `creel run --dry-run` prints it, under the facts that it follows from.
fn printed(case: &Case) -> String {
    let spec = creel_plan::parse::parse(&case.config.to_string()).unwrap();
    let planned = creel_plan::plan(&spec, &case.request, &case.facts)
        .unwrap_or_else(|invalid| panic!("{}: {invalid}", case.name));
    let mut text = format!("{:?}\n", case.facts);
    for warning in &planned.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("\n{}", planned.plan));
    text
}

#[test]
fn plans_are_as_committed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let path = directory().join(format!("{}.txt", case.name));
        let now = printed(&case);
        if update {
            std::fs::write(&path, &now).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        if now != golden {
            wrong.push(format!("{}:\n{}", case.name, difference(&golden, &now)));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts these", wrong.join("\n"));
}

/// Lines that only one of the texts has.
fn difference(golden: &str, now: &str) -> String {
    let only = |from: &str, other: &str, sign: char| -> String {
        from.lines()
            .filter(|line| !other.lines().any(|o| o == *line))
            .map(|l| format!("{sign} {l}\n"))
            .collect()
    };
    match only(golden, now, '-') + &only(now, golden, '+') {
        same if same.is_empty() => "the same lines in another order\n".into(),
        lines => lines,
    }
}

#[test]
fn every_golden_file_has_its_case() {
    let names: Vec<String> = cases().iter().map(|case| format!("{}.txt", case.name)).collect();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{name}");
    }
}
