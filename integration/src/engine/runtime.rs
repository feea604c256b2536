//! The runtime under test: which binary it is, and a recorder that writes down how an engine calls it.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::sandbox::{PRIVATE, Sandbox};

/// An OCI runtime that engines are pointed at.
#[derive(Debug, Clone)]
pub struct Runtime {
    path: PathBuf,
}

impl Runtime {
    /// `CREEL_TEST_RUNTIME`, else the release binary of this workspace.
    ///
    /// The path is made absolute but a symlink is kept: engines go by the name they are given.
    pub fn find() -> Result<Self> {
        let path = match env::var_os("CREEL_TEST_RUNTIME") {
            Some(given) => PathBuf::from(given),
            None => target_directory().join("release/creel"),
        };
        let path = std::path::absolute(&path)?;
        let meta = fs::metadata(&path)
            .with_context(|| format!("runtime {}: build it, or set CREEL_TEST_RUNTIME", path.display()))?;
        ensure!(
            meta.is_file() && meta.permissions().mode() & 0o111 != 0,
            "runtime {}: not an executable file",
            path.display()
        );
        ensure!(
            !PRIVATE.iter().any(|directory| path.starts_with(directory)),
            "runtime {}: engines run with a {} of their own",
            path.display(),
            PRIVATE.join(", ")
        );
        Ok(Self { path })
    }

    /// Where the binary is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file name, which podman looks up in `runtime_supports_json`.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

fn target_directory() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// One call an engine made: the arguments, and the exit code the runtime answered with.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Exit code of the runtime.
    pub code: i32,
    /// Arguments after the program's name.
    pub args: Vec<String>,
}

impl Recorded {
    /// Whether `words` stand next to each other in the call.
    pub fn has(&self, words: &[&str]) -> bool {
        self.args.windows(words.len()).any(|window| window == words)
    }
}

/// A stand-in for the runtime that runs it and appends the call to a file.
#[derive(Debug)]
pub struct Recorder {
    script: PathBuf,
    calls: PathBuf,
}

impl Recorder {
    /// Place it in the sandbox. It keeps the runtime's file name, because podman decides by that name
    /// whether the runtime writes JSON logs, and it is no shebang-less exec: the exit code is wanted.
    pub fn install(sandbox: &Sandbox, runtime: &Runtime) -> Result<Self> {
        let directory = sandbox.inside("recorder");
        let script = directory.join(runtime.name());
        let calls = directory.join("calls");
        let text = format!(
            "#!/bin/sh\n\"{}\" \"$@\"\ncode=$?\n{{ printf '%s' $code; printf '\\t%s' \"$@\"; echo; }} >> {}\nexit $code\n",
            runtime.path().display(),
            calls.display()
        );
        let outside = sandbox.outside(&script);
        fs::create_dir_all(sandbox.outside(&directory))?;
        fs::write(&outside, text)?;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o755))?;
        Ok(Self { script, calls })
    }

    /// What to give to the engine in place of the runtime.
    pub fn path(&self) -> &Path {
        &self.script
    }

    /// Every call so far, in the order they ended.
    pub fn calls(&self, sandbox: &Sandbox) -> Result<Vec<Recorded>> {
        let text =
            fs::read_to_string(sandbox.outside(&self.calls)).context("the runtime was never called")?;
        text.lines()
            .map(|line| {
                let mut fields = line.split('\t').map(str::to_owned);
                let code = fields.next().unwrap_or_default();
                let code = code.parse().with_context(|| format!("recorded line {line:?}"))?;
                Ok(Recorded { code, args: fields.collect() })
            })
            .collect()
    }
}
