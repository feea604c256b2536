//! registries.conf at work: mirrors, rewrites, blocked registries.

use crate::harness::certs::Authority;
use crate::harness::registry::Registry;
use crate::harness::server::{Reply, Server, forward};
use crate::harness::{Home, bytes, push_image, read};

#[test]
fn mirrors_are_asked_in_order_and_the_registry_last() {
    let Some(registry) = Registry::plain("mirrors_are_asked_in_order_and_the_registry_last") else { return };
    let layer = bytes(100_000);
    let digest = push_image(&Home::new().repository(&registry.host, "moved/app"), "v1", &layer);
    let broken = Server::start(|_| Reply::new(404, ""));
    let behind = registry.host.clone();
    let tags = Server::start(move |heard| forward(&behind, heard));
    let home = Home::new();
    home.write(
        "etc/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = 'registry.example/team'\nlocation = '{}/moved'\n\
             [[registry.mirror]]\nlocation = '{}/a'\n\
             [[registry.mirror]]\nlocation = '{}/moved'\npull-from-mirror = 'tag-only'\n\
             [[registry]]\nlocation = 'bad.example'\nblocked = true\n",
            registry.host,
            broken.host(),
            tags.host()
        ),
    );
    let repository = home.repository("registry.example", "team/app");
    assert_eq!(repository.manifest("v1").unwrap().digest, digest);
    assert_eq!(broken.count("GET", "/v2/a/app/manifests/v1"), 1);
    assert_eq!(tags.count("GET", "/v2/moved/app/manifests/v1"), 1);
    repository.manifest(digest.as_str()).unwrap();
    assert_eq!(tags.count("GET", "/manifests/sha256"), 0);
    assert_eq!(read(&repository, &layer).unwrap(), layer);

    let error = repository.manifest("v2").unwrap_err();
    assert!(error.is_not_found());
    for host in [broken.host(), tags.host(), registry.host.clone()] {
        assert!(error.to_string().contains(&host), "{error}");
    }
    let blocked = home.client().repository(&"bad.example/x".parse().unwrap());
    let message = blocked.err().unwrap().to_string();
    assert!(message.starts_with("bad.example: blocked by "), "{message}");
}

#[test]
fn what_is_written_goes_to_the_registry_that_is_named() {
    let test = "what_is_written_goes_to_the_registry_that_is_named";
    let (Some(named), Some(moved)) = (Registry::plain(test), Registry::plain(test)) else { return };
    let (mirror, behind) = (Server::start(|_| Reply::new(404, "")), moved.host.clone());
    let location = Server::start(move |heard| forward(&behind, heard));
    let home = Home::new();
    home.write(
        "etc/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = '{}/team'\nlocation = '{}/moved'\n[[registry.mirror]]\nlocation = '{}/a'\n",
            named.host,
            location.host(),
            mirror.host()
        ),
    );
    let digest = push_image(&home.repository(&named.host, "team/app"), "v1", &bytes(10));
    assert!(mirror.heard().is_empty() && location.heard().is_empty());
    let there = Home::new().repository(&named.host, "team/app");
    assert_eq!(there.manifest("v1").unwrap().digest, digest);
    // Reading follows the rewrite all the same.
    assert!(home.repository(&named.host, "team/app").manifest("v1").unwrap_err().is_not_found());
    assert_eq!(location.count("GET", "/v2/moved/app/manifests/v1"), 1);
}

#[test]
fn hosts_toml_tells_how_the_registry_is_reached_that_is_written() {
    let test = "hosts_toml_tells_how_the_registry_is_reached_that_is_written";
    let Some(authority) = Authority::new(test) else { return };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let clients = authority.certificate();
    let Some(strict) = Registry::tls(test, &certificate, &key, Some(&clients)) else { return };
    let (own, own_key) = authority.issue("client", "DNS:client.example");
    let mirror = Server::start(|_| Reply::new(404, ""));
    let home = Home::new();
    let file =
        |name: &str, text: Vec<u8>| home.write(&format!("etc/docker/certs.d/{}/{name}", strict.host), text);
    file("ca.pem", std::fs::read(authority.certificate()).unwrap());
    file("both.pem", [std::fs::read(own).unwrap(), std::fs::read(own_key).unwrap()].concat());
    let text = format!("ca = 'ca.pem'\nclient = 'both.pem'\n[host.'http://{}']\n", mirror.host());
    file("hosts.toml", text.into_bytes());
    let digest = push_image(&home.repository(&strict.host, "app"), "v1", &bytes(10));
    assert!(mirror.heard().is_empty());
    assert_eq!(home.repository(&strict.host, "app").manifest("v1").unwrap().digest, digest);
    assert_eq!(mirror.count("GET", "/manifests/v1"), 1);
}

