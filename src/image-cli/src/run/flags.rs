//! From the words of the command line to what is asked of a container.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::runtime_config::{Network, Run, Seccomp};

use super::{mounts, network};
use crate::cli;

/// Reads all flags. Host name and id come later.
pub fn read(words: &ArgMatches) -> Result<Run> {
    let text = |name| cli::value::<String>(words, name);
    let mut run = Run {
        args: cli::values(words, "command"),
        entrypoint: text("entrypoint").map(|text| entrypoint(&text)).transpose()?,
        env: env(words)?,
        cwd: text("workdir"),
        user: text("user"),
        terminal: cli::flag(words, "tty"),
        read_only: cli::flag(words, "read-only"),
        privileged: cli::flag(words, "privileged"),
        cap_add: names_of(words, "cap-add"),
        cap_drop: names_of(words, "cap-drop"),
        mounts: mounts::read(words)?,
        memory: text("memory")
            .map(|text| bytes(&text).with_context(|| format!("--memory {text}")))
            .transpose()?,
        millicpus: text("cpus")
            .map(|text| millicpus(&text).with_context(|| format!("--cpus {text}")))
            .transpose()?,
        pids_limit: pids(text("pids-limit"))?,
        network: network::read(text("network").as_deref())?,
        cgroups_path: text("cgroup-path"),
        ..Run::default()
    };
    if run.cwd.as_deref().is_some_and(|cwd| !cwd.starts_with('/')) {
        bail!("--workdir {}: not an absolute path", run.cwd.unwrap_or_default());
    }
    for option in cli::values(words, "security-opt") {
        security(&option, &mut run).with_context(|| format!("--security-opt {option}"))?;
    }
    for pair in cli::values(words, "annotation") {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| anyhow!("--annotation {pair}: not KEY=VALUE"))?;
        run.annotations.insert(key.to_owned(), value.to_owned());
    }
    if run.privileged {
        run.devices = mounts::all_devices(Path::new("/dev"))?;
    }
    Ok(run)
}

/// The host name: the one asked for, the machine's in its own network, else the id.
pub fn names(words: &ArgMatches, id: &str, run: &mut Run) {
    let named = cli::value::<String>(words, "hostname");
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let default = || if run.network == Network::Host { machine() } else { id.to_owned() };
    run.hostname = Some(named.unwrap_or_else(default));
}

/// Names, given one by one or with commas between them.
fn names_of(words: &ArgMatches, flag: &str) -> Vec<String> {
    cli::values(words, flag)
        .iter()
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// A JSON array, or one word; nothing clears the image's.
fn entrypoint(text: &str) -> Result<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).with_context(|| format!("--entrypoint {text}"));
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}

/// The files first, then the flags, which win. A name alone takes the caller's value, if there is one.
fn env(words: &ArgMatches) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for file in cli::values(words, "env-file") {
        let text = std::fs::read_to_string(&file).with_context(|| format!("--env-file {file}"))?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            env.extend(variable(line).with_context(|| format!("--env-file {file}"))?);
        }
    }
    for word in cli::values(words, "env") {
        env.extend(variable(&word)?);
    }
    Ok(env)
}

fn variable(text: &str) -> Result<Option<String>> {
    match text.split_once('=') {
        Some(("", _)) => bail!("{text:?} is no variable: it has no name"),
        Some(_) => Ok(Some(text.to_owned())),
        None => Ok(std::env::var(text).ok().map(|value| format!("{text}={value}"))),
    }
}

/// A number with the units of docker: powers of 1024.
pub fn bytes(text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        unit => bail!("unknown unit {unit:?}; there are b, k, m, g and t"),
    };
    let number: i64 =
        digits.parse().ok().filter(|number| *number > 0).ok_or_else(|| anyhow!("not a size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| anyhow!("too large"))
}

/// Thousandths of a CPU. Docker takes up to nine decimals; the kernel's quota has two.
fn millicpus(text: &str) -> Result<u64> {
    let wrong = || anyhow!("not a number of CPUs; write one such as 1.5");
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    if !(0.01..=100_000.0).contains(&number) {
        bail!("out of range: between 0.01 and 100000");
    }
    Ok((number * 1000.0).round() as u64)
}

fn pids(text: Option<String>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let number: i64 = text
        .parse()
        .ok()
        .filter(|number| *number >= -1)
        .with_context(|| format!("--pids-limit {text}: not a number"))?;
    Ok((number > 0).then_some(number))
}

fn security(option: &str, run: &mut Run) -> Result<()> {
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => run.no_new_privileges = true,
        ("no-new-privileges", "false") => run.no_new_privileges = false,
        ("seccomp", "unconfined") => run.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => run.seccomp = Seccomp::Default,
        ("seccomp", path) if !path.is_empty() => {
            let text = std::fs::read(path).context("read the profile")?;
            let profile = serde_json::from_slice(&text).context("the profile is not JSON")?;
            run.seccomp = Seccomp::Profile { profile, kernel: kernel() };
        }
        ("apparmor", "unconfined") => run.apparmor = None,
        ("apparmor", name) if !name.is_empty() => run.apparmor = Some(name.to_owned()),
        ("systempaths", "unconfined") => run.unmasked = true,
        // Nothing gives a container a label unless its config.json says so.
        ("label", "disable") => {}
        // Without SELinux docker and podman pass over them too.
        ("label", _) if !Path::new("/sys/fs/selinux/enforce").exists() => {}
        ("label", _) => bail!("labels of SELinux are not made; label=disable runs without one"),
        _ => bail!("unknown; there are no-new-privileges, seccomp, apparmor, systempaths and label"),
    }
    Ok(())
}

/// The first two numbers of the running kernel's version.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let text = uname.release().to_string_lossy();
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn sizes_have_dockers_units() {
        for (text, expected) in [
            ("1", 1),
            ("512b", 512),
            ("4k", 4096),
            ("64m", 64 << 20),
            ("2G", 2 << 30),
            ("1GiB", 1 << 30),
            ("3MB", 3 << 20),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.5g", "99999999999g", "0"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_decimal_numbers() {
        for (text, expected) in [("1", 1000), ("1.5", 1500), ("0.01", 10), (".5", 500)] {
            assert_eq!(millicpus(text).unwrap(), expected, "{text}");
        }
        for text in ["", "0", "-1", "inf", "nan", "1e3", "1.5.1"] {
            assert!(millicpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn entrypoints_are_arrays_or_words() {
        assert_eq!(entrypoint("[\"a\", \"b c\"]").unwrap(), ["a", "b c"]);
        assert_eq!(entrypoint("a b").unwrap(), ["a b"]);
        assert!(entrypoint("").unwrap().is_empty());
        assert!(entrypoint("[a]").is_err());
    }

    #[test]
    fn security_options_are_those_of_docker() {
        let mut run = Run::default();
        for option in [
            "no-new-privileges",
            "seccomp=unconfined",
            "apparmor=mine",
            "systempaths=unconfined",
            "label=disable",
            "label:disable",
        ] {
            security(option, &mut run).unwrap();
        }
        assert!(run.no_new_privileges && run.unmasked && run.seccomp == Seccomp::Unconfined);
        assert_eq!(run.apparmor.take().as_deref(), Some("mine"));
        security("no-new-privileges:false", &mut run).unwrap();
        security("apparmor=unconfined", &mut run).unwrap();
        assert!(!run.no_new_privileges && run.apparmor.is_none());
        for option in ["seccomp", "seccomp=/no/such/file", "systempaths=x", "apparmor", "x"] {
            assert!(security(option, &mut run).is_err(), "{option}");
        }
        assert!(kernel() > (4, 0));
    }
}
