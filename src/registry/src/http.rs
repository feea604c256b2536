//! One HTTP exchange, and the redirects of those that only read.
//!
//! Connections are kept and shared per origin; certificates and the proxy are chosen per origin too.
//! Redirects are followed here and not in ureq, because their rules are the protocol's safety: the
//! `Authorization` of a registry never goes to another origin (a signed URL of a blob store refuses a
//! request that has one, and the store has no business with it), and nothing falls from https to http.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::http::header::{self, HeaderName};
use ureq::http::{HeaderMap, HeaderValue, Method, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody, SendBody};

use crate::config::certs::Certificates;
use crate::config::proxy::Proxies;
use crate::date;
use crate::error::{Error, Fault, Tried, one_line};
use crate::location::{self, Origin};
use crate::reach::{self, BeyondResolver, Reach};

/// Docker stops after ten as well.
const MAX_REDIRECTS: usize = 10;
/// What is read of a body that explains a refusal.
const MAX_EXPLANATION: u64 = 64 << 10;
const MAX_HEADERS: usize = 64 << 10;
/// Warnings of a registry that are passed on.
const MAX_NOTICES: usize = 10;

/// Where a registry's own words go that are no error.
#[derive(Clone)]
pub struct Notice(pub std::sync::Arc<dyn Fn(&str) + Send + Sync>);

impl Default for Notice {
    /// Nobody is told.
    fn default() -> Self {
        Self(std::sync::Arc::new(|_| {}))
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notice(..)")
    }
}

/// Whose certificates are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Those of the system and of the host's certs.d.
    Authorities,
    /// Anyone's: the registry is marked insecure.
    Anyone,
}

/// A request but for its body.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Sent to the origin of `uri` only.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) trust: Trust,
    pub(crate) reach: Reach,
}

impl Request {
    pub(crate) fn new(method: Method, uri: Uri, trust: Trust) -> Self {
        Self { method, uri, headers: HeaderMap::new(), authorization: None, trust, reach: Reach::Anywhere }
    }

    /// With a header whose value creel made; one that is no header value is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// A request's body.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    Stream { reader: &'a mut dyn Read, length: u64 },
}

/// An answer whose body was not read yet.
pub(crate) struct Response {
    pub(crate) origin: Origin,
    pub(crate) uri: Uri,
    /// Method and path, for messages.
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: ureq::Body,
}

/// The open connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) certificates: Certificates,
    pub(crate) proxies: Proxies,
    pub(crate) user_agent: String,
    /// For the name, the connection and the handshake.
    pub(crate) connect: Duration,
    /// Between two pieces of an answer.
    pub(crate) idle: Duration,
    pub(crate) agents: Mutex<HashMap<(Origin, Trust, Reach), Agent>>,
    pub(crate) notice: Notice,
    /// What registries warned of, each said once.
    pub(crate) noticed: Mutex<HashSet<String>>,
}

