//! `.root`, `.hostname` and `.domainname`.

use super::{Warning, namespace, no_null};
use crate::invalid::Invalid;
use crate::names::NamespaceKind;
use crate::spec::Spec;

/// HOST_NAME_MAX, linux/utsname.h: longer names get EINVAL from sethostname(2).
const NAME_MAX: usize = 64;

pub(super) fn root(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(root) = &spec.root else {
        return Err(Invalid::new(".root", "must be specified"));
    };
    if root.path.is_empty() {
        return Err(Invalid::new(".root.path", "must not be empty"));
    }
    no_null(".root.path", &root.path)
}

/// Without a UTS namespace the host itself would be renamed.
pub(super) fn host_names(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    for (at, name) in [(".hostname", &spec.hostname), (".domainname", &spec.domainname)] {
        if name.is_empty() {
            continue;
        }
        if namespace(spec, NamespaceKind::Uts).is_none() {
            return Err(Invalid::new(at, "cannot be set without a uts namespace in .linux.namespaces"));
        }
        if name.len() > NAME_MAX {
            return Err(Invalid::new(at, format!("must be at most {NAME_MAX} bytes, found {}", name.len())));
        }
        no_null(at, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;

    #[test]
    fn root_is_required() {
        table(&[
            (r#"{"root": null}"#, ".root: must be specified"),
            (r#"{"root": {}}"#, ".root.path: must not be empty"),
            (r#"{"root": {"path": "a\u0000"}}"#, ".root.path: must not contain a null byte"),
            (r#"{"root": {"path": "/rootfs", "readonly": true}}"#, "ok"),
        ]);
    }

    #[test]
    fn host_names_need_a_uts_namespace() {
        let none = "cannot be set without a uts namespace in .linux.namespaces";
        table(&[
            (r#"{"hostname": "a"}"#, &format!(".hostname: {none}")),
            (r#"{"domainname": "a"}"#, &format!(".domainname: {none}")),
            (r#"{"hostname": "a", "domainname": "b", "linux": {"namespaces": [{"type": "uts"}]}}"#, "ok"),
            (
                r#"{"hostname": "a", "linux": {"namespaces": [{"type": "uts", "path": "/proc/1/ns/uts"}]}}"#,
                "ok",
            ),
            (
                r#"{"hostname": "a\u0000", "linux": {"namespaces": [{"type": "uts"}]}}"#,
                ".hostname: must not contain a null byte",
            ),
        ]);
        let long = "x".repeat(65);
        table(&[(
            &format!(r#"{{"hostname": "{long}", "linux": {{"namespaces": [{{"type": "uts"}}]}}}}"#),
            ".hostname: must be at most 64 bytes, found 65",
        )]);
    }
}
