//! A registry that misbehaves, behind a proxy that makes it so: a pull gets through, or says why not.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use creel_integration::skip;
use creel_test_servers::bytes;
use creel_test_servers::certs::Authority;
use creel_test_servers::registry::Registry;
use creel_test_servers::server::{Heard, Reply, Server, forward};
use creel_test_servers::token::{Takes, TokenServer};
use serde_json::json;

use crate::harness::Images;
use crate::registry::take_in;
use crate::{needs_images, registry_with};

/// An image `f` whose layer of three megabytes does not compress, and its digits.
fn with_large_layer(images: &Images) -> String {
    images.scratch.file("f/data", bytes(3_000_000));
    std::fs::create_dir_all(images.scratch.join("f/bin")).unwrap();
    std::fs::copy("/bin/busybox", images.scratch.join("f/bin/busybox")).unwrap();
    let layer = images.layout.layer(&images.scratch.join("f"));
    images.layout.image(
        "f",
        std::slice::from_ref(&layer),
        &json!({"Cmd": ["/bin/busybox", "wc", "-c", "/data"]}),
    );
    layer.hex()
}

/// A proxy whose answers to the `n`th request for the large layer are changed.
fn faulty(
    registry: &Registry,
    hex: &str,
    fault: impl Fn(usize, &Heard, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let (behind, count, hex) = (registry.host.clone(), AtomicUsize::new(0), hex.to_owned());
    Server::start(move |heard| {
        if heard.is("GET", &hex) {
            let reply = forward(&behind, heard);
            return fault(count.fetch_add(1, Ordering::SeqCst), heard, reply);
        }
        forward(&behind, heard)
    })
}

fn at(server: &Server) -> String {
    format!("docker://{}/test/f:1", server.host())
}

/// Runs the image; it counts its data.
#[track_caller]
fn runs(images: &Images, server: &Server) {
    let output = images.run(&["-q"], &at(server), &[]).output().ok();
    assert_eq!(output.stdout.split(' ').next(), Some("3000000"), "{output}");
    images.assert_clean();
}

/// Pulls the image, which is refused, and nothing of it stays.
#[track_caller]
fn refused(images: &Images, server: &Server, said: &[&str]) {
    let output = images.creel(&["pull", "-q", &at(server)]).output().exits(1);
    output.creel_says(&[&[server.host().as_str()], said].concat());
    assert!(images.stored("snapshots").is_empty() && images.stored("refs").is_empty());
    images.assert_clean();
}

#[test]
fn cut_connections_are_gone_on_with_by_range() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    let server = faulty(&registry, &hex, |n, _, reply| if n < 3 { reply.cut(700_000) } else { reply });
    runs(&images, &server);
    let heard = server.heard();
    let ranges: Vec<_> =
        heard.iter().filter(|heard| heard.is("GET", &hex)).map(|heard| heard.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=700000-"), Some("bytes=1400000-"), Some("bytes=2100000-")]);
}

#[test]
fn server_that_ignores_ranges_gives_the_same_image() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    let (behind, cuts, wanted) = (registry.host.clone(), AtomicUsize::new(0), hex.clone());
    let server = Server::start(move |heard| {
        let mut heard = heard.clone();
        heard.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
        let reply = forward(&behind, &heard);
        let first = heard.is("GET", &wanted) && cuts.fetch_add(1, Ordering::SeqCst) == 0;
        if first { reply.cut(1_000_000) } else { reply }
    });
    runs(&images, &server);
    assert_eq!(server.count("GET", &hex), 2);
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    let server = faulty(&registry, &hex, |n, _, reply| match n {
        0 => Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#).with("Retry-After", 2),
        1 => Reply::new(503, ""),
        2 => Reply::new(500, "oops"),
        _ => reply,
    });
    let begun = Instant::now();
    runs(&images, &server);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.count("GET", &hex), 4);
    // Who asks for too long a wait is not waited for.
    let limited = faulty(&registry, &hex, |_, _, _| {
        Reply::new(429, r#"{"errors":[{"message":"you have reached your pull rate limit"}]}"#)
            .with("Retry-After", 3600)
            .with("RateLimit-Limit", "100;w=21600")
            .with("RateLimit-Remaining", "0;w=21600")
    });
    let other = Images::new();
    let said = ["pull rate limit (the limit is 100 in 21600 s, 0 left)", "try again in 3600 s"];
    refused(&other, &limited, &[&["429 too many requests"], &said[..]].concat());
    assert_eq!(limited.count("GET", &hex), 1);
}

#[test]
fn server_that_stays_broken_is_given_up_in_one_line() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    let server = faulty(&registry, &hex, |_, _, reply| reply.cut(1000));
    refused(&images, &server, &["the connection", "try again"]);
    assert_eq!(server.count("GET", &hex), 5);
    let server = faulty(&registry, &hex, |_, _, _| Reply::new(500, "oops"));
    refused(&images, &server, &["500 internal server error", "oops"]);
    let server = faulty(&registry, &hex, |_, _, _| Reply::new(404, ""));
    refused(&images, &server, &["404 not found"]);
}

