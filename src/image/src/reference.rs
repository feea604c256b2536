//! References: what a person writes to name an image.
//!
//! A registry reference is normalised as Docker does: a first component without a dot, a colon or
//! `localhost` belongs to docker.io, and one word alone to its `library/`. Other sources carry the name
//! of their transport, as skopeo writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag of names without tag and digest.
pub const DEFAULT_TAG: &str = "latest";

const MAX_NAME: usize = 255;

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing is there.
    Empty,
    /// A part breaks the grammar.
    Bad {
        /// `registry`, `repository`, `tag`.
        part: &'static str,
        /// What stands there.
        text: String,
        /// What to write instead; empty when there is nothing to say.
        hint: &'static str,
    },
    /// The name is longer than registries take.
    TooLong(usize),
    /// What follows the `@`.
    Digest(DigestError),
    /// The word before the colon is that of a transport that creel does not have.
    UnknownTransport(String),
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReferenceError::Empty => f.write_str("the reference is empty"),
            ReferenceError::Bad { part, text, hint: "" } => write!(f, "{text:?} is not a {part}"),
            ReferenceError::Bad { part, text, hint } => write!(f, "{text:?} is not a {part}; {hint}"),
            ReferenceError::TooLong(length) => {
                write!(f, "the name has {length} characters, registries take {MAX_NAME}")
            }
            ReferenceError::Digest(error) => error.fmt(f),
            ReferenceError::UnknownTransport(name) => write!(
                f,
                "transport {name:?} is unknown; there are docker://, oci:, oci-archive:, docker-archive: and dir:"
            ),
        }
    }
}

impl std::error::Error for ReferenceError {}

impl From<DigestError> for ReferenceError {
    fn from(error: DigestError) -> Self {
        ReferenceError::Digest(error)
    }
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port, `docker.io` for Docker's own.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name in the registry, without the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag that was written, or `latest` when neither tag nor digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was written. It decides what is fetched; a tag beside it is only told.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands in the path of a manifest request: the digest, or the tag.
    pub fn manifest_name(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag.as_deref().unwrap_or(DEFAULT_TAG), Digest::as_str)
    }

    /// The same repository by digest.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// The same repository by digest, without the tag.
    pub fn with_digest_alone(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// The same name at another host, as a mirror has it.
    pub fn with_location(&self, registry: &str, repository: &str) -> Result<Reference, ReferenceError> {
        check_registry(registry)?;
        check_repository(repository)?;
        Ok(Reference { registry: registry.to_string(), repository: repository.to_string(), ..self.clone() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn bad(part: &'static str, text: &str, hint: &'static str) -> ReferenceError {
    ReferenceError::Bad { part, text: text.to_string(), hint }
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
pub fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good { Ok(()) } else { Err(bad("tag", tag, "")) }
}

/// Lower-case alphanumerics, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let runs = bytes.split(|b| alphanumeric(b)).filter(|run| !run.is_empty());
    ends && { runs }.all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

fn check_repository(name: &str) -> Result<(), ReferenceError> {
    if name.split('/').all(is_component) {
        return Ok(());
    }
    let upper = name.bytes().any(|b| b.is_ascii_uppercase());
    let hint = if upper { "repository names are lower case" } else { "" };
    Err(bad("repository", name, hint))
}

fn check_registry(text: &str) -> Result<(), ReferenceError> {
    let wrong = || bad("registry", text, "write host or host:port");
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        ("", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let host_good = text.starts_with('[') || host.split('.').all(label);
    let port_good = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if host_good && port_good { Ok(()) } else { Err(wrong()) }
}

/// Whether the first component of a name is a host.
fn is_host(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':', '['])
        // Docker takes upper case for a host too, since no repository may have it.
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, path) = match rest.split_once('/') {
            Some((first, path)) if is_host(first) => (first, path),
            _ => (DEFAULT_REGISTRY, rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        tag.map_or(Ok(()), check_tag)?;
        let host = if host == "index.docker.io" { DEFAULT_REGISTRY } else { host };
        check_registry(host)?;
        check_repository(path)?;
        let official = host == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_string() };
        let length = host.len() + 1 + repository.len();
        if length > MAX_NAME {
            return Err(ReferenceError::TooLong(length));
        }
        let default = if digest.is_none() { Some(DEFAULT_TAG) } else { None };
        let tag = tag.or(default).map(str::to_string);
        Ok(Reference { registry: host.to_string(), repository, tag, digest })
    }
}

/// Where an image comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `docker://NAME`, or a bare name.
    Registry(Reference),
    /// `-`: an archive on standard input, of either kind.
    Stdin,
    /// `oci:DIR[:REF]`: an image layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the entry, or its digest.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:REF]`: an image layout in a tar.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// As in a layout.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME[:TAG]]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// One of its RepoTags, normalised.
        name: Option<Reference>,
    },
    /// `dir:DIR`: skopeo's plain directory.
    Dir {
        /// The directory.
        path: PathBuf,
    },
}

