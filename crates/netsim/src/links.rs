//! Namespaces, links, addresses and routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_netcore::model::{IPV6_MIN_MTU, IfName, SandboxId};
use portolan_netcore::plan::{HostState, Link, LinkKey, LinkKind, Ns, Route, RouteKind, Step};

use crate::host::{EEXIST, ENETUNREACH, ENODEV, ENOENT, EPERM, Errno};

pub(crate) fn namespace_exists(state: &HostState, ns: &Ns) -> Result<(), Errno> {
    match ns {
        Ns::Sandbox(id) if !state.namespaces.contains(id) => Err(ENOENT),
        _ => Ok(()),
    }
}

/// The kernel has settings of a link where there is one, and of IPv6 if it is large enough for it.
pub(crate) fn has_setting(state: &HostState, ns: &Ns, key: &str) -> Result<(), Errno> {
    namespace_exists(state, ns)?;
    let Some((_, rest)) = key.split_once("/conf/") else { return Ok(()) };
    let name = rest.split('/').next().unwrap_or_default();
    if *ns != Ns::Host || matches!(name, "all" | "default") {
        return Ok(());
    }
    let link = state.links.iter().find(|((at, other), _)| at == ns && other.as_str() == name);
    let (_, link) = link.ok_or(ENOENT)?;
    let too_small = link.mtu.is_some_and(|mtu| mtu < IPV6_MIN_MTU);
    if too_small && key.starts_with("net/ipv6/") { Err(ENOENT) } else { Ok(()) }
}

