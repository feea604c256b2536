//! What the cases share: servers, certificates, a client that waits for nobody.

pub use creel_test_servers::{DEADLINE, bytes, certs, registry, server, skip, token};

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use creel_image_lib::digest::{Algorithm, Digest, Verified};
use creel_registry::credentials::Login;
use creel_registry::{Blob, Client, Environment, Options, Repository, Retry, Verification};

/// A user with a home, a machine with an `/etc`, and a client of theirs.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub variables: Vec<(String, String)>,
    pub login: Option<Login>,
    pub idle: Duration,
    pub verification: Verification,
    /// What the client would have waited.
    pub pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Home {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
            login: None,
            idle: DEADLINE,
            verification: Verification::Configured,
            pauses: Arc::default(),
        }
    }

    pub fn with_login(login: Login) -> Self {
        Self { login: Some(login), ..Self::new() }
    }

    /// Writes a file below the home.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn client(&self) -> Client {
        self.try_client().unwrap()
    }

    pub fn try_client(&self) -> Result<Client, creel_registry::Error> {
        let home = ("HOME".to_owned(), self.path().to_str().unwrap().to_owned());
        // A user id that no /run/containers of the machine has.
        let environment = Environment::new(4_000_000, self.variables.iter().cloned().chain([home]));
        let pauses = self.pauses.clone();
        let pause = Arc::new(move |wait| pauses.lock().unwrap().push(wait));
        Client::new(Options {
            login: self.login.clone(),
            etc: self.path().join("etc"),
            connect_timeout: DEADLINE,
            idle_timeout: self.idle,
            verification: self.verification,
            retry: Retry { pause, ..Retry::default() },
            ..Options::new(environment)
        })
    }

    pub fn repository(&self, host: &str, name: &str) -> Repository {
        self.client().repository(&format!("{host}/{name}").parse().unwrap()).unwrap()
    }

    pub fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().unwrap().clone()
    }
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Reads a blob to its end and checks its digest.
pub fn read(repository: &Repository, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let size = bytes.len() as u64;
    let blob = repository.blob(&digest(bytes), size, 0).map_err(|error| error.to_string())?;
    read_to_end(Verified::new(blob, digest(bytes), size))
}

pub fn read_to_end(mut reader: impl Read) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    reader.read_to_end(&mut read).map_err(|error| error.to_string())?;
    Ok(read)
}

/// Pushes bytes that are in memory.
pub fn push(repository: &Repository, bytes: &[u8]) -> Digest {
    let owned = bytes.to_vec();
    let source = move || -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::Cursor::new(owned.clone())))
    };
    let upload = creel_registry::Upload::Monolithic;
    repository.push_blob(&digest(bytes), bytes.len() as u64, &source, upload, None).unwrap();
    digest(bytes)
}

/// A manifest of one layer, whose configuration is the empty document.
pub fn push_image(repository: &Repository, tag: &str, layer: &[u8]) -> Digest {
    push(repository, b"{}");
    push(repository, layer);
    let manifest = manifest(layer, "");
    repository.push_manifest(tag, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes()).unwrap()
}

/// The manifest of [`push_image`], with more fields.
pub fn manifest(layer: &[u8], more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",{more}"config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        digest(b"{}"),
        digest(layer),
        layer.len()
    )
}

/// The error of a blob that could not be opened.
pub fn blob_error(found: Result<Blob, creel_registry::Error>) -> String {
    match found {
        Ok(_) => panic!("the blob was opened"),
        Err(error) => error.to_string(),
    }
}
