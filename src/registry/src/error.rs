//! What goes wrong between creel and a registry: one line with the host, the cause and the next step.
//!
//! No text here holds a credential: requests are named by path without their query, because a signed
//! URL's query is a credential, and what servers say is cut to one line of printable characters.

use std::fmt;
use std::path::PathBuf;

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The name does not resolve.
    UnknownHost,
    /// Nothing listens, or there is no route.
    Refused,
    /// The certificate or the handshake was refused.
    Tls,
    /// What answered does not speak TLS.
    NotTls,
    /// Nothing came within the limit.
    Timeout,
    /// The connection ended within an answer.
    Broken,
    /// The proxy refused the connection.
    Proxy,
}

/// What was sent along with a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// No credential is stored for the registry.
    Nothing,
    /// A credential from the place named: a file with its key, or a helper.
    From(String),
}

/// An error of the registry client.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No answer.
    Unreachable {
        /// Name and port.
        host: String,
        /// The kind of cause.
        fault: Fault,
        /// The cause in words.
        cause: String,
    },
    /// The registry or its token server wants another credential (401, 403).
    Denied {
        /// Name and port.
        host: String,
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        reason: String,
        /// What was sent.
        tried: Tried,
        /// The name to log in to.
        registry: Box<str>,
    },
    /// Any other status that is not the one asked for.
    Status {
        /// Name and port.
        host: String,
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        reason: String,
        /// What the server said of when to come back, in seconds.
        retry_after: Option<u64>,
    },
    /// More bytes than allowed.
    TooLarge {
        /// Name and port.
        host: String,
        /// What was fetched.
        what: String,
        /// In bytes.
        limit: u64,
    },
    /// The bytes are not those asked for.
    WrongDigest {
        /// Name and port.
        host: String,
        /// What was fetched.
        what: String,
        /// The digest asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// The server holds another number of bytes than the descriptor names.
    WrongSize {
        /// Name and port.
        host: String,
        /// What was fetched.
        what: String,
        /// In bytes, by the descriptor.
        expected: u64,
        /// In bytes, by the server.
        actual: u64,
    },
    /// An answer against the protocol.
    Malformed {
        /// Name and port.
        host: String,
        /// Method and path.
        request: String,
        /// What is wrong with it.
        why: String,
    },
    /// A redirect that is not followed.
    Redirect {
        /// Who redirects.
        host: String,
        /// The name and port it points to.
        to: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// registries.conf forbids the registry.
    Blocked {
        /// The prefix that matched.
        prefix: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// policy.json does not let the image be used.
    Policy {
        /// The file.
        path: PathBuf,
        /// Transport and scope in it.
        place: String,
        /// The requirement that is not met.
        requirement: String,
    },
    /// A file of configuration or credentials that cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        why: String,
    },
    /// A credential helper that gave no answer.
    Helper {
        /// The program.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// What was to be pushed could not be read.
    Source {
        /// The blob's digest.
        what: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// A name or value of the caller that the protocol has no place for.
    Invalid(String),
    /// Every mirror and the registry itself failed, in the order they were asked.
    Everywhere(Vec<Error>),
}

impl Error {
    /// The HTTP status, where an answer came.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if let Self::Everywhere(errors) = self {
            return errors.last().and_then(Self::status);
        }
        if let Self::Denied { status, .. } | Self::Status { status, .. } = self {
            Some(*status)
        } else {
            None
        }
    }

    /// Whether the registry says that it does not have what was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether asking again, with another credential or later, gives the same answer.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Status { status, .. } => (400..500).contains(status) && !matches!(status, 408 | 425 | 429),
            Self::TooLarge { .. } | Self::WrongSize { .. } | Self::Malformed { .. } => true,
            Self::Everywhere(errors) => errors.iter().all(Self::is_final),
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::WrongDigest { .. }
            | Self::Redirect { .. }
            | Self::Blocked { .. }
            | Self::Policy { .. }
            | Self::File { .. }
            | Self::Helper { .. }
            | Self::Source { .. }
            | Self::Invalid(_) => false,
        }
    }

    /// The error inside of one that came through `Read`.
    ///
    /// # Errors
    /// Gives the error back when it is not of this crate.
    pub fn from_io(error: std::io::Error) -> Result<Error, std::io::Error> {
        error.downcast::<Error>()
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { host, fault, cause } => write!(f, "{host}: {cause}{}", fault.hint()),
            Self::Denied { host, request, status, reason, tried, registry } => {
                write!(f, "{host}: {request}: {}{}; ", status_words(*status), after_colon(reason))?;
                match tried {
                    Tried::Nothing => write!(
                        f,
                        "no credential was sent: the name may be wrong, or log in with \"creel login {registry}\""
                    ),
                    Tried::From(source) => write!(
                        f,
                        "the credential came from {source}, renew it with \"creel login {registry}\""
                    ),
                }
            }
            Self::Status { host, request, status, reason, retry_after } => {
                write!(f, "{host}: {request}: {}{}", status_words(*status), after_colon(reason))?;
                match (status, retry_after) {
                    (_, Some(seconds)) => write!(f, "; try again in {seconds} s"),
                    (429, None) => write!(f, "; try again later, or log in for a higher limit"),
                    (404, None) => write!(f, "; check the name, the tag and the registry"),
                    (500..=599, None) => write!(f, "; try again later"),
                    _ => Ok(()),
                }
            }
            Self::TooLarge { host, what, limit } => {
                write!(f, "{host}: {what}: larger than {limit} bytes")
            }
            Self::WrongDigest { host, what, expected, actual } => write!(
                f,
                "{host}: {what}: expected {expected}, got {actual}; the registry or a proxy before it altered it"
            ),
            Self::WrongSize { host, what, expected, actual } => {
                write!(f, "{host}: {what}: expected {expected} bytes, the server has {actual}")
            }
            Self::Malformed { host, request, why } => write!(f, "{host}: {request}: {why}"),
            Self::Redirect { host, to, why } => write!(f, "{host}: redirect to {to}: {why}"),
            Self::Blocked { prefix, path } => {
                write!(f, "{prefix}: blocked by {}", path.display())
            }
            Self::Policy { path, place, requirement } => {
                write!(f, "{} ({place}) ", path.display())?;
                match requirement.as_str() {
                    "reject" => f.write_str("forbids it; name another policy with --signature-policy"),
                    other => write!(
                        f,
                        "wants a signature ({other}), which creel cannot check; name another policy with --signature-policy"
                    ),
                }
            }
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Helper { program, path, why } => {
                write!(f, "{program}, named by {}: {why}", path.display())
            }
            Self::Source { what, cause } => write!(f, "{what}: read: {cause}"),
            Self::Invalid(why) => f.write_str(why),
            Self::Everywhere(errors) => {
                for (n, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if n == 0 { "" } else { " | " })?;
                }
                Ok(())
            }
        }
    }
}

