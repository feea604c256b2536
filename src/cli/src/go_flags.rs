//! Go's flag syntax, which engines write and clap does not read.
//!
//! `-pid-file x`, `--pid-file x`, `-pid-file=x` and `--pid-file=x` are the same flag, one dash or
//! two; a switch takes `=true` or `=false`; `-abc` is one flag named `abc`, never three; the word
//! after a flag that needs a value is its value whatever it begins with. `--` ends the flags.
//! (<https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>)

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Present or absent, or `=BOOL`.
    Switch,
    /// Followed by a value.
    Value,
}

/// One word of the command line, with its value if it has one.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a, F> {
    /// A switch turned on or off.
    Switch(F, bool),
    /// A flag and its value.
    Value(F, &'a OsStr),
    /// A flag that nobody knows, without its dashes and value, and the whole word.
    Unknown(String, &'a OsStr),
    /// Neither flag nor value.
    Operand(&'a OsStr),
    /// `--`
    End,
}

/// Splits a command line into [`Item`]s; `find` knows the flags by name.
pub struct Scanner<'a, L> {
    args: std::slice::Iter<'a, OsString>,
    find: L,
}

impl<'a, F, L: Fn(&str) -> Option<(F, Kind)>> Scanner<'a, L> {
    /// Starts at the first of `args`.
    pub fn new(args: &'a [OsString], find: L) -> Self {
        Scanner { args: args.iter(), find }
    }

    /// What has not been scanned.
    pub fn rest(&self) -> &'a [OsString] {
        self.args.as_slice()
    }

    /// The next item; errors are in the words of Go's flag package.
    pub fn item(&mut self) -> Result<Option<Item<'a, F>>, String> {
        let Some(word) = self.args.next() else { return Ok(None) };
        let bytes = word.as_bytes();
        let flag = match bytes {
            b"-" => return Ok(Some(Item::Operand(word))),
            b"--" => return Ok(Some(Item::End)),
            [b'-', b'-', flag @ ..] | [b'-', flag @ ..] => flag,
            _ => return Ok(Some(Item::Operand(word))),
        };
        if matches!(flag.first(), None | Some(b'-' | b'=')) {
            return Err(format!("bad flag syntax: {}", word.to_string_lossy()));
        }
        let mut parts = flag.splitn(2, |byte| *byte == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let value = parts.next().map(OsStr::from_bytes);
        let Some((flag, kind)) = (self.find)(&name) else {
            return Ok(Some(Item::Unknown(name.into_owned(), word)));
        };
        let item = match (kind, value) {
            (Kind::Switch, None) => Item::Switch(flag, true),
            (Kind::Switch, Some(value)) => {
                let on = value
                    .to_str()
                    .and_then(parse_bool)
                    .ok_or_else(|| format!("invalid boolean value {value:?} for -{name}: parse error"))?;
                Item::Switch(flag, on)
            }
            (Kind::Value, Some(value)) => Item::Value(flag, value),
            (Kind::Value, None) => {
                let value = self.args.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                Item::Value(flag, value)
            }
        };
        Ok(Some(item))
    }
}

/// The words of Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Rewrites a command's words into what clap reads without doubt: `--long` or `--long=value`, then
/// `--` and the operands. Where `flags_stop` at the first operand (exec, whose operands are another
/// program's command line) the rest is left alone; elsewhere known flags may follow operands.
pub fn canonical(
    command: &clap::Command,
    flags_stop: bool,
    args: &[OsString],
) -> Result<Vec<OsString>, String> {
    let mut words = Vec::with_capacity(args.len() + 2);
    let mut operands: Vec<OsString> = Vec::new();
    words.push(OsString::from(command.get_name()));
    let mut scanner = Scanner::new(args, |name| {
        command.get_arguments().find_map(|arg| {
            let long = arg.get_long()?;
            let short = arg.get_short().is_some_and(|short| name.chars().eq([short]));
            let kind = if arg.get_action().takes_values() { Kind::Value } else { Kind::Switch };
            (name == long || short).then_some((long, kind))
        })
    });
    while let Some(item) = scanner.item()? {
        match item {
            Item::Switch(long, on) => {
                let word = OsString::from(format!("--{long}"));
                words.retain(|earlier| *earlier != word);
                if on {
                    words.push(word);
                }
            }
            Item::Value(long, value) => {
                let mut word = OsString::from(format!("--{long}="));
                word.push(value);
                words.push(word);
            }
            Item::Unknown(name, _) if operands.is_empty() => {
                return Err(format!("flag provided but not defined: -{name}"));
            }
            Item::Operand(word) | Item::Unknown(_, word) => operands.push(word.to_owned()),
            Item::End => {
                operands.extend_from_slice(scanner.rest());
                break;
            }
        }
        if flags_stop && !operands.is_empty() {
            operands.extend_from_slice(scanner.rest());
            break;
        }
    }
    words.push(OsString::from("--"));
    words.append(&mut operands);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn words(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    fn find(name: &str) -> Option<(&'static str, Kind)> {
        match name {
            "log" => Some(("log", Kind::Value)),
            "debug" => Some(("debug", Kind::Switch)),
            _ => None,
        }
    }

    #[test]
    fn one_dash_and_two_are_the_same_flag() {
        for args in [&["-log", "x"][..], &["--log", "x"], &["-log=x"], &["--log=x"]] {
            let args = words(args);
            let item = Scanner::new(&args, find).item().unwrap().unwrap();
            assert_eq!(item, Item::Value("log", OsStr::new("x")), "{args:?}");
        }
    }

    #[test]
    fn the_word_after_a_flag_is_its_value_even_with_a_dash() {
        let args = words(&["-log", "-debug"]);
        let item = Scanner::new(&args, find).item().unwrap().unwrap();
        assert_eq!(item, Item::Value("log", OsStr::new("-debug")));
    }

    #[test]
    fn errors_have_the_words_of_gos_flag_package() {
        for (word, message) in [
            ("---debug", "bad flag syntax: ---debug"),
            ("-=x", "bad flag syntax: -=x"),
            ("--log", "flag needs an argument: -log"),
            ("--debug=maybe", "invalid boolean value \"maybe\" for -debug: parse error"),
        ] {
            let args = words(&[word]);
            assert_eq!(Scanner::new(&args, find).item().unwrap_err(), message);
        }
    }

    #[test]
    fn a_lone_dash_is_an_operand_and_two_end_the_flags() {
        let args = words(&["-", "--", "--debug"]);
        let mut scanner = Scanner::new(&args, find);
        assert_eq!(scanner.item().unwrap().unwrap(), Item::Operand(OsStr::new("-")));
        assert_eq!(scanner.item().unwrap().unwrap(), Item::End);
        assert_eq!(scanner.rest(), &words(&["--debug"])[..]);
    }
}
