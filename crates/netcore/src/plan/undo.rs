//! The way back from a plan that stopped halfway.

use std::collections::BTreeSet;

use super::compile::compile_touched;
use super::diff::{diff, link_of};
use super::{Desired, HostState, Link, LinkKey, LinkKind, Ns, Step, Touched};
use crate::firewall::{FirewallPolicy, PolicyItem, Transaction};
use crate::model::{IPV6_MIN_MTU, IfName};

/// The steps back to `before` once `done` of a plan were carried out and `not_done` were not, the first of
/// which failed if there is one. Only what the steps did is taken back: what a refused step was to make may
/// be there and be somebody else's.
pub fn undo(before: &Desired, touched: &Touched, done: &[Step], not_done: &[Step]) -> Vec<Step> {
    let was = compile_touched(before, touched);
    let mut is = was.clone();
    done.iter().for_each(|step| is.take_effect(step));
    // The kernel goes on with a sandbox's message behind a request that it refused.
    let sandbox = not_done.first().and_then(sandbox_request);
    let sent = not_done.iter().take_while(|step| sandbox.is_some() && sandbox_request(step) == sandbox);
    sent.skip(1).for_each(|step| is.take_effect(step));
    diff(&is, &was)
}

/// The sandbox that gets this step with its neighbours in one message.
fn sandbox_request(step: &Step) -> Option<&Ns> {
    let ns = match step {
        Step::AddAddress((ns, _), _)
        | Step::RemoveAddress((ns, _), _)
        | Step::SetUp((ns, _), _)
        | Step::SetMtu((ns, _), _)
        | Step::AddRoute(ns, _)
        | Step::RemoveRoute(ns, _) => ns,
        _ => return None,
    };
    (*ns != Ns::Host).then_some(ns)
}

impl HostState {
    /// What a step does to the host if nothing refuses it.
    pub fn take_effect(&mut self, step: &Step) {
        match step {
            Step::AddNamespace(id) => {
                self.namespaces.insert(id.clone());
            }
            Step::RemoveNamespace(id) => {
                self.namespaces.remove(id);
                let ns = Ns::Sandbox(id.clone());
                let inside: Vec<LinkKey> = self.links.keys().filter(|key| key.0 == ns).cloned().collect();
                inside.iter().for_each(|key| self.remove_link(key));
                self.routes.retain(|(at, _)| *at != ns);
                self.sysctls.retain(|(at, _), _| *at != ns);
                self.dns_redirects.remove(id);
            }
            Step::SetSysctl(ns, key, value) => {
                self.sysctls.insert((ns.clone(), key.clone()), value.clone());
            }
            Step::AddRoute(ns, route) => {
                self.routes.retain(|(at, other)| {
                    at != ns || (other.destination, other.metric) != (route.destination, route.metric)
                });
                self.routes.insert((ns.clone(), route.clone()));
            }
            Step::RemoveRoute(ns, route) => {
                self.routes.remove(&(ns.clone(), route.clone()));
            }
            Step::Firewall(transaction) => apply(&mut self.firewall, transaction),
            Step::HoldPort(port) => {
                self.held_ports.insert(port.clone());
            }
            Step::ReleasePort(port) => {
                self.held_ports.remove(port);
                self.proxied_ports.remove(port);
            }
            Step::ProxyPort(port, proxied) => {
                self.proxied_ports.insert(port.clone(), proxied.clone());
            }
            Step::UnproxyPort(port) => {
                self.proxied_ports.remove(port);
            }
            Step::RedirectDns { sandbox, udp, tcp } => {
                self.dns_redirects.insert(sandbox.clone(), (*udp, *tcp));
            }
            // A port that is cut is about to go with its namespace.
            Step::CutPort(_)
            | Step::Announce(..)
            | Step::Introduce { .. }
            | Step::ForgetFlows(_)
            | Step::ForgetAddresses(_) => {}
            step => self.link_takes_effect(step),
        }
    }

