//! A systemd for tests: a socket that authenticates, a script of answers, a record of what was asked.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::wire::tests::{answer, answer_of};
use super::wire::{Kind, Value};
use super::{Environment, Instance, Systemd};

/// What the other side does with a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A job, whose end is told at once.
    Job(&'static str),
    /// A job whose end is told before the answer to the call.
    EarlyJob(&'static str),
    /// A job whose end somebody else on the bus tells before systemd does, and after the answer.
    ForgedJob(&'static str),
    /// A job whose end is never told, among the ends of others without end.
    Flood,
    /// A job whose end is never told.
    EndlessJob,
    /// Done, no job.
    Empty,
    /// A text in a variant, as a property.
    Property(&'static str),
    /// An error.
    Error(&'static str, &'static str),
    /// Nothing, for ever.
    Silence,
    /// The end of the connection.
    HangUp,
}

/// How the other side takes the authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// As dbus-daemon and systemd do: `DATA`, then `OK`.
    Usual,
    /// As an old systemd: `OK` for each line.
    Twice,
    /// `REJECTED`.
    Rejected,
    /// Nothing.
    Silence,
    /// `DATA`, without end.
    Flood,
}

/// The fake. Dropped, its thread is joined: every connection has ended by then.
pub struct Fake {
    dir: tempfile::TempDir,
    pub path: String,
    pub calls: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Takes `connections`, one after the other, and answers the calls of all by the script. Calls to
    /// the bus itself are answered without it.
    pub fn new(greeting: Greeting, connections: usize, script: Vec<Reply>) -> Fake {
        Fake::listen("bus", greeting, connections, script)
    }

    /// As systemd's own socket, which there is for users too.
    pub fn private(connections: usize, script: Vec<Reply>) -> Fake {
        Fake::listen("systemd/private", Greeting::Usual, connections, script)
    }

    fn listen(name: &str, greeting: Greeting, connections: usize, script: Vec<Reply>) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("systemd")).unwrap();
        let path = dir.path().join(name).to_str().unwrap().to_owned();
        let listener = UnixListener::bind(&path).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&calls);
        #[allow(clippy::disallowed_methods, reason = "the test's other side; no test here clones")]
        let thread = thread::spawn(move || {
            let mut script = script.into_iter();
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                serve(stream, greeting, &mut script, &told);
            }
        });
        Fake { dir, path, calls, thread: Some(thread) }
    }

    /// A client's view: a system bus at this socket.
    pub fn systemd(&self) -> Systemd {
        let system_bus = Some(format!("unix:path={}", self.path));
        Systemd::at(Instance::System, Environment { system_bus, ..Environment::default() })
    }

    /// The same socket as the session bus.
    pub fn of_user(&self) -> Systemd {
        let session_bus = Some(format!("unix:path={}", self.path));
        Systemd::at(Instance::User, Environment { session_bus, ..Environment::default() })
    }

    /// The environment of a user whose runtime directory has the socket.
    pub fn runtime_dir(&self) -> Environment {
        let runtime_dir = self.dir.path().to_str().map(str::to_owned);
        Environment { runtime_dir, ..Environment::default() }
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(
    mut stream: UnixStream,
    greeting: Greeting,
    script: &mut impl Iterator<Item = Reply>,
    calls: &Mutex<Vec<String>>,
) {
    let mut received = Vec::new();
    let mut chunk = [0u8; 4096];
    let begin = b"BEGIN\r\n";
    let end = loop {
        if let Some(at) = received.windows(begin.len()).position(|w| w == begin) {
            break at + begin.len();
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
        }
    };
    assert_eq!(&received[..end], b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
    received.drain(..end);
    let words: &[u8] = match greeting {
        Greeting::Usual => b"DATA\r\nOK 0123456789abcdef\r\n",
        Greeting::Twice => b"OK 0123456789abcdef\r\nOK 0123456789abcdef\r\n",
        Greeting::Rejected => b"REJECTED KERBEROS\r\n",
        Greeting::Silence => b"",
        Greeting::Flood => return flood(&mut stream, b"DATA\r\n"),
    };
    stream.write_all(words).unwrap();
    loop {
        while let Some((name, serial, length)) = first_call(&received) {
            received.drain(..length);
            calls.lock().unwrap().push(name.clone());
            let mut is_flood = false;
            let bytes = match name.as_str() {
                "Hello" => answer(Kind::Return, serial, "", "", &[Value::text(":1.5")]),
                "AddMatch" => answer(Kind::Return, serial, "", "", &[]),
                _ => {
                    let next = script.next().unwrap_or(Reply::Empty);
                    is_flood = matches!(next, Reply::Flood);
                    let Some(bytes) = reply(next, serial) else { return };
                    bytes
                }
            };
            // The client may be gone: it does not wait for every answer.
            drop(stream.write_all(&bytes));
            if is_flood {
                return flood(
                    &mut stream,
                    &answer(Kind::Signal, 0, "UnitNew", "", &[Value::text("a.scope")]),
                );
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Says the same until nobody listens.
fn flood(stream: &mut UnixStream, bytes: &[u8]) {
    let bytes = bytes.repeat(1000);
    while stream.write_all(&bytes).is_ok() {}
}

fn reply(reply: Reply, serial: u32) -> Option<Vec<u8>> {
    let job = Value::Path("/org/freedesktop/systemd1/job/9".to_owned());
    let returned = |body: &[Value]| answer(Kind::Return, serial, "", "", body);
    let removed = |result: &str| {
        let body = [Value::U32(9), job.clone(), Value::text("x-y.scope"), Value::text(result)];
        // Of another unit first: systemd's own socket has the signals of all.
        let other = Value::Path("/org/freedesktop/systemd1/job/8".to_owned());
        let others = [Value::U32(8), other, Value::text("a.scope"), Value::text("failed")];
        let mut bytes = answer(Kind::Signal, 0, "JobRemoved", "", &others);
        bytes.extend(answer(Kind::Signal, 0, "UnitNew", "", &[Value::text("x-y.scope")]));
        bytes.extend(answer(Kind::Signal, 0, "JobRemoved", "", &body));
        bytes
    };
    Some(match reply {
        Reply::Job(result) => [returned(std::slice::from_ref(&job)), removed(result)].concat(),
        Reply::EarlyJob(result) => [removed(result), returned(std::slice::from_ref(&job))].concat(),
        Reply::ForgedJob(result) => {
            let body = [Value::U32(9), job.clone(), Value::text("x-y.scope"), Value::text("failed")];
            let forged = answer_of(":1.66", Kind::Signal, 0, "JobRemoved", "", &body);
            let job = std::slice::from_ref(&job);
            [forged.clone(), returned(job), forged, removed(result)].concat()
        }
        Reply::EndlessJob | Reply::Flood => returned(&[job]),
        Reply::Empty => returned(&[]),
        Reply::Property(text) => returned(&[Value::Variant(Box::new(Value::text(text)))]),
        Reply::Error(name, text) => answer(Kind::Error, serial, "", name, &[Value::text(text)]),
        Reply::Silence => Vec::new(),
        Reply::HangUp => return None,
    })
}

/// Member, serial and length of the first message, once it is whole.
fn first_call(bytes: &[u8]) -> Option<(String, u32, usize)> {
    let (message, length) = super::wire::parse(bytes).unwrap()?;
    let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    let detail = match message.text(0) {
        Some(text) if message.member != "AddMatch" => format!("{} {text}", message.member),
        _ => message.member.clone(),
    };
    Some((detail, serial, length))
}
