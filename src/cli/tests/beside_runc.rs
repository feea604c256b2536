//! The same command line on creel and on the machine's runc: exit code, standard output and the
//! log where they are promised to be the same. Nothing here makes a container. Without runc each
//! test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const RUNC: [&str; 3] = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"];

/// creel under the name `runc`, and runc.
struct Pair {
    directory: tempfile::TempDir,
    runc: &'static str,
}

impl Pair {
    fn new() -> Option<Pair> {
        let runc = RUNC.into_iter().find(|path| Path::new(path).exists());
        if runc.is_none() {
            eprintln!("skipped: no runc on this machine");
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_creel"), directory.path().join("runc")).unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        Some(Pair { directory, runc: runc? })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs both with `--root` in the test's directory: creel's output, then runc's.
    fn run(&self, args: &[&str]) -> [Output; 2] {
        [self.path("runc").as_str(), self.runc].map(|program| {
            let mut command = Command::new(program);
            command.args(["--root", &self.path("root")]).args(args);
            command.env_remove("XDG_RUNTIME_DIR").output().unwrap()
        })
    }
}

/// The `msg` of a text log line, from its quote or word on.
fn message(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let (_, message) =
        text.split_once(" level=error msg=").unwrap_or_else(|| panic!("not a log line: {text:?}"));
    message.trim_end().trim_end_matches("\\n\"").trim_matches('"').to_owned()
}

#[test]
fn wrong_command_lines_fail_alike() {
    let Some(pair) = Pair::new() else { return };
    for args in [
        &["nonesuch"][..],
        &["help", "nonesuch"],
        &["state"],
        &["state", "a", "b"],
        &["exec"],
        &["kill"],
        &["kill", "a", "9", "c"],
        &["delete"],
        &["spec", "extra"],
        &["--nonesuch"],
        &["state", "--nonesuch", "a"],
        &["run", "-preserve-fds=x", "a"],
        &["run", "--preserve-fds"],
        &["run", "--detach=maybe", "a"],
        &["run", "---x", "a"],
        &["--log-format", "xml", "state", "a"],
    ] {
        let [creel, runc] = pair.run(args);
        assert_eq!(creel.status.code(), runc.status.code(), "{args:?}");
        let argv0 = |output: &Output| message(output).replace(&pair.path("runc"), pair.runc);
        assert_eq!(argv0(&creel), message(&runc), "{args:?}");
        let first_line =
            |output: &Output| output.stdout.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        assert_eq!(first_line(&creel), first_line(&runc), "{args:?}");
    }
}

#[test]
fn missing_containers_fail_with_the_same_code_and_runcs_words() {
    let Some(pair) = Pair::new() else { return };
    for args in [
        &["state", "none"][..],
        &["start", "none"],
        &["kill", "none", "KILL"],
        &["delete", "none"],
        &["exec", "none", "true"],
        &["state", ""],
    ] {
        let [creel, runc] = pair.run(args);
        assert_eq!(creel.status.code(), runc.status.code(), "{args:?}");
        let words = message(&runc);
        let words = words.strip_prefix("exec failed: ").unwrap_or(&words);
        assert!(message(&creel).ends_with(words), "{args:?}: {:?} has not {words:?}", message(&creel));
    }
}

#[test]
fn a_json_log_gets_one_object_with_the_same_keys_and_stderr_the_bare_message() {
    let Some(pair) = Pair::new() else { return };
    let keys = |log: &str| {
        let text = std::fs::read_to_string(log).unwrap();
        let Value::Object(object) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        (object["level"].clone(), object["msg"].clone(), object.keys().cloned().collect::<Vec<_>>())
    };
    let log = pair.path("log");
    let mut seen = Vec::new();
    for program in [pair.path("runc").as_str(), pair.runc] {
        let args = ["--root", &pair.path("root"), "--log", &log, "--log-format", "json", "state", "none"];
        let output = Command::new(program).args(args).output().unwrap();
        let (level, message, keys) = keys(&log);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("{}\n", message.as_str().unwrap()));
        std::fs::remove_file(&log).unwrap();
        seen.push((level, keys));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn an_empty_list_looks_the_same() {
    let Some(pair) = Pair::new() else { return };
    for args in [&["list"][..], &["list", "-q"], &["list", "--format", "json"], &["list", "-f=table"]] {
        let [creel, runc] = pair.run(args);
        assert_eq!(creel.stdout, runc.stdout, "{args:?}");
        assert_eq!(creel.status.code(), runc.status.code(), "{args:?}");
    }
}

#[test]
fn specs_differ_only_in_version_host_name_and_what_runc_changed_since() {
    let Some(pair) = Pair::new() else { return };
    for rootless in [&[][..], &["--rootless"]] {
        let documents = [pair.path("runc").as_str(), pair.runc].map(|program| {
            let bundle = tempfile::tempdir().unwrap();
            let output =
                Command::new(program).arg("spec").args(rootless).current_dir(&bundle).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = std::fs::read_to_string(bundle.path().join("config.json")).unwrap();
            let mut document: Value = serde_json::from_str(&text).unwrap();
            let object = document.as_object_mut().unwrap();
            object.remove("ociVersion").unwrap();
            object.remove("hostname").unwrap();
            // runc 1.1 still gave ambient capabilities, which are useless without inheritable ones.
            object["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
            document
        });
        assert_eq!(documents[0], documents[1], "{rootless:?}");
    }
}

/// Long flags that a help text lists.
fn listed_flags(help: &str) -> Vec<String> {
    let options =
        help.lines().skip_while(|line| !line.starts_with("OPTIONS") && !line.starts_with("GLOBAL OPTIONS"));
    let first_word = |line: &str| {
        let word = line.trim_start().split([' ', ',', '=']).next()?;
        word.starts_with("--").then(|| word.to_owned())
    };
    options.filter_map(first_word).collect()
}

/// The table of commands and flags in docs/runc-compat.md: rows of `(command, flag, state of runc)`.
fn documented() -> Vec<(String, String, String)> {
    let text = include_str!("../../../docs/runc-compat.md");
    let section = text.split("## Commands and flags").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|line| {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        (cells[0].clone(), cells[1].split(',').next().unwrap().to_owned(), cells[2].clone())
    })
    .collect()
}

#[test]
fn the_documents_table_has_what_the_installed_runc_lists() {
    let Some(pair) = Pair::new() else { return };
    let rows = documented();
    let has = |command: &str, flag: &str| {
        rows.iter().any(|row| row.0 == command && row.1 == flag && row.2 == "yes")
    };
    let help = |args: &[&str]| {
        String::from_utf8(Command::new(pair.runc).args(args).output().unwrap().stdout).unwrap()
    };
    // Gone since 1.4.
    let kept = |flag: &String| flag != "--criu";
    let overview = help(&["--help"]);
    for flag in listed_flags(&overview).iter().filter(|flag| kept(flag)) {
        assert!(has("(global)", flag), "{flag}");
    }
    let commands = overview.lines().skip_while(|line| !line.starts_with("COMMANDS")).skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10, "{overview}");
    for command in commands.into_iter().filter(|name| !name.starts_with("help")) {
        assert!(has(command, ""), "{command}");
        for flag in listed_flags(&help(&[command, "--help"])) {
            assert!(has(command, &flag), "{command} {flag}");
        }
    }
}
