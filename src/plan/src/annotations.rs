//! crun's annotations: what podman and others ask of a runtime beside config.json's own fields.
//!
//! All begin with `run.oci.`. They say more than metadata should (a file to write to, a filter in
//! place of the configured one), so `features` lists the prefix as potentially unsafe: who passes
//! annotations of strangers on has to leave them out. `run.oci.handler` chooses a kind of sandbox that
//! creel does not have, and is ignored like any unknown annotation.

use std::collections::BTreeMap;

use crate::invalid::{Invalid, key_path};

/// Prefix of them all.
pub const PREFIX: &str = "run.oci.";

/// What the annotations of a container ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// `keep_original_groups`: no setgroups(2), the groups are the caller's.
    pub keep_groups: bool,
    /// `hooks.stdout`: file that the standard output of hooks is appended to.
    pub hooks_stdout: Option<&'a str>,
    /// `hooks.stderr`
    pub hooks_stderr: Option<&'a str>,
    /// `seccomp.receiver`: listener of SCMP_ACT_NOTIFY where the profile names none.
    pub seccomp_receiver: Option<&'a str>,
    /// `seccomp_bpf_data`: a compiled filter in base64, in place of the profile.
    pub seccomp_bpf: Option<&'a str>,
    /// `pidfd_receiver`: socket that gets init's pidfd.
    pub pidfd_receiver: Option<&'a str>,
    /// `mount_context_type`: which of [`MOUNT_CONTEXTS`] `.linux.mountLabel` is.
    pub mount_context: Option<&'static str>,
}

/// Mount options that hold an SELinux context (mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS").
pub const MOUNT_CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Reads them; most containers have none.
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Extensions<'_>, Invalid> {
    let mut found = Extensions::default();
    for (key, value) in annotations.range(PREFIX.to_string()..) {
        let Some(name) = key.strip_prefix(PREFIX) else { break };
        let text = || -> Result<Option<&str>, Invalid> {
            if value.is_empty() || value.contains('\0') {
                return Err(Invalid::new(key_path(".annotations", key), "must not be empty"));
            }
            Ok(Some(value.as_str()))
        };
        match name {
            "keep_original_groups" => found.keep_groups = is_set(value),
            "hooks.stdout" => found.hooks_stdout = text()?,
            "hooks.stderr" => found.hooks_stderr = text()?,
            "seccomp.receiver" => found.seccomp_receiver = text()?,
            "seccomp_bpf_data" => found.seccomp_bpf = text()?,
            "pidfd_receiver" => found.pidfd_receiver = text()?,
            "mount_context_type" => found.mount_context = Some(mount_context(key, value)?),
            _ => {}
        }
    }
    Ok(found)
}

fn mount_context(key: &str, value: &str) -> Result<&'static str, Invalid> {
    MOUNT_CONTEXTS.iter().find(|context| **context == value).copied().ok_or_else(|| {
        let why = format!("expected one of {}, found {value:?}", MOUNT_CONTEXTS.join(", "));
        Invalid::new(key_path(".annotations", key), why)
    })
}

/// Present is what counts, but for a plain no.
fn is_set(value: &str) -> bool {
    !matches!(value, "" | "0" | "false")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    #[test]
    fn known_ones_are_read_and_others_left_alone() {
        let annotations = map(&[
            ("a", "b"),
            ("run.oci.handler", "krun"),
            ("run.oci.hooks.stderr", "/var/log/hooks"),
            ("run.oci.keep_original_groups", "1"),
            ("run.ocia", "x"),
            ("zzz", ""),
        ]);
        let found = read(&annotations).unwrap();
        let expected =
            Extensions { keep_groups: true, hooks_stderr: Some("/var/log/hooks"), ..Extensions::default() };
        assert_eq!(found, expected);
        assert_eq!(read(&map(&[("org.x", "y")])).unwrap(), Extensions::default());
    }

    #[test]
    fn a_no_is_a_no_and_an_empty_path_a_mistake() {
        for (value, set) in [("1", true), ("yes", true), ("0", false), ("false", false), ("", false)] {
            let annotations = map(&[("run.oci.keep_original_groups", value)]);
            assert_eq!(read(&annotations).unwrap().keep_groups, set, "{value:?}");
        }
        let fscontext = map(&[("run.oci.mount_context_type", "fscontext")]);
        assert_eq!(read(&fscontext).unwrap().mount_context, Some("fscontext"));
        let wrong = map(&[("run.oci.mount_context_type", "seclabel")]);
        let expected = r#".annotations["run.oci.mount_context_type"]: expected one of context, fscontext, defcontext, rootcontext, found "seclabel""#;
        assert_eq!(read(&wrong).unwrap_err().to_string(), expected);
        let wrong = map(&[("run.oci.pidfd_receiver", "")]);
        let invalid = read(&wrong).unwrap_err();
        assert_eq!(invalid.to_string(), r#".annotations["run.oci.pidfd_receiver"]: must not be empty"#);
    }
}
