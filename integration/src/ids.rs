//! The ids that an ordinary user may have in a container: the own one as root, the subordinate ones above.

use std::path::Path;

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

/// Whether root runs the tests.
pub fn are_roots() -> bool {
    geteuid().is_root()
}

/// First and number of the subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subordinate {
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Subordinate {
    /// `.linux.uidMappings`
    pub fn uid_map(self) -> Value {
        map(geteuid().as_raw(), self.uids)
    }

    /// `.linux.gidMappings`
    pub fn gid_map(self) -> Value {
        map(getegid().as_raw(), self.gids)
    }
}

fn map(own: u32, (first, size): (u32, u32)) -> Value {
    json!([
        { "containerID": 0, "hostID": own, "size": 1 },
        { "containerID": 1, "hostID": first, "size": size },
    ])
}

/// Those of the user who runs the tests; none for root, who needs none.
///
/// # Panics
/// When a user has none (subuid(5)).
pub fn subordinate() -> Option<Subordinate> {
    if are_roots() {
        return None;
    }
    let user = name(geteuid().as_raw()).expect("the user is not in /etc/passwd");
    let range = |file: &str| range(&std::fs::read_to_string(file).unwrap(), &user).expect(file);
    Some(Subordinate { uids: range("/etc/subuid"), gids: range("/etc/subgid") })
}

/// An ordinary user who has a systemd running.
pub fn with_systemd() -> Option<u32> {
    let users = std::fs::read_dir("/run/user").ok()?.flatten();
    let mut uids = users.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    uids.find(|uid| *uid >= 1000 && Path::new(&format!("/run/user/{uid}/bus")).exists())
}

/// The user's name (passwd(5)).
pub fn name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|row| row.get(2).and_then(|field| field.parse().ok()) == Some(uid))?;
    row.first().map(|name| (*name).to_owned())
}

/// `user:first:count`
fn range(text: &str, user: &str) -> Option<(u32, u32)> {
    let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&user))?;
    Some((row.get(1)?.parse().ok()?, row.get(2)?.parse().ok()?))
}
