//! systemd as the owner of the cgroup: a transient scope per container, asked for over D-Bus.
//!
//! Runs in the **host**. A scope is born with a process in it, so `create` clones a placeholder that
//! does nothing, has systemd put it into the new scope, and clones init straight into the
//! directory afterwards (docs/design/0012): limits and device rules hold before init's first
//! instruction, as with a cgroup of creel's own. systemd is needed for `create`, `update` and,
//! where the unit is still there, `delete`; each has a deadline, and `state`, `kill`, `exec` and the
//! `delete` of a dead container do without.

mod address;
mod annotation;
mod connection;
mod placeholder;
mod properties;
mod unit;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub use address::{Environment, Instance};
pub(crate) use placeholder::Placeholder;
pub use properties::Property;
pub(crate) use properties::{fit, plan as plan_properties};
pub use unit::Unit;

use crate::devices::Rule;
use crate::error::{Error, Invalid, Named};
use crate::host::{Hierarchy, OwnCgroups};
use crate::resources::FileWrite;
use connection::Connection;
pub(crate) use wire::Value;

/// The object that all calls go to, and its interface.
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long systemd may take to answer, and on v1 to run the job. runc waits as long for the job and
/// without end for an answer (runc issue 3904).
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a bus may take to let creel in before systemd's own socket is tried: a bus that hangs or is
/// flooded keeps nobody from starting containers (runc issue 4853).
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a scope may take to be started by a systemd that answers.
const MOVE_PATIENCE: Duration = Duration::from_secs(120);
/// After this time without a sign of the scope systemd is asked what has become of it, and again
/// whenever three times as much has passed.
const DOUBT: Duration = Duration::from_secs(4);
/// How long it may take to forget a scope that has no processes any more; without it, too, the
/// container is gone.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a unit of the same name may take to go away: that of a container that has just ended.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// What went wrong between creel and systemd.
#[derive(Debug)]
pub enum Trouble {
    /// /run/systemd/system does not exist (sd_booted(3)).
    NotRunning,
    /// A user without a session.
    NoSession,
    /// connect(2) did not work.
    Connect {
        /// Socket.
        address: String,
        /// Its errno.
        errno: Errno,
    },
    /// The deadline is over.
    Timeout {
        /// What was waited for.
        waiting_for: String,
        /// On which socket.
        address: String,
        /// How long.
        patience: Duration,
    },
    /// The other side hung up.
    Lost {
        /// What was waited for.
        waiting_for: String,
        /// On which socket.
        address: String,
        /// Errno, unless it was an end of file.
        errno: Option<Errno>,
    },
    /// The bytes on the socket are no D-Bus.
    Garbled {
        /// On which socket.
        address: String,
    },
    /// An error as the answer.
    Refused {
        /// Method.
        call: &'static str,
        /// Name of the D-Bus error.
        name: String,
        /// What systemd says.
        message: String,
    },
    /// The job ended otherwise than well.
    Job {
        /// Unit.
        unit: String,
        /// systemd's word.
        result: String,
    },
}

impl Trouble {
    /// Nobody has ever listened there.
    fn is_absence(&self) -> bool {
        matches!(self, Trouble::Connect { errno: Errno::NOENT, .. })
    }

    fn is(&self, error: &str) -> bool {
        matches!(self, Trouble::Refused { name, .. } if name.strip_prefix("org.freedesktop.") == Some(error))
    }

    /// A weight that this systemd does not take.
    fn is_no_weight(&self) -> bool {
        let is_of_weight =
            |message: &str| message.starts_with("Value specified in CPUWeight is out of range");
        self.is("DBus.Error.InvalidArgs")
            && matches!(self, Trouble::Refused { message, .. } if is_of_weight(message))
    }

