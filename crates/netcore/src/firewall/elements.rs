//! What each item of a policy is in the sets and maps of the skeleton.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::carried::{CARRIED_ALL, CARRIED_APART, CARRIED_FOR_SOME, CarriedSets};
use super::compile::Difference;
use super::policy::{BridgePolicy, EndpointPolicy, FirewallPolicy};
use super::ranges::{Carried, Carrying, Door, Opening, Redirect, Way, is_range};
use super::ruleset::{Element, ElementData, ElementKey, IpFamily, SetName, Value, Verdict};
use super::skeleton::{ICC_OFF_CHAIN, TO_NAT, TO_NAT_DIRECT, TO_ROUTED};
use crate::model::{GatewayMode, IfName, MacAddr, PortRange};

/// What a bridge's gateway mode means for one family, internal networks included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing in, nothing out.
    Closed,
    /// NAT; in by published ports only.
    Nat,
    /// NAT; anything gets in.
    NatUnprotected,
    /// No NAT; published ports are open for direct routing.
    Routed,
}

impl Access {
    pub(super) fn of(bridge: &BridgePolicy, family: IpFamily) -> Self {
        let mode = match family {
            IpFamily::V4 => bridge.gateway_mode_ipv4,
            IpFamily::V6 => bridge.gateway_mode_ipv6,
        };
        match mode {
            _ if bridge.internal => Self::Closed,
            GatewayMode::Nat => Self::Nat,
            GatewayMode::NatUnprotected => Self::NatUnprotected,
            GatewayMode::Routed => Self::Routed,
            GatewayMode::Isolated => Self::Closed,
        }
    }

    /// Ports are published by translating their destination.
    pub(super) fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::NatUnprotected)
    }
}

pub(super) fn of_bridge(bridge: &BridgePolicy) -> Vec<Element> {
    let name = || Value::IfName(bridge.bridge.clone());
    let within = if bridge.icc { Verdict::Accept } else { Verdict::Goto(ICC_OFF_CHAIN) };
    let mut elements = vec![
        member(SetName::Bridges, vec![name()]),
        member(SetName::Hairpin, vec![name(), name()]),
        verdict(SetName::SameBridge, vec![name(), name()], within),
    ];
    for family in IpFamily::BOTH {
        let key = || vec![Value::NfProto(family), name()];
        let access = Access::of(bridge, family);
        match access {
            Access::Closed => {
                elements.push(verdict(SetName::FromBridge, key(), Verdict::Drop));
                elements.push(verdict(SetName::ToBridge, key(), Verdict::Drop));
            }
            Access::Nat => {
                let chain = if bridge.direct_routing { TO_NAT_DIRECT } else { TO_NAT };
                elements.push(verdict(SetName::ToBridge, key(), Verdict::Goto(chain)));
            }
            Access::NatUnprotected => elements.push(verdict(SetName::ToBridge, key(), Verdict::Accept)),
            Access::Routed => elements.push(verdict(SetName::ToBridge, key(), Verdict::Goto(TO_ROUTED))),
        }
        if access.translates() && has_family(bridge, family) {
            elements.extend(source_translation(bridge, family));
        }
    }
    if bridge.isolate {
        elements.push(member(SetName::Isolated, vec![name()]));
    }
    for trusted in &bridge.trusted_interfaces {
        elements.push(member(SetName::Trusted, vec![Value::IfName(trusted.clone()), name()]));
    }
    elements
}

pub(super) fn has_family(bridge: &BridgePolicy, family: IpFamily) -> bool {
    bridge.subnets.iter().any(|subnet| IpFamily::of(subnet.addr()) == family)
}

/// The source that outgoing connections get, if they get one.
pub(super) fn fixed_source(bridge: &BridgePolicy, family: IpFamily) -> Option<IpAddr> {
    match family {
        IpFamily::V4 => bridge.snat_ipv4.map(IpAddr::V4),
        IpFamily::V6 => bridge.snat_ipv6.map(IpAddr::V6),
    }
}

