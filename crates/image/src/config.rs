//! An image's configuration: Docker's superset of the OCI image configuration, whose bytes name the image.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::digest::DiffId;
use crate::error::{Error, Result};

/// A set written as the keys of an object with empty values (`{"80/tcp":{}}`).
pub type Set = BTreeMap<String, Empty>;

/// The value of a [`Set`]'s key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The whole configuration document. Keys that we do not know are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// GOARCH: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// CPU variant: `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// GOOS: `linux`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system, of Windows images.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What was said at commit or import.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The container it was committed from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Version of the engine that made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// Defaults for containers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The layers, bottom first.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it came to be, oldest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<HistoryEntry>,
    /// Everything else that the document holds.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a container of this image runs unless told otherwise (Docker's `Config`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that the image listens on: `80/tcp`.
    #[serde(skip_serializing_if = "Set::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: Set,
    /// `KEY=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The fixed first part of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The rest of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to see that the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows only: arguments are escaped already.
    #[serde(skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// Paths that want a volume.
    #[serde(skip_serializing_if = "Set::is_empty", deserialize_with = "null_is_default")]
    pub volumes: Set,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Instructions for images that build on this one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds to wait after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Everything else that the document holds.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Docker's `HealthConfig`; times in nanoseconds, 0 means inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", command]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Longest time of one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One line of `docker history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// By which command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It added no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads the document and checks what everything else relies on.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid(format!("invalid image configuration: {error}")))?;
        if config.rootfs.kind != "layers" {
            return Err(Error::invalid(format!(
                "invalid image configuration: unsupported rootfs type {:?}",
                config.rootfs.kind
            )));
        }
        Ok(config)
    }

    /// The bytes that name a new image.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::corrupt(format!("write image configuration: {error}")))
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes empty collections as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read_and_unknown_keys_are_kept() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Labels":null,"Volumes":{"/v":{}},
                "Hostname":"x","Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":null},
                "history":null,"moby.buildkit.cache":"y"}"#,
        )
        .unwrap();
        assert_eq!(config.config.volumes.keys().collect::<Vec<_>>(), ["/v"]);
        let again: Value = serde_json::from_slice(&config.to_bytes().unwrap()).unwrap();
        assert_eq!(again["moby.buildkit.cache"], "y");
        assert_eq!(again["config"]["Hostname"], "x");
    }

    #[test]
    fn contradicting_documents_are_refused() {
        for bad in [
            r#"{"rootfs":{"type":"windows","diff_ids":[]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:zz"]}}"#,
            "[]",
            "",
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