impl Connections {
    /// Sends, and follows the redirects of GET and HEAD.
    pub(crate) fn send(&self, mut request: Request, payload: Payload<'_>) -> Result<Response, Error> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return self.exchange(&request, payload);
        }
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(&request, Payload::None)?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response
                .header(header::LOCATION)
                .and_then(|target| location::resolve(&request.uri, target))
                .ok_or_else(|| response.malformed("a redirect without a usable Location"))?;
            let to = origin_of(&target)?;
            if response.origin.https && !to.https {
                let why = "from https to http, which is not followed";
                return Err(Error::Redirect { host: response.origin.name(), to: to.name(), why });
            }
            if to != response.origin {
                request.authorization = None;
            }
            request.uri = target;
        }
        let origin = origin_of(&request.uri)?;
        let why = "more redirects than are followed";
        Err(Error::Redirect { host: origin.name(), to: origin.name(), why })
    }

    fn exchange(&self, request: &Request, payload: Payload<'_>) -> Result<Response, Error> {
        let origin = origin_of(&request.uri)?;
        if request.reach == Reach::Beyond {
            // An address needs no resolver, and a proxy does not use this one.
            let literal = origin.host.trim_matches(['[', ']']).parse().ok();
            if let Some(address) = literal.filter(|address| reach::is_near(*address)) {
                let (host, fault) = (origin.name(), Fault::Refused);
                return Err(Error::Unreachable { host, fault, cause: reach::refusal(address) });
            }
        }
        let agent = self.agent(&origin, request.trust, request.reach)?;
        let answer = match payload {
            Payload::None => run(&agent, request, ()),
            Payload::Bytes(bytes) => run(&agent, request, bytes),
            Payload::Stream { reader, length } => {
                let mut request = request.clone();
                request.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                run(&agent, &request, SendBody::from_reader(reader))
            }
        };
        let named = format!("{} {}", request.method, request.uri.path());
        match answer {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                self.pass_warnings(&origin, &parts.headers);
                let status = parts.status.as_u16();
                Ok(Response {
                    origin,
                    uri: request.uri.clone(),
                    request: named,
                    status,
                    headers: parts.headers,
                    body,
                })
            }
            Err(error) => Err(failure(&origin, &error, self.connect, self.idle)),
        }
    }

    /// What a registry wants its users to know (distribution-spec, "Warnings"): `Warning: 299 - "text"`.
    fn pass_warnings(&self, origin: &Origin, headers: &HeaderMap) {
        for header in headers.get_all(header::WARNING) {
            let Some(text) = warning(&String::from_utf8_lossy(header.as_bytes())) else { continue };
            let said = format!("{}: {text}", origin.name());
            let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
            if noticed.len() < MAX_NOTICES && noticed.insert(said.clone()) {
                self.notice.0(&said);
            }
        }
    }

    fn agent(&self, origin: &Origin, trust: Trust, reach: Reach) -> Result<Agent, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin.clone(), trust, reach);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = self.proxies.choose(origin);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(self.user_agent.clone())
            // A proxy that compresses a blob on its way would change its digest.
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADERS)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(self.connect))
            .timeout_per_read(Some(self.idle))
            .timeout_per_write(Some(self.idle))
            .proxy(proxy.clone());
        if origin.https {
            config = config.tls_config(self.tls(origin, trust)?);
        }
        let agent = match reach {
            Reach::Anywhere => config.build().new_agent(),
            Reach::Beyond => Agent::with_parts(
                config.build(),
                DefaultConnector::default(),
                BeyondResolver::new(proxy.as_ref()),
            ),
        };
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn tls(&self, origin: &Origin, trust: Trust) -> Result<TlsConfig, Error> {
        let own = self.certificates.of_host(&origin.name())?;
        let mut config = TlsConfig::builder()
            .client_cert(own.client)
            .unversioned_rustls_crypto_provider(self.certificates.provider());
        config = match trust {
            Trust::Anyone => config.disable_verification(true).root_certs(RootCerts::new_with_certs(&[])),
            Trust::Authorities => {
                let mut authorities = own.authorities;
                match self.certificates.system() {
                    Ok(system) => authorities.extend(system.iter().cloned()),
                    Err(cause) if authorities.is_empty() => {
                        return Err(Error::Unreachable { host: origin.name(), fault: Fault::Tls, cause });
                    }
                    // The host's own authority is enough for the host.
                    Err(_) => {}
                }
                config.root_certs(RootCerts::new_with_certs(&authorities))
            }
        };
        Ok(config.build())
    }
}

