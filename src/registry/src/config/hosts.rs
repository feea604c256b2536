//! `certs.d/HOST[:PORT]/hosts.toml`: containerd's mirrors of a registry (containerd's docs/hosts.md).
//!
//! Read where registries.conf says nothing of a registry. The hosts are asked in the order of the file; what may
//! not resolve a tag is asked for digests alone. A mirror is told by `?ns=` whose name is meant. `_default` stands
//! for every registry without a directory of its own.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use ureq::http::Uri;

use super::registries::{Endpoint, PullFromMirror};
use crate::environment::Environment;
use crate::error::{Error, one_line};
use crate::location::Origin;

/// Where hosts.toml may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostsFiles(Vec<PathBuf>);

/// Certificates for one host that a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) authorities: Vec<PathBuf>,
    /// Certificate and key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    server: String,
    #[serde(default)]
    host: HashMap<String, Spanned<Fields>>,
}

/// What is said of a host; at the top, of the server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    capabilities: Option<Vec<String>>,
    ca: Option<toml::Value>,
    client: Option<toml::Value>,
    skip_verify: bool,
    override_path: bool,
    header: Option<toml::Table>,
}

impl HostsFiles {
    /// Those of the user and of the machine below `etc`.
    pub(crate) fn of(environment: &Environment, etc: &Path) -> Self {
        let user = environment.config_home().map(|dir| dir.join("containers/certs.d"));
        let system = ["containers/certs.d", "containerd/certs.d", "docker/certs.d"].map(|dir| etc.join(dir));
        Self(user.into_iter().chain(system).collect())
    }

    /// The places of a repository by the file of its registry, if there is one.
    pub(crate) fn endpoints(&self, registry: &str, repository: &str) -> Result<Option<Vec<Endpoint>>, Error> {
        for name in [registry, "_default"] {
            for path in self.0.iter().map(|dir| dir.join(name).join("hosts.toml")) {
                match std::fs::read_to_string(&path) {
                    Ok(text) => return read(&text, &path, registry, repository).map(Some),
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                    Err(error) => return Err(bad(&path, error)),
                }
            }
        }
        Ok(None)
    }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::File { path: path.to_owned(), why: one_line(&why.to_string()) }
}

fn read(text: &str, path: &Path, registry: &str, repository: &str) -> Result<Vec<Endpoint>, Error> {
    let malformed = |error: toml::de::Error| bad(path, error.message());
    let document: Document = toml::from_str(text).map_err(malformed)?;
    let own: Fields = toml::from_str(text).map_err(malformed)?;
    let mut hosts: Vec<(String, Spanned<Fields>)> = document.host.into_iter().collect();
    hosts.sort_by_key(|(_, fields)| fields.span().start);
    let mut endpoints = Vec::new();
    for (url, fields) in hosts {
        let fields = fields.into_inner();
        let has = |capability: &str| {
            let listed = |all: &Vec<String>| all.iter().any(|one| one == capability);
            fields.capabilities.as_ref().is_none_or(listed)
        };
        if !has("pull") {
            continue;
        }
        let pull = if has("resolve") { PullFromMirror::All } else { PullFromMirror::DigestOnly };
        let place = endpoint(&url, &fields, path, repository)?;
        endpoints.push(Endpoint { mirror: Some(pull), namespace: Some(registry.to_owned()), ..place });
    }
    let server = if document.server.is_empty() { format!("https://{registry}") } else { document.server };
    let mut last = endpoint(&server, &own, path, repository)?;
    if server.trim_end_matches('/') == format!("https://{registry}") {
        // As in a reference: docker.io has its API elsewhere, and local ones may speak plain HTTP.
        last.registry = registry.to_owned();
    }
    endpoints.push(last);
    Ok(endpoints)
}

fn endpoint(url: &str, fields: &Fields, path: &Path, repository: &str) -> Result<Endpoint, Error> {
    let wrong = |why: &str| bad(path, format!("{url:?}: {why}"));
    if fields.header.as_ref().is_some_and(|header| !header.is_empty()) {
        return Err(wrong("creel sends no header of one's own"));
    }
    let absolute = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = absolute.parse().map_err(|_| wrong("not a URL"))?;
    let origin = Origin::of(&uri).ok_or_else(|| wrong("not a URL of http or https"))?;
    // Without `override_path`, /v2 is added to the path.
    let below = match (uri.path().trim_end_matches('/'), fields.override_path) {
        ("" | "/v2", false) => "",
        (below, true) if below == "/v2" || below.starts_with("/v2/") => {
            below["/v2".len()..].trim_matches('/')
        }
        _ => return Err(wrong("creel asks below /v2 alone")),
    };
    let repository = if below.is_empty() { repository.to_owned() } else { format!("{below}/{repository}") };
    // Of plain HTTP, https is tried first: on the same port, where it fails at once.
    let registry = if origin.https { origin.name() } else { format!("{}:{}", origin.host, origin.port) };
    let insecure = !origin.https || fields.skip_verify;
    let files = files(fields, path)?;
    Ok(Endpoint { registry, repository, insecure, mirror: None, namespace: None, files })
}

