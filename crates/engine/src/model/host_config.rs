//! The half of a container that depends on its host. Field names follow Docker's `HostConfig`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use portolan_netcore::model::PortRange;
use portolan_netcore::shared::SharedMap;
use portolan_runtime::Rlimit;
use serde::{Deserialize, Serialize};

use super::ContainerPort;

/// Docker: `HostConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `Binds`: `source:target[:options]` or `volume:target[:options]`, as given.
    pub binds: Vec<String>,
    /// `Mounts`.
    pub mounts: Vec<MountSpec>,
    /// `ContainerIDFile`, kept and shown.
    pub container_id_file: String,
    /// `LogConfig`.
    pub log_config: LogConfig,
    /// `NetworkMode`.
    pub network_mode: NetworkMode,
    /// `PortBindings`.
    #[serde(with = "super::stored_ports::bindings")]
    pub port_bindings: Bindings,
    /// `PublishAllPorts`.
    pub publish_all_ports: bool,
    /// `RestartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `AutoRemove`.
    pub auto_remove: bool,
    /// `VolumeDriver`.
    pub volume_driver: String,
    /// `VolumesFrom`: `container[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// `ConsoleSize`: (rows, columns).
    pub console_size: Option<(u16, u16)>,
    /// `Annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `CapAdd`.
    pub cap_add: Vec<String>,
    /// `CapDrop`.
    pub cap_drop: Vec<String>,
    /// `CgroupnsMode`.
    pub cgroupns_mode: NamespaceSetting,
    /// `Dns`.
    pub dns: Vec<IpAddr>,
    /// `DnsOptions`.
    pub dns_options: Vec<String>,
    /// `DnsSearch`.
    pub dns_search: Vec<String>,
    /// `ExtraHosts`: `name:address` or `name=address`; the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// `GroupAdd`.
    pub group_add: Vec<String>,
    /// `IpcMode`.
    pub ipc_mode: NamespaceSetting,
    /// `Cgroup`, kept and shown.
    pub cgroup: String,
    /// `Links`: `container:alias`.
    pub links: Vec<String>,
    /// `OomScoreAdj`, -1000 to 1000.
    pub oom_score_adj: i32,
    /// `PidMode`.
    pub pid_mode: NamespaceSetting,
    /// `Privileged`.
    pub privileged: bool,
    /// `ReadonlyRootfs`.
    pub readonly_rootfs: bool,
    /// `SecurityOpt`.
    pub security_opt: Vec<String>,
    /// `StorageOpt`; refused if not empty.
    pub storage_opt: BTreeMap<String, String>,
    /// `Tmpfs`: path -> options.
    pub tmpfs: BTreeMap<String, String>,
    /// `UTSMode`.
    pub uts_mode: NamespaceSetting,
    /// `UsernsMode`.
    pub userns_mode: NamespaceSetting,
    /// `ShmSize`, bytes; 0 is 64 MiB.
    pub shm_size_bytes: u64,
    /// `Sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// `Runtime`.
    pub runtime: String,
    /// `Isolation`: empty or `default`.
    pub isolation: String,
    /// `Init`.
    pub init: Option<bool>,
    /// `MaskedPaths`; `None` is Docker's default.
    pub masked_paths: Option<Vec<String>>,
    /// `ReadonlyPaths`; `None` is Docker's default.
    pub readonly_paths: Option<Vec<String>>,
    /// `Devices`.
    pub devices: Vec<DeviceMapping>,
    /// `DeviceCgroupRules`.
    pub device_cgroup_rules: Vec<String>,
    /// `CgroupParent`.
    pub cgroup_parent: String,
    /// `Ulimits`.
    pub ulimits: Vec<Rlimit>,
    /// The limits that `docker update` can change too.
    pub resources: ResourceLimits,
}

/// The fields of Docker's `Resources` that become cgroup settings. 0 and empty are "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// `Memory`, bytes.
    pub memory: i64,
    /// `MemorySwap`, bytes; -1 is unlimited.
    pub memory_swap: i64,
    /// `MemoryReservation`, bytes.
    pub memory_reservation: i64,
    /// `MemorySwappiness`, 0 to 100, refused but for `None` and -1.
    pub memory_swappiness: Option<i64>,
    /// `NanoCpus`, billionths of a CPU.
    pub nano_cpus: i64,
    /// `CpuShares`.
    pub cpu_shares: i64,
    /// `CpuPeriod`, microseconds.
    pub cpu_period: i64,
    /// `CpuQuota`, microseconds.
    pub cpu_quota: i64,
    /// `CpusetCpus`.
    pub cpuset_cpus: String,
    /// `CpusetMems`.
    pub cpuset_mems: String,
    /// `PidsLimit`; `None`, 0 and -1 are unlimited.
    pub pids_limit: Option<i64>,
    /// `BlkioWeight`, 10 to 1000.
    pub blkio_weight: u16,
    /// `OomKillDisable`.
    pub oom_kill_disable: Option<bool>,
}

