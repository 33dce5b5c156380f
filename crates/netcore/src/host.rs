//! The seam to the kernel.

use std::fmt;
use std::time::Duration;

use crate::model::{IfName, PortRange};
use crate::plan::{HostState, Link, Step};

/// What a host was at when it failed. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A step of a plan.
    Step(Box<Step>),
    /// Anything else, in words: `observe the host`.
    Other(String),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl From<&Step> for Attempt {
    fn from(step: &Step) -> Self {
        Self::Step(Box::new(step.clone()))
    }
}

impl From<&str> for Attempt {
    fn from(words: &str) -> Self {
        Self::Other(words.to_owned())
    }
}

/// Something that could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct StepError {
    /// What it was.
    pub step: Attempt,
    /// What the kernel said, in words.
    pub reason: String,
    /// The errno, if the kernel gave one.
    pub errno: Option<i32>,
    /// Trying again later may help (EBUSY, EAGAIN, ENOBUFS).
    pub transient: bool,
}

/// How far a plan got. The steps before `done` have taken effect, the one at `done` failed if
/// `error` is set, the rest were not tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of steps that took effect.
    pub done: usize,
    /// Why the next one did not.
    pub error: Option<StepError>,
}

/// A route of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRoute {
    /// Where to.
    pub destination: ipnet::IpNet,
    /// The host is a neighbour of what is there; otherwise it sends it to a gateway, or nowhere.
    pub on_link: bool,
}

/// What the core needs from a host. Implementations carry out steps and choose nothing.
///
/// Calls block; callers run them on threads that may. Several threads may call at once as long as
/// their plans touch different sandboxes; the implementation serialises what the kernel requires
/// (the firewall transaction, links in the host's namespace).
pub trait Host: Send + Sync + fmt::Debug {
    /// Everything on the host that is recognisably ours: owned namespaces, links with our alias,
    /// their addresses and routes, our firewall tables.
    fn observe(&self) -> Result<HostState, StepError>;

    /// Carries out the steps in order and stops at the first failure. Neighbouring steps may be sent
    /// to the kernel in one message. Removing what is already gone is success.
    fn execute(&self, steps: &[Step]) -> Report;

    /// Routes of the host that are not ours, but for default routes: of the main table and of every other
    /// that a rule leads to; and its addresses, of which each is a route to the host itself. For overlap
    /// checks.
    fn foreign_routes(&self) -> Result<Vec<ForeignRoute>, StepError>;

    /// Makes our bridges known to the program that manages this host's firewall, if one does and wants to
    /// know (firewalld). Doing so again changes nothing. Waits for that program, half a minute at most.
    fn introduce(&self) -> Result<(), StepError> {
        Ok(())
    }

    /// Other programs' firewall rules that decide about our traffic. Costs as much as there are rules.
    fn foreign_rules(&self) -> Result<crate::foreign::Ruleset, StepError> {
        Ok(crate::foreign::Ruleset::default())
    }

    /// What choices depend on and no plan changes. Cheap: asked for once a request.
    fn facts(&self) -> Result<HostFacts, StepError> {
        Ok(HostFacts::default())
    }

    /// The links of the host's namespace and their MTU in bytes, ours or not.
    fn links(&self) -> Result<std::collections::BTreeMap<IfName, u32>, StepError> {
        Ok(std::collections::BTreeMap::new())
    }

    /// The link of the host's namespace with this name.
    fn link(&self, name: &IfName) -> Result<Option<FoundLink>, StepError> {
        let _ = name;
        Ok(None)
    }

    /// The value of a sysctl of the host, by its path below `/proc/sys`; none if there is no such one.
    fn setting(&self, key: &str) -> Option<String> {
        let _ = key;
        None
    }

    /// What networks need of the kernel, tried out.
    fn features(&self) -> Vec<Feature> {
        Vec::new()
    }

    /// The links of the host's IPv4 default routes.
    fn uplinks(&self) -> Result<std::collections::BTreeSet<IfName>, StepError> {
        Ok(std::collections::BTreeSet::new())
    }

    /// Links of the host, not ours, that learn routes from router advertisements as long as the host itself
    /// forwards nothing (`accept_ra` 1): those that have such a route, and devices.
    fn advertised(&self) -> Result<std::collections::BTreeSet<IfName>, StepError> {
        Ok(std::collections::BTreeSet::new())
    }

    /// The link that the host's preferred default route leaves by, IPv4 before IPv6.
    fn egress(&self) -> Result<Option<IfName>, StepError> {
        Ok(None)
    }

    /// What is ours in the host's own namespace: links, their addresses, routes, sysctls, held ports. Sandboxes are
    /// not looked into and the firewall is not judged, so that it is cheap.
    fn observe_own(&self) -> Result<HostState, StepError> {
        self.observe()
    }

