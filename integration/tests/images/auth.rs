//! Registries that want to know who asks: htpasswd, a token server by GET and by POST, TLS with an authority
//! of one's own.

use std::fs::File;
use std::process::Command;

use creel_integration::{Cmd, Output, skip};
use creel_test_servers::certs::Authority;
use creel_test_servers::registry::Registry;
use creel_test_servers::server::{Reply, Server, forward};
use creel_test_servers::token::{Takes, TokenServer};

use crate::harness::Images;
use crate::{needs_images, registry_with};

const PASSWORD: &str = "s3cret:x";

/// `creel login` as ann, with the password on standard input.
fn login(images: &Images, host: &str, password: &str) -> Output {
    let file = images.scratch.file("password", format!("{password}\n"));
    let words = ["login", "-U", "ann", "--password-stdin", host];
    images.creel(&words).stdin(File::open(file).unwrap()).output()
}

#[test]
fn htpasswd_lets_in_who_knows_the_password() {
    needs_images!();
    let images = Images::new();
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "ann", PASSWORD]).output() else {
        skip!("htpasswd is not installed");
    };
    let file = images.scratch.file("htpasswd", made.stdout);
    let auth = format!("auth:\n  htpasswd:\n    realm: here\n    path: {}\n", file.display());
    let registry = match Registry::try_start("", &auth) {
        Ok(registry) => registry,
        Err(why) => skip!("{why}"),
    };
    let image = registry.image("team/a:1");
    let push = || images.creel(&["push", "-q", &images.oci("a"), &image]).output();
    push().exits(1).creel_says(&[&registry.host, "401", &format!("creel login {}", registry.host)]);
    let wrong = login(&images, &registry.host, "wr0ng").exits(1);
    assert!(!wrong.stderr.contains("wr0ng"), "{wrong}");
    wrong.creel_says(&[&registry.host, "401", "came from this login"]);
    login(&images, &registry.host, PASSWORD).ok();
    let who = images.creel(&["login", "--get-login", &registry.host]).output().ok();
    assert_eq!(who.stdout, "ann\n");
    let who = who.says(&["from ", &format!("auth.json (key \"{}\")", registry.host)]);
    assert_eq!(who.stderr.lines().count(), 1);
    push().ok();
    assert_eq!(images.run(&["-q"], &image, &[]).output().exits(3).stdout, "hello\n");
    let again = images.creel(&["login", &registry.host]).output().ok();
    assert!(again.stdout.contains("Existing credentials are valid"), "{again}");
    let out = images.creel(&["logout", &registry.host]).output().ok();
    assert_eq!(out.stdout, format!("Removed login credentials for {}\n", registry.host));
    let refused = images.creel(&["tags", &registry.image("team/a")]).output().exits(1);
    refused.creel_says(&["401", "no credential was sent"]);
    let creds = format!("ann:{PASSWORD}");
    let tags = images.creel(&["tags", "--creds", &creds, &registry.image("team/a")]).output().ok();
    assert_eq!(tags.stdout, "1\n");
    let bad = images.creel(&["tags", "--creds", "ann:wr0ng", &registry.image("team/a")]).output().exits(1);
    assert!(!bad.stderr.contains("wr0ng"), "{bad}");
    bad.creel_says(&["401", "came from the command line"]);
}

/// A registry that lets in who sends this credential, in front of another.
fn guarded(behind: &Registry, credential: &'static str) -> Server {
    let behind = behind.host.clone();
    Server::start(move |heard| match heard.header("authorization") {
        Some(sent) if sent == format!("Basic {credential}") => forward(&behind, heard),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"here\""),
    })
}

/// The credentials that a server was sent, each once.
fn sent_to(server: &Server) -> Vec<String> {
    let heard = server.heard();
    let mut sent: Vec<String> =
        heard.iter().filter_map(|heard| heard.header("authorization").map(str::to_owned)).collect();
    sent.sort();
    sent.dedup();
    sent
}

