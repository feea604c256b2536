//! The process's own attributes.

use std::fs;
use std::os::fd::AsFd;

use serde_json::{Map, Value, json};

use crate::calls::errno_of;

/// `/proc/self/status` by field.
pub fn status() -> Value {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), json!(value.trim()))).collect::<Map<_, _>>().into()
}

/// `/proc/self/limits`: `[soft, hard]` by name.
pub fn limits() -> Value {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let row = |line: &str| {
        let (name, rest) = (line.get(..26)?.trim(), line.get(26..)?);
        let mut values = rest.split_whitespace();
        Some((name.to_owned(), json!([values.next()?, values.next()?])))
    };
    text.lines().skip(1).filter_map(row).collect::<Map<_, _>>().into()
}

/// pid, parent, session and process group.
pub fn ids() -> Value {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let number = |at: usize| rest.get(at).and_then(|text| text.parse::<i64>().ok());
    json!({
        "pid": std::process::id(), "ppid": number(1), "pgrp": number(2), "session": number(3),
        "tty_nr": number(4), "nice": number(16), "policy": number(38),
    })
}

/// `KEY=value`, in the order of the kernel.
pub fn env() -> Value {
    std::env::vars_os()
        .map(|(key, value)| json!(format!("{}={}", key.to_string_lossy(), value.to_string_lossy())))
        .collect()
}

/// getcwd(2).
pub fn cwd() -> Value {
    match std::env::current_dir() {
        Ok(path) => json!(path),
        Err(error) => json!({ "error": errno_of(&error) }),
    }
}

/// `/proc/self/ns`: `mnt:[4026531841]` by name.
pub fn namespaces() -> Value {
    links("/proc/self/ns").into()
}

/// `/proc/self/fd`: target by number, without the one that lists the directory.
pub fn fds() -> Value {
    let mut seen = links("/proc/self/fd");
    let own = format!("/proc/{}/fd", std::process::id());
    seen.retain(|_, target| target.as_str() != Some(own.as_str()));
    seen.into()
}

fn links(dir: &str) -> Map<String, Value> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names
        .filter_map(|name| {
            let target = fs::read_link(name.path()).ok()?;
            Some((name.file_name().to_string_lossy().into_owned(), json!(target)))
        })
        .collect()
}

/// uname(2).
pub fn uname() -> Value {
    let uname = rustix::system::uname();
    json!({
        "nodename": uname.nodename().to_string_lossy(),
        "domainname": uname.domainname().to_string_lossy(),
        "machine": uname.machine().to_string_lossy(),
    })
}

/// For stdin, stdout and stderr: the terminal's rows and columns, or null.
pub fn tty() -> Value {
    json!([terminal(std::io::stdin()), terminal(std::io::stdout()), terminal(std::io::stderr())])
}

fn terminal(fd: impl AsFd) -> Value {
    match rustix::termios::tcgetwinsize(fd) {
        Ok(size) => json!({ "rows": size.ws_row, "columns": size.ws_col }),
        Err(_) => Value::Null,
    }
}
