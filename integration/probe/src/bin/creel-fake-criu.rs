//! A stand-in for CRIU: it speaks the RPC of `criu swrk`, notes what it is asked for, and saves nothing.
//!
//! The tests put it into PATH under the name `criu`. Its requests are left as `<kind>.json` in `FAKE_CRIU_DIR`:
//! objects by protobuf field number, each with an array of values. `FAKE_CRIU_VERSION` is the version that it
//! says it has, and `FAKE_CRIU_HOW` how it fails: `refuse`, `unfit`, `die`, `garbage` or `no-features`. On restore
//! it runs `FAKE_CRIU_RESTORED` with sh(1) in place of the container's processes.

use std::error::Error;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const PRE_DUMP: u64 = 4;
const NOTIFY: u64 = 6;
const FEATURE_CHECK: u64 = 9;
const VERSION: u64 = 10;

/// CRIU says what is wrong in its log alone.
fn main() -> ExitCode {
    if run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, command, number] = args.as_slice() else { return Err("usage: criu swrk FD".into()) };
    if command != "swrk" {
        return Err("usage: criu swrk FD".into());
    }
    let own = Pid::from_raw(i32::try_from(std::process::id())?).ok_or("no pid")?;
    let pidfd = pidfd_open(own, PidfdFlags::empty())?;
    let socket = pidfd_getfd(&pidfd, number.parse()?, PidfdGetfdFlags::empty())?;
    let fake = Fake { socket, dir: std::env::var("FAKE_CRIU_DIR")?.into() };
    while let Some(request) = fake.receive()? {
        fake.serve(&request)?;
    }
    Ok(())
}

struct Fake {
    socket: OwnedFd,
    dir: PathBuf,
}

impl Fake {
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0u8; 1 << 16];
        let (count, _) = recv(&self.socket, &mut bytes, RecvFlags::empty())?;
        bytes.truncate(count);
        Ok((count > 0).then_some(bytes))
    }

    fn serve(&self, bytes: &[u8]) -> Result<()> {
        let request = decode(bytes, 0);
        let kind = number(&request, 1).ok_or("a request without a type")?;
        let how = std::env::var("FAKE_CRIU_HOW").unwrap_or_default();
        match kind {
            VERSION => self.version(),
            FEATURE_CHECK => {
                self.note("features", &request, json!({}))?;
                let there = u8::from(how != "no-features");
                self.answer(&[8, FEATURE_CHECK as u8, 16, 1, 66, 4, 8, there, 16, there])
            }
            DUMP | PRE_DUMP | RESTORE => {
                let name = match kind {
                    DUMP => "dump",
                    PRE_DUMP => "pre-dump",
                    _ => "restore",
                };
                let options = request.get("2").and_then(|all| all.get(0)).cloned().unwrap_or_default();
                self.note(name, &options, surroundings(&options))?;
                match how.as_str() {
                    "refuse" => self.refuse(kind, &options, "Error (criu/fake.c:1): fake: it must not be\n"),
                    "unfit" => self.refuse(
                        kind,
                        &options,
                        "Error (criu/vdso.c:2): vdso: unknown shape\n\
                         (00.1) Error (criu/kerndat.c:3): kerndat_fake failed when initializing kerndat.\n",
                    ),
                    "silent" => self.answer(&[8, kind as u8, 16, 0, 56, 52]),
                    "die" => Err("as told".into()),
                    "garbage" => self.answer(b"\x08\x01\x12\x7f"),
                    _ if kind == RESTORE => self.restore(&options),
                    _ => self.dump(kind, &options),
                }
            }
            other => Err(format!("a request of type {other}").into()),
        }
    }

    fn version(&self) -> Result<()> {
        let version: u32 = std::env::var("FAKE_CRIU_VERSION").map_or(Ok(40_200), |text| text.parse())?;
        let [major, minor, sublevel] =
            [version / 10_000, version / 100 % 100, version % 100].map(|n| n.to_le_bytes()[0]);
        self.answer(&[8, VERSION as u8, 16, 1, 82, 6, 8, major, 16, minor, 32, sublevel])
    }

    fn dump(&self, kind: u64, options: &Value) -> Result<()> {
        std::fs::write(directory(options, 1)?.join("inventory.img"), "fake")?;
        let pid = i32::try_from(number(options, 2).ok_or("a dump without a pid")?)?;
        for script in ["pre-dump", "network-lock", "status-ready", "post-dump"] {
            self.notify(script, pid, None)?;
        }
        let stays = kind == PRE_DUMP || number(options, 3) == Some(1);
        if !stays {
            kill_process(Pid::from_raw(pid).ok_or("no pid")?, Signal::KILL)?;
        }
        self.answer(&[8, kind as u8, 16, 1])
    }

    fn restore(&self, options: &Value) -> Result<()> {
        let script = std::env::var("FAKE_CRIU_RESTORED").unwrap_or("exec sleep 1000".into());
        let child = Command::new("sh").args(["-c", &script]).current_dir("/").spawn()?;
        let pid = i32::try_from(child.id())?;
        self.notify("setup-namespaces", pid, None)?;
        if number(options, 50) == Some(1) && std::env::var_os("FAKE_CRIU_TTY").is_some() {
            use rustix::pty::OpenptFlags;
            let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            self.notify("orphan-pts-master", 0, Some(master.as_fd()))?;
        }
        for script in ["post-restore", "network-unlock", "post-resume"] {
            self.notify(script, pid, None)?;
        }
        self.answer(&[8, RESTORE as u8, 16, 1])
    }

    /// Sends a notification and waits for its acknowledgement.
    fn notify(&self, script: &str, pid: i32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut notify = vec![10, u8::try_from(script.len())?];
        notify.extend_from_slice(script.as_bytes());
        notify.push(16);
        varint(&mut notify, u64::try_from(pid)?);
        let mut message = vec![8, NOTIFY as u8, 16, 1, 42, u8::try_from(notify.len())?];
        message.extend_from_slice(&notify);
        match fd {
            Some(fd) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [fd];
                control.push(SendAncillaryMessage::ScmRights(&fds));
                sendmsg(&self.socket, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
            }
            None => self.answer(&message)?,
        }
        let acknowledged = self.receive()?.ok_or("the client is gone")?;
        let acknowledged = decode(&acknowledged, 0);
        if number(&acknowledged, 1) == Some(NOTIFY) && number(&acknowledged, 3) == Some(1) {
            Ok(())
        } else {
            Err(format!("no acknowledgement: {acknowledged}").into())
        }
    }

    fn refuse(&self, kind: u64, options: &Value, said: &str) -> Result<()> {
        let name = text(options, 10).ok_or("no log file")?;
        let dir = directory(options, 17).or_else(|_| directory(options, 1))?;
        std::fs::write(
            dir.join(name),
            format!("(00.0) begins\n(00.1) {said}(00.2) Error (criu/x.c:9): FAILED.\n"),
        )?;
        self.answer(&[8, kind as u8, 16, 0])
    }

    fn answer(&self, message: &[u8]) -> Result<()> {
        send(&self.socket, message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn note(&self, name: &str, request: &Value, around: Value) -> Result<()> {
        let text = serde_json::to_vec(&json!({ "asked": request, "around": around }))?;
        let draft = self.dir.join(format!(".{name}"));
        std::fs::File::create(&draft)?.write_all(&text)?;
        Ok(std::fs::rename(draft, self.dir.join(format!("{name}.json")))?)
    }
}

/// What CRIU would find: its cgroups, what is mounted where it is, and what inherited descriptors are.
fn surroundings(options: &Value) -> Value {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<&str> = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let inherited = options["27"].as_array().cloned().unwrap_or_default();
    let link = |fd: &Value| -> Option<String> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", number(fd, 2)?)).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    json!({
        "cgroup": std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        "mounts": points,
        "inherited": inherited.iter().map(link).collect::<Vec<_>>(),
        "stdin": std::fs::read_link("/proc/self/fd/0").unwrap_or_default(),
        "root": text(options, 13).map(|root| listing(Path::new(&root))),
    })
}

