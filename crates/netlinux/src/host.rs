//! The host as the core sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::foreign;
use portolan_netcore::host::{
    Feature, ForeignRoute, FoundLink, Host, HostFacts, Report, Restored, StepError, Watch,
};
use portolan_netcore::model::{IfName, PortRange, SandboxId};
use portolan_netcore::plan::{
    ALIAS_PREFIX, Altered, HostState, Link, LinkKey, LinkKind, Ns, Route, Step, Stray,
};

use crate::announce::Announcer;
use crate::drift::NamespaceWatch;
use crate::error::Failure;
use crate::firewall::{Firewall, FirewallBackend, FirewallError};
use crate::firewalld;
use crate::iptables;
use crate::keeper::{Keeper, Kept};
use crate::netlink::{NetlinkError, Protocol, Socket};
use crate::netns::{self, Pins};
use crate::observe::{self, Details, LinkSeen};
use crate::ports::HeldPorts;
use crate::proxy::Proxies;
use crate::rt::{ROUTE_KINDS, RTPROT_RA};
use crate::sandbox::Sandboxes;
use crate::settings::WatchedSettings;
use crate::sysctl::{SharedSysctls, Sysctls};
use crate::watch;

/// How to open a [`LinuxHost`].
#[derive(Clone, Debug)]
pub struct LinuxHostConfig {
    /// Runtime files: namespaces are pinned in `<exec_root>/netns`.
    pub exec_root: PathBuf,
    /// What enforces the firewall.
    pub firewall: FirewallBackend,
}

/// The host cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory for namespaces cannot be prepared.
    #[error("cannot prepare {} for network namespaces: {}", path.display(), crate::error::words(source))]
    Pins {
        /// The exec root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread, a namespace's descriptor or a procfs instance is not to be had.
    #[error("cannot open {what}: {}", crate::error::words(source))]
    Resource {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Links cannot be managed.
    #[error("cannot talk to the kernel: {0}")]
    Netlink(#[from] NetlinkError),
    /// The firewall cannot be managed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// The machine whose network namespace the opening thread is in. All calls must come from threads in
/// that same namespace.
///
/// What no kernel object remembers (held ports, which sysctls and DNS redirections we have set) is
/// remembered here. It is gone with the process, but for the ports where there is a [`Keeper`]: the core then
/// plans it again, which does no harm.
#[derive(Debug)]
pub struct LinuxHost {
    pub(crate) namespace: OwnedFd,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) ports: HeldPorts,
    pub(crate) kept: Kept,
    pub(crate) proxies: Proxies,
    pub(crate) firewall: Firewall,
    /// Counts the transactions of the firewall.
    pub(crate) applied: AtomicU64,
    /// For the host's own sysctls.
    pub(crate) sysctls: Sysctls,
    /// For the sandboxes'.
    pub(crate) sandbox_sysctls: SharedSysctls,
    pub(crate) announcer: Announcer,
    pub(crate) memory: Mutex<Memory>,
    /// Links of the host's namespace that were seen with an alias of ours, by index.
    pub(crate) aliases: Aliases,
    /// The host's sysctls that we have set, and who hears of it when others do.
    pub(crate) settings: Arc<WatchedSettings>,
    /// Idle NETLINK_ROUTE sockets in the host's namespace.
    idle: Mutex<Vec<Socket>>,
}

/// Aliases by index of the link, shared with the watch.
pub(crate) type Aliases = Arc<Mutex<BTreeMap<u32, String>>>;

/// See [`LinuxHost`].
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) sysctls: BTreeSet<(Ns, String)>,
    pub(crate) dns_redirects: BTreeMap<SandboxId, (u16, u16)>,
}

impl LinuxHost {
    /// Opens the host. It changes nothing but to prepare `<exec_root>/netns`.
    pub fn open(config: &LinuxHostConfig) -> Result<Self, OpenError> {
        Self::open_again(config, None, [])
    }

