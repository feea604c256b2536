//! A blocking D-Bus connection: connect, authenticate, call, wait; each with a deadline.
//!
//! It starts no thread, so that clone3 may follow (docs/design/0004), and reads the environment only to
//! find a bus. The authentication and the calls that need no answer first are written at once: a
//! call costs two turns on a bus and on systemd's own socket.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use super::address::Address;
use super::wire::{self, Kind, Message, Target, Value};
use super::{MANAGER, OBJECT, Trouble};

/// The bus's own name, object and interface.
const BUS: &str = "org.freedesktop.DBus";
const BUS_OBJECT: &str = "/org/freedesktop/DBus";

/// A connection to systemd.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    address: Address,
    received: Vec<u8>,
    serial: u32,
    /// Calls that wait to go out with the next one that is waited for.
    pending: Vec<u8>,
    end: Instant,
    patience: Duration,
    /// `JobRemoved` signals that came while something else was waited for.
    removed: Vec<Removed>,
    /// Who answered the last call.
    answered_by: Option<String>,
}

/// The end of a job.
#[derive(Debug)]
struct Removed {
    /// Everyone on a bus may send such a signal to whom he likes; systemd is who answers the calls.
    told_by: Option<String>,
    job: String,
    result: String,
}

impl Connection {
    /// Connects and authenticates. Each thing that is waited for on the connection, this among them, may
    /// take as long as `patience`: systemd runs no job before it has answered every call, so that of
    /// many containers at once the first waits for the last.
    /// The authentication has a patience of its own.
    pub fn open(address: &Address, greeting: Duration, patience: Duration) -> Result<Connection, Trouble> {
        let end = Instant::now() + greeting;
        let socket = dial(address, end, greeting)?;
        let mut connection = Connection {
            socket,
            address: address.clone(),
            received: Vec::with_capacity(1024),
            serial: 0,
            pending: Vec::new(),
            end,
            patience: greeting,
            removed: Vec::new(),
            answered_by: None,
        };
        connection.authenticate()?;
        connection.patience = patience;
        if address.is_bus {
            connection.queue(
                Target { destination: Some(BUS), path: BUS_OBJECT, interface: BUS, member: "Hello" },
                &[],
            );
        }
        Ok(connection)
    }

