//! `.process`.

use std::fmt::Display;

use super::attributes::{cpu_affinity, io_priority, scheduler};
use super::capabilities::capabilities;
use super::{Warning, absolute, environment, labels, no_null};
use crate::invalid::Invalid;
use crate::names::{RLIMITS, rlimit_number};
use crate::spec::{Process, Rlimit, Spec, User};

/// (uid_t) -1, which setresuid(2) reads as "leave it".
const NO_ID: u32 = u32::MAX;

pub(super) fn process(spec: &Spec, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    match &spec.process {
        Some(process) => check_process(process, ".process", warnings),
        None => Ok(()),
    }
}

pub(super) fn check_process(process: &Process, at: &str, warnings: &mut Vec<Warning>) -> Result<(), Invalid> {
    absolute(format_args!("{at}.cwd"), &process.cwd)?;
    if process.args.is_empty() {
        return Err(Invalid::new(format!("{at}.args"), "args must not be empty"));
    }
    for (index, arg) in process.args.iter().enumerate() {
        no_null(format_args!("{at}.args[{index}]"), arg)?;
    }
    environment(format_args!("{at}.env"), &process.env)?;
    if process.terminal {
        console_size(process, at)?;
    }
    user(&format!("{at}.user"), &process.user)?;
    if let Some(sets) = &process.capabilities {
        capabilities(&format!("{at}.capabilities"), sets, warnings)?;
    }
    rlimits(&format!("{at}.rlimits"), &process.rlimits)?;
    // OOM_SCORE_ADJ_MIN and _MAX, proc_pid_oom_score_adj(5).
    if let Some(value) = process.oom_score_adj {
        if !(-1000..=1000).contains(&value) {
            let at = format!("{at}.oomScoreAdj");
            return Err(Invalid::new(at, format!("must be between -1000 and 1000, found {value}")));
        }
    }
    scheduler(&format!("{at}.scheduler"), process.scheduler.as_ref())?;
    io_priority(&format!("{at}.ioPriority"), process.io_priority.as_ref())?;
    labels::process(process, at)?;
    cpu_affinity(&format!("{at}.execCPUAffinity"), process.exec_cpu_affinity.as_ref())
}

/// struct winsize of ioctl_tty(2) has 16 bits for each side.
fn console_size(process: &Process, at: &str) -> Result<(), Invalid> {
    let Some(size) = &process.console_size else { return Ok(()) };
    for (field, value) in [("height", size.height), ("width", size.width)] {
        if value > u64::from(u16::MAX) {
            let at = format!("{at}.consoleSize.{field}");
            return Err(Invalid::new(at, format!("must be at most 65535, found {value}")));
        }
    }
    Ok(())
}

fn user(at: &str, user: &User) -> Result<(), Invalid> {
    for (field, id) in [("uid", user.uid), ("gid", user.gid)] {
        an_id(format_args!("{at}.{field}"), id)?;
    }
    for (index, gid) in user.additional_gids.iter().enumerate() {
        an_id(format_args!("{at}.additionalGids[{index}]"), *gid)?;
    }
    match user.umask {
        Some(umask) if umask > 0o777 => {
            let why = format!("must be at most 511 (0777), found {umask} ({umask:#o})");
            Err(Invalid::new(format!("{at}.umask"), why))
        }
        _ => Ok(()),
    }
}

fn an_id(at: impl Display, id: u32) -> Result<(), Invalid> {
    if id == NO_ID {
        return Err(Invalid::new(at.to_string(), format!("{id} is not an id")));
    }
    Ok(())
}