#[test]
fn a_mirror_that_is_busy_is_passed_by_and_one_that_is_gone_left_out() {
    let test = "a_mirror_that_is_busy_is_passed_by_and_one_that_is_gone_left_out";
    let Some(registry) = Registry::plain(test) else { return };
    push_image(&Home::new().repository(&registry.host, "app"), "v1", &bytes(10));
    let busy = Server::start(|heard| Reply::new(if heard.target == "/v2/" { 200 } else { 503 }, ""));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let home = Home::new();
    home.write(
        ".config/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = 'registry.example'\nlocation = '{}'\n\
             [[registry.mirror]]\nlocation = '{gone}'\n[[registry.mirror]]\nlocation = '{}'\n",
            registry.host,
            busy.host()
        ),
    );
    let repository = home.repository("registry.example", "app");
    repository.manifest("v1").unwrap();
    repository.manifest("v1").unwrap();
    assert_eq!(busy.count("GET", "/manifests/"), 2);
    assert_eq!(home.pauses(), []);
    // The registry's own answer ends it, and the mirror that is gone has no part in the message.
    let error = repository.manifest("v2").unwrap_err().to_string();
    assert!(!error.contains(&gone.to_string()) && error.contains(&busy.host()), "{error}");
    assert_eq!(home.pauses(), []);
}

#[test]
fn a_mirrors_wrong_bytes_are_not_taken() {
    let Some(registry) = Registry::plain("a_mirrors_wrong_bytes_are_not_taken") else { return };
    let layer = bytes(1000);
    let digest = push_image(&Home::new().repository(&registry.host, "app"), "v1", &layer);
    let liar =
        Server::start(|heard| Reply::new(200, if heard.is("GET", "/blobs/") { "short" } else { "{}" }));
    let home = Home::new();
    home.write(
        ".config/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = 'registry.example'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
            registry.host,
            liar.host()
        ),
    );
    let repository = home.repository("registry.example", "app");
    assert_eq!(repository.manifest(digest.as_str()).unwrap().digest, digest);
    assert_eq!(read(&repository, &layer).unwrap(), layer);
    assert_eq!(liar.count("GET", "/manifests/"), 1);
    assert_eq!(liar.count("GET", "/blobs/"), 1);
}

#[test]
fn mistakes_in_configuration_are_told_before_anything_is_asked() {
    for (name, text) in [
        ("etc/containers/registries.conf", "[[registry]]\nlocation = 'http://x'"),
        ("etc/containers/registries.conf.d/9.conf", "["),
    ] {
        let home = Home::new();
        home.write(name, text);
        let message = home.try_client().err().unwrap().to_string();
        assert!(message.contains(name), "{message}");
    }
    let home = Home { variables: vec![("HTTPS_PROXY".into(), "ftp://u:secret@x".into())], ..Home::new() };
    assert_eq!(home.try_client().err().unwrap().to_string(), "HTTPS_PROXY: not a proxy's URL");
}

#[test]
fn hosts_of_containerd_are_mirrors_that_are_told_the_namespace() {
    let test = "hosts_of_containerd_are_mirrors_that_are_told_the_namespace";
    let Some(registry) = Registry::plain(test) else { return };
    let layer = bytes(1000);
    let digest = push_image(&Home::new().repository(&registry.host, "cache/team/app"), "v1", &layer);
    let by_digest = Server::start(|_| Reply::new(404, ""));
    let behind = registry.host.clone();
    let mirror = Server::start(move |heard| forward(&behind, heard));
    let home = Home::new();
    home.write(
        "etc/containerd/certs.d/registry.example/hosts.toml",
        format!(
            "server = 'http://{}'\n[host.'http://{}']\ncapabilities = ['pull']\n\
             [host.'http://{}/v2/cache']\noverride_path = true\n",
            registry.host,
            by_digest.host(),
            mirror.host()
        ),
    );
    let repository = home.repository("registry.example", "team/app");
    assert_eq!(repository.manifest("v1").unwrap().digest, digest);
    assert_eq!(by_digest.count("GET", "/manifests/"), 0);
    assert_eq!(mirror.count("GET", "/v2/cache/team/app/manifests/v1?ns=registry.example"), 1);
    repository.manifest(digest.as_str()).unwrap();
    let asked = format!("/v2/team/app/manifests/{digest}?ns=registry.example");
    assert_eq!(by_digest.count("GET", &asked), 1);
    assert_eq!(read(&repository, &layer).unwrap(), layer);
    // registries.conf comes first; what it does not name still goes by the other file.
    home.write(
        "etc/containers/registries.conf",
        format!("[[registry]]\nprefix = 'registry.example'\nlocation = '{}/cache'\n", registry.host),
    );
    let before = mirror.count("GET", "");
    assert_eq!(home.repository("registry.example", "team/app").manifest("v1").unwrap().digest, digest);
    assert_eq!(mirror.count("GET", ""), before);
}
