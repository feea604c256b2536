//! From the position at which a JSON reader stopped to the path of the value that it was reading.
//!
//! serde can track the path while it reads, but that is a second reader for every type of the
//! configuration, in a program that is loaded several times for each container.

use crate::invalid::key_path;

/// What is open around a position.
enum Level {
    /// An object, and the key whose value is being read.
    Object(Option<String>),
    /// An array, and the index of the element.
    Array(usize),
}

/// Path of the value before `line` and `column` (both from 1, as serde_json counts them) of a valid
/// document, in jq's notation; `.` is the whole document. Of a key whose colon is not there yet it is
/// the path of the object.
pub fn place_at(text: &str, line: usize, column: usize) -> String {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut rest = text.get(..start + column).unwrap_or(text);
    let mut levels: Vec<Level> = Vec::new();
    let mut word = "";
    while let Some(at) = rest.find(['"', '{', '}', '[', ']', ':', ',']) {
        let (sign, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match (sign, levels.last_mut()) {
            (b'"', _) => {
                let length = string_length(after);
                word = &after[..length];
                rest = after.get(length + 1..).unwrap_or_default();
            }
            (b'{', _) => levels.push(Level::Object(None)),
            (b'[', _) => levels.push(Level::Array(0)),
            (b':', Some(Level::Object(key))) => *key = Some(unescaped(word)),
            (b',', Some(Level::Object(key))) => *key = None,
            (b',', Some(Level::Array(index))) => *index += 1,
            (b'}' | b']', Some(_)) => {
                levels.pop();
            }
            _ => {}
        }
    }
    path(&levels)
}

/// Bytes up to the quote that ends a string.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let ends = |byte: u8| {
        let quote = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        quote
    };
    text.bytes().position(ends).unwrap_or(text.len())
}

fn unescaped(word: &str) -> String {
    serde_json::from_str(&format!("\"{word}\"")).unwrap_or_else(|_| word.to_owned())
}

fn path(levels: &[Level]) -> String {
    let mut at = String::new();
    for level in levels {
        match level {
            Level::Object(Some(key)) => at = key_path(&at, key),
            Level::Object(None) => {}
            Level::Array(index) => at.push_str(&format!("[{index}]")),
        }
    }
    if at.starts_with('.') { at } else { format!(".{at}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::{Resources, Spec};

    #[test]
    fn the_path_is_that_of_the_last_value() {
        let text = "{\"a\": [1,\n {\"b\\\"{\": \"x,]\", \"c.d\": 2}], \"e\": 3}";
        for (line, column, expected) in [
            (1, 0, "."),
            (1, 1, "."),
            (1, 4, "."),
            (1, 5, ".a"),
            (1, 8, ".a[0]"),
            (1, 9, ".a[1]"),
            (2, 8, ".a[1]"),
            (2, 9, r#".a[1]["b\"{"]"#),
            (2, 15, r#".a[1]["b\"{"]"#),
            (2, 25, r#".a[1]["c.d"]"#),
            (2, 26, ".a[1]"),
            (2, 27, ".a"),
            (2, 99, "."),
        ] {
            assert_eq!(place_at(text, line, column), expected, "{line} {column}");
        }
    }

    /// Puts every kind of value in every place of a document, and looks where serde says it was.
    fn agrees<T: DeserializeOwned>(document: &Value) {
        let mut places = vec![String::new()];
        let mut next = 0;
        while let Some(place) = places.get(next).cloned() {
            match document.pointer(&place).unwrap() {
                Value::Object(map) => {
                    places.extend(
                        map.keys()
                            .map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))),
                    );
                }
                Value::Array(list) => places.extend((0..list.len()).map(|index| format!("{place}/{index}"))),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
            next += 1;
        }
        let wrong =
            [json!({}), json!([]), json!([[]]), json!("x"), json!(-1.5), json!(true), json!({"a": 1})];
        let mut errors = 0;
        for place in &places {
            for value in &wrong {
                let mut copy = document.clone();
                *copy.pointer_mut(place).unwrap() = value.clone();
                for text in [copy.to_string(), format!("{copy:#}")] {
                    let Err(error) = serde_json::from_str::<T>(&text) else { continue };
                    let reader = &mut serde_json::Deserializer::from_str(&text);
                    let theirs = serde_path_to_error::deserialize::<_, T>(reader).err().unwrap();
                    let ours = place_at(&text, error.line(), error.column());
                    assert_eq!(plain(&ours), plain(&theirs.path().to_string()), "{text}");
                    errors += 1;
                }
            }
        }
        assert!(errors > places.len());
    }

    /// serde_path_to_error does not quote keys, and begins without a dot.
    fn plain(path: &str) -> String {
        let path = path.replace("[\"", ".").replace("\"]", "");
        path.trim_start_matches('.').to_owned()
    }

    #[test]
    fn a_wrong_value_is_found_where_serde_finds_it() {
        let resources = json!({
            "devices": [{"allow": true, "type": "c", "major": 1, "access": "r"}],
            "memory": {"limit": 1}, "pids": {"limit": 1}, "unified": {"memory.high": "1"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        });
        agrees::<Resources>(&resources);
        agrees::<Spec>(&json!({
            "ociVersion": "1.0.0", "hostname": "a", "annotations": {"a.b/c": "d"},
            "root": {"path": "r", "readonly": true},
            "process": {"args": ["a", "b"], "user": {"uid": 1, "additionalGids": [1, 2]},
                "rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}], "capabilities": {"bounding": ["CAP_KILL"]}},
            "mounts": [{"destination": "/a", "options": ["ro"]}, {"destination": "/b"}],
            "hooks": {"prestart": [{"path": "/a", "args": ["b"], "timeout": 1}]},
            "linux": {"resources": resources, "sysctl": {"net.ipv4.ip_forward": "1"}, "namespaces": [{"type": "pid"}],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "seccomp": {"defaultAction": 3}},
        }));
    }
}
