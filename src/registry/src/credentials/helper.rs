//! Credential helpers: `docker-credential-NAME get|store|erase`, JSON on standard output.
//!
//! The helper is a program of the user's own choice and may ask a key ring or a cloud; it gets a minute,
//! since some open a dialogue, and its standard error goes into the message when it fails.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

use super::{Login, Secret};
use crate::environment::Environment;
use crate::error::{Error, one_line};

const LIMIT: Duration = Duration::from_secs(60);
/// A credential is small; what is larger is not one.
const MAX_OUTPUT: usize = 1 << 20;

/// How a helper tells that it has nothing, which is no failure.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// What the helper has for `key`.
pub(super) fn get(
    name: &str,
    key: &str,
    named_by: &Path,
    environment: &Environment,
) -> Result<Option<Login>, Error> {
    let call = Call { name, named_by, environment };
    let finished = call.run("get", key.as_bytes())?;
    if !finished.status.success() {
        if finished.says(NOT_FOUND) {
            return Ok(None);
        }
        return Err(call.error(finished.failure()));
    }
    let answer: Answer = serde_json::from_slice(&finished.output)
        .map_err(|error| call.error(format!("its answer cannot be read: {error}")))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret(answer.secret);
    // Docker's mark for a refresh token in place of a password.
    Ok(Some(if answer.username == "<token>" {
        Login::Identity(secret)
    } else {
        Login::Password { user: answer.username, password: secret }
    }))
}

/// Gives the helper a login to keep.
pub(super) fn store(
    name: &str,
    key: &str,
    user: &str,
    secret: &Secret,
    named_by: &Path,
    environment: &Environment,
) -> Result<(), Error> {
    let call = Call { name, named_by, environment };
    let document = serde_json::json!({ "ServerURL": key, "Username": user, "Secret": secret.expose() });
    let finished = call.run("store", document.to_string().as_bytes())?;
    if finished.status.success() { Ok(()) } else { Err(call.error(finished.failure())) }
}

/// Has the helper forget a login; false when it had none.
pub(super) fn erase(
    name: &str,
    key: &str,
    named_by: &Path,
    environment: &Environment,
) -> Result<bool, Error> {
    let call = Call { name, named_by, environment };
    let finished = call.run("erase", key.as_bytes())?;
    match finished.status.success() {
        true => Ok(true),
        false if finished.says(NOT_FOUND) => Ok(false),
        false => Err(call.error(finished.failure())),
    }
}

struct Call<'a> {
    name: &'a str,
    named_by: &'a Path,
    environment: &'a Environment,
}

struct Finished {
    status: ExitStatus,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Finished {
    fn says(&self, text: &str) -> bool {
        [&self.output, &self.errors].iter().any(|bytes| String::from_utf8_lossy(bytes).contains(text))
    }

    /// Helpers explain themselves on either stream; a secret only ever comes with success.
    fn failure(&self) -> String {
        let words = if self.errors.trim_ascii().is_empty() { &self.output } else { &self.errors };
        format!("{}: {}", self.status, one_line(&String::from_utf8_lossy(words)))
    }
}

impl Call<'_> {
    fn run(&self, verb: &str, input: &[u8]) -> Result<Finished, Error> {
        let program = self.find_program()?;
        let mut child = Command::new(program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.error(format!("start: {error}")))?;
        let finished = self.converse(&mut child, input);
        if finished.is_err() {
            // It may have ended by itself between; then there is nothing to kill.
            child.kill().ok();
            child.wait().ok();
        }
        finished
    }

