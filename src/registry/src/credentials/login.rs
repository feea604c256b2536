//! `login` and `logout`: what is written, and how.
//!
//! The file is replaced as a whole: a new one of mode 0600 beside it, written, synced and renamed over
//! it, so that no reader sees half a file and no other user ever sees any. What creel does not know of
//! in the file stays. A file that names a helper for the registry has the helper keep the login.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Login, Secret, file, helper, key_of};
use crate::environment::Environment;
use crate::error::Error;

/// Where a login went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Into this file, as text that anyone who reads it can use.
    File(PathBuf),
    /// Into the keeping of this helper.
    Helper(String),
}

pub(super) fn store(
    path: &Path,
    registry: &str,
    login: &Login,
    environment: &Environment,
) -> Result<Stored, Error> {
    let mut document = read(path)?;
    let key = key_of(registry);
    if let Some(name) = helper_of(&document, registry) {
        let (user, secret) = match login {
            Login::Password { user, password } => (user.as_str(), password),
            Login::Identity(token) => ("<token>", token),
            Login::Bearer(_) => {
                return Err(Error::Invalid("a bearer token has no place in a credential helper".into()));
            }
        };
        helper::store(&name, key, user, secret, path, environment)?;
        return Ok(Stored::Helper(format!("docker-credential-{name}")));
    }
    let auths = object(&mut document, "auths", path)?;
    auths.insert(key.to_owned(), entry(login));
    replace(path, &document)?;
    Ok(Stored::File(path.to_owned()))
}

pub(super) fn erase(path: &Path, registry: &str, environment: &Environment) -> Result<bool, Error> {
    let mut document = read(path)?;
    let key = key_of(registry);
    let from_helper = match helper_of(&document, registry) {
        Some(name) => helper::erase(&name, key, path, environment)?,
        None => false,
    };
    let had_entry = match document.get_mut("auths") {
        // podman writes docker.io's own name.
        Some(Value::Object(auths)) => {
            [key, registry].iter().filter(|key| auths.remove(**key).is_some()).count() > 0
        }
        _ => false,
    };
    if had_entry {
        replace(path, &document)?;
    }
    Ok(from_helper || had_entry)
}

fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    match file::read_if_there(path)? {
        Some(text) if !text.trim().is_empty() => serde_json::from_str(&text)
            .map_err(|error| Error::File { path: path.to_owned(), why: format!("{error}; repair it first") }),
        _ => Ok(Map::new()),
    }
}

/// The helper of a registry, of which it keeps one login: a part of the registry has its own in the file.
fn helper_of(document: &Map<String, Value>, registry: &str) -> Option<String> {
    if registry.contains('/') {
        return None;
    }
    let own = document.get("credHelpers").and_then(|helpers| helpers.get(registry));
    let name = own.or_else(|| document.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn object<'a>(
    document: &'a mut Map<String, Value>,
    name: &str,
    path: &Path,
) -> Result<&'a mut Map<String, Value>, Error> {
    let value = document.entry(name).or_insert_with(|| Value::Object(Map::new()));
    value.as_object_mut().ok_or_else(|| Error::File {
        path: path.to_owned(),
        why: format!("\"{name}\" is not an object; repair it first"),
    })
}

fn entry(login: &Login) -> Value {
    match login {
        Login::Password { user, password } => {
            serde_json::json!({ "auth": file::encode(user, password.expose()) })
        }
        Login::Identity(Secret(token)) => serde_json::json!({ "identitytoken": token }),
        Login::Bearer(Secret(token)) => serde_json::json!({ "registrytoken": token }),
    }
}

/// Writes the whole file anew. A symlink stays one: its target is what is replaced.
fn replace(path: &Path, document: &Map<String, Value>) -> Result<(), Error> {
    let failed = |call: &str, error: std::io::Error| Error::File {
        path: path.to_owned(),
        why: format!("{call}: {error}"),
    };
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("mkdir", e))?;
    let mut text = serde_json::to_string_pretty(document).map_err(|e| failed("write", e.into()))?;
    text.push('\n');
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = dir.join(name);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, &target));
    written.map_err(|error| {
        // The error in hand is the one to report; a file left beside it holds a credential.
        std::fs::remove_file(&new).ok();
        failed("write", error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::super::{Login, Secret, Store};
    use super::Stored;
    use crate::environment::Environment;

    fn password() -> Login {
        Login::Password { user: "u".into(), password: Secret::new("p") }
    }

    #[test]
    fn login_keeps_the_rest_of_the_file_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let environment = Environment::new(1000, [("XDG_RUNTIME_DIR", &run)]);
        let store = Store::new(&environment, None).unwrap();
        let path = run.join("containers/auth.json");
        assert_eq!(store.store("a.example", &password()).unwrap(), Stored::File(path.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = r#"{"auths": {"b.example": {"auth": "dTpw", "email": "x"}}, "detachKeys": "ctrl-e"}"#;
        std::fs::write(&path, other).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        store.store("a.example/team", &Login::Identity(Secret::new("part"))).unwrap();
        let found = |repository| store.find("a.example", repository).unwrap().map(|found| found.login);
        assert_eq!(found("team/app"), Some(Login::Identity(Secret::new("part"))));
        assert_eq!(found("other"), None);
        store.store("docker.io", &Login::Identity(Secret::new("t"))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        for kept in ["detachKeys", "email", "https://index.docker.io/v1/"] {
            assert!(text.contains(kept), "{text}");
        }
        assert_eq!(store.find("docker.io", "x").unwrap().unwrap().login, Login::Identity(Secret::new("t")));
        assert!(store.erase("docker.io").unwrap());
        assert!(!store.erase("docker.io").unwrap());
        assert_eq!(store.find("docker.io", "x").unwrap(), None);
        assert_eq!(store.find("b.example", "x").unwrap().unwrap().login, password());
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_symlink_to_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("auth.json"));
        std::fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let environment = Environment::new::<&str, &str>(1000, []);
        Store::new(&environment, Some(&link)).unwrap().store("a.example", &password()).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().contains("a.example"));
    }

    #[test]
    fn a_helper_keeps_the_login_where_the_file_names_one() {
        let dir = tempfile::tempdir().unwrap();
        let (helper, kept) = (dir.path().join("docker-credential-box"), dir.path().join("kept"));
        let script = format!(
            "#!/bin/sh\ncase $1 in store) cat > {0};; erase) test -e {0} || {{ echo credentials not found; exit 1; }}; rm {0};; esac\n",
            kept.display()
        );
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"credHelpers": {"a.example": "box"}}"#).unwrap();
        // The script calls cat, test and rm: the helper's directory is searched first, the system's after.
        let search = format!("{}:/usr/bin:/bin", dir.path().display());
        let environment = Environment::new(1000, [("PATH", search.as_str())]);
        let store = Store::new(&environment, Some(&path)).unwrap();
        assert_eq!(
            store.store("a.example", &password()).unwrap(),
            Stored::Helper("docker-credential-box".into())
        );
        let text = std::fs::read_to_string(&kept).unwrap();
        assert_eq!(text, r#"{"Secret":"p","ServerURL":"a.example","Username":"u"}"#);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("auths"));
        assert!(store.erase("a.example").unwrap());
        assert!(!store.erase("a.example").unwrap());
    }
}
