//! `.process.apparmorProfile`, `.process.selinuxLabel` and `.linux.mountLabel`, as far as they can be
//! judged without the machine: [`crate::build`] asks whether it has the security module.

use super::{Warning, no_null};
use crate::invalid::Invalid;
use crate::spec::{Process, Spec};

pub(super) fn process(process: &Process, at: &str) -> Result<(), Invalid> {
    no_null(format_args!("{at}.apparmorProfile"), &process.apparmor_profile)?;
    no_null(format_args!("{at}.selinuxLabel"), &process.selinux_label)
}

pub(super) fn mount_label(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let label = spec.linux.as_ref().map_or("", |linux| linux.mount_label.as_str());
    no_null(".linux.mountLabel", label)?;
    // It would end the quotes that mount(2) takes a context in.
    if label.contains('"') {
        return Err(Invalid::new(".linux.mountLabel", "must not contain a double quote"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{process_table, table};

    #[test]
    fn labels_are_words_that_the_kernel_can_read_to_their_end() {
        process_table(&[
            (r#"{"apparmorProfile": "docker-default", "selinuxLabel": "a:b:c:s0:c1,c2"}"#, "ok"),
            (r#"{"apparmorProfile": "", "selinuxLabel": ""}"#, "ok"),
            (r#"{"apparmorProfile": "a\u0000"}"#, ".process.apparmorProfile: must not contain a null byte"),
            (r#"{"selinuxLabel": "a\u0000"}"#, ".process.selinuxLabel: must not contain a null byte"),
        ]);
        table(&[
            (r#"{"linux": {"mountLabel": "a:b:c:s0:c1,c2"}}"#, "ok"),
            (r#"{"linux": {"mountLabel": "a\u0000"}}"#, ".linux.mountLabel: must not contain a null byte"),
            (
                r#"{"linux": {"mountLabel": "a\",size=1"}}"#,
                ".linux.mountLabel: must not contain a double quote",
            ),
        ]);
    }
}
