//! The client: one per process, shared by all threads.
//!
//! [`Client::repository`] turns a reference into the places that may hold it: the mirrors of
//! registries.conf in order, then the registry itself, at its `location`. What reads asks them in that order and
//! keeps every error; what writes goes to the registry that is named, as with podman and skopeo.

mod blob;
mod list;
mod manifest;
mod push;
mod remote;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use creel_image_lib::reference::Reference;

pub use blob::Blob;
pub use manifest::{FetchedManifest, ManifestHead};
pub use push::{Pushed, Source, Upload};
use remote::Remote;

use crate::auth::{Scopes, Session};
use crate::config::certs::Certificates;
use crate::config::proxy::Proxies;
use crate::config::registries::{Endpoint, PullFromMirror, Registries, ShortNames};
use crate::credentials::{Credential, Login, Secret, Store};
use crate::environment::Environment;
use crate::error::Error;
use crate::http::{Connections, Notice};
use crate::retry::Retry;

/// Whether certificates are checked, for every registry: `--tls-verify`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// As registries.conf says of each.
    #[default]
    Configured,
    /// As if every registry were marked insecure.
    Off,
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where files, proxies and helpers are looked for.
    pub environment: Environment,
    /// The caller's file of credentials, in place of all others: `--authfile`.
    pub authfile: Option<PathBuf>,
    /// The caller's credential, before all that is stored: `--creds`.
    pub login: Option<Login>,
    /// Whether certificates are checked.
    pub verification: Verification,
    /// Where the machine's configuration lies: `/etc`.
    pub etc: PathBuf,
    /// For the name, the connection and the TLS handshake together.
    pub connect_timeout: Duration,
    /// Between two pieces of an answer. There is no limit on the whole of one.
    pub idle_timeout: Duration,
    /// When to ask again.
    pub retry: Retry,
    /// Who is told what a registry wants its users to know; nobody, if not said.
    pub notice: Notice,
}

impl Options {
    /// What most callers want.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            authfile: None,
            login: None,
            verification: Verification::Configured,
            etc: Path::new("/etc").to_owned(),
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            notice: Notice::default(),
        }
    }
}

struct Shared {
    connections: Connections,
    registries: Registries,
    store: Store,
    retry: Retry,
    login: Option<Login>,
    verification: Verification,
    /// Of each host and whether it is insecure: the scheme found to work.
    schemes: Mutex<HashMap<(String, bool), &'static str>>,
    sessions: Mutex<HashMap<(String, String), Arc<Session>>>,
}

/// A client of registries.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

/// The places of one repository.
#[derive(Clone)]
pub struct Repository {
    remotes: Vec<Remote>,
    /// Where everything is written.
    written: Box<Remote>,
    name: String,
}

impl Client {
    /// Reads the configuration; connects to nothing.
    ///
    /// # Errors
    /// A file of configuration that cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        let environment = &options.environment;
        let connections = Connections {
            certificates: Certificates::new(environment, &options.etc),
            proxies: Proxies::of(environment)?,
            user_agent: concat!("creel/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect: options.connect_timeout,
            idle: options.idle_timeout,
            agents: Mutex::default(),
            notice: options.notice,
            noticed: Mutex::default(),
        };
        Ok(Self(Arc::new(Shared {
            connections,
            registries: Registries::load(environment, &options.etc)?,
            store: Store::new(environment, options.authfile.as_deref())?,
            retry: options.retry,
            login: options.login,
            verification: options.verification,
            schemes: Mutex::default(),
            sessions: Mutex::default(),
        })))
    }

