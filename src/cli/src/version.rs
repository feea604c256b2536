//! `--version`.

use creel_container::LIBSECCOMP_VERSION;

/// The runtime specification whose config.json creel reads and writes.
pub const SPEC: &str = "1.3.0";

/// creel's version.
pub const CREEL: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub const COMMIT: &str = env!("CREEL_COMMIT");

/// Lines that engines read: go-runc looks for `runc version `, `commit: ` and `spec: `.
pub fn text(name: &str) -> String {
    format!("{name} version {CREEL}\ncommit: {COMMIT}\nspec: {SPEC}\nlibseccomp: {LIBSECCOMP_VERSION}\n")
}
