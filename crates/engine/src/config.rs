//! How an engine is set up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan_image::ImageStore;
use portolan_image::registry::RegistryConfig;
use portolan_net::{Leases, Names, NetConfig};
use portolan_netcore::host::Host;
use portolan_runtime::{Launcher, Rlimit};

use crate::model::{LogConfig, NamespaceSetting};

/// How an engine is set up; dockerd's options of the same meaning in brackets.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// `--data-root`: the database, containers' files, volumes.
    pub data_root: PathBuf,
    /// `--exec-root`: what need not outlive a reboot.
    pub exec_root: PathBuf,
    /// `--live-restore`: containers go on when the daemon ends.
    pub live_restore: bool,
    /// `--shutdown-timeout`: how long [`Engine::shutdown`](crate::Engine::shutdown) waits for containers to
    /// stop when `live_restore` is off.
    pub shutdown_timeout: Duration,
    /// `--log-driver` and `--log-opt`.
    pub default_log: LogConfig,
    /// `--dns`, for containers without their own.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-opt`.
    pub dns_options: Vec<String>,
    /// `--init`: run the engine's init as pid 1 unless a container says otherwise.
    pub init: bool,
    /// `--default-ulimit`.
    pub default_ulimits: Vec<Rlimit>,
    /// `--default-shm-size`, bytes.
    pub default_shm_size_bytes: u64,
    /// `--cgroup-parent`.
    pub cgroup_parent: String,
    /// `--default-cgroupns-mode`: `private` or `host`, for containers that ask for none; by the cgroups' version
    /// if none, as in Docker.
    pub default_cgroupns: Option<NamespaceSetting>,
    /// `--seccomp-profile`: a file in Docker's JSON format, or `unconfined`; the built-in one if none.
    pub seccomp_profile: Option<String>,
    /// `--no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--host-gateway-ip`: what `host-gateway` in `--add-host` means; the default bridge's address if empty.
    pub host_gateway_ips: Vec<IpAddr>,
    /// `--add-runtime`: name -> path of an OCI runtime binary.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// `--default-runtime`; the built-in one if none.
    pub default_runtime: Option<String>,
    /// The networks.
    pub net: NetConfig,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// The file that names the host's resolvers and that resolv.conf of containers is made from
    /// (`--resolv-conf`); `/etc/resolv.conf`.
    pub host_resolv_conf: PathBuf,
}

/// What an engine works with.
#[derive(Debug)]
pub struct Parts {
    /// The kernel's network side.
    pub host: Arc<dyn Host>,
    /// The embedded resolver.
    pub names: Arc<dyn Names>,
    /// The DHCP client.
    pub leases: Arc<dyn Leases>,
    /// Images.
    pub images: ImageStore,
    /// Makes containers.
    pub launcher: Launcher,
}