    /// The same where a keeper outlives this process, and has kept `left` of an earlier one.
    pub fn open_again(
        config: &LinuxHostConfig,
        keeper: Option<Arc<dyn Keeper>>,
        left: impl IntoIterator<Item = (String, OwnedFd)>,
    ) -> Result<Self, OpenError> {
        let resource = |what| move |source| OpenError::Resource { what, source };
        let pins = Pins::open(&config.exec_root)
            .map_err(|source| OpenError::Pins { path: config.exec_root.clone(), source })?;
        let (ports, kept) = (HeldPorts::default(), Kept::by(keeper));
        let owner = Self::adopt_ports(&ports, &kept, left);
        if pins.list().is_ok_and(|pins| !pins.is_empty()) {
            kept.firewall();
        }
        Ok(Self {
            namespace: netns::current().map_err(resource("the host's network namespace"))?,
            sandboxes: Sandboxes::new(pins),
            ports,
            kept,
            proxies: Proxies::default(),
            firewall: Firewall::open_again(config.firewall, owner)?,
            applied: AtomicU64::new(0),
            sysctls: Sysctls::open().map_err(resource("a procfs instance"))?,
            sandbox_sysctls: SharedSysctls::default(),
            announcer: Announcer::start().map_err(resource("the announcing thread"))?,
            memory: Mutex::default(),
            aliases: Aliases::default(),
            settings: Arc::new(WatchedSettings::new()),
            idle: Mutex::new(vec![Socket::open(Protocol::Route)?]),
        })
    }

    /// Where a sandbox's namespace is pinned, for the container's processes to enter it.
    pub fn namespace_path(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes.pins().path(id)
    }

