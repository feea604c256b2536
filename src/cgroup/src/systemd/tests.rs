#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Instant;

use super::fake::{Fake, Greeting, Reply};
use super::*;

const EXISTS: Reply = Reply::Error("org.freedesktop.systemd1.UnitExists", "Unit x-y.scope already exists.");
const UNKNOWN: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

fn unit() -> Unit {
    Unit::parse("a.slice:x:y", "web").unwrap()
}

fn start(fake: &Fake) -> Result<(), Trouble> {
    let limit = Property::new("TasksMax", Value::U64(5));
    let cpus = Property::new("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(1)]));
    fake.systemd().start(&unit(), 4242, &[limit, cpus], Hierarchy::V1)
}

/// As [`start`], with what was asked: `Hello` and `AddMatch` are there each time.
fn started(greeting: Greeting, script: Vec<Reply>) -> (Result<(), String>, Vec<String>) {
    started_over(1, greeting, script)
}

fn started_over(
    connections: usize,
    greeting: Greeting,
    script: Vec<Reply>,
) -> (Result<(), String>, Vec<String>) {
    let fake = Fake::new(greeting, connections, script);
    let result = start(&fake).map_err(|trouble| trouble.to_string());
    let calls = Arc::clone(&fake.calls);
    drop(fake);
    let mut calls = calls.lock().unwrap().clone();
    assert_eq!(calls[..2], ["Hello", "AddMatch"]);
    (result, calls.split_off(2))
}

#[test]
fn a_scope_is_there_when_its_job_is_done() {
    for (greeting, reply) in [
        (Greeting::Usual, Reply::Job("done")),
        (Greeting::Twice, Reply::Job("done")),
        (Greeting::Usual, Reply::EarlyJob("done")),
    ] {
        let (result, calls) = started(greeting, vec![reply]);
        assert_eq!((result, calls), (Ok(()), vec!["StartTransientUnit x-y.scope".to_owned()]));
    }
}

#[test]
fn only_systemd_tells_the_end_of_a_job() {
    let (result, _) = started(Greeting::Usual, vec![Reply::ForgedJob("done")]);
    assert_eq!(result, Ok(()));
}

#[test]
fn a_job_that_fails_leaves_nothing() {
    let (result, calls) = started_over(2, Greeting::Usual, vec![Reply::Job("failed")]);
    assert_eq!(result.unwrap_err(), "error starting unit x-y.scope: got \"failed\"");
    let [start, hello, stop, reset] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((start.as_str(), hello.as_str()), ("StartTransientUnit x-y.scope", "Hello"));
    assert_eq!((stop.as_str(), reset.as_str()), ("StopUnit x-y.scope", "ResetFailedUnit x-y.scope"));
}

#[test]
fn on_v2_a_scope_that_was_forgotten_has_failed() {
    let unknown = Reply::Error("org.freedesktop.systemd1.NoSuchUnit", "Unit x-y.scope not loaded.");
    let fake = Fake::private(3, vec![Reply::EndlessJob, unknown]);
    let systemd = Systemd::at(Instance::User, fake.runtime_dir());
    let before = Instant::now();
    let pid = i32::try_from(std::process::id()).unwrap();
    let trouble = systemd.start(&unit(), pid, &[], Hierarchy::V2).unwrap_err();
    assert_eq!(trouble.to_string(), "error starting unit x-y.scope: got \"failed\"");
    assert!(before.elapsed() < Duration::from_secs(10));
    let calls = Arc::clone(&fake.calls);
    drop(fake);
    assert_eq!(
        *calls.lock().unwrap(),
        [
            "StartTransientUnit x-y.scope",
            "GetUnit x-y.scope",
            "StopUnit x-y.scope",
            "ResetFailedUnit x-y.scope"
        ]
    );
}

#[test]
fn on_systemds_own_socket_a_stop_is_two_calls() {
    let fake = Fake::private(1, vec![Reply::EndlessJob, Reply::Empty]);
    Systemd::at(Instance::User, fake.runtime_dir()).stop("x-y.scope").unwrap();
    assert_eq!(fake.calls(), ["StopUnit x-y.scope", "ResetFailedUnit x-y.scope"]);
}

#[test]
fn a_unit_that_is_in_the_way_is_reset() {
    let (result, calls) = started(Greeting::Usual, vec![EXISTS, Reply::Empty, Reply::Job("done")]);
    assert_eq!(result, Ok(()));
    assert_eq!(
        calls,
        ["StartTransientUnit x-y.scope", "ResetFailedUnit x-y.scope", "StartTransientUnit x-y.scope"]
    );
}

#[test]
fn a_unit_that_stays_is_an_error() {
    let script = (0..1000).flat_map(|_| [EXISTS, Reply::Empty]).collect();
    let before = Instant::now();
    let (result, _) = started(Greeting::Usual, script);
    assert!(before.elapsed() < LEAVE_PATIENCE + Duration::from_secs(3));
    assert_eq!(
        result.unwrap_err(),
        "StartTransientUnit: org.freedesktop.systemd1.UnitExists (Unit x-y.scope already exists.)"
    );
}

#[test]
fn a_property_that_systemd_does_not_know_is_left_out_if_the_file_will_do() {
    let unknown = |text| Reply::Error(UNKNOWN, text);
    let cpus = unknown("Cannot set property AllowedCPUs, or unknown property.");
    let cpus_again = cpus.clone();
    let (result, calls) = started(Greeting::Usual, vec![cpus, Reply::Job("done")]);
    assert_eq!((result, calls.len()), (Ok(()), 2));
    // Once: it is not sent again.
    let (result, calls) = started(Greeting::Usual, vec![cpus_again.clone(), cpus_again, Reply::Job("done")]);
    assert_eq!(calls.len(), 2);
    assert!(result.unwrap_err().contains("Cannot set property AllowedCPUs"));
    let slice = unknown("Cannot set property Slice, or unknown property.");
    let (result, calls) = started(Greeting::Usual, vec![slice]);
    assert_eq!(calls.len(), 1);
    assert!(result.unwrap_err().contains("Cannot set property Slice"));
}

#[test]
fn a_systemd_that_has_no_idle_weight_is_not_told_of_it() {
    let refused = Reply::Error(
        "org.freedesktop.DBus.Error.InvalidArgs",
        "Value specified in CPUWeight is out of range",
    );
    let set = |weight: u64, script: Vec<Reply>| {
        let fake = Fake::new(Greeting::Usual, 1, script);
        let properties =
            [("CPUWeight", weight), ("TasksMax", 5)].map(|(n, v)| Property::new(n, Value::U64(v)));
        let result = fake.systemd().set("x-y.scope", &properties);
        (result.is_ok(), fake.calls().len() - 1)
    };
    assert_eq!(set(0, vec![refused.clone(), Reply::Empty]), (true, 2));
    assert_eq!(set(20_000, vec![refused]), (false, 1));
}

/// What is waited for in vain, and where.
fn times_out(greeting: Greeting, script: Vec<Reply>) -> String {
    let fake = Fake::new(greeting, 1, script);
    let patience = Duration::from_millis(50);
    let address = &fake.systemd().environment.addresses(Instance::System)[0];
    let run = || -> Result<(), Trouble> {
        let mut connection = Connection::open(address, patience, patience)?;
        connection.subscribe("x-y.scope");
        let answer = connection.call(MANAGER, "StopUnit", &[Value::text("x-y.scope")])?;
        connection.result_of(answer.text(0).unwrap_or_default(), "x-y.scope").map(drop)
    };
    let before = Instant::now();
    let trouble = run().unwrap_err();
    assert!(before.elapsed() >= patience && before.elapsed() < Duration::from_secs(5));
    assert!(matches!(trouble, Trouble::Timeout { .. }), "{trouble:?}");
    trouble.to_string().replace(&fake.path, "/bus")
}

#[test]
fn every_wait_ends_and_says_what_was_waited_for() {
    let waited = |what: &str| format!("/bus: timed out after 0.05 s waiting for {what}");
    assert_eq!(times_out(Greeting::Silence, vec![]), waited("authentication"));
    assert_eq!(times_out(Greeting::Usual, vec![Reply::Silence]), waited("the answer to StopUnit"));
    assert_eq!(times_out(Greeting::Usual, vec![Reply::EndlessJob]), waited("JobRemoved of x-y.scope"));
    // Whatever else is said meanwhile.
    assert_eq!(times_out(Greeting::Flood, vec![]), waited("authentication"));
    assert_eq!(times_out(Greeting::Usual, vec![Reply::Flood]), waited("JobRemoved of x-y.scope"));
}

#[test]
fn a_full_listen_queue_is_no_endless_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address =
        address::Address { path: path.to_str().unwrap().to_owned(), is_abstract: false, is_bus: true };
    let patience = Duration::from_millis(50);
    // The first is taken into the queue and never answered, the second does not fit.
    let open = || Connection::open(&address, patience, patience).unwrap_err();
    let first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let second = open().to_string();
    assert!(second.ends_with("timed out after 0.05 s waiting for a place in its queue"), "{second}");
    drop(first);
}

