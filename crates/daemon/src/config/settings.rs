//! Everything that can be set, as flags and as keys of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use portolan_netcore::model::parse_bool;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::values::{AddressPool, KeyValue, NetworkOption, Size, Ulimit, pairs, runtimes, ulimits};
use crate::names::field_names;

/// Declares settings: each is a flag and a key of the file. A text before the type is the key, where it is not the
/// flag's name; `bool` is a flag that may be given as `--flag` and as `--flag=false`.
macro_rules! settings {
    ($($(#[doc = $doc:literal])* $(#[short = $short:literal])? $(#[key = $key:literal])? $(#[with = $with:literal])?
       $(#[value = $value:literal])? $(#[missing = $missing:literal])? $field:ident: $ty:ty,)*) => {
        /// Everything that can be set; `None` and missing is the default.
        #[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub(crate) struct Settings {
            $(
                $(#[doc = $doc])*
                #[arg(long, $(short = $short,)? $(value_name = $value,)?
                    $(num_args = 0..=1, require_equals = true, default_missing_value = $missing, value_name = "BOOL",)?)]
                #[serde($(rename = $key,)? $(with = $with,)? skip_serializing_if = "Option::is_none")]
                pub(super) $field: Option<$ty>,
            )*
        }
    };
}

/// A switch: `--flag`, `--flag=true`, `--flag=false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Switch(pub(super) bool);

settings! {
    /// Where clients come in: unix:///path, tcp://address:port or fd:// (may be repeated)
    #[short = 'H'] #[key = "hosts"] #[value = "URL"]
    host: Vec<String>,
    /// Group of the unix sockets; docker or portolan, whichever exists
    #[short = 'G']
    group: String,
    /// File with the daemon's process id
    #[short = 'p'] #[value = "FILE"]
    pidfile: PathBuf,
    /// Where everything that must last is kept
    #[value = "DIR"]
    data_root: PathBuf,
    /// Where everything that need not outlive a reboot is kept
    #[value = "DIR"]
    exec_root: PathBuf,
    /// Address and port where Prometheus reads /metrics
    #[value = "ADDRESS"]
    metrics_addr: String,
    /// Log level: debug, info, warn, error, fatal
    #[short = 'l'] #[value = "LEVEL"]
    log_level: String,
    /// Log format: text
    #[value = "FORMAT"]
    log_format: String,
    /// A label of this daemon, key=value (may be repeated)
    #[key = "labels"] #[value = "LABEL"]
    label: Vec<String>,
    /// Seconds until containers are killed when the daemon stops them at its end
    #[value = "SECONDS"]
    shutdown_timeout: i64,
    /// Storage driver: overlay2
    #[short = 's'] #[value = "DRIVER"]
    storage_driver: String,
    /// Options of the storage driver; there are none
    #[key = "storage-opts"] #[value = "OPTION"]
    storage_opt: Vec<String>,
    /// Default log driver of containers: json-file, none
    #[value = "DRIVER"]
    log_driver: String,
    /// Default options of the log driver, name=value (may be repeated)
    #[key = "log-opts"] #[with = "pairs"] #[value = "NAME=VALUE"]
    log_opt: Vec<KeyValue>,
    /// Runtime options: native.cgroupdriver=cgroupfs (systemd is accepted, and is the same)
    #[key = "exec-opts"] #[value = "OPTION"]
    exec_opt: Vec<String>,
    /// An OCI runtime, name=path (may be repeated)
    #[key = "runtimes"] #[with = "runtimes"] #[value = "NAME=PATH"]
    add_runtime: Vec<KeyValue>,
    /// The runtime of containers that name none
    #[value = "NAME"]
    default_runtime: String,
    /// Cgroup that containers' cgroups are made in
    #[value = "CGROUP"]
    cgroup_parent: String,
    /// Cgroup namespace of containers that ask for none: private, host (default: private with cgroup v2)
    #[value = "MODE"]
    default_cgroupns_mode: String,
    /// IPC namespace of containers: private
    #[value = "MODE"]
    default_ipc_mode: String,
    /// Size of /dev/shm of containers
    #[value = "BYTES"]
    default_shm_size: Size,
    /// A limit of containers, name=soft[:hard] (may be repeated)
    #[key = "default-ulimits"] #[with = "ulimits"] #[value = "LIMIT"]
    default_ulimit: Vec<Ulimit>,
    /// Seccomp profile: a file, builtin or unconfined
    #[value = "PROFILE"]
    seccomp_profile: String,
    /// Resolver of containers (may be repeated)
    #[value = "ADDRESS"]
    dns: Vec<IpAddr>,
    /// Resolver option of containers (may be repeated)
    #[key = "dns-opts"] #[value = "OPTION"]
    dns_opt: Vec<String>,
    /// Search domain of containers (may be repeated)
    #[value = "DOMAIN"]
    dns_search: Vec<String>,
    /// File that names the host's resolvers
    #[value = "FILE"]
    resolv_conf: PathBuf,
    /// Loopback address (and port) where this host finds containers as NAME.NETWORK.portolan.internal
    #[value = "ADDRESS"]
    host_names: String,
    /// Answer containers' names on the default bridge too
    #[missing = "true"]
    default_bridge_names: Switch,
    /// What host-gateway in --add-host means (may be repeated)
    #[key = "host-gateway-ips"] #[value = "ADDRESS"]
    host_gateway_ip: Vec<IpAddr>,
    /// The default bridge; none for no default bridge
    #[short = 'b'] #[value = "NAME"]
    bridge: String,
    /// Address and subnet of the default bridge
    #[value = "CIDR"]
    bip: Ipv4Net,
    /// IPv6 address and subnet of the default bridge, with --ipv6
    #[value = "CIDR"]
    bip6: Ipv6Net,
    /// Range that containers' addresses on the default bridge come from; its subnet without --bip
    #[value = "CIDR"]
    fixed_cidr: Ipv4Net,
    /// The same for IPv6, with --ipv6
    #[value = "CIDR"]
    fixed_cidr_v6: Ipv6Net,
    /// Default gateway of containers on the default bridge
    #[value = "ADDRESS"]
    default_gateway: Ipv4Addr,
    /// IPv6 default gateway of containers on the default bridge
    #[value = "ADDRESS"]
    default_gateway_v6: Ipv6Addr,
    /// Subnets for new networks, base=CIDR,size=LENGTH (may be repeated)
    #[key = "default-address-pools"] #[value = "POOL"]
    default_address_pool: Vec<AddressPool>,
    /// Option of new networks of a driver, driver=key=value (may be repeated)
    #[key = "default-network-opts"] #[with = "network_options"] #[value = "OPTION"]
    default_network_opt: Vec<NetworkOption>,
    /// Who writes the firewall's rules: nftables, iptables
    #[value = "BACKEND"]
    firewall_backend: String,
    /// Default host address of published ports: any, loopback, or an address
    #[value = "ADDRESS"]
    ip: String,
    /// MTU of the default bridge, bytes (other networks: --default-network-opt)
    #[value = "BYTES"]
    mtu: u32,
    /// Mirror of the default registry (may be repeated)
    #[key = "registry-mirrors"] #[value = "URL"]
    registry_mirror: Vec<String>,
    /// Registry that needs no TLS (may be repeated)
    #[key = "insecure-registries"] #[value = "HOST"]
    insecure_registry: Vec<String>,
    /// Proxy for http:// registries
    #[value = "URL"]
    http_proxy: String,
    /// Proxy for https:// registries
    #[value = "URL"]
    https_proxy: String,
    /// Hosts without a proxy
    #[value = "HOSTS"]
    no_proxy: String,
    /// Accepted for dockerd's unit files: there is no containerd
    #[value = "SOCKET"]
    containerd: String,
    /// Accepted for dockerd's unit files: there is no containerd
    #[value = "NAME"]
    containerd_namespace: String,
    /// Layers that are downloaded at the same time (default 3)
    #[value = "COUNT"]
    max_concurrent_downloads: u32,
    /// Accepted, for pushes are not there yet
    #[value = "COUNT"]
    max_concurrent_uploads: u32,
    /// How often a layer is tried (default 5)
    #[value = "COUNT"]
    max_download_attempts: u32,
    /// Accepted, for there is no swarm
    #[value = "BYTES"]
    network_control_plane_mtu: u32,
    /// A feature of dockerd's, name=true|false: buildkit and containerd-snapshotter have no effect
    #[key = "features"] #[with = "features"] #[value = "NAME=BOOL"]
    feature: Vec<KeyValue>,
    /// Log debug messages
    #[short = 'D'] #[missing = "true"]
    debug: Switch,
    /// Accepted: the log never has colours
    #[missing = "true"]
    raw_logs: Switch,
    /// Announce experimental features
    #[missing = "true"]
    experimental: Switch,
    /// Containers go on when the daemon ends (default true)
    #[missing = "true"]
    live_restore: Switch,
    /// Run an init in every container that does not say otherwise
    #[missing = "true"]
    init: Switch,
    /// Containers' processes cannot get more privileges
    #[missing = "true"]
    no_new_privileges: Switch,
    /// Containers on the default bridge may talk to each other (default true)
    #[missing = "true"]
    icc: Switch,
    /// Enable net.ipv4.ip_forward (default true)
    #[missing = "true"]
    ip_forward: Switch,
    /// Masquerade the default bridge (default true)
    #[missing = "true"]
    ip_masq: Switch,
    /// Manage the firewall (default true)
    #[missing = "true"]
    iptables: Switch,
    /// Manage the firewall for IPv6 (default true)
    #[missing = "true"]
    ip6tables: Switch,
    /// IPv6 on the default bridge
    #[missing = "true"]
    ipv6: Switch,
    /// Published ports are always handled by the kernel
    #[missing = "true"]
    userland_proxy: Switch,
    /// Let neighbours reach published ports by the containers' own addresses
    #[missing = "true"]
    allow_direct_routing: Switch,
    /// SELinux is not supported: only false
    #[missing = "true"]
    selinux_enabled: Switch,
}

impl std::str::FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value =
            parse_bool(text).ok_or_else(|| format!("invalid boolean value {text:?}: true or false"))?;
        Ok(Switch(value))
    }
}