    /// The firewall, for those who look at it beyond what the core plans.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// Calls `task` with a NETLINK_ROUTE socket in the host's namespace. Several threads may do so at
    /// once; the kernel serialises what it must.
    pub(crate) fn with_socket<R>(
        &self,
        task: impl FnOnce(&mut Socket) -> Result<R, NetlinkError>,
    ) -> Result<R, NetlinkError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut socket = match idle {
            Some(socket) => socket,
            None => Socket::open(Protocol::Route)?,
        };
        let result = task(&mut socket);
        // A socket that did not get all its answers is not used again.
        if matches!(result, Ok(_) | Err(NetlinkError::Refused { .. })) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        }
        result
    }

    pub(crate) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps in mind which links are ours, whatever becomes of their aliases.
    pub(crate) fn note_aliases(&self, links: &BTreeMap<u32, LinkSeen>) {
        let ours = links.values().filter(|link| is_ours(link));
        let ours = ours.filter_map(|link| Some((link.index, link.alias.clone()?)));
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner).extend(ours);
    }

    fn observe_all(&self) -> Result<HostState, Failure> {
        let mut state = HostState {
            namespaces: self.sandboxes.pins().list()?,
            held_ports: self.ports.list(),
            proxied_ports: self.proxies.list(),
            firewall: self.firewall.verify()?,
            ..HostState::default()
        };
        let look = self.with_socket(look)?;
        let (ours, others): (Vec<&LinkSeen>, Vec<&LinkSeen>) =
            look.links.values().partition(|link| is_ours(link));
        for link in others.iter().filter(|link| link.kind.as_deref() == Some("bridge")) {
            state.strays.insert(link.name.clone(), look.stray(link, LinkKind::Bridge));
        }
        let pairs = ours.iter().chain(others.iter().filter(|link| link.kind.as_deref() == Some("veth")));
        let ends: HostEnds<'_> =
            pairs.filter_map(|link| Some(((link.peer_namespace?, link.peer?), *link))).collect();
        let mut peers: BTreeMap<u32, LinkKey> = BTreeMap::new();
        for id in state.namespaces.clone() {
            let host = Seen { look: &look, ends: &ends };
            let seen = self.observe_sandbox(&id, &host, &mut peers, &mut state);
            self.sandboxes.close([&id]);
            seen?;
        }
        for link in ours {
            let key = (Ns::Host, link.name.clone());
            let kind = match link.kind.as_deref() {
                Some("bridge") => LinkKind::Bridge,
                // Without its other end in a pinned sandbox it is about to go, or left over: then it
                // names itself.
                Some("macvlan" | "ipvlan" | "vlan" | "dummy") => match stacked(link, &look.links) {
                    Some(kind) => kind,
                    None => continue,
                },
                Some("veth") => {
                    LinkKind::Veth { peer: peers.get(&link.index).cloned().unwrap_or_else(|| key.clone()) }
                }
                _ => continue,
            };
            state.links.insert(key, look.host_link(link, kind));
        }
        state.routes.extend(look.our_routes());
        self.observe_memory(&mut state);
        Ok(state)
    }

    fn observe_sandbox(
        &self,
        id: &SandboxId,
        host: &Seen<'_>,
        peers: &mut BTreeMap<u32, LinkKey>,
        state: &mut HostState,
    ) -> Result<(), Failure> {
        let Some(sandbox) = self.sandboxes.get(id)? else {
            state.namespaces.remove(id);
            return Ok(());
        };
        let ns = Ns::Sandbox(id.clone());
        let ns_id = self.with_socket(|socket| observe::namespace_id(socket, sandbox.namespace()))?;
        let Look { links, addresses, routes } = look(&mut sandbox.route())?;
        for link in links.values() {
            let key = (ns.clone(), link.name.clone());
            // Links that the container made for itself are its own affair.
            if let Some(host_end) = ns_id.and_then(|ns_id| host.ends.get(&(ns_id, link.index))) {
                let kind = LinkKind::Veth { peer: (Ns::Host, host_end.name.clone()) };
                let seen = to_link(link, kind, None, addresses.get(&link.index));
                if is_ours(host_end) {
                    peers.insert(host_end.index, key.clone());
                    state.links.insert(key, seen);
                } else {
                    let peer = (Ns::Host, host_end.name.clone());
                    let mut stray = host.look.stray(host_end, LinkKind::Veth { peer });
                    stray.end = Some((key, seen));
                    state.strays.insert(host_end.name.clone(), stray);
                }
            } else if is_ours(link)
                && let Some(kind) = stacked(link, &host.look.links)
            {
                state.links.insert(key, to_link(link, kind, None, addresses.get(&link.index)));
            } else if link.index == crate::link::LOOPBACK_INDEX {
                let addresses = addresses.get(&link.index);
                let lo = Link { mac: None, mtu: None, ..to_link(link, LinkKind::Loopback, None, addresses) };
                state.links.insert(key, lo);
            }
        }
        for route in routes.iter().filter(|route| route.is_ours()) {
            // Those that lead nowhere have no link, or lo.
            let device = route.device.unwrap_or(crate::link::LOOPBACK_INDEX);
            if let Some(link) = links.get(&device) {
                state.routes.insert((ns.clone(), route.to_route(link.name.clone())));
            }
        }
        Ok(())
    }

    /// Sysctls and redirections that we have set and whose place still exists.
    fn observe_memory(&self, state: &mut HostState) {
        let memory = self.memory();
        let exists = |id: &SandboxId| state.namespaces.contains(id);
        state.dns_redirects = memory
            .dns_redirects
            .iter()
            .filter(|(id, _)| exists(id))
            .map(|(id, at)| (id.clone(), *at))
            .collect();
        let mut wanted: BTreeMap<Ns, Vec<String>> = BTreeMap::new();
        for (ns, key) in &memory.sysctls {
            wanted.entry(ns.clone()).or_default().push(key.clone());
        }
        drop(memory);
        for (ns, keys) in wanted {
            for (key, value) in self.read_sysctls(&ns, &keys) {
                state.sysctls.insert((ns.clone(), key), value);
            }
        }
    }

    fn read_sysctls(&self, ns: &Ns, keys: &[String]) -> Vec<(String, String)> {
        let read_all = |sysctls: &Sysctls| {
            keys.iter().filter_map(|key| Some((key.clone(), sysctls.read(key).ok()?))).collect()
        };
        match ns {
            Ns::Host => read_all(&self.sysctls),
            Ns::Sandbox(id) => {
                let Ok(Some(sandbox)) = self.sandboxes.get(id) else { return Vec::new() };
                let Ok(sysctls) = self.sandbox_sysctls.get() else { return Vec::new() };
                netns::inside(sandbox.namespace(), || read_all(&sysctls)).unwrap_or_default()
            }
        }
    }

    fn read_facts(&self) -> Result<HostFacts, Failure> {
        let range = self.sysctls.read("net/ipv4/ip_local_port_range")?;
        let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse().ok());
        let ephemeral = match (bounds.next(), bounds.next()) {
            (Some(first), Some(last)) => PortRange { first, last },
            _ => HostFacts::default().ephemeral,
        };
        let reserved = self.sysctls.read("net/ipv4/ip_local_reserved_ports")?;
        let reserved = reserved.split(',').filter_map(port_range).collect();
        let ipv6 = self.sysctls.read("net/ipv6/conf/all/disable_ipv6").is_ok();
        // The key exists while br_netfilter is loaded.
        let bridge_netfilter =
            self.sysctls.read("net/bridge/bridge-nf-call-iptables").is_ok_and(|value| value == "1");
        let guards_carried = self.firewall.guards_carried();
        Ok(HostFacts { ephemeral, reserved, ipv6, bridge_netfilter, guards_carried })
    }
}

