//! The name creel was called by, and how a command fails.

use std::ffi::OsString;
use std::path::Path;

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

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::new(message)
    }
}
