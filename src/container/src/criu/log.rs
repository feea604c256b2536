//! What CRIU's log says of a failure.

use std::path::Path;

/// What an error message cites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cited {
    /// The error that says most.
    pub line: String,
    /// CRIU did not get beyond finding out what this kernel can do.
    pub unfit: bool,
}

/// The error to cite from a log file, if there is one.
pub fn cite(log: &Path) -> Option<Cited> {
    let bytes = std::fs::read(log).ok()?;
    pick(&String::from_utf8_lossy(&bytes))
}

/// The first error and the last, between which the rest is mostly consequence, without the very last of
/// all, `Dumping FAILED.`. Where CRIU's look at the kernel failed that is the first of the lines that lead to it.
fn pick(text: &str) -> Option<Cited> {
    let lines: Vec<Option<&str>> = text.lines().map(error).collect();
    let is_end = |line: &Option<&str>| line.is_some_and(|said| said.contains("initializing kerndat"));
    if let Some(end) = lines.iter().position(is_end) {
        let line = lines[..=end].iter().rev().map_while(|line| *line).last()?;
        return Some(Cited { line: line.to_string(), unfit: true });
    }
    // Without CAP_SYS_RESOURCE CRIU complains of its own limit, and goes on.
    let is_idle = |said: &&str| said.contains("FAILED") || said.contains("RLIMIT_NOFILE for self");
    let mut causes = lines.into_iter().flatten().filter(|said| !is_idle(said));
    let first = causes.next()?;
    let line = match causes.next_back() {
        Some(last) => format!("{first}; {last}"),
        None => first.to_string(),
    };
    Some(Cited { line, unfit: false })
}

/// `(00.033007) Error (criu/vdso.c:381): vdso: ...`: the part after the place in CRIU's source.
fn error(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, said) = rest.split_once("): ")?;
    Some(said.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_cause_and_the_last_consequence_are_cited() {
        let log = "(00.1) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: no\n\
                   (00.2)   12 was trapped\n(00.3) Error (criu/files-reg.c:2): Can't lookup mount=25\n\
                   (00.3) Error (criu/files.c:2): between\n\
                   (00.3) Error (criu/cr-dump.c:2): Dump files failed\n\
                   (00.4) Error (criu/cr-dump.c:3): Dumping FAILED.\n";
        let line = "Can't lookup mount=25; Dump files failed".to_string();
        assert_eq!(pick(log), Some(Cited { line, unfit: false }));
        let one = "(00.3) Error (criu/mount.c:2): mnt: 12 has no root mount\n";
        let line = "mnt: 12 has no root mount".to_string();
        assert_eq!(pick(one), Some(Cited { line, unfit: false }));
        assert_eq!(pick("(00.1) all is well\n"), None);
    }

    #[test]
    fn a_criu_that_does_not_know_the_kernel_is_told_apart() {
        let log = "(00.0) Error (criu/util.c:1): rlimit: no\n(00.1) vdso: nbucket 3\n\
                   (00.1) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n\
                   (00.1) Error (criu/vdso.c:613): vdso: Failed to fill self vdso symtable\n\
                   (00.1) Error (criu/kerndat.c:1615): kerndat_vdso_fill_symtable failed when initializing kerndat.\n";
        let cited = pick(log).unwrap();
        assert_eq!(cited, Cited { line: "vdso: Unexpected rt vDSO area bounds".into(), unfit: true });
    }
}
