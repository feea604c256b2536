//! A token server: the GET and the POST of the token protocol, with tokens that a real registry checks
//! (JSON web tokens of RS256, the key's certificate in their header).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::certs::{Authority, sign};
use crate::registry::Registry;
use crate::server::{Heard, Reply, Server};

pub const SERVICE: &str = "registry of the test";
pub const REFRESH: &str = "a refresh/token+of=the test";

/// Which requests the server takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    GetAndPost,
    GetOnly,
}

pub struct TokenServer {
    pub server: Server,
    pub granted: Arc<AtomicUsize>,
}

impl TokenServer {
    /// `ann` with the password `s3cret:x` may push and pull, everyone may pull from `public/`.
    pub fn start(authority: &Authority, takes: Takes) -> Self {
        let (certificate, key) = authority.issue("token", "DNS:token.example");
        let pem = std::fs::read_to_string(certificate).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let granted = Arc::new(AtomicUsize::new(0));
        let count = granted.clone();
        let server = Server::start(move |heard| {
            let pairs = match heard.method.as_str() {
                "GET" => decode(heard.target.split_once('?').map_or("", |(_, query)| query)),
                "POST" if takes == Takes::GetAndPost => decode(std::str::from_utf8(&heard.body).unwrap()),
                _ => return Reply::new(405, "no such method"),
            };
            let user = match who(heard, &pairs) {
                Ok(user) => user,
                Err(reply) => return reply,
            };
            assert!(pairs.iter().any(|(name, value)| name == "service" && value == SERVICE));
            let scopes =
                pairs.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' '));
            let access: Vec<String> = scopes.filter_map(|scope| access(scope, user)).collect();
            let serial = count.fetch_add(1, Ordering::SeqCst);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{der}"]}}"#);
            let claims = format!(
                r#"{{"iss":"test","sub":"{}","aud":"{SERVICE}","exp":{},"nbf":{},"iat":{now},"jti":"{serial}","access":[{}]}}"#,
                user.unwrap_or(""),
                now + 300,
                now - 10,
                access.join(",")
            );
            let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(sign(&key, &text)));
            let name = if heard.method == "GET" { "token" } else { "access_token" };
            Reply::new(200, format!(r#"{{"{name}":"{token}","expires_in":300}}"#))
        });
        Self { server, granted }
    }

    /// A registry that trusts this server.
    pub fn registry(&self, test: &str, authority: &Authority) -> Option<Registry> {
        Registry::start(test, "", &self.auth_section(authority))
    }

    /// The part of a registry's configuration that makes it trust this server.
    pub fn auth_section(&self, authority: &Authority) -> String {
        format!(
            "auth:\n  token:\n    realm: http://{}/token\n    service: {SERVICE}\n    issuer: test\n    rootcertbundle: {}\n",
            self.server.host(),
            authority.certificate().display()
        )
    }

    pub fn granted(&self) -> usize {
        self.granted.load(Ordering::SeqCst)
    }
}

/// The user of a request; nobody for one without credentials.
fn who(heard: &Heard, pairs: &[(String, String)]) -> Result<Option<&'static str>, Reply> {
    let field = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let refused = |status| Err(Reply::new(status, r#"{"details":"incorrect username or password"}"#));
    if heard.method == "POST" {
        return match field("grant_type") {
            Some("password") if field("username") == Some("ann") && field("password") == Some("s3cret:x") => {
                Ok(Some("ann"))
            }
            Some("refresh_token") if field("refresh_token") == Some(REFRESH) => Ok(Some("ann")),
            _ => refused(400),
        };
    }
    match heard.header("authorization") {
        None => Ok(None),
        Some(value) if value == format!("Basic {}", STANDARD.encode("ann:s3cret:x")) => Ok(Some("ann")),
        Some(_) => refused(401),
    }
}

/// The part of a scope that the user has.
fn access(scope: &str, user: Option<&str>) -> Option<String> {
    let (rest, actions) = scope.rsplit_once(':')?;
    let (kind, name) = rest.split_once(':')?;
    let allowed = match user {
        Some(_) => actions.split(',').collect::<Vec<_>>(),
        None if name.starts_with("public/") => {
            actions.split(',').filter(|action| *action == "pull").collect()
        }
        None => Vec::new(),
    };
    Some(format!(r#"{{"type":"{kind}","name":"{name}","actions":["{}"]}}"#, allowed.join("\",\"")))
}

/// The pairs of a query or a form.
fn decode(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first == b'%' {
                let (hex, tail) = rest.split_at(2);
                bytes.push(u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap());
                rest = tail;
            } else {
                bytes.push(if first == b'+' { b' ' } else { first });
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (plain(n), plain(v))).collect()
}
