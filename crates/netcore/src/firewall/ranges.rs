//! Published ports put together: consecutive ports that differ in nothing else are one range in the rule set.
//!
//! Which ports are a range follows from the policy alone, whatever the order in which they came: all that
//! are next to each other. It is kept up to date port by port, so that one port of ten thousand is found in
//! its range, or parts it, without a look at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::policy::{CarriedPort, PublishedPort};
use super::runs::Runs;
use crate::model::{IfName, PortRange, Proto};

/// As many ports in a row are one range; fewer are single ports. A set of intervals is copied by every
/// transaction that changes it, so the few ports of many containers are better off in a hash.
pub const SHORTEST_RANGE: u16 = 8;

/// How far back the range may be that the next port is in: two addresses may take turns, or protocols.
const BACK: usize = 4;

/// Where a port of the host leads, apart from ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Protocol of both ends.
    pub proto: Proto,
    /// The host address; the unspecified one means every one of its family.
    pub host_ip: IpAddr,
    /// The bridge the endpoint is on.
    pub bridge: IfName,
    /// The endpoint's address.
    pub target: IpAddr,
    /// Who may use it; everybody if there is none.
    pub from: Vec<IpNet>,
}

/// Ports of the host that lead to an endpoint: one, or several in a row of which each leads to the same port there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Redirect {
    /// Where they lead.
    pub way: Way,
    /// The ports of the host.
    pub ports: PortRange,
    /// Where the first of them leads.
    pub container_port: u16,
}

/// An address at which published ports may be reached where there is direct routing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// The protocol.
    pub proto: Proto,
    /// The bridge the endpoint is on.
    pub bridge: IfName,
    /// The endpoint's address.
    pub target: IpAddr,
    /// Who may come in, by whichever port of the host; everybody if there is none.
    pub from: Vec<IpNet>,
}

/// Ports of an endpoint that are published, for the same clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Whose they are.
    pub door: Door,
    /// The endpoint's ports.
    pub ports: PortRange,
}

/// What ports have in common whose connections are carried over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carrying {
    /// The protocol.
    pub proto: Proto,
    /// The host address; the unspecified one means every one of its family.
    pub host_ip: IpAddr,
    /// The bridge the endpoint is on.
    pub bridge: IfName,
    /// Who may use them; everybody if there is none.
    pub from: Vec<IpNet>,
}

/// Ports of the host whose connections are carried over: one, or several in a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carried {
    /// For whom they are.
    pub carrying: Carrying,
    /// The ports of the host.
    pub ports: PortRange,
}

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    proto: Proto,
    bridge: IfName,
    address: IpAddr,
    port: u16,
}

/// All ranges of a policy's published ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// Of ports that lead to the same port of an endpoint.
    ways: Runs<Way>,
    doors: Runs<Door>,
    targets: BTreeMap<Target, Clients>,
    carried: Runs<Carrying>,
}

/// For whom each of the ports is that lead to a target, and how many of them.
#[derive(Clone, Debug, Default)]
struct Clients(Vec<(Vec<IpNet>, usize)>);

impl Way {
    fn of(port: &PublishedPort) -> Self {
        Self {
            proto: port.binding.proto,
            host_ip: port.binding.host_ip,
            bridge: port.bridge.clone(),
            target: port.target,
            from: port.from.clone(),
        }
    }

    fn is_of(&self, port: &PublishedPort) -> bool {
        (self.proto, self.host_ip, self.target) == (port.binding.proto, port.binding.host_ip, port.target)
            && self.bridge == port.bridge
            && self.from == port.from
    }
}

impl Redirect {
    /// Each port of the host, and where it leads.
    pub fn each(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        (self.ports.first..=self.ports.last).zip(self.container_port..)
    }
}

impl Carrying {
    fn of(port: &CarriedPort) -> Self {
        let (proto, host_ip) = (port.binding.proto, port.binding.host_ip);
        Self { proto, host_ip, bridge: port.bridge.clone(), from: port.from.clone() }
    }

