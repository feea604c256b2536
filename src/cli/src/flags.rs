//! Flags: the tables that scanning and help read, and Go's flag syntax, which engines write.
//!
//! `-pid-file x`, `--pid-file x`, `-pid-file=x` and `--pid-file=x` are the same flag, one dash or
//! two; a switch takes `=true` or `=false`; `-abc` is one flag named `abc`, never three; the word
//! after a flag that needs a value is its value whatever it begins with; `--` ends the flags
//! (<https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=BOOL`.
    Switch,
    /// A value, shown in help by this name.
    Value(&'static str),
    /// A whole number, as Go reads one: `0x10` and `1_000` too.
    Number,
    /// A length of time, such as `1m30s`.
    Duration,
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
    /// What holds when it is not given, for help; empty when there is nothing to say.
    pub default: &'static str,
}

impl Flag {
    /// A flag that is there or not.
    pub const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Switch, help)
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, name: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Value(name), help)
    }

    /// A flag with a whole number.
    pub const fn number(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Number, help)
    }

    /// A flag with a length of time.
    pub const fn duration(long: &'static str, help: &'static str) -> Flag {
        Flag::new(long, Kind::Duration, help)
    }

    const fn new(long: &'static str, kind: Kind, help: &'static str) -> Flag {
        Flag { long, short: None, kind, help, default: "" }
    }

    /// Says in help what holds without it.
    pub const fn default(self, text: &'static str) -> Flag {
        Flag { default: text, ..self }
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
        let valid = match flag.kind {
            Kind::Switch | Kind::Value(_) => true,
            Kind::Number => parse_number(value).is_some(),
            Kind::Duration => parse_duration(value).is_some(),
        };
        if !valid {
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

/// Go's `strconv.ParseInt` with base 0: a sign, a prefix for the base, `_` between digits.
fn parse_number(value: &OsStr) -> Option<i64> {
    let text = value.to_str()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let prefixed = base != 10;
    let well_placed =
        !digits.ends_with('_') && !digits.contains("__") && (prefixed || !digits.starts_with('_'));
    let plain = digits.replace('_', "");
    if !well_placed || plain.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{plain}"), base).ok()
}

/// Go's `time.ParseDuration` for lengths from 0 on: numbers with units, such as `1.5h` or `1m30s`.
fn parse_duration(value: &OsStr) -> Option<Duration> {
    let text = value.to_str()?;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    // A negative length is one, and then too short.
    let negative = rest.starts_with('-');
    rest = rest.strip_prefix('-').unwrap_or(rest);
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(total).ok() }
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

    /// The value of a flag that takes a number.
    pub fn number(&self, long: &str) -> Option<i64> {
        self.value(long).and_then(parse_number)
    }

    /// The value of a flag that takes a length of time; a negative one is none at all.
    pub fn duration(&self, long: &str) -> Option<Duration> {
        self.value(long).and_then(parse_duration)
    }
}

#[cfg(test)]
mod tests;
