//! `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use crate::{Address, ContainerConfig, EndpointSettings, GraphDriver, HostConfig, MountPoint, PortMap};

wire! {
    /// `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        /// 64 hexadecimal digits.
        pub id: String,
        /// RFC 3339 with nanoseconds.
        pub created: String,
        /// The program.
        pub path: String,
        /// Its arguments.
        pub args: Vec<String>,
        /// How it is.
        pub state: ContainerState,
        /// Id of its image.
        pub image: String,
        /// The host's file behind /etc/resolv.conf.
        pub resolv_conf_path: String,
        /// The host's file behind /etc/hostname.
        pub hostname_path: String,
        /// The host's file behind /etc/hosts.
        pub hosts_path: String,
        /// The json-file log.
        pub log_path: String,
        /// `/` and the name.
        pub name: String,
        /// How often the restart policy started it.
        pub restart_count: i64,
        /// Storage driver.
        pub driver: String,
        /// `linux`.
        pub platform: String,
        /// SELinux.
        pub mount_label: String,
        /// SELinux.
        pub process_label: String,
        /// AppArmor.
        pub app_armor_profile: String,
        /// Execs that run.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        /// The part that depends on the host.
        pub host_config: HostConfig,
        /// Where its layers are.
        pub graph_driver: GraphDriver,
        /// Bytes of its own layer, with `size=1`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes of all layers, with `size=1`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
        /// The part that does not depend on the host.
        pub config: ContainerConfig,
        /// Its networks.
        pub network_settings: NetworkSettings,
    }

    /// How a container is.
    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        pub status: String,
        /// Runs (also while paused).
        pub running: bool,
        /// Is paused.
        pub paused: bool,
        /// Waits for its restart.
        pub restarting: bool,
        /// A process was killed for want of memory.
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        /// Could not be removed.
        pub dead: bool,
        /// Process id on the host; 0 if it does not run.
        pub pid: i64,
        /// Exit code of the last run.
        pub exit_code: i64,
        /// Why it did not start.
        pub error: String,
        /// RFC 3339 with nanoseconds; the year 1 if never.
        pub started_at: String,
        /// RFC 3339 with nanoseconds; the year 1 if never.
        pub finished_at: String,
        /// If it has a health check.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub health: Option<Health>,
    }

    /// Health of a container.
    pub struct Health {
        /// `starting`, `healthy`, `unhealthy`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
        /// The last results, oldest first.
        pub log: Option<Vec<HealthResult>>,
    }

    /// Result of one check.
    pub struct HealthResult {
        /// RFC 3339 with nanoseconds.
        pub start: String,
        /// RFC 3339 with nanoseconds.
        pub end: String,
        /// 0 healthy, 1 unhealthy.
        pub exit_code: i64,
        /// What it printed.
        pub output: String,
    }

    /// Networks of a container. The fields from `endpoint_id` to `mac_address` are those of the default bridge.
    pub struct NetworkSettings {
        /// Empty.
        pub bridge: String,
        /// 64 hexadecimal digits.
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// Path of the network namespace.
        pub sandbox_key: String,
        /// Ports exposed and published.
        pub ports: PortMap,
        /// False.
        pub hairpin_mode: bool,
        /// Empty.
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        /// 0.
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: u8,
        /// `null`.
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<Address>>,
        /// `null`.
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<Address>>,
        /// The endpoint's id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Default gateway.
        pub gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Prefix length of the IPv6 subnet.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: u8,
        /// Address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Prefix length of the subnet.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: u8,
        /// Default IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// MAC address.
        pub mac_address: String,
        /// Endpoints by network name.
        pub networks: BTreeMap<String, Option<EndpointSettings>>,
    }
}
