//! The kernel's vocabulary. Wanted and observed are the same type, so that a difference needs no
//! translation and a test can compare with `==`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::firewall::FirewallPolicy;
use crate::model::{IfName, IpvlanFlag, IpvlanMode, MacAddr, MacvlanMode, PortBinding, SandboxId};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ns {
    /// The one the engine runs in.
    Host,
    /// A sandbox's, pinned at `<exec-root>/netns/<first 12 digits>`.
    Sandbox(SandboxId),
}

impl fmt::Display for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Sandbox(id) => f.write_str(id.short()),
        }
    }
}

/// A link is known by its namespace and name.
pub type LinkKey = (Ns, IfName);

/// What a link is. A change of kind means remaking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A software bridge.
    Bridge,
    /// A software bridge of somebody else's, of which some addresses are ours and nothing else is. It has to be
    /// there; it is never made, changed or removed.
    Adopted,
    /// One end of a veth pair. Both ends appear in [`HostState::links`] and die together.
    Veth {
        /// The other end.
        peer: LinkKey,
    },
    /// A link of its own hardware address on top of a link of the host.
    Macvlan {
        /// The link below, on the host.
        parent: IfName,
        /// Which of its links reach each other.
        mode: MacvlanMode,
    },
    /// A link that shares the hardware address of a link of the host.
    Ipvlan {
        /// The link below, on the host.
        parent: IfName,
        /// At which layer it switches.
        mode: IpvlanMode,
        /// Which of its links reach each other.
        flag: IpvlanFlag,
    },
    /// One VLAN of another link (802.1Q).
    Vlan {
        /// The link that carries it.
        parent: IfName,
        /// Its number.
        id: u16,
    },
    /// A link that leads nowhere.
    Dummy,
    /// A sandbox's `lo`, which exists with its namespace.
    Loopback,
}

/// A link of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Hardware address; the kernel's choice if none.
    pub mac: Option<MacAddr>,
    /// Largest payload in bytes; the kernel's default (1500) if none.
    pub mtu: Option<u32>,
    /// The bridge it is a port of.
    pub master: Option<IfName>,
    /// A bridge port that may send a frame back where it came from (`IFLA_BRPORT_MODE`).
    pub hairpin: bool,
    /// Addresses with prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFLA_IFALIAS`: how we recognise what is ours, `portolan:` and an id. Container ends of veth
    /// pairs need none: the host's end has it.
    pub alias: Option<String>,
    /// Of a bridge: it filters by VLAN and this is the one of its ports. Of a port of a bridge that is
    /// not ours: the VLAN that it is in, untagged.
    pub vlan: Option<u16>,
    /// Of a bridge: it learns by which port to reach the senders of frames to 01:80:c2:00:00:0x too, as the
    /// kernel's bridges do. Such frames pass none of the rules that frames to others pass, so that their
    /// senders may be anybody.
    pub learns_link_local: bool,
    /// What others made of it that nobody ever asks for. Wanted: nothing.
    pub altered: Altered,
}

impl Link {
    /// A link that is up, and of which nothing else is said.
    pub fn bare(kind: LinkKind) -> Self {
        Self {
            kind,
            mac: None,
            mtu: None,
            master: None,
            hairpin: false,
            addresses: BTreeSet::new(),
            up: true,
            alias: None,
            vlan: None,
            learns_link_local: false,
            altered: Altered::default(),
        }
    }
}

/// How a link differs from what the kernel makes when it is asked for no more than a [`Link`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Altered {
    /// Attributes that are not at the kernel's default.
    pub attributes: BTreeSet<Attribute>,
    /// Addresses without the route to their subnet that the kernel makes with them.
    pub unrouted: BTreeSet<IpNet>,
}

