//! Which capabilities a container has: Docker's default ones, more, fewer.

use creel_plan::names::CAPABILITIES as ALL;

use super::Error;

/// Docker's.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Where the set starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Default,
    All,
}

/// A name with or without `CAP_`, in any case; none for `ALL`.
fn named(text: &str) -> Result<Option<&'static str>, Error> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(None);
    }
    let found = ALL.iter().find(|name| name.strip_prefix("CAP_") == Some(bare));
    found.map(|name| Some(*name)).ok_or_else(|| Error::NoCapability(text.to_string()))
}

/// The set after `--cap-add` and `--cap-drop`. `ALL` of one side comes first, so that the other may name
/// exceptions.
pub(super) fn capabilities(
    start: Start,
    add: &[String],
    drop: &[String],
) -> Result<Vec<&'static str>, Error> {
    let parse = |names: &[String]| names.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>();
    let (add, drop) = (parse(add)?, parse(drop)?);
    let all = start == Start::All || add.contains(&None);
    let mut set: Vec<&str> = if all { ALL.to_vec() } else { DEFAULT.to_vec() };
    if drop.contains(&None) {
        set.clear();
    }
    set.extend(add.into_iter().flatten());
    let dropped: Vec<&str> = drop.into_iter().flatten().collect();
    // In the order of their numbers, so that equal sets are equal texts.
    Ok(ALL.into_iter().filter(|name| set.contains(name) && !dropped.contains(name)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn sets_are_changed_by_name() {
        let set = |add: &[&str], drop: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
            capabilities(Start::Default, &own(add), &own(drop))
        };
        assert_eq!(set(&[], &[]).unwrap().len(), 14);
        assert_eq!(set(&["net_admin", "CAP_CHOWN"], &["all"]).unwrap(), ["CAP_CHOWN", "CAP_NET_ADMIN"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), 40);
        assert_eq!(set(&["NET_FLY"], &[]).unwrap_err().to_string(), "\"NET_FLY\" is not a capability");
    }
}