/// One entry of `Mounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    /// `Type`.
    pub kind: MountType,
    /// `Source`: a host path or a volume's name.
    pub source: String,
    /// `Target`.
    pub target: String,
    /// `ReadOnly`.
    pub read_only: bool,
    /// `Consistency`: kept and shown.
    pub consistency: String,
    /// `BindOptions.Propagation`.
    pub propagation: String,
    /// `BindOptions.NonRecursive`.
    pub non_recursive: bool,
    /// `BindOptions.CreateMountpoint`.
    pub create_mountpoint: bool,
    /// `VolumeOptions.NoCopy`.
    pub no_copy: bool,
    /// `VolumeOptions.Labels`.
    pub volume_labels: BTreeMap<String, String>,
    /// `VolumeOptions.Subpath`.
    pub volume_subpath: String,
    /// `VolumeOptions.DriverConfig.Name`.
    pub volume_driver: String,
    /// `VolumeOptions.DriverConfig.Options`.
    pub volume_driver_opts: BTreeMap<String, String>,
    /// `TmpfsOptions.SizeBytes`.
    pub tmpfs_size_bytes: i64,
    /// `TmpfsOptions.Mode`.
    pub tmpfs_mode: u32,
}

/// `Type` of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the host.
    Bind,
    /// A volume.
    #[default]
    Volume,
    /// A file system in memory.
    Tmpfs,
}

impl MountType {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// `LogConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `Type`: `json-file`, `none`, or empty for the daemon's default.
    pub driver: String,
    /// `Config`.
    pub options: BTreeMap<String, String>,
}

/// `PortBindings`: where a container's ports are to be found on the host.
pub type Bindings = SharedMap<ContainerPort, Vec<HostPort>>;

/// One entry of `PortBindings`: where a container's port is to be found on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// `HostIp`; the network's default if none.
    pub ip: Option<IpAddr>,
    /// `HostPort`, one port or a range; ephemeral if none.
    pub ports: Option<PortRange>,
    /// `From`, an extension: who may use it; everybody if there is none.
    #[serde(default)]
    pub from: Vec<IpNet>,
}

/// One entry of `Devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// `PathOnHost`.
    pub path_on_host: String,
    /// `PathInContainer`.
    pub path_in_container: String,
    /// `CgroupPermissions`.
    pub cgroup_permissions: String,
}

/// `RestartPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// `Name`.
    pub name: RestartPolicyName,
    /// `MaximumRetryCount`, of `on-failure` only; 0 is unlimited.
    pub maximum_retry_count: u32,
}

/// `RestartPolicy.Name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicyName {
    /// Never; the empty name means the same.
    #[default]
    No,
    /// Whenever it ends, and at the daemon's start.
    Always,
    /// As `Always`, but not at the daemon's start if the user had stopped it.
    UnlessStopped,
    /// When it ends with an exit code other than 0.
    OnFailure,
}

impl RestartPolicyName {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure => "on-failure",
        }
    }
}

impl FromStr for RestartPolicyName {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "" | "no" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure),
            _ => Err(InvalidMode(format!(
                "invalid restart policy: unknown policy '{text}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ))),
        }
    }
}

/// `NetworkMode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkMode {
    /// Empty, `default` or `bridge`: the default bridge.
    #[default]
    Bridge,
    /// `none`.
    None,
    /// `host`.
    Host,
    /// `container:<name|id>`; by id once created.
    Container(String),
    /// A user-defined network, by name or id as given.
    Network(String),
}

impl NetworkMode {
    /// The name of the network in `EndpointsConfig`; none for `container:`.
    pub fn network_name(&self) -> Option<&str> {
        match self {
            Self::Bridge => Some("bridge"),
            Self::None => Some("none"),
            Self::Host => Some("host"),
            Self::Network(name) => Some(name),
            Self::Container(_) => None,
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(of) => write!(f, "container:{of}"),
            other => f.write_str(other.network_name().unwrap_or_default()),
        }
    }
}

impl FromStr for NetworkMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "" | "default" | "bridge" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "container" | "container:" => Err(InvalidMode(
                "invalid network mode: invalid container format container:<name|id>".to_owned(),
            )),
            _ => Ok(match text.strip_prefix("container:") {
                Some(of) => Self::Container(of.to_owned()),
                None => Self::Network(text.to_owned()),
            }),
        }
    }
}

impl TryFrom<String> for NetworkMode {
    type Error = InvalidMode;

    fn try_from(text: String) -> Result<Self, InvalidMode> {
        text.parse()
    }
}

impl From<NetworkMode> for String {
    fn from(mode: NetworkMode) -> Self {
        mode.to_string()
    }
}

/// `IpcMode`, `PidMode`, `UTSMode`, `CgroupnsMode`, `UsernsMode`: which values each takes is checked at create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamespaceSetting {
    /// Empty: the engine's default.
    #[default]
    Default,
    /// `private`.
    Private,
    /// `shareable` (IPC only).
    Shareable,
    /// `none` (IPC only).
    None,
    /// `host`.
    Host,
    /// `container:<name|id>`; by id once created.
    Container(String),
}

impl fmt::Display for NamespaceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Private => f.write_str("private"),
            Self::Shareable => f.write_str("shareable"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(of) => write!(f, "container:{of}"),
        }
    }
}

/// The text is no mode of the setting; the message is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMode(pub String);

impl FromStr for NamespaceSetting {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "" => Ok(Self::Default),
            "private" => Ok(Self::Private),
            "shareable" => Ok(Self::Shareable),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => match text.strip_prefix("container:") {
                Some(of) if !of.is_empty() => Ok(Self::Container(of.to_owned())),
                _ => Err(InvalidMode(format!("invalid namespace mode: {text}"))),
            },
        }
    }
}

impl TryFrom<String> for NamespaceSetting {
    type Error = InvalidMode;

    fn try_from(text: String) -> Result<Self, InvalidMode> {
        text.parse()
    }
}

impl From<NamespaceSetting> for String {
    fn from(mode: NamespaceSetting) -> Self {
        mode.to_string()
    }
}
