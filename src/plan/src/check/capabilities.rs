//! `.process.capabilities`.

use super::Warning;
use crate::invalid::{Invalid, did_you_mean};
use crate::names::{CAPABILITIES, capability_number};
use crate::spec::Capabilities;

/// An unknown name is left out with a warning, as in runc: lists are written for newer kernels. A
/// set that capset(2) would refuse is an error; an ambient capability that cannot be raised is only
/// a warning, because runc goes on without it.
pub(super) fn capabilities(
    at: &str,
    sets: &Capabilities,
    warnings: &mut Vec<Warning>,
) -> Result<(), Invalid> {
    let all = [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ];
    let mut unknown: Vec<&str> = Vec::new();
    for (set, names) in all {
        for (index, name) in names.iter().enumerate() {
            if capability_number(name).is_none() && !unknown.contains(&name.as_str()) {
                unknown.push(name);
                warnings.push(Warning::new(format!("{at}.{set}[{index}]"), unknown_words(name)));
            }
        }
    }
    for (index, name) in sets.effective.iter().enumerate() {
        if !sets.permitted.contains(name) && capability_number(name).is_some() {
            let at = format!("{at}.effective[{index}]");
            return Err(Invalid::new(at, format!("{name} is not in the permitted set")));
        }
    }
    for (index, name) in sets.ambient.iter().enumerate() {
        if capability_number(name).is_none() {
            continue;
        }
        let missing = [("permitted", &sets.permitted), ("inheritable", &sets.inheritable)]
            .into_iter()
            .find(|(_, names)| !names.contains(name));
        if let Some((set, _)) = missing {
            let why = format!("can't raise ambient capability {name}: it is not in the {set} set");
            warnings.push(Warning::new(format!("{at}.ambient[{index}]"), why));
        }
    }
    Ok(())
}

fn unknown_words(name: &str) -> String {
    match did_you_mean(name, CAPABILITIES) {
        Some(near) => format!("unknown capability {name:?} is ignored; did you mean {near:?}"),
        None => format!("unknown capability {name:?} is ignored"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::process_table;

    #[test]
    fn unknown_names_are_warned_of_once() {
        process_table(&[
            (
                r#"{"capabilities": {"bounding": ["CAP_CHOWN", "CAP_FUTURE_THING"], "permitted": ["CAP_FUTURE_THING"]}}"#,
                r#"warning .process.capabilities.bounding[1]: unknown capability "CAP_FUTURE_THING" is ignored"#,
            ),
            (
                r#"{"capabilities": {"effective": ["CAP_CHWON"]}}"#,
                concat!(
                    r#"warning .process.capabilities.effective[0]: unknown capability "CAP_CHWON" is ignored"#,
                    r#"; did you mean "CAP_CHOWN""#
                ),
            ),
        ]);
    }

    #[test]
    fn effective_is_within_permitted() {
        process_table(&[
            (
                r#"{"capabilities": {"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]}}"#,
                ".process.capabilities.effective[1]: CAP_CHOWN is not in the permitted set",
            ),
            (
                r#"{"capabilities": {"effective": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}}"#,
                "ok",
            ),
            (r#"{"capabilities": {}}"#, "ok"),
        ]);
    }

    #[test]
    fn ambient_outside_permitted_or_inheritable_is_warned_of() {
        process_table(&[
            (
                r#"{"capabilities": {"ambient": ["CAP_KILL"], "permitted": ["CAP_KILL"]}}"#,
                "warning .process.capabilities.ambient[0]: can't raise ambient capability CAP_KILL: it is not in the inheritable set",
            ),
            (
                r#"{"capabilities": {"ambient": ["CAP_KILL"], "inheritable": ["CAP_KILL"]}}"#,
                "warning .process.capabilities.ambient[0]: can't raise ambient capability CAP_KILL: it is not in the permitted set",
            ),
            (
                r#"{"capabilities": {"ambient": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"]}}"#,
                "ok",
            ),
        ]);
    }
}
