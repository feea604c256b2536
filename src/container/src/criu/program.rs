//! The program `criu`: where it is, how old it is, what it can do here.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Failure;
use super::messages::{self, Features, Kind};
use super::session::Session;
use crate::Error;

/// `major * 10000 + minor * 100 + sublevel`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, sublevel) = (self.0 / 10_000, self.0 / 100 % 100, self.0 % 100);
        write!(f, "{major}.{minor}")?;
        if sublevel == 0 { Ok(()) } else { write!(f, ".{sublevel}") }
    }
}

/// The RPC tells the version from this one on.
const OLDEST: Version = Version(30_000);

/// A CRIU that was found and asked for its version.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

impl Program {
    /// The first `criu` of PATH.
    pub fn find() -> Result<Program, Error> {
        let path = in_path(std::env::var_os("PATH").unwrap_or_default().as_os_str());
        let path = path.ok_or(Error::from(Failure::NotFound))?;
        let mut session = Session::start(&path, "version", &[], false)?;
        let version = Version(session.ask(&messages::request(Kind::Version, None))?.version);
        session.end()?;
        let program = Program { path, version };
        program.needs(OLDEST, "creel")?;
        tracing::debug!("{} is CRIU {version}", program.path.display());
        Ok(program)
    }

    /// Whether it is at least that old.
    pub fn has(&self, version: Version) -> bool {
        self.version >= version
    }

    /// An error unless it is at least that version.
    pub fn needs(&self, needed: Version, purpose: &'static str) -> Result<(), Error> {
        if self.has(needed) {
            return Ok(());
        }
        let (program, version) = (self.path.clone(), self.version);
        Err(Error::from(Failure::TooOld { program, version, needed, purpose }))
    }

    /// An error unless CRIU and the kernel have the wanted features.
    pub fn check(&self, wanted: Features) -> Result<(), Error> {
        let mut session = Session::start(&self.path, "feature check", &[], false)?;
        let there = session.ask(&messages::feature_check(wanted))?.features;
        session.end()?;
        let missing = |feature| {
            let program = self.path.clone();
            Err(Error::from(Failure::Missing { program, feature }))
        };
        if wanted.mem_track && !there.mem_track {
            return missing("memory tracking (--pre-dump, mem_dirty_track)");
        }
        if wanted.lazy_pages && !there.lazy_pages {
            return missing("lazy pages (--lazy-pages, uffd-noncoop)");
        }
        Ok(())
    }
}

/// The first executable file named `criu`, as execvp(3) looks for it.
fn in_path(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let executable = |file: &Path| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| dir.join("criu")).find(|file| executable(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn versions_read_as_crius_own() {
        let words: Vec<String> = [31_701, 30_000, 40_200].map(|n| Version(n).to_string()).into();
        assert_eq!(words, ["3.17.1", "3.0", "4.2"]);
    }

    #[test]
    fn only_an_executable_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir_all(one.join("criu")).unwrap();
        std::fs::create_dir(&two).unwrap();
        let path = std::env::join_paths([&one, &two]).unwrap();
        assert_eq!(in_path(&path), None);
        let program = two.join("criu");
        std::fs::write(&program, "").unwrap();
        assert_eq!(in_path(&path), None);
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(in_path(&path), Some(program));
    }
}
