//! The image configuration (image-spec config.md), as far as it is run and shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::descriptor::or_default;
use crate::digest::{Digest, Hasher};
use crate::platform::Platform;

/// An image configuration. Fields that are null are as if absent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// GOARCH.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// GOOS.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of Windows.
    #[serde(rename = "os.version")]
    pub os_version: Option<String>,
    /// Features of Windows.
    #[serde(rename = "os.features", default, deserialize_with = "or_default")]
    pub os_features: Vec<String>,
    /// Who made the image.
    pub author: Option<String>,
    /// When, by RFC 3339.
    pub created: Option<String>,
    /// How a container is to run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
}

/// `rootfs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// `layers`, always.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// `config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user`, `uid`, `user:group` and the mixtures of them.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Ports that the image serves, `80/tcp`.
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The start of the command line.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The rest of the command line.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Directories for data of their own.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Directory of the process.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to end.
    pub stop_signal: Option<String>,
}

impl ContainerConfig {
    /// The paths of `Volumes`, absolute and without `.` and `..`, as Docker reads them.
    pub fn volume_paths(&self) -> BTreeSet<String> {
        let clean = |path: &String| {
            let mut parts: Vec<&str> = Vec::new();
            for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
                if part == ".." {
                    parts.pop();
                } else {
                    parts.push(part);
                }
            }
            format!("/{}", parts.join("/"))
        };
        self.volumes.keys().map(clean).filter(|path| path != "/").collect()
    }
}

/// Why a configuration is not that of an image that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// Not JSON, or a field has the wrong shape.
    Malformed(String),
    /// `rootfs.type`.
    RootFsType(String),
    /// It names another number of layers than the manifest.
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::Malformed(why) => write!(f, "image configuration: {why}"),
            ConfigError::RootFsType(kind) => {
                write!(f, "image configuration: .rootfs.type is {kind:?}, not \"layers\"")
            }
            ConfigError::LayerCount { layers, diff_ids } => {
                write!(f, "the manifest has {layers} layers, the image's configuration names {diff_ids}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, ConfigError> {
        let config: ImageConfig =
            serde_json::from_slice(bytes).map_err(|error| ConfigError::Malformed(error.to_string()))?;
        if config.rootfs.kind == "layers" {
            Ok(config)
        } else {
            Err(ConfigError::RootFsType(config.rootfs.kind))
        }
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The chain ids of layers, lowest first (image-spec config.md, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let mut hasher = Hasher::new(crate::digest::Algorithm::Sha256);
                hasher.update(format!("{below} {diff_id}").as_bytes());
                hasher.finish()
            }
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn nulls_are_absent_and_the_type_is_layers() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Volumes":null,"Cmd":["sh"],
            "ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.platform().to_string(), "linux/amd64");
        let other = text.replace("\"layers\"", "\"blobs\"");
        assert!(matches!(ImageConfig::parse(other.as_bytes()), Err(ConfigError::RootFsType(_))));
        assert!(matches!(ImageConfig::parse(b"{}"), Err(ConfigError::Malformed(_))));
    }

    #[test]
    fn volumes_are_clean_paths() {
        let keys = ["/data/", "data", "/a/../b/./c", "/", "../x"];
        let volumes = keys.map(|key| (key.to_string(), serde_json::json!({}))).into();
        let config = ContainerConfig { volumes, ..ContainerConfig::default() };
        assert_eq!(config.volume_paths().into_iter().collect::<Vec<_>>(), ["/b/c", "/data", "/x"]);
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids = ["a", "b"].map(|text| Digest::of(crate::digest::Algorithm::Sha256, text.as_bytes()));
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        let both = format!("{} {}", ids[0], ids[1]);
        assert_eq!(chain[1], Digest::of(crate::digest::Algorithm::Sha256, both.as_bytes()));
    }
}
