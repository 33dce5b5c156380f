//! `POST /containers/create`: the part that does not depend on the host.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::fold::deserialize_folded;
use crate::wire::{is_default, is_none_or_empty};
use crate::{Empty, HostConfig, NetworkingConfig, StrSlice};

wire! {
    /// Body of `POST /containers/create` without its two nested parts.
    pub struct ContainerConfig {
        /// Hostname; the short id if empty.
        pub hostname: String,
        /// NIS domain name.
        pub domainname: String,
        /// `user[:group]`; the image's if empty.
        pub user: String,
        /// The client attaches to standard input.
        pub attach_stdin: bool,
        /// The client attaches to standard output.
        pub attach_stdout: bool,
        /// The client attaches to standard error.
        pub attach_stderr: bool,
        /// `80/tcp`.
        #[serde(skip_serializing_if = "is_none_or_empty")]
        pub exposed_ports: Option<BTreeMap<String, Empty>>,
        /// A pseudo-terminal.
        pub tty: bool,
        /// Keep standard input open without a client.
        pub open_stdin: bool,
        /// Close standard input when the first client leaves.
        pub stdin_once: bool,
        /// `KEY=value`; a bare `KEY` removes the image's.
        pub env: Option<Vec<String>>,
        /// Arguments; the image's if none.
        pub cmd: Option<StrSlice>,
        /// How to see whether the container works.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<HealthConfig>,
        /// Windows only.
        #[serde(skip_serializing_if = "is_default")]
        pub args_escaped: bool,
        /// Image as the user gave it.
        pub image: String,
        /// Paths that are anonymous volumes.
        pub volumes: Option<BTreeMap<String, Empty>>,
        /// Working directory.
        pub working_dir: String,
        /// The program; the image's if none, none at all if `[""]`.
        pub entrypoint: Option<StrSlice>,
        /// No networking.
        #[serde(skip_serializing_if = "is_default")]
        pub network_disabled: bool,
        /// Up to v1.43; from v1.44 in `EndpointSettings`.
        #[serde(skip_serializing_if = "is_default")]
        pub mac_address: String,
        /// Instructions for images that are built from it.
        pub on_build: Option<Vec<String>>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Signal of stop; SIGTERM if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub stop_signal: String,
        /// Seconds until stop kills; 10 if none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        /// Shell of the shell form of RUN.
        #[serde(skip_serializing_if = "is_none_or_empty")]
        pub shell: Option<Vec<String>>,
    }

    /// How to see whether a container works.
    pub struct HealthConfig {
        /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", text]`; the image's if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub test: Vec<String>,
        /// Nanoseconds between checks.
        #[serde(skip_serializing_if = "is_default")]
        pub interval: i64,
        /// Nanoseconds that a check may take.
        #[serde(skip_serializing_if = "is_default")]
        pub timeout: i64,
        /// Nanoseconds in which failures do not count.
        #[serde(skip_serializing_if = "is_default")]
        pub start_period: i64,
        /// Nanoseconds between checks in the start period (from v1.44).
        #[serde(skip_serializing_if = "is_default")]
        pub start_interval: i64,
        /// Failures in a row until it is unhealthy.
        #[serde(skip_serializing_if = "is_default")]
        pub retries: i64,
    }

    /// Response of `POST /containers/create`.
    pub struct CreateResponse {
        /// 64 hexadecimal digits.
        pub id: String,
        /// What the user should know.
        pub warnings: Vec<String>,
    }
}

/// Body of `POST /containers/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CreateRequest {
    /// The part that does not depend on the host.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// The part that does; Docker's defaults if none.
    #[serde(rename = "HostConfig")]
    pub host_config: Option<HostConfig>,
    /// Networks to join.
    #[serde(rename = "NetworkingConfig")]
    pub networking_config: Option<NetworkingConfig>,
}

impl<'de> Deserialize<'de> for CreateRequest {
    /// A flattened struct loses the position in error messages; the body is small, so it is read as a tree.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut tree = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
        // Go's decoder takes the names in any case.
        let mut part = |name: &'static str| {
            let key = tree.keys().find(|key| crate::fold::field(key, &[name]) == name).cloned();
            key.and_then(|key| tree.remove(&key)).unwrap_or_default()
        };
        let (host, networking) = (part("HostConfig"), part("NetworkingConfig"));
        Ok(CreateRequest {
            config: deserialize_folded(serde_json::Value::Object(tree)).map_err(Error::custom)?,
            host_config: deserialize_folded(host)
                .map_err(|error| Error::custom(format_args!("HostConfig: {error}")))?,
            networking_config: deserialize_folded(networking)
                .map_err(|error| Error::custom(format_args!("NetworkingConfig: {error}")))?,
        })
    }
}
