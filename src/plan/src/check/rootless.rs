//! What a runtime without privileges cannot do.

use super::{is_mapped, namespace};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::options::parse_options;
use crate::spec::{Mount, Spec};

/// Checks that a document, already checked, can be applied by a runtime that is not root in its
/// own user namespace: every privilege comes from the container's user namespace.
pub fn check_rootless(spec: &Spec) -> Result<(), Invalid> {
    let Some(user) = namespace(spec, NamespaceKind::User) else {
        return Err(Invalid::new(".linux.namespaces", "a rootless container needs a user namespace"));
    };
    if spec.linux.as_ref().is_some_and(|linux| !linux.net_devices.is_empty()) {
        return Err(Invalid::new(".linux.netDevices", "cannot be moved into a rootless container"));
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        owners(&format!(".mounts[{index}]"), mount, spec, user.path.is_empty())?;
    }
    Ok(())
}

/// A tmpfs or devpts with `uid=` or `gid=` needs ids that are mapped; of a user namespace that is
/// joined they are not known here.
fn owners(at: &str, mount: &Mount, spec: &Spec, maps_are_known: bool) -> Result<(), Invalid> {
    let Ok(options) = parse_options(&mount.options) else { return Ok(()) };
    if options.idmap.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Invalid::new(at, "a rootless container cannot have id-mapped mounts"));
    }
    let Some(linux) = spec.linux.as_ref().filter(|_| maps_are_known) else { return Ok(()) };
    for param in options.data_params() {
        let (map, field) = match param.key {
            "uid" => (&linux.uid_mappings, ".linux.uidMappings"),
            "gid" => (&linux.gid_mappings, ".linux.gidMappings"),
            _ => continue,
        };
        let id = param.value.and_then(|value| value.parse().ok());
        if let Some(id) = id.filter(|id| !is_mapped(map, *id)) {
            let why = format!("{id} is not mapped in {field}");
            return Err(Invalid::new(format!("{at}.options[{}]", param.index), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::check_rootless;

    fn verdict(fragment: &str) -> String {
        check_rootless(&spec(fragment)).map_or_else(|invalid| invalid.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn a_user_namespace_is_needed() {
        assert_eq!(verdict("{}"), ".linux.namespaces: a rootless container needs a user namespace");
        assert_eq!(verdict(r#"{"linux": {"namespaces": [{"type": "user", "path": "/u"}]}}"#), "ok");
    }

    #[test]
    fn owners_of_mounts_are_mapped() {
        let options = |options: &str, user: &str| {
            format!(
                r#"{{"mounts": [{{"destination": "/dev/pts", "type": "devpts", "options": {options}}}],
                    "linux": {{"namespaces": [{user}],
                    "uidMappings": [{{"containerID": 0, "hostID": 1000, "size": 1}}],
                    "gidMappings": [{{"containerID": 0, "hostID": 1000, "size": 1}}]}}}}"#
            )
        };
        let new = r#"{"type": "user"}"#;
        assert_eq!(verdict(&options(r#"["mode=0620", "gid=0"]"#, new)), "ok");
        assert_eq!(
            verdict(&options(r#"["mode=0620", "gid=5"]"#, new)),
            ".mounts[0].options[1]: 5 is not mapped in .linux.gidMappings"
        );
        assert_eq!(
            verdict(&options(r#"["uid=0,uid=1"]"#, new)),
            ".mounts[0].options[0]: 1 is not mapped in .linux.uidMappings"
        );
        assert_eq!(verdict(&options(r#"["gid=x"]"#, new)), "ok");
        assert_eq!(verdict(&options(r#"["gid=5"]"#, r#"{"type": "user", "path": "/u"}"#)), "ok");
        assert_eq!(
            verdict(&options(r#"["bind", "idmap"]"#, new)),
            ".mounts[0]: a rootless container cannot have id-mapped mounts"
        );
    }
}
