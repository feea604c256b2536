//! The log that engines parse.
//!
//! A line is `time="..." level=error msg="..."` or, with `--log-format json`,
//! `{"level":"error","msg":"...","time":"..."}`, times in RFC 3339. containerd decodes the JSON
//! file as a stream and keeps the last error; podman decodes the whole file as one object, so at
//! the default level a JSON log gets the error that ends the command and nothing else. Warnings
//! are written to a text log, and to a JSON log only with `--debug`. They never go to standard
//! error instead: there, `create` has the container's own standard error.
//!
//! The other crates report through `tracing`. A subscriber is installed only when the log takes
//! more than errors, so an engine's calls pay one atomic load per event.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::Daemon;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::program::reason;
use creel_container::time::rfc3339;

mod daemon;

/// Shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Where log lines go.
#[derive(Debug)]
pub struct Log {
    /// None is standard error.
    sink: Option<Sink>,
    format: Format,
    level: Level,
}

/// Another place than standard error.
#[derive(Debug)]
enum Sink {
    File(File),
    /// systemd-journald or syslog, which are crun's.
    Daemon(Daemon),
}

static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// Text on standard error: the default, and for errors found before the log is known.
    pub fn to_stderr() -> Log {
        Log { sink: None, format: Format::Text, level: Level::WARN }
    }

    /// Opens the log that the global flags ask for. It is appended to: engines give several
    /// commands the same file.
    pub fn open(target: Option<&OsStr>, format: &OsStr, level: &OsStr) -> Result<Log, String> {
        let format = match format.to_str() {
            Some("" | "text") => Format::Text,
            Some("json") => Format::Json,
            _ => return Err(format!("invalid log-format: {}", format.to_string_lossy())),
        };
        let level = match (level.to_str(), format) {
            (Some("debug"), _) => Level::DEBUG,
            (Some("error"), _) | (Some(""), Format::Json) => Level::ERROR,
            (Some("warning"), _) | (Some(""), Format::Text) => Level::WARN,
            _ => return Err(format!("invalid log-level: {}", level.to_string_lossy())),
        };
        Ok(Log { sink: target.map(Sink::open).transpose()?, format, level })
    }

    /// The one error that ends a command: into the log, and bare to standard error when the log is
    /// a file.
    pub fn error(&self, message: &str) {
        self.write(Level::ERROR, message);
        if self.sink.is_some() {
            to_stderr(format!("{message}\n").as_bytes());
        }
    }

    /// Writes one line in one call, so that lines of concurrent commands do not mix.
    fn write(&self, level: Level, message: &str) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(self.format, level, message, &rfc3339(since_epoch.as_secs(), 0));
        let written = match &self.sink {
            None => return to_stderr(line.as_bytes()),
            Some(Sink::File(file)) => {
                let mut file: &File = file;
                file.write_all(line.as_bytes())
            }
            Some(Sink::Daemon(daemon)) => daemon.write(level, message),
        };
        if let Err(error) = written {
            to_stderr(format!("log: write: {}\n", reason(&error)).as_bytes());
        }
    }
}

impl Sink {
    /// `[file:]PATH`, `journald:ID` or `syslog:ID`.
    fn open(target: &OsStr) -> Result<Sink, String> {
        let id = |prefix: &str| {
            let id = target.as_bytes().strip_prefix(prefix.as_bytes())?;
            Some(String::from_utf8_lossy(id).into_owned())
        };
        if let Some(id) = id("journald:") {
            return Daemon::journald(id).map(Sink::Daemon);
        }
        if let Some(id) = id("syslog:") {
            return Daemon::syslog(id).map(Sink::Daemon);
        }
        let path = target.as_bytes().strip_prefix(b"file:").unwrap_or(target.as_bytes());
        let path = Path::new(OsStr::from_bytes(path));
        let opened = File::options().append(true).create(true).open(path);
        opened.map(Sink::File).map_err(|error| format!("open {}: {}", path.display(), reason(&error)))
    }
}

/// Makes `log` the log of this process.
pub fn install(log: Log) -> &'static Log {
    let log = LOG.get_or_init(|| log);
    if log.level > Level::ERROR {
        // It fails only when there is one already, which then stays.
        drop(tracing::subscriber::set_global_default(Forward(log)));
    }
    log
}