/// The certificates that are named, below the file's own directory where they are relative.
fn files(fields: &Fields, path: &Path) -> Result<Files, Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let text = |value: &toml::Value| value.as_str().map(|text| dir.join(text));
    let listed = |value: &Option<toml::Value>| match value {
        None => Vec::new(),
        Some(toml::Value::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
    };
    let of = |name: &str| bad(path, format!("{name}: not the name of a file"));
    let authorities = listed(&fields.ca).into_iter().map(|value| text(&value).ok_or_else(|| of("ca")));
    let mut pairs = Vec::new();
    for value in listed(&fields.client) {
        // Certificate and key in one file, or in two.
        let pair = match value.as_array().map(Vec::as_slice) {
            None => text(&value).map(|both| (both.clone(), both)),
            Some([both, key]) if key.as_str() == Some("") => text(both).map(|both| (both.clone(), both)),
            Some([certificate, key]) => text(certificate).zip(text(key)),
            Some(_) => None,
        };
        pairs.push(pair.ok_or_else(|| of("client"))?);
    }
    if pairs.len() > 1 {
        return Err(bad(path, "client: more than one certificate: which to show is not clear"));
    }
    Ok(Files { authorities: authorities.collect::<Result<_, _>>()?, client: pairs.pop() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::super::registries::PullFromMirror;
    use super::read;

    fn at(text: &str, registry: &str) -> Result<Vec<super::Endpoint>, String> {
        read(text, Path::new("/c/hosts.toml"), registry, "team/app").map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_are_mirrors_in_the_order_of_the_file() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
              capabilities = ["pull"]
              ca = ["z.crt", "/abs.crt"]
              client = [["z.cert", "z.key"]]
            [host."http://plain.example"]
            [host."https://a.example:5000/v2/hub"]
              override_path = true
              skip_verify = true
              capabilities = ["pull", "resolve"]
            [host."https://push.example"]
              capabilities = ["push"]
        "#;
        let found = at(text, "docker.io").unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|place| (format!("{}/{}", place.registry, place.repository), place.mirror, place.insecure))
            .collect();
        assert_eq!(
            told,
            [
                ("z.example/team/app".into(), Some(PullFromMirror::DigestOnly), false),
                ("plain.example:80/team/app".into(), Some(PullFromMirror::All), true),
                ("a.example:5000/hub/team/app".into(), Some(PullFromMirror::All), true),
                ("registry-1.docker.io/team/app".into(), None, false),
            ]
        );
        assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
        assert_eq!(found[3].namespace, None);
        assert_eq!(found[0].files.authorities, [Path::new("/c/z.crt"), Path::new("/abs.crt")]);
        assert_eq!(found[0].files.client, Some(("/c/z.cert".into(), "/c/z.key".into())));
    }

    #[test]
    fn a_file_without_hosts_is_of_the_registry_itself() {
        for text in ["", "server = 'https://r.example:5000'"] {
            let found = at(text, "r.example:5000").unwrap();
            assert_eq!((found.len(), found[0].registry.as_str()), (1, "r.example:5000"), "{text}");
        }
        let found = at("ca = 'own.pem'\nskip_verify = true\nclient = 'both.pem'", "docker.io").unwrap();
        assert!(found[0].insecure && found[0].registry == "docker.io");
        assert_eq!(found[0].files.authorities, [Path::new("/c/own.pem")]);
        assert_eq!(found[0].files.client, Some(("/c/both.pem".into(), "/c/both.pem".into())));
    }

    #[test]
    fn mistakes_name_the_file() {
        for (text, words) in [
            ("[host", "hosts.toml: "),
            ("[host.'ftp://a.example']", "not a URL of http or https"),
            ("[host.'https://a.example/x']", "below /v2 alone"),
            ("[host.'https://a.example/x']\noverride_path = true", "below /v2 alone"),
            ("[host.'https://a.example'.header]\nx = 'y'", "no header of one's own"),
            ("[host.'https://a.example']\nca = 3", "ca: not the name of a file"),
            ("client = [['a', 'b'], ['c', 'd']]", "more than one certificate"),
            ("skip_verify = 'yes'", "hosts.toml: "),
        ] {
            let said = at(text, "r.example").unwrap_err();
            assert!(said.starts_with("/c/hosts.toml: ") && said.contains(words), "{text}: {said}");
        }
    }
}
