//! Steps: what an executor does without a choice.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::diff::link_of;
use super::{Attribute, Link, LinkKey, LinkKind, Neighbour, Ns, Proxied, Route, RouteKind};
use crate::firewall::Transaction;
use crate::model::{IfName, MacAddr, PortBinding, SandboxId};

/// One effect on the host. `Display` says it in the language of `ip`, `sysctl` and `nft`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make and pin a namespace, `lo` up.
    AddNamespace(SandboxId),
    /// Unpin a namespace; its links go with it once the last process has left.
    RemoveNamespace(SandboxId),
    /// Make a bridge with MAC, MTU and alias; addresses and state come in later steps.
    AddBridge(LinkKey, Box<Link>),
    /// Take a bridge of the host that is not ours into use: make sure that it is there and that it is one, and set
    /// it up if it is down.
    AdoptBridge(LinkKey),
    /// Make a link of another kind, on the host or in place in a sandbox, with MAC, MTU and alias;
    /// addresses and state come in later steps.
    AddLink(LinkKey, Box<Link>),
    /// Make both ends of a veth pair in place: names, MACs, MTU, master and alias at once, the host end up.
    AddVeth {
        /// The host end.
        host: LinkKey,
        /// The host end's attributes.
        host_link: Box<Link>,
        /// The container end.
        container: LinkKey,
        /// The container end's attributes.
        container_link: Box<Link>,
    },
    /// Remove a link; a veth's other end goes too.
    RemoveLink(LinkKey),
    /// Make a link a port of a bridge, or of none.
    SetMaster(LinkKey, Option<IfName>),
    /// Put a bridge port into one VLAN, untagged (`None`: the bridge's default one).
    SetPortVlan(LinkKey, Option<u16>),
    /// Set `IFLA_BRPORT_MODE` of a bridge port.
    SetHairpin(LinkKey, bool),
    /// Let a bridge learn from frames to link-local groups, or not.
    SetLinkLocalLearning(LinkKey, bool),
    /// Stop a bridge port from passing frames and forget what was learnt through it, at once: what is
    /// behind it may take its time to go, but its addresses are free.
    CutPort(LinkKey),
    /// Add an address. It is there when this returns (no duplicate address detection for IPv6).
    AddAddress(LinkKey, IpNet),
    /// Remove an address.
    RemoveAddress(LinkKey, IpNet),
    /// `ip link set up` or `down`.
    SetUp(LinkKey, bool),
    /// Set the MTU in bytes.
    SetMtu(LinkKey, u32),
    /// Set the hardware address.
    SetMac(LinkKey, MacAddr),
    /// Set the alias, by which a link is known to be ours.
    SetAlias(LinkKey, String),
    /// Bring an attribute of a bridge or a port back to the kernel's default.
    Reset(LinkKey, Attribute),
    /// Add the route to an address's subnet that the kernel makes with the address, as the kernel makes it:
    /// it goes when the address goes.
    AddConnected(LinkKey, IpNet),
    /// Add or replace a route.
    AddRoute(Ns, Route),
    /// Remove a route.
    RemoveRoute(Ns, Route),
    /// Write a sysctl, key with slashes relative to `/proc/sys`.
    SetSysctl(Ns, String, String),
    /// Apply one firewall transaction, whole or not at all.
    Firewall(Transaction),
    /// Bind the host port so that nobody else can.
    HoldPort(PortBinding),
    /// Let go of a host port, and end its proxy; connections go on.
    ReleasePort(PortBinding),
    /// Carry TCP connections to a held port over to an address that packets cannot be redirected to,
    /// being of another family. In place of an earlier proxy of the port.
    ProxyPort(PortBinding, Proxied),
    /// End the proxy of a port that stays held; connections go on.
    UnproxyPort(PortBinding),
    /// Lead port 53 of 127.0.0.11 in the sandbox to these ports, without conntrack entries.
    RedirectDns {
        /// Where.
        sandbox: SandboxId,
        /// The resolver's UDP port.
        udp: u16,
        /// The resolver's TCP port.
        tcp: u16,
    },
    /// Announce the endpoint's addresses (gratuitous ARP and unsolicited NA) on its network.
    Announce(LinkKey, Vec<IpNet>),
    /// Tell those on a link of the host of each other, several times within a tenth of a second: they take it
    /// as the answer to what they asked and nobody heard ([`introduce`](super::introduce())).
    Introduce {
        /// The link.
        link: LinkKey,
        /// Who is announced out of it.
        there: Vec<Neighbour>,
        /// Whom the host's own kernel hears of, if it asks.
        here: Vec<Neighbour>,
    },
    /// Forget connections of published ports that changed hands: delete their conntrack entries, end those
    /// that are carried over.
    ForgetFlows(Vec<PortBinding>),
    /// Forget connections from and to addresses that changed hands, likewise.
    ForgetAddresses(Vec<IpAddr>),
}