    /// What registries.conf says that a short name stands for, to be parsed in its place.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&str> {
        self.0.registries.alias(name)
    }

    /// `unqualified-search-registries`.
    #[must_use]
    pub fn search_registries(&self) -> &[String] {
        self.0.registries.search()
    }

    /// What to do with a name that several of them may have.
    #[must_use]
    pub fn short_names(&self) -> ShortNames {
        self.0.registries.short_names()
    }

    /// The stored credentials, for login and logout.
    #[must_use]
    pub fn credentials(&self) -> &Store {
        &self.0.store
    }

    /// The places of a reference's repository.
    ///
    /// # Errors
    /// A registry that registries.conf blocks, or a rewrite that gives no valid name.
    pub fn repository(&self, reference: &Reference) -> Result<Repository, Error> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let endpoints = self.0.registries.endpoints(registry, repository)?;
        for endpoint in &endpoints {
            reference.with_location(&endpoint.registry, &endpoint.repository).map_err(|error| {
                Error::Invalid(format!(
                    "registries.conf: {}/{}: {error}",
                    endpoint.registry, endpoint.repository
                ))
            })?;
        }
        let written = self.0.registries.written(registry, repository)?;
        for endpoint in endpoints.iter().chain([&written]) {
            self.0.connections.certificates.also(&endpoint.registry, &endpoint.files);
        }
        let remotes = endpoints.into_iter().map(|endpoint| self.remote(endpoint)).collect();
        let written = Box::new(self.remote(written));
        Ok(Repository { remotes, written, name: format!("{registry}/{repository}") })
    }

    /// Asks a registry whether it takes a login, before that is stored. `registry` is a host with or
    /// without a port.
    ///
    /// # Errors
    /// The registry's refusal, or what keeps it from answering.
    pub fn check_login(&self, registry: &str, login: &Login) -> Result<(), Error> {
        let place: Reference = format!("{registry}/login")
            .parse()
            .map_err(|error| Error::Invalid(format!("{registry}: {error}")))?;
        let found = self.0.registries.written(place.registry(), place.repository())?;
        self.0.connections.certificates.also(&found.registry, &found.files);
        let credential = Credential { login: login.clone(), source: "this login".into() };
        let session = Arc::new(Session::new(place.registry(), "", Some(credential)));
        let endpoint = Endpoint { repository: String::new(), ..found };
        let remote = Remote::new(self.0.clone(), endpoint, session);
        self.0.retry.run(|| remote.ping(&Scopes::default()))
    }

    fn remote(&self, endpoint: Endpoint) -> Remote {
        let key = (endpoint.registry.clone(), endpoint.repository.clone());
        // The caller's own credential is for the registry named, not for a mirror of it.
        let given = self.0.login.as_ref().filter(|_| endpoint.mirror.is_none());
        let given = given.map(|login| Credential { login: login.clone(), source: "the command line".into() });
        let mut sessions = self.0.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let session = sessions
            .entry(key)
            .or_insert_with(|| Arc::new(Session::new(&endpoint.registry, &endpoint.repository, given)))
            .clone();
        Remote::new(self.0.clone(), endpoint, session)
    }
}

impl Repository {
    /// Registry and repository as in the reference.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks whether the registry is there and lets the user in, with retries.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    pub fn ping(&self) -> Result<(), Error> {
        let remote = self.registry()?;
        self.retry().run(|| remote.ping(&remote.pull_scopes()))
    }

    /// The registry itself, where it is read.
    fn registry(&self) -> Result<&Remote, Error> {
        self.remotes.last().ok_or_else(|| Error::Invalid(format!("{}: no place to ask", self.name)))
    }

    fn retry(&self) -> &Retry {
        // Every remote is of the same client, and there is at least the registry.
        self.remotes[0].retry()
    }

    /// Asks the places in order until one answers; all errors when none does. A round that fails for
    /// passing reasons is followed by another: the next mirror comes before a wait for the first.
    fn first<T>(
        &self,
        wanted: impl Fn(Option<PullFromMirror>) -> bool,
        mut ask: impl FnMut(&Remote) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry().run(|| {
            let mut errors = Vec::new();
            for remote in
                self.remotes.iter().filter(|remote| wanted(remote.mirror()) && !remote.is_given_up())
            {
                match ask(remote) {
                    Ok(value) => return Ok(value),
                    Err(error) => {
                        remote.give_up_if_absent(&error);
                        errors.push(error);
                    }
                }
            }
            // Without mirrors the error stands for itself.
            Err(if errors.len() == 1 { errors.remove(0) } else { Error::Everywhere(errors) })
        })
    }
}

impl From<(&str, &str)> for Login {
    fn from((user, password): (&str, &str)) -> Self {
        Login::Password { user: user.to_owned(), password: Secret::new(password) }
    }
}
