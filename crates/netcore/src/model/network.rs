//! A network as the user made it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{IfName, NetworkId};

/// The least MTU of a link that has IPv6, in bytes (RFC 8200, section 5).
pub const IPV6_MIN_MTU: u32 = 1280;

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
    /// The IPAM driver's options, if any were given, be it none of them.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Its subnets, IPv4 first.
    pub ipam: Vec<IpamConfig>,
    /// The driver options, as given.
    pub options: BTreeMap<String, String>,
    /// Labels, as given.
    pub labels: BTreeMap<String, String>,
    /// `bridge`, `host` and `none`, which cannot be removed.
    pub predefined: bool,
    /// Only a configuration that other networks take over; nothing can be attached. Docker: `ConfigOnly`.
    #[serde(default)]
    pub config_only: bool,
    /// The name of the network whose configuration this one took over. Docker: `ConfigFrom`.
    #[serde(default)]
    pub config_from: Option<String>,
    /// What its endpoints' routing tables hold beyond the default route.
    #[serde(default)]
    pub routing: Routing,
}

impl Network {
    /// Why ports of its endpoints cannot be published on the host, in a word; none if they can.
    pub fn publishes_nothing(&self) -> Option<&'static str> {
        match &self.driver {
            Driver::Bridge(options) if options.unmanaged => Some("unmanaged"),
            Driver::Bridge(_) if self.internal => Some("internal"),
            Driver::Bridge(_) => None,
            driver => Some(driver.name()),
        }
    }
}

/// Routes that a network gives to its endpoints (`portolan.routes`, `portolan.metric`,
/// `portolan.no_default_route`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Static routes.
    pub routes: Vec<StaticRoute>,
    /// Metric of the default route, and of static routes without one of their own; 0 is the kernel's.
    pub metric: u32,
    /// Endpoints of this network never give the default route.
    pub no_default_route: bool,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where to.
    pub destination: IpNet,
    /// How.
    pub via: RouteTarget,
    /// Its metric; the network's if none.
    pub metric: Option<u32>,
}

/// What becomes of packets for a static route's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteTarget {
    /// They go to this next hop.
    Gateway(IpAddr),
    /// They are dropped in silence.
    Blackhole,
    /// They are answered by "host unreachable".
    Unreachable,
    /// They are answered by "administratively prohibited".
    Prohibit,
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
    /// Links with hardware addresses of their own on a link of the host.
    Macvlan(MacvlanOptions),
    /// Links that share the hardware address of a link of the host.
    Ipvlan(IpvlanOptions),
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
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }

    /// The link of the host below the endpoints of a macvlan or ipvlan network.
    pub fn parent(&self) -> Option<&ParentOptions> {
        match self {
            Self::Macvlan(options) => Some(&options.parent),
            Self::Ipvlan(options) => Some(&options.parent),
            Self::Bridge(_) | Self::Host | Self::Null => None,
        }
    }

    /// Endpoints have a link: the driver is not one that leaves the namespace as it is.
    pub fn has_links(&self) -> bool {
        !matches!(self, Self::Host | Self::Null)
    }

    /// Containers' links are called this and a number (`com.docker.network.container_iface_prefix`).
    pub fn ifname_prefix(&self) -> &str {
        match self {
            Self::Bridge(options) => &options.ifname_prefix,
            Self::Macvlan(MacvlanOptions { parent, .. }) | Self::Ipvlan(IpvlanOptions { parent, .. }) => {
                &parent.ifname_prefix
            }
            Self::Host | Self::Null => "eth",
        }
    }
}

/// What macvlan and ipvlan networks have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentOptions {
    /// `parent`: the host's link that endpoints are on.
    pub parent: IfName,
    /// How the parent comes to be, if it is made for this network and goes with it.
    pub made: Option<MadeParent>,
    /// `driver.mtu`, bytes; the parent's if none.
    pub mtu: Option<u32>,
    /// `container_iface_prefix`: `eth` unless set.
    pub ifname_prefix: String,
}

/// A parent link that a network makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeParent {
    /// A VLAN of another link: `eth0.10`.
    Vlan {
        /// The link that carries it.
        link: IfName,
        /// The VLAN's number.
        id: u16,
    },
    /// A link that leads nowhere: the network is among its own endpoints.
    Dummy,
}

/// Options of the macvlan driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacvlanOptions {
    /// The parent.
    pub parent: ParentOptions,
    /// `macvlan_mode`.
    pub mode: MacvlanMode,
    /// `portolan.host_access`: a macvlan link of the host's own, by which host and containers reach
    /// each other, which the kernel does not allow by way of the parent.
    pub host_access: Option<IfName>,
}

/// Which endpoints of one parent reach each other (`IFLA_MACVLAN_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// All, directly.
    #[default]
    Bridge,
    /// None.
    Private,
    /// All, by way of the switch at the other end of the parent.
    Vepa,
    /// There is only one, and it has the parent's hardware address.
    Passthru,
}

/// Options of the ipvlan driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpvlanOptions {
    /// The parent.
    pub parent: ParentOptions,
    /// `ipvlan_mode`.
    pub mode: IpvlanMode,
    /// `ipvlan_flag`.
    pub flag: IpvlanFlag,
}

/// At which layer packets are switched (`IFLA_IPVLAN_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// Ethernet frames.
    #[default]
    L2,
    /// Packets, which pass none of the host's hooks.
    L3,
    /// Packets, which pass the host's hooks.
    L3s,
}

/// Which endpoints of one parent reach each other (`IFLA_IPVLAN_FLAGS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    /// All, directly.
    #[default]
    Bridge,
    /// None.
    Private,
    /// All, by way of the switch at the other end of the parent.
    Vepa,
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
    /// `portolan.source_guard`: endpoints send from their own addresses only.
    #[serde(default = "yes")]
    pub source_guard: bool,
    /// `default_bridge`: no names, links by /etc/hosts.
    pub default_bridge: bool,
    /// `portolan.unmanaged`: the bridge is somebody else's. We add ports to it and nothing more: no
    /// address, no firewall, no sysctls.
    #[serde(default)]
    pub unmanaged: bool,
    /// `portolan.vlan`: the VLAN that ports of this network are in, untagged.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// `portolan.isolate`: no traffic from or to other networks, not even by way of published ports.
    #[serde(default)]
    pub isolate: bool,
    /// The bridge was there before the network: it is neither ours to make nor to remove.
    #[serde(default)]
    pub adopted: Option<Adopted>,
}

/// A bridge of somebody else's that a network of ours is on. It keeps its settings and its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The addresses that it had by itself. Those that the network needs beside them are ours.
    pub addresses: BTreeSet<IpNet>,
    /// Packets for 127.0.0.0/8 passed it without us.
    pub route_localnet: bool,
}

/// For records that were written before the field was there.
pub(super) fn yes() -> bool {
    true
}
