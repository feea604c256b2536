//! The token protocol: `GET realm?service=&scope=`, or OAuth 2's `POST` with a grant.
//!
//! A password is offered by POST first, which keeps it out of the servers' logs, and by GET with Basic
//! where the server takes no POST; a refresh token has the POST alone. Without a credential the GET
//! asks for an anonymous token. (distribution's token specification, and its OAuth 2 variant.)

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{CONTENT_TYPE, DATE};
use ureq::http::{HeaderValue, Method, Uri};

use super::{Means, Session, basic};
use crate::credentials::{Credential, Login};
use crate::date;
use crate::error::{Error, Tried};
use crate::http::{self, Payload, Request, Response, Trust};
use crate::location;

const CLIENT_ID: &str = "creel";
const MAX_ANSWER: u64 = 1 << 20;
/// What the specification says of a token that does not say.
const DEFAULT_LIFETIME: u64 = 60;

/// What the token server is asked.
pub(super) struct Question<'a> {
    pub(super) realm: &'a Uri,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a [String],
    pub(super) session: &'a Session,
    pub(super) credential: Option<&'a Credential>,
}

/// What it grants.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Granted {
    pub(super) token: String,
    /// Counted from before the request.
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    issued_at: Option<String>,
}

/// The realm of a challenge. One of plain HTTP would have the password in the clear that the
/// registry's own https is there to hide.
pub(crate) fn check_realm(response: &Response, realm: &str, trust: Trust) -> Result<Uri, Error> {
    let uri = location::resolve(&response.uri, realm)
        .ok_or_else(|| response.malformed("a challenge whose realm is no URL"))?;
    let origin = http::origin_of(&uri)?;
    if response.origin.https && !origin.https && trust == Trust::Authorities {
        return Err(response.malformed(format!("a token server without TLS ({})", origin.name())));
    }
    Ok(uri)
}

impl Question<'_> {
    pub(super) fn ask(&self, means: &Means<'_>) -> Result<Granted, Error> {
        let response = match self.credential.map(|credential| &credential.login) {
            Some(Login::Identity(token)) => {
                self.post(&[("grant_type", "refresh_token"), ("refresh_token", token.expose())], means)?
            }
            Some(Login::Password { user, password }) => {
                let mut granted = None;
                if !self.session.get_only.load(Ordering::Relaxed) {
                    let grant =
                        [("grant_type", "password"), ("username", user), ("password", password.expose())];
                    let response = self.post(&grant, means)?;
                    if response.status == 200 {
                        granted = Some(response);
                    } else if matches!(response.status, 400..=405 | 415 | 501) {
                        // No server of this kind says so in the same way; the GET then decides.
                        response.drain();
                    } else {
                        return Err(response.refusal());
                    }
                }
                match granted {
                    Some(response) => response,
                    None => {
                        let response = self.get(Some((user, basic(user, password.expose())?)), means)?;
                        self.session.get_only.store(response.status == 200, Ordering::Relaxed);
                        response
                    }
                }
            }
            None | Some(Login::Bearer(_)) => self.get(None, means)?,
        };
        if response.status != 200 {
            return Err(self.refusal(response));
        }
        let date = response.header(DATE).and_then(date::parse_http);
        let (host, request) = (response.origin.name(), response.request.clone());
        read(&response.bytes(MAX_ANSWER)?, date.unwrap_or_else(http::seconds_now))
            .map_err(|why| Error::Malformed { host, request, why })
    }

    fn get(&self, login: Option<(&str, HeaderValue)>, means: &Means<'_>) -> Result<Response, Error> {
        let mut pairs: Vec<(&str, &str)> =
            self.service.map(|service| ("service", service)).into_iter().collect();
        pairs.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        if let Some((user, _)) = &login {
            pairs.push(("account", user));
        }
        let uri = location::with_query(self.realm, &pairs)
            .ok_or_else(|| Error::Invalid("a scope that no URL can hold".into()))?;
        let mut request = Request::new(Method::GET, uri, means.trust);
        request.authorization = login.map(|(_, value)| value);
        self.send(&request, &[], means)
    }

    fn post(&self, grant: &[(&str, &str)], means: &Means<'_>) -> Result<Response, Error> {
        let scope = self.scopes.join(" ");
        let mut pairs = grant.to_vec();
        pairs.push(("client_id", CLIENT_ID));
        pairs.extend(self.service.map(|service| ("service", service)));
        if !scope.is_empty() {
            pairs.push(("scope", &scope));
        }
        let form: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", location::encode(value))).collect();
        let request = Request::new(Method::POST, self.realm.clone(), means.trust)
            .with(CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(&request, form.join("&").as_bytes(), means)
    }

    /// Sends with retries; a status that is no reason for one is the caller's to judge.
    fn send(&self, request: &Request, body: &[u8], means: &Means<'_>) -> Result<Response, Error> {
        means.retry.run(|| {
            let response = means.connections.send(request.clone(), Payload::Bytes(body))?;
            if matches!(response.status, 408 | 429 | 500 | 502..=504) {
                Err(response.refusal())
            } else {
                Ok(response)
            }
        })
    }

    /// OAuth 2 answers a bad grant with 400.
    fn refusal(&self, response: Response) -> Error {
        if !matches!(response.status, 400..=405) {
            return response.refusal();
        }
        let tried = match self.credential {
            Some(credential) => Tried::From(credential.source.clone()),
            None => Tried::Nothing,
        };
        response.denial(tried, self.session.registry())
    }
}