fn listing(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A directory that is given as a descriptor of the client, as CRIU opens it.
fn directory(options: &Value, field: u32) -> Result<PathBuf> {
    let fd = number(options, field).ok_or("no such directory")?;
    let client = rustix::process::getppid().ok_or("no client")?;
    let path = PathBuf::from(format!("/proc/{}/fd/{fd}", client.as_raw_nonzero()));
    Ok(path.canonicalize()?)
}

fn number(message: &Value, field: u32) -> Option<u64> {
    message.get(field.to_string())?.get(0)?.as_u64()
}

fn text(message: &Value, field: u32) -> Option<String> {
    Some(message.get(field.to_string())?.get(0)?.as_str()?.to_owned())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Fields of `criu_req` and of `criu_opts` that are messages themselves.
fn is_message(depth: u32, field: u64) -> bool {
    match depth {
        0 => matches!(field, 2 | 5),
        1 => matches!(field, 11 | 19 | 23 | 25 | 27 | 39),
        _ => false,
    }
}

fn decode(mut bytes: &[u8], depth: u32) -> Value {
    let mut message = Map::new();
    while let Some((key, rest)) = read_varint(bytes) {
        let (value, rest) = match key & 7 {
            0 => match read_varint(rest) {
                Some((number, rest)) => (json!(number), rest),
                None => break,
            },
            2 => {
                let Some((length, rest)) = read_varint(rest) else { break };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some((part, rest)) = rest.split_at_checked(length) else { break };
                let value = if is_message(depth, key >> 3) {
                    decode(part, depth + 1)
                } else {
                    json!(String::from_utf8_lossy(part))
                };
                (value, rest)
            }
            _ => break,
        };
        let values = message.entry((key >> 3).to_string()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value);
        }
        bytes = rest;
    }
    Value::Object(message)
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}
