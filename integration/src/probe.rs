//! The probe: the program that reports from inside a container.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::runtime;

/// Path of the static probe binary: `CREEL_TEST_PROBE`, or built here, once.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CREEL_TEST_PROBE") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Path of the program that stands in for CRIU, which is built with the probe.
pub fn fake_criu() -> PathBuf {
    binary().with_file_name("creel-fake-criu")
}

/// `--target` is named although it is the host's: without it, RUSTFLAGS would also reach build
/// scripts and procedural macros, which cannot be linked statically. The directory is another than
/// the workspace's, so that neither build invalidates the other.
fn build() -> PathBuf {
    let host = env!("CREEL_TEST_HOST");
    let dir = runtime::target_dir().join("probe");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .current_dir(runtime::workspace())
        .args(["build", "--quiet", "--release", "--package", "creel-probe", "--target", host, "--target-dir"])
        .arg(&dir)
        .args(["--config", "profile.release.lto=false", "--config", "profile.release.codegen-units=16"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(out.status.success(), "building the probe: {}", String::from_utf8_lossy(&out.stderr));
    dir.join(host).join("release/creel-probe")
}

/// Looks up `a/b/c` in a report; `/` inside a key is written `~1` (RFC 6901).
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn at<'a>(report: &'a Value, pointer: &str) -> &'a Value {
    report.pointer(&format!("/{pointer}")).unwrap_or_else(|| panic!("no {pointer} in {report:#}"))
}

/// Text of a field of the report.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn text<'a>(report: &'a Value, pointer: &str) -> &'a str {
    at(report, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no string in {report:#}"))
}

/// The topmost mount on `target`.
///
/// # Panics
/// When nothing is mounted there.
#[track_caller]
pub fn mount<'a>(report: &'a Value, target: &str) -> &'a Value {
    let mounts = at(report, "mounts").as_array().unwrap();
    let found = mounts.iter().rev().find(|mount| mount["target"] == target);
    found.unwrap_or_else(|| panic!("nothing mounted on {target}: {mounts:#?}"))
}

/// Whether a mount of the report has `option` among its own options or its file system's.
pub fn has_option(mount: &Value, option: &str) -> bool {
    ["options", "super"]
        .iter()
        .any(|set| mount[set].as_array().is_some_and(|options| options.iter().any(|known| known == option)))
}

/// Whether a mount of the report has `option` among the options of the mount itself.
pub fn has_mount_option(mount: &Value, option: &str) -> bool {
    mount["options"].as_array().is_some_and(|options| options.iter().any(|known| known == option))
}

#[cfg(test)]
mod tests {
    /// hack/test-vm.sh has it built this way, for a machine without cargo.
    #[test]
    fn probe_and_fake_criu_are_there() {
        assert!(super::binary().is_file() && super::fake_criu().is_file());
    }
}