#[test]
fn credential_of_a_copy_goes_to_the_end_that_it_is_for() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let Ok(other) = Registry::try_start("", "") else { skip!("docker-registry is not installed") };
    // `ann:one` and `bob:two`
    let (one, two) = (guarded(&registry, "YW5uOm9uZQ=="), guarded(&other, "Ym9iOnR3bw=="));
    let from = format!("docker://{}/test/a:1", one.host());
    let to = format!("docker://{}/test/a:1", two.host());
    let copy = |flags: &[&str], from: &str, to: &str| {
        images.creel(&[&["copy", "-q"], flags, &[from, to]].concat()).output()
    };
    for bare in [&["--creds", "ann:one"][..], &["--username", "ann", "--password", "one"]] {
        copy(bare, &from, &to).exits(1).creel_says(&[
            &one.host(),
            &two.host(),
            "--src-creds or --dest-creds",
        ]);
    }
    assert!(one.heard().is_empty() && two.heard().is_empty());
    copy(&["--src-creds", "ann:one"], &from, &to).exits(1).creel_says(&[&two.host(), "401", "no credential"]);
    assert_eq!(sent_to(&two), Vec::<String>::new());
    copy(&["--src-creds", "ann:one", "--dest-username", "bob", "--dest-password", "two"], &from, &to).ok();
    assert_eq!(sent_to(&one), ["Basic YW5uOm9uZQ=="]);
    assert_eq!(sent_to(&two), ["Basic Ym9iOnR3bw=="]);
    // One registry, or the same at both ends: it is clear whose it is.
    let layout = format!("oci:{}:x", images.scratch.join("out").display());
    copy(&["--creds", "ann:one"], &from, &layout).ok();
    copy(&["--dest-creds", "bob:two"], &layout, &to).ok();
    let file = images.scratch.file("password", "one\n");
    let moved = format!("docker://{}/moved/a:1", one.host());
    let words = ["copy", "-q", "--username", "ann", "--password-stdin", &from, &moved];
    images.creel(&words).stdin(File::open(file).unwrap()).output().ok();
    // Credentials that nobody gets.
    copy(&["--src-creds", "ann:one"], &layout, &to).exits(1).creel_says(&["--src-creds", "is no registry"]);
    copy(&["--password", "one"], &from, &layout).exits(1).creel_says(&["--username"]);
    // Files of credentials of their own.
    let auth = |name: &str, host: String, credential: &str| {
        let text = serde_json::json!({"auths": {host: {"auth": credential}}}).to_string();
        images.scratch.file(name, text).display().to_string()
    };
    let (source, destination) =
        (auth("src.json", one.host(), "YW5uOm9uZQ=="), auth("dest.json", two.host(), "Ym9iOnR3bw=="));
    copy(&["--src-authfile", &source, "--dest-authfile", &destination], &from, &to).ok();
}

#[test]
fn verify_takes_a_credential_for_the_registry_of_the_images() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let one = guarded(&registry, "YW5uOm9uZQ==");
    let image = format!("docker://{}/test/a:1", one.host());
    images.creel(&["pull", "-q", "--creds", "ann:one", &image]).output().ok();
    let verify = |more: &[&str]| images.creel_nested(&[&["image", "verify", "-q"], more].concat()).output();
    verify(&[]).exits(1);
    let whole = verify(&["--creds", "ann:one"]).ok();
    assert!(whole.stdout.contains(": whole"), "{whole}");
    images.creel(&["pull", "-q", &registry.image("test/a:1")]).output().ok();
    verify(&["--creds", "ann:one"]).exits(1).creel_says(&[&one.host(), &registry.host, "one registry"]);
    // What a command has no use for is no flag of it, or refused.
    let bundle = images.scratch.join("bundle").display().to_string();
    images.creel(&["unpack", "--store-blobs", &image, &bundle]).output().exits(2);
    for flag in ["--all", "--referrers"] {
        let refused = images.creel(&["push", flag, &image, &registry.image("x/y:1")]).output().exits(1);
        refused.creel_says(&[flag, "creel copy"]);
    }
}

#[test]
fn credential_is_not_offered_to_all_registries_that_are_searched() {
    needs_images!();
    let images = Images::new();
    let registry = registry_with!(images);
    let (one, two) = (guarded(&registry, "Ym9iOnR3bw=="), guarded(&registry, "YW5uOm9uZQ=="));
    let conf = format!("unqualified-search-registries = [{:?}, {:?}]\n", one.host(), two.host());
    images.scratch.file(".config/containers/registries.conf", conf);
    for command in ["pull", "inspect"] {
        let refused = images.creel(&[command, "--creds", "ann:one", "test/a:1"]).output().exits(1);
        refused.creel_says(&["--creds", "write the registry before it"]);
    }
    images.run(&["-q", "--creds", "ann:one"], "test/a:1", &[]).output().exits(125).creel_says(&["--creds"]);
    assert!(one.heard().is_empty() && two.heard().is_empty());
    let named = format!("{}/test/a:1", two.host());
    images.creel(&["pull", "-q", "--creds", "ann:one", &named]).output().ok();
}

