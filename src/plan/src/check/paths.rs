//! Paths of `.linux`: masked, read-only, cgroup, and the propagation of the root mount.

use super::{Warning, absolute, namespace, no_null};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::Propagation;
use crate::spec::Spec;

pub(super) fn rootfs_propagation(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let word = &linux.rootfs_propagation;
    if word.is_empty() || Propagation::from_word(word).is_some() {
        return Ok(());
    }
    Err(Invalid::unknown(".linux.rootfsPropagation", "propagation", word, &Propagation::WORDS))
}

/// Masking is mounting: without a mount namespace the host's own /proc would be covered.
pub(super) fn masked_and_readonly(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let lists =
        [(".linux.maskedPaths", &linux.masked_paths), (".linux.readonlyPaths", &linux.readonly_paths)];
    for (at, paths) in lists {
        if !paths.is_empty() && namespace(spec, NamespaceKind::Mount).is_none() {
            return Err(Invalid::new(at, "needs a mount namespace in .linux.namespaces"));
        }
        for (index, path) in paths.iter().enumerate() {
            absolute(format_args!("{at}[{index}]"), path)?;
        }
    }
    Ok(())
}

pub(super) fn cgroups_path(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    match &spec.linux {
        Some(linux) => no_null(".linux.cgroupsPath", &linux.cgroups_path),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{table, verdict};
    use crate::options::Propagation;

    #[test]
    fn propagation_is_a_known_word() {
        for word in Propagation::WORDS.into_iter().chain([""]) {
            let fragment = format!(r#"{{"linux": {{"rootfsPropagation": "{word}"}}}}"#);
            assert_eq!(verdict(&fragment), "ok", "{word}");
        }
        table(&[(
            r#"{"linux": {"rootfsPropagation": "rslaves"}}"#,
            r#".linux.rootfsPropagation: unknown propagation "rslaves"; did you mean "rslave""#,
        )]);
    }

    #[test]
    fn masking_needs_a_mount_namespace_and_absolute_paths() {
        table(&[
            (
                r#"{"linux": {"maskedPaths": ["/proc/keys"]}}"#,
                ".linux.maskedPaths: needs a mount namespace in .linux.namespaces",
            ),
            (
                r#"{"linux": {"readonlyPaths": ["/proc/sys"]}}"#,
                ".linux.readonlyPaths: needs a mount namespace in .linux.namespaces",
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "mount"}], "maskedPaths": ["/a", "proc/keys"]}}"#,
                r#".linux.maskedPaths[1]: must be an absolute path, found "proc/keys""#,
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "mount"}], "readonlyPaths": [""]}}"#,
                ".linux.readonlyPaths[0]: must not be empty",
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "mount"}], "readonlyPaths": ["/a"], "maskedPaths": ["/b"]}}"#,
                "ok",
            ),
        ]);
    }

    #[test]
    fn cgroups_path_is_a_string_of_the_kernel() {
        table(&[
            (r#"{"linux": {"cgroupsPath": "/a\u0000"}}"#, ".linux.cgroupsPath: must not contain a null byte"),
            (r#"{"linux": {"cgroupsPath": "system.slice:creel:a"}}"#, "ok"),
        ]);
    }
}
