//! The kernel's vocabulary. Wanted and observed are the same type, so that a difference needs no
//! translation and a test can compare with `==`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::firewall::FirewallPolicy;
use crate::model::{IfName, MacAddr, PortBinding, SandboxId};

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
    /// One end of a veth pair. Both ends appear in [`HostState::links`] and die together.
    Veth {
        /// The other end.
        peer: LinkKey,
    },
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
    /// `IFLA_IFALIAS`: how we recognise what is ours, `portolan:` and an id. Links inside sandboxes
    /// need none: the namespace is ours.
    pub alias: Option<String>,
}

/// A route in a namespace's main table, with our protocol number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: IpNet,
    /// The next hop; directly connected if none.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by.
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
    /// Routes beyond those the kernel makes for addresses.
    pub routes: BTreeSet<(Ns, Route)>,
    /// Sysctls we insist on, key with slashes relative to `/proc/sys` (`net/ipv4/ip_forward`).
    pub sysctls: BTreeMap<(Ns, String), String>,
    /// The policy in force. Observed: `None` unless the kernel's rules are verified to be the last
    /// ones applied, so that anything else is replaced whole. Wanted: `None` where the firewall is off.
    pub firewall: Option<FirewallPolicy>,
    /// Host ports held by sockets of ours (`container_port` is not part of the hold).
    pub held_ports: BTreeSet<PortBinding>,
    /// Held TCP ports whose connections are carried over to an address of the other family.
    pub proxied_ports: BTreeMap<PortBinding, SocketAddr>,
    /// Sandboxes in which port 53 of 127.0.0.11 leads to the resolver's sockets: (udp port, tcp port).
    pub dns_redirects: BTreeMap<SandboxId, (u16, u16)>,
}
