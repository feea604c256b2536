//! Text of config.json to [`Spec`]: syntax and field types, with the first mistake named by its
//! path.
//!
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::invalid::{Invalid, key_path};
use crate::place::place_at;
use crate::spec::{Process, Resources, Seccomp, SeccompText, Spec};

/// Reads config.json. Every version 1.x of the specification is accepted: fields of later ones are
/// ignored, as the specification asks (config.md, "Extensibility").
pub fn parse(text: &str) -> Result<Spec, Invalid> {
    let spec: Spec = document(text)?;
    if is_version_1(&spec.oci_version) {
        Ok(spec)
    } else {
        let found = &spec.oci_version;
        Err(Invalid::new(".ociVersion", format!("unknown version specified: {found:?}, expected 1.x")))
    }
}

/// Reads the file of `exec --process`: the value of `.process` as a document of its own.
pub fn parse_process(text: &str) -> Result<Process, Invalid> {
    document(text)
}

/// Reads the file of `update --resources`: the value of `.linux.resources` as a document of its own.
pub fn parse_resources(text: &str) -> Result<Resources, Invalid> {
    document(text)
}

/// Reads `.linux.seccomp`.
pub fn parse_seccomp(text: &SeccompText) -> Result<Seccomp, Invalid> {
    const AT: &str = ".linux.seccomp";
    document(text.as_str()).map_err(|Invalid { at, why, .. }| match at.strip_prefix('.') {
        Some("") => Invalid::new(AT, why),
        _ => Invalid::new(format!("{AT}{at}"), why),
    })
}

fn document<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    if text.trim_ascii().is_empty() {
        return Err(Invalid::new(".", "the file is empty"));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => wrong_value(&place_at(text, error.line(), error.column()), &error),
        Category::Syntax | Category::Eof | Category::Io => Invalid::new(".", syntax(&error)),
    })
}

fn syntax(error: &serde_json::Error) -> String {
    let words = words(error);
    let (line, column) = (error.line(), error.column());
    match words.as_str() {
        "trailing characters" => {
            format!("line {line} column {column}: nothing may follow the end of the document")
        }
        // serde_json's words for the end of input: "EOF while parsing an object".
        other => format!(
            "line {line} column {column}: not valid JSON: {}",
            other.replace("EOF while parsing", "the file ends inside").replace("a object", "an object")
        ),
    }
}

/// The message without serde_json's position.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).map(str::to_owned).unwrap_or(text)
}

/// Puts serde's `invalid type: string "1g", expected u64` into the words of the document.
fn wrong_value(at: &str, error: &serde_json::Error) -> Invalid {
    let text = words(error);
    if let Some(key) = text.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        let parent = if at == "." { "" } else { at };
        return Invalid::new(key_path(parent, key), "the key appears twice");
    }
    let rest = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            Invalid::new(at, format!("expected {}, found {}", expected_words(expected), found_words(found)))
        }
        None => Invalid::new(at, text),
    }
}