/// What we rely on of a bridge or a port of one, and leave as the kernel makes it. `Display` is the
/// default, as `ip link` and `bridge link` have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// A bridge without spanning tree: its ports forward at once, and none is ever shut.
    SpanningTree,
    /// A port speaks with every other one.
    Isolated,
    /// Where hardware addresses are is learnt by what comes from them.
    Learning,
    /// Frames for addresses that are not known are sent to it.
    Flood,
    /// So are those for groups: IPv6 finds its neighbours by them.
    MulticastFlood,
    /// So are those for all, such as ARP's questions.
    BroadcastFlood,
    /// The bridge leaves questions for neighbours to them.
    NeighbourSuppression,
    /// Any source may send by it: the source guard judges, not the bridge.
    Locked,
    /// It passes frames whenever it is up and wired.
    Blocked,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpanningTree => "stp_state 0",
            Self::Isolated => "isolated off",
            Self::Learning => "learning on",
            Self::Flood => "flood on",
            Self::MulticastFlood => "mcast_flood on",
            Self::BroadcastFlood => "bcast_flood on",
            Self::NeighbourSuppression => "neigh_suppress off",
            Self::Locked => "locked off",
            Self::Blocked => "state forwarding",
        })
    }
}

/// A link of the host that does not bear an alias of ours, and may be ours all the same: an alias can be
/// changed by anybody. Which it is, is for [`diff`](super::diff) to say, which knows what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// As it is; a veth's peer is itself unless `end` is known.
    pub link: Link,
    /// The alias of ours that it was seen with before.
    pub once: Option<String>,
    /// Of a veth: its other end, if that is in a sandbox of ours and sandboxes were looked into.
    pub end: Option<(LinkKey, Link)>,
}

/// Where a proxy carries a port's connections, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The endpoint's address and port.
    pub target: SocketAddr,
    /// Networks whose addresses may use the port; everybody's if there is none.
    pub from: Vec<IpNet>,
}

impl Proxied {
    /// Whether a client of this address may use the port.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|net| net.contains(&client))
    }
}

/// What becomes of packets that a route is for (`rtm_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// They are sent.
    #[default]
    Unicast,
    /// They are dropped in silence.
    Blackhole,
    /// They are answered by "host unreachable".
    Unreachable,
    /// They are answered by "administratively prohibited".
    Prohibit,
}

/// A route in a namespace's main table, with our protocol number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: IpNet,
    /// What becomes of packets for it.
    pub kind: RouteKind,
    /// The next hop; directly connected if none.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by; `lo` for those that do not leave.
    pub dev: IfName,
    /// Priority: lower is preferred (`RTA_PRIORITY`).
    pub metric: u32,
}

/// Everything of ours on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Pinned sandboxes.
    pub namespaces: BTreeSet<SandboxId>,
    /// Links: bridges and host ends on the host; `lo` and container ends in sandboxes.
    pub links: BTreeMap<LinkKey, Link>,
    /// Observed: links of the host that may be ours, by name. Wanted: none.
    pub strays: BTreeMap<IfName, Stray>,
    /// Routes beyond those the kernel makes for addresses.
    pub routes: BTreeSet<(Ns, Route)>,
    /// Sysctls we insist on, key with slashes relative to `/proc/sys` (`net/ipv4/ip_forward`).
    pub sysctls: BTreeMap<(Ns, String), String>,
    /// The policy in force. Observed: `None` unless the kernel's rules are verified to be the last
    /// ones applied, so that anything else is replaced whole. Wanted: `None` where the firewall is off.
    pub firewall: Option<FirewallPolicy>,
    /// Host ports held by sockets of ours (`container_port` is not part of the hold).
    pub held_ports: BTreeSet<PortBinding>,
    /// Held ports whose connections and datagrams this process carries over to the endpoint.
    pub proxied_ports: BTreeMap<PortBinding, Proxied>,
    /// Sandboxes in which port 53 of 127.0.0.11 leads to the resolver's sockets: (udp port, tcp port).
    pub dns_redirects: BTreeMap<SandboxId, (u16, u16)>,
}
