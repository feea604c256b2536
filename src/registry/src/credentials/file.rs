//! One file of credentials: `auth.json`, Docker's `config.json`, or the older `.dockercfg`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use serde::Deserialize;

use super::{Credential, DOCKER_KEY, Login, Secret, helper, key_of};
use crate::environment::Environment;
use crate::error::Error;

/// Files are hand-edited, and some tools leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// A place where credentials may be.
#[derive(Clone, Debug)]
pub(super) struct AuthFile {
    path: PathBuf,
    /// `.dockercfg` holds what the others hold below `auths`.
    legacy: bool,
}

/// What creel reads of a file; it writes through the raw JSON, which keeps the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    auths: BTreeMap<String, Option<Entry>>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthFile {
    pub(super) fn current(path: PathBuf) -> Self {
        Self { path, legacy: false }
    }

    pub(super) fn legacy(path: PathBuf) -> Self {
        Self { path, legacy: true }
    }

    /// The credential that this file, or a helper it names, has for the repository.
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
        environment: &Environment,
    ) -> Result<Option<Credential>, Error> {
        let Some(document) = self.read()? else { return Ok(None) };
        let keys = keys_of(registry, repository);
        let own = keys.iter().find_map(|key| document.cred_helpers.get(key)).filter(|name| !name.is_empty());
        let default = document.creds_store.as_ref().filter(|name| !name.is_empty());
        for name in own.into_iter().chain(default) {
            if let Some(login) = helper::get(name, key_of(registry), &self.path, environment)? {
                let source = format!("docker-credential-{name}, named by {}", self.path.display());
                return Ok(Some(Credential { login, source }));
            }
        }
        let Some((key, entry)) = best_entry(&document.auths, &keys, registry) else { return Ok(None) };
        let login = entry.login().map_err(|why| self.error(format!("key \"{key}\": {why}")))?;
        let source = format!("{} (key \"{key}\")", self.path.display());
        Ok(login.map(|login| Credential { login, source }))
    }

    fn read(&self) -> Result<Option<Document>, Error> {
        let Some(text) = read_if_there(&self.path)? else { return Ok(None) };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let document = if self.legacy {
            serde_json::from_str(&text).map(|auths| Document { auths, ..Document::default() })
        } else {
            serde_json::from_str(&text)
        };
        document.map(Some).map_err(|error| {
            self.error(format!(
                "{error}; repair it, or name another file with --authfile or REGISTRY_AUTH_FILE"
            ))
        })
    }

    fn error(&self, why: String) -> Error {
        Error::File { path: self.path.clone(), why }
    }
}

/// The text of a file, or nothing where there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        // Another user's directory below /run: there is nothing in it for this one.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && path.starts_with("/run/containers") => {
            Ok(None)
        }
        Err(error) => Err(Error::File {
            path: path.to_owned(),
            why: format!("{error}; name another file with --authfile or REGISTRY_AUTH_FILE"),
        }),
    }
}

/// The keys to look for, the most specific first: `host/a/b`, `host/a`, `host`.
fn keys_of(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    if registry == "docker.io" {
        keys.extend([DOCKER_KEY, "index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    keys
}

/// The entry of the first key that has one; then one whose key is the registry written as a URL, as
/// Docker did it: `https://host/v1/`.
fn best_entry<'a>(
    auths: &'a BTreeMap<String, Option<Entry>>,
    keys: &[String],
    registry: &str,
) -> Option<(&'a str, &'a Entry)> {
    let exact = keys.iter().find_map(|key| {
        let (key, entry) = auths.get_key_value(key)?;
        Some((key.as_str(), entry.as_ref().filter(|entry| !entry.is_empty())?))
    });
    exact.or_else(|| {
        auths.iter().find_map(|(key, entry)| {
            let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"))?;
            let host = host.split('/').next()?;
            let entry = entry.as_ref().filter(|entry| !entry.is_empty())?;
            (host == registry).then_some((key.as_str(), entry))
        })
    })
}

impl Entry {
    /// An entry without content only says that a helper holds the credential.
    fn is_empty(&self) -> bool {
        let fields = [&self.auth, &self.username, &self.identitytoken, &self.registrytoken];
        fields.iter().all(|field| field.as_ref().is_none_or(String::is_empty))
    }

    fn login(&self) -> Result<Option<Login>, String> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::Bearer(Secret(token))));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::Identity(Secret(token))));
        }
        let (user, password) = match given(&self.auth) {
            Some(auth) => decode(&auth)?,
            None => (
                given(&self.username).ok_or("no username")?,
                given(&self.password).ok_or("a username without a password")?,
            ),
        };
        Ok(Some(Login::Password { user, password: Secret(password) }))
    }
}