fn rlimits(at: &str, rlimits: &[Rlimit]) -> Result<(), Invalid> {
    for (index, rlimit) in rlimits.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if rlimit_number(&rlimit.r#type).is_none() {
            let known: Vec<&str> = RLIMITS.iter().map(|row| row.0).collect();
            return Err(Invalid::unknown(at + ".type", "rlimit", &rlimit.r#type, &known));
        }
        if rlimits.iter().take(index).any(|other| other.r#type == rlimit.r#type) {
            return Err(Invalid::new(at + ".type", format!("{} appears twice", rlimit.r#type)));
        }
        if rlimit.soft > rlimit.hard {
            let why = format!("{} is above the hard limit {}", rlimit.soft, rlimit.hard);
            return Err(Invalid::new(at + ".soft", why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{process_table, verdict};

    #[test]
    fn create_may_come_without_a_process() {
        assert_eq!(verdict("{}"), "ok");
    }

    #[test]
    fn args_and_cwd_are_required() {
        process_table(&[
            (r#"{"args": []}"#, ".process.args: args must not be empty"),
            (r#"{"args": ["a", "b\u0000"]}"#, ".process.args[1]: must not contain a null byte"),
            (r#"{"cwd": ""}"#, ".process.cwd: must not be empty"),
            (r#"{"cwd": "tmp"}"#, r#".process.cwd: must be an absolute path, found "tmp""#),
            (r#"{"cwd": "/a\u0000b"}"#, ".process.cwd: must not contain a null byte"),
        ]);
    }

    #[test]
    fn env_entries_have_names() {
        process_table(&[
            (r#"{"env": ["A=1", "B=", "C=x=y", "A=2"]}"#, "ok"),
            (r#"{"env": ["A=1", "PATH"]}"#, r#".process.env[1]: expected NAME=value, found "PATH""#),
            (r#"{"env": ["=1"]}"#, r#".process.env[0]: the name is empty in "=1""#),
            (r#"{"env": ["A=\u0000"]}"#, ".process.env[0]: must not contain a null byte"),
        ]);
    }

    #[test]
    fn console_size_fits_the_terminal() {
        process_table(&[
            (
                r#"{"terminal": true, "consoleSize": {"height": 70000, "width": 80}}"#,
                ".process.consoleSize.height: must be at most 65535, found 70000",
            ),
            (r#"{"terminal": false, "consoleSize": {"height": 70000, "width": 80}}"#, "ok"),
            (r#"{"terminal": true, "consoleSize": {"height": 25, "width": 80}}"#, "ok"),
        ]);
    }

    #[test]
    fn ids_and_umask_are_in_range() {
        process_table(&[
            (r#"{"user": {"uid": 4294967295}}"#, ".process.user.uid: 4294967295 is not an id"),
            (
                r#"{"user": {"additionalGids": [1, 4294967295]}}"#,
                ".process.user.additionalGids[1]: 4294967295 is not an id",
            ),
            (
                r#"{"user": {"umask": 512}}"#,
                ".process.user.umask: must be at most 511 (0777), found 512 (0o1000)",
            ),
            (r#"{"user": {"uid": 4294967294, "gid": 1, "umask": 511, "additionalGids": [0]}}"#, "ok"),
        ]);
    }

    #[test]
    fn rlimits_are_known_ordered_and_single() {
        process_table(&[
            (r#"{"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}]}"#, "ok"),
            (
                r#"{"rlimits": [{"type": "RLIMIT_NOFILES", "soft": 1, "hard": 1}]}"#,
                r#".process.rlimits[0].type: unknown rlimit "RLIMIT_NOFILES"; did you mean "RLIMIT_NOFILE""#,
            ),
            (
                r#"{"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}"#,
                ".process.rlimits[0].soft: 2 is above the hard limit 1",
            ),
            (
                r#"{"rlimits": [{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_AS"}, {"type": "RLIMIT_CPU"}]}"#,
                ".process.rlimits[2].type: RLIMIT_CPU appears twice",
            ),
        ]);
    }

    #[test]
    fn oom_score_is_in_range() {
        process_table(&[
            (r#"{"oomScoreAdj": -1000}"#, "ok"),
            (r#"{"oomScoreAdj": 1000}"#, "ok"),
            (r#"{"oomScoreAdj": 1001}"#, ".process.oomScoreAdj: must be between -1000 and 1000, found 1001"),
            (
                r#"{"oomScoreAdj": -1001}"#,
                ".process.oomScoreAdj: must be between -1000 and 1000, found -1001",
            ),
        ]);
    }

    #[test]
    fn cpus_of_exec_are_lists() {
        process_table(&[
            (r#"{"execCPUAffinity": {"initial": "0-3,7", "final": ""}}"#, "ok"),
            (
                r#"{"execCPUAffinity": {"initial": "0", "final": "2-1"}}"#,
                r#".process.execCPUAffinity.final: "2-1" ends before it begins"#,
            ),
        ]);
    }

    #[test]
    fn a_process_file_is_named_from_its_own_root() {
        let process = crate::parse::parse_process(r#"{"cwd": "/"}"#).expect("valid JSON");
        let invalid = super::super::check_process(&process, "").expect_err("no args");
        assert_eq!(invalid.to_string(), ".args: args must not be empty");
    }
}