    /// A property that this systemd does not have: `Cannot set property X, or unknown property.`
    fn unknown_property(&self) -> Option<&str> {
        let Trouble::Refused { name, message, .. } = self else { return None };
        let is_read_only = name == "org.freedesktop.DBus.Error.PropertyReadOnly";
        let rest = message.strip_prefix("Cannot set property ").filter(|_| is_read_only)?;
        rest.split_once(',').map(|(property, _)| property)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NotRunning => {
                f.write_str("systemd not running on this host, cannot use systemd cgroups manager")
            }
            Trouble::NoSession => f.write_str(
                "no systemd of the user to talk to: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set",
            ),
            Trouble::Connect { address, errno } => write!(f, "connect({address:?}): {}", Named(*errno)),
            Trouble::Timeout { waiting_for, address, patience } => {
                write!(f, "{address}: timed out after {} s waiting for {waiting_for}", patience.as_secs_f32())
            }
            Trouble::Lost { waiting_for, address, errno } => {
                write!(f, "{address}: connection closed while waiting for {waiting_for}")?;
                errno.map_or(Ok(()), |errno| write!(f, ": {}", Named(errno)))
            }
            Trouble::Garbled { address } => write!(f, "{address}: unexpected bytes where D-Bus was expected"),
            Trouble::Refused { call, name, message } => write!(f, "{call}: {name} ({message})"),
            Trouble::Job { unit, result } => write!(f, "error starting unit {unit}: got {result:?}"),
        }
    }
}

/// A systemd to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Systemd {
    instance: Instance,
    environment: Environment,
}

impl Systemd {
    /// That of the machine, or for a rootless caller that of the user.
    pub fn find(instance: Instance) -> Result<Systemd, Error> {
        if rustix::fs::stat("/run/systemd/system").is_err() {
            return Err(Error::Systemd(Trouble::NotRunning));
        }
        Ok(Systemd::of(instance))
    }

    pub(crate) fn of(instance: Instance) -> Systemd {
        Systemd { instance, environment: Environment::own() }
    }

    /// One in another environment.
    pub fn at(instance: Instance, environment: Environment) -> Systemd {
        Systemd { instance, environment }
    }

