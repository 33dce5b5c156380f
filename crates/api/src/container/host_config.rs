//! The part of a container that depends on the host.

use std::collections::BTreeMap;

use crate::wire::{is_default, is_none_or_empty};
use crate::{Mount, StrSlice};

/// Ports of the container (`80/tcp`) and where they are published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Body of `POST /containers/{id}/update`: of [`HostConfig`] only the limits and the restart policy count.
pub type UpdateConfig = HostConfig;

wire! {
    /// The part of a container that depends on the host.
    pub struct HostConfig {
        /// `source:target[:options]`.
        pub binds: Option<Vec<String>>,
        /// File that the client writes the id to.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Where output is kept.
        pub log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:<name|id>` or a network.
        pub network_mode: String,
        /// Ports to publish.
        pub port_bindings: Option<PortMap>,
        /// What happens when it ends.
        pub restart_policy: RestartPolicy,
        /// Remove it when it ends.
        pub auto_remove: bool,
        /// Driver of the volumes of `Binds`.
        pub volume_driver: String,
        /// `container[:ro]`.
        pub volumes_from: Option<Vec<String>>,
        /// First size of the terminal: height, width.
        pub console_size: [u16; 2],
        /// Metadata for the runtime.
        #[serde(skip_serializing_if = "is_default")]
        pub annotations: BTreeMap<String, String>,
        /// Capabilities beyond the default ones.
        pub cap_add: Option<StrSlice>,
        /// Capabilities taken away.
        pub cap_drop: Option<StrSlice>,
        /// `private`, `host` or empty.
        pub cgroupns_mode: String,
        /// Resolvers.
        pub dns: Option<Vec<String>>,
        /// Options of the resolver.
        pub dns_options: Option<Vec<String>>,
        /// Search domains.
        pub dns_search: Option<Vec<String>>,
        /// `name:address` for /etc/hosts.
        pub extra_hosts: Option<Vec<String>>,
        /// More groups.
        pub group_add: Option<Vec<String>>,
        /// `none`, `private`, `shareable`, `host`, `container:<name|id>` or empty.
        pub ipc_mode: String,
        /// `container:<name|id>` or empty.
        pub cgroup: String,
        /// `container:alias`.
        pub links: Option<Vec<String>>,
        /// -1000 to 1000.
        pub oom_score_adj: i64,
        /// `host`, `container:<name|id>` or empty.
        pub pid_mode: String,
        /// Full access.
        pub privileged: bool,
        /// Publish all exposed ports.
        pub publish_all_ports: bool,
        /// The root file system is read-only.
        pub readonly_rootfs: bool,
        /// `seccomp=...`, `apparmor=...`, `no-new-privileges`, ...
        pub security_opt: Option<Vec<String>>,
        /// Options of the storage driver.
        #[serde(skip_serializing_if = "is_default")]
        pub storage_opt: BTreeMap<String, String>,
        /// File systems in memory: options by path.
        #[serde(skip_serializing_if = "is_default")]
        pub tmpfs: BTreeMap<String, String>,
        /// `host` or empty.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// `host` or empty.
        pub userns_mode: String,
        /// Size of /dev/shm, bytes; 64 MiB if 0.
        pub shm_size: i64,
        /// Sysctls.
        #[serde(skip_serializing_if = "is_default")]
        pub sysctls: BTreeMap<String, String>,
        /// OCI runtime; the daemon's default if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub runtime: String,
        /// Windows only.
        pub isolation: String,
        /// Relative weight.
        pub cpu_shares: i64,
        /// Bytes of memory.
        pub memory: i64,
        /// Billionths of a CPU.
        pub nano_cpus: i64,
        /// Parent of the cgroup.
        pub cgroup_parent: String,
        /// 10 to 1000, or 0.
        pub blkio_weight: u16,
        /// Weight by device.
        pub blkio_weight_device: Option<Vec<WeightDevice>>,
        /// Bytes read a second by device.
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        /// Bytes written a second by device.
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        /// Reads a second by device.
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        /// Writes a second by device.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// CFS period, microseconds.
        pub cpu_period: i64,
        /// CFS quota, microseconds.
        pub cpu_quota: i64,
        /// Real-time period, microseconds.
        pub cpu_realtime_period: i64,
        /// Real-time runtime, microseconds.
        pub cpu_realtime_runtime: i64,
        /// CPUs: `0-2,4`.
        pub cpuset_cpus: String,
        /// Memory nodes: `0-1`.
        pub cpuset_mems: String,
        /// Devices.
        pub devices: Option<Vec<DeviceMapping>>,
        /// `c 42:* rmw`.
        pub device_cgroup_rules: Option<Vec<String>>,
        /// Devices by driver (`--gpus`).
        pub device_requests: Option<Vec<DeviceRequest>>,
        /// Gone from the kernel.
        #[serde(skip_serializing_if = "is_default")]
        pub kernel_memory: i64,
        /// Bytes, cgroup v1 only.
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
        pub kernel_memory_tcp: i64,
        /// Soft limit, bytes.
        pub memory_reservation: i64,
        /// Bytes of memory and swap; -1 unlimited.
        pub memory_swap: i64,
        /// 0 to 100, cgroup v1 only.
        pub memory_swappiness: Option<i64>,
        /// Do not kill on out of memory.
        pub oom_kill_disable: Option<bool>,
        /// Processes; 0 and -1 unlimited, none: do not change.
        pub pids_limit: Option<i64>,
        /// `RLIMIT_*`.
        pub ulimits: Option<Vec<Ulimit>>,
        /// Windows only.
        pub cpu_count: i64,
        /// Windows only.
        pub cpu_percent: i64,
        /// Windows only.
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        /// Windows only.
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
        /// `--mount`.
        #[serde(skip_serializing_if = "is_none_or_empty")]
        pub mounts: Option<Vec<Mount>>,
        /// Paths that are hidden; the default ones if none.
        pub masked_paths: Option<Vec<String>>,
        /// Paths that are read-only; the default ones if none.
        pub readonly_paths: Option<Vec<String>>,
        /// Run an init as pid 1; the daemon's default if none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }

    /// Where output is kept.
    pub struct LogConfig {
        /// Log driver; the daemon's default if empty.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Its options.
        pub config: Option<BTreeMap<String, String>>,
    }

    /// Where a port is published. A misspelt `From` must not leave it open to everybody.
    #[serde(deny_unknown_fields)]
    pub struct PortBinding {
        /// Address of the host; all if empty.
        pub host_ip: String,
        /// Port or range of the host; ephemeral if empty.
        pub host_port: String,
        /// Extension: networks whose addresses may use it (`10.0.0.0/8`); everybody if there is none.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub from: Vec<String>,
    }

    /// What happens when a container ends.
    pub struct RestartPolicy {
        /// `no` or empty, `always`, `on-failure`, `unless-stopped`.
        pub name: String,
        /// For `on-failure`; 0 is without end.
        pub maximum_retry_count: i64,
    }

    /// A device.
    pub struct DeviceMapping {
        /// Path on the host.
        pub path_on_host: String,
        /// Path inside.
        pub path_in_container: String,
        /// Any of `r`, `w`, `m`.
        pub cgroup_permissions: String,
    }

    /// Devices by driver.
    pub struct DeviceRequest {
        /// Driver.
        pub driver: String,
        /// How many; -1 all.
        pub count: i64,
        /// Which.
        #[serde(rename = "DeviceIDs")]
        pub device_ids: Option<Vec<String>>,
        /// Any of lists of which all must match.
        pub capabilities: Option<Vec<Vec<String>>>,
        /// Options of the driver.
        pub options: Option<BTreeMap<String, String>>,
    }

    /// One `--ulimit`.
    pub struct Ulimit {
        /// `nofile`, ...
        pub name: String,
        /// Hard limit; -1 unlimited.
        pub hard: i64,
        /// Soft limit; -1 unlimited.
        pub soft: i64,
    }

    /// Weight of a block device.
    pub struct WeightDevice {
        /// Path on the host.
        pub path: String,
        /// 10 to 1000.
        pub weight: u16,
    }

    /// Rate of a block device.
    pub struct ThrottleDevice {
        /// Path on the host.
        pub path: String,
        /// Bytes or operations a second.
        pub rate: u64,
    }
}