impl Fault {
    fn hint(self) -> &'static str {
        match self {
            Self::UnknownHost => "; check the name and the resolver",
            Self::Refused => "; check the name, the port and that the registry runs",
            Self::Tls => {
                "; for a private CA put its certificate into certs.d, for none at all mark the registry insecure"
            }
            Self::NotTls => "; a registry of plain HTTP must be marked insecure in registries.conf",
            Self::Timeout | Self::Broken => "; check the network and try again",
            Self::Proxy => "; check HTTPS_PROXY and NO_PROXY",
        }
    }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn status_words(status: u16) -> String {
    let words = ureq::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    match words {
        Some(words) => format!("{status} {}", words.to_ascii_lowercase()),
        None => status.to_string(),
    }
}

/// What a server said, as one line: printable characters, single spaces, at most 300 characters.
pub(crate) fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = printable.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(300) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Fault, Tried, one_line};

    #[test]
    fn each_error_is_one_line_with_the_host_and_the_next_step() {
        let denied = |tried| Error::Denied {
            host: "registry.example".into(),
            request: "GET /v2/app/manifests/1".into(),
            status: 401,
            reason: "authentication required".into(),
            tried,
            registry: "registry.example".into(),
        };
        let cases = [
            (
                Error::Unreachable {
                    host: "registry.example".into(),
                    fault: Fault::Refused,
                    cause: "connection refused".into(),
                },
                "registry.example: connection refused; check the name, the port and that the registry runs",
            ),
            (
                denied(Tried::Nothing),
                "registry.example: GET /v2/app/manifests/1: 401 unauthorized: authentication required; no credential was sent: the name may be wrong, or log in with \"creel login registry.example\"",
            ),
            (
                denied(Tried::From("/home/a/.docker/config.json (key \"registry.example\")".into())),
                "registry.example: GET /v2/app/manifests/1: 401 unauthorized: authentication required; the credential came from /home/a/.docker/config.json (key \"registry.example\"), renew it with \"creel login registry.example\"",
            ),
            (
                Error::Status {
                    host: "registry.example".into(),
                    request: "GET /v2/app/manifests/1".into(),
                    status: 429,
                    reason: String::new(),
                    retry_after: Some(60),
                },
                "registry.example: GET /v2/app/manifests/1: 429 too many requests; try again in 60 s",
            ),
        ];
        for (error, line) in cases {
            assert_eq!(error.to_string(), line);
        }
    }

    #[test]
    fn words_of_servers_cannot_move_the_cursor() {
        assert_eq!(one_line("a\r\n\x1b[2Jb\t c"), "a [2Jb c");
        assert_eq!(one_line(&"x".repeat(400)).len(), 303);
    }
}
