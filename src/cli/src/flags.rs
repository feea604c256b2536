//! Flags: the tables that scanning and help read, and Go's flag syntax, which engines write.
//!
//! `-pid-file x`, `--pid-file x`, `-pid-file=x` and `--pid-file=x` are the same flag, one dash or
//! two; a switch takes `=true` or `=false`; `-abc` is one flag named `abc`, never three; the word
//! after a flag that needs a value is its value whatever it begins with; `--` ends the flags
//! (<https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>). clap reads another syntax and costs
//! 30 to 45 us of each call, so it only renders help.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=BOOL`.
    Switch,
    /// A value, shown in help by this name.
    Value(&'static str),
    /// A count.
    Number,
}

/// One flag.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Name without dashes.
    pub long: &'static str,
    /// One letter that means the same.
    pub short: Option<char>,
    /// What follows it.
    pub kind: Kind,
    /// Help text; a flag without one is not shown.
    pub help: &'static str,
}

impl Flag {
    /// A flag that is there or not.
    pub const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind: Kind::Switch, help }
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, name: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind: Kind::Value(name), help }
    }

    /// A flag with a count.
    pub const fn number(long: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, kind: Kind::Number, help }
    }

    /// Gives it a letter.
    pub const fn short(self, letter: char) -> Flag {
        Flag { short: Some(letter), ..self }
    }

    /// Whether `name`, without dashes, means this flag.
    pub fn is_named(&self, name: &str) -> bool {
        name == self.long || self.short.is_some_and(|letter| name.chars().eq([letter]))
    }
}

/// One word of the command line, with its value if it has one.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A switch turned on or off.
    Switch(&'static Flag, bool),
    /// A flag and its value.
    Value(&'static Flag, &'a OsStr),
    /// A flag that nobody knows: its name, and the whole word.
    Unknown(String, &'a OsStr),
    /// Neither flag nor value.
    Operand(&'a OsStr),
    /// `--`
    End,
}

/// What is said of a flag that nobody knows.
pub fn not_defined(name: &str) -> String {
    format!("flag provided but not defined: -{name}")
}

/// Splits a command line into [`Item`]s; `find` knows the flags by name.
pub struct Scanner<'a, L> {
    args: std::slice::Iter<'a, OsString>,
    find: L,
}

impl<'a, L: Fn(&str) -> Option<&'static Flag>> Scanner<'a, L> {
    /// Starts at the first of `args`.
    pub fn new(args: &'a [OsString], find: L) -> Self {
        Scanner { args: args.iter(), find }
    }

    /// What has not been scanned.
    pub fn rest(&self) -> &'a [OsString] {
        self.args.as_slice()
    }

    /// The next item; errors are in the words of Go's flag package.
    pub fn item(&mut self) -> Result<Option<Item<'a>>, String> {
        let Some(word) = self.args.next() else { return Ok(None) };
        let flag = match word.as_bytes() {
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
        let Some(flag) = (self.find)(&name) else {
            return Ok(Some(Item::Unknown(name.into_owned(), word)));
        };
        if flag.kind == Kind::Switch {
            let on = value.map_or(Some(true), |value| value.to_str().and_then(parse_bool));
            let value = value.unwrap_or_default();
            let on = on.ok_or_else(|| format!("invalid boolean value {value:?} for -{name}: parse error"))?;
            return Ok(Some(Item::Switch(flag, on)));
        }
        let value = value
            .or_else(|| self.args.next().map(OsString::as_os_str))
            .ok_or_else(|| format!("flag needs an argument: -{name}"))?;
        if flag.kind == Kind::Number && parse_number(value).is_none() {
            return Err(format!("invalid value {value:?} for flag -{name}: parse error"));
        }
        Ok(Some(Item::Value(flag, value)))
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

fn parse_number(value: &OsStr) -> Option<u32> {
    value.to_str()?.parse().ok()
}

/// A subcommand's words: flags in the order given, and operands.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words<'a> {
    switches: Vec<&'static str>,
    values: Vec<(&'static str, &'a OsStr)>,
    /// What is neither flag nor value.
    pub operands: Vec<&'a OsStr>,
}

impl<'a> Words<'a> {
    /// Reads `args`. Where `flags_stop` at the first operand (exec, whose operands are another
    /// program's command line) the rest is left alone; elsewhere known flags may follow operands,
    /// and unknown ones there are operands, as in runc.
    pub fn read(
        args: &'a [OsString],
        flags_stop: bool,
        find: impl Fn(&str) -> Option<&'static Flag>,
    ) -> Result<Words<'a>, String> {
        let mut words = Words::default();
        let mut scanner = Scanner::new(args, find);
        while let Some(item) = scanner.item()? {
            match item {
                Item::Switch(flag, on) => {
                    words.switches.retain(|earlier| *earlier != flag.long);
                    words.switches.extend(on.then_some(flag.long));
                }
                Item::Value(flag, value) => words.values.push((flag.long, value)),
                Item::Unknown(name, _) if words.operands.is_empty() => return Err(not_defined(&name)),
                Item::Operand(word) | Item::Unknown(_, word) => words.operands.push(word),
                Item::End => {
                    words.operands.extend(scanner.rest().iter().map(OsString::as_os_str));
                    break;
                }
            }
            if flags_stop && !words.operands.is_empty() {
                words.operands.extend(scanner.rest().iter().map(OsString::as_os_str));
                break;
            }
        }
        Ok(words)
    }

    /// Whether a switch is on.
    pub fn has(&self, long: &str) -> bool {
        self.switches.contains(&long)
    }

    /// All values of a flag.
    pub fn all(&self, long: &str) -> impl Iterator<Item = &'a OsStr> {
        self.values.iter().filter(move |(flag, _)| *flag == long).map(|(_, value)| *value)
    }

    /// The value of a flag; the last counts, and an empty one is none.
    pub fn value(&self, long: &str) -> Option<&'a OsStr> {
        self.all(long).last().filter(|value| !value.is_empty())
    }

    /// The value of a flag that counts.
    pub fn number(&self, long: &str) -> u32 {
        self.value(long).and_then(parse_number).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