#[test]
fn a_lost_connection_says_what_was_waited_for() {
    let (result, _) = started(Greeting::Usual, vec![Reply::HangUp]);
    let words = result.unwrap_err();
    assert!(
        words.ends_with("connection closed while waiting for the answer to StartTransientUnit"),
        "{words}"
    );
}

#[test]
fn a_refused_authentication_is_named() {
    let fake = Fake::new(Greeting::Rejected, 1, vec![]);
    let words = start(&fake).unwrap_err().to_string();
    assert!(words.starts_with("AUTH EXTERNAL: REJECTED KERBEROS ("), "{words}");
}

#[test]
fn an_unknown_unit_is_stopped() {
    let unknown = Reply::Error("org.freedesktop.systemd1.NoSuchUnit", "Unit x-y.scope not loaded.");
    for (script, calls) in [(vec![unknown], 2), (vec![Reply::EndlessJob, Reply::Empty], 3)] {
        let fake = Fake::new(Greeting::Usual, 1, script);
        fake.systemd().stop("x-y.scope").unwrap();
        assert_eq!(fake.calls()[1], "StopUnit x-y.scope");
        assert_eq!(fake.calls().len(), calls);
    }
}

#[test]
fn a_stop_that_is_refused_is_an_error() {
    let fake =
        Fake::new(Greeting::Usual, 1, vec![Reply::Error("org.freedesktop.DBus.Error.AccessDenied", "no")]);
    assert!(fake.systemd().stop("x-y.scope").is_err());
}

