//! What keeps single published ports from being reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::advice::{hooked, packets, sees};
use super::evaluate::{End, Outcome, evaluate};
use super::packet::{Address, Packet, Port};
use super::{Family, Finding, Flow, Hook, Place, Ruleset, Tool};
use crate::firewall::BridgePolicy;
use crate::model::{PortBinding, PortRange, Proto};

/// A published port, where it is and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its protocol.
    pub proto: Proto,
    /// The container's port.
    pub port: u16,
    /// The container's address, if it has one yet.
    pub address: Option<IpAddr>,
    /// The host's address; `0.0.0.0` and `::` mean every one of that family, none every one of both.
    pub host: Option<IpAddr>,
    /// The host's port, if it is decided yet.
    pub host_port: Option<u16>,
}

impl Service {
    /// A port that is published by way of a container's address of the same family.
    pub fn of(binding: &PortBinding, address: IpAddr) -> Self {
        let host_port = Some(binding.host_port).filter(|port| *port != 0);
        let (proto, port, host) = (binding.proto, binding.container_port, Some(binding.host_ip));
        Self { proto, port, address: Some(address), host, host_port }
    }

    /// It may be reached from outside by this family.
    fn is_of(&self, v4: bool) -> bool {
        let fits = |address: Option<IpAddr>| address.is_none_or(|address| address.is_ipv4() == v4);
        fits(self.host) && fits(self.address) && !self.host.is_some_and(|host| host.is_loopback())
    }

    /// The address and the port that a packet to it has at a hook, as far as they are known; no port is
    /// where nothing can be said.
    fn seen_at(&self, packet: &Packet) -> (Option<IpAddr>, Option<u16>) {
        match packet.hook {
            hook if hook.is_before_translation() && packet.translated => {
                (self.host.filter(|host| !host.is_unspecified()), self.host_port)
            }
            // What is led nowhere else arrives as it is.
            Hook::Ingress | Hook::Raw | Hook::Prerouting => (self.address, Some(self.port)),
            Hook::Translated => (None, None),
            _ => (self.address, Some(self.port)),
        }
    }
}

/// What keeps some of these ports from being reached by way of this network, beyond what
/// [`findings`](super::findings) tells of all of it. It costs what rules ask about ports, not their number:
/// ports that no rule tells apart are judged as one.
pub fn port_findings(ruleset: &Ruleset, network: &BridgePolicy, services: &[Service]) -> Vec<Finding> {
    let mut found: BTreeMap<Key<'_>, BTreeSet<(Proto, u16)>> = BTreeMap::new();
    let ways = packets(ruleset, network).into_iter().filter(|(flow, _)| {
        // Answers carry a published port as their source, which no packet here has.
        matches!(flow, Flow::In | Flow::InReplies)
    });
    for (flow, packet) in ways {
        let tables: Vec<_> = ruleset.tables.iter().filter(|table| sees(table, &packet)).collect();
        // Nobody looks at it, mostly.
        let kinds = if tables.is_empty() { Vec::new() } else { kinds(flow, &packet, services) };
        if kinds.is_empty() {
            continue;
        }
        for table in tables {
            for chain in hooked(table, &packet) {
                let whole = evaluate(ruleset, table, chain, &packet);
                for (packet, ports) in &kinds {
                    let judge = |port| {
                        let port = Some(port).filter(|_| flow == Flow::In);
                        evaluate(ruleset, table, chain, &Packet { port, ..packet.clone() })
                    };
                    each(ports, 0, &judge, &mut |ports, outcome| {
                        let Some(place) = news(&outcome, &whole) else { return };
                        let of = (table.family, table.name.as_str(), chain, table.tool);
                        let entry = found.entry((of, packet.hook, flow, outcome.may_pass, place));
                        entry.or_default().extend(ports.iter().map(|port| (packet.proto, *port)));
                    });
                }
            }
        }
    }
    let finding = |((of, hook, flow, partly, place), ports): (Key<'_>, BTreeSet<(Proto, u16)>)| {
        let (family, table, chain, tool) = of;
        let found = Finding {
            bridge: network.bridge.clone(),
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            hook,
            tool,
            flows: BTreeSet::from([flow]),
            ports: ranges(&ports),
            partly,
            place,
            fix: Vec::new(),
        };
        found.advised(ruleset)
    };
    found.into_iter().map(finding).collect()
}

/// Family, table, base chain and tool; hook, flow, whether some may pass, and what drops it.
type Key<'a> = ((Family, &'a str, &'a str, Tool), Hook, Flow, bool, Place);

/// Packets like this one to these services: one for each protocol and address, with the ports, in order.
fn kinds(flow: Flow, packet: &Packet, services: &[Service]) -> Vec<(Packet, Vec<u16>)> {
    let mut kinds: BTreeMap<(Proto, Option<IpAddr>), Vec<u16>> = BTreeMap::new();
    for service in services.iter().filter(|service| service.is_of(packet.v4)) {
        let (address, port) = match flow {
            Flow::In => service.seen_at(packet),
            _ => (service.address, Some(service.port)),
        };
        if let Some(port) = port {
            kinds.entry((service.proto, address)).or_default().push(port);
        }
    }
    let kind = |((proto, address), mut ports): ((Proto, Option<IpAddr>), Vec<u16>)| {
        let mut packet = Packet { proto, ..packet.clone() };
        match (flow, address) {
            (_, None) => {}
            (Flow::In, Some(address)) => packet.destination = Address::One(address),
            (_, Some(address)) => packet.source = Address::One(address),
        }
        // In order already, mostly: sorting then costs one comparison each.
        ports.sort_unstable();
        ports.dedup();
        (packet, ports)
    };
    kinds.into_iter().map(kind).collect()
}

/// Judges ports (at least one, in order, which have their first `known` bits in common), as many at once as
/// come to the same.
fn each(ports: &[u16], known: u32, judge: &dyn Fn(Port) -> Outcome, tell: &mut dyn FnMut(&[u16], Outcome)) {
    let [first, rest @ ..] = ports else { return };
    let mask = |bits: u32| !u16::MAX.checked_shr(bits).unwrap_or(0);
    let known = if rest.is_empty() { u16::BITS } else { known };
    let outcome = judge(Port { value: *first, known: mask(known) });
    if known == u16::BITS || !outcome.asks_port {
        return tell(ports, outcome);
    }
    let next = mask(known + 1);
    let (low, high) = ports.split_at(ports.partition_point(|port| port & next == first & next));
    each(low, known + 1, judge, tell);
    each(high, known + 1, judge, tell);
}

/// What drops it, if that is not told of the whole network.
fn news(outcome: &Outcome, whole: &Outcome) -> Option<Place> {
    let End::Dropped(chain, rule) = &outcome.end else { return None };
    let told = matches!(whole.end, End::Dropped(..)) && (!whole.may_pass || outcome.may_pass);
    (!told).then(|| Place { chain: chain.clone(), rule: rule.map(|number| number + 1) })
}

fn ranges(ports: &BTreeSet<(Proto, u16)>) -> Vec<(Proto, PortRange)> {
    let mut ranges: Vec<(Proto, PortRange)> = Vec::new();
    for (proto, port) in ports {
        match ranges.last_mut() {
            Some((of, range)) if of == proto && range.last.checked_add(1) == Some(*port) => {
                range.last = *port
            }
            _ => ranges.push((*proto, PortRange { first: *port, last: *port })),
        }
    }
    ranges
}