impl FromStr for Source {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Source, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text == "-" {
            return Ok(Source::Stdin);
        }
        let Some((word, rest)) = text.split_once(':') else { return Ok(Source::Registry(text.parse()?)) };
        // No path has a colon in these transports: what follows the first one is the name.
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        let place = || if path.is_empty() { Err(ReferenceError::Empty) } else { Ok(PathBuf::from(path)) };
        let named = || name.filter(|name| !name.is_empty()).map(str::to_string);
        match word {
            "docker" => match rest.strip_prefix("//") {
                Some(name) => Ok(Source::Registry(name.parse()?)),
                // An official image of that name, with a tag: `docker:27`.
                None => Ok(Source::Registry(text.parse()?)),
            },
            "oci" => Ok(Source::Layout { path: place()?, name: named() }),
            "oci-archive" => Ok(Source::OciArchive { path: place()?, name: named() }),
            "docker-archive" => {
                let name = named().map(|name| name.parse()).transpose()?;
                Ok(Source::DockerArchive { path: place()?, name })
            }
            "dir" => Ok(Source::Dir { path: if rest.is_empty() { place()? } else { rest.into() } }),
            "containers-storage" | "docker-daemon" | "ostree" | "sif" | "tarball" | "docker-daemon-host" => {
                Err(ReferenceError::UnknownTransport(word.to_string()))
            }
            _ if rest.starts_with("//") => Err(ReferenceError::UnknownTransport(format!("{word}://"))),
            _ => Ok(Source::Registry(text.parse()?)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, word: &str, path: &PathBuf, name: Option<String>| {
            write!(f, "{word}:{}", path.display())?;
            name.map_or(Ok(()), |name| write!(f, ":{name}"))
        };
        match self {
            Source::Registry(reference) => write!(f, "docker://{reference}"),
            Source::Stdin => f.write_str("-"),
            Source::Layout { path, name } => named(f, "oci", path, name.clone()),
            Source::OciArchive { path, name } => named(f, "oci-archive", path, name.clone()),
            Source::DockerArchive { path, name } => {
                named(f, "docker-archive", path, name.as_ref().map(ToString::to_string))
            }
            Source::Dir { path } => named(f, "dir", path, None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let at = format!("alpine@sha256:{HEX}");
        let both = format!("host.example:5000/a/b:v1@sha256:{HEX}");
        let cases = [
            ("alpine", "docker.io/library/alpine:latest".to_string()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".into()),
            ("docker://user/app", "docker.io/user/app:latest".into()),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest".into()),
            ("localhost/app", "localhost/app:latest".into()),
            ("localhost:5000/app", "localhost:5000/app:latest".into()),
            ("host.example/a__b/c.d--e", "host.example/a__b/c.d--e:latest".into()),
            ("[::1]:5000/app:T", "[::1]:5000/app:T".into()),
            ("host.example/app:1..0_x", "host.example/app:1..0_x".into()),
            (&at, format!("docker.io/library/{at}")),
            (&both, both.clone()),
        ];
        for (text, expected) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), expected, "{text}");
            assert_eq!(expected.parse::<Reference>().unwrap(), reference);
        }
        let reference: Reference = both.parse().unwrap();
        assert_eq!(reference.manifest_name(), format!("sha256:{HEX}"));
        assert_eq!(reference.tag(), Some("v1"));
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let long = format!("{}:tag", "a".repeat(256));
        let bad = [
            "",
            ":",
            "a:",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a___b",
            "a..b",
            ".a",
            "a-",
            "a:b:c",
            "a@sha256:00",
            "a@b",
            "ä",
            "host.example:0/a",
            "host.example:65536/a",
            "host.example:+1/a",
            "[::1/a",
            "[zz]/a",
            "-host.example/a",
            "host.example/../a",
            "host.example/a:.tag",
            "a b",
            "a\n",
            &long,
        ];
        for text in bad {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert_eq!(check_tag(&"t".repeat(128)), Ok(()));
        assert!(check_tag(&"t".repeat(129)).is_err());
        let error = "Alpine".parse::<Reference>().unwrap_err();
        assert_eq!(error.to_string(), "\"Alpine\" is not a repository; repository names are lower case");
    }

    #[test]
    fn transports_are_told_apart_from_names_with_tags() {
        let cases = [
            ("oci", "docker://docker.io/library/oci:latest"),
            ("docker:27", "docker://docker.io/library/docker:27"),
            ("alpine:3.20", "docker://docker.io/library/alpine:3.20"),
            ("host.example:5000/a", "docker://host.example:5000/a:latest"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:layout:v1.0", "oci:layout:v1.0"),
            ("oci-archive:a.tar:x", "oci-archive:a.tar:x"),
            ("docker-archive:a.tar", "docker-archive:a.tar"),
            ("docker-archive:a.tar:alpine:3", "docker-archive:a.tar:docker.io/library/alpine:3"),
            ("dir:/a:b", "dir:/a:b"),
            ("-", "-"),
            ("oci-archive:-", "oci-archive:-"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "oci:", "dir:", "docker-daemon:a", "http://host.example/a", "oci-archive::x"] {
            assert!(text.parse::<Source>().is_err(), "{text:?}");
        }
    }
}