#[test]
fn tokens_are_fetched_by_both_methods() {
    needs_images!();
    for takes in [Takes::GetAndPost, Takes::GetOnly] {
        let images = Images::new();
        let authority = match Authority::try_new() {
            Ok(authority) => authority,
            Err(why) => skip!("{why}"),
        };
        let server = TokenServer::start(&authority, takes);
        let registry = match Registry::try_start("", &server.auth_section(&authority)) {
            Ok(registry) => registry,
            Err(why) => skip!("{why}"),
        };
        let (public, private) = (registry.image("public/a:1"), registry.image("team/a:1"));
        let creds = format!("ann:{PASSWORD}");
        images.creel(&["push", "-q", "--creds", &creds, &images.oci("a"), &public]).output().ok();
        // Whoever may read one repository and write another has a blob mounted.
        let moved = images.creel(&["copy", "--creds", &creds, &public, &private]).output().ok();
        moved.says(&["2 of 2 blobs mounted"]);
        // Everyone may pull this one, with a token all the same.
        let before = server.granted();
        assert_eq!(images.run(&["-q"], &public, &[]).output().exits(3).stdout, "hello\n");
        assert_eq!(server.granted(), before + 1);
        images
            .creel(&["pull", "-q", &private])
            .output()
            .exits(1)
            .creel_says(&["401", "no credential was sent"]);
        login(&images, &registry.host, "wr0ng").exits(1).creel_says(&["incorrect username or password"]);
        login(&images, &registry.host, PASSWORD).ok();
        images.creel(&["pull", "-q", &private]).output().ok();
        let posts = server.server.count("POST", "/token");
        assert!(posts > 0, "POST is tried first");
        images.assert_clean();
    }
}

#[test]
fn authority_of_ones_own_is_trusted_where_certs_d_says() {
    needs_images!();
    let images = Images::new();
    let authority = match Authority::try_new() {
        Ok(authority) => authority,
        Err(why) => skip!("{why}"),
    };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let clients = authority.certificate();
    let section = Registry::tls_section(&certificate, &key, None);
    let registry = match Registry::try_start(&section, "") {
        Ok(registry) => registry,
        Err(why) => skip!("{why}"),
    };
    let image = registry.image("team/a:1");
    let push = |flags: &[&str]| {
        images.creel(&[&["push", "-q"], flags, &[&images.oci("a"), &image]].concat()).output()
    };
    push(&[]).exits(1).creel_says(&[&registry.host, "UnknownIssuer", "certs.d"]);
    push(&["--tls-verify=false"]).ok();
    let directory = format!(".config/containers/certs.d/{}", registry.host);
    images.scratch.file(&format!("{directory}/ca.crt"), std::fs::read(authority.certificate()).unwrap());
    assert_eq!(images.run(&["-q"], &image, &[]).output().exits(3).stdout, "hello\n");
    // A registry that wants a certificate of its clients.
    let section = Registry::tls_section(&certificate, &key, Some(&clients));
    let Ok(strict) = Registry::try_start(&section, "") else { skip!("docker-registry is not installed") };
    let directory = format!(".config/containers/certs.d/{}", strict.host);
    images.scratch.file(&format!("{directory}/ca.crt"), std::fs::read(authority.certificate()).unwrap());
    let to = strict.image("team/a:1");
    let refused = images.creel(&["copy", "-q", &image, &to]).output().exits(1);
    refused.says(&[&strict.host]);
    let (own, own_key) = authority.issue("client", "DNS:client.example");
    images.scratch.file(&format!("{directory}/client.cert"), std::fs::read(own).unwrap());
    images.scratch.file(&format!("{directory}/client.key"), std::fs::read(own_key).unwrap());
    images.creel(&["copy", "-q", &image, &to]).output().ok();
    images.assert_clean();
}

#[test]
fn password_is_asked_for_at_the_terminal_and_not_shown() {
    needs_images!();
    let images = Images::new();
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "ann", PASSWORD]).output() else {
        skip!("htpasswd is not installed");
    };
    let file = images.scratch.file("htpasswd", made.stdout);
    let auth = format!("auth:\n  htpasswd:\n    realm: here\n    path: {}\n", file.display());
    let registry = match Registry::try_start("", &auth) {
        Ok(registry) => registry,
        Err(why) => skip!("{why}"),
    };
    let ask = |keys: &str| {
        let (mut master, slave) = creel_integration::pty::open();
        let ends = [slave.try_clone().unwrap(), slave.try_clone().unwrap()];
        let [stdout, stderr] = ends;
        let command: Cmd = images.creel(&["login", &registry.host]).stdin(slave);
        let running = command.behind(["setsid", "--ctty"]).spawn_with(stdout, stderr);
        master.expect("Username: ");
        master.send("ann\n");
        master.expect("Password: ");
        master.send(keys);
        let output = running.output();
        (output.code(), master.rest())
    };
    let (code, seen) = ask("nearly\u{15}s3cret:xy\u{7f}\n");
    assert_eq!(code, 0, "{seen}");
    assert!(
        seen.contains("Login Succeeded!") && !seen.contains("s3cret") && !seen.contains("nearly"),
        "{seen}"
    );
    images.creel(&["logout", &registry.host]).output().ok();
    let (code, seen) = ask("s3c\u{3}");
    assert!(code == 1 && seen.contains("interrupted"), "{code} {seen}");
    let (code, seen) = ask("wr0ng\n");
    assert!(code == 1 && seen.contains("401") && !seen.contains("wr0ng"), "{code} {seen}");
}
