//! containerd, its CRI plugin, podman, Docker and buildah with the runtime under test.
//!
//! The runtime is `CREEL_TEST_RUNTIME`, else the release binary. Arguments that are no options are words to
//! look for in `ENGINE: CASE`; with none, everything runs. A missing engine is a skip, printed and counted;
//! `hack/engines-install.sh` installs all of them.

mod buildah;
mod client;
mod containerd;
mod cri;
mod cri_api;
mod cri_client;
mod cri_pod;
mod docker;
mod lifecycle;
mod podman;
mod settings;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use creel_integration::engine::harness::{Ground, Report, Skip, need_programs, say};
use creel_integration::engine::image::Archive;
use creel_integration::engine::runtime::Runtime;

/// Programs without which no sandbox can be made.
const NEEDED: [&str; 7] = ["ip", "nsenter", "script", "setpriv", "sha256sum", "tar", "unshare"];

fn main() -> ExitCode {
    let begun = Instant::now();
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut report = Report::new(filter);
    match ground() {
        Ok(ground) => {
            containerd::suite(&mut report, &ground);
            cri::suite(&mut report, &ground);
            podman::suite(&mut report, &ground);
            docker::suite(&mut report, &ground);
            buildah::suite(&mut report, &ground);
        }
        Err(error) => report.cannot_start(error),
    }
    if report.end(begun) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ground() -> Result<Ground> {
    if !rustix::process::geteuid().is_root() {
        return Err(Skip::new("engines need root"));
    }
    need_programs(&NEEDED)?;
    let runtime = Runtime::find()?;
    say(&format!("runtime: {}", runtime.path().display()));
    Ok(Ground { runtime, images: Archive::make()? })
}
