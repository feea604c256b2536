//! The environment as a value: read once from the process, or given by a test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Environment variables by name, and the user they belong to.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    uid: u32,
}

impl Environment {
    /// The process's own.
    #[must_use]
    pub fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect(), uid: rustix::process::getuid().as_raw() }
    }

    /// An environment of these variables alone, for the user `uid`.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(
        uid: u32,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self { variables: variables.into_iter().map(|(n, v)| (n.into(), v.into())).collect(), uid }
    }

    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// A variable that is set and not empty, as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A variable that is set, not empty and UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(std::ffi::OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME").or_else(|| Some(self.path("HOME")?.join(".config")))
    }
}
