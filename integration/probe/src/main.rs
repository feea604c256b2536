//! What a process inside a container sees, as one JSON object on stdout.
//!
//! The end-to-end tests put this program, linked statically, into the rootfs and run it as the
//! container's process. Each argument names one section of the report, with a value after `=` where
//! the section needs one: `probe status mounts access=/proc/kcore call=mount`. Sections that take a
//! value are objects keyed by that value, so that they may be asked for more than once.

mod access;
mod calls;
mod files;
mod process;

use std::io::Write;

use serde_json::{Map, Value, json};

fn main() -> std::io::Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Map::new();
    for argument in &asked {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        match section(name, value) {
            Section::Whole(seen) => drop(report.insert(name.to_owned(), seen)),
            Section::Part(seen) => {
                let entry = report.entry(name.to_owned()).or_insert_with(|| json!({}));
                entry[value] = seen;
            }
        }
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", Value::Object(report))
}

enum Section {
    Whole(Value),
    Part(Value),
}

fn section(name: &str, value: &str) -> Section {
    match name {
        "status" => Section::Whole(process::status()),
        "limits" => Section::Whole(process::limits()),
        "ids" => Section::Whole(process::ids()),
        "env" => Section::Whole(process::env()),
        "argv" => Section::Whole(json!(std::env::args().collect::<Vec<_>>())),
        "cwd" => Section::Whole(process::cwd()),
        "ns" => Section::Whole(process::namespaces()),
        "uname" => Section::Whole(process::uname()),
        "fds" => Section::Whole(process::fds()),
        "tty" => Section::Whole(process::tty()),
        "cgroup" => Section::Whole(files::lines("/proc/self/cgroup")),
        "mounts" => Section::Whole(files::mounts()),
        "oom" => Section::Whole(files::text("/proc/self/oom_score_adj")),
        "personality" => Section::Whole(files::text("/proc/self/personality")),
        "timens" => Section::Whole(files::lines("/proc/self/timens_offsets")),
        "uid_map" => Section::Whole(files::lines("/proc/self/uid_map")),
        "gid_map" => Section::Whole(files::lines("/proc/self/gid_map")),
        "keys" => Section::Whole(files::lines("/proc/keys")),
        "dev" => Section::Whole(files::tree("/dev")),
        "tree" => Section::Part(files::tree(value)),
        "text" => Section::Part(files::text(value)),
        "sysctl" => Section::Part(files::text(&format!("/proc/sys/{}", value.replace('.', "/")))),
        "access" => Section::Part(access::access(value)),
        "call" => Section::Part(calls::call(value)),
        _ => Section::Whole(json!({ "error": "no such section" })),
    }
}
