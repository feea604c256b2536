//! `org.systemd.property.NAME` annotations: unit properties that the config gives itself, as GVariant
//! text (`uint64 123000000`, `'inactive-or-failed'`, `['a.service', 'b.service']`). Pure.

use std::collections::BTreeMap;

use super::properties::Property;
use super::wire::Value;
use crate::error::Invalid;

/// What such an annotation begins with.
const PREFIX: &str = "org.systemd.property.";
const MICROSECONDS: u64 = 1_000_000;

/// The properties that the annotations name, in their order.
pub fn plan(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Invalid> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let invalid = |why: String| Invalid::new(format!(".annotations[{key:?}]"), why);
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(invalid(format!("{name:?} is no name of a systemd property")));
        }
        let value = parse(text).map_err(|why| invalid(format!("{text:?}: {why}")))?;
        properties.push(in_microseconds(name, value).map_err(invalid)?);
    }
    Ok(properties)
}

/// systemd documents `TimeoutStopSec` and takes `TimeoutStopUSec`.
fn in_microseconds(name: &str, value: Value) -> Result<Property, String> {
    let stem = name.strip_suffix("Sec").filter(|s| s.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = stem else { return Ok(Property { name: name.to_owned(), value }) };
    let whole =
        |seconds: i128| u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(MICROSECONDS));
    let time = match value {
        Value::Byte(seconds) => whole(seconds.into()),
        Value::I16(seconds) => whole(seconds.into()),
        Value::U16(seconds) => whole(seconds.into()),
        Value::I32(seconds) => whole(seconds.into()),
        Value::U32(seconds) => whole(seconds.into()),
        Value::I64(seconds) => whole(seconds.into()),
        Value::U64(seconds) => whole(seconds.into()),
        Value::Double(seconds) => microseconds_of(seconds),
        Value::Bool(_)
        | Value::Text(_)
        | Value::Path(_)
        | Value::Signature(_)
        | Value::Array(..)
        | Value::Struct(_)
        | Value::Variant(_) => None,
    };
    let time = time.ok_or_else(|| format!("{name} is a time in seconds"))?;
    Ok(Property { name: format!("{stem}USec"), value: Value::U64(time) })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "within the range that is checked first"
)]
fn microseconds_of(seconds: f64) -> Option<u64> {
    let time = seconds * MICROSECONDS as f64;
    (0.0..9e18).contains(&time).then_some(time as u64)
}

/// Reads one value and nothing behind it.
fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let value = parser.value()?;
    match parser.rest.trim_start() {
        "" => Ok(value),
        rest => Err(format!("unexpected {rest:?}")),
    }
}

/// The words that give a number its type.
const TYPES: [(&str, &str); 8] = [
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
];

/// The D-Bus specification's bound on arrays, and on structures, inside one another.
const DEEPEST: u32 = 32;

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn skip(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Goes one level down for a value in a value.
    fn below(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, String>) -> Result<Value, String> {
        if self.depth == DEEPEST {
            return Err(format!("more than {DEEPEST} values inside one another"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn value(&mut self) -> Result<Value, String> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some(quote @ ('\'' | '"')) => self.string(quote).map(Value::Text),
            Some('[') => {
                let values = self.list('[', ']')?;
                let Some(first) = values.first() else {
                    return Err("an empty list needs a type, as in @as []".to_owned());
                };
                array(first.signature(), values)
            }
            Some('(') => self.list('(', ')').map(Value::Struct),
            Some('<') => {
                self.skip('<');
                let inner = self.below(Self::value)?;
                if self.skip('>') { Ok(Value::Variant(Box::new(inner))) } else { Err("missing >".to_owned()) }
            }
            Some('@') => {
                self.skip('@');
                let end = self.rest.find(char::is_whitespace).ok_or("a value is missing")?;
                let (signature, rest) = self.rest.split_at(end);
                self.rest = rest.trim_start();
                self.below(|parser| parser.typed(signature))
            }
            Some(_) => {
                let word = self.word();
                if let Some((_, signature)) = TYPES.iter().find(|(name, _)| *name == word) {
                    self.rest = self.rest.trim_start();
                    return self.typed(signature);
                }
                match word {
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    "objectpath" => self.after_keyword().map(Value::Path),
                    "signature" => self.after_keyword().map(Value::Signature),
                    number if number.contains('.') => numeric("d", number),
                    number => numeric("i", number),
                }
            }
        }
    }

    fn after_keyword(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.string(quote),
            Some(_) | None => Err("a string is missing".to_owned()),
        }
    }

    fn typed(&mut self, signature: &str) -> Result<Value, String> {
        if let Some(element) = signature.strip_prefix('a') {
            if !self.rest.starts_with('[') {
                return Err(format!("no list of type {signature}"));
            }
            let values = if self.rest.strip_prefix('[').is_some_and(|r| r.trim_start().starts_with(']')) {
                self.list('[', ']')?
            } else {
                self.skip('[');
                let mut values = vec![self.typed_element(element)?];
                while self.skip(',') {
                    values.push(self.typed_element(element)?);
                }
                if !self.skip(']') {
                    return Err("missing ]".to_owned());
                }
                values
            };
            return array(element.to_owned(), values);
        }
        if TYPES.iter().any(|(_, known)| *known == signature) {
            return numeric(signature, self.word());
        }
        let value = self.value()?;
        if value.signature() == signature { Ok(value) } else { Err(format!("no value of type {signature}")) }
    }

    fn typed_element(&mut self, element: &str) -> Result<Value, String> {
        self.rest = self.rest.trim_start();
        self.below(|parser| parser.typed(element))
    }

    fn list(&mut self, open: char, close: char) -> Result<Vec<Value>, String> {
        self.skip(open);
        let mut values = Vec::new();
        if self.skip(close) {
            return Ok(values);
        }
        loop {
            values.push(self.below(Self::value)?);
            if self.skip(close) {
                return Ok(values);
            }
            if !self.skip(',') {
                return Err(format!("missing {close}"));
            }
            // A tuple of one is written (1,).
            if close == ')' && self.skip(close) {
                return Ok(values);
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c)) => text.push(c),
                    None => break,
                },
                // A D-Bus string holds none.
                '\0' => return Err("a string with a zero byte".to_owned()),
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(format!("missing {quote}"))
    }
}

