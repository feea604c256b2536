//! Certificates by the `openssl` program, in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Authority {
    pub dir: tempfile::TempDir,
}

impl Authority {
    /// A new authority, or nothing, with the reason told, where openssl is missing.
    pub fn new(test: &str) -> Option<Self> {
        Self::try_new().map_err(|why| crate::skip(test, &why)).ok()
    }

    /// A new authority.
    pub fn try_new() -> Result<Self, String> {
        let known =
            Command::new("openssl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if known.is_err() {
            return Err("openssl is not installed".into());
        }
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        authority.make("ca", "CA:TRUE", "DNS:authority.example", None);
        Ok(authority)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A certificate with its key, for names in openssl's form: `IP:127.0.0.1,DNS:a.example`.
    pub fn issue(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        self.make(name, "CA:FALSE", names, Some("ca"));
        (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))
    }

    fn make(&self, name: &str, constraints: &str, names: &str, by: Option<&str>) {
        let config = self.path(&format!("{name}.cnf"));
        let text = format!(
            "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\nCN = {name}\n[ext]\nbasicConstraints = critical,{constraints}\nsubjectAltName = {names}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-sha256"]);
        command.arg("-config").arg(&config);
        command.arg("-keyout").arg(self.path(&format!("{name}.key")));
        command.arg("-out").arg(self.path(&format!("{name}.crt")));
        if let Some(by) = by {
            command.arg("-CA").arg(self.path(&format!("{by}.crt")));
            command.arg("-CAkey").arg(self.path(&format!("{by}.key")));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A signature of RSA with SHA-256.
pub fn sign(key: &Path, text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