fn source_translation(bridge: &BridgePolicy, family: IpFamily) -> Option<Element> {
    let name = Value::IfName(bridge.bridge.clone());
    if !bridge.masquerade {
        return None;
    }
    Some(match fixed_source(bridge, family) {
        Some(source) => {
            let set = if source.is_ipv4() { SetName::Snat4 } else { SetName::Snat6 };
            Element {
                at: ElementKey { set, key: vec![name] },
                data: ElementData::Values(vec![source.into()]),
            }
        }
        None => member(SetName::Masqueraded, vec![Value::NfProto(family), name]),
    })
}

/// Frames between the ports of a bridge without icc are dropped by port; those of a guarded endpoint
/// have one of its own addresses as their source.
pub(super) fn of_endpoint(endpoint: &EndpointPolicy, policy: &FirewallPolicy) -> Vec<Element> {
    let Some(bridge) = policy.bridges.get(&endpoint.bridge) else { return Vec::new() };
    let port = || Value::IfName(endpoint.host_ifname.clone());
    let mut elements = Vec::new();
    if !bridge.icc {
        elements.push(member(SetName::IccOff, vec![port()]));
    }
    if endpoint.source_guard {
        elements.push(member(SetName::Guarded, vec![port()]));
        let own = |address: IpAddr| {
            let set = if address.is_ipv4() { SetName::Own4 } else { SetName::Own6 };
            member(set, vec![port(), Value::Ether(endpoint.mac), address.into()])
        };
        elements.extend(endpoint.addresses.iter().copied().map(own));
        if endpoint.addresses.iter().any(IpAddr::is_ipv6) {
            // What every IPv6 host has and sends from before it has anything else.
            elements.extend([link_local(endpoint.mac), Ipv6Addr::UNSPECIFIED].map(|v6| own(v6.into())));
        }
    }
    elements
}

/// The address that the kernel gives a link by its hardware address (RFC 4291, appendix A).
fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A port of an internal network, or of a bridge that is not there, is not published.
pub(super) fn of_redirect(redirect: &Redirect, policy: &FirewallPolicy) -> Vec<Element> {
    let Way { bridge, target, .. } = &redirect.way;
    let access = access_of(bridge, policy, IpFamily::of(*target));
    if !access.is_some_and(Access::translates) || !can_translate(redirect) {
        return Vec::new();
    }
    let itself = if target.is_ipv4() { SetName::Self4 } else { SetName::Self6 };
    let mut elements = vec![member(itself, vec![(*target).into(), (*target).into()])];
    if is_range(redirect.ports) {
        elements.extend(range_translations(redirect));
    } else {
        elements.extend(redirect.each().flat_map(|(port, to)| translations(&redirect.way, port, to)));
    }
    elements
}

/// The container's own ports, for where there is direct routing.
pub(super) fn of_opening(opening: &Opening, policy: &FirewallPolicy) -> Vec<Element> {
    let Door { proto, bridge, target, from } = &opening.door;
    let v4 = target.is_ipv4();
    match access_of(bridge, policy, IpFamily::of(*target)) {
        None | Some(Access::Closed) => return Vec::new(),
        Some(Access::Nat | Access::NatUnprotected | Access::Routed) => {}
    }
    if is_range(opening.ports) {
        let set = if v4 { SetName::OpenRanges4 } else { SetName::OpenRanges6 };
        let key = [(*target).into(), Value::Proto(*proto), Value::Ports(opening.ports)];
        return clients(from, v4).map(|net| member(set, [&[Value::Net(net)], &key[..]].concat())).collect();
    }
    let ports = opening.ports.first..=opening.ports.last;
    let keys = ports.map(|port| vec![(*target).into(), Value::Proto(*proto), Value::Port(port)]);
    if from.is_empty() {
        return keys.map(|key| member(if v4 { SetName::Open4 } else { SetName::Open6 }, key)).collect();
    }
    let set = if v4 { SetName::Open4From } else { SetName::Open6From };
    keys.flat_map(|key| {
        sources(from, v4).map(move |net| member(set, [vec![Value::Net(net)], key.clone()].concat()))
    })
    .collect()
}