/// `base64(user:password)`; the password may hold colons, and Docker once padded it with NULs.
fn decode(auth: &str) -> Result<(String, String), String> {
    let bytes = LENIENT.decode(auth.trim()).map_err(|_| "\"auth\" is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "\"auth\" does not hold UTF-8")?;
    let (user, password) = text.split_once(':').ok_or("\"auth\" is not user:password in base64")?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// The form that [`decode`] reads.
pub(super) fn encode(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::{Login, Secret, Store};
    use super::{decode, encode};
    use crate::environment::Environment;

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.into(), password: Secret::new(password) }
    }

    fn store(json: &str) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        let environment = Environment::new::<&str, &str>(1000, []);
        let store = Store::new(&environment, Some(&path)).unwrap();
        (dir, store)
    }

    #[test]
    fn the_longest_key_wins() {
        let json = format!(
            r#"{{"auths": {{
                "a.example": {{"auth": "{}"}},
                "a.example/team": {{"auth": "{}"}},
                "a.example/team/app": {{"username": "three", "password": "p:3"}},
                "https://b.example/v1/": {{"auth": "{}"}},
                "https://index.docker.io/v1/": {{"identitytoken": "refresh"}},
                "c.example": {{"registrytoken": "bearer"}},
                "d.example": {{}},
                "e.example": null
            }}}}"#,
            encode("one", "p1"),
            encode("two", "p2"),
            encode("four", "p:4"),
        );
        let (_dir, store) = store(&json);
        let cases = [
            ("a.example", "other", Some(password("one", "p1"))),
            ("a.example", "team/x", Some(password("two", "p2"))),
            ("a.example", "team/app/sub", Some(password("three", "p:3"))),
            ("a.example", "teams", Some(password("one", "p1"))),
            ("b.example", "x", Some(password("four", "p:4"))),
            ("docker.io", "library/x", Some(Login::Identity(Secret::new("refresh")))),
            ("c.example", "x", Some(Login::Bearer(Secret::new("bearer")))),
            ("d.example", "x", None),
            ("e.example", "x", None),
            ("f.example", "x", None),
        ];
        for (registry, repository, expected) in cases {
            let found = store.find(registry, repository).unwrap().map(|credential| credential.login);
            assert_eq!(found, expected, "{registry}/{repository}");
        }
        let found = store.find("a.example", "team/x").unwrap().unwrap();
        assert!(found.source.ends_with("auth.json (key \"a.example/team\")"), "{}", found.source);
        assert!(!format!("{found:?}").contains("p2"));
    }

    #[test]
    fn a_file_that_is_not_json_is_named() {
        let (_dir, broken) = store("{");
        let message = broken.find("a.example", "x").unwrap_err().to_string();
        assert!(message.contains("auth.json: ") && message.contains("REGISTRY_AUTH_FILE"), "{message}");
        let (_dir, broken) = store(r#"{"auths": {"a.example": {"auth": "!"}}}"#);
        let message = broken.find("a.example", "x").unwrap_err().to_string();
        assert!(message.ends_with("auth.json: key \"a.example\": \"auth\" is not base64"), "{message}");
        let (_dir, empty) = store("");
        assert_eq!(empty.find("a.example", "x").unwrap(), None);
    }

    #[test]
    fn files_are_searched_in_podmans_order() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let run = dir.path().join("run");
        let write = |path: std::path::PathBuf, json: String| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, json).unwrap();
        };
        let entry = |user: &str| format!(r#"{{"auth": "{}"}}"#, encode(user, "p"));
        let all = |user: &str, hosts: &[&str]| {
            let entries: Vec<String> = hosts.iter().map(|h| format!(r#""{h}": {}"#, entry(user))).collect();
            format!("{{{}}}", entries.join(","))
        };
        let auths = |user: &str, hosts: &[&str]| format!(r#"{{"auths": {}}}"#, all(user, hosts));
        write(home.join(".dockercfg"), all("legacy", &["a", "b", "c", "d"]));
        write(home.join(".docker/config.json"), auths("docker", &["a", "b", "c"]));
        write(home.join(".config/containers/auth.json"), auths("config", &["a", "b"]));
        write(run.join("containers/auth.json"), auths("runtime", &["a"]));
        let environment = Environment::new(4_000_000, [("HOME", &home), ("XDG_RUNTIME_DIR", &run)]);
        let store = Store::new(&environment, None).unwrap();
        for (host, user) in [("a", "runtime"), ("b", "config"), ("c", "docker"), ("d", "legacy")] {
            assert_eq!(store.find(host, "x").unwrap().unwrap().login, password(user, "p"));
        }
        let chosen = home.join(".dockercfg-missing");
        let environment = Environment::new(4_000_000, [("HOME", &home), ("REGISTRY_AUTH_FILE", &chosen)]);
        assert_eq!(Store::new(&environment, None).unwrap().find("d", "x").unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn auth_is_read_as_written(user in "[^:]{0,20}", word in "[^\0]{0,20}") {
            proptest::prop_assert_eq!(decode(&encode(&user, &word)), Ok((user, word)));
        }
    }
}
