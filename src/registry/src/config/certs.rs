//! Certificates: the system's authorities, and those of `certs.d/HOST[:PORT]` (containers-certs.d(5)).
//!
//! In the first directory of a host that exists, `*.crt` are authorities beside the system's, and a
//! `*.cert` with the `*.key` of the same name is what creel shows of itself.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PrivateKey};

use super::hosts::Files;
use crate::environment::Environment;
use crate::error::Error;

/// Where certificates are.
#[derive(Debug)]
pub(crate) struct Certificates {
    directories: Vec<PathBuf>,
    /// What hosts.toml names, by host.
    named: Mutex<HashMap<String, Files>>,
    provider: Arc<CryptoProvider>,
    system: OnceLock<Result<Vec<Certificate<'static>>, String>>,
}

/// What a host's own directory holds.
#[derive(Default)]
pub(crate) struct HostCertificates {
    pub(crate) authorities: Vec<Certificate<'static>>,
    pub(crate) client: Option<ClientCert>,
}

impl Certificates {
    /// The directories of the user and of the machine below `etc` (`/etc` but in tests).
    pub(crate) fn new(environment: &Environment, etc: &Path) -> Self {
        let user = environment.config_home().map(|dir| dir.join("containers/certs.d"));
        let system = ["containers/certs.d", "docker/certs.d", "containerd/certs.d"].map(|dir| etc.join(dir));
        Self {
            directories: user.into_iter().chain(system).collect(),
            named: Mutex::default(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            system: OnceLock::new(),
        }
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// The directory of a host, named as in a reference.
    pub(crate) fn directory(&self, host: &str) -> Option<PathBuf> {
        self.directories.iter().map(|dir| dir.join(host)).find(|dir| dir.is_dir())
    }

    /// The system's authorities: `SSL_CERT_FILE`, `SSL_CERT_DIR` or the distribution's bundle, read at the
    /// first use.
    pub(crate) fn system(&self) -> Result<&[Certificate<'static>], String> {
        let loaded = self.system.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let cause = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!(
                    "no certificate authorities on this system{cause}; install ca-certificates or set SSL_CERT_FILE"
                ));
            }
            Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
        });
        loaded.as_deref().map_err(Clone::clone)
    }

    /// Takes certificates for a host beside those of its directory.
    pub(crate) fn also(&self, host: &str, files: &Files) {
        if *files != Files::default() {
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            named.insert(host.to_owned(), files.clone());
        }
    }

    /// The authorities and the client's certificate of a host.
    pub(crate) fn of_host(&self, host: &str) -> Result<HostCertificates, Error> {
        let mut found = self.of_directory(host)?;
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        let Files { authorities, client } = named.unwrap_or_default();
        for path in authorities {
            found.add_authorities(&path)?;
        }
        if let Some((certificate, key)) = client {
            found.client = Some(self.client(&certificate, &key)?);
        }
        Ok(found)
    }

    fn of_directory(&self, host: &str) -> Result<HostCertificates, Error> {
        let Some(dir) = self.directory(host) else { return Ok(HostCertificates::default()) };
        let mut found = HostCertificates::default();
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|error| file_error(&dir, error))? {
            names.push(entry.map_err(|error| file_error(&dir, error))?.path());
        }
        names.sort();
        let has = |name: &str| names.iter().any(|path| path.extension().is_some_and(|e| e == name));
        if has("key") && !has("cert") {
            return Err(file_error(&dir, "a *.key without the *.cert of the same name"));
        }
        for path in &names {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.add_authorities(path)?,
                Some("cert") if found.client.is_some() => {
                    return Err(file_error(&dir, "more than one *.cert: which to show is not clear"));
                }
                Some("cert") => found.client = Some(self.client(path, &path.with_extension("key"))?),
                _ => {}
            }
        }
        Ok(found)
    }

    /// A certificate with its key, checked here: ureq takes them unchecked and panics on what rustls
    /// refuses.
    fn client(&self, path: &Path, key_path: &Path) -> Result<ClientCert, Error> {
        let bytes = read(key_path)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| file_error(key_path, "no private key in PEM without a passphrase"))?;
        let chain = certificates(path)?;
        rustls::ClientConfig::builder_with_provider(self.provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_client_auth_cert(chain.clone(), key)
            })
            .map_err(|error| file_error(path, format!("does not go with its key: {error}")))?;
        let key = PrivateKey::from_pem(&bytes).map_err(|error| file_error(key_path, error))?;
        let chain: Vec<Certificate<'static>> =
            chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}

impl HostCertificates {
    fn add_authorities(&mut self, path: &Path) -> Result<(), Error> {
        let found = certificates(path)?;
        self.authorities.extend(found.iter().map(|der| Certificate::from_der(der).to_owned()));
        Ok(())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(file_error(path, "no certificate in PEM")),
        Err(error) => Err(file_error(path, error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            return file_error(path, "not found, but its certificate is there");
        }
        file_error(path, error)
    })
}

fn file_error(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::File { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Certificates;
    use crate::environment::Environment;

    #[test]
    fn mistakes_in_a_hosts_directory_are_named() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("ca.crt", "nothing")], "ca.crt: no certificate in PEM"),
            (&[("a.key", "x")], "a *.key without the *.cert of the same name"),
            (&[("a.cert", "x")], "a.key: not found, but its certificate is there"),
            (&[("a.cert", "x"), ("a.key", "x")], "a.key: no private key in PEM without a passphrase"),
        ];
        for (files, words) in cases {
            let dir = tempfile::tempdir().unwrap();
            let host = dir.path().join("docker/certs.d/a.example:5000");
            std::fs::create_dir_all(&host).unwrap();
            for (name, text) in *files {
                std::fs::write(host.join(name), text).unwrap();
            }
            let environment = Environment::new::<&str, &str>(1000, []);
            let certificates = Certificates::new(&environment, dir.path());
            let error = certificates.of_host("a.example:5000").err().unwrap().to_string();
            assert!(error.starts_with(&*host.to_string_lossy()) && error.ends_with(words), "{error}");
            assert!(certificates.of_host("b.example").unwrap().client.is_none());
        }
    }
}