/// `features` in the file is a map of booleans.
mod features {
    use super::{BTreeMap, Deserialize, KeyValue, Serialize, Value};

    pub(super) fn serialize<S: serde::Serializer>(
        features: &Option<Vec<KeyValue>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let value = |pair: &KeyValue| (pair.key.clone(), pair.value == "true" || pair.value == "1");
        features
            .as_ref()
            .map(|pairs| pairs.iter().map(value).collect::<BTreeMap<_, _>>())
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<KeyValue>>, D::Error> {
        let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?;
        Ok(map.map(|map| {
            map.into_iter().map(|(key, value)| KeyValue { key, value: value.to_string() }).collect()
        }))
    }
}

/// `default-network-opts` in the file is a map of maps.
mod network_options {
    use super::{BTreeMap, Deserialize, NetworkOption, Serialize};

    type Options = BTreeMap<String, BTreeMap<String, String>>;

    pub(super) fn serialize<S: serde::Serializer>(
        options: &Option<Vec<NetworkOption>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let by_driver = options.as_ref().map(|options| {
            let mut by_driver = Options::new();
            for option in options {
                let of_driver = by_driver.entry(option.driver.clone()).or_default();
                of_driver.insert(option.key.clone(), option.value.clone());
            }
            by_driver
        });
        by_driver.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<NetworkOption>>, D::Error> {
        let by_driver = Option::<Options>::deserialize(deserializer)?;
        let flat = |by_driver: Options| {
            let each = by_driver.into_iter().flat_map(|(driver, options)| {
                let option = move |(key, value)| NetworkOption { driver: driver.clone(), key, value };
                options.into_iter().map(option)
            });
            each.collect()
        };
        Ok(by_driver.map(flat))
    }
}

impl Settings {
    /// As in the file, only what is set.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("settings are texts, numbers, lists and maps by name"),
        }
    }

    /// From the file's keys; the error names the key.
    pub(super) fn from_map(map: Map<String, Value>) -> Result<Self, String> {
        // One key at a time tells which one is wrong: serde's own message does not.
        for (key, value) in &map {
            let one = Map::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = serde_json::from_value::<Settings>(Value::Object(one)) {
                return Err(format!("{key}: {error}"));
            }
        }
        serde_json::from_value(Value::Object(map)).map_err(|error| error.to_string())
    }

    /// The file's keys.
    pub(super) fn names() -> BTreeSet<&'static str> {
        field_names::<Settings>()
    }
}
