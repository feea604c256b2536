//! Which runtime is under test, and which one it is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An OCI runtime binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    path: PathBuf,
    creel: bool,
    version: (u32, u32),
}

impl Runtime {
    /// The runtime at `path`.
    ///
    /// # Panics
    /// When it does not answer `--version`.
    pub fn at(path: &Path) -> Runtime {
        let path = path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let out = Command::new(&path).arg("--version").output();
        let out = out.unwrap_or_else(|error| panic!("{} --version: {error}", path.display()));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let number = text.lines().next().and_then(|line| line.split(' ').nth(2)).unwrap_or_default();
        let mut parts = number.split(['.', '+', '-']).map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let creel = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("creel"));
        Runtime { path, creel, version }
    }

    /// `CREEL_TEST_RUNTIME`, else creel as `cargo build --release` leaves it.
    ///
    /// # Panics
    /// When there is neither.
    pub fn under_test() -> &'static Runtime {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| match std::env::var_os("CREEL_TEST_RUNTIME") {
            Some(path) => Runtime::at(Path::new(&path)),
            None => {
                Runtime::at(&built("creel").expect("no release build of creel: run cargo build --release"))
            }
        })
    }

    /// runc, from `CREEL_TEST_RUNC` or the places where distributions put it.
    pub fn runc() -> Option<Runtime> {
        let named = std::env::var_os("CREEL_TEST_RUNC").map(PathBuf::from);
        let usual = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"];
        named
            .into_iter()
            .chain(usual.into_iter().map(PathBuf::from))
            .find(|path| path.exists())
            .map(|path| Runtime::at(&path))
    }

    /// The binary.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is creel: its own words in errors are then checked too.
    pub fn is_creel(&self) -> bool {
        self.creel
    }

    /// creel, or runc 1.`minor` and newer.
    pub fn has_runc(&self, minor: u32) -> bool {
        self.creel || self.version >= (1, minor)
    }
}

/// Whether the runtime under test is creel.
pub fn is_creel() -> bool {
    Runtime::under_test().is_creel()
}

/// A binary of the workspace's release build, with or without `--target`.
pub fn built(name: &str) -> Option<PathBuf> {
    let target = target_dir();
    let plain = target.join("release").join(name);
    let triples = std::fs::read_dir(&target).ok()?.flatten().map(|dir| dir.path().join("release").join(name));
    std::iter::once(plain)
        .chain(triples)
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
}

/// The workspace's target directory, seen from the running test binary (`target/debug/deps/name`, or
/// `target/<triple>/debug/deps/name`, where cargo tags the inner directory too).
pub fn target_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").exists()).last();
    found.map_or_else(|| workspace().join("target"), Path::to_owned)
}

/// The workspace's directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
