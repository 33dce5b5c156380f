//! A network as the user made it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IfName, NetworkId};

/// A network. `GET /networks/{id}` of the Docker API shows every field but `driver`'s typed options,
/// which it shows as the `options` they were parsed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its unique name.
    pub name: String,
    /// Milliseconds since the Unix epoch times 10^6: nanoseconds at which it was created.
    pub created_ns: i64,
    /// How it is built.
    pub driver: Driver,
    /// Containers get IPv4 addresses.
    pub ipv4: bool,
    /// Containers get IPv6 addresses.
    pub ipv6: bool,
    /// No traffic leaves it or enters it from outside.
    pub internal: bool,
    /// Docker's flag for swarm; kept and shown.
    pub attachable: bool,
    /// The IPAM driver's name: `default` or `null`.
    pub ipam_driver: String,
    /// The IPAM driver's options, as given.
    pub ipam_options: BTreeMap<String, String>,
    /// Its subnets, IPv4 first.
    pub ipam: Vec<IpamConfig>,
    /// The driver options, as given.
    pub options: BTreeMap<String, String>,
    /// Labels, as given.
    pub labels: BTreeMap<String, String>,
    /// `bridge`, `host` and `none`, which cannot be removed.
    pub predefined: bool,
}

/// One subnet of a network. Docker: `IPAMConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// The subnet, with no host bits set.
    pub subnet: IpNet,
    /// The part of it that dynamic addresses come from; all of it if none.
    pub ip_range: Option<IpNet>,
    /// The gateway: the bridge's own address.
    pub gateway: Option<IpAddr>,
    /// Addresses the user keeps for other things, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user named the subnet (`--subnet`): static addresses are allowed only then, as in Docker.
    pub configured: bool,
}

/// How a network is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge on the host with a veth pair per endpoint.
    Bridge(BridgeOptions),
    /// The host's own namespace.
    Host,
    /// A namespace with nothing but `lo`.
    Null,
}

impl Driver {
    /// Docker's name of the driver.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bridge(_) => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// How packets from outside reach endpoints. Docker: `com.docker.network.bridge.gateway_mode_ipv4/6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Masquerade out; published ports by DNAT; nothing else gets in.
    #[default]
    Nat,
    /// The same NAT, without the filter on unpublished ports.
    NatUnprotected,
    /// No NAT: published ports are opened for direct routing.
    Routed,
    /// Only with `internal`: the bridge has no address.
    Isolated,
}

/// Options of the bridge driver; the Docker keys are `com.docker.network.bridge.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeOptions {
    /// `bridge.name`, or `br-` and 12 digits of the id.
    pub bridge: IfName,
    /// `enable_icc`: endpoints of this network may talk to each other.
    pub icc: bool,
    /// `enable_ip_masquerade`: traffic out of this network takes the host's address.
    pub masquerade: bool,
    /// `driver.mtu`, bytes; the kernel's default if none.
    pub mtu: Option<u32>,
    /// `host_binding_ipv4`: the host address of ports published without one; both families if none.
    pub host_binding: Option<IpAddr>,
    /// `gateway_mode_ipv4`.
    pub gateway_mode_ipv4: GatewayMode,
    /// `gateway_mode_ipv6`.
    pub gateway_mode_ipv6: GatewayMode,
    /// `container_iface_prefix`: `eth` unless set.
    pub ifname_prefix: String,
    /// `host_ipv4`: source address of outgoing traffic in place of masquerade.
    pub snat_ipv4: Option<Ipv4Addr>,
    /// `host_ipv6`.
    pub snat_ipv6: Option<Ipv6Addr>,
    /// `inhibit_ipv4`: the bridge gets no IPv4 address.
    pub inhibit_ipv4: bool,
    /// `trusted_host_interfaces`: direct routing is allowed from these.
    pub trusted_interfaces: Vec<IfName>,
    /// `default_bridge`: no names, links by /etc/hosts.
    pub default_bridge: bool,
}