impl Step {
    /// The links that are there because of it.
    fn makes(&self) -> impl Iterator<Item = &LinkKey> {
        let (one, other) = match self {
            Self::AddBridge(key, _) | Self::AdoptBridge(key) | Self::AddLink(key, _) => (Some(key), None),
            Self::AddVeth { host, container, .. } => (Some(host), Some(container)),
            _ => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// It is about this link, or about what is to be on it.
    fn needs(&self, key: &LinkKey) -> bool {
        let below = |link: &Link| match &link.kind {
            LinkKind::Macvlan { parent, .. }
            | LinkKind::Ipvlan { parent, .. }
            | LinkKind::Vlan { parent, .. } => key.0 == Ns::Host && *parent == key.1,
            _ => key.0 == Ns::Host && link.master.as_ref() == Some(&key.1),
        };
        match self {
            Self::AddBridge(made, link) | Self::AddLink(made, link) => made == key || below(link),
            Self::AddVeth { host, host_link, container, .. } => {
                host == key || container == key || below(host_link)
            }
            Self::SetMaster(link, master) => {
                link == key || (key.0 == Ns::Host && master.as_ref() == Some(&key.1))
            }
            Self::AdoptBridge(link)
            | Self::SetPortVlan(link, _)
            | Self::SetHairpin(link, _)
            | Self::SetLinkLocalLearning(link, _)
            | Self::CutPort(link)
            | Self::RemoveLink(link)
            | Self::AddAddress(link, _)
            | Self::RemoveAddress(link, _)
            | Self::SetUp(link, _)
            | Self::SetMtu(link, _)
            | Self::SetMac(link, _)
            | Self::SetAlias(link, _)
            | Self::Reset(link, _)
            | Self::AddConnected(link, _)
            | Self::Announce(link, _)
            | Self::Introduce { link, .. } => link == key,
            Self::AddRoute(ns, route) | Self::RemoveRoute(ns, route) => *ns == key.0 && route.dev == key.1,
            Self::SetSysctl(ns, name, _) => *ns == key.0 && link_of(name) == Some(key.1.as_str()),
            _ => false,
        }
    }
}

/// What can be carried out of the rest of a plan when one of its steps failed: a link that could not be made
/// may be there and be somebody else's, which is not to get addresses, ports and settings of ours.
pub fn without(failed: &Step, rest: &[Step]) -> Vec<Step> {
    let mut missing: Vec<&LinkKey> = failed.makes().collect();
    let mut left = Vec::new();
    for step in rest {
        if missing.iter().any(|key| step.needs(key)) {
            missing.extend(step.makes());
        } else {
            left.push(step.clone());
        }
    }
    left
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::AddNamespace(id) => write!(f, "netns add {}", id.short()),
            Self::RemoveNamespace(id) => write!(f, "netns del {}", id.short()),
            Self::AdoptBridge((ns, name)) => write!(f, "[{ns}] link adopt {name}"),
            Self::AddBridge((ns, name), link) => {
                write!(f, "[{ns}] link add {name}")?;
                if let Some(mac) = link.mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(mtu) = link.mtu {
                    write!(f, " mtu {mtu}")?;
                }
                f.write_str(" type bridge")?;
                match link.vlan {
                    Some(vlan) => write!(f, " vlan_filtering 1 vlan_default_pvid {vlan}"),
                    None => Ok(()),
                }
            }
            Self::AddLink((ns, name), link) => {
                write!(f, "[{ns}] link add {name}")?;
                if let Some(mac) = link.mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(mtu) = link.mtu {
                    write!(f, " mtu {mtu}")?;
                }
                write!(f, "{}", KindText(&link.kind))
            }
            Self::SetPortVlan((ns, name), Some(vlan)) => {
                write!(f, "[{ns}] bridge vlan add dev {name} vid {vlan} pvid untagged")
            }
            Self::SetPortVlan((ns, name), None) => {
                write!(f, "[{ns}] bridge vlan add dev {name} vid 1 pvid untagged")
            }
            Self::AddVeth { host, host_link, container, container_link } => {
                write!(f, "[{}] link add {}", host.0, host.1)?;
                if let Some(master) = &host_link.master {
                    write!(f, " master {master}")?;
                }
                write!(f, " up type veth peer {} netns {}", container.1, container.0)?;
                match container_link.mac {
                    Some(mac) => write!(f, " address {mac}"),
                    None => Ok(()),
                }
            }
            Self::RemoveLink((ns, name)) => write!(f, "[{ns}] link del {name}"),
            Self::SetMaster((ns, name), Some(master)) => write!(f, "[{ns}] link set {name} master {master}"),
            Self::SetMaster((ns, name), None) => write!(f, "[{ns}] link set {name} nomaster"),
            Self::SetHairpin((ns, name), on) => {
                write!(f, "[{ns}] bridge link set dev {name} hairpin {}", on_off(*on))
            }
            Self::SetLinkLocalLearning((ns, name), on) => {
                write!(f, "[{ns}] link set {name} type bridge no_linklocal_learn {}", u8::from(!on))
            }
            Self::CutPort((ns, name)) => write!(f, "[{ns}] bridge link set dev {name} state disabled"),
            Self::AddAddress((ns, name), address) => write!(f, "[{ns}] addr add {address} dev {name}"),
            Self::RemoveAddress((ns, name), address) => write!(f, "[{ns}] addr del {address} dev {name}"),
            Self::SetUp((ns, name), true) => write!(f, "[{ns}] link set {name} up"),
            Self::SetUp((ns, name), false) => write!(f, "[{ns}] link set {name} down"),
            Self::SetMtu((ns, name), mtu) => write!(f, "[{ns}] link set {name} mtu {mtu}"),
            Self::SetMac((ns, name), mac) => write!(f, "[{ns}] link set {name} address {mac}"),
            Self::SetAlias((ns, name), alias) => write!(f, "[{ns}] link set {name} alias {alias}"),
            Self::Reset((ns, name), attribute @ Attribute::SpanningTree) => {
                write!(f, "[{ns}] link set {name} type bridge {attribute}")
            }
            Self::Reset((ns, name), attribute) => {
                write!(f, "[{ns}] bridge link set dev {name} {attribute}")
            }
            Self::AddConnected((ns, name), address) => {
                let (subnet, source) = (address.trunc(), address.addr());
                write!(f, "[{ns}] route add {subnet} dev {name} proto kernel src {source}")
            }
            Self::AddRoute(ns, route) => write!(f, "[{ns}] route add {}", RouteText(route)),
            Self::RemoveRoute(ns, route) => write!(f, "[{ns}] route del {}", RouteText(route)),
            Self::SetSysctl(ns, key, value) => write!(f, "[{ns}] sysctl {}={value}", key.replace('/', ".")),
            Self::Firewall(transaction) => write!(f, "[host] firewall {transaction}"),
            Self::HoldPort(port) => {
                write!(f, "[host] hold {} {}/{}", port.host_ip, port.host_port, port.proto)
            }
            Self::ReleasePort(port) => {
                write!(f, "[host] release {} {}/{}", port.host_ip, port.host_port, port.proto)
            }
            Self::ProxyPort(port, Proxied { target, from }) => {
                write!(f, "[host] proxy {} {}/{} to {target}", port.host_ip, port.host_port, port.proto)?;
                from.iter().try_for_each(|net| write!(f, " from {net}"))
            }
            Self::UnproxyPort(port) => {
                write!(f, "[host] unproxy {} {}/{}", port.host_ip, port.host_port, port.proto)
            }
            Self::RedirectDns { sandbox, udp, tcp } => {
                write!(f, "[{}] dns 127.0.0.11:53 to udp {udp} tcp {tcp}", sandbox.short())
            }
            Self::Announce((ns, name), addresses) => {
                write!(f, "[{ns}] announce")?;
                for address in addresses {
                    write!(f, " {}", address.addr())?;
                }
                write!(f, " dev {name}")
            }
            Self::Introduce { link: (ns, name), there, here } => {
                write!(f, "[{ns}] introduce")?;
                let mut addresses = there.iter().chain(here).flat_map(|one| &one.addresses);
                addresses.try_for_each(|address| write!(f, " {address}"))?;
                write!(f, " dev {name}")
            }
            Self::ForgetFlows(ports) => {
                f.write_str("[host] conntrack -D")?;
                ports.iter().try_for_each(|port| write!(f, " -p {} --dport {}", port.proto, port.host_port))
            }
            Self::ForgetAddresses(addresses) => {
                f.write_str("[host] conntrack -D")?;
                addresses.iter().try_for_each(|address| write!(f, " -s {address} -r {address}"))
            }
        }
    }
}

