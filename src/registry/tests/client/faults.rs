//! Servers that misbehave, most of them in front of a real registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use creel_image_lib::descriptor::Descriptor;

use crate::harness::registry::Registry;
use crate::harness::server::{Heard, Reply, Server, forward};
use crate::harness::{Home, blob_error, bytes, digest, push, push_image, read, read_to_end};

/// A proxy to a registry; `fault` may change the answer to its `n`th request for a blob.
fn faulty(
    registry: &Registry,
    fault: impl Fn(usize, &Heard, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let (behind, blobs) = (registry.host.clone(), AtomicUsize::new(0));
    Server::start(move |heard| {
        let reply = forward(&behind, heard);
        if !heard.is("GET", "/blobs/sha256") {
            return reply;
        }
        fault(blobs.fetch_add(1, Ordering::SeqCst), heard, reply)
    })
}

fn stored(registry: &Registry, length: usize) -> Vec<u8> {
    let blob = bytes(length);
    push(&Home::new().repository(&registry.host, "app"), &blob);
    blob
}

#[test]
fn a_blob_survives_cut_connections() {
    let Some(registry) = Registry::plain("a_blob_survives_cut_connections") else { return };
    let blob = stored(&registry, 3_000_000);
    let server = faulty(&registry, |n, _, reply| if n < 4 { reply.cut(200_000 * n) } else { reply });
    let home = Home::new();
    assert_eq!(read(&home.repository(&server.host(), "app"), &blob).unwrap(), blob);
    let ranges: Vec<_> = server
        .heard()
        .iter()
        .filter(|heard| heard.is("GET", "/blobs/"))
        .map(|heard| heard.header("range").unwrap_or("-").to_owned())
        .collect();
    assert_eq!(ranges, ["-", "-", "bytes=200000-", "bytes=600000-", "bytes=1200000-"]);
    assert_eq!(home.pauses().len(), 4);
}

#[test]
fn progress_makes_up_for_breaks_and_too_many_without_end_it() {
    let Some(registry) = Registry::plain("progress_makes_up_for_breaks_and_too_many_without_end_it") else {
        return;
    };
    let blob = stored(&registry, 9_000_000);
    let server = faulty(&registry, |_, _, reply| reply.cut(1_100_000));
    assert_eq!(read(&Home::new().repository(&server.host(), "app"), &blob).unwrap(), blob);
    let server = faulty(&registry, |_, _, reply| reply.cut(1000));
    let home = Home::new();
    let error = read(&home.repository(&server.host(), "app"), &blob).unwrap_err();
    assert!(error.starts_with(&server.host()) && error.contains("broke"), "{error}");
    assert_eq!(server.count("GET", "/blobs/"), 5);
}

#[test]
fn a_server_that_ignores_ranges_gives_the_same_blob() {
    let Some(registry) = Registry::plain("a_server_that_ignores_ranges_gives_the_same_blob") else { return };
    let blob = stored(&registry, 1_000_000);
    let behind = registry.host.clone();
    let cuts = AtomicUsize::new(0);
    let server = Server::start(move |heard| {
        let mut heard = heard.clone();
        heard.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
        let reply = forward(&behind, &heard);
        let cut = heard.is("GET", "/blobs/") && cuts.fetch_add(1, Ordering::SeqCst) == 0;
        if cut { reply.cut(400_000) } else { reply }
    });
    let repository = Home::new().repository(&server.host(), "app");
    assert_eq!(read(&repository, &blob).unwrap(), blob);
    let rest = repository.blob(&digest(&blob), 1_000_000, 999_990).unwrap();
    assert_eq!(read_to_end(rest).unwrap(), &blob[999_990..]);
}

#[test]
fn wrong_lengths_and_ranges_are_errors_at_once() {
    let Some(registry) = Registry::plain("wrong_lengths_and_ranges_are_errors_at_once") else { return };
    let blob = stored(&registry, 10_000);
    let repository = |server: &Server| Home::new().repository(&server.host(), "app");
    let expect = |server: Server, offset: u64, words: &str| {
        let found = repository(&server).blob(&digest(&blob), 10_000, offset);
        let error = blob_error(found);
        assert!(error.starts_with(&server.host()) && error.contains(words), "{error}");
        assert_eq!(server.count("GET", "/blobs/"), 1, "{words}");
    };
    let length = |length: usize| {
        faulty(&registry, move |_, _, r| r.without("content-length").with("Content-Length", length))
    };
    expect(length(10_001), 0, "expected 10000 bytes, the server has 10001");
    expect(length(9_999), 0, "expected 10000 bytes, the server has 9999");
    let range = |range: &'static str| {
        faulty(&registry, move |_, _, r| r.without("content-range").with("Content-Range", range))
    };
    expect(range("bytes 5-9999/10001"), 5, "expected 10000 bytes, the server has 10001");
    expect(
        faulty(&registry, |_, _, r| Reply { status: 206, ..r }),
        0,
        "a part, though the whole was asked for",
    );
    expect(faulty(&registry, |_, _, r| r.with("Content-Encoding", "gzip")), 0, "sent as gzip");
}

