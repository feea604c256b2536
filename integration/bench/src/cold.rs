//! Puts files out of the page cache (posix_fadvise(2), POSIX_FADV_DONTNEED). Pages that some process
//! has mapped stay: the C library is warm on a real machine too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// A program and the libraries that it is linked with.
pub fn files_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output();
    // Of a static program ldd has nothing to say.
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let libraries =
        text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    libraries.map(PathBuf::from).chain([program.to_owned()]).collect()
}

/// Best effort: a file that cannot be opened is not in use either.
pub fn evict(files: &[PathBuf]) {
    for file in files.iter().filter_map(|path| File::open(path).ok()) {
        // Dirty pages stay.
        if file.sync_data().is_ok() {
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).ok();
        }
    }
}