    fn converse(&self, child: &mut Child, input: &[u8]) -> Result<Finished, Error> {
        let deadline = Instant::now() + LIMIT;
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(self.error("no pipes".into()));
        };
        // A pipe holds 64 KiB, and no input is that long: this cannot block. A helper that does not
        // read its input gives EPIPE, and its exit status says more.
        stdin.write_all(input).ok();
        drop(stdin);
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (mut output_open, mut errors_open) = (true, true);
        while output_open || errors_open {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.error(format!("no answer within {} s", LIMIT.as_secs())));
            }
            let timeout = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(60), tv_nsec: 0 };
            let mut waited = Vec::with_capacity(2);
            if output_open {
                waited.push(PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN));
            }
            if errors_open {
                waited.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN));
            }
            // Below a second the timeout rounds to zero: the loop then asks the clock again.
            poll(&mut waited, Some(&timeout)).map_err(|errno| self.error(format!("poll: {errno}")))?;
            let mut ready = waited.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
            let output_ready = output_open && ready.next().unwrap_or(false);
            let errors_ready = errors_open && ready.next().unwrap_or(false);
            if output_ready {
                output_open = self.take(&mut stdout, &mut output)?;
            }
            if errors_ready {
                errors_open = self.take(&mut stderr, &mut errors)?;
            }
        }
        let status = child.wait().map_err(|error| self.error(format!("wait: {error}")))?;
        Ok(Finished { status, output, errors })
    }

    /// One read; false at the end of the stream.
    fn take(&self, stream: &mut dyn Read, into: &mut Vec<u8>) -> Result<bool, Error> {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).map_err(|error| self.error(format!("read: {error}")))?;
        into.extend_from_slice(&chunk[..read]);
        if into.len() > MAX_OUTPUT {
            return Err(self.error(format!("its answer is larger than {MAX_OUTPUT} bytes")));
        }
        Ok(read > 0)
    }

    fn find_program(&self) -> Result<PathBuf, Error> {
        if self.name.contains('/') {
            return Err(self.error("a helper's name holds no slash".into()));
        }
        let path = self.environment.text("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        let program = format!("docker-credential-{}", self.name);
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| Path::new(dir).join(&program))
            .find(|file| {
                std::fs::metadata(file)
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
            .ok_or_else(|| self.error("not found in PATH; install it, or take it out of the file".into()))
    }

    fn error(&self, why: String) -> Error {
        Error::Helper {
            program: format!("docker-credential-{}", self.name),
            path: self.named_by.to_owned(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::{Login, Secret, Store};
    use crate::environment::Environment;

    fn install(dir: &Path, name: &str, script: &str) {
        let path = dir.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn store(dir: &Path, json: &str) -> Store {
        std::fs::write(dir.join("config.json"), json).unwrap();
        let environment = Environment::new(1000, [("PATH", dir)]);
        Store::new(&environment, Some(&dir.join("config.json"))).unwrap()
    }

    #[test]
    fn helpers_are_asked_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let got = dir.path().join("got");
        install(
            dir.path(),
            "own",
            &format!(
                "read host; echo \"$1 $host\" > {}; echo '{{\"Username\":\"u\",\"Secret\":\"s\"}}'",
                got.display()
            ),
        );
        install(dir.path(), "token", "cat >&2; echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}'");
        install(dir.path(), "none", "echo credentials not found in native keychain; exit 1");
        let store = store(
            dir.path(),
            r#"{"auths": {"d.example": {"auth": "dTpw"}},
                "credHelpers": {"a.example": "own", "d.example": "none", "docker.io": "own"},
                "credsStore": "token"}"#,
        );
        let find = |registry: &str| store.find(registry, "x").unwrap().unwrap().login;
        assert_eq!(find("a.example"), Login::Password { user: "u".into(), password: Secret::new("s") });
        assert_eq!(std::fs::read_to_string(&got).unwrap(), "get a.example\n");
        assert_eq!(find("b.example"), Login::Identity(Secret::new("t")));
        assert_eq!(find("d.example"), Login::Identity(Secret::new("t")));
        find("docker.io");
        assert_eq!(std::fs::read_to_string(&got).unwrap(), "get https://index.docker.io/v1/\n");
    }

    #[test]
    fn a_helper_without_a_credential_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), "none", "echo credentials not found; exit 1");
        let store = store(dir.path(), r#"{"auths": {"a.example": {"auth": "dTpw"}}, "credsStore": "none"}"#);
        let found = store.find("a.example", "x").unwrap().unwrap();
        assert_eq!(found.login, Login::Password { user: "u".into(), password: Secret::new("p") });
        assert_eq!(store.find("b.example", "x").unwrap(), None);
    }

    #[test]
    fn a_helper_that_fails_is_named_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), "locked", "echo 'the key ring\nis locked' >&2; exit 3");
        install(dir.path(), "silly", "echo '{\"Secret\": 3'");
        let cases = [
            ("locked", "exit status: 3: the key ring is locked"),
            ("silly", "its answer cannot be read"),
            ("missing", "not found in PATH"),
            ("../evil", "holds no slash"),
        ];
        for (name, words) in cases {
            let store = store(dir.path(), &format!(r#"{{"credsStore": "{name}"}}"#));
            let message = store.find("a.example", "x").unwrap_err().to_string();
            assert!(message.starts_with(&format!("docker-credential-{name}, named by ")), "{message}");
            assert!(message.contains(words), "{message}");
        }
    }
}
