//! Registries that ask for credentials: htpasswd's Basic, and tokens.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use creel_registry::credentials::{Login, Secret};

use crate::harness::certs::Authority;
use crate::harness::registry::Registry;
use crate::harness::server::{Heard, Reply, Server, forward};
use crate::harness::token::{REFRESH, SERVICE, Takes, TokenServer};
use crate::harness::{DEADLINE, Home, bytes, digest, push, push_image, read, skip};

fn ann() -> Login {
    Login::from(("ann", "s3cret:x"))
}

fn wrong() -> Login {
    Login::from(("ann", "wr0ng"))
}

fn auth_json(host: &str, user: &str, password: &str) -> String {
    format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn a_registry_with_htpasswd_lets_in_whoever_knows_the_password() {
    let test = "a_registry_with_htpasswd_lets_in_whoever_knows_the_password";
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "ann", "s3cret:x"]).output() else {
        skip(test, "htpasswd is not installed");
        return;
    };
    let home = Home::new();
    home.write("htpasswd", &made.stdout);
    let auth = format!("auth:\n  htpasswd:\n    realm: here\n    path: {}/htpasswd\n", home.path().display());
    let Some(registry) = Registry::start(test, "", &auth) else { return };
    let host = &registry.host;

    let nobody = home.repository(host, "app").manifest("v1").unwrap_err().to_string();
    assert!(nobody.contains("401 unauthorized: authentication required"), "{nobody}");
    assert!(nobody.ends_with(&format!("log in with \"creel login {host}\"")), "{nobody}");

    home.write(".docker/config.json", auth_json(host, "ann", "wr0ng"));
    let refused = home.repository(host, "app").manifest("v1").unwrap_err().to_string();
    let named = format!("{}/.docker/config.json (key \"{host}\")", home.path().display());
    assert!(refused.contains("401") && refused.contains(&named), "{refused}");
    assert!(!refused.contains("wr0ng") && !refused.contains(&STANDARD.encode("ann:wr0ng")), "{refused}");

    let client = home.client();
    let error = client.check_login(host, &wrong()).unwrap_err();
    assert_eq!(error.status(), Some(401));
    client.check_login(host, &ann()).unwrap();
    client.credentials().store(host, &ann()).unwrap();
    let repository = home.repository(host, "app");
    let layer = bytes(100_000);
    push_image(&repository, "v1", &layer);
    assert_eq!(read(&home.repository(host, "app"), &layer).unwrap(), layer);
    assert_eq!(home.pauses(), []);
}