impl Host for LinuxHost {
    fn observe(&self) -> Result<HostState, StepError> {
        self.observe_all().map_err(|failure| failure.at("observe the host"))
    }

    fn execute(&self, steps: &[Step]) -> Report {
        self.execute_steps(steps)
    }

    fn observe_own(&self) -> Result<HostState, StepError> {
        self.observe_namespace().map_err(|failure| failure.at("observe the host's namespace"))
    }

    fn restore_firewall(&self) -> Result<Restored, StepError> {
        self.firewall.restore().map_err(|error| Failure::from(error).at("restore the firewall"))
    }

    fn unannounced_rules(&self) -> Option<u64> {
        // With the changes of our own: what is flushed just after one of them is as it was before it.
        iptables::legacy_digest().map(|digest| digest.wrapping_add(self.applied.load(Ordering::SeqCst)))
    }

    fn watch(&self) -> Result<Option<Box<dyn Watch>>, StepError> {
        let (aliases, settings) = (Arc::clone(&self.aliases), Arc::clone(&self.settings));
        let open = || {
            let watch = NamespaceWatch::open(self.firewall.port(), aliases, settings)?;
            // From here on the watch hears of new ones.
            self.note_aliases(&self.with_socket(observe::links)?);
            Ok(watch)
        };
        let watch =
            open().map_err(|error: NetlinkError| Failure::from(error).at("watch the host's namespace"))?;
        Ok(Some(Box::new(watch)))
    }