fn expected_words(rust: &str) -> &str {
    match rust {
        "u64" | "usize" => "an unsigned number",
        "u32" => "an unsigned number up to 4294967295",
        "u16" => "an unsigned number up to 65535",
        "i64" => "a whole number",
        "i32" => "a whole number of 32 bits",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn found_words(rust: &str) -> String {
    match rust {
        "map" => "an object".to_owned(),
        "sequence" => "an array".to_owned(),
        other => other.replace("floating point", "number").replace("integer", "number").replace('`', ""),
    }
}

/// `1.MINOR` or `1.MINOR.PATCH`, with a pre-release (`-rc.1`, `-dev`) or build (`+dev`) suffix.
fn is_version_1(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    parts.first() == Some(&"1")
        && (2..=3).contains(&parts.len())
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_version_1_is_accepted() {
        for version in
            ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.0-rc.3", "1.3.0", "1.99.0", "1.0.0-rc5-dev", "1.2"]
        {
            let spec = parse(&format!(r#"{{"ociVersion": "{version}"}}"#)).unwrap();
            assert_eq!(spec.oci_version, version);
        }
    }

    #[test]
    fn other_versions_are_refused() {
        for version in ["", "2.0.0", "0.9.0", "1", "1.", "1.x", "v1.0.0", "10.0.0", "1.0.0.0", "-1.0"] {
            let found = error(&format!(r#"{{"ociVersion": "{version}"}}"#));
            assert_eq!(found, format!(".ociVersion: unknown version specified: {version:?}, expected 1.x"));
        }
        assert_eq!(error("{}"), r#".ociVersion: unknown version specified: "", expected 1.x"#);
    }

    #[test]
    fn wrong_types_are_named_by_path() {
        for (fragment, expected) in [
            (
                r#""process": {"rlimits": [{"type": "RLIMIT_CPU", "hard": "1g"}]}"#,
                r#".process.rlimits[0].hard: expected an unsigned number, found string "1g""#,
            ),
            (r#""process": {"args": "sh"}"#, r#".process.args: expected an array, found string "sh""#),
            (r#""process": {"args": ["a", 1]}"#, ".process.args[1]: expected a string, found number 1"),
            (
                r#""process": {"terminal": "yes"}"#,
                r#".process.terminal: expected a boolean, found string "yes""#,
            ),
            (
                r#""process": {"user": {"uid": -1}}"#,
                ".process.user.uid: expected an unsigned number up to 4294967295, found number -1",
            ),
            (
                r#""process": {"user": {"gid": 4294967296}}"#,
                ".process.user.gid: expected an unsigned number up to 4294967295, found number 4294967296",
            ),
            (
                r#""process": {"oomScoreAdj": 1.5}"#,
                ".process.oomScoreAdj: expected a whole number, found number 1.5",
            ),
            (r#""hostname": {}"#, ".hostname: expected a string, found an object"),
            (r#""mounts": {}"#, ".mounts: expected an array, found an object"),
            (r#""root": "rootfs""#, r#".root: expected an object, found string "rootfs""#),
            (
                r#""linux": {"sysctl": {"net.ipv4.ip_forward": 1}}"#,
                r#".linux.sysctl["net.ipv4.ip_forward"]: expected a string, found number 1"#,
            ),
            (
                r#""linux": {"resources": {"memory": {"limit": "1g"}}}"#,
                r#".linux.resources.memory.limit: expected a whole number, found string "1g""#,
            ),
            (r#""annotations": {"a": true}"#, ".annotations.a: expected a string, found boolean true"),
        ] {
            assert_eq!(error(&format!(r#"{{"ociVersion": "1.0.0", {fragment}}}"#)), expected);
        }
    }

    #[test]
    fn an_array_is_not_an_object() {
        for (text, expected) in [
            ("[]", ".: expected an object, found an array"),
            (r#"{"process": []}"#, ".process: expected an object, found an array"),
            (r#"{"linux": []}"#, ".linux: expected an object, found an array"),
            (r#"{"mounts": [["/proc"]]}"#, ".mounts[0]: expected an object, found an array"),
        ] {
            assert_eq!(error(text), expected);
        }
    }

    #[test]
    fn a_key_may_appear_once() {
        let twice = error(r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "cwd": "/x"}}"#);
        assert_eq!(twice, ".process.cwd: the key appears twice");
        assert_eq!(error(r#"{"hostname": "a", "hostname": "b"}"#), ".hostname: the key appears twice");
    }

    #[test]
    fn text_that_is_no_document_is_refused() {
        for (text, expected) in [
            ("", ".: the file is empty"),
            (" \n\t", ".: the file is empty"),
            ("null", ".: expected an object, found null"),
            ("3", ".: expected an object, found number 3"),
            (r#"{"a": 1} x"#, ".: line 1 column 10: nothing may follow the end of the document"),
            ("{\"a\": 1,\n  }", ".: line 2 column 3: not valid JSON: trailing comma"),
            (
                r#"{"ociVersion": "1.0.0""#,
                ".: line 1 column 22: not valid JSON: the file ends inside an object",
            ),
            ("ociVersion: 1.0.0", ".: line 1 column 1: not valid JSON: expected value"),
        ] {
            assert_eq!(error(text), expected, "{text:?}");
        }
    }

    #[test]
    fn null_is_the_zero_value_and_unknown_fields_are_ignored() {
        let spec =
            parse(r#"{"ociVersion": "1.0.2", "hostname": null, "mounts": null, "vm": {"x": [1]}}"#).unwrap();
        assert_eq!(spec, Spec { oci_version: "1.0.2".to_owned(), ..Spec::default() });
    }

    #[test]
    fn a_process_is_a_document_of_its_own() {
        let process =
            parse_process(r#"{"cwd": "/", "args": ["true"], "user": {"uid": 1, "gid": 2}}"#).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (1, 2));
        let wrong = parse_process(r#"{"rlimits": [{"soft": false}]}"#).unwrap_err();
        assert_eq!(wrong.to_string(), ".rlimits[0].soft: expected an unsigned number, found boolean false");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            if let Err(invalid) = parse(&text) {
                proptest::prop_assert!(invalid.at.starts_with('.'));
            }
        }
    }
}
