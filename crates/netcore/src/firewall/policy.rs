//! What the firewall means, apart from any backend's syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{EndpointId, GatewayMode, IfName, MacAddr, PortBinding};

/// Everything that the firewall of one engine enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallPolicy {
    /// Our bridges.
    pub bridges: BTreeMap<IfName, BridgePolicy>,
    /// What is attached to them.
    pub endpoints: BTreeMap<EndpointId, EndpointPolicy>,
    /// Ports published on the host.
    pub published: BTreeSet<PublishedPort>,
    /// Ports of the host whose connections the engine accepts and carries over itself.
    pub carried: BTreeSet<CarriedPort>,
}

/// One bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePolicy {
    /// The bridge.
    pub bridge: IfName,
    /// Its subnets, both families.
    pub subnets: Vec<IpNet>,
    /// No traffic in or out but among its own endpoints and with the host's own addresses.
    pub internal: bool,
    /// Endpoints may talk to each other.
    pub icc: bool,
    /// Outgoing traffic takes the address of the host's outgoing link (families with mode nat).
    pub masquerade: bool,
    /// Fixed source in place of masquerade, IPv4.
    pub snat_ipv4: Option<Ipv4Addr>,
    /// Fixed source in place of masquerade, IPv6.
    pub snat_ipv6: Option<Ipv6Addr>,
    /// How packets get in, IPv4.
    pub gateway_mode_ipv4: GatewayMode,
    /// How packets get in, IPv6.
    pub gateway_mode_ipv6: GatewayMode,
    /// Direct routing to published ports is allowed from these links.
    pub trusted_interfaces: Vec<IfName>,
    /// Direct routing to published ports is allowed from every link, in mode nat (dockerd:
    /// `--allow-direct-routing`).
    pub direct_routing: bool,
    /// Nothing passes between it and other bridges, not even by way of published ports.
    pub isolate: bool,
}

impl BridgePolicy {
    /// A network as it is without options: mode nat, masqueraded, its endpoints talk to each other.
    pub fn new(bridge: IfName, subnets: Vec<IpNet>) -> Self {
        Self {
            bridge,
            subnets,
            internal: false,
            icc: true,
            masquerade: true,
            snat_ipv4: None,
            snat_ipv6: None,
            gateway_mode_ipv4: GatewayMode::Nat,
            gateway_mode_ipv6: GatewayMode::Nat,
            trusted_interfaces: Vec::new(),
            direct_routing: false,
            isolate: false,
        }
    }
}

/// One endpoint of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Its id.
    pub id: EndpointId,
    /// The bridge it is on.
    pub bridge: IfName,
    /// The host end of its veth pair.
    pub host_ifname: IfName,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What it sends must come from its own hardware and IP addresses, and it is neither router nor
    /// DHCP server to others.
    pub source_guard: bool,
}

/// One port of the host that leads to an endpoint of the same family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// What is published where.
    pub binding: PortBinding,
    /// The bridge the endpoint is on.
    pub bridge: IfName,
    /// The endpoint's address.
    pub target: IpAddr,
    /// Who may use it; everybody if there is none. Networks of the other family mean nobody of this.
    pub from: Vec<IpNet>,
}

/// One port of the host at which the engine accepts connections and datagrams itself, to carry them over to
/// an endpoint that packets cannot be redirected to. They come to the host, not through it: who may use the
/// port is decided before its socket hears of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CarriedPort {
    /// The host port; `container_port` is not part of it.
    pub binding: PortBinding,
    /// The bridge the endpoint is on.
    pub bridge: IfName,
    /// Who may use it; everybody if there is none. Networks of another family than the host address's mean
    /// nobody.
    pub from: Vec<IpNet>,
}

/// A part of a policy that comes and goes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyItem {
    /// A bridge network.
    Bridge(BridgePolicy),
    /// An endpoint.
    Endpoint(EndpointPolicy),
    /// A published port.
    Port(PublishedPort),
    /// A port whose connections are carried over.
    Carried(CarriedPort),
}

/// One atomic change of the firewall. The backend compiles it; its cost is that of what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Make the rule set be this policy, whatever it was before, without an instant in between.
    Replace(FirewallPolicy),
    /// Take these items out and put those in, in one transaction.
    Change {
        /// Items that are in force and go.
        remove: Vec<PolicyItem>,
        /// Items that come.
        add: Vec<PolicyItem>,
    },
    /// Remove everything of ours.
    Clear,
}

impl fmt::Display for PolicyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(bridge) => write!(f, "bridge {}{}", bridge.bridge, Beyond(bridge)),
            Self::Endpoint(endpoint) => {
                let guard = if endpoint.source_guard { "" } else { " source_guard off" };
                write!(f, "endpoint {}{guard}", endpoint.host_ifname)
            }
            Self::Port(port) => write!(
                f,
                "port {} {}/{} to {} {}",
                port.binding.host_ip,
                port.binding.host_port,
                port.binding.proto,
                port.target,
                port.binding.container_port
            ),
            Self::Carried(port) => write!(
                f,
                "carried port {} {}/{} to {}",
                port.binding.host_ip, port.binding.host_port, port.binding.proto, port.bridge
            ),
        }
    }
}

/// What of a bridge's policy is not as it is without options.
struct Beyond<'a>(&'a BridgePolicy);

impl fmt::Display for Beyond<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bridge = self.0;
        for (is, text) in [
            (bridge.internal, " internal"),
            (bridge.isolate, " isolate"),
            (!bridge.icc, " icc off"),
            (!bridge.masquerade, " masquerade off"),
        ] {
            f.write_str(if is { text } else { "" })?;
        }
        for (family, mode) in [("ipv4", bridge.gateway_mode_ipv4), ("ipv6", bridge.gateway_mode_ipv6)] {
            match mode {
                GatewayMode::Nat => {}
                GatewayMode::NatUnprotected => write!(f, " {family} nat-unprotected")?,
                GatewayMode::Routed => write!(f, " {family} routed")?,
                GatewayMode::Isolated => write!(f, " {family} isolated")?,
            }
        }
        let (v4, v6) = (bridge.snat_ipv4.map(IpAddr::V4), bridge.snat_ipv6.map(IpAddr::V6));
        for source in v4.into_iter().chain(v6) {
            write!(f, " snat {source}")?;
        }
        for link in &bridge.trusted_interfaces {
            write!(f, " trusts {link}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace(policy) => write!(
                f,
                "replace: {} bridges, {} endpoints, {} ports",
                policy.bridges.len(),
                policy.endpoints.len(),
                policy.published.len()
            ),
            Self::Change { remove, add } => {
                f.write_str("change:")?;
                for item in remove {
                    write!(f, " -[{item}]")?;
                }
                for item in add {
                    write!(f, " +[{item}]")?;
                }
                Ok(())
            }
            Self::Clear => f.write_str("clear"),
        }
    }
}