    fn is_of(&self, port: &CarriedPort) -> bool {
        (self.proto, self.host_ip) == (port.binding.proto, port.binding.host_ip)
            && self.bridge == port.bridge
            && self.from == port.from
    }
}

/// They are many enough to be told as a range.
pub(super) fn is_range(ports: PortRange) -> bool {
    ports.last - ports.first >= SHORTEST_RANGE - 1
}

impl Target {
    fn of(port: &PublishedPort) -> Self {
        let binding = &port.binding;
        Self {
            proto: binding.proto,
            bridge: port.bridge.clone(),
            address: port.target,
            port: binding.container_port,
        }
    }

    /// The same of another port.
    fn at(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }
}

impl Clients {
    fn add(&mut self, from: &[IpNet]) {
        match self.0.iter_mut().find(|(there, _)| there == from) {
            Some((_, count)) => *count += 1,
            None => self.0.push((from.to_vec(), 1)),
        }
    }

    fn remove(&mut self, from: &[IpNet]) {
        let Some(at) = self.0.iter().position(|(there, _)| there == from) else { return };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.swap_remove(at);
        }
    }

    /// What all of them together open of the target; none if there are none.
    fn door(&self, target: &Target) -> Option<Door> {
        let everybody = self.0.iter().any(|(from, _)| from.is_empty());
        let from = match &self.0[..] {
            [] => return None,
            _ if everybody => Vec::new(),
            some => IpNet::aggregate(&some.iter().flat_map(|(from, _)| from).copied().collect::<Vec<_>>()),
        };
        Some(Door { proto: target.proto, bridge: target.bridge.clone(), target: target.address, from })
    }
}

impl Ranges {
    pub(super) fn insert(&mut self, port: &PublishedPort) {
        if leads_to_the_same(port) {
            self.ways.insert(Way::of(port), port.binding.host_port);
        }
        self.change_clients(port, |clients| clients.add(&port.from));
    }

    pub(super) fn remove(&mut self, port: &PublishedPort) {
        if leads_to_the_same(port) {
            self.ways.remove(&Way::of(port), port.binding.host_port);
        }
        self.change_clients(port, |clients| clients.remove(&port.from));
    }

    fn change_clients(&mut self, port: &PublishedPort, change: impl FnOnce(&mut Clients)) {
        let target = Target::of(port);
        let clients = self.targets.entry(target.clone()).or_default();
        let was = clients.door(&target);
        change(clients);
        let is = clients.door(&target);
        if was == is {
            return;
        }
        if let Some(was) = was {
            self.doors.remove(&was, target.port);
        }
        match is {
            Some(is) => self.doors.insert(is, target.port),
            None => drop(self.targets.remove(&target)),
        }
    }

    pub(super) fn insert_carried(&mut self, port: &CarriedPort) {
        self.carried.insert(Carrying::of(port), port.binding.host_port);
    }

    pub(super) fn remove_carried(&mut self, port: &CarriedPort) {
        self.carried.remove(&Carrying::of(port), port.binding.host_port);
    }

    /// All that is carried over.
    pub(super) fn carried(&self) -> impl Iterator<Item = Carried> {
        self.carried.iter().map(|(carrying, ports)| Carried { carrying: carrying.clone(), ports })
    }