    /// Whose it is.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    fn open(&self, patience: Duration) -> Result<Connection, Trouble> {
        let addresses = self.environment.addresses(self.instance);
        let mut trouble = Trouble::NoSession;
        for (i, address) in addresses.iter().enumerate() {
            let is_last = i + 1 == addresses.len();
            let greeting = if is_last { patience } else { patience.min(GREETING_PATIENCE) };
            match Connection::open(address, greeting, patience) {
                Ok(connection) => return Ok(connection),
                // The first says what is wrong, unless there is none; the others were for want of it.
                Err(error) if i == 0 || trouble.is_absence() => trouble = error,
                Err(_) => {}
            }
        }
        Err(trouble)
    }

    /// Where the unit's cgroup lies below the mount point of each hierarchy: the manager of a user has
    /// a cgroup of its own, in which its slices are.
    pub fn place(&self, unit: &Unit) -> Result<String, Error> {
        let base = match self.instance {
            Instance::System => String::new(),
            Instance::User => {
                let property = [Value::text(MANAGER), Value::text("ControlGroup")];
                let answer = self.open(PATIENCE).and_then(|mut c| c.call(PROPERTIES, "Get", &property));
                let answer = answer.map_err(Error::Systemd)?;
                crate::path::clean(answer.text(0).unwrap_or_default())
            }
        };
        let slice = unit::expand(unit.slice.as_deref().unwrap_or(self.default_slice()))?;
        Ok(crate::path::join(&crate::path::join(&base, &slice), &unit.name))
    }

    fn default_slice(&self) -> &'static str {
        match self.instance {
            Instance::System => "system.slice",
            Instance::User => "user.slice",
        }
    }

    /// Starts the scope with the process in it and returns when it is there. A failed unit of that name
    /// is reset, one that is going away is waited for.
    pub(crate) fn start(
        &self,
        unit: &Unit,
        pid: i32,
        properties: &[Property],
        hierarchy: Hierarchy,
    ) -> Result<(), Trouble> {
        let mut connection = self.open(PATIENCE)?;
        if hierarchy == Hierarchy::V1 {
            connection.subscribe(&unit.name);
        }
        let mut properties = self.scope_properties(unit, pid, properties);
        let leaves = Instant::now() + LEAVE_PATIENCE;
        let mut delay = Duration::from_millis(5);
        let answer = loop {
            let list = properties.iter().map(Property::to_value).collect();
            let body = [
                Value::text(unit.name.as_str()),
                Value::text("replace"),
                Value::Array("(sv)".to_owned(), list),
                Value::Array("(sa(sv))".to_owned(), Vec::new()),
            ];
            match connection.call(MANAGER, "StartTransientUnit", &body) {
                Ok(answer) => break answer,
                Err(trouble) if trouble.is("systemd1.UnitExists") && Instant::now() < leaves => {
                    match connection.call(MANAGER, "ResetFailedUnit", &[Value::text(unit.name.as_str())]) {
                        Err(Trouble::Refused { .. }) | Ok(_) => {}
                        Err(trouble) => return Err(trouble),
                    }
                    thread::sleep(delay);
                    delay = (delay * 2).min(Duration::from_millis(200));
                }
                Err(trouble) => leave_out(&mut properties, trouble)?,
            }
        };
        let result = match hierarchy {
            Hierarchy::V2 => {
                drop(connection);
                self.wait_for_move(unit, pid)
            }
            // systemd moves the process into one hierarchy after the other.
            Hierarchy::V1 => {
                let result = connection.result_of(answer.text(0).unwrap_or_default(), &unit.name);
                drop(connection);
                match result {
                    Ok(result) if result == "done" => Ok(()),
                    Ok(result) => Err(Trouble::Job { unit: unit.name.clone(), result }),
                    Err(trouble) => Err(trouble),
                }
            }
        };
        if result.is_err() {
            // Nothing of it is to stay; systemd does this whenever it comes round to it.
            drop(self.open(STOP_PATIENCE).and_then(|mut connection| {
                let name = Value::text(unit.name.as_str());
                connection.say("StopUnit", &[name.clone(), Value::text("replace")])?;
                connection.say("ResetFailedUnit", &[name])
            }));
        }
        result
    }

    /// Waits until the process is in the scope, which is when the scope has its limits: systemd sets
    /// them before it moves anyone. Without a connection: fifty containers at once would keep systemd, or
    /// the bus, busy with telling each about the others. It may take longer than an answer, as long as systemd
    /// answers, since systemd runs jobs when it has nothing else to do.
    fn wait_for_move(&self, unit: &Unit, pid: i32) -> Result<(), Trouble> {
        let start = Instant::now();
        let mut delay = Duration::from_micros(100);
        let mut doubt = DOUBT;
        loop {
            if is_in(&unit.name, pid) {
                return Ok(());
            }
            let waited = start.elapsed();
            if waited >= MOVE_PATIENCE {
                return Err(Trouble::Timeout {
                    waiting_for: format!("{} to take its process", unit.name),
                    address: "PID 1".to_owned(),
                    patience: MOVE_PATIENCE,
                });
            }
            if waited >= doubt {
                doubt *= 3;
                // A scope whose job failed has been forgotten.
                match self.open(PATIENCE)?.call(MANAGER, "GetUnit", &[Value::text(unit.name.as_str())]) {
                    Err(trouble) if trouble.is("systemd1.NoSuchUnit") && !is_in(&unit.name, pid) => {
                        return Err(Trouble::Job { unit: unit.name.clone(), result: "failed".to_owned() });
                    }
                    Err(Trouble::Refused { .. }) | Ok(_) => {}
                    Err(trouble) => return Err(trouble),
                }
            }
            thread::sleep(delay);
            delay = (delay * 2).min(Duration::from_millis(10));
        }
    }

    /// Those of every scope, then those that were asked for, which come last so that they count.
    fn scope_properties(&self, unit: &Unit, pid: i32, asked: &[Property]) -> Vec<Property> {
        let slice = unit.slice.as_deref().unwrap_or(self.default_slice());
        let on = |name: &str| Property::new(name, Value::Bool(true));
        let pid = Value::U32(pid.unsigned_abs());
        let mut properties = vec![
            Property::new("Description", Value::Text(format!("creel container {}", unit.name))),
            Property::new("Slice", Value::text(slice)),
            // The container, or creel below it, may make cgroups.
            on("Delegate"),
            Property::new("PIDs", Value::Array("u".to_owned(), vec![pid])),
            // Statistics are wanted of containers without limits too.
            on("MemoryAccounting"),
            on("CPUAccounting"),
            on("IOAccounting"),
            on("TasksAccounting"),
            Property::new("DefaultDependencies", Value::Bool(false)),
        ];
        properties.extend_from_slice(asked);
        properties
    }

    /// Changes a unit until the next boot.
    pub(crate) fn set(&self, unit: &str, properties: &[Property]) -> Result<(), Trouble> {
        let mut properties = properties.to_vec();
        let mut connection = self.open(PATIENCE)?;
        while !properties.is_empty() {
            let list = properties.iter().map(Property::to_value).collect();
            let body = [Value::text(unit), Value::Bool(true), Value::Array("(sv)".to_owned(), list)];
            match connection.call(MANAGER, "SetUnitProperties", &body) {
                Ok(_) => break,
                Err(trouble) => leave_out(&mut properties, trouble)?,
            }
        }
        Ok(())
    }

    /// Stops a scope without processes and resets it if it failed. One that is unknown is stopped.
    pub(crate) fn stop(&self, unit: &str) -> Result<(), Trouble> {
        let mut connection = self.open(STOP_PATIENCE)?;
        let name = Value::text(unit);
        match connection.call(MANAGER, "StopUnit", &[name.clone(), Value::text("replace")]) {
            // The job is not worth waiting for: there is nobody to kill, and the caller removes the
            // directory.
            Ok(_) => {}
            Err(trouble) if trouble.is("systemd1.NoSuchUnit") => return Ok(()),
            Err(trouble) => return Err(trouble),
        }
        // One that failed stays loaded unless it is reset.
        match connection.call(MANAGER, "ResetFailedUnit", &[name]) {
            Err(Trouble::Refused { .. }) | Ok(_) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether systemd may still have the unit loaded: a transient unit has a file until it is forgotten,
    /// and one that failed is not before it is reset.
    pub(crate) fn has(&self, unit: &str) -> bool {
        let runtime_dir = match self.instance {
            Instance::System => Some("/run"),
            Instance::User => self.environment.runtime_dir.as_deref(),
        };
        runtime_dir.is_none_or(|dir| rustix::fs::stat(format!("{dir}/systemd/transient/{unit}")).is_ok())
    }

    /// Has a process moved into the unit, or a cgroup below it: systemd may where the caller may not.
    pub(crate) fn attach(&self, unit: &str, below: &str, pid: i32) -> Result<(), Trouble> {
        let pids = Value::Array("u".to_owned(), vec![Value::U32(pid.unsigned_abs())]);
        let body = [Value::text(unit), Value::Text(format!("/{below}")), pids];
        self.open(PATIENCE)?.call(MANAGER, "AttachProcessesToUnit", &body).map(drop)
    }
}

/// Whether the process is in the unit's own cgroup of the unified hierarchy.
fn is_in(unit: &str, pid: i32) -> bool {
    let text = crate::host::read_proc(&format!("/proc/{pid}/cgroup")).unwrap_or_default();
    OwnCgroups::from_text(&text).v2().is_some_and(|path| path.rsplit('/').next() == Some(unit))
}

/// Takes the property off the list that systemd does not know, if it can do without; else the trouble.
fn leave_out(properties: &mut Vec<Property>, trouble: Trouble) -> Result<(), Trouble> {
    let count = properties.len();
    if trouble.is_no_weight() {
        // Idle, since systemd 252.
        properties.retain(|property| property.name != "CPUWeight" || property.value != Value::U64(0));
    } else if let Some(name) = trouble.unknown_property().filter(|name| is_optional(name)) {
        properties.retain(|property| property.name != name);
    }
    // One that was not sent would be refused for ever.
    if properties.len() < count { Ok(()) } else { Err(trouble) }
}

/// Properties that came later than systemd's first scopes; the files hold their values, and what an
/// old systemd does not know it does not overwrite.
fn is_optional(property: &str) -> bool {
    const OPTIONAL: [&str; 9] = [
        "AllowedCPUs",
        "AllowedMemoryNodes",
        "BlockIOWeight",
        "CPUQuotaPeriodUSec",
        "CPUShares",
        "IOAccounting",
        "MemoryLimit",
        "MemorySwapMax",
        "OOMPolicy",
    ];
    OPTIONAL.contains(&property)
}

/// The properties of a container's scope: its limits, which are made to fit what systemd can
/// hold, its devices, and what the config asks of the unit itself by `org.systemd.property.*`. Pure.
pub fn plan(
    writes: &mut Vec<FileWrite>,
    rules: &[Rule],
    hierarchy: Hierarchy,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>, Invalid> {
    fit(writes);
    let mut properties = plan_properties(writes, hierarchy)?;
    properties.extend(properties::plan_oom_policy(writes, hierarchy));
    properties.extend(properties::plan_devices(rules, hierarchy));
    properties.extend(annotation::plan(annotations)?);
    Ok(properties)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
