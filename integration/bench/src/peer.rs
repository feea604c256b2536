//! Which programs are measured.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::args::Settings;
use crate::cold;
use crate::operation::Operation;

/// How a peer is spoken to.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// By runc's command line.
    Runtime,
    /// The program that does only the kernel operations; it knows `run` alone.
    Floor { filter: Option<PathBuf> },
}

/// One program under measurement.
#[derive(Debug)]
pub struct Peer {
    pub name: String,
    pub path: PathBuf,
    /// First line of `--version`; empty for the floor program.
    pub version: String,
    /// Size of the binary in bytes.
    pub size: u64,
    pub kind: Kind,
    /// It and its libraries.
    pub files: Vec<PathBuf>,
}

impl Peer {
    /// `crun` and `[1, 27, 1]`: the program's name for itself and its version.
    pub fn release(&self) -> Option<(&str, Vec<u32>)> {
        let (program, version) = self.version.split_once(" version ")?;
        let numbers = version.split(['.', '-', '+', ' ']).map_while(|part| part.parse().ok());
        Some((program, numbers.collect()))
    }

    /// The floor program does nothing but run.
    pub fn knows(&self, operation: Operation) -> bool {
        match self.kind {
            Kind::Runtime => true,
            Kind::Floor { .. } => {
                matches!(operation, Operation::Run | Operation::Parallel | Operation::Sequential)
            }
        }
    }
}

/// The newest of the peers that call themselves `program`.
pub fn newest<'a>(peers: &'a [Peer], program: &str) -> Option<&'a Peer> {
    let named = peers.iter().filter(|peer| peer.release().is_some_and(|(name, _)| name == program));
    named.max_by_key(|peer| peer.release().map(|(_, version)| version))
}

const RUNTIMES: [&str; 4] = ["creel", "crun", "runc", "youki"];

/// The peers that can be measured, and a line for each that cannot.
pub fn find(settings: &Settings) -> Result<(Vec<Peer>, Vec<String>)> {
    let mut wanted: Vec<(String, Option<PathBuf>)> = Vec::new();
    for name in RUNTIMES {
        wanted.push((name.to_owned(), if name == "creel" { built_creel() } else { in_path(name) }));
    }
    for (name, path) in &settings.peers {
        wanted.retain(|(known, _)| known != name);
        wanted.push((name.clone(), Some(path.clone())));
    }
    let known: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).chain(["floor"]).collect();
    if let Some(stranger) = settings.only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("--only names \"{stranger}\"; there is {}", known.join(", "));
    }
    let asked = |name: &str| settings.only.is_empty() || settings.only.iter().any(|only| only == name);
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for (name, path) in wanted.into_iter().filter(|(name, _)| asked(name)) {
        match path.map(|path| runtime(&name, &path)) {
            Some(Ok(peer)) => peers.push(peer),
            Some(Err(error)) => absent.push(format!("{name}: {error:#}; not measured")),
            None => absent.push(format!("{name}: not found; not measured")),
        }
    }
    if let Some(path) = settings.floor.as_ref().filter(|_| asked("floor")) {
        let kind = Kind::Floor { filter: settings.floor_bpf.clone() };
        peers.push(peer("floor", path, String::new(), kind)?);
    }
    Ok((peers, absent))
}

fn runtime(name: &str, path: &Path) -> Result<Peer> {
    let output = Command::new(path).arg("--version").output().with_context(|| path.display().to_string())?;
    if !output.status.success() {
        bail!("{} --version: {}", path.display(), output.status);
    }
    let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    peer(name, path, version, Kind::Runtime)
}

fn peer(name: &str, path: &Path, version: String, kind: Kind) -> Result<Peer> {
    let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    let size = fs::metadata(&path)?.len();
    let files = cold::files_of(&path);
    Ok(Peer { name: name.to_owned(), path, version, size, kind, files })
}

/// `CREEL_BENCH_RUNTIME`, else the release binary beside this program (both are built for the same
/// target), else the one in PATH.
fn built_creel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CREEL_BENCH_RUNTIME") {
        return Some(path.into());
    }
    let beside = std::env::current_exe().ok()?.with_file_name("creel");
    if executable(&beside) { Some(beside) } else { in_path("creel") }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
