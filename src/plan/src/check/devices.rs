//! `.linux.devices` and the device rules of `.linux.resources.devices`.

use std::fmt::Display;

use super::{Warning, absolute};
use crate::invalid::Invalid;
use crate::names::DeviceType;
use crate::spec::Spec;

/// dev_t of the kernel: 12 bits of major and 20 bits of minor number (linux/kdev_t.h). mknod(2)
/// would drop the rest and make another device.
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// S_IFMT and the permission bits of inode(7): engines copy st_mode whole.
const MODE_MAX: u32 = 0o177_777;

pub(super) fn devices(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    for (index, device) in linux.devices.iter().enumerate() {
        let at = format!(".linux.devices[{index}]");
        absolute(format_args!("{at}.path"), &device.path)?;
        let Some(kind) = DeviceType::from_word(&device.r#type) else {
            let words = &DeviceType::WORDS;
            return Err(Invalid::unknown(at + ".type", "device type", &device.r#type, words));
        };
        if kind != DeviceType::Fifo {
            number(format_args!("{at}.major"), device.major, MAJOR_MAX)?;
            number(format_args!("{at}.minor"), device.minor, MINOR_MAX)?;
        }
        if let Some(mode) = device.file_mode.filter(|mode| *mode > MODE_MAX) {
            return Err(Invalid::new(at + ".fileMode", format!("{mode} ({mode:#o}) is not a file mode")));
        }
        for (field, id) in [("uid", device.uid), ("gid", device.gid)] {
            if id == Some(u32::MAX) {
                return Err(Invalid::new(format!("{at}.{field}"), "4294967295 is not an id"));
            }
        }
    }
    Ok(())
}

fn number(at: impl Display, value: i64, max: i64) -> Result<(), Invalid> {
    if (0..=max).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(at.to_string(), format!("must be between 0 and {max}, found {value}")))
}

/// Rules of the devices cgroup: `a`, `b` or `c`, and letters of `rwm`.
pub(super) fn device_rules(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(());
    };
    for (index, rule) in resources.devices.iter().enumerate() {
        let at = format!(".linux.resources.devices[{index}]");
        if !matches!(rule.r#type.as_str(), "" | "a" | "b" | "c") {
            return Err(Invalid::unknown(at + ".type", "device type", &rule.r#type, &["a", "b", "c"]));
        }
        if rule.access.is_empty() {
            return Err(Invalid::new(at + ".access", "must not be empty"));
        }
        if !rule.access.bytes().all(|letter| b"rwm".contains(&letter)) {
            let why = format!("expected letters of \"rwm\", found {:?}", rule.access);
            return Err(Invalid::new(at + ".access", why));
        }
        // -1 is a wildcard, as in runc.
        for (field, value) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(value) = value.filter(|value| !(-1..=i64::from(u32::MAX)).contains(value)) {
                return Err(Invalid::new(format!("{at}.{field}"), format!("{value} is not a device number")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;

    #[test]
    fn devices_have_path_type_and_numbers() {
        let device = |d: &str| format!(r#"{{"linux": {{"devices": [{d}]}}}}"#);
        table(&[
            (
                &device(r#"{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}"#),
                "ok",
            ),
            (&device(r#"{"path": "/dev/fuse", "type": "u", "fileMode": 8630, "uid": 1, "gid": 2}"#), "ok"),
            (&device(r#"{"path": "/dev/pipe", "type": "p", "major": -1}"#), "ok"),
            (&device(r#"{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}"#), "ok"),
            (&device(r#"{"type": "c"}"#), ".linux.devices[0].path: must not be empty"),
            (
                &device(r#"{"path": "dev/x", "type": "c"}"#),
                r#".linux.devices[0].path: must be an absolute path, found "dev/x""#,
            ),
            (
                &device(r#"{"path": "/dev/x", "type": "a"}"#),
                r#".linux.devices[0].type: unknown device type "a", expected one of c, u, b, p"#,
            ),
            (
                &device(r#"{"path": "/dev/x", "type": "b", "major": 4096}"#),
                ".linux.devices[0].major: must be between 0 and 4095, found 4096",
            ),
            (
                &device(r#"{"path": "/dev/x", "type": "b", "minor": -1}"#),
                ".linux.devices[0].minor: must be between 0 and 1048575, found -1",
            ),
            (
                &device(r#"{"path": "/dev/x", "type": "b", "fileMode": 65536}"#),
                ".linux.devices[0].fileMode: 65536 (0o200000) is not a file mode",
            ),
            (
                &device(r#"{"path": "/dev/x", "type": "b", "gid": 4294967295}"#),
                ".linux.devices[0].gid: 4294967295 is not an id",
            ),
        ]);
    }

    #[test]
    fn device_rules_have_type_and_access() {
        let rule = |r: &str| format!(r#"{{"linux": {{"resources": {{"devices": [{r}]}}}}}}"#);
        table(&[
            (&rule(r#"{"allow": false, "access": "rwm"}"#), "ok"),
            (&rule(r#"{"allow": true, "type": "c", "major": 1, "minor": -1, "access": "m"}"#), "ok"),
            (&rule(r#"{"allow": true}"#), ".linux.resources.devices[0].access: must not be empty"),
            (
                &rule(r#"{"allow": true, "access": "rx"}"#),
                r#".linux.resources.devices[0].access: expected letters of "rwm", found "rx""#,
            ),
            (
                &rule(r#"{"allow": true, "type": "p", "access": "r"}"#),
                r#".linux.resources.devices[0].type: unknown device type "p", expected one of a, b, c"#,
            ),
            (
                &rule(r#"{"allow": true, "major": -2, "access": "r"}"#),
                ".linux.resources.devices[0].major: -2 is not a device number",
            ),
        ]);
    }
}
