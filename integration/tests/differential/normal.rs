//! What of a report may differ between two runs of the same runtime, taken out.

use std::collections::BTreeMap;

use creel_integration::{Container, scratch};
use serde_json::{Map, Value, json};

/// Fields of `/proc/self/status` that the runtime decides.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
    "Mems_allowed_list",
];

/// The container's own names, replaced by words.
pub fn text(text: &str, container: &Container) -> String {
    let scratch = container.scratch().path();
    // mountinfo shows the path within the file system that holds it, which may begin in the middle.
    let name = scratch.file_name().unwrap().to_str().unwrap();
    text.replace(scratch.to_str().unwrap(), "SCRATCH")
        .replace(&format!("/{name}"), "SCRATCH")
        .replace(container.id(), "ID")
}

/// The probe's report, section by section.
pub fn report(report: &Value, container: &Container) -> Value {
    let Some(sections) = report.as_object() else { return report.clone() };
    let sections = sections.iter().map(|(name, seen)| {
        let seen = strings(seen, &|word| text(word, container));
        let seen = match name.as_str() {
            "mounts" => mounts(&seen),
            "ns" => namespaces(&seen),
            "fds" => strings(&seen, &descriptor),
            "status" => seen.as_object().map_or(Value::Null, |fields| pick(fields, STATUS)),
            "keys" => keys(&seen),
            "tree" => tree(&seen, container),
            "ids" => ids(&seen),
            _ => seen,
        };
        (name.clone(), seen)
    });
    Value::Object(sections.collect())
}

/// The state document: values that are the same for each runtime, `true` for the others that are there.
pub fn state(state: &Value, container: &Container) -> Value {
    let fields = state.as_object().unwrap().iter().map(|(key, value)| {
        let value = match key.as_str() {
            "pid" => json!(if value == 0 { "none" } else { "some" }),
            "created" => json!(value.as_str().is_some_and(|time| time.contains('T'))),
            // runc writes the version of the specification that it was built for.
            "ociVersion" => json!(value.is_string()),
            _ => strings(value, &|word| text(word, container)),
        };
        (key.clone(), value)
    });
    Value::Object(fields.collect())
}

fn pick(fields: &Map<String, Value>, names: &[&str]) -> Value {
    let fields = fields.iter().filter(|(name, _)| names.contains(&name.as_str()));
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn strings(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(word) => json!(change(word)),
        Value::Array(items) => items.iter().map(|item| strings(item, change)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), strings(value, change))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Mounts by target, from the lowest to the topmost. That is the order that counts: mountinfo's own
/// follows the order of mounting, which is free between targets that do not hide one another.
fn mounts(seen: &Value) -> Value {
    let mut by_target: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for mount in seen.as_array().into_iter().flatten() {
        let optional: Vec<&str> =
            mount["optional"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // Peer groups have new numbers each time.
        let optional: Vec<&str> =
            optional.iter().map(|word| word.split(':').next().unwrap_or(word)).collect();
        let shown = json!({
            "root": mount["root"], "options": mount["options"], "optional": optional,
            "type": mount["type"], "source": mount["source"], "super": mount["super"],
        });
        let stack = by_target.entry(mount["target"].as_str().unwrap_or_default().to_owned()).or_default();
        stack.insert(stack.len().to_string(), shown);
    }
    json!(by_target)
}

/// Which namespaces are the caller's.
fn namespaces(seen: &Value) -> Value {
    let seen = seen.as_object().into_iter().flatten().map(|(name, link)| {
        let own = std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap_or_default();
        (name.clone(), json!(if link.as_str() == own.to_str() { "the caller's" } else { "another" }))
    });
    Value::Object(seen.collect())
}

/// `pipe:[123]` and the files that the harness takes output with.
fn descriptor(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None if target.ends_with("(deleted)") => "temporary file".to_owned(),
        None => target.to_owned(),
    }
}

/// Whether the process sees the session keyring that is named after the container. Others may come and
/// go with other users of the machine.
fn keys(seen: &Value) -> Value {
    json!(seen.to_string().contains("_ses.ID"))
}

/// The names of files are keys. cgroups of other tests come and go.
fn tree(seen: &Value, container: &Container) -> Value {
    let own = |part| if part == container.id() { "ID" } else { part };
    let tops = seen.as_object().into_iter().flatten().map(|(top, files)| {
        let files = files.as_object().into_iter().flatten().map(|(name, file)| {
            let name = name.split('/').map(own).collect::<Vec<_>>().join("/");
            (name, file.clone())
        });
        (top.clone(), files.filter(|(name, _)| !name.contains(scratch::PREFIX)).collect())
    });
    Value::Object(tops.collect())
}

/// Process numbers above 1 depend on what ran before.
fn ids(seen: &Value) -> Value {
    let mut shown = seen.clone();
    shown["leads session"] = json!(seen["pid"] == seen["session"]);
    shown["leads group"] = json!(seen["pid"] == seen["pgrp"]);
    for name in ["pid", "ppid", "pgrp", "session"] {
        if seen[name].as_i64() > Some(1) {
            shown[name] = json!("another");
        }
    }
    shown
}
