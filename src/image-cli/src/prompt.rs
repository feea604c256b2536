//! Asking a person at the terminal for a name and a password.
//!
//! The terminal itself is asked, not standard input, so that a script's pipe is not taken for an answer. While a
//! password is typed nothing is shown, and the terminal gives signals as characters: whoever presses Ctrl-C
//! gets the terminal back as it was.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use rustix::termios::{
    ControlModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// Longer answers are somebody's mistake.
const MAX: usize = 64 << 10;

/// The terminal, if there is one.
pub fn terminal() -> Option<File> {
    let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
    rustix::termios::isatty(&file).then_some(file)
}

/// What the user is called; `known` is taken when nothing is typed.
pub fn user(terminal: &mut File, known: Option<&str>) -> Result<String> {
    let question = known.map_or("Username: ".to_owned(), |known| format!("Username ({known}): "));
    terminal.write_all(question.as_bytes()).context("write to the terminal")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX && terminal.read(&mut byte).context("read the terminal")? == 1 && byte[0] != b'\n'
    {
        line.push(byte[0]);
    }
    let name = String::from_utf8(line).context("the user's name")?;
    match (name.trim(), known) {
        ("", Some(known)) => Ok(known.to_owned()),
        ("", None) => bail!("no user was named"),
        (name, _) => Ok(name.to_owned()),
    }
}

/// A password, which is not shown.
pub fn password(terminal: &mut File) -> Result<String> {
    let before = tcgetattr(&*terminal).context("tcgetattr")?;
    let typed = {
        let _back = Restore { terminal: terminal.try_clone().context("dup")?, before: before.clone() };
        tcsetattr(&*terminal, OptionalActions::Flush, &silent(before)).context("tcsetattr")?;
        // After that: what answers the question at once would be shown, and flushed.
        terminal.write_all(b"Password: ").context("write to the terminal")?;
        type_in(terminal)
    };
    // The line feed that was typed was not shown either.
    terminal.write_all(b"\n").context("write to the terminal")?;
    let password = String::from_utf8(typed?).context("the password")?;
    if password.is_empty() {
        bail!("no password was given");
    }
    Ok(password)
}

/// No echo, no lines, no signals (termios(3)).
fn silent(mut modes: Termios) -> Termios {
    modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
    modes.control_modes |= ControlModes::CREAD;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

/// Puts the terminal back as it was.
struct Restore {
    terminal: File,
    before: Termios,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Nothing is left to try when this fails.
        tcsetattr(&self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}

const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE: [u8; 2] = [8, 127];
const KILL: u8 = 21;

fn type_in(terminal: &mut impl Read) -> Result<Vec<u8>> {
    let mut typed: Vec<u8> = Vec::new();
    let mut byte = [0];
    loop {
        if terminal.read(&mut byte).context("read the terminal")? == 0 {
            return Ok(typed);
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(typed),
            END if typed.is_empty() => return Ok(typed),
            INTERRUPT => bail!("interrupted"),
            KILL => typed.clear(),
            byte if ERASE.contains(&byte) => {
                // A character of UTF-8 goes as a whole: its first byte is not a continuation.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            _ if typed.len() == MAX => bail!("a password of more than {MAX} bytes"),
            byte => typed.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::type_in;

    #[test]
    fn keys_that_edit_do_what_they_do_elsewhere() {
        let typed = |keys: &str| type_in(&mut keys.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(typed("secret\rmore").unwrap(), "secret");
        assert_eq!(typed("wrong\u{15}right\n").unwrap(), "right");
        assert_eq!(typed("aü\u{7f}\u{8}b\n").unwrap(), "b");
        assert_eq!(typed("\u{4}").unwrap(), "");
        assert_eq!(typed("ab\u{3}\n").unwrap_err().to_string(), "interrupted");
    }
}