#[test]
fn the_slices_of_a_user_lie_below_its_manager() {
    let manager = "/user.slice/user-1000.slice/user@1000.service";
    let fake = Fake::new(Greeting::Usual, 2, vec![Reply::Property(manager), Reply::Property(manager)]);
    let systemd = fake.of_user();
    let place = |path: &str| systemd.place(&Unit::parse(path, "web").unwrap()).unwrap();
    let base = "user.slice/user-1000.slice/user@1000.service";
    assert_eq!(place(""), format!("{base}/user.slice/creel-web.scope"));
    assert_eq!(place("a-b.slice:x:y"), format!("{base}/a.slice/a-b.slice/x-y.scope"));
}

#[test]
fn a_bus_that_hangs_is_gone_around() {
    let fake = Fake::private(1, vec![Reply::EndlessJob, Reply::Empty]);
    let environment = fake.runtime_dir();
    let bus = format!("{}/bus", environment.runtime_dir.as_deref().unwrap());
    let _silent = std::os::unix::net::UnixListener::bind(bus).unwrap();
    Systemd::at(Instance::User, environment).stop("x-y.scope").unwrap();
    assert_eq!(fake.calls(), ["StopUnit x-y.scope", "ResetFailedUnit x-y.scope"]);
}

#[test]
fn a_user_without_a_session_is_told_so() {
    let systemd = Systemd::at(Instance::User, Environment::default());
    let words = systemd.place(&unit()).unwrap_err().to_string();
    assert!(words.contains("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"), "{words}");
}

#[test]
fn nobody_at_the_socket_is_an_error_with_the_socket() {
    let environment =
        Environment { system_bus: Some("unix:path=/nonexistent/bus".into()), ..Environment::default() };
    let trouble = Systemd::at(Instance::System, environment).stop("x.scope").unwrap_err();
    assert_eq!(trouble.to_string(), "connect(\"/nonexistent/bus\"): ENOENT (no such file or directory)");
}

#[test]
fn an_update_drops_what_only_the_files_can_hold() {
    let unknown = Reply::Error(UNKNOWN, "Cannot set property AllowedCPUs, or unknown property.");
    let fake = Fake::new(Greeting::Usual, 1, vec![unknown, Reply::Empty]);
    let cpus = Property::new("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(1)]));
    fake.systemd().set("x-y.scope", &[cpus, Property::new("TasksMax", Value::U64(5))]).unwrap();
    assert_eq!(fake.calls()[1..], ["SetUnitProperties x-y.scope", "SetUnitProperties x-y.scope"]);
}
