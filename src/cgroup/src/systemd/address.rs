//! Where systemd listens.
//!
//! The system bus for root, the bus of the session for everyone else; where there is no bus, or one that
//! does not answer, systemd's own socket. The bus comes first although a daemon is in the path: a
//! connection to its own socket costs PID 1, which has one thread, two thirds more time than the
//! same calls over the bus cost it (docs/design/0012).

use std::fmt;
use std::path::Path;

/// systemd's own socket. It serves root alone.
const PRIVATE: &str = "/run/systemd/private";
/// The well-known socket of the system bus.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// A socket to reach systemd by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Path, or name in the abstract namespace.
    pub path: String,
    /// unix(7), abstract.
    pub is_abstract: bool,
    /// A bus is in between: it wants a Hello, and the calls a destination.
    pub is_bus: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_abstract { "@" } else { "" }, self.path)
    }
}

/// Whose systemd: that of the machine or that of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instance {
    /// PID 1.
    System,
    /// `systemd --user` of the caller.
    User,
}

/// The part of the environment that says where the buses are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// DBUS_SYSTEM_BUS_ADDRESS
    pub system_bus: Option<String>,
    /// DBUS_SESSION_BUS_ADDRESS
    pub session_bus: Option<String>,
    /// XDG_RUNTIME_DIR
    pub runtime_dir: Option<String>,
}

impl Environment {
    /// That of this process.
    pub fn own() -> Environment {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Environment {
            system_bus: get("DBUS_SYSTEM_BUS_ADDRESS"),
            session_bus: get("DBUS_SESSION_BUS_ADDRESS"),
            runtime_dir: get("XDG_RUNTIME_DIR"),
        }
    }

    /// Root of a user namespace may be a user who mapped itself (podman), with that user's systemd, or
    /// the root of a container that has a systemd of its own. Only the former has a session.
    pub fn has_session(&self) -> bool {
        match &self.runtime_dir {
            Some(dir) => dir.trim_end_matches('/') != "/run/user/0",
            None => self.session_bus.is_some(),
        }
    }

    /// The sockets to try, in order.
    pub fn addresses(&self, instance: Instance) -> Vec<Address> {
        match instance {
            Instance::System => match &self.system_bus {
                Some(bus) => parse(bus),
                None => vec![
                    Address { path: SYSTEM_BUS.to_owned(), is_abstract: false, is_bus: true },
                    Address { path: PRIVATE.to_owned(), is_abstract: false, is_bus: false },
                ],
            },
            Instance::User => match (&self.session_bus, &self.runtime_dir) {
                (Some(bus), _) => parse(bus),
                (None, Some(dir)) => {
                    let at = |name: &str, is_bus| Address {
                        path: Path::new(dir).join(name).to_string_lossy().into_owned(),
                        is_abstract: false,
                        is_bus,
                    };
                    vec![at("bus", true), at("systemd/private", false)]
                }
                (None, None) => Vec::new(),
            },
        }
    }
}

/// Reads a list of D-Bus server addresses: `unix:path=/run/dbus/x,guid=...;unix:abstract=...`. Other
/// transports are passed over.
fn parse(list: &str) -> Vec<Address> {
    let mut addresses = Vec::new();
    for address in list.split(';') {
        let Some(options) = address.strip_prefix("unix:") else { continue };
        for option in options.split(',') {
            let (path, is_abstract) = match option.split_once('=') {
                Some(("path", path)) => (unescape(path), false),
                Some(("abstract", name)) => (unescape(name), true),
                Some(_) | None => continue,
            };
            addresses.push(Address { path, is_abstract, is_bus: true });
        }
    }
    addresses
}

/// Bytes outside a small set are `%XX` in an address.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default()).ok();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(escaped) if byte == b'%' => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            Some(_) | None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(environment: &Environment, instance: Instance) -> Vec<String> {
        let show = |a: &Address| format!("{a}{}", if a.is_bus { " bus" } else { "" });
        environment.addresses(instance).iter().map(show).collect()
    }

    #[test]
    fn root_has_two_ways_unless_a_bus_is_named() {
        let mut environment = Environment::default();
        assert_eq!(
            shown(&environment, Instance::System),
            ["/run/dbus/system_bus_socket bus", "/run/systemd/private"]
        );
        environment.system_bus = Some("unix:path=/tmp/bus".into());
        assert_eq!(shown(&environment, Instance::System), ["/tmp/bus bus"]);
    }

    #[test]
    fn a_user_has_the_bus_of_the_session() {
        let mut environment =
            Environment { runtime_dir: Some("/run/user/1000".into()), ..Environment::default() };
        assert_eq!(
            shown(&environment, Instance::User),
            ["/run/user/1000/bus bus", "/run/user/1000/systemd/private"]
        );
        environment.session_bus = Some("tcp:host=x;unix:path=/a%20b,guid=0;unix:abstract=/tmp/x".into());
        assert_eq!(shown(&environment, Instance::User), ["/a b bus", "@/tmp/x bus"]);
        assert!(shown(&Environment::default(), Instance::User).is_empty());
    }

    #[test]
    fn root_in_a_user_namespace_is_a_user_only_with_a_users_session() {
        let of = |bus: Option<&str>, dir: Option<&str>| {
            Environment {
                session_bus: bus.map(str::to_owned),
                runtime_dir: dir.map(str::to_owned),
                ..Environment::default()
            }
            .has_session()
        };
        assert!(of(None, Some("/run/user/1000")));
        assert!(of(Some("unix:path=/x"), None));
        assert!(!of(None, None));
        assert!(!of(Some("unix:path=/run/user/0/bus"), Some("/run/user/0")));
    }

    #[test]
    fn percent_signs_that_escape_nothing_stay() {
        assert_eq!(unescape("a%2fb%zz%4"), "a/b%zz%4");
    }
}