    /// Default routes are left out: they overlap with everything.
    fn foreign_routes(&self) -> Result<Vec<ForeignRoute>, StepError> {
        let read = |socket: &mut Socket| {
            let (links, routes) = (observe::links(socket)?, observe::routes_in_use(socket)?);
            Ok((links, routes, observe::local_addresses(socket)?))
        };
        let (links, routes, local) =
            self.with_socket(read).map_err(|error| Failure::from(error).at("read the host's routes"))?;
        let on_our_link = |index: Option<u32>| index.and_then(|index| links.get(&index)).is_some_and(is_ours);
        let leads_somewhere = |kind: &u8| ROUTE_KINDS.iter().any(|(_, number)| number == kind);
        let foreign = routes.iter().filter(|route| {
            leads_somewhere(&route.kind)
                && !route.is_ours()
                && !on_our_link(route.device)
                && route.destination.prefix_len() > 0
        });
        let foreign =
            foreign.map(|route| ForeignRoute { destination: route.destination, on_link: route.is_on_link() });
        // What is for an address of the host stays with the host.
        let local = local.into_iter().filter(|(index, address)| {
            !on_our_link(Some(*index)) && !address.is_loopback() && !is_link_local(*address)
        });
        let local = local.map(|(_, address)| ForeignRoute { destination: address.into(), on_link: true });
        let foreign = foreign.chain(local);
        Ok(foreign.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn introduce(&self) -> Result<(), StepError> {
        let step = "put the bridges into firewalld's zone";
        let links = self.with_socket(observe::links).map_err(|error| Failure::from(error).at(step))?;
        let is_bridge = |link: &&LinkSeen| is_ours(link) && link.kind.as_deref() == Some("bridge");
        let bridges = links.values().filter(is_bridge).map(|link| link.name.clone()).collect();
        let all = links.values().map(|link| link.name.clone()).collect();
        let failed = |reason| StepError { step: step.into(), reason, errno: None, transient: true };
        firewalld::introduce(&bridges, &all).map_err(failed)
    }

    fn foreign_rules(&self) -> Result<foreign::Ruleset, StepError> {
        self.read_foreign().map_err(|failure| failure.at("read other programs' firewall rules"))
    }

    fn facts(&self) -> Result<HostFacts, StepError> {
        self.read_facts().map_err(|failure| failure.at("read the host's port ranges"))
    }

    fn links(&self) -> Result<BTreeMap<IfName, u32>, StepError> {
        let links = self
            .with_socket(observe::links)
            .map_err(|error| Failure::from(error).at("read the host's links"))?;
        Ok(links.into_values().map(|link| (link.name, link.mtu)).collect())
    }

    fn link(&self, name: &IfName) -> Result<Option<FoundLink>, StepError> {
        let read = |socket: &mut Socket| {
            let Some(link) = observe::link_named(socket, name)? else { return Ok(None) };
            let is_bridge = link.kind.as_deref() == Some("bridge");
            let addresses =
                if is_bridge { observe::foreign_addresses(socket, link.index)? } else { Vec::new() };
            Ok(Some(FoundLink { is_bridge, is_ours: is_ours(&link), addresses }))
        };
        self.with_socket(read)
            .map_err(|error| Failure::from(error).at(format!("look for the link {name}").as_str()))
    }

    fn egress(&self) -> Result<Option<IfName>, StepError> {
        let read = |socket: &mut Socket| Ok((observe::links(socket)?, observe::routes(socket)?));
        let (links, routes) =
            self.with_socket(read).map_err(|error| Failure::from(error).at("read the host's routes"))?;
        let default = routes.iter().filter(|route| route.destination.prefix_len() == 0);
        let best = default.min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric));
        Ok(best.and_then(|route| links.get(&route.device?)).map(|link| link.name.clone()))
    }

    fn setting(&self, key: &str) -> Option<String> {
        self.sysctls.read(key).ok()
    }

    fn features(&self) -> Vec<Feature> {
        crate::features::try_out()
    }

    fn uplinks(&self) -> Result<BTreeSet<IfName>, StepError> {
        let read = |socket: &mut Socket| Ok((observe::links(socket)?, observe::routes(socket)?));
        let (links, routes) =
            self.with_socket(read).map_err(|error| Failure::from(error).at("read the host's routes"))?;
        let default = routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0 && route.destination.addr().is_ipv4());
        Ok(default.filter_map(|route| links.get(&route.device?)).map(|link| link.name.clone()).collect())
    }

    fn advertised(&self) -> Result<BTreeSet<IfName>, StepError> {
        let read = |socket: &mut Socket| Ok((observe::links(socket)?, observe::routes(socket)?));
        let (links, routes) =
            self.with_socket(read).map_err(|error| Failure::from(error).at("read the host's routes"))?;
        let learnt: BTreeSet<u32> = routes
            .iter()
            .filter(|route| route.protocol == RTPROT_RA)
            .filter_map(|route| route.device)
            .collect();
        let is = |link: &LinkSeen, name: &str, value: &str| {
            let key = format!("net/ipv6/conf/{}/{name}", link.name);
            self.sysctls.read(&key).is_ok_and(|found| found == value)
        };
        let listens = |link: &&LinkSeen| {
            let device = link.kind.is_none() && link.index != crate::link::LOOPBACK_INDEX;
            (device || learnt.contains(&link.index))
                && !is_ours(link)
                && is(link, "accept_ra", "1")
                && is(link, "forwarding", "0")
        };
        Ok(links.values().filter(listens).map(|link| link.name.clone()).collect())
    }

    fn await_gone(&self, links: &[IfName], limit: Duration) -> Result<bool, StepError> {
        watch::links_gone(links, limit).map_err(|error| Failure::from(error).at("wait for links to go"))
    }
}