struct KindText<'a>(&'a LinkKind);

impl fmt::Display for KindText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LinkKind::Macvlan { parent, mode } => {
                write!(f, " link {parent} type macvlan mode {}", format!("{mode:?}").to_lowercase())
            }
            LinkKind::Ipvlan { parent, mode, flag } => {
                let (mode, flag) = (format!("{mode:?}"), format!("{flag:?}"));
                write!(f, " link {parent} type ipvlan mode {} {}", mode.to_lowercase(), flag.to_lowercase())
            }
            LinkKind::Vlan { parent, id } => write!(f, " link {parent} type vlan id {id}"),
            LinkKind::Dummy => f.write_str(" type dummy"),
            LinkKind::Bridge | LinkKind::Adopted => f.write_str(" type bridge"),
            LinkKind::Veth { .. } => f.write_str(" type veth"),
            LinkKind::Loopback => f.write_str(" type loopback"),
        }
    }
}

struct RouteText<'a>(&'a Route);

impl fmt::Display for RouteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.0;
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
        }
        if route.destination.prefix_len() == 0 {
            f.write_str("default")?;
        } else {
            write!(f, "{}", route.destination)?;
        }
        if let Some(gateway) = route.gateway {
            write!(f, " via {gateway}")?;
        }
        if route.kind == RouteKind::Unicast {
            write!(f, " dev {}", route.dev)?;
        }
        if route.metric != 0 {
            write!(f, " metric {}", route.metric)?;
        }
        Ok(())
    }
}
