//! One place of one repository: which URL it has, and requests that let themselves in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use ureq::http::{Method, Uri};

use super::{Shared, Verification};
use crate::auth::{self, Means, Scopes, Session};
use crate::config::is_loopback;
use crate::config::registries::{Endpoint, PullFromMirror};
use crate::error::{Error, Fault, one_line};
use crate::http::{self, Payload, Request, Response, Trust};
use crate::location;
use crate::reach::Reach;
use crate::retry::Retry;

/// Docker Hub's names have another host in them than its API.
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";

/// No request has more than this many answers of 401: one that tells how to be let in, one for a token
/// that has expired, and the last.
const MAX_CHALLENGES: usize = 3;

#[derive(Clone)]
pub(super) struct Remote {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    session: Arc<Session>,
}

/// A request to a remote, by method and path below the repository.
pub(super) struct Ask<'a> {
    pub(super) request: Request,
    pub(super) scopes: &'a Scopes,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>, endpoint: Endpoint, session: Arc<Session>) -> Self {
        Self { shared, endpoint, session }
    }

    pub(super) fn mirror(&self) -> Option<PullFromMirror> {
        self.endpoint.mirror
    }

    /// A mirror that is not there is asked once: each further request would wait for it again.
    pub(super) fn give_up_if_absent(&self, error: &Error) {
        if let Error::Unreachable { fault: Fault::Refused | Fault::UnknownHost | Fault::Tls, .. } = error {
            self.session.absent.store(true, Ordering::Relaxed);
        }
    }

    /// The registry itself is never given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.mirror().is_some() && self.session.absent.load(Ordering::Relaxed)
    }

    pub(super) fn retry(&self) -> &Retry {
        &self.shared.retry
    }

    /// The name in the registry, for scopes and mounts.
    pub(super) fn repository(&self) -> &str {
        &self.endpoint.repository
    }

    pub(super) fn pull_scopes(&self) -> Scopes {
        Scopes::pull(&self.endpoint.repository)
    }

    /// A request for a path below `/v2/NAME/`.
    pub(super) fn request(&self, method: Method, path: &str) -> Result<Request, Error> {
        let uri = self.uri(&format!("{}/{path}", self.endpoint.repository))?;
        let Some(namespace) = &self.endpoint.namespace else { return self.request_at(method, uri) };
        let named = location::with_query(&uri, &[("ns", namespace)]);
        self.request_at(method, named.ok_or_else(|| Error::Invalid(format!("{namespace}: not a host")))?)
    }

    /// A request for a URL that the registry gave.
    pub(super) fn request_at(&self, method: Method, uri: Uri) -> Result<Request, Error> {
        Ok(Request::new(method, uri, self.trust()))
    }

    /// Sends a request, answering challenges. Any status but 401 and 403 is the caller's to judge.
    pub(super) fn send(&self, ask: &Ask<'_>, payload: &mut Payload<'_>) -> Result<Response, Error> {
        let own = http::origin_of(&self.uri("")?)?;
        let to = http::origin_of(&ask.request.uri)?;
        if own.https && !to.https {
            // A Location or a Link, which is a redirect by another name.
            let why = "from https to http, which is not followed";
            return Err(Error::Redirect { host: own.name(), to: to.name(), why });
        }
        for answers in 1..=MAX_CHALLENGES {
            let means = self.means();
            let authorization =
                if to == own { self.session.authorization(ask.scopes, &means)? } else { None };
            let mut request = ask.request.clone();
            request.authorization = authorization.as_ref().map(|authorization| authorization.value.clone());
            let (body, once) = match payload {
                Payload::None => (Payload::None, false),
                Payload::Bytes(bytes) => (Payload::Bytes(bytes), false),
                Payload::Stream { reader, length } => {
                    (Payload::Stream { reader: &mut **reader, length: *length }, true)
                }
            };
            let response = self.shared.connections.send(request, body)?;
            let is_own = auth::is_own(&response, &own);
            if response.status == 401 && is_own && answers < MAX_CHALLENGES {
                let again = self.session.challenged(&response, authorization.as_ref(), ask.scopes, &means)?;
                if again && once {
                    // The stream was read from: only its owner can start it again.
                    let (host, fault) = (own.name(), Fault::Broken);
                    return Err(Error::Unreachable {
                        host,
                        fault,
                        cause: "let in no longer within an upload".into(),
                    });
                }
                if again {
                    response.drain();
                    continue;
                }
            }
            if matches!(response.status, 401 | 403) && is_own {
                return Err(response.denial(self.session.tried(), self.session.registry()));
            }
            return Ok(response);
        }
        Err(Error::Invalid(format!("{}: challenged without end", own.name())))
    }

    /// GETs a URL that a manifest names: without credentials, and not near.
    pub(super) fn fetch_elsewhere(
        &self,
        url: &str,
        with_headers: impl Fn(Request) -> Request,
    ) -> Result<Response, Error> {
        let bad =
            || Error::Invalid(format!("{}: a layer's url that is none of http or https", one_line(url)));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        // Of the URL itself only: an insecure registry does not make others so.
        let mut request =
            Request::new(Method::GET, location::resolve(&uri, url).ok_or_else(bad)?, Trust::Authorities);
        request.reach = Reach::Beyond;
        self.shared.connections.send(with_headers(request), Payload::None)
    }

    /// `GET /v2/`, which answers 200 to whoever is let in.
    pub(super) fn ping(&self, scopes: &Scopes) -> Result<(), Error> {
        let request = self.request_at(Method::GET, self.uri("")?)?;
        let response = self.send(&Ask { request, scopes }, &mut Payload::None)?;
        if response.status == 200 {
            response.drain();
            return Ok(());
        }
        Err(response.refusal())
    }

    fn means(&self) -> Means<'_> {
        Means {
            connections: &self.shared.connections,
            store: &self.shared.store,
            retry: &self.shared.retry,
            trust: self.trust(),
        }
    }

    fn is_insecure(&self) -> bool {
        self.endpoint.insecure || self.shared.verification == Verification::Off
    }

    fn trust(&self) -> Trust {
        if self.is_insecure() { Trust::Anyone } else { Trust::Authorities }
    }

    pub(super) fn host(&self) -> &str {
        if self.endpoint.registry == HUB { HUB_API } else { &self.endpoint.registry }
    }

    fn uri(&self, below: &str) -> Result<Uri, Error> {
        let (scheme, host) = (self.scheme()?, self.host());
        format!("{scheme}://{host}/v2/{below}")
            .parse()
            .map_err(|_| Error::Invalid(format!("{host}/{below}: no URL can hold this name")))
    }

    /// https, but for a registry that is marked insecure or is on this machine: of those the first that
    /// answers, asked once per host. A local one with a certs.d of its own speaks https.
    fn scheme(&self) -> Result<&'static str, Error> {
        let is_local = is_loopback(self.host());
        let certificates = self.shared.connections.certificates.directory(self.host());
        let order = match (self.is_insecure(), is_local && certificates.is_none()) {
            (_, true) => ["http", "https"],
            (true, false) => ["https", "http"],
            (false, false) => return Ok("https"),
        };
        let key = (self.host().to_owned(), self.is_insecure());
        // Held while asking: the other threads wait for the answer rather than ask too.
        let mut schemes = self.shared.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scheme) = schemes.get(&key) {
            return Ok(scheme);
        }
        let found = self.shared.retry.run(|| self.find_scheme(order))?;
        schemes.insert(key, found);
        Ok(found)
    }

    fn find_scheme(&self, order: [&'static str; 2]) -> Result<&'static str, Error> {
        let mut first_error = None;
        for scheme in order {
            let uri = format!("{scheme}://{}/v2/", self.host())
                .parse()
                .map_err(|_| Error::Invalid(format!("{}: not a host", self.host())))?;
            let answer =
                self.shared.connections.send(Request::new(Method::GET, uri, self.trust()), Payload::None);
            match answer {
                // Go's answer over plain HTTP on a port of https.
                Ok(response) if scheme == "http" && response.status == 400 => {
                    first_error.get_or_insert(response.refusal());
                }
                // A redirect to the other scheme is an answer as well: requests follow it themselves.
                Ok(response) => {
                    response.drain();
                    return Ok(scheme);
                }
                Err(error) => {
                    let speaks_tls =
                        matches!(&error, Error::Unreachable { fault: Fault::Tls | Fault::Timeout, .. });
                    if scheme == "https" && (speaks_tls || first_error.is_some()) {
                        return Err(if speaks_tls { error } else { first_error.unwrap_or(error) });
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::Invalid(format!("{}: no answer", self.host()))))
    }
}
