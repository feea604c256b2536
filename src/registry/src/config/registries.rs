//! `registries.conf`, version 2 (containers-registries.conf(5)): rewrites, mirrors, blocked and insecure
//! registries, short names.
//!
//! One main file, the user's before the system's, then the drop-ins of both in the order of their names;
//! a later table replaces an earlier one of the same prefix. `CONTAINERS_REGISTRIES_CONF` names the only
//! file to read.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::hosts::{Files, HostsFiles};
use crate::environment::Environment;
use crate::error::Error;

/// When a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PullFromMirror {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// One place that may hold a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Name and port, as in a reference.
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// Plain HTTP and unknown certificates are accepted.
    pub(crate) insecure: bool,
    /// Of a mirror; the registry itself is always asked.
    pub(crate) mirror: Option<PullFromMirror>,
    /// The registry that a mirror is told it stands for.
    pub(crate) namespace: Option<String>,
    /// Certificates of this place.
    pub(crate) files: Files,
}

impl Endpoint {
    /// A registry as it is named, of which nothing is configured.
    pub(crate) fn plain(registry: &str, repository: &str) -> Self {
        Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            insecure: false,
            mirror: None,
            namespace: None,
            files: Files::default(),
        }
    }
}

/// The merged files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registries {
    tables: BTreeMap<String, (Table, PathBuf)>,
    aliases: BTreeMap<String, String>,
    search: Vec<String>,
    short_names: ShortNames,
    hosts: HostsFiles,
}

/// `short-name-mode`: what is done with a name that several registries may have.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ShortNames {
    /// Nothing is guessed.
    Enforcing,
    /// They are asked one after the other where nobody can be asked to choose.
    #[default]
    Permissive,
    /// They are asked one after the other.
    Disabled,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[derive(Default)]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<ShortNames>,
    registry: Vec<Table>,
    aliases: BTreeMap<String, String>,
    /// The table of version 1.
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: PullFromMirror,
}

impl Registries {
    /// The machine's and the user's files below `etc` (`/etc` but in tests).
    pub(crate) fn load(environment: &Environment, etc: &Path) -> Result<Self, Error> {
        let mut registries = Self { hosts: HostsFiles::of(environment, etc), ..Self::default() };
        if let Some(path) = environment.path("CONTAINERS_REGISTRIES_CONF") {
            if !registries.read(&path)? {
                return Err(file_error(&path, "named by CONTAINERS_REGISTRIES_CONF, but not there"));
            }
            return Ok(registries);
        }
        let system = etc.join("containers");
        let user = environment.config_home().map(|dir| dir.join("containers"));
        let own = match &user {
            Some(dir) => registries.read(&dir.join("registries.conf"))?,
            None => false,
        };
        if !own {
            registries.read(&system.join("registries.conf"))?;
        }
        for dir in [Some(system), user].into_iter().flatten() {
            for path in drop_ins(&dir.join("registries.conf.d"))? {
                registries.read(&path)?;
            }
        }
        Ok(registries)
    }

    /// Merges one file; false when it is not there.
    fn read(&mut self, path: &Path) -> Result<bool, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => self.merge(&text, path).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_error(path, error)),
        }
    }

    fn merge(&mut self, text: &str, path: &Path) -> Result<(), Error> {
        let document: Document = toml::from_str(text).map_err(|error| file_error(path, error.message()))?;
        if document.registries.is_some() {
            return Err(file_error(
                path,
                "version 1 of the format ([registries.*]); rewrite it as [[registry]]",
            ));
        }
        if let Some(search) = document.unqualified_search_registries {
            self.search = search;
        }
        self.short_names = document.short_name_mode.unwrap_or(self.short_names);
        for (name, target) in document.aliases {
            // An empty target takes an alias away that an earlier file gave.
            if target.is_empty() {
                self.aliases.remove(&name);
            } else {
                self.aliases.insert(name, target);
            }
        }
        for mut table in document.registry {
            table.check(path)?;
            self.tables.insert(table.prefix.clone(), (table, path.to_owned()));
        }
        Ok(())
    }

    /// What a name of one component stands for.
    pub(crate) fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.get(name).map(String::as_str)
    }

    /// Where to look for names without a registry.
    pub(crate) fn search(&self) -> &[String] {
        &self.search
    }

    /// What to do when there are several.
    pub(crate) fn short_names(&self) -> ShortNames {
        self.short_names
    }

    /// The table of the longest prefix of a name, and how much of it that is.
    fn table(&self, name: &str) -> Result<Option<(usize, &Table, &Path)>, Error> {
        let best = self
            .tables
            .values()
            .filter_map(|(table, path)| Some((matched(&table.prefix, name)?, table, path.as_path())))
            .max_by_key(|(length, _, _)| *length);
        match best {
            Some((_, table, path)) if table.blocked => {
                Err(Error::Blocked { prefix: table.prefix.clone(), path: path.to_owned() })
            }
            other => Ok(other),
        }
    }

    /// Where a repository is written: what is named, for `location`, mirrors and hosts are of what is read. How that is
    /// reached the files say all the same.
    pub(crate) fn written(&self, registry: &str, repository: &str) -> Result<Endpoint, Error> {
        let named = Endpoint::plain(registry, repository);
        if let Some((_, table, _)) = self.table(&format!("{registry}/{repository}"))? {
            return Ok(Endpoint { insecure: table.insecure, ..named });
        }
        let own = self.hosts.endpoints(registry, repository)?.and_then(|mut found| found.pop());
        Ok(own.filter(|own| own.registry == registry && own.repository == repository).unwrap_or(named))
    }

    /// The places of a repository to read, in the order to ask: mirrors, then the registry itself.
    pub(crate) fn endpoints(&self, registry: &str, repository: &str) -> Result<Vec<Endpoint>, Error> {
        let name = format!("{registry}/{repository}");
        let Some((length, table, path)) = self.table(&name)? else {
            let found = self.hosts.endpoints(registry, repository)?;
            return Ok(found.unwrap_or_else(|| vec![Endpoint::plain(registry, repository)]));
        };
        let rest = &name[length..];
        let mut endpoints = Vec::new();
        for mirror in &table.mirror {
            let pull = if table.mirror_by_digest_only {
                PullFromMirror::DigestOnly
            } else {
                mirror.pull_from_mirror
            };
            endpoints.push(endpoint(
                &format!("{}{rest}", mirror.location),
                mirror.insecure,
                Some(pull),
                path,
            )?);
        }
        let own = if table.location.is_empty() { name.clone() } else { format!("{}{rest}", table.location) };
        endpoints.push(endpoint(&own, table.insecure, None, path)?);
        Ok(endpoints)
    }
}

