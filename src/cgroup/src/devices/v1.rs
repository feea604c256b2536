//! Device rules on v1: a default, and exceptions from it (the kernel's
//! admin-guide/cgroup-v1/devices, security/device_cgroup.c).

use rustix::io::Errno;

use super::{Access, Kind, Rule, number};
use crate::dir;
use crate::error::{Error, Invalid};
use crate::record::CgroupDir;

/// One line for devices.allow or devices.deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Write {
    /// devices.allow, else devices.deny.
    pub allow: bool,
    /// `c 1:3 rwm`, or `a` for all.
    pub line: String,
}

type Device = (Kind, Option<u32>, Option<u32>);

/// The fewest writes that make a cgroup, whatever it inherited, follow the rules: first the
/// default, which clears the exceptions, then one line per exception in the order of the rules, which
/// is the order that devices.list shows.
///
/// A rule that would cut a piece out of a wider exception is an error: the kernel ignores such a
/// write in silence, and the piece would stay open. Narrower exceptions, which the kernel would
/// keep as silently, are taken back.
pub fn v1_writes(rules: &[Rule]) -> Result<Vec<V1Write>, Invalid> {
    let mut default_allow = false;
    let mut exceptions: Vec<(Device, Access)> = Vec::new();
    for rule in rules {
        if rule.kind == Kind::All {
            default_allow = rule.allow;
            exceptions.clear();
        } else if rule.allow != default_allow {
            let device = (rule.kind, rule.major, rule.minor);
            match exceptions.iter_mut().find(|(known, _)| *known == device) {
                Some((_, access)) => *access = access.union(rule.access),
                None => exceptions.push((device, rule.access)),
            }
        } else {
            for (device, access) in &mut exceptions {
                take_back(rule, *device, access)?;
            }
        }
    }
    let mut writes = vec![V1Write { allow: default_allow, line: "a".to_owned() }];
    for ((kind, major, minor), access) in exceptions {
        if !access.is_empty() {
            let letter = if kind == Kind::Block { 'b' } else { 'c' };
            let line = format!("{letter} {}:{} {}", number(major), number(minor), access.letters());
            writes.push(V1Write { allow: !default_allow, line });
        }
    }
    Ok(writes)
}

/// Takes the rule's bits off an exception for the same devices.
fn take_back(rule: &Rule, (kind, major, minor): Device, access: &mut Access) -> Result<(), Invalid> {
    let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
    if kind != rule.kind
        || !access.overlaps(rule.access)
        || !meets(rule.major, major)
        || !meets(rule.minor, minor)
    {
        return Ok(());
    }
    if covers(rule.major, major) && covers(rule.minor, minor) {
        *access = access.minus(rule.access);
        return Ok(());
    }
    let at = match rule.index {
        Some(index) => format!(".linux.resources.devices[{index}]"),
        None => ".linux.resources.devices".to_owned(),
    };
    let why = format!(
        "cgroup v1 cannot punch a hole for {}:{} in the wildcard rule for {}:{}",
        number(rule.major),
        number(rule.minor),
        number(major),
        number(minor)
    );
    Err(Invalid::new(at, why))
}

/// Writes the lines, each file opened once.
pub(crate) fn write(dir: &CgroupDir, rules: &[Rule]) -> Result<(), Error> {
    for lines in v1_writes(rules)?.chunk_by(|a, b| a.allow == b.allow) {
        let file = if lines.first().is_some_and(|w| w.allow) { "devices.allow" } else { "devices.deny" };
        let fd = dir::open_write(dir.fd()?, file).map_err(|errno| dir.error("open", file, errno))?;
        for V1Write { line, .. } in lines {
            dir::write_all(&fd, line).map_err(|errno| Error::Write {
                at: ".linux.resources.devices".to_owned(),
                path: dir.file(file),
                value: line.clone(),
                errno,
                hint: match errno {
                    Errno::PERM => "the parent cgroup does not allow it".to_owned(),
                    Errno::INVAL if line == "a" => "the cgroup has children".to_owned(),
                    _ => String::new(),
                },
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use crate::devices::{DEFAULT_RULES, plan_rules};

    fn writes(json: &str) -> Result<Vec<String>, Invalid> {
        let rules = plan_rules(&serde_json::from_str(json).unwrap()).unwrap();
        let line = |w: V1Write| format!("{}{}", if w.allow { '+' } else { '-' }, w.line);
        Ok(v1_writes(&rules)?.into_iter().map(line).collect())
    }

    const DEFAULTS: [&str; 12] = [
        "-a",
        "+c *:* m",
        "+b *:* m",
        "+c 1:3 rwm",
        "+c 1:8 rwm",
        "+c 1:7 rwm",
        "+c 5:0 rwm",
        "+c 1:5 rwm",
        "+c 1:9 rwm",
        "+c 136:* rwm",
        "+c 5:2 rwm",
        "+c 10:200 rwm",
    ];

    #[test]
    fn no_rules_deny_all_but_the_defaults() {
        assert_eq!(writes("{}").unwrap(), DEFAULTS);
        assert_eq!(writes(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap(), DEFAULTS);
    }

    #[test]
    fn allow_all_is_one_write() {
        assert_eq!(writes(r#"{"devices":[{"allow":true,"type":"a","access":"rwm"}]}"#).unwrap(), ["+a"]);
    }

    #[test]
    fn equal_devices_share_a_write() {
        let got = writes(
            r#"{"devices":[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
                {"allow":true,"type":"b","major":8,"minor":0,"access":"wm"},
                {"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]}"#,
        );
        assert!(got.unwrap().contains(&"+b 8:0 rm".to_owned()));
    }

    #[test]
    fn a_deny_list_keeps_exceptions_that_no_later_rule_allows() {
        let got = writes(
            r#"{"devices":[{"allow":true,"access":"rwm"},
                {"allow":false,"type":"b","major":8,"minor":0,"access":"rw"},
                {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]}"#,
        );
        assert_eq!(got.unwrap(), ["+a", "-b 8:0 rw"]);
    }

    #[test]
    fn holes_in_wildcards_are_refused() {
        let error = writes(
            r#"{"devices":[{"allow":true,"type":"c","major":4,"access":"rw"},
                {"allow":false,"type":"c","major":4,"minor":1,"access":"w"}]}"#,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            ".linux.resources.devices[1]: cgroup v1 cannot punch a hole for 4:1 in the wildcard rule for 4:*"
        );
    }

    #[test]
    fn a_wide_denial_takes_narrow_permissions_back() {
        let got = writes(
            r#"{"devices":[{"allow":true,"type":"c","major":4,"minor":1,"access":"rw"},
                {"allow":false,"type":"c","major":4,"access":"w"}]}"#,
        );
        assert!(got.unwrap().contains(&"+c 4:1 r".to_owned()));
    }

    #[test]
    fn default_rules_alone_need_no_configuration() {
        assert_eq!(v1_writes(&DEFAULT_RULES).unwrap().len(), DEFAULTS.len());
    }
}
