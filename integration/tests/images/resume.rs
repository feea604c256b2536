//! A pull that breaks off is gone on with by the next one, and compressed layers are kept when asked for.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use creel_integration::{skip, wait};
use creel_test_servers::bytes;
use creel_test_servers::server::{Reply, Server, forward};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::Images;
use crate::registry::take_in;
use crate::{needs_images, registry_with};

const SIZE: usize = 2_000_000;

/// What becomes of a request for the rest.
#[derive(Clone, Copy)]
enum Then {
    Refuse,
    Hang,
}

/// An image `r` with a layer of some size, its digits, and a registry behind a proxy that sends only half of
/// it as long as the flag is set.
fn half(
    images: &Images,
    registry: &crate::registry::Registry,
    size: usize,
    then: Then,
) -> (String, Server, Arc<AtomicBool>) {
    images.scratch.file("r/data", bytes(size));
    let layer = images.layout.layer(&images.scratch.join("r"));
    images.layout.image("r", std::slice::from_ref(&layer), &json!({"Cmd": ["/x"]}));
    take_in(registry, &images.oci("r"), "test/r:1");
    let (hex, broken) = (layer.hex(), Arc::new(AtomicBool::new(true)));
    let (behind, wanted, breaks) = (registry.host.clone(), hex.clone(), broken.clone());
    let server = Server::start(move |heard| {
        let reply = forward(&behind, heard);
        if !heard.is("GET", &wanted) || !breaks.load(Ordering::SeqCst) {
            return reply;
        }
        match (heard.header("range"), then) {
            (None, _) => reply.cut(size / 2),
            (Some(_), Then::Refuse) => Reply::new(403, "not now"),
            (Some(_), Then::Hang) => Reply { silent: true, ..Reply::default() },
        }
    });
    (hex, server, broken)
}

fn ranges(server: &Server, hex: &str) -> Vec<String> {
    let heard = server.heard();
    heard
        .iter()
        .filter(|heard| heard.is("GET", hex))
        .map(|heard| heard.header("range").unwrap_or("-").to_owned())
        .collect()
}

#[test]
fn next_pull_asks_for_the_rest() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (hex, server, broken) = half(&images, &registry, SIZE, Then::Refuse);
    let image = format!("docker://{}/test/r:1", server.host());
    let pull = |flags: &[&str]| images.creel(&[&["pull"], flags, &[&image]].concat()).output();
    pull(&["-q", "--store-blobs"]).exits(1).creel_says(&["403"]);
    assert_eq!(images.stored("partial"), [format!("sha256-{hex}")]);
    broken.store(false, Ordering::SeqCst);
    pull(&["--store-blobs"]).ok().says(&["going on from 1.0 MB"]);
    assert_eq!(ranges(&server, &hex).last().unwrap(), &format!("bytes={}-", SIZE / 2));
    assert!(images.stored("partial").is_empty());
    assert!(images.stored("blobs/sha256").contains(&hex));
    images.creel_nested(&["image", "verify", "-q", "--offline"]).output().ok();
}

#[test]
fn server_that_refuses_the_rest_gives_everything_or_ends_it() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (hex, server, broken) = half(&images, &registry, SIZE, Then::Refuse);
    let (behind, wanted) = (server.host(), hex.clone());
    let gone = Arc::new(AtomicBool::new(true));
    let is_gone = gone.clone();
    // In front of the one that breaks off: of no use for a part.
    let front = Server::start(move |heard| match (heard.is("GET", &wanted), heard.header("range")) {
        (true, _) if is_gone.load(Ordering::SeqCst) => Reply::new(404, ""),
        (true, Some(_)) => Reply::new(416, ""),
        _ => forward(&behind, heard),
    });
    let image = |server: &Server| format!("docker://{}/test/r:1", server.host());
    let pull = |server: &Server| images.creel(&["pull", "-q", "--store-blobs", &image(server)]).output();
    pull(&server).exits(1);
    assert_eq!(images.stored("partial"), [format!("sha256-{hex}")]);
    broken.store(false, Ordering::SeqCst);
    // That it is not there is no reason to keep a part of it.
    pull(&front).exits(1).creel_says(&["404"]);
    assert!(images.stored("partial").is_empty());
    broken.store(true, Ordering::SeqCst);
    pull(&server).exits(1);
    broken.store(false, Ordering::SeqCst);
    gone.store(false, Ordering::SeqCst);
    pull(&front).ok();
    assert_eq!(ranges(&front, &hex)[2..], [format!("bytes={}-", SIZE / 2), "-".to_owned()]);
    images.creel_nested(&["image", "verify", "-q", "--offline"]).output().ok();
    images.assert_clean();
}

#[test]
fn start_that_was_damaged_is_fetched_again() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (hex, server, broken) = half(&images, &registry, SIZE, Then::Refuse);
    let image = format!("docker://{}/test/r:1", server.host());
    images.creel(&["pull", "-q", "--store-blobs", &image]).output().exits(1);
    // As after a power loss: the length is there, the bytes are not.
    let path = images.store("partial").join(format!("sha256-{hex}"));
    std::fs::write(&path, vec![0; SIZE / 2]).unwrap();
    broken.store(false, Ordering::SeqCst);
    images.creel(&["pull", "-q", "--store-blobs", &image]).output().ok();
    let asked = ranges(&server, &hex);
    assert_eq!(asked[asked.len() - 2..], [format!("bytes={}-", SIZE / 2), "-".to_owned()]);
    images.creel_nested(&["image", "verify", "-q", "--offline"]).output().ok();
    images.assert_clean();
}

#[test]
fn large_layer_is_gone_on_with_after_a_kill_and_leaves_no_blob() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let size = 66 << 20;
    let (hex, server, broken) = half(&images, &registry, size, Then::Hang);
    let image = format!("docker://{}/test/r:1", server.host());
    // The half that comes is written; then the client waits for the rest, and is killed there.
    let killed = images.creel(&["pull", "-q", &image]).spawn();
    let path = images.store("partial").join(format!("sha256-{hex}"));
    wait::until("half of the layer has come", || {
        path.metadata().is_ok_and(|found| found.len() >= size as u64 / 2)
    });
    killed.signal(Signal::KILL);
    killed.output().exits(-9);
    broken.store(false, Ordering::SeqCst);
    images.creel(&["pull", "-q", &image]).output().ok();
    assert_eq!(ranges(&server, &hex).last().unwrap(), &format!("bytes={}-", size / 2));
    assert!(images.stored("partial").is_empty());
    assert!(!images.stored("blobs/sha256").contains(&hex));
    images.assert_clean();
}

#[test]
fn blobs_of_layers_that_are_there_are_fetched_when_asked_for() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let image = registry.image("test/a:1");
    images.creel(&["pull", "-q", &image]).output().ok();
    assert_eq!(images.stored("blobs/sha256").len(), 2);
    images.creel(&["pull", "-q", "--store-blobs", &image]).output().ok();
    assert_eq!(images.stored("blobs/sha256").len(), 3);
    drop(registry);
    images.creel_nested(&["image", "verify", "-q", "--offline"]).output().ok();
}
