//! Which devices the container may use.
//!
//! One rule list for both hierarchies: the configured rules in their order, then those that every
//! container gets. Nothing is allowed before the first rule. Each access bit (read, write,
//! mknod) goes by the last rule that names it for the device, and a request passes when all of
//! its bits do. v1 takes the list as writes to devices.allow and devices.deny, v2 as an eBPF
//! program; both translations are pure.

pub(crate) mod v1;
pub(crate) mod v2;

use std::fmt;

use creel_plan::spec::{DeviceRule, Resources};

pub use v1::{V1Write, v1_writes};
pub use v2::v2_program;
pub(crate) use v2::{allow_everything, allow_list};

use crate::error::Invalid;

/// Device type of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `a`: every device and access; numbers and access of such a rule mean nothing.
    All,
    /// `b`
    Block,
    /// `c`
    Char,
}

/// Access bits, numbered as `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// mknod(2).
    pub const MKNOD: Access = Access(1);
    /// Reading.
    pub const READ: Access = Access(2);
    /// Writing.
    pub const WRITE: Access = Access(4);
    /// `rwm`
    pub const ALL: Access = Access(7);

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    const fn union(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    const fn minus(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    const fn overlaps(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn letters(self) -> String {
        let all = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
        all.iter().filter(|(bit, _)| self.overlaps(*bit)).map(|(_, letter)| letter).collect()
    }
}

/// One checked rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// Type.
    pub kind: Kind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Access.
    pub access: Access,
    /// Place in `.linux.resources.devices`; `None` for a rule that every container gets.
    pub index: Option<usize>,
}

/// As a dry run prints it: `allow c 1:3 rwm`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        let letter = match self.kind {
            Kind::All => return write!(f, "{verb} a"),
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{verb} {letter} {major}:{minor} {}", self.access.letters())
    }
}

fn number(value: Option<u32>) -> String {
    value.map_or("*".to_owned(), |v| v.to_string())
}

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Rule {
    Rule { allow: true, kind, major, minor, access, index: None }
}

/// What every container gets: mknod of anything (opening it is another matter), the devices of
/// config-linux.md, "Default Devices", pseudo-terminals and TUN.
pub const DEFAULT_RULES: [Rule; 11] = [
    allow(Kind::Char, None, None, Access::MKNOD),
    allow(Kind::Block, None, None, Access::MKNOD),
    allow(Kind::Char, Some(1), Some(3), Access::ALL),
    allow(Kind::Char, Some(1), Some(8), Access::ALL),
    allow(Kind::Char, Some(1), Some(7), Access::ALL),
    allow(Kind::Char, Some(5), Some(0), Access::ALL),
    allow(Kind::Char, Some(1), Some(5), Access::ALL),
    allow(Kind::Char, Some(1), Some(9), Access::ALL),
    allow(Kind::Char, Some(136), None, Access::ALL),
    allow(Kind::Char, Some(5), Some(2), Access::ALL),
    allow(Kind::Char, Some(10), Some(200), Access::ALL),
];

/// The rules of `.linux.resources.devices`, then [`DEFAULT_RULES`].
pub fn plan_rules(resources: &Resources) -> Result<Vec<Rule>, Invalid> {
    let mut rules = Vec::with_capacity(resources.devices.len() + DEFAULT_RULES.len());
    for (index, rule) in resources.devices.iter().enumerate() {
        rules.push(check(index, rule)?);
    }
    rules.extend(DEFAULT_RULES);
    Ok(rules)
}

fn check(index: usize, rule: &DeviceRule) -> Result<Rule, Invalid> {
    let invalid = |field: &str, why: String| {
        Err(Invalid::new(format!(".linux.resources.devices[{index}].{field}"), why))
    };
    let kind = match rule.r#type.as_str() {
        "" | "a" => Kind::All,
        "b" => Kind::Block,
        "c" => Kind::Char,
        other => return invalid("type", format!("invalid cgroup device type {other:?}")),
    };
    // -1 is how engines written in Go say "every one".
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| value),
    };
    let major = match number(rule.major) {
        Ok(major) => major,
        Err(value) => return invalid("major", format!("invalid major {value}")),
    };
    let minor = match number(rule.minor) {
        Ok(minor) => minor,
        Err(value) => return invalid("minor", format!("invalid minor {value}")),
    };
    if rule.access.is_empty() {
        return invalid("access", "device access cannot be empty".to_owned());
    }
    let mut access = Access(0);
    for letter in rule.access.chars() {
        access = access.union(match letter {
            'r' => Access::READ,
            'w' => Access::WRITE,
            'm' => Access::MKNOD,
            // Ignored, as in runc.
            _ => continue,
        });
    }
    if access == Access(0) {
        return invalid("access", format!("unknown device access {:?}", rule.access));
    }
    Ok(Rule { allow: rule.allow, kind, major, minor, access, index: Some(index) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Vec<Rule>, Invalid> {
        plan_rules(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn rules_keep_their_order_and_defaults_follow() {
        let rules = plan(
            r#"{"devices":[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":10,"minor":-1,"access":"rw"}]}"#,
        )
        .unwrap();
        assert_eq!(rules.len(), 2 + DEFAULT_RULES.len());
        assert_eq!((rules[0].allow, rules[0].kind), (false, Kind::All));
        let access = Access::READ.union(Access::WRITE);
        assert_eq!(
            rules[1],
            Rule { allow: true, kind: Kind::Char, major: Some(10), minor: None, access, index: Some(1) }
        );
        assert_eq!(rules[2..], DEFAULT_RULES);
        assert_eq!([rules[0].to_string(), rules[1].to_string()], ["deny a", "allow c 10:* rw"]);
    }

    #[test]
    fn wrong_rules_name_their_field() {
        let cases = [
            (r#""type":"p","access":"r""#, "type: invalid cgroup device type \"p\""),
            (r#""type":"c","major":-2,"access":"r""#, "major: invalid major -2"),
            (r#""type":"c","minor":4294967296,"access":"r""#, "minor: invalid minor 4294967296"),
            (r#""type":"c""#, "access: device access cannot be empty"),
            (r#""type":"c","access":"x""#, "access: unknown device access \"x\""),
        ];
        for (fields, want) in cases {
            let error = plan(&format!(r#"{{"devices":[{{"allow":true,{fields}}}]}}"#)).unwrap_err();
            assert_eq!(error.to_string(), format!(".linux.resources.devices[0].{want}"));
        }
    }
}
