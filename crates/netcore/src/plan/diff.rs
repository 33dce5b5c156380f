//! From one state of the host to another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::{claim, is_foreign};
use super::compile::{compile_touched, hold, route_localnet};
use super::order::{Phase, Unordered, order_interfaces};
use super::{Desired, HostState, Link, LinkKey, LinkKind, Ns, Route, Step, Touched};
use crate::firewall::{
    BridgePolicy, CarriedPort, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use crate::model::{Endpoint, EndpointId, MacAddr, PortBinding, Proto};
use crate::shared::SharedSet;

/// The steps from `observed` to `wanted`; none if the host is as wanted. What the host has beyond
/// what is wanted goes, except what cannot be taken back (sysctls) or is not ours to judge (`lo`).
pub fn diff(observed: &HostState, wanted: &HostState) -> Vec<Step> {
    let observed = &*claim(observed, wanted);
    let mut plan = Unordered::default();
    let kept = Kept::new(observed, wanted, &mut plan);
    for id in observed.namespaces.difference(&wanted.namespaces) {
        plan.push(Phase::RemoveEarly, Step::RemoveNamespace(id.clone()));
    }
    for id in wanted.namespaces.difference(&observed.namespaces) {
        plan.push(Phase::AddNamespace, Step::AddNamespace(id.clone()));
    }
    for (key, link) in &wanted.links {
        diff_link(key, link, kept.links.get(key), wanted, &mut plan);
    }
    diff_routes(&kept, wanted, &mut plan);
    diff_sysctls(&kept, wanted, &mut plan);
    diff_firewall(observed.firewall.as_ref(), wanted.firewall.as_ref(), &mut plan);
    diff_ports(observed, wanted, &mut plan);
    for (sandbox, &(udp, tcp)) in &wanted.dns_redirects {
        let as_wanted = observed.namespaces.contains(sandbox)
            && observed.dns_redirects.get(sandbox).is_some_and(|ports| *ports == (udp, tcp));
        if !as_wanted {
            plan.push(Phase::RedirectDns, Step::RedirectDns { sandbox: sandbox.clone(), udp, tcp });
        }
    }
    plan.sort()
}

/// The steps from one desired state to another of which only the touched entries differ. Costs
/// O(touched), whatever the size of the world; `before` may be a [`Desired::slice`].
pub fn change(before: &Desired, after: &Desired, touched: &Touched) -> Vec<Step> {
    let slices = (without_common_ports(before, after, touched), without_common_ports(after, before, touched));
    let mut steps = match &slices {
        (Some(before), Some(after)) => {
            diff(&compile_touched(before, touched), &compile_touched(after, touched))
        }
        _ => diff(&compile_touched(before, touched), &compile_touched(after, touched)),
    };
    order_interfaces(&mut steps, after, touched);
    steps
}

/// The touched part of `desired` without the published ports that stay as they are in `other`: one port
/// more among thousands costs as much as the first. None if an endpoint differs in more than its ports, or
/// its network may, as ports follow from that too.
fn without_common_ports(desired: &Desired, other: &Desired, touched: &Touched) -> Option<Desired> {
    let in_both = |id: &&EndpointId| desired.endpoints.contains_key(*id) && other.endpoints.contains_key(*id);
    if !touched.networks.is_empty() || touched.endpoints.iter().any(|id| !in_both(&id)) {
        return None;
    }
    let mut slice = desired.slice(touched);
    for (id, endpoint) in &mut slice.endpoints {
        let there = other.endpoints.get(id)?;
        let same_place = (&endpoint.network, &endpoint.sandbox, &endpoint.host_ifname)
            == (&there.network, &there.sandbox, &there.host_ifname);
        if !same_place || (endpoint.ipv4, endpoint.ipv6) != (there.ipv4, there.ipv6) {
            return None;
        }
        let mut here: SharedSet<PortBinding> =
            endpoint.published.changes_from(&there.published).map(key).collect();
        // Those that stay for other clients than before.
        let changed = |one: &Endpoint, other: &Endpoint| -> Vec<PortBinding> {
            let changed = one.allowed.changes_from(&other.allowed).map(key);
            changed.filter(|binding| endpoint.published.contains(binding)).collect()
        };
        here.extend(
            changed(endpoint, there).into_iter().chain(changed(there, endpoint)).map(|key| (key, ())),
        );
        Arc::make_mut(endpoint).published = here;
    }
    Some(slice)
}

fn key<V>((binding, _): (&PortBinding, V)) -> PortBinding {
    binding.clone()
}

/// What is left of the observed state once the links that cannot stay are gone.
struct Kept {
    links: BTreeMap<LinkKey, Link>,
    routes: BTreeSet<(Ns, Route)>,
    sysctls: BTreeMap<(Ns, String), String>,
}

impl Kept {
    fn new(observed: &HostState, wanted: &HostState, plan: &mut Unordered) -> Self {
        let doomed = doomed(observed, wanted);
        for (key, link) in &observed.links {
            if doomed.contains(key) {
                remove_link(key, link, observed, wanted, plan);
            } else if link.kind == LinkKind::Adopted && !wanted.links.contains_key(key) {
                let_go(key, link, observed, plan);
            }
        }
        let mut links = observed.links.clone();
        links.retain(|key, _| !doomed.contains(key));
        for link in links.values_mut() {
            // A bridge that is remade comes back without its ports.
            link.master.take_if(|master| doomed.contains(&(Ns::Host, master.clone())));
        }
        let gone = |ns: &Ns, name: &str| doomed.iter().any(|(n, ifname)| n == ns && ifname.as_str() == name);
        let dropped = |ns: &Ns| ends(ns, observed, wanted);
        let mut routes = observed.routes.clone();
        routes.retain(|(ns, route)| !dropped(ns) && !gone(ns, route.dev.as_str()));
        let mut sysctls = observed.sysctls.clone();
        sysctls.retain(|(ns, key), _| !dropped(ns) && !link_of(key).is_some_and(|name| gone(ns, name)));
        Self { links, routes, sysctls }
    }
}

/// A bridge that is not ours stays, as it was before us: without our addresses, and closed to packets for 127.0.0.0/8
/// before the rules go that keep those from outside off.
fn let_go(key: &LinkKey, link: &Link, observed: &HostState, plan: &mut Unordered) {
    for address in &link.addresses {
        plan.push(Phase::RemoveAddress, Step::RemoveAddress(key.clone(), *address));
    }
    let localnet = (key.0.clone(), route_localnet(&key.1));
    if observed.sysctls.get(&localnet).is_some_and(|value| value == "1") {
        plan.push(Phase::RemoveAddress, Step::SetSysctl(localnet.0, localnet.1, "0".to_owned()));
    }
}

/// The namespace goes, with all that is in it. A sandbox that is in neither state is not touched itself:
/// what endpoints have in it does not go by itself.
fn ends(ns: &Ns, observed: &HostState, wanted: &HostState) -> bool {
    match ns {
        Ns::Sandbox(id) => observed.namespaces.contains(id) && !wanted.namespaces.contains(id),
        Ns::Host => false,
    }
}

/// The link a sysctl belongs to: `eth0` of `net/ipv4/conf/eth0/forwarding`.
pub(super) fn link_of(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once("/conf/").or_else(|| key.split_once("/neigh/"))?;
    rest.split('/').next().filter(|name| !matches!(*name, "all" | "default"))
}

/// Links that are not wanted, or not so that they could be changed into what is; with their peers.
fn doomed(observed: &HostState, wanted: &HostState) -> BTreeSet<LinkKey> {
    let mut doomed = BTreeSet::new();
    for (key, link) in &observed.links {
        let not_ours = matches!(link.kind, LinkKind::Loopback | LinkKind::Adopted);
        if not_ours || can_stay(link, wanted.links.get(key), observed) {
            continue;
        }
        doomed.insert(key.clone());
        if let LinkKind::Veth { peer } = &link.kind
            && observed.links.contains_key(peer)
        {
            doomed.insert(peer.clone());
        }
    }
    // What is on top of a link goes with it.
    let bases: BTreeSet<_> = doomed.iter().filter(|key| key.0 == Ns::Host).map(|key| key.1.clone()).collect();
    let on_top = observed.links.iter().filter(|(_, link)| match &link.kind {
        LinkKind::Macvlan { parent, .. } | LinkKind::Ipvlan { parent, .. } => bases.contains(parent),
        _ => false,
    });
    doomed.extend(on_top.map(|(key, _)| key.clone()));
    doomed
}

pub(super) fn can_stay(link: &Link, wanted: Option<&Link>, observed: &HostState) -> bool {
    let Some(wanted) = wanted else { return false };
    let whole = match &link.kind {
        LinkKind::Veth { peer } => observed.links.contains_key(peer),
        LinkKind::Bridge
        | LinkKind::Adopted
        | LinkKind::Macvlan { .. }
        | LinkKind::Ipvlan { .. }
        | LinkKind::Vlan { .. }
        | LinkKind::Dummy
        | LinkKind::Loopback => true,
    };
    let same_vlan = link.kind != LinkKind::Bridge || link.vlan == wanted.vlan;
    let same_mac =
        link.kind == LinkKind::Bridge || wanted.mac.is_none() || link.mac.is_none() || wanted.mac == link.mac;
    whole
        && link.kind == wanted.kind
        && same_mac
        && same_vlan
        && (wanted.alias.is_none() || wanted.alias == link.alias || is_foreign(link))
}

fn remove_link(key: &LinkKey, link: &Link, observed: &HostState, wanted: &HostState, plan: &mut Unordered) {
    let LinkKind::Veth { peer } = &link.kind else {
        // Ahead of its namespace, too, which the kernel takes down when it comes to it: until then its
        // hardware address could not be another's on the same parent, nor an ipvlan's IP addresses.
        plan.push(Phase::RemoveEarly, Step::RemoveLink(key.clone()));
        return;
    };
    // One end names the pair: the host's, if both are known.
    if key.0 != Ns::Host && observed.links.contains_key(peer) {
        return;
    }
    // An endpoint that comes back under another name takes its rules along: the old link goes first.
    let moves = link.alias.is_some() && wanted.links.values().any(|other| other.alias == link.alias);
    let in_the_way = moves || wanted.links.contains_key(key) || wanted.links.contains_key(peer);
    let goes_with_its_namespace = [key, peer].iter().any(|(ns, _)| ends(ns, observed, wanted));
    if in_the_way {
        plan.push(Phase::RemoveEarly, Step::RemoveLink(key.clone()));
    } else if goes_with_its_namespace {
        // The kernel takes tens of milliseconds to take a namespace down. Until then nothing of it is heard.
        if link.master.is_some() {
            plan.push(Phase::RemoveEarly, Step::CutPort(key.clone()));
        }
    } else {
        plan.push(Phase::RemoveLate, Step::RemoveLink(key.clone()));
    }
}

pub(super) fn diff_link(
    key: &LinkKey,
    link: &Link,
    before: Option<&Link>,
    wanted: &HostState,
    plan: &mut Unordered,
) {
    match (&link.kind, before) {
        (LinkKind::Bridge, _) => diff_bridge(key, link, before, plan),
        (LinkKind::Adopted, _) => diff_adopted(key, link, before, plan),
        (
            LinkKind::Macvlan { .. } | LinkKind::Ipvlan { .. } | LinkKind::Vlan { .. } | LinkKind::Dummy,
            before,
        ) => diff_stacked(key, link, before, plan),
        (LinkKind::Loopback, before) => {
            if link.up && before.is_some_and(|lo| !lo.up) {
                plan.push(Phase::SetUp, Step::SetUp(key.clone(), true));
            }
        }
        (LinkKind::Veth { .. }, Some(before)) => diff_veth(key, link, before, plan),
        (LinkKind::Veth { peer }, None) => {
            if key.0 == Ns::Host
                && let Some(container_link) = wanted.links.get(peer)
            {
                let step = Step::AddVeth {
                    host: key.clone(),
                    host_link: Box::new(link.clone()),
                    container: peer.clone(),
                    container_link: Box::new(container_link.clone()),
                };
                plan.push(Phase::AddVeth, step);
            }
            configure_new_end(key, link, plan);
        }
    }
}

fn diff_bridge(key: &LinkKey, link: &Link, before: Option<&Link>, plan: &mut Unordered) {
    match before {
        None => plan.push(Phase::AddBridge, Step::AddBridge(key.clone(), Box::new(link.clone()))),
        Some(before) => {
            // Its settings and addresses for IPv6 come and go with an MTU of 1280.
            set_mtu(key, link, before, Phase::AddBridge, plan);
            put_back(key, link, before, plan);
            if let Some(mac) = link.mac.filter(|mac| before.mac.is_some_and(|found| found != *mac)) {
                plan.push(Phase::Attributes, Step::SetMac(key.clone(), mac));
                // Neighbours may have learnt the other one.
                let addresses = link.addresses.iter().copied().collect();
                plan.push(Phase::Announce, Step::Announce(key.clone(), addresses));
            }
            if link.learns_link_local != before.learns_link_local {
                let step = Step::SetLinkLocalLearning(key.clone(), link.learns_link_local);
                plan.push(Phase::AddBridge, step);
            }
        }
    }
    diff_addresses(key, link, before, Phase::BridgeAddress, plan);
    let was_up = before.is_some_and(|before| before.up);
    if link.up != was_up {
        plan.push(Phase::BridgeUp, Step::SetUp(key.clone(), link.up));
    }
}

/// A bridge that is not ours: nothing of it is looked at but whether it is there and up, and our addresses.
fn diff_adopted(key: &LinkKey, link: &Link, before: Option<&Link>, plan: &mut Unordered) {
    match before {
        None => plan.push(Phase::AddBridge, Step::AdoptBridge(key.clone())),
        Some(before) if !before.up => plan.push(Phase::BridgeUp, Step::SetUp(key.clone(), true)),
        Some(_) => {}
    }
    diff_addresses(key, link, before, Phase::BridgeAddress, plan);
}

/// A link of one end: on top of another, or leading nowhere.
fn diff_stacked(key: &LinkKey, link: &Link, before: Option<&Link>, plan: &mut Unordered) {
    // A link that another one is to be on comes before it.
    let (add, addressing, up) = match link.kind {
        LinkKind::Vlan { .. } | LinkKind::Dummy => (Phase::AddBridge, Phase::BridgeAddress, Phase::BridgeUp),
        _ => (Phase::AddVeth, Phase::AddAddress, Phase::SetUp),
    };
    match before {
        None => plan.push(add, Step::AddLink(key.clone(), Box::new(link.clone()))),
        Some(before) => set_mtu(key, link, before, Phase::Attributes, plan),
    }
    diff_addresses(key, link, before, addressing, plan);
    let was_up = before.is_some_and(|before| before.up);
    if link.up != was_up {
        plan.push(up, Step::SetUp(key.clone(), link.up));
    }
    if before.is_none() && key.0 != Ns::Host && link.mac.is_some() {
        announce_unless_derived(key, link, plan);
    }
}

fn diff_veth(key: &LinkKey, link: &Link, before: &Link, plan: &mut Unordered) {
    if link.master != before.master {
        plan.push(Phase::Attributes, Step::SetMaster(key.clone(), link.master.clone()));
    }
    let vlan_was = before.vlan.filter(|_| before.master == link.master);
    if link.master.is_some() && link.vlan != vlan_was {
        plan.push(Phase::Attributes, Step::SetPortVlan(key.clone(), link.vlan));
    }
    // A port that changes its bridge loses what was set on it as a port.
    let hairpin_was = before.hairpin && before.master == link.master;
    if link.master.is_some() && link.hairpin != hairpin_was {
        plan.push(Phase::Attributes, Step::SetHairpin(key.clone(), link.hairpin));
    }
    set_mtu(key, link, before, Phase::Attributes, plan);
    put_back(key, link, before, plan);
    diff_addresses(key, link, Some(before), Phase::AddAddress, plan);
    if link.up != before.up {
        plan.push(Phase::SetUp, Step::SetUp(key.clone(), link.up));
    }
}

/// What making the pair leaves to do; the host's end is up by then.
fn configure_new_end(key: &LinkKey, link: &Link, plan: &mut Unordered) {
    diff_addresses(key, link, None, Phase::AddAddress, plan);
    if key.0 == Ns::Host {
        if link.hairpin {
            plan.push(Phase::Attributes, Step::SetHairpin(key.clone(), true));
        }
        if link.vlan.is_some() {
            plan.push(Phase::Attributes, Step::SetPortVlan(key.clone(), link.vlan));
        }
        if !link.up {
            plan.push(Phase::SetUp, Step::SetUp(key.clone(), false));
        }
        return;
    }
    if link.up {
        plan.push(Phase::SetUp, Step::SetUp(key.clone(), true));
    }
    announce_unless_derived(key, link, plan);
}

fn announce_unless_derived(key: &LinkKey, link: &Link, plan: &mut Unordered) {
    // Neighbours may remember another hardware address for it, unless it follows from the address.
    let derived = |net: &ipnet::IpNet| match net {
        ipnet::IpNet::V4(v4) => link.mac == Some(MacAddr::of_ipv4(v4.addr())),
        ipnet::IpNet::V6(_) => true,
    };
    if !link.addresses.iter().all(derived) {
        plan.push(Phase::Announce, Step::Announce(key.clone(), link.addresses.iter().copied().collect()));
    }
}

fn set_mtu(key: &LinkKey, link: &Link, before: &Link, phase: Phase, plan: &mut Unordered) {
    let was = before.mtu.or(default_mtu(key, before));
    if let Some(mtu) = link.mtu.or(default_mtu(key, link))
        && was != Some(mtu)
    {
        plan.push(phase, Step::SetMtu(key.clone(), mtu));
    }
}

/// `ETH_DATA_LEN`: what the kernel gives bridges and veth pairs that are asked for no other. Inside a
/// sandbox it is its container's to change; a link on top of another has what that one has.
fn default_mtu((ns, _): &LinkKey, link: &Link) -> Option<u32> {
    (*ns == Ns::Host && matches!(link.kind, LinkKind::Bridge | LinkKind::Veth { .. })).then_some(1500)
}

/// What others changed of a link that stays, and nobody ever asks for.
fn put_back(key: &LinkKey, link: &Link, before: &Link, plan: &mut Unordered) {
    if let Some(alias) = link.alias.as_ref().filter(|_| before.alias != link.alias) {
        plan.push(Phase::Attributes, Step::SetAlias(key.clone(), alias.clone()));
    }
    // A port that changes its bridge loses what was set on it as a port.
    let stays = before.master == link.master;
    for attribute in before.altered.attributes.iter().filter(|_| stays) {
        plan.push(Phase::Attributes, Step::Reset(key.clone(), *attribute));
    }
    for address in before.altered.unrouted.intersection(&link.addresses) {
        plan.push(Phase::AddRoute, Step::AddConnected(key.clone(), *address));
    }
}

fn diff_addresses(key: &LinkKey, link: &Link, before: Option<&Link>, add: Phase, plan: &mut Unordered) {
    let none = BTreeSet::new();
    let had = before.map_or(&none, |before| &before.addresses);
    for address in link.addresses.difference(had) {
        plan.push(add, Step::AddAddress(key.clone(), *address));
    }
    for address in had.difference(&link.addresses) {
        plan.push(Phase::RemoveAddress, Step::RemoveAddress(key.clone(), *address));
    }
}

fn diff_routes(kept: &Kept, wanted: &HostState, plan: &mut Unordered) {
    let mut replaced = BTreeSet::new();
    for (ns, route) in wanted.routes.difference(&kept.routes) {
        replaced.insert((ns, route.destination, route.metric));
        plan.push(Phase::AddRoute, Step::AddRoute(ns.clone(), route.clone()));
    }
    for (ns, route) in kept.routes.difference(&wanted.routes) {
        if !replaced.contains(&(ns, route.destination, route.metric)) {
            plan.push(Phase::RemoveRoute, Step::RemoveRoute(ns.clone(), route.clone()));
        }
    }
}

fn diff_sysctls(kept: &Kept, wanted: &HostState, plan: &mut Unordered) {
    for (key, value) in &wanted.sysctls {
        if kept.sysctls.get(key) != Some(value) {
            let phase = match (&key.0, link_of(&key.1)) {
                (Ns::Host, _) => Phase::HostSysctl,
                (Ns::Sandbox(_), None) => Phase::NamespaceSysctl,
                (Ns::Sandbox(_), Some(_)) => Phase::LinkSysctl,
            };
            plan.push(phase, Step::SetSysctl(key.0.clone(), key.1.clone(), value.clone()));
        }
    }
}

fn diff_firewall(observed: Option<&FirewallPolicy>, wanted: Option<&FirewallPolicy>, plan: &mut Unordered) {
    let (observed, wanted) = match (observed, wanted) {
        (None, None) => return,
        (Some(_), None) => return plan.push(Phase::LateFirewall, Step::Firewall(Transaction::Clear)),
        (None, Some(wanted)) => {
            return plan.push(Phase::OpenFirewall, Step::Firewall(Transaction::Replace(wanted.clone())));
        }
        (Some(observed), Some(wanted)) => (observed, wanted),
    };
    let mut close = Vec::new();
    let mut replace = Vec::new();
    let mut open = Vec::new();
    let mut late = Vec::new();
    let bridge = |bridge: &BridgePolicy| PolicyItem::Bridge(bridge.clone());
    diff_items(&observed.bridges, &wanted.bridges, bridge, &mut replace, &mut open, &mut late);
    diff_items(
        &observed.endpoints,
        &wanted.endpoints,
        |endpoint: &EndpointPolicy| PolicyItem::Endpoint(endpoint.clone()),
        &mut replace,
        &mut open,
        &mut late,
    );
    let port = |port: &PublishedPort| PolicyItem::Port(port.clone());
    diff_items(&ports(observed), &ports(wanted), |item| port(item), &mut replace, &mut open, &mut close);
    // Its socket listens until the port is let go of: the rules go after that.
    let carried = |port: &CarriedPort| PolicyItem::Carried(port.clone());
    diff_items(
        &carried_ports(observed),
        &carried_ports(wanted),
        |item| carried(item),
        &mut replace,
        &mut open,
        &mut late,
    );
    // Connectionless flows live on in conntrack as long as packets come: those to a port that changed
    // hands would still go to its old holder.
    let changed = observed.published.symmetric_difference(&wanted.published).map(|port| &port.binding);
    let forget: BTreeSet<PortBinding> =
        changed.filter(|port| port.proto == Proto::Udp && port.host_port != 0).map(hold).collect();
    if !forget.is_empty() {
        plan.push(Phase::ForgetFlows, Step::ForgetFlows(forget.into_iter().collect()));
    }
    for (phase, remove, add) in [
        (Phase::CloseFirewall, close, Vec::new()),
        (Phase::OpenFirewall, replace, open),
        (Phase::LateFirewall, late, Vec::new()),
    ] {
        if !(remove.is_empty() && add.is_empty()) {
            plan.push(phase, Step::Firewall(Transaction::Change { remove, add }));
        }
    }
}

/// Sorts items into those that come, those that make way for a new one under the same key in the
/// same transaction, and those that just go.
fn diff_items<K: Ord, V: PartialEq>(
    observed: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    item: impl Fn(&V) -> PolicyItem,
    replaced: &mut Vec<PolicyItem>,
    added: &mut Vec<PolicyItem>,
    gone: &mut Vec<PolicyItem>,
) {
    for (key, value) in wanted {
        match observed.get(key) {
            Some(same) if same == value => continue,
            Some(old) => replaced.push(item(old)),
            None => {}
        }
        added.push(item(value));
    }
    for (key, value) in observed {
        if !wanted.contains_key(key) {
            gone.push(item(value));
        }
    }
}

fn ports(policy: &FirewallPolicy) -> BTreeMap<PortKey, &PublishedPort> {
    policy.published.iter().map(|port| (port_key(port), port)).collect()
}

fn carried_ports(policy: &FirewallPolicy) -> BTreeMap<(Proto, IpAddr, u16), &CarriedPort> {
    let place = |binding: &PortBinding| (binding.proto, binding.host_ip, binding.host_port);
    policy.carried.iter().map(|port| (place(&port.binding), port)).collect()
}

/// The place on the host; of what has none, where it leads.
type PortKey = (Proto, IpAddr, u16, Option<(IpAddr, u16)>);

fn port_key(port: &PublishedPort) -> PortKey {
    let binding = &port.binding;
    let leads_to = (binding.host_port == 0).then_some((port.target, binding.container_port));
    (binding.proto, binding.host_ip, binding.host_port, leads_to)
}

fn diff_ports(observed: &HostState, wanted: &HostState, plan: &mut Unordered) {
    let holds = |state: &HostState| -> BTreeSet<PortBinding> { state.held_ports.iter().map(hold).collect() };
    let (observed_proxies, wanted_proxies) = (&observed.proxied_ports, &wanted.proxied_ports);
    let (observed, wanted) = (holds(observed), holds(wanted));
    for (port, proxied) in wanted_proxies {
        if observed_proxies.get(port) != Some(proxied) || !observed.contains(port) {
            plan.push(Phase::Proxy, Step::ProxyPort(port.clone(), proxied.clone()));
        }
    }
    for (port, proxied) in observed_proxies {
        // Letting go of a port ends its proxy. One that is to lead elsewhere leads nowhere while the rules
        // change: what they let in is for the new place.
        let stays = wanted_proxies.get(port).is_some_and(|wanted| wanted.target == proxied.target);
        if !stays && wanted.contains(port) && observed.contains(port) {
            plan.push(Phase::Unproxy, Step::UnproxyPort(port.clone()));
        }
    }
    for port in observed.difference(&wanted) {
        plan.push(Phase::ReleasePort, Step::ReleasePort(port.clone()));
    }
    for port in wanted.difference(&observed) {
        plan.push(Phase::HoldPort, Step::HoldPort(port.clone()));
    }
}
