//! Standard output and standard error, whose ends may be closed.

use std::io::Write;

use anyhow::{Context, Result};

/// Writes what a command is for.
pub fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to standard output")
}

/// Writes help: nothing is to be done when nobody reads it.
pub fn best_effort(text: &str) {
    drop(write(text));
}

/// One line on standard error, in one call, so that lines of concurrent commands do not mix.
pub fn line(text: &str) {
    drop(std::io::stderr().write_all(format!("{}\n", plain(text)).as_bytes()));
}

/// A text without what moves a terminal's cursor: names in images and registries are anybody's.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
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
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
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
    fn nothing_moves_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\r\u{9b}ü"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}ü");
    }

    #[test]
    fn tables_are_as_wide_as_their_cells() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["X", "Y"], &rows), "X      Y\na      1\nlong\n");
    }
}