fn run(
    agent: &Agent,
    request: &Request,
    body: impl AsSendBody,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let mut message = ureq::http::Request::builder().method(&request.method).uri(&request.uri).body(body)?;
    *message.headers_mut() = request.headers.clone();
    if let Some(value) = &request.authorization {
        message.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    agent.run(message)
}

pub(crate) fn origin_of(uri: &Uri) -> Result<Origin, Error> {
    Origin::of(uri).ok_or_else(|| Error::Invalid(format!("{}: not a URL of http or https", uri.path())))
}

impl Response {
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The length of the body by the header, where it is told.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// `Content-Type` without its parameters.
    pub(crate) fn media_type(&self) -> Option<&str> {
        Some(self.header(header::CONTENT_TYPE)?.split(';').next()?.trim()).filter(|text| !text.is_empty())
    }

    /// Where the answer points, as an absolute URL.
    pub(crate) fn location(&self) -> Result<Uri, Error> {
        self.header(header::LOCATION)
            .and_then(|target| location::resolve(&self.uri, target))
            .ok_or_else(|| self.malformed("an answer without a usable Location"))
    }

    pub(crate) fn malformed(&self, why: impl Into<String>) -> Error {
        Error::Malformed { host: self.origin.name(), request: self.request.clone(), why: why.into() }
    }

    pub(crate) fn into_reader(self) -> Box<dyn Read + Send> {
        Box::new(self.body.into_reader())
    }

    /// The whole body, when it is no longer than `limit`.
    pub(crate) fn bytes(self, limit: u64) -> Result<Vec<u8>, Error> {
        let (origin, what, declared) = (self.origin.clone(), self.request.clone(), self.length());
        let too_large = || Error::TooLarge { host: origin.name(), what: what.clone(), limit };
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        self.into_reader()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| read_failure(&origin, &error))?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
    }

    /// Reads what is left of a body that nobody needs, so that the connection serves again.
    pub(crate) fn drain(self) {
        // What fails here fails the next request on a new connection, if at all.
        io::copy(&mut self.into_reader().take(MAX_EXPLANATION), &mut io::sink()).ok();
    }

    /// The error that a status means, with the server's explanation.
    pub(crate) fn refusal(self) -> Error {
        let (host, request, status) = (self.origin.name(), self.request.clone(), self.status);
        let (retry_after, limit) = (self.retry_after(), self.rate_limit());
        let reason = match (self.reason(), limit) {
            (reason, None) => reason,
            (reason, Some(limit)) if reason.is_empty() => limit,
            (reason, Some(limit)) => format!("{reason} ({limit})"),
        };
        Error::Status { host, request, status, reason, retry_after }
    }

    /// How many pulls are allowed and left, where the registry tells (docker.io does, `100;w=21600`).
    fn rate_limit(&self) -> Option<String> {
        rate_limit(self.header("ratelimit-limit")?, self.header("ratelimit-remaining"))
    }

    /// The error of a credential that was refused, or of none.
    pub(crate) fn denial(self, tried: Tried, registry: &str) -> Error {
        let (host, request, status) = (self.origin.name(), self.request.clone(), self.status);
        Error::Denied { host, request, status, reason: self.reason(), tried, registry: registry.into() }
    }

    /// The server's words. An explanation that breaks off is still one; a page for people is none.
    fn reason(self) -> String {
        if self.media_type().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) {
            return String::new();
        }
        let mut body = Vec::new();
        self.into_reader().take(MAX_EXPLANATION).read_to_end(&mut body).ok();
        explanation(&body)
    }

    /// `Retry-After` in seconds from now, whether it is a number or a date by the server's own clock.
    fn retry_after(&self) -> Option<u64> {
        let text = self.header(header::RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(seconds);
        }
        let now = self.header(header::DATE).and_then(date::parse_http).unwrap_or_else(seconds_now);
        u64::try_from((date::parse_http(text)? - now).max(0)).ok()
    }
}

/// The text of a warning that is for users: code 299, from nobody in particular.
fn warning(header: &str) -> Option<String> {
    let text = header.trim().strip_prefix("299 - \"")?;
    let mut said = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some(one_line(&said)).filter(|said| !said.is_empty()),
            '\\' => said.extend(rest.next()),
            other => said.push(other),
        }
    }
}

/// `NUMBER;w=SECONDS` in words.
fn rate_limit(limit: &str, remaining: Option<&str>) -> Option<String> {
    let number = |text: &str| text.split(';').next()?.trim().parse::<u64>().ok();
    let window =
        limit.split(';').skip(1).find_map(|part| part.trim().strip_prefix("w=")?.parse::<u64>().ok());
    let mut words = format!("the limit is {}", number(limit)?);
    if let Some(window) = window {
        words.push_str(&format!(" in {window} s"));
    }
    if let Some(remaining) = remaining.and_then(number) {
        words.push_str(&format!(", {remaining} left"));
    }
    Some(words)
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn seconds_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The words in the body of a refusal: a registry's list of errors, a token server's, or plain text.
pub(crate) fn explanation(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Ok(document) = serde_json::from_str::<serde_json::Value>(&text) else {
        return one_line(&text);
    };
    let field = |value: &serde_json::Value, name: &str| {
        value.get(name).and_then(|text| text.as_str()).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut parts = Vec::new();
    for error in document.get("errors").and_then(|errors| errors.as_array()).into_iter().flatten() {
        let message = field(error, "message").or_else(|| field(error, "code")).unwrap_or_default();
        match field(error, "detail") {
            Some(detail) if detail != message => parts.push(format!("{message}: {detail}")),
            _ => parts.push(message),
        }
    }
    for name in ["error_description", "details", "message", "error"] {
        if parts.is_empty() {
            parts.extend(field(&document, name));
        }
    }
    one_line(&parts.join(", "))
}

/// The error of a body that broke off.
pub(crate) fn read_failure(origin: &Origin, error: &io::Error) -> Error {
    let fault = io_fault(error);
    let cause = if fault == Fault::Timeout {
        "nothing came for too long within an answer".to_owned()
    } else {
        format!("the connection broke within an answer ({})", one_line(&error.to_string()))
    };
    Error::Unreachable { host: origin.name(), fault, cause }
}

fn io_fault(error: &io::Error) -> Fault {
    if let Some(inner) = error.get_ref() {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return tls_fault(tls);
        }
        if let Some(ureq::Error::Timeout(_)) = inner.downcast_ref::<ureq::Error>() {
            return Fault::Timeout;
        }
    }
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut, WouldBlock,
    };
    let kind = error.kind();
    if matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable) {
        Fault::Refused
    } else if matches!(kind, TimedOut | WouldBlock) {
        Fault::Timeout
    } else {
        Fault::Broken
    }
}

