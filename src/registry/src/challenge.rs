//! `WWW-Authenticate`: what a registry asks for with a 401.
//!
//! RFC 9110, 11.6.1: a header holds several challenges, and a challenge several parameters, both
//! separated by commas, so only the `=` after a name tells a parameter from the next scheme. Quoted
//! values hold commas and escapes. Registries also send bare URLs as values, which the grammar
//! forbids; they are read up to the next comma or space. Any text at all gives a list, perhaps an
//! empty one, and never an error: a scheme that cannot be read is one that cannot be answered.

/// One scheme with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Names in lower case, values unquoted, in the order they came.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first value given for `name`, which is in lower case.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header value, in order.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut text = Text { bytes: header.as_bytes(), at: 0 };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        text.skip(|byte| byte == b',' || is_space(byte));
        let name = text.take(is_token);
        if name.is_empty() {
            // A byte that can start nothing here: step over it, so that the loop ends.
            if text.next().is_none() {
                return challenges;
            }
            continue;
        }
        if let (Some(value), Some(open)) = (text.parameter_value(), challenges.last_mut()) {
            open.parameters.push((name.to_ascii_lowercase(), value));
            continue;
        }
        challenges.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
        text.skip_token68();
    }
}

/// A cursor over the header's bytes. Every cut is at an ASCII byte, so what lies between two cuts of a
/// string is whole characters.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, wanted: fn(u8) -> bool) {
        while self.peek().is_some_and(wanted) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: fn(u8) -> bool) -> String {
        let start = self.at;
        self.skip(wanted);
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    /// The value after `=`, or nothing, and no step taken, when the name before is a scheme.
    fn parameter_value(&mut self) -> Option<String> {
        let start = self.at;
        self.skip(is_space);
        if self.peek() != Some(b'=') {
            self.at = start;
            return None;
        }
        self.at += 1;
        self.skip(is_space);
        if self.peek() != Some(b'"') {
            return Some(self.take(|byte| byte != b',' && !is_space(byte)));
        }
        self.at += 1;
        Some(self.quoted())
    }

    /// The rest of a quoted string; one that never ends is read to the end.
    fn quoted(&mut self) -> String {
        let mut value = Vec::new();
        while let Some(byte) = self.next() {
            match byte {
                b'"' => break,
                b'\\' => value.extend(self.next()),
                _ => value.push(byte),
            }
        }
        String::from_utf8_lossy(&value).into_owned()
    }

    /// Credentials in the form of `Negotiate YII=`: no parameters, and nothing creel answers.
    fn skip_token68(&mut self) {
        let start = self.at;
        self.skip(is_space);
        self.skip(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        self.skip(|byte| byte == b'=');
        let end = self.at;
        self.skip(is_space);
        if end == start || !matches!(self.peek(), None | Some(b',')) {
            self.at = start;
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::{Challenge, parse};

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Challenge { scheme: scheme.into(), parameters }
    }

    #[test]
    fn headers_of_real_registries_are_read() {
        let cases: &[(&str, Vec<Challenge>)] = &[
            ("", vec![]),
            ("Basic realm=\"Registry Realm\"", vec![challenge("basic", &[("realm", "Registry Realm")])]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull,push\"",
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.example/token"),
                        ("service", "registry.example"),
                        ("scope", "repository:a/b:pull,push"),
                    ],
                )],
            ),
            (
                "BEARER Realm = \"https://a\" , SERVICE=x, basic realm=\"y\"",
                vec![
                    challenge("bearer", &[("realm", "https://a"), ("service", "x")]),
                    challenge("basic", &[("realm", "y")]),
                ],
            ),
            (
                "Bearer realm=https://a/t?x=1,service=b",
                vec![challenge("bearer", &[("realm", "https://a/t?x=1"), ("service", "b")])],
            ),
            (
                "Negotiate, NTLM TlRMTVNTUAAB==, Basic realm=\"a \\\"b\\\"\"",
                vec![
                    challenge("negotiate", &[]),
                    challenge("ntlm", &[]),
                    challenge("basic", &[("realm", "a \"b\"")]),
                ],
            ),
            ("Bearer realm=\"open", vec![challenge("bearer", &[("realm", "open")])]),
            (",, ;;Basic", vec![challenge("basic", &[])]),
        ];
        for (header, expected) in cases {
            assert_eq!(&parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_value_before_any_scheme_is_no_parameter_of_nothing() {
        assert_eq!(parse("realm=\"x\"").first().unwrap().scheme, "realm");
    }

    fn quote(value: &str) -> String {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }

    fn arbitrary_challenge() -> impl Strategy<Value = Challenge> {
        let parameter = ("[a-z][a-z0-9_-]{0,8}", "\\PC{0,20}");
        ("[a-z][a-z0-9-]{0,8}", prop::collection::vec(parameter, 1..4))
            .prop_map(|(scheme, parameters)| Challenge { scheme, parameters })
    }

    proptest! {
        #[test]
        fn any_text_gives_a_list(header in ".{0,200}") {
            let limit = header.len();
            prop_assert!(parse(&header).len() <= limit);
        }

        #[test]
        fn what_is_written_is_read_back(challenges in prop::collection::vec(arbitrary_challenge(), 0..4)) {
            let text: Vec<String> = challenges
                .iter()
                .map(|c| {
                    let parameters: Vec<String> =
                        c.parameters.iter().map(|(n, v)| format!("{n}={}", quote(v))).collect();
                    format!("{} {}", c.scheme.to_uppercase(), parameters.join(", "))
                })
                .collect();
            prop_assert_eq!(parse(&text.join(", ")), challenges);
        }
    }
}