#[test]
fn a_server_that_refuses_ranges_or_sends_another_part_is_asked_for_everything() {
    let test = "a_server_that_refuses_ranges_or_sends_another_part_is_asked_for_everything";
    let Some(registry) = Registry::plain(test) else { return };
    let blob = stored(&registry, 10_000);
    let refused = |status: u16| move |_: Reply| Reply::new(status, "");
    let part =
        |range: &'static str| move |reply: Reply| reply.without("content-range").with("Content-Range", range);
    let faults: [Box<dyn Fn(Reply) -> Reply + Send + Sync>; 7] = [
        Box::new(refused(416)),
        Box::new(refused(400)),
        Box::new(refused(501)),
        Box::new(part("bytes 4-9999/10000")),
        Box::new(part("five")),
        Box::new(|reply| reply.without("content-range")),
        Box::new(part("bytes 0-9999/10000")),
    ];
    for fault in faults {
        let server =
            faulty(&registry, move |_, heard, r| if heard.header("range").is_some() { fault(r) } else { r });
        let repository = Home::new().repository(&server.host(), "app");
        let rest = repository.blob(&digest(&blob), 10_000, 5).unwrap();
        assert_eq!(read_to_end(rest).unwrap(), &blob[5..]);
        assert_eq!(server.count("GET", "/blobs/"), 2);
    }
    // What is said of the whole counts.
    let server = faulty(&registry, |_, heard, _| match heard.header("range") {
        Some(_) => Reply::new(416, ""),
        None => Reply::new(410, "gone"),
    });
    let found = Home::new().repository(&server.host(), "app").blob(&digest(&blob), 10_000, 5);
    let error = blob_error(found);
    assert!(error.contains("410 gone"), "{error}");
    assert_eq!(server.count("GET", "/blobs/"), 2);
}

#[test]
fn a_stream_longer_than_promised_is_cut_off() {
    let Some(registry) = Registry::plain("a_stream_longer_than_promised_is_cut_off") else { return };
    let blob = stored(&registry, 10_000);
    let server = faulty(&registry, |_, _, mut reply| {
        reply.body.extend(std::iter::repeat_n(0, 1_000_000));
        reply.without("content-length").with("X-No-Length", 1)
    });
    let repository = Home::new().repository(&server.host(), "app");
    let error = read_to_end(repository.blob(&digest(&blob), 10_000, 0).unwrap()).unwrap_err();
    assert!(error.ends_with("larger than 10000 bytes"), "{error}");
    // Without a length and ended early, it is asked for again.
    let server = faulty(&registry, |n, _, reply| {
        let reply = reply.without("content-length").with("X-No-Length", 1);
        if n == 0 { reply.cut(5000) } else { reply }
    });
    assert_eq!(read(&Home::new().repository(&server.host(), "app"), &blob).unwrap(), blob);
}

#[test]
fn other_bytes_than_the_digests_are_refused() {
    let Some(registry) = Registry::plain("other_bytes_than_the_digests_are_refused") else { return };
    let layer = bytes(1000);
    let name = push_image(&Home::new().repository(&registry.host, "app"), "v1", &layer);
    let behind = registry.host.clone();
    let server = Server::start(move |heard| {
        let mut reply = forward(&behind, heard);
        if let Some(byte) = reply.body.last_mut() {
            *byte ^= 1;
        }
        reply
    });
    let repository = Home::new().repository(&server.host(), "app");
    for name in ["v1", name.as_str()] {
        let error = repository.manifest(name).unwrap_err().to_string();
        assert!(error.contains("expected sha256:") && error.contains(", got sha256:"), "{error}");
    }
    let descriptor = Descriptor::new("application/x", &digest(&layer), 1000);
    let error = repository.blob_bytes(&descriptor, 1000).unwrap_err().to_string();
    assert!(error.contains("expected sha256:"), "{error}");
    assert!(
        repository.blob_bytes(&descriptor, 999).unwrap_err().to_string().ends_with("larger than 999 bytes")
    );
}

