//! `certs.d/HOST/hosts.toml`, containerd's file (its docs/hosts.md): mirrors of a registry, in the file's order, and
//! how the registry itself is reached.
//!
//! Hosts are read from when they have the capability `pull`, by tag when they have `resolve` too. They are mirrors
//! here: nothing is pushed to one, whatever its capabilities.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use ureq::http::Uri;

use super::registries::{Endpoint, Place, PullFromMirror};
use crate::error::{Error, one_line};
use crate::location::Origin;

/// What one file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// To be asked before the registry, in this order.
    pub(crate) mirrors: Vec<Host>,
    /// The registry itself.
    pub(crate) server: Option<Host>,
    /// What is said there and not done.
    pub(crate) notice: Option<String>,
}

/// One place that may hold the repositories of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name and port, as in a reference.
    pub(crate) name: String,
    place: Place,
    insecure: bool,
    pull: PullFromMirror,
    /// Files of authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// Files of a certificate to show, and of its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

impl Host {
    pub(crate) fn mirror(&self, repository: &str) -> Endpoint {
        Endpoint { mirror: Some(self.pull), ..self.own(repository) }
    }

    pub(crate) fn own(&self, repository: &str) -> Endpoint {
        Endpoint {
            registry: self.name.clone(),
            repository: repository.to_owned(),
            insecure: self.insecure,
            mirror: None,
            place: Some(self.place.clone()),
        }
    }
}

#[derive(Deserialize)]
struct Document {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Table>,
    // What follows is of `server`; with serde's flatten the order of the hosts would be lost.
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    skip_verify: bool,
    ca: Option<Files>,
    client: Option<Clients>,
    #[serde(default)]
    override_path: bool,
    header: Option<toml::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Table {
    capabilities: Option<Vec<String>>,
    skip_verify: bool,
    ca: Option<Files>,
    client: Option<Clients>,
    override_path: bool,
    header: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Files {
    One(String),
    Several(Vec<String>),
}

/// A file with certificate and key, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Several(Vec<Files>),
}

/// Reads the file of a registry; `path` is where it lies.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Hosts, Error> {
    let bad = |why: String| Error::File { path: path.to_owned(), why: one_line(&why) };
    let document: Document = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut hosts = Hosts::default();
    let mut unsent = Vec::new();
    let mut named: Vec<(Spanned<String>, Table)> = document.host.into_iter().collect();
    named.sort_by_key(|(name, _)| name.span().start);
    for (name, table) in named {
        let name = name.into_inner();
        if table.header.is_some() {
            unsent.push(name.clone());
        }
        let capable =
            |what: &str| table.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == what));
        let pull = if capable("resolve") { PullFromMirror::All } else { PullFromMirror::DigestOnly };
        if capable("pull") {
            hosts.mirrors.push(host(&name, pull, &table, directory).map_err(bad)?);
        }
    }
    if let Some(server) = document.server {
        let table = Table {
            capabilities: document.capabilities,
            skip_verify: document.skip_verify,
            ca: document.ca,
            client: document.client,
            override_path: document.override_path,
            header: document.header,
        };
        if table.header.is_some() {
            unsent.push(server.clone());
        }
        hosts.server = Some(host(&server, PullFromMirror::All, &table, directory).map_err(bad)?);
    }
    if !unsent.is_empty() {
        hosts.notice =
            Some(format!("{}: the headers for {} are not sent", path.display(), unsent.join(", ")));
    }
    Ok(hosts)
}