/// A carried port's way in; for nobody if its bridge is not there.
pub(super) fn of_carried(carried: &Carried, policy: &FirewallPolicy) -> Vec<Element> {
    let Carrying { host_ip, bridge, from, .. } = &carried.carrying;
    let mut elements = carried_in(carried, &CARRIED_ALL);
    let bridge = policy.bridges.get(bridge);
    if bridge.is_none() || !from.is_empty() {
        elements.extend(carried_in(carried, &CARRIED_FOR_SOME));
    }
    if bridge.is_none_or(|bridge| bridge.isolate) {
        elements.extend(carried_in(carried, &CARRIED_APART));
    }
    if bridge.is_none() {
        return elements;
    }
    let v4 = host_ip.is_ipv4();
    let set = if v4 { SetName::Carried4From } else { SetName::Carried6From };
    let host = host_net(*host_ip);
    for service in services(carried) {
        let key = |net| [vec![Value::Net(net), Value::Net(host)], service.clone()].concat();
        elements.extend(sources(from, v4).map(|net| member(set, key(net))));
    }
    elements
}

/// As members of those sets in which they are, by address and number.
fn carried_in(carried: &Carried, sets: &CarriedSets) -> Vec<Element> {
    let host_ip = carried.carrying.host_ip;
    let of_family = |[v4, v6]: [SetName; 2]| if host_ip.is_ipv4() { v4 } else { v6 };
    let (set, first) = if is_range(carried.ports) {
        (of_family(sets.ranges), Value::Net(host_net(host_ip)))
    } else if host_ip.is_unspecified() {
        (sets.any, Value::NfProto(IpFamily::of(host_ip)))
    } else {
        (of_family(sets.one), host_ip.into())
    };
    services(carried).map(|service| member(set, [vec![first.clone()], service].concat())).collect()
}

/// Protocol and port of each, or of all.
fn services(carried: &Carried) -> impl Iterator<Item = Vec<Value>> + use<> {
    let (proto, ports) = (carried.carrying.proto, carried.ports);
    let range = is_range(carried.ports).then_some(Value::Ports(ports));
    let single = (ports.first..=ports.last).filter(move |_| !is_range(ports)).map(Value::Port);
    range.into_iter().chain(single).map(move |ports| vec![Value::Proto(proto), ports])
}

fn translations(way: &Way, port: u16, to: u16) -> Vec<Element> {
    let data = ElementData::Values(vec![way.target.into(), Value::Port(to)]);
    let element = |set, key| Element { at: ElementKey { set, key }, data: data.clone() };
    let host_port = || vec![Value::Proto(way.proto), Value::Port(port)];
    let (v4, any) = (way.host_ip.is_ipv4(), way.host_ip.is_unspecified());
    if way.from.is_empty() {
        let (set, address) = match (v4, any) {
            (true, true) => (SetName::Published4Any, None),
            (false, true) => (SetName::Published6Any, None),
            (true, false) => (SetName::Published4, Some(way.host_ip)),
            (false, false) => (SetName::Published6, Some(way.host_ip)),
        };
        let address: Vec<Value> = address.map(Value::from).into_iter().collect();
        return vec![element(set, [address, host_port()].concat())];
    }
    let set = if v4 { SetName::Published4From } else { SetName::Published6From };
    let host = host_net(way.host_ip);
    sources(&way.from, v4)
        .map(|net| element(set, [vec![Value::Net(net), Value::Net(host)], host_port()].concat()))
        .collect()
}

/// One element for all of them, which says no port: the kernel keeps a packet's own.
fn range_translations(redirect: &Redirect) -> Vec<Element> {
    let way = &redirect.way;
    let v4 = way.host_ip.is_ipv4();
    let set = if v4 { SetName::Ranges4 } else { SetName::Ranges6 };
    let key = |net| {
        vec![
            Value::Net(net),
            Value::Net(host_net(way.host_ip)),
            Value::Proto(way.proto),
            Value::Ports(redirect.ports),
        ]
    };
    clients(&way.from, v4)
        .map(|net| Element {
            at: ElementKey { set, key: key(net) },
            data: ElementData::Values(vec![way.target.into()]),
        })
        .collect()
}

