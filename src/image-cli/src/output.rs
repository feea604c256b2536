//! Standard output and standard error, whose ends may be closed.
//!
//! Much of what is told are words of strangers: platforms, types, file names of images. They are written so that no
//! terminal obeys them, here, where all lines pass.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

/// Writes what a command is for: lines, of whatever words.
pub fn write(text: &str) -> Result<()> {
    write_bytes(&escaped(text, &['\n', '\t']))
}

/// Writes a document byte by byte; but a terminal gets it as all else.
pub fn write_document(text: &str) -> Result<()> {
    if std::io::stdout().is_terminal() { write(text) } else { write_bytes(text) }
}

/// A word, or a line, of a stranger's within lines.
pub fn word(text: &str) -> Cow<'_, str> {
    escaped(text, &[])
}

/// The text with what moves a cursor, gives a terminal orders, or turns the direction of a line written as JSON
/// writes it: such a character in a JSON string stays the same.
fn escaped<'a>(text: &'a str, keep: &[char]) -> Cow<'a, str> {
    let is_order = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() || turns) && !keep.contains(&c)
    };
    if !text.contains(is_order) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_order(c) { shown.push_str(&format!("\\u{:04x}", u32::from(c))) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn write_bytes(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to standard output")
}

/// Writes help: nothing is to be done when nobody reads it.
pub fn best_effort(text: &str) {
    drop(write(text));
}

/// One line on standard error, in one call, so that lines of concurrent commands do not mix.
pub fn line(text: &str) {
    drop(std::io::stderr().write_all(format!("{}\n", word(text)).as_bytes()));
}

/// The error that ends a command.
pub fn error(text: &str) {
    line(&format!("creel: {text}"));
}

/// Something that the user should know of.
pub fn warning(text: &str) {
    line(&format!("creel: warning: {text}"));
}

/// Rows under a heading, columns three spaces apart.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| std::array::from_fn(|cell| word(&row[cell]).into_owned())).collect();
    let width = |column: usize| {
        rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// A size as people read it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_strangers_give_a_terminal_no_orders() {
        for (text, shown) in [
            ("plain \u{e4}\u{6f22}", "plain \u{e4}\u{6f22}"),
            ("a\x1b[31mRED", "a\\u001b[31mRED"),
            ("a\r\nb\x7f\u{9b}2J", "a\\u000d\\u000ab\\u007f\\u009b2J"),
            ("\u{202e}gpj", "\\u202egpj"),
        ] {
            assert_eq!(word(text), shown);
        }
        assert_eq!(escaped("a\n\tb\x07\n", &['\n', '\t']), "a\n\tb\\u0007\n");
        let document = serde_json::json!({"a": "\u{9b}\x1b\x7f"});
        let shown = word(&document.to_string()).into_owned();
        assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(document));
        let rows = [["x\ny".to_owned()]];
        assert_eq!(table(["A"], &rows), "A\nx\\u000ay\n");
    }

    #[test]
    fn sizes_have_two_or_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_400, "99.4 kB"),
            (999_999, "1.0 MB"),
            (2_140_000_000, "2.1 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_are_as_wide_as_their_cells() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["X", "Y"], &rows), "X      Y\na      1\nlong\n");
    }
}
