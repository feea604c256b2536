//! Being let in: what a registry asked for, and what is shown to it.
//!
//! A [`Session`] belongs to one repository at one registry and is shared by all threads that pull from
//! it. Nothing is sent until a 401 asks. A token is fetched once per scope: the first thread that needs
//! one holds the scope's slot while it asks, and the others wait for the slot and find the token there.
//! A token that is refused in mid-pull is replaced once; threads that come with the same old token
//! find the new one.

mod token;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use base64::Engine;
use ureq::http::header::WWW_AUTHENTICATE;
use ureq::http::{HeaderValue, Uri};

use crate::challenge;
use crate::credentials::{Credential, Login, Store};
use crate::error::{Error, Tried};
use crate::http::{Connections, Response, Trust};
use crate::location::Origin;
use crate::retry::Retry;

pub(crate) use token::check_realm;

/// What a request wants to do, in the words of the token protocol: `repository:a/b:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// To read a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// To write a repository, and to read another that a blob is mounted from.
    pub(crate) fn push(repository: &str, from: Option<&str>) -> Self {
        let own = format!("repository:{repository}:pull,push");
        Self(std::iter::once(own).chain(from.map(|from| format!("repository:{from}:pull"))).collect())
    }

    /// With the scope that a challenge named, unless it is of something already asked for: some
    /// registries name one of their own that they then insist on.
    fn with(&self, challenged: Option<&str>) -> Vec<String> {
        let resource = |scope: &str| scope.rsplit_once(':').map(|(resource, _)| resource.to_owned());
        let extra = challenged.filter(|scope| {
            !scope.is_empty() && !self.0.iter().any(|own| own == scope || resource(own) == resource(scope))
        });
        self.0.iter().cloned().chain(extra.map(str::to_owned)).collect()
    }
}

/// What the registry asked for.
#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer { realm: Uri, service: Option<String>, scope: Option<String> },
}

/// A header value, and which token it holds.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) value: HeaderValue,
    serial: Option<u64>,
    /// Fetched for this very request.
    fresh: bool,
}

#[derive(Clone, Debug)]
struct Token {
    value: HeaderValue,
    expires: Instant,
    serial: u64,
}

type Slot = Arc<Mutex<Option<Token>>>;

/// The state of being let in to one repository.
pub(crate) struct Session {
    /// The name to log in to, as in a reference.
    registry: String,
    repository: String,
    given: Option<Credential>,
    found: OnceLock<Option<Credential>>,
    /// One search at a time: a helper may open a dialogue.
    search: Mutex<()>,
    scheme: Mutex<Option<Scheme>>,
    slots: Mutex<HashMap<Scopes, Slot>>,
    serial: AtomicU64,
    /// The token server takes no POST.
    get_only: AtomicBool,
    /// Nobody answered at all; of a mirror, which is then left out.
    pub(crate) absent: AtomicBool,
}

/// What a session needs to fetch a token.
pub(crate) struct Means<'a> {
    pub(crate) connections: &'a Connections,
    pub(crate) store: &'a Store,
    pub(crate) retry: &'a Retry,
    pub(crate) trust: Trust,
}

