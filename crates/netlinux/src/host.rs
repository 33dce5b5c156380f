//! The host as the core sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_netcore::foreign;
use portolan_netcore::host::{
    Feature, ForeignRoute, FoundLink, Host, HostFacts, Report, Restored, StepError, Watch,
};
use portolan_netcore::model::{IfName, PortRange, SandboxId};
use portolan_netcore::plan::{ALIAS_PREFIX, HostState, Ns, Step};

use crate::announce::Announcer;
use crate::drift::NamespaceWatch;
use crate::error::Failure;
use crate::firewall::{Firewall, FirewallBackend, FirewallError};
use crate::firewalld;
use crate::iptables;
use crate::keeper::{Keeper, Kept};
use crate::netlink::{NetlinkError, Protocol, Socket};
use crate::netns::{self, Pins};
use crate::observe::{self, LinkSeen};
use crate::packets;
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
    /// Why endpoints are not asked before their clients are accepted, if they are not.
    pub(crate) unasked: Option<String>,
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
        // Before the firewall's rules send anything there.
        let (queue, rule, unasked) = match packets::open_for(config.firewall) {
            Ok((queue, rule)) => (Some(queue), Some(rule), None),
            Err(why) => (None, None, Some(why)),
        };
        Ok(Self {
            namespace: netns::current().map_err(resource("the host's network namespace"))?,
            sandboxes: Sandboxes::new(pins),
            ports,
            kept,
            proxies: Proxies::new(queue),
            firewall: Firewall::open_again(config.firewall, owner, rule)?,
            unasked,
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
        let mut features = crate::features::try_out();
        features.push(Feature { name: "queue of packets", missing: self.unasked.clone() });
        features
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

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub(crate) fn is_ours(link: &LinkSeen) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS_PREFIX))
}

/// `8080` or `9000-9100`, as `ip_local_reserved_ports` has them.
fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
}