fn tls_fault(error: &rustls::Error) -> Fault {
    if matches!(error, rustls::Error::InvalidMessage(_)) { Fault::NotTls } else { Fault::Tls }
}

/// ureq's error as the fault and the words of this crate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "ureq's list is open, and what is not named here is a broken exchange"
)]
fn failure(origin: &Origin, error: &ureq::Error, connect: Duration, idle: Duration) -> Error {
    let (fault, cause) = match error {
        ureq::Error::HostNotFound => (Fault::UnknownHost, "the name has no address".into()),
        // getaddrinfo(3)'s errors have no kind of their own.
        ureq::Error::Io(e) if e.to_string().contains("failed to lookup address") => {
            (Fault::UnknownHost, one_line(&e.to_string()))
        }
        ureq::Error::Io(e) => {
            let words = if e.raw_os_error().is_some() { os_words(e) } else { one_line(&e.to_string()) };
            (io_fault(e), words)
        }
        // Not the fault of a slow server, and nothing that a second try would mend soon.
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (Fault::Refused, format!("no connection within {} s", connect.as_secs()))
        }
        ureq::Error::Timeout(_) => (Fault::Timeout, format!("no answer within {} s", idle.as_secs())),
        ureq::Error::Rustls(e) => (tls_fault(e), one_line(&e.to_string())),
        ureq::Error::Tls(words) => (Fault::Tls, (*words).into()),
        ureq::Error::ConnectProxyFailed(words) => (Fault::Proxy, format!("proxy: {}", one_line(words))),
        ureq::Error::ConnectionFailed => (Fault::Refused, "no connection".into()),
        // This crate's own resolver.
        ureq::Error::Other(words) => (Fault::Refused, words.to_string()),
        other => (Fault::Broken, one_line(&other.to_string())),
    };
    Error::Unreachable { host: origin.name(), fault, cause }
}

/// An operating system's error without Rust's `(os error 111)`, in lower case.
fn os_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{explanation, rate_limit, warning};

    #[test]
    fn limits_and_warnings_of_registries_are_told_in_words() {
        let words = rate_limit("100;w=21600", Some("0;w=21600"));
        assert_eq!(words.as_deref(), Some("the limit is 100 in 21600 s, 0 left"));
        assert_eq!(rate_limit("5", None).as_deref(), Some("the limit is 5"));
        assert_eq!(rate_limit("many", Some("1")), None);
        let cases = [
            (r#"299 - "quota at 90 %""#, Some("quota at 90 %")),
            (r#"299 - "a \"b\"\tc""#, Some("a \"b\"tc")),
            (r#"299 - """#, None),
            (r#"299 - "open"#, None),
            (r#"110 - "stale""#, None),
            (r#"299 proxy.example "x""#, None),
        ];
        for (header, text) in cases {
            assert_eq!(warning(header).as_deref(), text, "{header}");
        }
    }

    #[test]
    fn explanations_of_registries_and_token_servers_are_one_line() {
        let cases = [
            ("", ""),
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                "manifest unknown",
            ),
            (
                r#"{"errors":[{"code":"DENIED","message":"denied","detail":"quota\nreached"},{"code":"X"}]}"#,
                "denied: quota reached, X",
            ),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, "expired"),
            ("Service\r\n unavailable", "Service unavailable"),
            (r#"{"errors":null}"#, ""),
            ("[1,2]", ""),
        ];
        for (body, words) in cases {
            assert_eq!(explanation(body.as_bytes()), words, "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_explanation_holds_a_control_character(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(!explanation(&body).chars().any(char::is_control));
        }
    }
}
