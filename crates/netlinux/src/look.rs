//! What there is of ours on the host and in its sandboxes, in the core's words: what `observe` reads, put together.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use portolan_netcore::model::{IfName, SandboxId};
use portolan_netcore::plan::{Altered, HostState, Link, LinkKey, LinkKind, Ns, Route, Stray};

use crate::error::Failure;
use crate::host::{LinuxHost, is_ours};
use crate::netlink::{NetlinkError, Socket};
use crate::netns;
use crate::observe::{self, Details, LinkSeen};
use crate::sysctl::Sysctls;

impl LinuxHost {
    pub(crate) fn observe_all(&self) -> Result<HostState, Failure> {
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
