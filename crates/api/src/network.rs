//! Networks and endpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::is_default;

/// `EndpointsConfig`: a JSON object whose order is kept, since interfaces are made in the order given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointsConfig(pub Vec<(String, Option<EndpointSettings>)>);

impl Serialize for EndpointsConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, settings)| (name, settings)))
    }
}

impl<'de> Deserialize<'de> for EndpointsConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A map of values keeps the order of the text, and the last of equal keys, as in Go.
        let map = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
        let entries = map.into_iter().map(|(name, value)| {
            let settings = Option::<EndpointSettings>::deserialize(value);
            settings
                .map_err(|error| serde::de::Error::custom(format_args!("EndpointsConfig.{name}: {error}")))
                .map(|settings| (name, settings))
        });
        entries.collect::<Result<_, _>>().map(Self)
    }
}

wire! {
    /// Body of `POST /networks/create`.
    pub struct NetworkCreate {
        /// Name.
        pub name: String,
        /// Sent by old clients; names are always unique.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub check_duplicate: Option<bool>,
        /// `bridge` if empty.
        pub driver: String,
        /// `local` if empty.
        pub scope: String,
        /// From v1.48.
        #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
        pub enable_ipv4: Option<bool>,
        /// IPv6.
        #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
        pub enable_ipv6: Option<bool>,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        /// No way out.
        pub internal: bool,
        /// For swarm-scope networks.
        pub attachable: bool,
        /// Swarm's routing mesh.
        pub ingress: bool,
        /// Only a configuration for others.
        pub config_only: bool,
        /// Take the configuration of this network.
        pub config_from: Option<ConfigReference>,
        /// Driver options.
        pub options: Option<BTreeMap<String, String>>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
    }

    /// Response of `POST /networks/create`.
    pub struct NetworkCreateResponse {
        /// 64 hexadecimal digits.
        pub id: String,
        /// Empty if there is nothing to warn of.
        pub warning: String,
    }

    /// Body of `POST /networks/{id}/connect`.
    pub struct NetworkConnect {
        /// Name or id.
        pub container: String,
        /// How.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub endpoint_config: Option<EndpointSettings>,
    }

    /// Body of `POST /networks/{id}/disconnect`.
    pub struct NetworkDisconnect {
        /// Name or id.
        pub container: String,
        /// Even if the container is gone.
        pub force: bool,
    }

    /// Body of `POST /networks/{id}/update`, which is Portolan's own; the names are Podman's.
    pub struct NetworkUpdate {
        /// Resolvers to be asked as well.
        #[serde(rename = "adddnsservers")]
        pub add_dns_servers: Vec<String>,
        /// Resolvers to be asked no more.
        #[serde(rename = "removednsservers")]
        pub remove_dns_servers: Vec<String>,
    }

    /// `GET /networks/{id}` and an item of `GET /networks`.
    pub struct Network {
        /// Name.
        pub name: String,
        /// 64 hexadecimal digits.
        pub id: String,
        /// RFC 3339 with nanoseconds.
        pub created: String,
        /// `local`.
        pub scope: String,
        /// Driver.
        pub driver: String,
        /// From v1.48.
        #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
        pub enable_ipv4: Option<bool>,
        /// IPv6.
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        /// No way out.
        pub internal: bool,
        /// For swarm-scope networks.
        pub attachable: bool,
        /// Swarm's routing mesh.
        pub ingress: bool,
        /// Whose configuration it has.
        pub config_from: ConfigReference,
        /// Only a configuration for others.
        pub config_only: bool,
        /// Endpoints by container id; empty in lists since v1.28.
        pub containers: BTreeMap<String, EndpointResource>,
        /// Driver options.
        pub options: Option<BTreeMap<String, String>>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// How it is just now (from v1.52, and with `verbose`).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<NetworkStatus>,
    }

    /// How a network is just now.
    pub struct NetworkStatus {
        /// Its addresses.
        #[serde(rename = "IPAM")]
        pub ipam: IpamStatus,
        /// Routes of the host that overlap with its subnets. Portolan's own.
        #[serde(skip_serializing_if = "is_default")]
        pub overlapping_routes: Vec<String>,
        /// Portolan's own: other programs' firewalls that are in its way.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub firewall: Vec<FirewallConflict>,
    }

    /// A chain of another program's firewall that keeps traffic of a network from arriving.
    pub struct FirewallConflict {
        /// Whose it is: `ufw`, `firewalld`, `iptables`, `iptables-legacy`, `nftables`.
        pub owner: String,
        /// Family and name of its table.
        pub table: String,
        /// The base chain.
        pub chain: String,
        /// What does not arrive: `in`, `out`, `in-replies`, `out-replies`, `within`, `to-host`.
        pub drops: Vec<String>,
        /// The ports that it is about, as `8000/tcp` or `9000-9010/udp`: the host's for a chain before
        /// destinations are translated, else the containers'. None if it is about all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<String>,
        /// Rules there let a part of it through.
        pub partly: bool,
        /// What drops it.
        pub why: String,
        /// Commands that let it through.
        pub fix: Vec<String>,
    }

    /// The addresses of a network.
    pub struct IpamStatus {
        /// By subnet.
        pub subnets: BTreeMap<String, SubnetStatus>,
    }

    /// How full a subnet is; both saturate.
    pub struct SubnetStatus {
        /// Addresses in use, with those that no container may have.
        #[serde(rename = "IPsInUse")]
        pub ips_in_use: u64,
        /// Addresses that a container could be given without asking for one.
        #[serde(rename = "DynamicIPsAvailable")]
        pub dynamic_ips_available: u64,
    }

    /// A network's name.
    pub struct ConfigReference {
        /// Name, or empty.
        pub network: String,
    }

    /// Address management of a network.
    pub struct Ipam {
        /// `default`.
        pub driver: String,
        /// Driver options.
        pub options: Option<BTreeMap<String, String>>,
        /// Pools.
        pub config: Option<Vec<IpamConfig>>,
    }

    /// One pool of a network.
    pub struct IpamConfig {
        /// CIDR.
        #[serde(skip_serializing_if = "is_default")]
        pub subnet: String,
        /// CIDR: where dynamic addresses come from.
        #[serde(rename = "IPRange", skip_serializing_if = "is_default")]
        pub ip_range: String,
        /// Address.
        #[serde(skip_serializing_if = "is_default")]
        pub gateway: String,
        /// Reserved addresses by name.
        #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "is_default")]
        pub auxiliary_addresses: BTreeMap<String, String>,
    }

    /// An endpoint as `GET /networks/{id}` shows it.
    pub struct EndpointResource {
        /// The container's name, without a slash.
        pub name: String,
        /// 64 hexadecimal digits.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// MAC address.
        pub mac_address: String,
        /// CIDR.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        /// CIDR.
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }

    /// An endpoint as a container's create body asks for it and its inspect shows it.
    pub struct EndpointSettings {
        /// Addresses asked for.
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpamConfig>,
        /// `container:alias`.
        pub links: Option<Vec<String>>,
        /// More names on this network.
        pub aliases: Option<Vec<String>>,
        /// MAC address; asked for in create from v1.44.
        pub mac_address: String,
        /// Driver options.
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// Who gives the default gateway: the highest (from v1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gw_priority: Option<i64>,
        /// The network's id.
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        /// The endpoint's id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Default gateway.
        pub gateway: String,
        /// Address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Prefix length of the subnet.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: u8,
        /// Default IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Prefix length of the IPv6 subnet.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: u8,
        /// All names on this network (from v1.44).
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    /// Addresses that an endpoint asks for.
    pub struct EndpointIpamConfig {
        /// IPv4.
        #[serde(rename = "IPv4Address", skip_serializing_if = "is_default")]
        pub ipv4_address: String,
        /// IPv6.
        #[serde(rename = "IPv6Address", skip_serializing_if = "is_default")]
        pub ipv6_address: String,
        /// Further addresses of the interface.
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "is_default")]
        pub link_local_ips: Vec<String>,
    }

    /// `NetworkingConfig` of a container's create body.
    pub struct NetworkingConfig {
        /// By network name or id.
        pub endpoints_config: Option<EndpointsConfig>,
    }

    /// An address with its prefix length.
    pub struct Address {
        /// Address.
        pub addr: String,
        /// Prefix length.
        pub prefix_len: u8,
    }

    /// Response of `POST /networks/prune`.
    pub struct NetworksPruneReport {
        /// Names.
        pub networks_deleted: Option<Vec<String>>,
    }
}