impl Table {
    fn check(&mut self, path: &Path) -> Result<(), Error> {
        for location in [&self.prefix, &self.location]
            .into_iter()
            .chain(self.mirror.iter().map(|mirror| &mirror.location))
        {
            if location.contains("://") {
                return Err(file_error(path, format!("\"{location}\": a location has no scheme")));
            }
        }
        if self.mirror.iter().any(|mirror| mirror.location.is_empty()) {
            return Err(file_error(path, "a mirror without a location"));
        }
        for text in [&mut self.prefix, &mut self.location]
            .into_iter()
            .chain(self.mirror.iter_mut().map(|mirror| &mut mirror.location))
        {
            text.truncate(text.trim_end_matches('/').len());
        }
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        if self.prefix.is_empty() {
            return Err(file_error(path, "a registry with neither prefix nor location"));
        }
        if self.mirror_by_digest_only
            && self.mirror.iter().any(|mirror| mirror.pull_from_mirror != PullFromMirror::All)
        {
            return Err(file_error(
                path,
                format!("\"{}\": mirror-by-digest-only and pull-from-mirror exclude each other", self.prefix),
            ));
        }
        Ok(())
    }
}

/// How much of `name` a prefix covers: whole components, or, after `*.`, any subdomain. A port is part of
/// the host: `a.example` covers nothing of `a.example:5000`.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let length = if let Some(suffix) = prefix.strip_prefix('*') {
        let (suffix, path) = suffix.split_at(suffix.find('/').unwrap_or(suffix.len()));
        let host = name.split('/').next()?;
        let bare = if suffix.contains(':') { host } else { host.split(':').next()? };
        let covered =
            bare.len() > suffix.len() && bare.ends_with(suffix) && name[host.len()..].starts_with(path);
        (suffix.starts_with('.') && covered).then_some(host.len() + path.len())?
    } else {
        name.starts_with(prefix).then_some(prefix.len())?
    };
    matches!(name.as_bytes().get(length), None | Some(b'/')).then_some(length)
}