impl Session {
    /// For a repository; `given` goes before all that is stored.
    pub(crate) fn new(registry: &str, repository: &str, given: Option<Credential>) -> Self {
        Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            given,
            found: OnceLock::new(),
            search: Mutex::new(()),
            scheme: Mutex::new(None),
            slots: Mutex::new(HashMap::new()),
            serial: AtomicU64::new(0),
            get_only: AtomicBool::new(false),
            absent: AtomicBool::new(false),
        }
    }

    /// What to send with the next request; nothing before the registry has asked.
    pub(crate) fn authorization(
        &self,
        scopes: &Scopes,
        means: &Means<'_>,
    ) -> Result<Option<Authorization>, Error> {
        let scheme = lock(&self.scheme).clone();
        let Some(scheme) = scheme else { return Ok(None) };
        let credential = self.credential(means.store)?;
        let fixed = |value| Ok(Some(Authorization { value, serial: None, fresh: true }));
        match (scheme, credential.map(|credential| &credential.login)) {
            (Scheme::Bearer { .. }, Some(Login::Bearer(token))) => fixed(secret("Bearer ", token.expose())?),
            (Scheme::Bearer { realm, service, scope }, _) => {
                let scopes = (scopes, scopes.with(scope.as_deref()));
                self.token(&realm, service.as_deref(), scopes, credential, means).map(Some)
            }
            (Scheme::Basic, Some(Login::Password { user, password })) => {
                fixed(basic(user, password.expose())?)
            }
            // The challenge was answered with nothing: see `challenged`.
            (Scheme::Basic, _) => Ok(None),
        }
    }

    /// Takes note of a 401. True when the request is worth another try.
    pub(crate) fn challenged(
        &self,
        response: &Response,
        used: Option<&Authorization>,
        scopes: &Scopes,
        means: &Means<'_>,
    ) -> Result<bool, Error> {
        let Some(scheme) = scheme_of(response, means.trust)? else { return Ok(false) };
        let credential = self.credential(means.store)?;
        let is_basic = matches!(scheme, Scheme::Basic);
        *lock(&self.scheme) = Some(scheme);
        let Some(used) = used else {
            let has_password = matches!(credential.map(|c| &c.login), Some(Login::Password { .. }));
            return Ok(!is_basic || has_password);
        };
        let Some(serial) = used.serial else { return Ok(false) };
        let slot = lock(&self.slots).get(scopes).cloned();
        if let Some(slot) = slot {
            // Another thread may have replaced it already: only the refused token goes.
            lock(&slot).take_if(|token| token.serial == serial);
        }
        Ok(!used.fresh)
    }

    /// Where the credential came from, for messages.
    pub(crate) fn tried(&self) -> Tried {
        match self.given.as_ref().or_else(|| self.found.get()?.as_ref()) {
            Some(credential) => Tried::From(credential.source.clone()),
            None => Tried::Nothing,
        }
    }

    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    fn credential(&self, store: &Store) -> Result<Option<&Credential>, Error> {
        if self.given.is_some() {
            return Ok(self.given.as_ref());
        }
        let _one_at_a_time = lock(&self.search);
        if let Some(found) = self.found.get() {
            return Ok(found.as_ref());
        }
        let found = store.find(&self.registry, &self.repository)?;
        Ok(self.found.get_or_init(|| found).as_ref())
    }

    fn token(
        &self,
        realm: &Uri,
        service: Option<&str>,
        (key, scopes): (&Scopes, Vec<String>),
        credential: Option<&Credential>,
        means: &Means<'_>,
    ) -> Result<Authorization, Error> {
        let slot = lock(&self.slots).entry(key.clone()).or_default().clone();
        let mut held = lock(&slot);
        if let Some(token) = held.as_ref().filter(|token| token.expires > Instant::now()) {
            return Ok(Authorization {
                value: token.value.clone(),
                serial: Some(token.serial),
                fresh: false,
            });
        }
        let asked = Instant::now();
        let request = token::Question { realm, service, scopes: &scopes, session: self, credential };
        let granted = request.ask(means)?;
        let token = Token {
            value: secret("Bearer ", &granted.token)?,
            expires: asked + granted.lifetime,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        };
        *held = Some(token.clone());
        Ok(Authorization { value: token.value, serial: Some(token.serial), fresh: true })
    }
}

/// The strongest challenge that creel answers.
fn scheme_of(response: &Response, trust: Trust) -> Result<Option<Scheme>, Error> {
    let mut basic = None;
    for header in response.headers.get_all(WWW_AUTHENTICATE) {
        for challenge in challenge::parse(&String::from_utf8_lossy(header.as_bytes())) {
            let text = |name| challenge.parameter(name).filter(|text| !text.is_empty()).map(str::to_owned);
            match challenge.scheme.as_str() {
                "bearer" => {
                    let Some(realm) = challenge.parameter("realm") else { continue };
                    let realm = check_realm(response, realm, trust)?;
                    return Ok(Some(Scheme::Bearer {
                        realm,
                        service: text("service"),
                        scope: text("scope"),
                    }));
                }
                "basic" => basic = Some(Scheme::Basic),
                _ => {}
            }
        }
    }
    Ok(basic)
}

/// The header value of a name and a password (RFC 7617).
fn basic(user: &str, password: &str) -> Result<HeaderValue, Error> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    secret("Basic ", &pair)
}

fn secret(scheme: &str, text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{text}"))
        .map_err(|_| Error::Invalid("a token with characters that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an answer came from the registry itself and not from where it redirected to, whose
/// challenges are not for the registry's credential.
pub(crate) fn is_own(response: &Response, registry: &Origin) -> bool {
    response.origin == *registry
}

#[cfg(test)]
mod tests {
    use super::Scopes;

    #[test]
    fn a_challenges_scope_is_added_only_when_it_is_of_something_else() {
        let own = Scopes::push("a/b", Some("c"));
        let asked = ["repository:a/b:pull,push", "repository:c:pull"];
        assert_eq!(own.with(None), asked);
        assert_eq!(own.with(Some("repository:a/b:pull")), asked);
        assert_eq!(own.with(Some("aws")), ["repository:a/b:pull,push", "repository:c:pull", "aws"]);
        assert_eq!(Scopes::default().with(Some("registry:catalog:*")), ["registry:catalog:*"]);
    }
}
