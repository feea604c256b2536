//! Credentials as Docker and podman store them: which files, which keys, which helpers.
//!
//! The order is podman's, so that a `podman login` or `docker login` serves creel as well: the file
//! named by the caller or by `REGISTRY_AUTH_FILE` and no other; else `$XDG_RUNTIME_DIR/containers/auth.json`,
//! `/run/containers/UID/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json`, `$DOCKER_CONFIG/config.json`
//! or `~/.docker/config.json`, and `~/.dockercfg` (containers-auth.json(5)). In each file a helper of the
//! registry's own comes before the file's default helper, and both before what the file itself holds.

mod file;
mod helper;
mod login;

use std::fmt;
use std::path::{Path, PathBuf};

pub use login::Stored;

use crate::environment::Environment;
use crate::error::Error;

/// Text that no message prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What to show the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A name with its password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token (`identitytoken`), good for the token server alone.
    Identity(Secret),
    /// A bearer token for the registry itself (`registrytoken`).
    Bearer(Secret),
}

/// A login and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The login.
    pub login: Login,
    /// For messages: a file with its key, or a helper with the file that names it.
    pub source: String,
}

/// The files to search, and the one to write.
#[derive(Clone, Debug)]
pub struct Store {
    files: Vec<file::AuthFile>,
    written: PathBuf,
    environment: Environment,
}

impl Store {
    /// The files of this user. `authfile` is the caller's choice and leaves all others out.
    ///
    /// # Errors
    /// When no directory for a file is known: neither `HOME` nor `XDG_RUNTIME_DIR` is set.
    pub fn new(environment: &Environment, authfile: Option<&Path>) -> Result<Self, Error> {
        let environment = environment.clone();
        if let Some(path) = authfile.map(Path::to_owned).or_else(|| environment.path("REGISTRY_AUTH_FILE")) {
            let files = vec![file::AuthFile::current(path.clone())];
            return Ok(Self { files, written: path, environment });
        }
        let runtime = environment.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        let run = PathBuf::from(format!("/run/containers/{}/auth.json", environment.uid()));
        let config = environment.config_home().map(|dir| dir.join("containers/auth.json"));
        let home = environment.path("HOME");
        let docker = environment
            .path("DOCKER_CONFIG")
            .or_else(|| Some(home.as_ref()?.join(".docker")))
            .map(|dir| dir.join("config.json"));
        let written = match (&runtime, environment.uid(), &config) {
            (Some(path), _, _) => path.clone(),
            // Only root may make directories in /run.
            (None, 0, _) => run.clone(),
            (None, _, Some(path)) => path.clone(),
            (None, _, None) => {
                return Err(Error::Invalid(
                    "no directory for credentials: neither HOME nor XDG_RUNTIME_DIR is set".into(),
                ));
            }
        };
        let files = [runtime, Some(run), config, docker]
            .into_iter()
            .flatten()
            .map(file::AuthFile::current)
            .chain(home.map(|dir| file::AuthFile::legacy(dir.join(".dockercfg"))))
            .collect();
        Ok(Self { files, written, environment })
    }

    /// The credential for a repository of a registry, or none where nothing is stored.
    ///
    /// `registry` is the name in the reference (`docker.io`, not the host of its API).
    ///
    /// # Errors
    /// A file that exists and cannot be read, or a helper that fails: going on without would ask the
    /// registry anonymously, and its refusal would hide the cause.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, Error> {
        for file in &self.files {
            if let Some(credential) = file.find(registry, repository, &self.environment)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Stores a login for a registry, or a part of it (`host/team`), in the file podman writes too or in the helper
    /// that file names.
    ///
    /// # Errors
    /// When the file or the helper cannot be written.
    pub fn store(&self, registry: &str, login: &Login) -> Result<Stored, Error> {
        login::store(&self.written, registry, login, &self.environment)
    }

    /// Removes what [`Store::store`] stored; false when nothing was there.
    ///
    /// # Errors
    /// When the file or the helper cannot be written.
    pub fn erase(&self, registry: &str) -> Result<bool, Error> {
        login::erase(&self.written, registry, &self.environment)
    }
}

/// Docker's name for itself in files and helpers, from before registries had names.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// The key that a login of a registry, or of a part of one, is stored under.
fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_KEY } else { registry }
}