/// Reads an answer that was sent at `date` by the server's own clock, so that a difference between the
/// clocks shortens no token.
fn read(bytes: &[u8], date: i64) -> Result<Granted, String> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| "not a token server's answer")?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = given(answer.token).or(given(answer.access_token)).ok_or("an answer without a token")?;
    let seconds = answer.expires_in.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_LIFETIME);
    let issued = answer.issued_at.as_deref().and_then(date::parse_rfc3339).unwrap_or(date);
    let age = u64::try_from(date.saturating_sub(issued).max(0)).unwrap_or(0);
    // A cached token may be old already. One that seems past its end is tried all the same: the clocks
    // of the two servers may differ, and a 401 is the proof.
    let left = if age < seconds { seconds - age } else { seconds };
    // A margin for the way to the registry.
    let margin = (left / 10).min(10);
    Ok(Granted { token, lifetime: Duration::from_secs((left - margin).min(86400)) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Granted, read};

    #[test]
    fn lifetimes_are_counted_by_the_servers_clock() {
        let now = 784_111_777;
        let cases = [
            (r#"{"token":"t"}"#, Ok(54)),
            (r#"{"access_token":"t","expires_in":300}"#, Ok(290)),
            (
                r#"{"token":"t","access_token":"u","expires_in":300,"issued_at":"1994-11-06T08:47:57Z"}"#,
                Ok(190),
            ),
            (r#"{"token":"t","expires_in":300,"issued_at":"1994-11-06T09:49:37Z"}"#, Ok(290)),
            (r#"{"token":"t","expires_in":60,"issued_at":"1994-11-06T08:00:00Z"}"#, Ok(54)),
            (r#"{"token":"t","expires_in":0}"#, Ok(54)),
            (r#"{"token":"t","expires_in":99999999}"#, Ok(86400)),
            (r#"{"token":""}"#, Err("an answer without a token")),
            ("<html>", Err("not a token server's answer")),
        ];
        for (answer, expected) in cases {
            let granted = read(answer.as_bytes(), now);
            let expected = expected
                .map(|seconds| Granted { token: "t".into(), lifetime: Duration::from_secs(seconds) })
                .map_err(str::to_owned);
            assert_eq!(granted, expected, "{answer}");
        }
    }
}
