//! Containers as they are: all that `inspect` and `ps` show.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_netcore::model::{ContainerId, Endpoint, NetworkId, PortBinding, SandboxId};
use serde::{Deserialize, Serialize};

use super::{ContainerConfig, ContainerPort, EndpointSettings, HostConfig, MountType};

/// Docker's `State.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its first process runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended; the restart policy will start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Its first process exists (Docker's `State.Running`: true for paused and restarting ones too).
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// Docker: `State`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// `Status`.
    pub status: Status,
    /// `Pid` on the host; 0 if not running.
    pub pid: i32,
    /// `ExitCode` of the last run.
    pub exit_code: i32,
    /// `Error` of the last start.
    pub error: String,
    /// `OOMKilled`.
    pub oom_killed: bool,
    /// `StartedAt`.
    pub started_at: Option<Timestamp>,
    /// `FinishedAt`.
    pub finished_at: Option<Timestamp>,
    /// `Health`, if it has a health check.
    pub health: Option<Health>,
}

/// Docker: `Health.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No result that counts yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// As many checks in a row as `Retries` says have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Docker: `Health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `Status`.
    pub status: HealthStatus,
    /// `FailingStreak`.
    pub failing_streak: u32,
    /// `Log`: the last five results, oldest first.
    pub log: Vec<HealthResult>,
}

/// One health check. Docker: `HealthcheckResult`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// `Start`.
    pub start: Timestamp,
    /// `End`.
    pub end: Timestamp,
    /// `ExitCode`; -1 if it could not be run or took too long.
    pub exit_code: i32,
    /// `Output`, at most 4096 bytes.
    pub output: String,
}

/// A mount of a container. Docker: `MountPoint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// `Type`.
    pub kind: MountType,
    /// `Name` of the volume.
    pub name: Option<String>,
    /// `Source` on the host; empty for tmpfs.
    pub source: PathBuf,
    /// `Destination` in the container.
    pub destination: String,
    /// `Driver` of the volume; empty for others.
    pub driver: String,
    /// `Mode`: the options of `-v` as given.
    pub mode: String,
    /// `RW`.
    pub rw: bool,
    /// `Propagation`.
    pub propagation: String,
    /// The volume has no name of the user's: it goes with `rm -v` and `--rm`.
    pub anonymous: bool,
    /// Mount options of a tmpfs.
    pub tmpfs_options: Vec<String>,
    /// Bind: without submounts.
    pub non_recursive: bool,
    /// Volume: do not fill it from the image.
    pub no_copy: bool,
    /// Volume: the directory inside it to mount.
    pub subpath: String,
}

/// Where a container stands in one network: what was asked for, and what it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// The network's name.
    pub network_name: String,
    /// The network is always there, and has no names.
    pub predefined: bool,
    /// The network's id; none if it is gone.
    pub network_id: Option<NetworkId>,
    /// What was asked for.
    pub settings: EndpointSettings,
    /// What it has; none while it does not run.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Names it has in the embedded DNS of a user-defined network.
    pub dns_names: Vec<String>,
}

/// Docker: `NetworkSettings`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSnapshot {
    /// `SandboxID`; none while it does not run or in another's namespace.
    pub sandbox_id: Option<SandboxId>,
    /// `SandboxKey`: path of the namespace.
    pub sandbox_key: Option<PathBuf>,
    /// By network name.
    pub endpoints: Vec<EndpointSnapshot>,
    /// `Ports`: every exposed port and the bindings it has now.
    pub ports: BTreeMap<ContainerPort, Vec<PortBinding>>,
    /// Address of the default bridge endpoint's gateway, for the fields of old.
    pub default_gateway: Option<IpAddr>,
}

/// Everything there is to know about a container.
#[derive(Clone, Debug)]
pub struct ContainerSnapshot {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without a slash.
    pub name: String,
    /// What containers that link to it call it, `linker/alias`; only in lists.
    pub link_names: Vec<String>,
    /// `Created`.
    pub created: Timestamp,
    /// `Path`: what is run.
    pub path: String,
    /// `Args`.
    pub args: Vec<String>,
    /// `State`.
    pub state: ContainerState,
    /// `Image`: the image's id with `sha256:`.
    pub image_id: String,
    /// `Config`, merged with the image's.
    pub config: ContainerConfig,
    /// `HostConfig`.
    pub host_config: HostConfig,
    /// `NetworkSettings`.
    pub network: NetworkSnapshot,
    /// `Mounts`.
    pub mounts: Vec<MountPoint>,
    /// `RestartCount`.
    pub restart_count: u32,
    /// `LogPath`; none with the log driver `none`.
    pub log_path: Option<PathBuf>,
    /// `ResolvConfPath`; none if not made yet.
    pub resolv_conf_path: Option<PathBuf>,
    /// `HostnamePath`.
    pub hostname_path: Option<PathBuf>,
    /// `HostsPath`.
    pub hosts_path: Option<PathBuf>,
    /// `ExecIDs`: execs that run now.
    pub exec_ids: Vec<String>,
    /// `AppArmorProfile`.
    pub apparmor_profile: String,
    /// `GraphDriver.Data`: the overlay's directories, such as `UpperDir`.
    pub graph_driver: BTreeMap<String, String>,
    /// `SizeRw`, bytes; only if asked for.
    pub size_rw: Option<u64>,
    /// `SizeRootFs`, bytes; only if asked for.
    pub size_root_fs: Option<u64>,
}
