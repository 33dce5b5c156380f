//! What a container was asked to be. Field names follow Docker's `Config` (`POST /containers/create`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use portolan_netcore::model::{MacAddr, Proto};
use portolan_netcore::shared::SharedSet;
use serde::{Deserialize, Serialize};

use super::HostConfig;

/// The portable half of a container. Docker: `Config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// `Hostname`; the short id if empty.
    pub hostname: String,
    /// `Domainname`.
    pub domainname: String,
    /// `User`: `user[:group]`, names or numbers.
    pub user: String,
    /// `AttachStdin`.
    pub attach_stdin: bool,
    /// `AttachStdout`.
    pub attach_stdout: bool,
    /// `AttachStderr`.
    pub attach_stderr: bool,
    /// `ExposedPorts`.
    #[serde(with = "super::stored_ports::exposed")]
    pub exposed_ports: SharedSet<ContainerPort>,
    /// `Tty`.
    pub tty: bool,
    /// `OpenStdin`.
    pub open_stdin: bool,
    /// `StdinOnce`.
    pub stdin_once: bool,
    /// `Env`: `KEY=value`; `KEY` alone removes the image's variable.
    pub env: Vec<String>,
    /// `Cmd`; `None` takes the image's.
    pub cmd: Option<Vec<String>>,
    /// `Entrypoint`; `None` takes the image's, an empty list or `[""]` means none.
    pub entrypoint: Option<Vec<String>>,
    /// `Image`, as given.
    pub image: String,
    /// `Volumes`: paths for anonymous volumes.
    pub volumes: BTreeSet<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `StopSignal`: a name or a number; SIGTERM if none.
    pub stop_signal: Option<String>,
    /// `StopTimeout`, seconds; 10 if none, -1 waits for ever.
    pub stop_timeout: Option<i64>,
    /// `Healthcheck`; `None` takes the image's.
    pub healthcheck: Option<HealthConfig>,
    /// `NetworkDisabled`.
    pub network_disabled: bool,
    /// `Shell`.
    pub shell: Option<Vec<String>>,
    /// `OnBuild`, kept and shown.
    pub on_build: Option<Vec<String>>,
    /// `MacAddress` of API versions before 1.44, for the network of `NetworkMode`.
    pub mac_address: Option<MacAddr>,
}

/// `Healthcheck`. Times in nanoseconds; 0 takes the default (30 s, 30 s, 0 s, 5 s).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    /// Empty: inherit; `["NONE"]`; `["CMD", args...]`; `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval_ns: i64,
    /// After which a check has failed.
    pub timeout_ns: i64,
    /// Failures in this time from the start do not count.
    pub start_period_ns: i64,
    /// Between two checks in the start period.
    pub start_interval_ns: i64,
    /// Failures in a row that make the container unhealthy; 0 is 3.
    pub retries: u32,
}

/// A port of a container, `80/tcp` in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub proto: Proto,
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.proto)
    }
}

/// The text is not a port such as `80/tcp`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid port specification: {0:?}")]
pub struct InvalidPort(pub String);

impl FromStr for ContainerPort {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let invalid = || InvalidPort(text.to_owned());
        let (port, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        let port = port.parse().map_err(|_| invalid())?;
        Ok(Self { port, proto: proto.parse().map_err(|_| invalid())? })
    }
}

impl TryFrom<String> for ContainerPort {
    type Error = InvalidPort;

    fn try_from(text: String) -> Result<Self, InvalidPort> {
        text.parse()
    }
}

impl From<ContainerPort> for String {
    fn from(port: ContainerPort) -> Self {
        port.to_string()
    }
}

/// How a container joins one network. Docker: `EndpointSettings`, the part that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    /// `IPAMConfig.IPv4Address`.
    pub ipv4: Option<Ipv4Addr>,
    /// `IPAMConfig.IPv6Address`.
    pub ipv6: Option<Ipv6Addr>,
    /// `IPAMConfig.LinkLocalIPs`.
    pub link_local_ips: Vec<IpAddr>,
    /// `Links`: `container:alias` or `container`.
    pub links: Vec<String>,
    /// `Aliases`.
    pub aliases: Vec<String>,
    /// `MacAddress`.
    pub mac: Option<MacAddr>,
    /// `DriverOpts`.
    pub driver_opts: BTreeMap<String, String>,
    /// `GwPriority`.
    pub gw_priority: i64,
}

/// `NetworkingConfig.EndpointsConfig`: by the network's name or id, as given.
pub type EndpointsConfig = BTreeMap<String, EndpointSettings>;

/// `POST /containers/create`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// `?name=`, with or without a slash; one is made up if none.
    pub name: Option<String>,
    /// `?platform=`, kept for the check against the image.
    pub platform: Option<String>,
    /// `Config`.
    pub config: ContainerConfig,
    /// `HostConfig`.
    pub host_config: HostConfig,
    /// `NetworkingConfig.EndpointsConfig`.
    pub endpoints: EndpointsConfig,
    /// The names of `endpoints` in the order of their interfaces; those left out come last, by name.
    pub endpoint_order: Vec<String>,
}

/// Answer of `POST /containers/create`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
    /// For the user to read.
    pub warnings: Vec<String>,
}