    /// EXTERNAL without a name: the other side takes the uid from the socket, so it is right also for
    /// a creel in a user namespace that sees another uid than the bus does.
    fn authenticate(&mut self) -> Result<(), Trouble> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", "authentication")?;
        let mut is_in = false;
        loop {
            // Messages begin with their byte order; an old systemd says OK once per line of ours.
            if is_in && self.received.first().is_none_or(|byte| !matches!(byte, b'D' | b'O')) {
                return Ok(());
            }
            match self.received.windows(2).position(|two| two == b"\r\n") {
                Some(end) => {
                    let line: Vec<u8> = self.received.drain(..end + 2).collect();
                    match &line[..end] {
                        b"DATA" => {}
                        ok if ok.starts_with(b"OK") => is_in = true,
                        other => {
                            return Err(Trouble::Refused {
                                call: "AUTH EXTERNAL",
                                name: String::from_utf8_lossy(other).into_owned(),
                                message: self.address.to_string(),
                            });
                        }
                    }
                }
                None => self.fill("authentication")?,
            }
        }
    }

    /// Asks the bus for the `JobRemoved` signals of one unit. systemd's own socket has all of them.
    pub fn subscribe(&mut self, unit: &str) {
        if !self.address.is_bus {
            return;
        }
        let rule =
            format!("type='signal',path='{OBJECT}',interface='{MANAGER}',member='JobRemoved',arg2='{unit}'");
        self.queue(
            Target { destination: Some(BUS), path: BUS_OBJECT, interface: BUS, member: "AddMatch" },
            &[Value::Text(rule)],
        );
    }

    fn queue(&mut self, target: Target<'_>, body: &[Value]) -> u32 {
        self.serial += 1;
        self.pending.extend(wire::call(self.serial, target, body));
        self.serial
    }

    fn systemd(&self, interface: &'static str, member: &'static str) -> Target<'static> {
        let destination = self.address.is_bus.then_some("org.freedesktop.systemd1");
        Target { destination, path: OBJECT, interface, member }
    }

    /// Calls a method of systemd's manager object and returns its answer.
    pub fn call(
        &mut self,
        interface: &'static str,
        member: &'static str,
        body: &[Value],
    ) -> Result<Message, Trouble> {
        self.end = Instant::now() + self.patience;
        let serial = self.queue(self.systemd(interface, member), body);
        self.flush(member)?;
        loop {
            let message = self.next(member)?;
            match message.kind {
                Kind::Signal => self.note(&message),
                Kind::Return if message.reply_to == Some(serial) => {
                    self.answered_by.clone_from(&message.sender);
                    return Ok(message);
                }
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = message.text(0).unwrap_or_default().to_owned();
                    return Err(Trouble::Refused { call: member, name: message.error, message: text });
                }
                // Answers to Hello and AddMatch. An error there is found by what follows: a bus
                // answers nobody who has no name.
                Kind::Return | Kind::Error | Kind::Call => {}
            }
        }
    }

    /// Sends a call whose answer nobody waits for.
    pub fn say(&mut self, member: &'static str, body: &[Value]) -> Result<(), Trouble> {
        self.queue(self.systemd(MANAGER, member), body);
        self.flush(member)
    }

    /// Waits until systemd has done with the job; its result, `done` when all is well.
    pub fn result_of(&mut self, job: &str, unit: &str) -> Result<String, Trouble> {
        self.end = Instant::now() + self.patience;
        loop {
            let is_end = |removed: &&Removed| removed.job == job && removed.told_by == self.answered_by;
            if let Some(removed) = self.removed.iter().find(is_end) {
                return Ok(removed.result.clone());
            }
            let message = self.next_or(|| format!("JobRemoved of {unit}"))?;
            if message.kind == Kind::Signal {
                self.note(&message);
            }
        }
    }

    /// `JobRemoved(u id, o job, s unit, s result)`
    fn note(&mut self, message: &Message) {
        if message.member != "JobRemoved" {
            return;
        }
        if let (Some(job), Some(result)) = (message.text(1), message.text(3)) {
            let told_by = message.sender.clone();
            self.removed.push(Removed { told_by, job: job.to_owned(), result: result.to_owned() });
        }
    }

    fn next(&mut self, waiting_for: &'static str) -> Result<Message, Trouble> {
        self.next_or(|| format!("the answer to {waiting_for}"))
    }

    fn next_or(&mut self, waiting_for: impl Fn() -> String) -> Result<Message, Trouble> {
        loop {
            match wire::parse(&self.received) {
                Ok(Some((message, length))) => {
                    self.received.drain(..length);
                    return Ok(message);
                }
                Ok(None) => self.fill(&waiting_for())?,
                Err(wire::Garbled) => {
                    return Err(Trouble::Garbled { address: self.address.to_string() });
                }
            }
        }
    }

    fn flush(&mut self, member: &'static str) -> Result<(), Trouble> {
        let bytes = std::mem::take(&mut self.pending);
        self.write(&bytes, member)
    }

    fn write(&mut self, mut bytes: &[u8], waiting_for: &str) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, waiting_for)?,
                Err(errno) => return Err(self.lost(waiting_for, Some(errno))),
            }
        }
        Ok(())
    }

    /// Receives something more. One who never stops talking is no reason to listen for ever.
    fn fill(&mut self, waiting_for: &str) -> Result<(), Trouble> {
        if Instant::now() >= self.end {
            return Err(self.timeout(waiting_for));
        }
        let mut chunk = [0u8; 4096];
        loop {
            match recv(&self.socket, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(self.lost(waiting_for, None)),
                Ok((count, _)) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, waiting_for)?,
                Err(errno) => return Err(self.lost(waiting_for, Some(errno))),
            }
        }
    }

    fn wait(&self, events: PollFlags, waiting_for: &str) -> Result<(), Trouble> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.socket, events)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Err(self.timeout(waiting_for)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.lost(waiting_for, Some(errno))),
            }
        }
    }

    fn timeout(&self, waiting_for: &str) -> Trouble {
        Trouble::Timeout {
            waiting_for: waiting_for.to_owned(),
            address: self.address.to_string(),
            patience: self.patience,
        }
    }

    fn lost(&self, waiting_for: &str, errno: Option<Errno>) -> Trouble {
        Trouble::Lost { waiting_for: waiting_for.to_owned(), address: self.address.to_string(), errno }
    }
}

/// Connects without blocking: connect(2) on a unix socket waits, without end, for room in the
/// listener's queue, which a systemd that hangs does not make.
fn dial(address: &Address, end: Instant, patience: Duration) -> Result<OwnedFd, Trouble> {
    let fail = |errno| Trouble::Connect { address: address.to_string(), errno };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
    let name = if address.is_abstract {
        SocketAddrUnix::new_abstract_name(address.path.as_bytes())
    } else {
        SocketAddrUnix::new(address.path.as_str())
    };
    let name = name.map_err(fail)?;
    let mut delay = Duration::from_millis(1);
    loop {
        match connect(&socket, &name) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // The queue is full, which poll(2) does not tell the end of.
            Err(Errno::AGAIN) if Instant::now() < end => {
                thread::sleep(delay);
                delay = (delay * 2).min(Duration::from_millis(100));
            }
            Err(Errno::AGAIN) => {
                return Err(Trouble::Timeout {
                    waiting_for: "a place in its queue".to_owned(),
                    address: address.to_string(),
                    patience,
                });
            }
            Err(errno) => return Err(fail(errno)),
        }
    }
}