/// Steps about links; others are none of this module's and do nothing.
/// `foreign_master`: the bridge that a new pair is to be a port of is somebody else's, and there.
pub(crate) fn apply(state: &mut HostState, step: &Step, foreign_master: bool) -> Result<(), Errno> {
    match step {
        Step::AddNamespace(id) => add_namespace(state, id),
        Step::RemoveNamespace(id) => {
            remove_namespace(state, id);
            Ok(())
        }
        Step::AddBridge(key, link) | Step::AddLink(key, link) => {
            vacant(state, key)?;
            let made = Link { addresses: BTreeSet::new(), up: false, ..(**link).clone() };
            state.links.insert(key.clone(), made);
            Ok(())
        }
        Step::AddVeth { host, host_link, container, container_link } => {
            add_veth(state, (host, host_link), (container, container_link), foreign_master)
        }
        Step::AdoptBridge(key) => {
            vacant(state, key)?;
            state.links.insert(key.clone(), Link::bare(LinkKind::Adopted));
            Ok(())
        }
        // No second line of defence: plans must not have it.
        Step::RemoveLink(key) if state.links.get(key).is_some_and(|link| link.kind == LinkKind::Adopted) => {
            Err(EPERM)
        }
        Step::RemoveLink(key) => {
            remove_link(state, key);
            Ok(())
        }
        Step::SetMaster(key, master) => set_master(state, key, master.as_ref()),
        Step::SetPortVlan(key, vlan) => {
            let link = link(state, key)?;
            if link.master.is_none() {
                return Err(ENODEV);
            }
            link.vlan = *vlan;
            Ok(())
        }
        Step::SetHairpin(key, on) => {
            let link = link(state, key)?;
            if link.master.is_none() {
                return Err(ENODEV);
            }
            link.hairpin = *on;
            Ok(())
        }
        Step::SetLinkLocalLearning(key, on) => {
            link(state, key)?.learns_link_local = *on;
            Ok(())
        }
        // What cannot be seen in a host's state: the links themselves go with their namespace.
        Step::CutPort(_) => Ok(()),
        Step::AddAddress(key, address) => match link(state, key)?.addresses.insert(*address) {
            true => Ok(()),
            false => Err(EEXIST),
        },
        Step::RemoveAddress(key, address) => {
            link(state, key)?.addresses.remove(address);
            Ok(())
        }
        Step::SetUp(key, up) => {
            link(state, key)?.up = *up;
            Ok(())
        }
        Step::SetMtu(key, mtu) => {
            let link = link(state, key)?;
            link.mtu = Some(*mtu);
            if *mtu < IPV6_MIN_MTU {
                link.addresses.retain(|address| address.addr().is_ipv4());
                let part = format!("net/ipv6/conf/{}/", key.1);
                state.sysctls.retain(|(ns, name), _| !(*ns == key.0 && name.starts_with(&part)));
            }
            Ok(())
        }
        Step::SetMac(key, mac) => {
            link(state, key)?.mac = Some(*mac);
            Ok(())
        }
        Step::SetAlias(key, alias) => {
            link(state, key)?.alias = Some(alias.clone());
            Ok(())
        }
        Step::Reset(key, attribute) => {
            link(state, key)?.altered.attributes.remove(attribute);
            Ok(())
        }
        Step::AddConnected(key, address) => match link(state, key)? {
            link if !link.up => Err(ENETUNREACH),
            link => {
                link.altered.unrouted.remove(address);
                Ok(())
            }
        },
        Step::AddRoute(ns, route) => add_route(state, ns, route),
        Step::RemoveRoute(ns, route) => {
            state.routes.remove(&(ns.clone(), route.clone()));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn link<'a>(state: &'a mut HostState, key: &LinkKey) -> Result<&'a mut Link, Errno> {
    state.links.get_mut(key).ok_or(ENODEV)
}

fn vacant(state: &HostState, key: &LinkKey) -> Result<(), Errno> {
    namespace_exists(state, &key.0)?;
    if state.links.contains_key(key) { Err(EEXIST) } else { Ok(()) }
}

fn add_namespace(state: &mut HostState, id: &SandboxId) -> Result<(), Errno> {
    if state.namespaces.insert(id.clone()) { Ok(()) } else { Err(EEXIST) }
}

fn remove_namespace(state: &mut HostState, id: &SandboxId) {
    let ns = Ns::Sandbox(id.clone());
    state.namespaces.remove(id);
    let inside: Vec<LinkKey> = state.links.keys().filter(|(n, _)| *n == ns).cloned().collect();
    for key in inside {
        remove_link(state, &key);
    }
    state.routes.retain(|(n, _)| *n != ns);
    state.sysctls.retain(|(n, _), _| *n != ns);
    state.dns_redirects.remove(id);
}

fn add_veth(
    state: &mut HostState,
    host: (&LinkKey, &Link),
    container: (&LinkKey, &Link),
    foreign_master: bool,
) -> Result<(), Errno> {
    vacant(state, host.0)?;
    vacant(state, container.0)?;
    if let Some(master) = &host.1.master
        && !foreign_master
        && !state.links.contains_key(&(host.0.0.clone(), master.clone()))
    {
        return Err(ENODEV);
    }
    let bare =
        |link: &Link, up| Link { addresses: BTreeSet::new(), hairpin: false, vlan: None, up, ..link.clone() };
    state.links.insert(host.0.clone(), bare(host.1, true));
    state.links.insert(container.0.clone(), bare(container.1, false));
    Ok(())
}

fn remove_link(state: &mut HostState, key: &LinkKey) {
    let Some(gone) = state.links.remove(key) else { return };
    forget_link(state, key);
    match gone.kind {
        LinkKind::Veth { peer } => {
            if state.links.remove(&peer).is_some() {
                forget_link(state, &peer);
            }
        }
        LinkKind::Bridge => {
            for port in state.links.values_mut().filter(|link| link.master.as_ref() == Some(&key.1)) {
                port.master = None;
                port.hairpin = false;
                port.altered.attributes.clear();
                port.vlan = None;
            }
        }
        LinkKind::Adopted
        | LinkKind::Macvlan { .. }
        | LinkKind::Ipvlan { .. }
        | LinkKind::Vlan { .. }
        | LinkKind::Dummy
        | LinkKind::Loopback => {}
    }
}

fn forget_link(state: &mut HostState, key: &LinkKey) {
    state.routes.retain(|(ns, route)| !(*ns == key.0 && route.dev == key.1));
    let part = format!("/conf/{}/", key.1);
    state.sysctls.retain(|(ns, name), _| !(*ns == key.0 && name.contains(&part)));
}

fn set_master(state: &mut HostState, key: &LinkKey, master: Option<&IfName>) -> Result<(), Errno> {
    if let Some(master) = master
        && !state.links.contains_key(&(key.0.clone(), master.clone()))
    {
        return Err(ENODEV);
    }
    let link = link(state, key)?;
    link.master = master.cloned();
    link.hairpin = false;
    link.vlan = None;
    link.altered.attributes.clear();
    Ok(())
}

fn add_route(state: &mut HostState, ns: &Ns, route: &Route) -> Result<(), Errno> {
    if route.kind != RouteKind::Unicast {
        return insert_route(state, ns, route);
    }
    let dev = state.links.get(&(ns.clone(), route.dev.clone())).ok_or(ENODEV)?;
    let link_local = |gateway| matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
    let reachable = |gateway: IpAddr| {
        link_local(gateway) || dev.addresses.iter().any(|address| address.contains(&gateway))
    };
    if !dev.up || !route.gateway.is_none_or(reachable) {
        return Err(ENETUNREACH);
    }
    insert_route(state, ns, route)
}

fn insert_route(state: &mut HostState, ns: &Ns, route: &Route) -> Result<(), Errno> {
    let same_slot = |other: &Route| other.destination == route.destination && other.metric == route.metric;
    state.routes.retain(|(n, other)| !(n == ns && same_slot(other)));
    state.routes.insert((ns.clone(), route.clone()));
    Ok(())
}