fn endpoint(
    name: &str,
    insecure: bool,
    mirror: Option<PullFromMirror>,
    path: &Path,
) -> Result<Endpoint, Error> {
    match name.split_once('/') {
        Some((registry, repository)) if !registry.is_empty() && !repository.is_empty() => {
            Ok(Endpoint { insecure, mirror, ..Endpoint::plain(registry, repository) })
        }
        _ => Err(file_error(path, format!("\"{name}\": a rewrite that leaves no registry or no repository"))),
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(file_error(dir, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| file_error(dir, error))?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_error(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::File { path: path.to_owned(), why: crate::error::one_line(&why.to_string()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::{Endpoint, PullFromMirror, Registries};
    use crate::environment::Environment;

    fn registries(text: &str) -> Result<Registries, crate::error::Error> {
        let mut registries = Registries::default();
        registries.merge(text, Path::new("registries.conf"))?;
        Ok(registries)
    }

    fn names(found: &[Endpoint]) -> Vec<String> {
        found.iter().map(|e| format!("{}/{}", e.registry, e.repository)).collect()
    }

    const CONF: &str = r#"
        unqualified-search-registries = ["docker.io", "a.example"]
        short-name-mode = "enforcing"
        [aliases]
        "tool" = "a.example/team/tool"
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "second.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/library"
        location = "b.example/official/"
        [[registry]]
        location = "bad.example"
        blocked = true
        [[registry]]
        prefix = "*.corp.example"
        insecure = true
        [[registry]]
        prefix = "*.moved.example/old"
        location = "new.example"
    "#;

    #[test]
    fn the_longest_prefix_decides_where_to_ask() {
        let conf = registries(CONF).unwrap();
        let cases: &[(&str, &str, &[&str])] = &[
            (
                "docker.io",
                "team/app",
                &["mirror.example:5000/hub/team/app", "second.example/team/app", "docker.io/team/app"],
            ),
            ("docker.io", "library/x", &["b.example/official/x"]),
            (
                "docker.io",
                "library-x/y",
                &[
                    "mirror.example:5000/hub/library-x/y",
                    "second.example/library-x/y",
                    "docker.io/library-x/y",
                ],
            ),
            ("other.example", "x", &["other.example/x"]),
            ("a.corp.example:5000", "x", &["a.corp.example:5000/x"]),
            ("corp.example", "x", &["corp.example/x"]),
            ("x.moved.example", "old/app", &["new.example/app"]),
            ("x.moved.example", "older/app", &["x.moved.example/older/app"]),
            ("docker.io:5000", "x", &["docker.io:5000/x"]),
        ];
        for (registry, repository, expected) in cases {
            assert_eq!(
                names(&conf.endpoints(registry, repository).unwrap()),
                *expected,
                "{registry}/{repository}"
            );
        }
        let written = |registry: &str, repository: &str| conf.written(registry, repository).unwrap();
        assert_eq!(names(&[written("docker.io", "library/x")]), ["docker.io/library/x"]);
        assert!(written("a.corp.example", "x").insecure && !written("docker.io", "a/b").insecure);
        assert!(conf.written("bad.example", "x").is_err());
        let hub = conf.endpoints("docker.io", "a/b").unwrap();
        assert!(hub[0].insecure && !hub[2].insecure);
        assert_eq!(hub[1].mirror, Some(PullFromMirror::DigestOnly));
        assert_eq!(hub[2].mirror, None);
        assert!(conf.endpoints("a.corp.example:5000", "x").unwrap()[0].insecure);
        assert!(!conf.endpoints("corp.example", "x").unwrap()[0].insecure);
        let blocked = conf.endpoints("bad.example", "x").unwrap_err().to_string();
        assert_eq!(blocked, "bad.example: blocked by registries.conf");
        assert_eq!(conf.alias("tool"), Some("a.example/team/tool"));
        assert_eq!(conf.search(), ["docker.io", "a.example"]);
        assert_eq!(conf.short_names(), super::ShortNames::Enforcing);
    }

    #[test]
    fn mistakes_name_the_file() {
        let cases = [
            ("[registries.search]\nregistries = ['a']", "version 1"),
            ("[[registry]]\nlocation = 'https://a.example'", "has no scheme"),
            ("[[registry]]\nblocked = true", "neither prefix nor location"),
            ("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\ninsecure = true", "mirror without"),
            (
                "[[registry]]\nlocation = 'a'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'tag-only'",
                "exclude",
            ),
            ("[[registry]", "registries.conf: "),
            ("[[registry]]\ninsecure = 3", "registries.conf: "),
        ];
        for (text, words) in cases {
            let message = registries(text).unwrap_err().to_string();
            assert!(message.starts_with("registries.conf: ") && message.contains(words), "{message}");
        }
    }

    #[test]
    fn drop_ins_replace_tables_and_the_users_file_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let at = |location: &str| format!("[[registry]]\nprefix = 'a.example'\nlocation = '{location}'\n");
        write("etc/containers/registries.conf", &at("system.example"));
        write(
            "etc/containers/registries.conf.d/00-names.conf",
            "[aliases]\nx = 'one.example/x'\ny = 'one.example/y'",
        );
        write("etc/containers/registries.conf.d/ignored.txt", "nonsense");
        let environment = Environment::new(1000, [("HOME", dir.path())]);
        let load = || Registries::load(&environment, &dir.path().join("etc"));
        assert_eq!(names(&load().unwrap().endpoints("a.example", "x").unwrap()), ["system.example/x"]);
        write(".config/containers/registries.conf", &at("user.example"));
        assert_eq!(names(&load().unwrap().endpoints("a.example", "x").unwrap()), ["user.example/x"]);
        write(
            ".config/containers/registries.conf.d/10.conf",
            &format!("{}[aliases]\nx = ''", at("drop.example")),
        );
        let loaded = load().unwrap();
        assert_eq!(names(&loaded.endpoints("a.example", "x").unwrap()), ["drop.example/x"]);
        assert_eq!((loaded.alias("x"), loaded.alias("y")), (None, Some("one.example/y")));
    }
}
