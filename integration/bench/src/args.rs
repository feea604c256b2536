//! What the command line asks for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::scenario::{self, Scenario};

pub const HELP: &str = "\
Usage: creel-bench [OPTION]...
Run creel and its peers side by side on the same bundles and print what each operation costs.

  --scenario NAME,...  what to measure: k8s, back-to-back, cold, mounts, min, userns, scale (default: all)
  --rounds N           rounds of each scenario, in place of its own number
  --bulk-rounds N      rounds of the parallel and the sequential runs of k8s
  --parallel N         containers started at once (default: 20)
  --sequential N       containers run one after the other, without pause (default: 100)
  --containers N       containers alive in the scenario scale (default: 1000)
  --peer NAME=PATH     one more runtime, or another binary for creel, runc, crun or youki
  --only NAME,...      measure these peers only
  --floor PATH         a program that does only the kernel operations of such a run
  --floor-bpf FILE     compiled seccomp filter that the floor program loads
  --systemd-cgroup     let systemd make the cgroups
  --busybox PATH       static busybox for the rootfs (default: /bin/busybox)
  --json FILE          write every sample and the summary there
  --document FILE      put tables and plot between the marks of this Markdown file, the plot beside it
  --seccomp FILE       figures of the filter generator (creel-seccomp's example `measure`) for the document
  --keep-cgroup-view   do not hide the v2 tree of a hybrid host (crun refuses such hosts)
  --help

creel is CREEL_BENCH_RUNTIME, else the release binary that `make build` left; runc, crun and youki
are taken from PATH.
";

/// What to measure, all defaults filled in.
#[derive(Debug)]
pub struct Settings {
    pub scenarios: Vec<Scenario>,
    /// Containers alive at scale; none when that is not measured.
    pub containers: Option<usize>,
    pub parallel: usize,
    pub sequential: usize,
    /// `--peer`, in order: name and binary.
    pub peers: Vec<(String, PathBuf)>,
    /// Empty: all.
    pub only: Vec<String>,
    pub floor: Option<PathBuf>,
    pub floor_bpf: Option<PathBuf>,
    pub systemd_cgroup: bool,
    pub busybox: PathBuf,
    pub json: Option<PathBuf>,
    pub document: Option<PathBuf>,
    pub seccomp: Option<PathBuf>,
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
        scenarios: scenario::ALL.to_vec(),
        containers: Some(1000),
        parallel: 20,
        sequential: 100,
        peers: Vec::new(),
        only: Vec::new(),
        floor: None,
        floor_bpf: None,
        systemd_cgroup: false,
        busybox: "/bin/busybox".into(),
        json: None,
        document: None,
        seccomp: None,
        keep_cgroup_view: false,
    };
    let (mut rounds, mut bulk_rounds, mut containers) = (None, None, None);
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
            "--systemd-cgroup" => {
                settings.systemd_cgroup = true;
                continue;
            }
            _ => {}
        }
        let mut value =
            || inline.clone().or_else(|| arguments.next()).with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--scenario" => choose(&mut settings, &value()?)?,
            "--rounds" => rounds = Some(number(&flag, &value()?)?),
            "--bulk-rounds" => bulk_rounds = Some(number(&flag, &value()?)?),
            "--parallel" => settings.parallel = number(&flag, &value()?)?,
            "--sequential" => settings.sequential = number(&flag, &value()?)?,
            "--containers" => containers = Some(number(&flag, &value()?)?),
            "--peer" => settings.peers.push(named_path(&value()?)?),
            "--only" => settings.only = list(&value()?),
            "--floor" => settings.floor = Some(value()?.into()),
            "--floor-bpf" => settings.floor_bpf = Some(value()?.into()),
            "--busybox" => settings.busybox = value()?.into(),
            "--json" => settings.json = Some(value()?.into()),
            "--document" => settings.document = Some(value()?.into()),
            "--seccomp" => settings.seccomp = Some(value()?.into()),
            _ => bail!("unknown option \"{flag}\"; see --help"),
        }
    }
    for scenario in &mut settings.scenarios {
        scenario.rounds = rounds.unwrap_or(scenario.rounds);
        if scenario.bulk_rounds > 0 {
            scenario.bulk_rounds = bulk_rounds.unwrap_or(scenario.bulk_rounds);
        }
    }
    settings.containers = settings.containers.map(|default| containers.unwrap_or(default));
    Ok(Request::Measure(Box::new(settings)))
}

fn choose(settings: &mut Settings, names: &str) -> Result<()> {
    let names = list(names);
    let known = |name: &str| scenario::ALL.iter().any(|s| s.name == name) || name == scenario::SCALE;
    if let Some(stranger) = names.iter().find(|name| !known(name)) {
        bail!("no scenario \"{stranger}\"; see --help");
    }
    let asked = |name: &str| names.iter().any(|asked| asked == name);
    settings.scenarios.retain(|scenario| asked(scenario.name));
    settings.containers = settings.containers.filter(|_| asked(scenario::SCALE));
    Ok(())
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
        let settings = settings(&["--peer=crun-new=/opt/crun", "--parallel", "3"]).unwrap();
        assert_eq!(settings.peers, [("crun-new".to_owned(), PathBuf::from("/opt/crun"))]);
        assert_eq!(settings.parallel, 3);
    }

    #[test]
    fn scenarios_are_chosen_by_name_and_rounds_are_those_of_all() {
        let settings = settings(&["--rounds=3", "--scenario", "min,k8s", "--bulk-rounds=1"]).unwrap();
        let chosen: Vec<_> = settings.scenarios.iter().map(|s| (s.name, s.rounds, s.bulk_rounds)).collect();
        assert_eq!(chosen, [("k8s", 3, 1), ("min", 3, 0)]);
        assert_eq!(settings.containers, None);
    }

    #[test]
    fn a_peer_name_that_is_no_file_name_is_refused() {
        for name in ["a/b=/bin/x", "=/bin/x", "plain"] {
            assert!(settings(&["--peer", name]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_missing_value_and_an_unknown_word_are_errors() {
        assert!(settings(&["--rounds"]).is_err());
        assert!(settings(&["--rounds", "many"]).is_err());
        assert!(settings(&["--round", "3"]).is_err());
        assert!(settings(&["--scenario", "k8s,k9s"]).is_err());
    }
}
