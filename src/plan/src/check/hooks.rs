//! `.hooks`.

use super::{Warning, absolute, environment, no_null};
use crate::invalid::Invalid;
use crate::spec::{Hook, Spec};

pub(super) fn hooks(spec: &Spec, _: &mut Vec<Warning>) -> Result<(), Invalid> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let lists = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (name, list) in lists {
        for (index, one) in list.iter().enumerate() {
            hook(&format!(".hooks.{name}[{index}]"), one)?;
        }
    }
    Ok(())
}

fn hook(at: &str, hook: &Hook) -> Result<(), Invalid> {
    absolute(format_args!("{at}.path"), &hook.path)?;
    for (index, arg) in hook.args.iter().enumerate() {
        no_null(format_args!("{at}.args[{index}]"), arg)?;
    }
    environment(format_args!("{at}.env"), &hook.env)?;
    match hook.timeout {
        Some(timeout) if timeout <= 0 => {
            Err(Invalid::new(format!("{at}.timeout"), format!("must be greater than 0, found {timeout}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;

    #[test]
    fn every_kind_of_hook_is_checked() {
        for name in
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        {
            let hook = |h: &str| format!(r#"{{"hooks": {{"{name}": [{{"path": "/a"}}, {h}]}}}}"#);
            let at = format!(".hooks.{name}[1]");
            table(&[
                (&hook(r#"{"path": "/b", "args": ["b"], "env": ["A=1"], "timeout": 3}"#), "ok"),
                (&hook("{}"), &format!("{at}.path: must not be empty")),
                (&hook(r#"{"path": "b"}"#), &format!(r#"{at}.path: must be an absolute path, found "b""#)),
                (
                    &hook(r#"{"path": "/b", "args": ["\u0000"]}"#),
                    &format!("{at}.args[0]: must not contain a null byte"),
                ),
                (
                    &hook(r#"{"path": "/b", "env": ["A"]}"#),
                    &format!(r#"{at}.env[0]: expected NAME=value, found "A""#),
                ),
                (
                    &hook(r#"{"path": "/b", "timeout": 0}"#),
                    &format!("{at}.timeout: must be greater than 0, found 0"),
                ),
                (
                    &hook(r#"{"path": "/b", "timeout": -1}"#),
                    &format!("{at}.timeout: must be greater than 0, found -1"),
                ),
            ]);
        }
    }
}
