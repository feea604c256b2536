//! `policy.json`: which images may be used at all (containers-policy.json(5)).
//!
//! The requirements of the longest scope that has the image decide: accepted, rejected, or to be signed. creel
//! checks no signatures, so that what must be signed is refused rather than taken unseen. Where there is no such
//! file, everything is accepted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use creel_image_lib::reference::{Reference, Source};
use serde::Deserialize;

use crate::environment::Environment;
use crate::error::{Error, one_line};

/// One file of policy.
#[derive(Debug)]
pub struct Policy {
    path: PathBuf,
    document: Document,
}

#[derive(Debug, Deserialize)]
struct Document {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

#[derive(Debug, Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
}

impl Policy {
    /// The file that is named, else the user's, else the machine's below `etc` (`/etc` but in tests).
    ///
    /// # Errors
    /// A file that is named and not there, or one that is no policy.
    pub fn load(environment: &Environment, etc: &Path, named: Option<&Path>) -> Result<Option<Self>, Error> {
        let user = environment.config_home().map(|dir| dir.join("containers/policy.json"));
        let paths = match named {
            Some(path) => vec![path.to_owned()],
            None => user.into_iter().chain([etc.join("containers/policy.json")]).collect(),
        };
        for path in paths {
            let failed = |why: String| Error::File { path: path.clone(), why: one_line(&why) };
            let text = match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => continue,
                read => read.map_err(|error| failed(error.to_string()))?,
            };
            let document: Document =
                serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
            let lists = document.transports.values().flat_map(BTreeMap::values);
            if lists.chain([&document.default]).any(Vec::is_empty) {
                return Err(failed(
                    "a list of requirements is empty; name insecureAcceptAnything or reject".into(),
                ));
            }
            return Ok(Some(Self { path, document }));
        }
        Ok(None)
    }

    /// Whether an image from there may be used.
    ///
    /// # Errors
    /// [`Error::Policy`] when it may not.
    pub fn check(&self, source: &Source) -> Result<(), Error> {
        let (transport, scopes) = scopes(source);
        let own = self.document.transports.get(transport);
        let decided = own.and_then(|lists| {
            // Last comes what is said of the transport as a whole.
            let scope = scopes.into_iter().chain([String::new()]).find(|scope| lists.contains_key(scope))?;
            Some((format!("{transport}: {scope:?}"), &lists[&scope]))
        });
        let (place, requirements) = decided.unwrap_or_else(|| ("default".into(), &self.document.default));
        match requirements.iter().find(|requirement| requirement.kind != "insecureAcceptAnything") {
            None => Ok(()),
            Some(Requirement { kind }) => {
                Err(Error::Policy { path: self.path.clone(), place, requirement: kind.clone() })
            }
        }
    }
}

/// A transport's name and the scopes of an image in it, the longest first.
fn scopes(source: &Source) -> (&'static str, Vec<String>) {
    match source {
        Source::Registry(reference) => ("docker", scopes_of_name(reference)),
        Source::Layout { path, name } => ("oci", scopes_of_path(path, name.as_deref())),
        Source::OciArchive { path, name } => ("oci-archive", scopes_of_path(path, name.as_deref())),
        Source::Dir { path } => ("dir", scopes_of_path(path, None)),
        // It has no scopes of its own; an archive on standard input is a file without a name.
        Source::DockerArchive { .. } | Source::Stdin => ("docker-archive", Vec::new()),
    }
}

/// The whole reference, the repository, what is above it, the host, and the domains that it is in.
fn scopes_of_name(reference: &Reference) -> Vec<String> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let whole = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{name}@{digest}"),
        (None, Some(tag)) => format!("{name}:{tag}"),
        (None, None) => name.clone(),
    };
    let mut scopes = vec![whole];
    let above = std::iter::successors(Some(name.as_str()), |name| Some(name.rsplit_once('/')?.0));
    scopes.extend(above.map(str::to_owned));
    let domains = std::iter::successors(Some(reference.registry()), |host| Some(host.split_once('.')?.1));
    scopes.extend(domains.skip(1).map(|domain| format!("*.{domain}")));
    scopes
}

/// The path with the name in it, the path, and the directories above but for the root.
fn scopes_of_path(path: &Path, name: Option<&str>) -> Vec<String> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let whole = name.map(|name| format!("{}:{name}", path.display()));
    let above = path.ancestors().filter(|path| path.parent().is_some());
    whole.into_iter().chain(above.map(|path| path.display().to_string())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Policy;
    use crate::environment::Environment;

    const TEXT: &str = r#"{
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "": [{"type": "insecureAcceptAnything"}],
                "a.example": [{"type": "reject"}],
                "a.example/team": [{"type": "insecureAcceptAnything"}],
                "a.example/team/app:bad": [{"type": "reject"}],
                "*.corp.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]
            },
            "dir": {"/": [{"type": "insecureAcceptAnything"}], "/no/such": [{"type": "insecureAcceptAnything"}]},
            "docker-archive": {"": [{"type": "insecureAcceptAnything"}]}
        }
    }"#;

    fn at(dir: &std::path::Path, name: &str, text: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_longest_scope_decides() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::new(1000, [("HOME", dir.path())]);
        let load = || Policy::load(&environment, &dir.path().join("etc"), None);
        assert!(load().unwrap().is_none());
        at(dir.path(), "etc/containers/policy.json", TEXT);
        let policy = load().unwrap().unwrap();
        let said = |source: &str| policy.check(&source.parse().unwrap()).map_err(|error| error.to_string());
        for accepted in [
            "b.example/x",
            "a.example/team/app:good",
            "corp.example/x",
            "dir:/no/such/image",
            "docker-archive:/x.tar",
            "-",
        ] {
            assert_eq!(said(accepted), Ok(()), "{accepted}");
        }
        for (refused, words) in [
            ("a.example/x", r#"(docker: "a.example") forbids it"#),
            ("a.example/teams/x", r#"(docker: "a.example") forbids it"#),
            ("a.example/team/app:bad", r#"(docker: "a.example/team/app:bad") forbids it"#),
            ("x.corp.example/y", r#"(docker: "*.corp.example") wants a signature (signedBy)"#),
            ("dir:/no/image", "(default) forbids it"),
            ("oci:/x", "(default) forbids it"),
        ] {
            let said = said(refused).unwrap_err();
            assert!(said.contains(words) && said.contains("etc/containers/policy.json"), "{said}");
        }
        at(
            dir.path(),
            ".config/containers/policy.json",
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        assert!(load().unwrap().unwrap().check(&"a.example/x".parse().unwrap()).is_ok());
    }

    #[test]
    fn what_is_no_policy_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let load = || Policy::load(&Environment::default(), dir.path(), Some(&path)).unwrap_err().to_string();
        assert!(load().starts_with(&path.display().to_string()));
        for text in ["{", "{}", r#"{"default":[]}"#, r#"{"default":[{}]}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(load().contains("p.json: "), "{text}");
        }
    }
}
