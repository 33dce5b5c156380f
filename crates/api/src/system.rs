//! `GET /version`, `GET /info`, `GET /system/df`, `POST /auth`.

use std::collections::BTreeMap;

use crate::wire::is_default;
use crate::{ContainerSummary, ImageSummary, Volume};

wire! {
    /// `GET /version`.
    pub struct Version {
        /// The product.
        pub platform: Platform,
        /// The engine and its parts.
        pub components: Vec<ComponentVersion>,
        /// Version of the engine.
        pub version: String,
        /// Newest API version.
        pub api_version: String,
        /// Oldest API version.
        #[serde(rename = "MinAPIVersion", skip_serializing_if = "is_default")]
        pub min_api_version: String,
        /// Commit.
        pub git_commit: String,
        /// Version of the compiler; Docker's is Go.
        pub go_version: String,
        /// `linux`.
        pub os: String,
        /// `amd64`, ...
        pub arch: String,
        /// Of `uname`.
        #[serde(skip_serializing_if = "is_default")]
        pub kernel_version: String,
        /// Experimental features are on.
        #[serde(skip_serializing_if = "is_default")]
        pub experimental: bool,
        /// RFC 3339.
        #[serde(skip_serializing_if = "is_default")]
        pub build_time: String,
    }

    /// Name of the product.
    pub struct Platform {
        /// Name.
        pub name: String,
    }

    /// A part of the engine.
    pub struct ComponentVersion {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// More.
        #[serde(skip_serializing_if = "is_default")]
        pub details: BTreeMap<String, String>,
    }

    /// `GET /info`.
    pub struct SystemInfo {
        /// Stays the same for the life of the data root.
        #[serde(rename = "ID")]
        pub id: String,
        /// All containers.
        pub containers: i64,
        /// Those that run.
        pub containers_running: i64,
        /// Those that are paused.
        pub containers_paused: i64,
        /// Those that do not run.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Storage driver.
        pub driver: String,
        /// Rows about the storage driver.
        pub driver_status: Vec<[String; 2]>,
        /// Drivers by kind.
        pub plugins: PluginsInfo,
        /// Memory can be limited.
        pub memory_limit: bool,
        /// Swap can be limited.
        pub swap_limit: bool,
        /// Kernel memory for TCP can be limited (cgroup v1).
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
        pub kernel_memory_tcp: bool,
        /// CFS period can be set.
        pub cpu_cfs_period: bool,
        /// CFS quota can be set.
        pub cpu_cfs_quota: bool,
        /// Shares can be set.
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        /// Cpusets can be set.
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        /// Number of processes can be limited.
        pub pids_limit: bool,
        /// `net.ipv4.ip_forward`.
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        /// Up to v1.49.
        #[serde(rename = "BridgeNfIptables", skip_serializing_if = "Option::is_none")]
        pub bridge_nf_iptables: Option<bool>,
        /// Up to v1.49.
        #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
        pub bridge_nf_ip6tables: Option<bool>,
        /// The daemon runs with `--debug`.
        pub debug: bool,
        /// Open files of the daemon.
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        /// The out-of-memory killer can be disabled.
        pub oom_kill_disable: bool,
        /// Go's coroutines; here tasks.
        #[serde(rename = "NGoroutines")]
        pub n_goroutines: i64,
        /// RFC 3339 with nanoseconds.
        pub system_time: String,
        /// Default log driver.
        pub logging_driver: String,
        /// `cgroupfs` or `systemd`.
        pub cgroup_driver: String,
        /// `1` or `2`.
        #[serde(skip_serializing_if = "is_default")]
        pub cgroup_version: String,
        /// Clients that listen to events.
        #[serde(rename = "NEventsListener")]
        pub n_events_listener: i64,
        /// Of `uname`.
        pub kernel_version: String,
        /// Of /etc/os-release.
        pub operating_system: String,
        /// Of /etc/os-release.
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        /// `linux`.
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// `x86_64`, ... as `uname -m`.
        pub architecture: String,
        /// Default registry.
        pub index_server_address: String,
        /// Registries.
        pub registry_config: Option<RegistryServiceConfig>,
        /// CPUs.
        #[serde(rename = "NCPU")]
        pub ncpu: i64,
        /// Bytes of memory.
        pub mem_total: i64,
        /// Of swarm.
        pub generic_resources: Option<Vec<serde_json::Value>>,
        /// Data root.
        pub docker_root_dir: String,
        /// Proxy.
        pub http_proxy: String,
        /// Proxy.
        pub https_proxy: String,
        /// Hosts without a proxy.
        pub no_proxy: String,
        /// Hostname.
        pub name: String,
        /// The daemon's labels.
        pub labels: Vec<String>,
        /// Experimental features are on.
        pub experimental_build: bool,
        /// Version of the engine.
        pub server_version: String,
        /// OCI runtimes by name.
        pub runtimes: BTreeMap<String, RuntimeInfo>,
        /// Name of one of them.
        pub default_runtime: String,
        /// Inactive.
        pub swarm: SwarmInfo,
        /// Containers outlive the daemon.
        pub live_restore_enabled: bool,
        /// Windows only.
        pub isolation: String,
        /// Name of the init of `--init`.
        pub init_binary: String,
        /// Commit of containerd.
        pub containerd_commit: Commit,
        /// Commit of runc.
        pub runc_commit: Commit,
        /// Commit of the init.
        pub init_commit: Commit,
        /// `name=seccomp,profile=builtin`, ...
        pub security_options: Vec<String>,
        /// Pools of subnets.
        #[serde(skip_serializing_if = "is_default")]
        pub default_address_pools: Vec<NetworkAddressPool>,
        /// From v1.49.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub firewall_backend: Option<FirewallInfo>,
        /// Directories of CDI specs.
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Option<Vec<String>>,
        /// What is not as it should be.
        pub warnings: Option<Vec<String>>,
    }

    /// Drivers by kind.
    pub struct PluginsInfo {
        /// Volume drivers.
        pub volume: Vec<String>,
        /// Network drivers.
        pub network: Vec<String>,
        /// Authorisation plugins.
        pub authorization: Option<Vec<String>>,
        /// Log drivers.
        pub log: Vec<String>,
    }

    /// An OCI runtime.
    pub struct RuntimeInfo {
        /// Binary.
        #[serde(rename = "path", skip_serializing_if = "is_default")]
        pub path: String,
        /// Arguments.
        #[serde(rename = "runtimeArgs", skip_serializing_if = "is_default")]
        pub args: Vec<String>,
        /// What `features` says.
        #[serde(rename = "status", skip_serializing_if = "is_default")]
        pub status: BTreeMap<String, String>,
    }

    /// Swarm: never active here.
    pub struct SwarmInfo {
        /// Empty.
        #[serde(rename = "NodeID")]
        pub node_id: String,
        /// Empty.
        pub node_addr: String,
        /// `inactive`.
        pub local_node_state: String,
        /// False.
        pub control_available: bool,
        /// Empty.
        pub error: String,
        /// `null`.
        pub remote_managers: Option<Vec<serde_json::Value>>,
    }

    /// A commit.
    pub struct Commit {
        /// Hash or version.
        #[serde(rename = "ID")]
        pub id: String,
        /// Up to v1.48.
        #[serde(skip_serializing_if = "is_default")]
        pub expected: String,
    }

    /// A pool of subnets.
    pub struct NetworkAddressPool {
        /// CIDR.
        pub base: String,
        /// Prefix length of each network.
        pub size: i64,
    }

    /// The firewall backend.
    pub struct FirewallInfo {
        /// `nftables` or `iptables`.
        pub driver: String,
        /// Rows about it.
        #[serde(skip_serializing_if = "is_default")]
        pub info: Vec<[String; 2]>,
    }

    /// Registries.
    pub struct RegistryServiceConfig {
        /// Subnets whose registries need no TLS.
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        /// By name.
        pub index_configs: BTreeMap<String, IndexInfo>,
        /// Mirrors of the default registry.
        pub mirrors: Option<Vec<String>>,
    }

    /// A registry.
    pub struct IndexInfo {
        /// Host name.
        pub name: String,
        /// URLs.
        pub mirrors: Vec<String>,
        /// TLS is required.
        pub secure: bool,
        /// The default registry.
        pub official: bool,
    }

    /// `GET /system/df`; a part that was not asked for is `null`.
    pub struct DiskUsage {
        /// Bytes of all layers.
        pub layers_size: i64,
        /// Images.
        pub images: Option<Vec<ImageSummary>>,
        /// Containers.
        pub containers: Option<Vec<ContainerSummary>>,
        /// Volumes.
        pub volumes: Option<Vec<Volume>>,
        /// Build cache.
        pub build_cache: Option<Vec<BuildCacheRecord>>,
    }

    /// An item of the build cache.
    pub struct BuildCacheRecord {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Kind.
        #[serde(rename = "Type")]
        pub kind: String,
        /// In words.
        pub description: String,
        /// In use.
        pub in_use: bool,
        /// Shared.
        pub shared: bool,
        /// Bytes.
        pub size: i64,
    }

    /// Body of `POST /auth`, and of the `X-Registry-Auth` header (base64).
    pub struct AuthConfig {
        /// User.
        #[serde(rename = "username", skip_serializing_if = "is_default")]
        pub username: String,
        /// Password.
        #[serde(rename = "password", skip_serializing_if = "is_default")]
        pub password: String,
        /// Registry.
        #[serde(rename = "serveraddress", skip_serializing_if = "is_default")]
        pub server_address: String,
        /// Token instead of a password.
        #[serde(rename = "identitytoken", skip_serializing_if = "is_default")]
        pub identity_token: String,
        /// Bearer token, sent to the registry as it is.
        #[serde(rename = "registrytoken", skip_serializing_if = "is_default")]
        pub registry_token: String,
    }

    /// Response of `POST /auth`.
    pub struct AuthResponse {
        /// Token to be used instead of the password.
        pub identity_token: String,
        /// `Login Succeeded`.
        pub status: String,
    }
}
