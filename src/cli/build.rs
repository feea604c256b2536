//! Passes the commit that is being built to `creel --version`; a source archive has none.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CREEL_COMMIT={commit}");
    println!("cargo::rerun-if-changed=build.rs");
    // Release builds are linked by it (hack/build.sh).
    println!("cargo::rerun-if-changed=../../hack/creel.ld");
    // `logs/HEAD` gets a line for every commit, checkout and reset; `HEAD` alone changes only when
    // another branch is checked out.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