#[test]
fn manifests_and_lists_are_bounded() {
    let server = Server::start(|heard| {
        if heard.target.contains("/manifests/told") {
            Reply::new(200, vec![b' '; (4 << 20) + 1])
        } else if heard.target.contains("/manifests/") {
            Reply::new(200, vec![b' '; (4 << 20) + 1]).with("X-No-Length", 1)
        } else {
            Reply::new(200, r#"{"tags":["a"]}"#).with("Link", "</v2/app/tags/list?last=a>; rel=\"next\"")
        }
    });
    let repository = Home::new().repository(&server.host(), "app");
    for name in ["told", "untold"] {
        let error = repository.manifest(name).unwrap_err().to_string();
        assert!(error.ends_with("larger than 4194304 bytes"), "{error}");
    }
    let error = repository.tags().unwrap_err().to_string();
    assert!(error.ends_with("a list whose pages have no end"), "{error}");
}

#[test]
fn tags_and_referrers_come_in_pages() {
    let subject = digest(b"subject");
    let server = Server::start(|heard| {
        let page = |tags: &str| Reply::new(200, format!(r#"{{"name":"app","tags":{tags}}}"#));
        let entry = |kind: &str| {
            format!(
                r#"{{"mediaType":"application/m","digest":"{}","size":1,"artifactType":"{kind}"}}"#,
                digest(kind.as_bytes())
            )
        };
        match heard.target.as_str() {
            "/v2/app/tags/list" => {
                page(r#"["a","b"]"#).with("Link", "</v2/app/tags/list?n=2&last=b>; rel=\"next\"")
            }
            "/v2/app/tags/list?n=2&last=b" => page(r#"["c"]"#).with("Link", "<?last=c>; rel=next"),
            "/v2/app/tags/list?last=c" => page("null"),
            target if target.contains("/referrers/") && !target.contains("page=2") => {
                Reply::new(200, format!(r#"{{"manifests":[{}]}}"#, entry("one")))
                    .with("Link", "<?page=2>; rel=next")
            }
            target if target.contains("/referrers/") => {
                Reply::new(200, format!(r#"{{"manifests":[{}]}}"#, entry("two")))
            }
            _ => Reply::new(200, "{}"),
        }
    });
    let repository = Home::new().repository(&server.host(), "app");
    assert_eq!(repository.tags().unwrap(), ["a", "b", "c"]);
    assert_eq!(repository.referrers(&subject, None).unwrap().len(), 2);
    // The server did not filter.
    let two = repository.referrers(&subject, Some("two")).unwrap();
    assert_eq!(two.iter().map(|entry| entry.artifact_type.as_deref()).collect::<Vec<_>>(), [Some("two")]);
    assert!(server.heard().iter().any(|heard| heard.target.ends_with("?artifactType=two")));
}

#[test]
fn tags_that_are_none_are_refused_and_digests_among_them_passed_over() {
    let server = Server::start(|heard| {
        let digest = format!("sha256:{}", "0".repeat(64));
        match heard.target.as_str() {
            "/v2/app/tags/list" => Reply::new(200, format!(r#"{{"tags":["a","{digest}"]}}"#)),
            "/v2/red/tags/list" => Reply::new(200, r#"{"tags":["a\u001b[31mRED"]}"#),
            _ => Reply::new(200, "{}"),
        }
    });
    let tags = |name: &str| Home::new().repository(&server.host(), name).tags();
    assert_eq!(tags("app").unwrap(), ["a"]);
    let error = tags("red").unwrap_err().to_string();
    assert!(error.starts_with(&server.host()) && !error.contains('\x1b'), "{error}");
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    let Some(registry) = Registry::plain("busy_servers_are_asked_again_when_they_say") else { return };
    push_image(&Home::new().repository(&registry.host, "app"), "v1", &bytes(10));
    let (behind, tries) = (registry.host.clone(), AtomicUsize::new(0));
    let server = Server::start(move |heard| {
        if heard.target == "/v2/" {
            return forward(&behind, heard);
        }
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(429, "").with("Retry-After", 7),
            1 => Reply::new(503, "")
                .with("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
                .with("Retry-After", "Sun, 06 Nov 1994 08:50:00 GMT"),
            2 => Reply::new(502, "<html>").with("Content-Type", "text/html"),
            3 => Reply::new(200, "{}").with("Content-Length", 20),
            _ => forward(&behind, heard),
        }
    });
    let home = Home::new();
    home.repository(&server.host(), "app").manifest("v1").unwrap();
    let pauses = home.pauses();
    assert_eq!(pauses[..2], [Duration::from_secs(7), Duration::from_secs(23)]);
    assert!(pauses.len() == 4 && pauses[3] <= Duration::from_secs(4), "{pauses:?}");
}

#[test]
fn a_server_that_stays_busy_is_left_alone() {
    let limited = Server::start(|heard| match heard.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull limit\nreached"}]}"#)
            .with("Retry-After", 3600),
    });
    let home = Home::new();
    let error = home.repository(&limited.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.ends_with("429 too many requests: pull limit reached; try again in 3600 s"), "{error}");
    assert_eq!(limited.count("GET", "/manifests/"), 1);

    let broken = Server::start(|heard| Reply::new(if heard.target == "/v2/" { 200 } else { 500 }, ""));
    let error = home.repository(&broken.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.ends_with("500 internal server error; try again later"), "{error}");
    assert_eq!(broken.count("GET", "/manifests/"), 5);
    assert_eq!(home.pauses().len(), 4);
}

#[test]
fn another_host_gets_no_authorization() {
    let Some(registry) = Registry::plain("another_host_gets_no_authorization") else { return };
    let blob = stored(&registry, 500_000);
    let (behind, cuts) = (registry.host.clone(), AtomicUsize::new(0));
    let store = Arc::new(Server::start(move |heard| {
        let reply = forward(&behind, heard);
        if cuts.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut(100_000) } else { reply }
    }));
    let to = store.host();
    let server =
        Server::start(move |heard| match (heard.header("authorization"), heard.is("GET", "/blobs/")) {
            (None, _) => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
            (_, true) => Reply::new(307, "").with("Location", format!("http://{to}{}", heard.target)),
            (_, false) => Reply::new(200, ""),
        });
    let home = Home::with_login(("ann", "s3cret").into());
    assert_eq!(read(&home.repository(&server.host(), "app"), &blob).unwrap(), blob);
    assert_eq!(store.heard().len(), 2);
    assert!(store.heard().iter().all(|heard| heard.header("authorization").is_none()));
    // After the cut the registry was asked for the place again.
    assert_eq!(server.heard().iter().filter(|heard| heard.header("range").is_some()).count(), 1);

    // And its challenges are not answered, least of all where it says.
    let store = Server::start(|heard| {
        let realm = format!("Bearer realm=\"http://{}/token\"", heard.header("host").unwrap());
        Reply::new(401, "").with("WWW-Authenticate", realm)
    });
    let to = store.host();
    let server = Server::start(move |heard| match heard.target.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(302, "").with("Location", format!("http://{to}/x")),
    });
    let error = blob_error(home.repository(&server.host(), "app").blob(&digest(b"x"), 1, 0));
    assert!(error.starts_with(&store.host()), "{error}");
    assert_eq!((store.heard().len(), store.count("GET", "/x")), (1, 1));
    assert!(store.heard()[0].header("authorization").is_none());
}

#[test]
fn redirects_end() {
    let server = Server::start(|heard| {
        if heard.target == "/v2/" {
            Reply::new(200, "")
        } else {
            Reply::new(302, "").with("Location", "again")
        }
    });
    let home = Home::new();
    let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.ends_with("more redirects than are followed"), "{error}");
    assert_eq!(server.count("GET", ""), 12);
    let server = Server::start(|heard| Reply::new(if heard.target == "/v2/" { 200 } else { 302 }, ""));
    let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.ends_with("a redirect without a usable Location"), "{error}");
}

#[test]
fn a_silent_server_is_given_up() {
    let server = Server::start(|heard| Reply { silent: heard.target != "/v2/", ..Reply::new(200, "") });
    let home = Home { idle: Duration::from_millis(50), ..Home::new() };
    let started = Instant::now();
    let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.contains("no answer within"), "{error}");
    assert!(started.elapsed() < crate::harness::DEADLINE);
    assert_eq!(server.count("GET", "/manifests/"), 5);
}

#[test]
fn nobody_there_is_told_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let home = Home::new();
    let error = home.repository(&host, "app").manifest("v1").unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{host}: connection refused; check the name, the port and that the registry runs")
    );
    let error = home.repository("no-such-host.invalid", "app").manifest("v1").unwrap_err().to_string();
    assert!(
        error.starts_with("no-such-host.invalid: ") && error.ends_with("check the name and the resolver"),
        "{error}"
    );
    assert_eq!(home.pauses(), []);
}

#[test]
fn an_upload_goes_on_after_a_fault() {
    let Some(registry) = Registry::plain("an_upload_goes_on_after_a_fault") else { return };
    let blob = bytes(1_000_000);
    for upload in [creel_registry::Upload::Monolithic, creel_registry::Upload::Chunked(300_000)] {
        let (behind, faults) = (registry.host.clone(), AtomicUsize::new(0));
        let server = Server::start(move |heard| {
            let is_data = heard.method == "PATCH" || heard.is("PUT", "/uploads/");
            // The second piece is lost on its way, the fourth arrives and its answer is lost.
            match if is_data { faults.fetch_add(1, Ordering::SeqCst) } else { usize::MAX } {
                1 => Reply::new(503, ""),
                3 => {
                    forward(&behind, heard);
                    Reply::new(502, "")
                }
                _ => forward(&behind, heard),
            }
        });
        let home = Home::new();
        let name =
            format!("app-{}", if upload == creel_registry::Upload::Monolithic { "whole" } else { "chunks" });
        let repository = home.repository(&server.host(), &name);
        for blob in [&blob[..], &blob[..500_000]] {
            let owned = blob.to_vec();
            let part = move || -> std::io::Result<Box<dyn std::io::Read + Send>> {
                Ok(Box::new(std::io::Cursor::new(owned.clone())))
            };
            repository.push_blob(&digest(blob), blob.len() as u64, &part, upload, None).unwrap();
            assert_eq!(read(&repository, blob).unwrap(), blob);
        }
        assert!(!home.pauses().is_empty());
    }
}

#[test]
fn a_layers_urls_get_no_credential_and_lead_nowhere_near() {
    let blob = bytes(100_000);
    let registry = Server::start(|heard| match heard.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) => Reply::new(404, ""),
    });
    let (content, cuts) = (blob.clone(), AtomicUsize::new(0));
    let store = Server::start(move |heard| match heard.header("range") {
        None if cuts.fetch_add(1, Ordering::SeqCst) == 0 => Reply::new(200, content.clone()).cut(40_000),
        None => Reply::new(200, content.clone()),
        Some(_) => Reply::new(206, &content[40_000..]).with("Content-Range", "bytes 40000-99999/100000"),
    });
    let home = Home::with_login(("ann", "s3cret").into());
    let of = |urls: &[&str]| {
        let mut descriptor = Descriptor::new("application/x", &digest(&blob), 100_000);
        descriptor.urls = urls.iter().map(|url| (*url).to_owned()).collect();
        descriptor
    };
    let near = format!("http://{}/layer", store.host());
    let by_name = format!("http://localhost:{}/layer", store.address.port());
    let repository = home.repository(&registry.host(), "app");
    let error = blob_error(repository.blob_of(&of(&["file:///etc/passwd", &near, &by_name]), 0));
    assert!(error.contains("404 not found") && error.contains("none of http or https"), "{error}");
    assert_eq!(error.matches("is of this machine or its link").count(), 2, "{error}");
    assert_eq!(store.heard().len(), 0);

    // A host that only a proxy knows is not near.
    let (proxy, _lines) = crate::tls::connect_proxy(store.host());
    let home = Home { variables: vec![("HTTP_PROXY".into(), format!("http://{proxy}"))], ..home };
    let repository = home.repository(&registry.host(), "app");
    let found = repository.blob_of(&of(&[&near, "http://layers.example/layer"]), 0).unwrap();
    assert_eq!(read_to_end(found).unwrap(), blob);
    assert_eq!(store.heard().len(), 2);
    assert!(store.heard().iter().all(|heard| heard.header("authorization").is_none()));
}