/// The host addresses that a port is published on.
fn host_net(host_ip: IpAddr) -> IpNet {
    if host_ip.is_unspecified() { everywhere(host_ip.is_ipv4()) } else { host_ip.into() }
}

fn everywhere(v4: bool) -> IpNet {
    if v4 { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) }
}

/// The networks that something is for, everybody being one of them.
fn clients(from: &[IpNet], v4: bool) -> impl Iterator<Item = IpNet> + use<> {
    let everybody = from.is_empty().then(|| everywhere(v4));
    everybody.into_iter().chain(sources(from, v4))
}

/// The networks of one family from which something may be used: none within another, as intervals of a
/// set must not overlap.
pub(super) fn sources(from: &[IpNet], v4: bool) -> impl Iterator<Item = IpNet> + use<> {
    IpNet::aggregate(&from.to_vec()).into_iter().filter(move |net| net.addr().is_ipv4() == v4)
}

/// Only what has a host port is translated (in mode routed it may have none), and the kernel takes no
/// answer to ::1 from a link, so a port of ::1 cannot lead into a bridge.
pub(super) fn can_translate(redirect: &Redirect) -> bool {
    redirect.ports.first != 0 && redirect.way.host_ip != IpAddr::V6(Ipv6Addr::LOCALHOST)
}

impl Difference<ElementKey, ElementData> {
    /// Takes out what goes because a range takes its place: that is for a transaction of its own, after this.
    ///
    /// The kernel makes a set of intervals anew at the end of a transaction, when elements of a hash are
    /// long gone: in between, a port that moves from the one to the other would be in neither. The other way
    /// round there is no such moment, nor within a set of intervals.
    #[must_use]
    pub fn split_off_moved(&mut self) -> Self {
        let mut taken: BTreeMap<(SetName, Value), BTreeSet<PortRange>> = BTreeMap::new();
        for (ElementKey { set, key }, _) in &self.add {
            if let [.., proto, Value::Ports(ports)] = &key[..] {
                taken.entry((*set, proto.clone())).or_default().insert(*ports);
            }
        }
        let moves = |element: &(ElementKey, ElementData)| {
            let [.., proto, Value::Port(port)] = &element.0.key[..] else { return false };
            let ranges = ranges_of(&element.0).and_then(|set| taken.get(&(set, proto.clone())));
            ranges.is_some_and(|ranges| ranges.iter().any(|range| range.contains(*port)))
        };
        let remove =
            if taken.is_empty() { Vec::new() } else { self.remove.extract_if(.., |it| moves(it)).collect() };
        Self { remove, add: Vec::new() }
    }
}

/// Where ports are that are not in this set because they are in a row.
fn ranges_of(ElementKey { set, key }: &ElementKey) -> Option<SetName> {
    let of_family = |[v4, v6]: [SetName; 2]| if key[0] == Value::NfProto(IpFamily::V4) { v4 } else { v6 };
    for CarriedSets { any, one, ranges } in [CARRIED_ALL, CARRIED_FOR_SOME, CARRIED_APART] {
        if *set == any {
            return Some(of_family(ranges));
        }
        if let Some(family) = one.iter().position(|one| set == one) {
            return Some(ranges[family]);
        }
    }
    match set {
        SetName::Published4 | SetName::Published4Any | SetName::Published4From => Some(SetName::Ranges4),
        SetName::Published6 | SetName::Published6Any | SetName::Published6From => Some(SetName::Ranges6),
        SetName::Open4 | SetName::Open4From => Some(SetName::OpenRanges4),
        SetName::Open6 | SetName::Open6From => Some(SetName::OpenRanges6),
        _ => None,
    }
}

pub(super) fn access_of(bridge: &IfName, policy: &FirewallPolicy, family: IpFamily) -> Option<Access> {
    policy.bridges.get(bridge).map(|bridge| Access::of(bridge, family))
}

fn member(set: SetName, key: Vec<Value>) -> Element {
    Element { at: ElementKey { set, key }, data: ElementData::None }
}

fn verdict(set: SetName, key: Vec<Value>, verdict: Verdict) -> Element {
    Element { at: ElementKey { set, key }, data: ElementData::Verdict(verdict) }
}