    fn link_takes_effect(&mut self, step: &Step) {
        match step {
            Step::AddBridge(key, link) | Step::AddLink(key, link) => {
                self.links.insert(key.clone(), new_link(link, false));
            }
            Step::AdoptBridge(key) => {
                self.links.insert(key.clone(), Link::bare(LinkKind::Adopted));
            }
            Step::AddVeth { host, host_link, container, container_link } => {
                self.links.insert(host.clone(), new_link(host_link, true));
                self.links.insert(container.clone(), new_link(container_link, false));
            }
            Step::RemoveLink(key) => self.remove_link(key),
            Step::SetMaster(key, master) => self.with_link(key, |link| {
                link.master.clone_from(master);
                link.hairpin = false;
                link.vlan = None;
            }),
            Step::SetPortVlan(key, vlan) => self.with_link(key, |link| link.vlan = *vlan),
            Step::SetLinkLocalLearning(key, on) => self.with_link(key, |link| link.learns_link_local = *on),
            Step::SetHairpin(key, on) => self.with_link(key, |link| link.hairpin = *on),
            Step::AddAddress(key, address) => self.with_link(key, |link| {
                link.addresses.insert(*address);
            }),
            Step::RemoveAddress(key, address) => self.with_link(key, |link| {
                link.addresses.remove(address);
            }),
            Step::SetUp(key, up) => self.with_link(key, |link| link.up = *up),
            Step::SetMtu(key, mtu) => {
                self.with_link(key, |link| link.mtu = Some(*mtu));
                if *mtu < IPV6_MIN_MTU {
                    self.forget_ipv6(key);
                }
            }
            Step::SetMac(key, mac) => self.with_link(key, |link| link.mac = Some(*mac)),
            Step::SetAlias(key, alias) => self.with_link(key, |link| link.alias = Some(alias.clone())),
            Step::Reset(key, attribute) => self.with_link(key, |link| {
                link.altered.attributes.remove(attribute);
            }),
            Step::AddConnected(key, address) => self.with_link(key, |link| {
                link.altered.unrouted.remove(address);
            }),
            _ => {}
        }
    }

    /// Links that are not among what is looked at are somebody else's affair.
    fn with_link(&mut self, key: &LinkKey, change: impl FnOnce(&mut Link)) {
        self.links.get_mut(key).map(change);
    }

    /// With its other end, what is on top of it, and what is kept by its name.
    fn remove_link(&mut self, key: &LinkKey) {
        let Some(gone) = self.links.remove(key) else { return };
        self.forget_link(key);
        if let LinkKind::Veth { peer } = &gone.kind
            && self.links.remove(peer).is_some()
        {
            self.forget_link(peer);
        }
        if gone.kind == LinkKind::Bridge {
            for port in self.links.values_mut().filter(|link| link.master.as_ref() == Some(&key.1)) {
                (port.master, port.hairpin, port.vlan) = (None, false, None);
            }
        }
        if key.0 == Ns::Host {
            let on_top: Vec<LinkKey> = self
                .links
                .iter()
                .filter(|(_, link)| is_on(link, &key.1))
                .map(|(key, _)| key.clone())
                .collect();
            on_top.iter().for_each(|key| self.remove_link(key));
        }
    }

    /// What the kernel does on links that are too small.
    fn forget_ipv6(&mut self, key: &LinkKey) {
        self.with_link(key, |link| link.addresses.retain(|address| address.addr().is_ipv4()));
        let (ns, name) = key;
        self.routes
            .retain(|(at, route)| !(at == ns && route.dev == *name && route.destination.addr().is_ipv6()));
        let settings = format!("net/ipv6/conf/{name}/");
        self.sysctls.retain(|(at, key), _| !(at == ns && key.starts_with(&settings)));
    }

    pub(super) fn forget_link(&mut self, (ns, name): &LinkKey) {
        self.routes.retain(|(at, route)| !(at == ns && route.dev == *name));
        self.sysctls.retain(|(at, key), _| !(at == ns && link_of(key) == Some(name.as_str())));
    }
}

fn new_link(link: &Link, up: bool) -> Link {
    Link { addresses: BTreeSet::new(), hairpin: false, up, ..link.clone() }
}

fn is_on(link: &Link, base: &IfName) -> bool {
    match &link.kind {
        LinkKind::Macvlan { parent, .. }
        | LinkKind::Ipvlan { parent, .. }
        | LinkKind::Vlan { parent, .. } => parent == base,
        LinkKind::Bridge
        | LinkKind::Adopted
        | LinkKind::Veth { .. }
        | LinkKind::Dummy
        | LinkKind::Loopback => false,
    }
}

fn apply(firewall: &mut Option<FirewallPolicy>, transaction: &Transaction) {
    match transaction {
        Transaction::Replace(policy) => *firewall = Some(policy.clone()),
        Transaction::Clear => *firewall = None,
        Transaction::Change { remove, add } => {
            let policy = firewall.get_or_insert_default();
            for item in remove {
                match item {
                    PolicyItem::Bridge(bridge) => drop(policy.bridges.remove(&bridge.bridge)),
                    PolicyItem::Endpoint(endpoint) => drop(policy.endpoints.remove(&endpoint.id)),
                    PolicyItem::Port(port) => drop(policy.published.remove(port)),
                    PolicyItem::Carried(port) => drop(policy.carried.remove(port)),
                }
            }
            for item in add {
                match item {
                    PolicyItem::Bridge(bridge) => {
                        policy.bridges.insert(bridge.bridge.clone(), bridge.clone());
                    }
                    PolicyItem::Endpoint(endpoint) => {
                        policy.endpoints.insert(endpoint.id.clone(), endpoint.clone());
                    }
                    PolicyItem::Port(port) => {
                        policy.published.insert(port.clone());
                    }
                    PolicyItem::Carried(port) => {
                        policy.carried.insert(port.clone());
                    }
                }
            }
        }
    }
}