/// Standard error may be closed or full; there is nowhere left to say so.
fn to_stderr(bytes: &[u8]) {
    drop(std::io::stderr().write_all(bytes));
}

/// One log line with its newline.
fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", text_value(message)),
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
    }
}

/// Quotes a value as logrus does: not when it is one plain word.
fn text_value(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if value.bytes().all(plain) {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            printable => quoted.push(printable),
        }
    }
    quoted.push('"');
    quoted
}

/// Passes events of creel's crates on to the log.
struct Forward(&'static Log);

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.0.level))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0.write(*event.metadata().level(), &text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as one line: the message, then `key=value` for each field.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let separator = if self.0.is_empty() { "" } else { " " };
        self.0.push_str(separator);
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
        self.0.push_str(&format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const TIME: &str = "2026-01-02T03:04:05Z";

    #[test]
    fn a_json_line_is_one_object_with_runcs_keys_in_order() {
        let line = line(Format::Json, Level::ERROR, "a \"b\"\nc", TIME);
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2026-01-02T03:04:05Z\"}\n"
        );
    }

    #[test]
    fn a_text_line_is_quoted_as_logrus_quotes() {
        let text = |message| line(Format::Text, Level::WARN, message, TIME);
        assert_eq!(text("two words"), format!("time=\"{TIME}\" level=warning msg=\"two words\"\n"));
        assert_eq!(text("plain/word-1.x"), format!("time=\"{TIME}\" level=warning msg=plain/word-1.x\n"));
        assert_eq!(
            text("a\"\\\n\u{7}é"),
            format!("time=\"{TIME}\" level=warning msg=\"a\\\"\\\\\\n\\u0007é\"\n")
        );
    }

    #[test]
    fn a_log_is_appended_to_and_json_takes_errors_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        for message in ["one", "two"] {
            let log = Log::open(Some(path.as_os_str()), OsStr::new("json"), OsStr::new("")).unwrap();
            assert_eq!(log.level, Level::ERROR);
            log.write(Level::ERROR, message);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let messages: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"].to_string())
            .collect();
        assert_eq!(messages, ["\"one\"", "\"two\""]);
    }

    #[test]
    fn a_wrong_format_and_a_missing_directory_are_errors() {
        let wrong = Log::open(None, OsStr::new("xml"), OsStr::new("")).unwrap_err();
        assert_eq!(wrong, "invalid log-format: xml");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/log");
        let missing = Log::open(Some(path.as_os_str()), OsStr::new(""), OsStr::new("")).unwrap_err();
        assert!(missing.starts_with(&format!("open {}: ", path.display())), "{missing}");
    }

    #[test]
    fn levels_are_crun_s_words() {
        let level =
            |format: &str, level: &str| Log::open(None, format.as_ref(), level.as_ref()).map(|log| log.level);
        assert_eq!(level("text", ""), Ok(Level::WARN));
        assert_eq!(level("text", "error"), Ok(Level::ERROR));
        assert_eq!(level("json", "warning"), Ok(Level::WARN));
        assert_eq!(level("json", "debug"), Ok(Level::DEBUG));
        assert_eq!(level("json", "loud"), Err("invalid log-level: loud".to_owned()));
    }

    #[test]
    fn a_file_may_be_called_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let target = format!("file:{}", path.display());
        Log::open(Some(target.as_ref()), OsStr::new(""), OsStr::new("")).unwrap().write(Level::WARN, "one");
        assert!(std::fs::read_to_string(&path).unwrap().contains("msg=one"));
    }

    #[test]
    fn events_of_other_crates_reach_a_text_log_up_to_its_level() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::open(Some(path.as_os_str()), OsStr::new("text"), OsStr::new("")).unwrap();
        tracing::subscriber::with_default(Forward(Box::leak(Box::new(log))), || {
            tracing::warn!(capability = "CAP_X", "unknown capability");
            tracing::debug!("not shown");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with(" level=warning msg=\"unknown capability capability=\\\"CAP_X\\\"\"\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
