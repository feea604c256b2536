//! A real `docker-registry` (Debian's package) with its data in a temporary directory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::DEADLINE;

pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`; the port is the system's choice.
    pub host: String,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one with more configuration, or tells why not.
    pub fn start(test: &str, http: &str, auth: &str) -> Option<Self> {
        Self::try_start(http, auth).map_err(|why| crate::skip(test, &why)).ok()
    }

    /// Starts one with more configuration.
    pub fn try_start(http: &str, auth: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let data = dir.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:0\n{http}\n{auth}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else { return Err("docker-registry is not installed".into()) };
        let (tell, told) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Reads to the end, so that the registry never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let host = rest.split(['"', ',', ' ']).next().unwrap_or("").to_owned();
                    // Only the first line is waited for.
                    tell.send(Ok(host)).ok();
                } else if line.contains("level=fatal") || line.contains("level=error") {
                    tell.send(Err(line)).ok();
                }
            }
        });
        let mut registry = Self { child, host: String::new(), dir };
        registry.host = told.recv_timeout(DEADLINE).expect("the registry says where it listens").unwrap();
        Ok(registry)
    }

    /// Without TLS and without asking for credentials.
    pub fn plain(test: &str) -> Option<Self> {
        Self::start(test, "", "")
    }

    /// With TLS, and a certificate asked of clients when an authority for them is given.
    pub fn tls(test: &str, certificate: &Path, key: &Path, clients: Option<&Path>) -> Option<Self> {
        Self::start(test, &Self::tls_section(certificate, key, clients), "")
    }

    /// The part of its configuration that makes it speak TLS.
    pub fn tls_section(certificate: &Path, key: &Path, clients: Option<&Path>) -> String {
        let mut http =
            format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        if let Some(clients) = clients {
            http.push_str(&format!("    clientcas: [{}]\n", clients.display()));
        }
        http
    }

    /// Where it keeps a blob.
    pub fn blob(&self, hex: &str) -> PathBuf {
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// The name of an image in it, as creel and skopeo write it.
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }

    pub fn port(&self) -> u16 {
        self.host.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
