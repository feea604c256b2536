//! What `state`, `list` and `ps` print, and standard output itself.

use std::collections::BTreeMap;
use std::io::Write;

use creel_container::StateView;
use serde::Serialize;

use crate::program::reason;

/// State of a container in the shape that engines decode. containerd and BuildKit need `rootfs`
/// and `bundle`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateDocument<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: String,
    rootfs: String,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl<'a> StateDocument<'a> {
    fn new(view: &'a StateView, owner: String) -> Self {
        StateDocument {
            oci_version: &view.oci_version,
            id: &view.id,
            pid: view.pid,
            status: view.status.as_str(),
            bundle: view.bundle.to_string_lossy().into_owned(),
            rootfs: view.rootfs.to_string_lossy().into_owned(),
            created: &view.created,
            annotations: &view.annotations,
            owner,
        }
    }
}

/// `state`: two spaces of indent, no newline at the end, owner left empty, all as runc.
pub fn state(view: &StateView) -> String {
    json(&StateDocument::new(view, String::new()), Some("  "))
}

/// `list --format json`: one line; Go prints a list of nothing as `null`.
pub fn array(views: &[StateView], passwd: &[u8]) -> String {
    let documents: Vec<_> =
        views.iter().map(|view| StateDocument::new(view, owner(view.owner_uid, passwd))).collect();
    let text = if documents.is_empty() { "null".to_owned() } else { json(&documents, None) };
    text + "\n"
}

/// `ps --format json`: one line; nothing is `null` here too.
pub fn pids(pids: &[i32]) -> String {
    let text = if pids.is_empty() { "null".to_owned() } else { json(&pids, None) };
    text + "\n"
}

/// `list --quiet`
pub fn ids(views: &[StateView]) -> String {
    views.iter().map(|view| format!("{}\n", view.id)).collect()
}

/// `list`: columns at least 12 wide with 3 spaces between, the last one as wide as its text.
pub fn table(views: &[StateView], passwd: &[u8]) -> String {
    const HEADER: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(views.iter().map(|view| {
        [
            view.id.clone(),
            view.pid.to_string(),
            view.status.as_str().to_owned(),
            view.bundle.to_string_lossy().into_owned(),
            view.created.clone(),
            owner(view.owner_uid, passwd),
        ]
    }));
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or_default().max(12)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// Name of a user by passwd(5), or `#uid`. Only the file is read: a static program cannot load the
/// other sources of nsswitch.conf(5).
fn owner(uid: u32, passwd: &[u8]) -> String {
    let uid = uid.to_string();
    passwd
        .split(|byte| *byte == b'\n')
        .map(|line| line.split(|byte| *byte == b':'))
        .find_map(|mut fields| {
            let name = fields.next().filter(|name| !name.is_empty())?;
            (fields.nth(1)? == uid.as_bytes()).then(|| String::from_utf8_lossy(name).into_owned())
        })
        .unwrap_or_else(|| format!("#{uid}"))
}

/// JSON with Go's indent, or on one line.
pub fn json(document: &impl Serialize, indent: Option<&str>) -> String {
    let mut text = Vec::new();
    let done = match indent {
        Some(indent) => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            document.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        }
        None => serde_json::to_writer(&mut text, document),
    };
    // Structs of strings and numbers always serialize, and into memory.
    debug_assert!(done.is_ok());
    String::from_utf8(text).unwrap_or_default()
}

/// Writes to standard output; a closed pipe is an error, not a panic.
pub fn write(text: &str) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("write to standard output: {}", reason(&error)))
}

/// Writes help that goes with an error: the error is what counts.
pub fn best_effort(text: &str) {
    drop(write(text));
}

#[cfg(test)]
mod tests;
