//! The name creel was called by, and how a command fails.

use std::ffi::OsString;
use std::path::Path;

use creel_plan::names::{errno_name, errno_text};

/// How this process was started.
pub struct Program {
    /// argv[0] as given; runc's argument count messages begin with it.
    pub argv0: String,
    /// `creel`, or `runc` when called by that name.
    pub name: &'static str,
}

impl Program {
    /// Reads argv[0].
    pub fn of(argv0: Option<&OsString>) -> Program {
        let argv0 = argv0.map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let name = match Path::new(&argv0).file_name() {
            Some(base) if base == "runc" => "runc",
            _ => "creel",
        };
        Program { argv0, name }
    }

    /// The last component of argv[0], under which help shows how to call it.
    pub fn base(&self) -> &str {
        let base = Path::new(&self.argv0).file_name().and_then(|base| base.to_str());
        base.filter(|base| !base.is_empty()).unwrap_or(self.name)
    }
}

/// Why creel exits with another code than 0.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// One line for the log.
    pub message: String,
    /// Usage text for stdout, when the command line was wrong.
    pub usage: Option<String>,
}

impl Failure {
    /// A failed command: exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into(), usage: None }
    }

    /// A wrong command line: a heading, then the help of the program or command.
    pub fn usage(heading: String, help: String, message: String) -> Failure {
        Failure { code: 1, message, usage: Some(format!("{heading}\n\n{help}")) }
    }

    /// The same with another exit code.
    pub fn code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }
}

/// An error of the system as `ENOENT (no such file or directory)`.
pub fn reason(error: &std::io::Error) -> String {
    let number = error.raw_os_error().unwrap_or_default();
    match (errno_name(number), errno_text(number)) {
        (Some(name), Some(text)) => format!("{name} ({text})"),
        _ => error.to_string(),
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_name_runc_is_runc() {
        for (argv0, name) in
            [("/usr/sbin/runc", "runc"), ("runc", "runc"), ("/runc/creel", "creel"), ("runc2", "creel")]
        {
            assert_eq!(Program::of(Some(&OsString::from(argv0))).name, name, "{argv0}");
        }
        assert_eq!(Program::of(None).name, "creel");
    }

    #[test]
    fn system_errors_have_a_symbol_and_words() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(reason(&error), "ENOENT (no such file or directory)");
    }
}
