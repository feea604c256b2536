//! Compares this crate with libseccomp: how long each takes to compile the profile of a config.json, and
//! how long the kernel takes to load what they compile. Prints JSON, times in microseconds.
//!
//!     measure CONFIG.JSON [FILE]     FILE gets this crate's filter, as seccomp(2) takes it

use std::fs;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use creel_plan::spec::{Seccomp, SyscallArg};
use creel_seccomp::compile;
use creel_sys::seccomp::Instruction;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpFilterContext, ScmpSyscall};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// First argument of the process that loads a filter.
const LOAD: &str = "--load";
const ROUNDS: usize = 40;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [LOAD, file] => load(&fs::read(file)?),
        [config] => measure(config, None),
        [config, file] => measure(config, Some(file)),
        _ => Err("usage: measure CONFIG.JSON [FILE]".into()),
    }
}

fn measure(config: &str, out: Option<&str>) -> Result<()> {
    let config: Value = serde_json::from_str(&fs::read_to_string(config)?)?;
    let profile: Seccomp = serde_json::from_value(config["linux"]["seccomp"].clone())?;
    if let Some(file) = out {
        fs::write(file, creels(&profile)?)?;
    }
    let native = Seccomp { architectures: Vec::new(), ..profile.clone() };
    let mut rows = Vec::new();
    for profile in [&profile, &native] {
        let theirs = |tree| move |profile: &Seccomp| libseccomps(profile, tree);
        rows.push(row("creel", profile, creels)?);
        rows.push(row("libseccomp, list", profile, theirs(false))?);
        rows.push(row("libseccomp, tree", profile, theirs(true))?);
    }
    Ok(writeln!(std::io::stdout(), "{:#}", Value::from(rows))?)
}

fn row(by: &str, profile: &Seccomp, compile: impl Fn(&Seccomp) -> Result<Vec<u8>>) -> Result<Value> {
    let filter = compile(profile)?;
    let file = std::env::temp_dir().join(format!("creel-measure-{}.bpf", std::process::id()));
    fs::write(&file, &filter)?;
    let compiles = median(|| {
        let start = Instant::now();
        compile(profile)?;
        Ok(start.elapsed())
    });
    let loads = median(|| load_time(&file));
    fs::remove_file(&file)?;
    Ok(json!({
        "architectures": profile.architectures.len().max(1),
        "by": by,
        "instructions": filter.len() / 8,
        "compileUs": micros(compiles?),
        "loadUs": micros(loads?),
    }))
}

fn median(mut sample: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut times = (0..ROUNDS).map(|_| sample()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// A filter stays: a process of its own for each.
fn load_time(file: &Path) -> Result<Duration> {
    let output = Command::new(std::env::current_exe()?).arg(LOAD).arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let nanos =
        text.trim().parse().map_err(|_| format!("{}{text}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Duration::from_nanos(nanos))
}

fn load(bytes: &[u8]) -> Result<()> {
    let instruction = |b: &[u8]| Instruction {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    let program: Vec<Instruction> = bytes.chunks_exact(8).map(instruction).collect();
    rustix::thread::set_no_new_privs(true)?;
    let start = Instant::now();
    creel_sys::seccomp::load(&program, 0)?;
    let time = start.elapsed();
    Ok(writeln!(std::io::stdout(), "{}", time.as_nanos())?)
}

fn creels(profile: &Seccomp) -> Result<Vec<u8>> {
    let bytes = |i: &creel_seccomp::SockFilter| {
        let mut bytes = i.code.to_ne_bytes().to_vec();
        bytes.extend([i.jt, i.jf]);
        bytes.extend(i.k.to_ne_bytes());
        bytes
    };
    Ok(compile(profile)?.filter.iter().flat_map(bytes).collect())
}

/// As runc asks for it; masks of conditions, which the profiles measured do not have, apart.
fn libseccomps(profile: &Seccomp, tree: bool) -> Result<Vec<u8>> {
    let action = |name: &str, errno: Option<u32>| ScmpAction::from_str(name, Some(errno.unwrap_or(1) as i32));
    let mut context = ScmpFilterContext::new(action(&profile.default_action, profile.default_errno_ret)?)?;
    for name in &profile.architectures {
        context.add_arch(name.parse::<ScmpArch>()?)?;
    }
    if tree {
        context.set_ctl_optimize(2)?;
    }
    for rule in &profile.syscalls {
        let compare = |arg: &SyscallArg| -> Result<ScmpArgCompare> {
            Ok(ScmpArgCompare::new(arg.index, arg.op.parse()?, arg.value))
        };
        let conditions = rule.args.iter().map(compare).collect::<Result<Vec<_>>>()?;
        let action = action(&rule.action, rule.errno_ret)?;
        for call in rule.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            context.add_rule_conditional(action, call, &conditions)?;
        }
    }
    let mut file = tempfile::tempfile()?;
    context.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