/// Our veth ends on the host, by the id of the other end's namespace and its index there.
type HostEnds<'a> = BTreeMap<(i32, u32), &'a LinkSeen>;

/// What is seen of the host before its sandboxes are looked at.
struct Seen<'a> {
    look: &'a Look,
    ends: &'a HostEnds<'a>,
}

/// A link on top of one of the host's, or a dummy.
pub(crate) fn stacked(link: &LinkSeen, host: &BTreeMap<u32, LinkSeen>) -> Option<LinkKind> {
    let parent = || link.peer.and_then(|index| host.get(&index)).map(|parent| parent.name.clone());
    Some(match (link.kind.as_deref()?, link.details) {
        ("macvlan", Some(Details::Macvlan(mode))) => LinkKind::Macvlan { parent: parent()?, mode },
        ("ipvlan", Some(Details::Ipvlan(mode, flag))) => LinkKind::Ipvlan { parent: parent()?, mode, flag },
        ("vlan", Some(Details::Vlan(id))) => LinkKind::Vlan { parent: parent()?, id },
        ("dummy", _) => LinkKind::Dummy,
        _ => return None,
    })
}

/// What is in a namespace.
pub(crate) struct Look {
    pub(crate) links: BTreeMap<u32, LinkSeen>,
    addresses: BTreeMap<u32, BTreeSet<IpNet>>,
    routes: Vec<observe::RouteSeen>,
}

pub(crate) fn look(socket: &mut Socket) -> Result<Look, NetlinkError> {
    let (links, addresses) = (observe::links(socket)?, observe::addresses(socket)?);
    Ok(Look { links, addresses, routes: observe::routes(socket)? })
}

impl Look {
    /// A link of the host in the core's words.
    pub(crate) fn host_link(&self, link: &LinkSeen, kind: LinkKind) -> Link {
        let master = link.master.and_then(|index| self.links.get(&index)).map(|master| master.name.clone());
        let mut seen = to_link(link, kind, master, self.addresses.get(&link.index));
        // The routes of a link that is down are gone rightly.
        if link.up {
            let unrouted = seen.addresses.iter().filter(|address| !self.is_routed(link.index, **address));
            seen.altered.unrouted = unrouted.copied().collect();
        }
        seen
    }

    /// The same of one that does not bear our alias.
    pub(crate) fn stray(&self, link: &LinkSeen, kind: LinkKind) -> Stray {
        Stray { link: self.host_link(link, kind), once: None, end: None }
    }

    /// There is the route that the kernel makes for an address, whoever made it.
    fn is_routed(&self, index: u32, address: IpNet) -> bool {
        let to_subnet = |route: &observe::RouteSeen| {
            route.device == Some(index) && route.gateway.is_none() && route.destination == address.trunc()
        };
        address.prefix_len() == address.max_prefix_len() || self.routes.iter().any(to_subnet)
    }

    /// The host's routes of ours.
    pub(crate) fn our_routes(&self) -> impl Iterator<Item = (Ns, Route)> {
        let ours = self.routes.iter().filter(|route| route.is_ours());
        ours.filter_map(|route| {
            let dev = self.links.get(&route.device?)?.name.clone();
            Some((Ns::Host, route.to_route(dev)))
        })
    }
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub(crate) fn is_ours(link: &LinkSeen) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS_PREFIX))
}

pub(crate) fn to_link(
    seen: &LinkSeen,
    kind: LinkKind,
    master: Option<IfName>,
    addresses: Option<&BTreeSet<IpNet>>,
) -> Link {
    Link {
        kind,
        mac: seen.mac,
        mtu: Some(seen.mtu),
        master,
        hairpin: seen.hairpin,
        addresses: addresses.cloned().unwrap_or_default(),
        up: seen.up,
        alias: seen.alias.clone(),
        vlan: match seen.details {
            Some(Details::Bridge { vlan, .. }) => vlan,
            _ => None,
        },
        learns_link_local: matches!(seen.details, Some(Details::Bridge { learns_link_local: true, .. })),
        altered: Altered { attributes: seen.altered.clone(), ..Altered::default() },
    }
}

/// `8080` or `9000-9100`, as `ip_local_reserved_ports` has them.
fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
}