fn array(element: String, values: Vec<Value>) -> Result<Value, String> {
    match values.iter().find(|value| value.signature() != element) {
        None => Ok(Value::Array(element, values)),
        Some(odd) => Err(format!("a list of {element} holds a {}", odd.signature())),
    }
}

fn numeric(signature: &str, word: &str) -> Result<Value, String> {
    fn read<T: TryFrom<i128>>(word: &str) -> Option<T> {
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let number = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16).ok()?,
            None => digits.parse().ok()?,
        };
        T::try_from(if negative { -number } else { number }).ok()
    }
    let value = match signature {
        "y" => read(word).map(Value::Byte),
        "n" => read(word).map(Value::I16),
        "q" => read(word).map(Value::U16),
        "i" => read(word).map(Value::I32),
        "u" => read(word).map(Value::U32),
        "x" => read(word).map(Value::I64),
        "t" => read(word).map(Value::U64),
        _ => word.parse().ok().map(Value::Double),
    };
    value.ok_or_else(|| format!("{word:?} is no value of type {signature}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn values_are_read_as_gvariant_writes_them() {
        let texts = |texts: &[&str]| texts.iter().map(|t| Value::text(*t)).collect::<Vec<_>>();
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""it's""#, Value::text("it's")),
            (r"'it\'s'", Value::text("it's")),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x1f", Value::I32(31)),
            ("1.5", Value::Double(1.5)),
            ("uint64 123000000", Value::U64(123_000_000)),
            (" int64 -3 ", Value::I64(-3)),
            ("byte 0xff", Value::Byte(255)),
            ("@t 7", Value::U64(7)),
            ("@as []", Value::Array("s".into(), vec![])),
            ("['a', 'b']", Value::Array("s".into(), texts(&["a", "b"]))),
            ("@au [1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            (
                "[('/dev/null', 'rw')]",
                Value::Array("(ss)".into(), vec![Value::Struct(texts(&["/dev/null", "rw"]))]),
            ),
            ("(uint32 1,)", Value::Struct(vec![Value::U32(1)])),
            ("<true>", Value::Variant(Box::new(Value::Bool(true)))),
            ("objectpath '/a'", Value::Path("/a".into())),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "'a",
            "[",
            "[]",
            "['a', 1]",
            "[1",
            "yes",
            "byte 256",
            "uint64 -1",
            "5 6",
            "@as 5",
            "(1",
            "<1",
            "@s 1",
            "'a\0b'",
            "@",
            "uint64",
            // A D-Bus value has at most 32 levels, and the stack has an end.
            &"[".repeat(1 << 20),
            &"(".repeat(1 << 20),
            &"<".repeat(1 << 20),
            &format!("@{} {}", "a".repeat(1 << 20), "[".repeat(1 << 20)),
        ] {
            assert!(parse(text).is_err(), "{text:?} was {:?}", parse(text));
        }
    }

    fn planned(key: &str, text: &str) -> Result<Vec<Property>, Invalid> {
        plan(&BTreeMap::from([(key.to_owned(), text.to_owned())]))
    }

    #[test]
    fn seconds_become_microseconds() {
        for (name, text, time) in [
            ("TimeoutStopSec", "uint64 5", 5_000_000),
            ("TimeoutStopSec", "5", 5_000_000),
            ("TimeoutStopSec", "1.5", 1_500_000),
            ("TimeoutStopUSec", "uint64 7", 7),
        ] {
            let properties = planned(&format!("{PREFIX}{name}"), text).unwrap();
            assert_eq!(properties, [Property { name: "TimeoutStopUSec".into(), value: Value::U64(time) }]);
        }
        for text in ["'5'", "-5", "uint64 18446744073709551615"] {
            let error = planned("org.systemd.property.TimeoutStopSec", text).unwrap_err();
            assert!(error.to_string().contains("is a time in seconds"), "{error}");
        }
    }

    #[test]
    fn names_are_of_letters_and_others_are_not_ours() {
        assert_eq!(planned("org.example", "5").unwrap(), []);
        for key in ["org.systemd.property.Ab", "org.systemd.property.A1b", "org.systemd.property."] {
            let error = planned(key, "5").unwrap_err();
            assert_eq!(error.at, format!(".annotations[{key:?}]"));
        }
    }
}