    /// All ways of a policy's ports.
    pub(super) fn redirects<'a>(
        &'a self,
        published: &'a BTreeSet<PublishedPort>,
    ) -> impl Iterator<Item = Redirect> + 'a {
        let single = published.iter().filter(|port| !leads_to_the_same(port)).map(single);
        self.ways.iter().map(|(way, ports)| redirect(way, ports)).chain(single)
    }

    /// All that is open where there is direct routing.
    pub(super) fn openings(&self) -> impl Iterator<Item = Opening> {
        self.doors.iter().map(|(door, ports)| Opening { door: door.clone(), ports })
    }

    /// Those ways that depend on some ports being there or not: what these are in, and what begins or ends
    /// beside them.
    pub(super) fn redirects_near<'a>(
        &self,
        ports: impl Iterator<Item = &'a PublishedPort>,
        published: &BTreeSet<PublishedPort>,
    ) -> BTreeSet<Redirect> {
        let mut found: Vec<Redirect> = Vec::new();
        for port in ports {
            let number = port.binding.host_port;
            let known = |redirect: &Redirect| redirect.way.is_of(port) && around(redirect.ports, number);
            if !leads_to_the_same(port) {
                found.extend(published.get(port).map(single));
            } else if !found.iter().rev().take(BACK).any(known) {
                let way = Way::of(port);
                let near = self.ways.near(&way, number);
                found.extend(near.map(|ports| redirect(&way, ports)));
            }
        }
        found.into_iter().collect()
    }

    /// The same of what is carried over.
    pub(super) fn carried_near<'a>(&self, ports: impl Iterator<Item = &'a CarriedPort>) -> BTreeSet<Carried> {
        let mut found: Vec<Carried> = Vec::new();
        for port in ports {
            let number = port.binding.host_port;
            let known = |carried: &Carried| carried.carrying.is_of(port) && around(carried.ports, number);
            if !found.iter().rev().take(BACK).any(known) {
                let carrying = Carrying::of(port);
                let near = self.carried.near(&carrying, number);
                found.extend(near.map(|ports| Carried { carrying: carrying.clone(), ports }));
            }
        }
        found.into_iter().collect()
    }

    /// The same of what is open.
    pub(super) fn openings_near<'a>(
        &self,
        ports: impl Iterator<Item = &'a PublishedPort>,
    ) -> BTreeSet<Opening> {
        let mut found: Vec<Opening> = Vec::new();
        for port in ports {
            let target = Target::of(port);
            // For other clients the neighbours may be open now, or have been.
            for number in target.port.saturating_sub(1)..=target.port.saturating_add(1) {
                let known = |opening: &Opening| {
                    (opening.door.proto, opening.door.target) == (target.proto, target.address)
                        && opening.door.bridge == target.bridge
                        && opening.ports.contains(number)
                };
                if found.iter().rev().take(BACK).any(known) {
                    continue;
                }
                let at = target.at(number);
                let door = self.targets.get(&at).and_then(|clients| clients.door(&at));
                found.extend(door.and_then(|door| {
                    let ports = self.doors.at(&door, number)?;
                    Some(Opening { door, ports })
                }));
            }
        }
        found.into_iter().collect()
    }
}

/// A port and its neighbours are in the range.
fn around(ports: PortRange, port: u16) -> bool {
    ports.first < port && port < ports.last
}

/// Only of such ports the kernel can be told a range: it keeps a port as it is, or sets one.
fn leads_to_the_same(port: &PublishedPort) -> bool {
    port.binding.host_port == port.binding.container_port && port.binding.host_port != 0
}

fn redirect(way: &Way, ports: PortRange) -> Redirect {
    Redirect { way: way.clone(), ports, container_port: ports.first }
}

fn single(port: &PublishedPort) -> Redirect {
    let ports = PortRange::one(port.binding.host_port);
    Redirect { way: Way::of(port), ports, container_port: port.binding.container_port }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Way { proto, host_ip, target, .. } = &self.way;
        let to = self.container_port.saturating_add(self.ports.last - self.ports.first);
        let to = PortRange { first: self.container_port, last: to };
        write!(f, "port {host_ip} {}/{proto} to {target} {to}", self.ports)
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} of {}/{}", self.ports, self.door.target, self.door.proto)
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Carrying { proto, host_ip, bridge, .. } = &self.carrying;
        write!(f, "carried port {host_ip} {}/{proto} to {bridge}", self.ports)
    }
}
