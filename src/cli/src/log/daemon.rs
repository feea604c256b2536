//! Log lines for systemd-journald (systemd's documentation, "Native Journal Protocol") and for syslog
//! (RFC 3164, as syslog(3) writes it to /dev/log): one datagram each.

use std::os::unix::net::UnixDatagram;

use tracing::Level;

use crate::program::reason;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// LOG_USER of syslog(3).
const FACILITY: u8 = 1;

/// A connected logging daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    socket: UnixDatagram,
    protocol: Protocol,
    id: String,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Journal,
    Syslog,
}

impl Daemon {
    pub fn journald(id: String) -> Result<Daemon, String> {
        Daemon::connect(JOURNAL, Protocol::Journal, id)
    }

    pub fn syslog(id: String) -> Result<Daemon, String> {
        Daemon::connect(SYSLOG, Protocol::Syslog, id)
    }

    fn connect(path: &str, protocol: Protocol, id: String) -> Result<Daemon, String> {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
        let id = if id.is_empty() { "creel".to_owned() } else { id };
        socket
            .map(|socket| Daemon { socket, protocol, id })
            .map_err(|error| format!("connect {path}: {}", reason(&error)))
    }

    pub fn write(&self, level: Level, message: &str) -> std::io::Result<()> {
        self.socket.send(&datagram(self.protocol, &self.id, level, message)).map(drop)
    }
}

fn datagram(protocol: Protocol, id: &str, level: Level, message: &str) -> Vec<u8> {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    match protocol {
        Protocol::Syslog => format!("<{}>{id}: {message}", FACILITY * 8 + priority).into_bytes(),
        Protocol::Journal => {
            let mut bytes = format!("PRIORITY={priority}\n").into_bytes();
            for (name, value) in [("SYSLOG_IDENTIFIER", id), ("MESSAGE", message)] {
                field(&mut bytes, name, value);
            }
            bytes
        }
    }
}

/// `NAME=value`, or, since a value may hold a line feed, its length in front of it.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_journal_gets_fields_and_lengths_of_long_ones() {
        let plain = datagram(Protocol::Journal, "web", Level::WARN, "a = b");
        assert_eq!(plain, b"PRIORITY=4\nSYSLOG_IDENTIFIER=web\nMESSAGE=a = b\n");
        let long = datagram(Protocol::Journal, "web", Level::ERROR, "a\nb");
        assert_eq!(long, b"PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn syslog_gets_priority_and_tag() {
        assert_eq!(datagram(Protocol::Syslog, "web", Level::ERROR, "no"), b"<11>web: no");
        assert_eq!(datagram(Protocol::Syslog, "web", Level::DEBUG, "so"), b"<15>web: so");
    }

    #[test]
    fn a_line_reaches_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let log = Daemon::connect(path.to_str().unwrap(), Protocol::Syslog, String::new()).unwrap();
        log.write(Level::WARN, "hello").unwrap();
        let mut buffer = [0u8; 64];
        let count = daemon.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"<12>creel: hello");
        let missing = directory.path().join("none");
        let error = Daemon::connect(missing.to_str().unwrap(), Protocol::Journal, "a".into()).unwrap_err();
        assert!(error.contains("/none: ENOENT"), "{error}");
    }
}