#[test]
fn a_login_serves_skopeo_and_skopeos_serves_creel() {
    let test = "a_login_serves_skopeo_and_skopeos_serves_creel";
    let Some(tokens) = tokens(test, Takes::GetAndPost) else { return };
    let host = &tokens.registry.host;
    let home = Home::new();
    let authfile = home.path().join(".config/containers/auth.json");
    let skopeo = |args: &[&str]| {
        Command::new("skopeo")
            .args(args)
            .env("REGISTRY_AUTH_FILE", &authfile)
            .env("HOME", home.path())
            .output()
    };
    let login = ["login", "--tls-verify=false", "-u", "ann", "-p", "s3cret:x", host.as_str()];
    let Ok(made) = skopeo(&login) else {
        skip(test, "skopeo is not installed");
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    push_image(&home.repository(host, "team/app"), "v1", &bytes(1000));

    std::fs::remove_file(&authfile).unwrap();
    let named =
        Home { variables: vec![("REGISTRY_AUTH_FILE".into(), authfile.to_str().unwrap().into())], ..home };
    named.client().credentials().store(host, &ann()).unwrap();
    let skopeo = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/team/app:v1")])
        .env("REGISTRY_AUTH_FILE", &authfile)
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
    assert_eq!(skopeo.stdout, named.repository(host, "team/app").manifest("v1").unwrap().bytes);
}

struct Tokens {
    authority: Authority,
    server: TokenServer,
    registry: Registry,
}

fn tokens(test: &str, takes: Takes) -> Option<Tokens> {
    let authority = Authority::new(test)?;
    let server = TokenServer::start(&authority, takes);
    let registry = server.registry(test, &authority)?;
    Some(Tokens { authority, server, registry })
}

#[test]
fn every_grant_gives_a_token() {
    let test = "every_grant_gives_a_token";
    for takes in [Takes::GetAndPost, Takes::GetOnly] {
        let Some(tokens) = tokens(test, takes) else { return };
        let host = &tokens.registry.host;
        let heard = &tokens.server.server;
        let layer = bytes(200_000);
        push_image(&Home::with_login(ann()).repository(host, "public/app"), "v1", &layer);
        // One token to push with: every request of the repository has the same scope.
        assert_eq!(tokens.server.granted(), 1);
        let (posts, gets) = if takes == Takes::GetAndPost { (1, 0) } else { (1, 1) };
        assert_eq!((heard.count("POST", "/token"), heard.count("GET", "/token")), (posts, gets));

        let anyone = Home::new();
        let repository = anyone.repository(host, "public/app");
        repository.manifest("v1").unwrap();
        assert_eq!(read(&repository, &layer).unwrap(), layer);
        assert_eq!(heard.count("GET", "/token"), gets + 1);
        let asked = heard.heard().pop().unwrap();
        assert!(asked.header("authorization").is_none());
        assert!(asked.target.contains("scope=repository%3Apublic%2Fapp%3Apull"), "{}", asked.target);

        let identity = Home::with_login(Login::Identity(Secret::new(REFRESH)));
        let read = identity.repository(host, "private/app").manifest("v1");
        let error = read.unwrap_err();
        match takes {
            Takes::GetAndPost => assert!(error.is_not_found(), "{error}"),
            Takes::GetOnly => assert_eq!(error.status(), Some(405), "{error}"),
        }
        identity.client().check_login(host, &ann()).unwrap();
    }
}

#[test]
fn a_refused_credential_is_named_and_nobody_is_told_to_log_in() {
    let test = "a_refused_credential_is_named_and_nobody_is_told_to_log_in";
    for takes in [Takes::GetAndPost, Takes::GetOnly] {
        let Some(tokens) = tokens(test, takes) else { return };
        let host = &tokens.registry.host;
        let home = Home::new();
        let nobody = home.repository(host, "private/app").manifest("v1").unwrap_err().to_string();
        assert!(nobody.contains("401") && nobody.contains("no credential was sent"), "{nobody}");
        home.write(".config/containers/auth.json", auth_json(&format!("{host}/private"), "ann", "wr0ng"));
        let refused = home.repository(host, "private/app").manifest("v1").unwrap_err().to_string();
        let named = format!("auth.json (key \"{host}/private\")");
        assert!(refused.contains("incorrect username or password") && refused.contains(&named), "{refused}");
        assert!(!refused.contains("wr0ng"), "{refused}");
        let error = home.client().check_login(host, &wrong()).unwrap_err();
        assert!(error.to_string().contains("came from this login"), "{error}");
    }
}

#[test]
fn a_mount_asks_for_both_repositories() {
    let Some(tokens) = tokens("a_mount_asks_for_both_repositories", Takes::GetAndPost) else { return };
    let home = Home::with_login(ann());
    let blob = bytes(1000);
    let name = push(&home.repository(&tokens.registry.host, "team/from"), &blob);
    let unread =
        || -> std::io::Result<Box<dyn std::io::Read + Send>> { panic!("a mounted blob is not read") };
    let to = home.repository(&tokens.registry.host, "team/to");
    let upload = creel_registry::Upload::Monolithic;
    let pushed = to.push_blob(&name, 1000, &unread, upload, Some("team/from")).unwrap();
    assert_eq!(pushed, creel_registry::Pushed::Mounted);
    drop(tokens.authority);
}

#[test]
fn threads_share_one_token_and_replace_it_once_when_it_expires() {
    let test = "threads_share_one_token_and_replace_it_once_when_it_expires";
    let Some(tokens) = tokens(test, Takes::GetAndPost) else { return };
    let blobs: Vec<Vec<u8>> = (1..=8).map(|n| bytes(100_000 + n)).collect();
    let pusher = Home::with_login(ann()).repository(&tokens.registry.host, "team/app");
    for blob in &blobs {
        push(&pusher, blob);
    }
    let before = tokens.server.granted();
    // From the sixth request with a token on, the first token is one that the registry does not know.
    let (behind, seen) = (tokens.registry.host.clone(), AtomicUsize::new(0));
    let first: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let server = Server::start(move |heard| {
        let Some(token) = heard.header("authorization").map(str::to_owned) else {
            return forward(&behind, heard);
        };
        let is_first = *first.get_or_init(|| token.clone()) == token;
        let mut heard = heard.clone();
        if is_first && seen.fetch_add(1, Ordering::SeqCst) >= 5 {
            heard.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            heard.headers.push(("Authorization".into(), "Bearer eyJhbGciOiJub25lIn0.e30.".into()));
        }
        forward(&behind, &heard)
    });
    let home = Home::with_login(ann());
    let repository = Arc::new(home.repository(&server.host(), "team/app"));
    let threads: Vec<_> = blobs
        .chunks(2)
        .map(|part| {
            let (part, repository) = (part.to_vec(), repository.clone());
            std::thread::spawn(move || part.iter().all(|blob| read(&repository, blob).as_ref() == Ok(blob)))
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    assert_eq!(tokens.server.granted() - before, 2);
    assert_eq!(home.pauses(), []);
}

#[test]
fn a_late_refusal_of_an_old_token_does_not_cost_a_new_one() {
    let grants = Arc::new(AtomicUsize::new(0));
    let count = grants.clone();
    let tokens = Server::start(move |_| {
        Reply::new(200, format!(r#"{{"token":"t{}"}}"#, count.fetch_add(1, Ordering::SeqCst)))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.host());
    // Of four threads with the first token, each is refused only when the one before has come back with
    // the second.
    let (refused, renewed) = (AtomicUsize::new(0), (Mutex::new(0), Condvar::new()));
    let server = Server::start(move |heard: &Heard| {
        let token = heard.header("authorization");
        if token == Some("Bearer t0") && heard.is("GET", "/manifests/") {
            let before = refused.fetch_add(1, Ordering::SeqCst);
            let (seen, come) = &renewed;
            let waited =
                come.wait_timeout_while(seen.lock().unwrap(), DEADLINE, |seen| *seen < before).unwrap();
            assert!(!waited.1.timed_out());
        } else if token.is_some() {
            *renewed.0.lock().unwrap() += usize::from(heard.is("GET", "/manifests/"));
            renewed.1.notify_all();
            return Reply::new(200, "{}");
        }
        Reply::new(401, "").with("WWW-Authenticate", &challenge)
    });
    let home = Home::new();
    let repository = home.repository(&server.host(), "app");
    repository.ping().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let repository = repository.clone();
            std::thread::spawn(move || repository.manifest("v1").is_ok())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    assert_eq!(grants.load(Ordering::SeqCst), 2);
}

#[test]
fn a_token_that_expires_within_an_upload_starts_it_again() {
    let test = "a_token_that_expires_within_an_upload_starts_it_again";
    let Some(tokens) = tokens(test, Takes::GetAndPost) else { return };
    let (behind, puts) = (tokens.registry.host.clone(), AtomicUsize::new(0));
    let server = Server::start(move |heard| {
        let mut heard = heard.clone();
        if heard.is("PUT", "/uploads/") && puts.fetch_add(1, Ordering::SeqCst) == 0 {
            heard.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        }
        forward(&behind, &heard)
    });
    let home = Home::with_login(ann());
    let blob = bytes(500_000);
    let repository = home.repository(&server.host(), "app");
    push(&repository, &blob);
    assert_eq!(read(&repository, &blob).unwrap(), blob);
    assert_eq!((server.count("PUT", "/uploads/"), home.pauses().len()), (2, 1));
}

#[test]
fn a_token_server_without_tls_gets_no_password_of_a_registry_with_tls() {
    let test = "a_token_server_without_tls_gets_no_password_of_a_registry_with_tls";
    let Some(authority) = Authority::new(test) else { return };
    let (certificate, key) = authority.issue("server", "IP:127.0.0.1");
    let tokens = Server::start(|_| panic!("nothing is asked of it"));
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"{SERVICE}\"", tokens.host());
    let server = Server::start_tls(&certificate, &key, move |_| {
        Reply::new(401, "").with("WWW-Authenticate", &challenge)
    });
    let home = Home::with_login(ann());
    let authority = std::fs::read(authority.certificate()).unwrap();
    home.write(&format!("etc/containers/certs.d/{}/ca.crt", server.host()), authority);
    let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err().to_string();
    assert!(error.contains("a token server without TLS"), "{error}");
    assert!(tokens.heard().is_empty());
}

#[test]
fn basic_without_a_credential_and_unknown_schemes_are_refused_at_once() {
    for challenge in ["Basic realm=\"x\"", "Negotiate", "Bearer service=\"no realm\"", ""] {
        let server = Server::start(move |_| Reply::new(401, "who?").with("WWW-Authenticate", challenge));
        let home = Home::new();
        let error = home.repository(&server.host(), "app").manifest("v1").unwrap_err();
        assert_eq!(error.status(), Some(401), "{challenge}");
        assert_eq!(server.count("GET", "/manifests/"), 1, "{challenge}");
        assert_eq!(home.pauses(), []);
    }
}

#[test]
fn a_token_server_that_is_busy_is_asked_again() {
    let tries = AtomicUsize::new(0);
    let tokens = Server::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        1 => Reply::new(429, "").with("Retry-After", 3),
        _ => Reply::new(200, r#"{"token":"good"}"#),
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.host());
    let server = Server::start(move |heard: &Heard| match heard.header("authorization") {
        Some("Bearer good") => Reply::new(200, "{}"),
        _ => Reply::new(401, "").with("WWW-Authenticate", &challenge),
    });
    let home = Home::new();
    let found = home.repository(&server.host(), "app").manifest("v1").unwrap();
    assert_eq!(found.digest, digest(b"{}"));
    assert_eq!(home.pauses()[1], std::time::Duration::from_secs(3));
}
