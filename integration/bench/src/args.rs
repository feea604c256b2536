//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub const HELP: &str = "\
Usage: creel-bench [OPTION]...
Run creel and its peers side by side on the same bundles and print what each operation costs.

  --config NAME,...    configs to measure: min, k8s, userns (default: k8s,min)
  --rounds N           rounds of run, create, start, state, exec, kill, delete (default: 40)
  --bulk-rounds N      rounds of the parallel and the sequential runs (default: 5)
  --parallel N         containers started at once (default: 20)
  --sequential N       containers run one after the other, without pause (default: 100)
  --pause-ms N         pause before each measured command of a round (default: 30); it lets the
                       kernel's grace periods end, as they have between the containers of a node
  --peer NAME=PATH     one more runtime, or another binary for creel, runc, crun or youki
  --only NAME,...      measure these peers only
  --floor PATH         a program that does only the kernel operations of such a run
  --floor-bpf FILE     compiled seccomp filter that the floor program loads
  --busybox PATH       static busybox for the rootfs (default: /bin/busybox)
  --json FILE          write every sample and the summary there
  --keep-cgroup-view   do not hide the v2 tree of a hybrid host (crun refuses such hosts)
  --help

creel is CREEL_BENCH_RUNTIME, else the release binary that `make build` left; runc, crun and youki
are taken from PATH.
";

/// What to measure, all defaults filled in.
#[derive(Debug)]
pub struct Settings {
    pub configs: Vec<String>,
    pub rounds: usize,
    pub bulk_rounds: usize,
    pub parallel: usize,
    pub sequential: usize,
    pub pause: Duration,
    /// `--peer`, in order: name and binary.
    pub peers: Vec<(String, PathBuf)>,
    /// Empty: all.
    pub only: Vec<String>,
    pub floor: Option<PathBuf>,
    pub floor_bpf: Option<PathBuf>,
    pub busybox: PathBuf,
    pub json: Option<PathBuf>,
    pub keep_cgroup_view: bool,
}

/// The command line, understood.
#[derive(Debug)]
pub enum Request {
    Help,
    Measure(Box<Settings>),
}

/// Reads the arguments after the program's name; `--flag value` and `--flag=value` alike.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Request> {
    let mut settings = Settings {
        configs: vec!["k8s".into(), "min".into()],
        rounds: 40,
        bulk_rounds: 5,
        parallel: 20,
        sequential: 100,
        pause: Duration::from_millis(30),
        peers: Vec::new(),
        only: Vec::new(),
        floor: None,
        floor_bpf: None,
        busybox: "/bin/busybox".into(),
        json: None,
        keep_cgroup_view: false,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(Request::Help),
            "--keep-cgroup-view" => {
                settings.keep_cgroup_view = true;
                continue;
            }
            _ => {}
        }
        let mut value =
            || inline.clone().or_else(|| arguments.next()).with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--config" => settings.configs = list(&value()?),
            "--rounds" => settings.rounds = number(&flag, &value()?)?,
            "--bulk-rounds" => settings.bulk_rounds = number(&flag, &value()?)?,
            "--parallel" => settings.parallel = number(&flag, &value()?)?,
            "--sequential" => settings.sequential = number(&flag, &value()?)?,
            "--pause-ms" => settings.pause = Duration::from_millis(number(&flag, &value()?)? as u64),
            "--peer" => settings.peers.push(named_path(&value()?)?),
            "--only" => settings.only = list(&value()?),
            "--floor" => settings.floor = Some(value()?.into()),
            "--floor-bpf" => settings.floor_bpf = Some(value()?.into()),
            "--busybox" => settings.busybox = value()?.into(),
            "--json" => settings.json = Some(value()?.into()),
            _ => bail!("unknown option \"{flag}\"; see --help"),
        }
    }
    Ok(Request::Measure(Box::new(settings)))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn number(flag: &str, text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("{flag} \"{text}\""))
}

/// `NAME=PATH`; the name becomes part of container ids and file names.
fn named_path(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').with_context(|| format!("--peer \"{text}\" is not NAME=PATH"))?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        bail!("--peer name \"{name}\" may hold letters, digits, '-', '.' and '_'");
    }
    Ok((name.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings> {
        match parse(arguments.iter().map(|&a| a.to_owned()))? {
            Request::Measure(settings) => Ok(*settings),
            Request::Help => bail!("help"),
        }
    }

    #[test]
    fn a_peer_given_inline_keeps_the_second_equals_sign() {
        let settings = settings(&["--peer=crun-new=/opt/crun", "--rounds", "3"]).unwrap();
        assert_eq!(settings.peers, [("crun-new".to_owned(), PathBuf::from("/opt/crun"))]);
        assert_eq!(settings.rounds, 3);
    }

    #[test]
    fn a_peer_name_that_is_no_file_name_is_refused() {
        for name in ["a/b=/bin/x", "=/bin/x", "plain"] {
            assert!(settings(&["--peer", name]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_missing_value_and_an_unknown_flag_are_errors() {
        assert!(settings(&["--rounds"]).is_err());
        assert!(settings(&["--rounds", "many"]).is_err());
        assert!(settings(&["--round", "3"]).is_err());
    }
}