#[test]
fn what_a_registry_warns_of_is_told_once() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let behind = registry.host.clone();
    let server = Server::start(move |heard| {
        forward(&behind, heard).with("Warning", "299 - \"this place will be \\\"closed\\\"\"")
    });
    let image = format!("docker://{}/test/a:1", server.host());
    let told = images.creel(&["pull", &image]).output().ok();
    let line = format!("creel: warning: {}: this place will be \"closed\"", server.host());
    assert_eq!(told.stderr.lines().filter(|said| *said == line).count(), 1, "{told}");
    assert_eq!(images.run(&["-q", "--pull", "always"], &image, &[]).output().exits(3).stderr, "");
    images.assert_clean();
}

#[test]
fn storage_elsewhere_gets_no_authorization() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    let behind = registry.host.clone();
    let storage = Server::start(move |heard| forward(&behind, heard));
    let (behind, to) = (registry.host.clone(), storage.host());
    let server = Server::start(move |heard| match heard.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if heard.is("GET", "/blobs/") => {
            Reply::new(307, "").with("Location", format!("http://{to}{}?signature=x", heard.target))
        }
        Some(_) => forward(&behind, heard),
    });
    let output = images.run(&["-q", "--creds", "ann:s3cret"], &at(&server), &[]).output().ok();
    assert!(output.stdout.starts_with("3000000"), "{output}");
    assert!(storage.count("GET", &hex) == 1 && server.count("GET", &hex) >= 1);
    assert!(storage.heard().iter().all(|heard| heard.header("authorization").is_none()));
    images.assert_clean();
}

#[test]
fn wrong_lengths_and_bytes_are_refused() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let hex = with_large_layer(&images);
    take_in(&registry, &images.oci("f"), "test/f:1");
    for (more, said) in [(1, "the server has"), (-1, "the server has")] {
        let server = faulty(&registry, &hex, move |_, _, reply| {
            let length = i64::try_from(reply.body.len()).unwrap() + more;
            reply.without("content-length").with("Content-Length", length)
        });
        refused(&images, &server, &[said, "bytes"]);
    }
    let server = faulty(&registry, &hex, |_, _, mut reply| {
        reply.body.extend([0; 1000]);
        reply.without("content-length").with("X-No-Length", 1)
    });
    refused(&images, &server, &["larger than"]);
    let server = faulty(&registry, &hex, |_, _, mut reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 1;
        reply
    });
    refused(&images, &server, &["layer"]);
    // The right bytes are taken afterwards.
    let server = faulty(&registry, &hex, |_, _, reply| reply);
    runs(&images, &server);
}

#[test]
fn token_that_expires_in_mid_pull_is_replaced() {
    needs_images!();
    let images = Images::new();
    let authority = match Authority::try_new() {
        Ok(authority) => authority,
        Err(why) => skip!("{why}"),
    };
    let tokens = TokenServer::start(&authority, Takes::GetAndPost);
    let registry = match Registry::try_start("", &tokens.auth_section(&authority)) {
        Ok(registry) => registry,
        Err(why) => skip!("{why}"),
    };
    let hex = with_large_layer(&images);
    let creds = "ann:s3cret:x";
    let private = registry.image("team/f:1");
    images.creel(&["push", "-q", "--creds", creds, &images.oci("f"), &private]).output().ok();
    let before = tokens.granted();
    // The first token is unknown to the registry when the layer, which was cut, is asked for again.
    let (behind, first, wanted) = (registry.host.clone(), std::sync::OnceLock::new(), hex.clone());
    let server = Server::start(move |heard| {
        let mut heard = heard.clone();
        if heard.header("range").is_some() {
            let token = heard.header("authorization").map(str::to_owned);
            if first.get_or_init(|| token.clone()) == &token {
                heard.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                heard.headers.push(("Authorization".into(), "Bearer eyJhbGciOiJub25lIn0.e30.".into()));
            }
        }
        let reply = forward(&behind, &heard);
        if heard.is("GET", &wanted) && heard.header("range").is_none() { reply.cut(1_000_000) } else { reply }
    });
    let image = format!("docker://{}/team/f:1", server.host());
    let output = images.run(&["-q", "--creds", creds], &image, &[]).output().ok();
    assert!(output.stdout.starts_with("3000000"), "{output}");
    assert_eq!(tokens.granted() - before, 2);
    images.assert_clean();
}

#[test]
fn nobody_who_answers_is_told_with_the_host() {
    needs_images!();
    let images = Images::new();
    let pull = |image: &str| images.creel(&["pull", "-q", image]).output().exits(1);
    pull("127.0.0.1:1/a").creel_says(&["127.0.0.1:1: connection refused", "check the name, the port"]);
    pull("no-such-host.invalid/a").creel_says(&["no-such-host.invalid", "check the name and the resolver"]);
    let page = Server::start(|_| Reply::new(200, "<html>a page</html>").with("Content-Type", "text/html"));
    pull(&format!("{}/a", page.host())).creel_says(&["manifest"]);
    let large = Server::start(|heard| match heard.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(200, vec![b' '; (4 << 20) + 1]),
    });
    pull(&format!("{}/a", large.host())).creel_says(&[&large.host(), "larger than 4194304 bytes"]);
    let old = Server::start(|_| {
        let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        Reply::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#).with("Content-Type", kind)
    });
    pull(&format!("{}/a", old.host())).creel_says(&["docker schema 1"]);
    assert!(images.stored("refs").is_empty());
}