fn host(url: &str, pull: PullFromMirror, table: &Table, directory: &Path) -> Result<Host, String> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let wrong = || format!("{url:?} is not a URL of http or https");
    let uri: Uri = whole.parse().map_err(|_| wrong())?;
    let origin = Origin::of(&uri).filter(|_| uri.query().is_none()).ok_or_else(wrong)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL with a credential in it; log in with \"creel login\"".to_owned());
    }
    let path = uri.path().trim_end_matches('/');
    let path =
        if table.override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    // The name that credentials of Docker Hub have, whatever its API is called.
    let name = match origin.name().as_str() {
        "registry-1.docker.io" | "index.docker.io" => "docker.io".to_owned(),
        _ => origin.name(),
    };
    let file = |name: &String| directory.join(name);
    let authorities = match &table.ca {
        None => Vec::new(),
        Some(Files::One(name)) => vec![file(name)],
        Some(Files::Several(names)) => names.iter().map(file).collect(),
    };
    let client = match &table.client {
        None => None,
        Some(Clients::One(name)) => Some((file(name), file(name))),
        Some(Clients::Several(several)) => match several.as_slice() {
            [] => None,
            [Files::One(name)] => Some((file(name), file(name))),
            [Files::Several(pair)] => match pair.as_slice() {
                [name] => Some((file(name), file(name))),
                [name, key] if key.is_empty() => Some((file(name), file(name))),
                [name, key] => Some((file(name), file(key))),
                _ => return Err(format!("{url}: client: a certificate and its key are two files")),
            },
            _ => return Err(format!("{url}: client: more than one, which to show is not clear")),
        },
    };
    let place = Place { https: origin.https, path };
    Ok(Host { name, place, insecure: table.skip_verify, pull, authorities, client })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::{Path, PathBuf};

    use super::{Host, Hosts, PullFromMirror, parse};

    fn read(text: &str) -> Result<Hosts, String> {
        parse(text, Path::new("/certs.d/a.example/hosts.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_come_in_the_files_order_with_what_they_are_capable_of() {
        let hosts = read(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example:5000"]
              capabilities = ["pull", "resolve"]
              ca = "z.pem"
              client = [["z.cert", "/keys/z.key"]]
            [host."http://b.example/some/proxy"]
              capabilities = ["pull"]
              skip_verify = true
              ca = ["one.pem", "/two.pem"]
              client = "both.pem"
              [host."http://b.example/some/proxy".header]
                x-own = "1"
            [host."https://a.example/v2/cache"]
              override_path = true
            [host."https://push.example"]
              capabilities = ["push"]
            "#,
        )
        .unwrap();
        let told = |host: &Host| {
            let place = &host.place;
            (host.name.clone(), place.https, place.path.clone(), host.insecure, host.pull)
        };
        let all: Vec<_> = hosts.mirrors.iter().map(told).collect();
        let host = |name: &str, https, path: &str, insecure, pull| {
            (name.to_owned(), https, path.to_owned(), insecure, pull)
        };
        assert_eq!(
            all,
            [
                host("z.example:5000", true, "/v2", false, PullFromMirror::All),
                host("b.example", false, "/some/proxy/v2", true, PullFromMirror::DigestOnly),
                host("a.example", true, "/v2/cache", false, PullFromMirror::All),
            ]
        );
        let path = |name: &str| Path::new("/certs.d/a.example").join(name);
        assert_eq!(hosts.mirrors[0].authorities, [path("z.pem")]);
        assert_eq!(hosts.mirrors[0].client, Some((path("z.cert"), PathBuf::from("/keys/z.key"))));
        assert_eq!(hosts.mirrors[1].authorities, [path("one.pem"), PathBuf::from("/two.pem")]);
        assert_eq!(hosts.mirrors[1].client, Some((path("both.pem"), path("both.pem"))));
        assert_eq!(hosts.server.map(|server| server.name).as_deref(), Some("docker.io"));
        assert!(hosts.notice.unwrap().contains("http://b.example/some/proxy are not sent"));
        assert_eq!(read("").unwrap(), Hosts::default());
    }

    #[test]
    fn mistakes_name_the_file() {
        for (text, words) in [
            ("server = 3", "invalid type"),
            ("server = 'ftp://x'", "not a URL of http or https"),
            ("[host.'https://u:p@x']", "a credential in it"),
            ("[host.'https://x']\nclient = ['a', 'b']", "more than one"),
            ("[host.'https://x']\nclient = [['a', 'b', 'c']]", "two files"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("/certs.d/a.example/hosts.toml: ") && error.contains(words), "{error}");
        }
    }
}
