//! What is told while a pull goes on, on a terminal and elsewhere.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use creel_integration::{pty, skip, wait};
use creel_test_servers::bytes;
use creel_test_servers::server::{Server, forward};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Images;
use crate::registry::{Registry, take_in};
use crate::{needs_images, registry_with};

const SIZE: usize = 4_000_000;

/// An image `p` behind a server that holds its large layer back until the flag is set.
fn held(images: &Images, registry: &Registry) -> (String, Server, Arc<AtomicBool>) {
    images.scratch.file("p/data", bytes(SIZE));
    let layers = ["tree", "p"].map(|name| images.layout.layer(&images.scratch.join(name)));
    images.layout.image("p", &layers, &json!({"Cmd": ["/bin/true"]}));
    take_in(registry, &images.oci("p"), "test/p:1");
    let go = Arc::new(AtomicBool::new(false));
    let (behind, wanted, gone) = (registry.host.clone(), layers[1].hex(), go.clone());
    let server = Server::start(move |heard| {
        let reply = forward(&behind, heard);
        if !heard.is("GET", &wanted) || gone.load(Ordering::SeqCst) {
            return reply;
        }
        if heard.header("range").is_none() {
            return reply.cut(SIZE / 2);
        }
        while !gone.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        reply
    });
    (layers[1].hex()[..12].to_owned(), server, go)
}

fn at(server: &Server) -> String {
    format!("docker://{}/test/p:1", server.host())
}

#[test]
fn bars_fit_the_terminal_even_when_it_becomes_narrower() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (short, server, go) = held(&images, &registry);
    let (mut master, slave) = pty::open();
    master.resize(24, 100);
    let pull = images.creel(&["pull", &at(&server)]).spawn_with(std::process::Stdio::null(), slave);
    master.expect("2.0 MB of 4.2 MB");
    master.resize(24, 40);
    let narrow = master.expect(&format!("{short}  47% "));
    assert!(narrow.contains(" of 2 done  "), "{narrow}");
    go.store(true, Ordering::SeqCst);
    pull.output().ok();
    let seen = master.rest();
    let narrow = &seen[narrow.len() - 100..];
    for line in narrow.split(['\n', '\r']).filter(|line| line.contains('%')) {
        assert!(line.chars().filter(|c| !c.is_control()).count() < 40 + 10, "{line:?}");
    }
    // What stays is a line for each layer, and the sum.
    let rest = seen.rsplit("\x1b[J").next().unwrap();
    assert!(rest.contains("done") && rest.contains("pulled ") && !rest.contains('%'), "{rest:?}");
}

#[test]
fn interrupted_pull_leaves_the_terminal_and_the_store_as_they_were() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (short, server, go) = held(&images, &registry);
    let (mut master, slave) = pty::open();
    let ends = [slave.try_clone().unwrap(), slave.try_clone().unwrap()];
    let [stdout, stderr] = ends;
    let command = images.creel(&["pull", &at(&server)]).stdin(slave);
    // Whoever runs the tests in the background of a shell has the signal ignored (POSIX, asynchronous lists).
    let words = ["env", "--default-signal=INT", "setsid", "--ctty"];
    let pull = command.behind(words).spawn_with(stdout, stderr);
    master.expect(&format!("{short} ["));
    master.send("\u{3}");
    pull.output().exits(-(Signal::INT.as_raw()));
    let seen = master.rest();
    // The cursor is on a line of its own, and nothing was changed that would have to be changed back.
    assert!(seen.trim_end_matches("^C").ends_with('\n') && !seen.contains("\x1b[?"), "{seen:?}");
    assert!(images.stored("refs").is_empty());
    go.store(true, Ordering::SeqCst);
    images.run(&["-q"], &at(&server), &[]).output().ok();
    images.assert_clean();
}

#[test]
fn lines_and_events_tell_the_same() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (short, server, go) = held(&images, &registry);
    go.store(true, Ordering::SeqCst);
    let plain = images.creel(&["pull", &at(&server)]).output().ok();
    let lines: Vec<&str> = plain.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{plain}");
    assert!(lines[0].starts_with("pulling ") && lines[3].starts_with("pulled "), "{plain}");
    assert!(lines.iter().any(|line| line.starts_with(&format!("layer {short}: 4.2 MB done"))), "{plain}");
    let other = Images::new();
    let json = other.creel(&["pull", "--progress", "json", &at(&server)]).output().ok();
    let events: Vec<Value> = json.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((kinds("pull"), kinds("layer-done"), kinds("pulled")), (1, 2, 1), "{json}");
    assert!(kinds("layer") >= 10, "{json}");
    assert_eq!(events.last().unwrap()["digest"], json.stdout.trim());
    for words in [["pull", "-q"], ["pull", "--progress=none"]] {
        let third = Images::new();
        let silent = third.creel(&[&words[..], &[&at(&server)]].concat()).output().ok();
        assert_eq!(silent.stderr, "", "{silent}");
    }
    wait::until("the server has been asked", || server.count("GET", "/manifests/") >= 4);
}