    /// A digest of rules, ours and others', whose changes no [`Watch`] hears of; none if there are no such
    /// rules. It costs so little that it may be asked for every second.
    fn unannounced_rules(&self) -> Option<u64> {
        None
    }

    /// Puts the firewall's rules back if they are not those that the last transaction left: whole, in
    /// one transaction. So is the place for the user's own rules, without them.
    fn restore_firewall(&self) -> Result<Restored, StepError> {
        Ok(Restored::default())
    }

    /// Starts watching the host's namespace; none where that cannot be done.
    fn watch(&self) -> Result<Option<Box<dyn Watch>>, StepError> {
        Ok(None)
    }

    /// Waits until none of these links is in the host's namespace any more: the end of the clean-up
    /// that [`Step::RemoveNamespace`] leaves to the kernel. False if they are still there after
    /// `limit`.
    fn await_gone(&self, links: &[IfName], limit: Duration) -> Result<bool, StepError> {
        let _ = (links, limit);
        Ok(true)
    }
}

/// What [`Host::restore_firewall`] had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The rules were not as we left them.
    pub rules: bool,
    /// The user's table was gone, and is there again: empty, as nobody but the user knows what was in it.
    pub users: bool,
}

/// A subscription to changes of the host's namespace, whoever makes them.
pub trait Watch: Send + fmt::Debug {
    /// Waits for changes, at most as long as `limit`; none then.
    fn next(&mut self, limit: Duration) -> Result<Vec<Disturbance>, StepError>;
}

/// A change of the host's namespace that may be one of what is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A link that has, or had, our alias changed, or is gone.
    Link {
        /// Its name now.
        name: IfName,
        /// The alias it got from us: `portolan:` and the id of a network or an endpoint.
        alias: String,
        /// As it is now, addresses aside; none if it is gone. A veth's peer is itself.
        found: Option<Box<Link>>,
    },
    /// An address was removed from a link.
    AddressGone(std::net::IpAddr),
    /// An address was removed from a link that is not ours. It may be one that we gave to a bridge which a
    /// network adopted; else it is one of the host's surroundings.
    ForeignAddressGone(std::net::IpAddr),
    /// A route of ours was removed.
    RouteGone,
    /// Somebody's route took the place of another one to the same destination.
    RouteReplaced(ipnet::IpNet),
    /// The route to the subnet of an address was removed from the link that has this alias of ours.
    SubnetGone(String),
    /// Forwarding or another of the settings that the kernel tells about was changed.
    Setting,
    /// Somebody else committed a transaction of nf_tables.
    Ruleset {
        /// Who: name and process id, as the kernel gave them.
        by: String,
        /// It touched a table of ours, or one in which iptables keeps rules.
        ours: bool,
    },
    /// A route or a link of somebody else's came, changed or went: it may overlap with a network of ours,
    /// or be the way out.
    Surroundings,
    /// More happened than the queue had room for.
    Lost,
}

/// A link of the host, as far as it matters whether a network can be on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLink {
    /// It is a software bridge.
    pub is_bridge: bool,
    /// It has an alias of ours.
    pub is_ours: bool,
    /// The addresses that somebody else gave it, in the kernel's order, but for link-local ones of IPv6. Where the
    /// kernel does not say who gave an address, ours are among them.
    pub addresses: Vec<ipnet::IpNet>,
}

/// Something that networks need of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// `nf_tables`, `bridges`, `veth pairs`, `connection tracking`; or `queue of packets`, which only ports that are
    /// carried over have a use for.
    pub name: &'static str,
    /// Why it cannot be used, if it cannot.
    pub missing: Option<String>,
}

/// Facts about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// `net.ipv4.ip_local_port_range`: where the kernel takes ports for those who do not care.
    pub ephemeral: PortRange,
    /// `net.ipv4.ip_local_reserved_ports`: taken only by those who ask for them.
    pub reserved: Vec<PortRange>,
    /// The kernel has IPv6 (`/proc/sys/net/ipv6` exists).
    pub ipv6: bool,
    /// Bridged frames pass the IP hooks (`net.bridge.bridge-nf-call-iptables` is 1).
    pub bridge_netfilter: bool,
    /// The firewall decides who may use ports at which the engine itself listens.
    pub guards_carried: bool,
}

impl Default for HostFacts {
    /// The kernel's defaults.
    fn default() -> Self {
        Self {
            ephemeral: PortRange { first: 32_768, last: 60_999 },
            reserved: Vec::new(),
            ipv6: true,
            bridge_netfilter: false,
            guards_carried: true,
        }
    }
}
