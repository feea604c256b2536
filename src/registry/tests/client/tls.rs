//! TLS: private authorities, certificates of clients, insecure registries, proxies.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use creel_registry::Verification;

use crate::harness::certs::Authority;
use crate::harness::registry::Registry;
use crate::harness::server::{Reply, Server};
use crate::harness::{Home, bytes, push_image, read};

fn trust(home: &Home, host: &str, authority: &Authority) {
    let certificate = std::fs::read(authority.certificate()).unwrap();
    home.write(&format!("etc/docker/certs.d/{host}/ca.crt"), certificate);
}

#[test]
fn a_private_authority_is_trusted_for_its_host_alone() {
    let test = "a_private_authority_is_trusted_for_its_host_alone";
    let Some(authority) = Authority::new(test) else { return };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let Some(registry) = Registry::tls(test, &certificate, &key, None) else { return };
    let home = Home::new();
    trust(&home, &registry.host, &authority);
    let layer = bytes(300_000);
    push_image(&home.repository(&registry.host, "app"), "v1", &layer);
    assert_eq!(read(&home.repository(&registry.host, "app"), &layer).unwrap(), layer);

    let stranger = Home::new();
    trust(&stranger, "127.0.0.1:1", &authority);
    let error = stranger.repository(&registry.host, "app").manifest("v1").unwrap_err().to_string();
    assert!(error.starts_with(&registry.host) && error.contains("UnknownIssuer"), "{error}");
    assert!(error.ends_with("mark the registry insecure"), "{error}");

    let listed = Home::new();
    let directory = format!("etc/containerd/certs.d/{}", registry.host);
    listed.write(&format!("{directory}/hosts.toml"), "ca = 'own.pem'\n");
    listed.write(&format!("{directory}/own.pem"), std::fs::read(authority.certificate()).unwrap());
    listed.repository(&registry.host, "app").manifest("v1").unwrap();

    let careless = Home { verification: Verification::Off, ..Home::new() };
    careless.repository(&registry.host, "app").manifest("v1").unwrap();

    let other_name = format!("localhost:{}", registry.port());
    trust(&home, &other_name, &authority);
    let error = home.repository(&other_name, "app").manifest("v1").unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");

    stranger.write(
        "etc/containers/registries.conf",
        format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", registry.host),
    );
    stranger.repository(&registry.host, "app").manifest("v1").unwrap();
}

#[test]
fn a_registry_that_asks_for_a_certificate_gets_the_one_of_certs_d() {
    let test = "a_registry_that_asks_for_a_certificate_gets_the_one_of_certs_d";
    let Some(authority) = Authority::new(test) else { return };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let Some(registry) = Registry::tls(test, &certificate, &key, Some(&authority.certificate())) else {
        return;
    };
    let home = Home::new();
    trust(&home, &registry.host, &authority);
    let error = home.repository(&registry.host, "app").ping().unwrap_err().to_string();
    assert!(error.contains("ertificate"), "{error}");

    let (own, own_key) = authority.issue("me", "DNS:me.example");
    let dir = format!("etc/docker/certs.d/{}", registry.host);
    home.write(&format!("{dir}/me.cert"), std::fs::read(own).unwrap());
    home.write(&format!("{dir}/me.key"), std::fs::read(own_key).unwrap());
    home.repository(&registry.host, "app").ping().unwrap();

    let (_, other_key) = authority.issue("other", "DNS:other.example");
    home.write(&format!("{dir}/me.key"), std::fs::read(other_key).unwrap());
    let error = home.repository(&registry.host, "app").ping().unwrap_err().to_string();
    assert!(error.contains("me.cert: does not go with its key"), "{error}");
}

#[test]
fn nothing_falls_from_https_to_http() {
    let Some(authority) = Authority::new("nothing_falls_from_https_to_http") else { return };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let plain = Server::start(|_| panic!("nothing is asked of it"));
    let target = format!("http://{}/blob", plain.host());
    let server =
        Server::start_tls(&certificate, &key, move |_| Reply::new(307, "").with("Location", &target));
    let home = Home::new();
    trust(&home, &server.host(), &authority);
    let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err().to_string();
    let expected =
        format!("{}: redirect to {}: from https to http, which is not followed", server.host(), plain.host());
    assert_eq!(error, expected);
    assert!(plain.heard().is_empty());
}

#[test]
fn an_insecure_registry_may_speak_either() {
    let Some(registry) = Registry::plain("an_insecure_registry_may_speak_either") else { return };
    let home = Home::new();
    // Not by a name of loopback, which needs no marking: by one that only the proxy knows.
    let (proxy, lines) = connect_proxy(registry.host.clone());
    home.write(
        "etc/containers/registries.conf",
        "[[registry]]\nlocation = 'plain.example:5000'\ninsecure = true\n",
    );
    let home = Home { variables: vec![("ALL_PROXY".into(), format!("http://{proxy}"))], ..home };
    let layer = bytes(1000);
    push_image(&home.repository("plain.example:5000", "app"), "v1", &layer);
    assert_eq!(lines.try_iter().next().as_deref(), Some("CONNECT plain.example:5000 HTTP/1.1"));
    let error = home.repository("secure.example:5000", "app").manifest("v1").unwrap_err().to_string();
    assert!(
        error.ends_with("a registry of plain HTTP must be marked insecure in registries.conf"),
        "{error}"
    );
}

#[test]
fn a_registry_is_reached_through_the_proxy() {
    let test = "a_registry_is_reached_through_the_proxy";
    let Some(authority) = Authority::new(test) else { return };
    let (certificate, key) = authority.issue("server", "DNS:registry.example");
    let Some(registry) = Registry::tls(test, &certificate, &key, None) else { return };
    let (proxy, lines) = connect_proxy(registry.host.clone());
    let home = Home { variables: vec![("HTTPS_PROXY".into(), format!("http://{proxy}"))], ..Home::new() };
    trust(&home, "registry.example", &authority);
    let layer = bytes(300_000);
    push_image(&home.repository("registry.example", "app"), "v1", &layer);
    assert_eq!(read(&home.repository("registry.example", "app"), &layer).unwrap(), layer);
    assert!(lines.try_iter().all(|line| line == "CONNECT registry.example:443 HTTP/1.1"));
}

/// A proxy that connects whatever it is asked for to one host; gives the lines it was asked with.
pub fn connect_proxy(to: String) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel();
    // Ends with the process: nothing tells a proxy that its test is over.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (to, tell) = (to.clone(), tell.clone());
            std::thread::spawn(move || tunnel(stream, &to, &tell));
        }
    });
    (address, told)
}

fn tunnel(mut client: TcpStream, to: &str, tell: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    // The test may be over.
    tell.send(line.trim_end().to_owned()).ok();
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let mut server = TcpStream::connect(to).unwrap();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        std::io::copy(&mut from_server, &mut to_client).ok();
        to_client.shutdown(std::net::Shutdown::Both).ok();
    });
    std::io::copy(&mut reader, &mut server).ok();
    server.shutdown(std::net::Shutdown::Both).ok();
    back.join().unwrap();
}
