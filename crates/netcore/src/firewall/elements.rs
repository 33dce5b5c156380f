//! What each item of a policy is in the sets and maps of the skeleton.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::policy::{BridgePolicy, CarriedPort, EndpointPolicy, FirewallPolicy, PublishedPort};
use super::ruleset::{Element, ElementData, ElementKey, IpFamily, SetName, Value, Verdict};
use super::skeleton::{ICC_OFF_CHAIN, TO_NAT, TO_NAT_DIRECT, TO_ROUTED};
use crate::model::{GatewayMode, IfName, MacAddr, PortBinding};

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
pub(super) fn of_port(port: &PublishedPort, policy: &FirewallPolicy) -> Vec<Element> {
    let Some(access) = access_of(&port.bridge, policy, IpFamily::of(port.target)) else {
        return Vec::new();
    };
    let mut elements = Vec::with_capacity(3);
    if access != Access::Closed {
        elements.extend(open_targets(port, policy));
    }
    if access.translates() && can_translate(port) {
        let itself = if port.target.is_ipv4() { SetName::Self4 } else { SetName::Self6 };
        elements.push(member(itself, vec![port.target.into(), port.target.into()]));
        elements.extend(translations(port));
    }
    elements
}

/// A carried port's way in; for nobody if its bridge is not there.
pub(super) fn of_carried(port: &CarriedPort, policy: &FirewallPolicy) -> Vec<Element> {
    let PortBinding { host_ip, host_port, proto, .. } = port.binding;
    let service = || vec![Value::Proto(proto), Value::Port(host_port)];
    let (v4, any) = (host_ip.is_ipv4(), host_ip.is_unspecified());
    let first = if any { Value::NfProto(IpFamily::of(host_ip)) } else { host_ip.into() };
    let is = |[all, one4, one6]: [SetName; 3]| {
        let set = if any {
            all
        } else if v4 {
            one4
        } else {
            one6
        };
        member(set, [vec![first.clone()], service()].concat())
    };
    let mut elements = vec![is([SetName::CarriedAny, SetName::Carried4, SetName::Carried6])];
    let bridge = policy.bridges.get(&port.bridge);
    if bridge.is_none() || !port.from.is_empty() {
        elements.push(is([SetName::CarriedSomeAny, SetName::CarriedSome4, SetName::CarriedSome6]));
    }
    if bridge.is_none_or(|bridge| bridge.isolate) {
        elements.push(is([SetName::CarriedApartAny, SetName::CarriedApart4, SetName::CarriedApart6]));
    }
    if bridge.is_none() {
        return elements;
    }
    let everywhere = |address: IpAddr| IpNet::new(address, 0).unwrap_or_else(|_| address.into());
    let set = if v4 { SetName::Carried4From } else { SetName::Carried6From };
    let host = if any { everywhere(host_ip) } else { host_ip.into() };
    let sources = IpNet::aggregate(&port.from).into_iter().filter(|net| net.addr().is_ipv4() == v4);
    elements.extend(sources.map(|net| {
        member(set, [vec![Value::Net(net.trunc()), Value::Net(host.trunc())], service()].concat())
    }));
    elements
}

/// Several ports may lead to one target, each for other sources: together they open it to all of those.
fn open_targets(port: &PublishedPort, policy: &FirewallPolicy) -> Vec<Element> {
    let v4 = port.target.is_ipv4();
    let key = || {
        vec![port.target.into(), Value::Proto(port.binding.proto), Value::Port(port.binding.container_port)]
    };
    if port.from.is_empty() {
        return vec![member(if v4 { SetName::Open4 } else { SetName::Open6 }, key())];
    }
    let set = if v4 { SetName::Open4From } else { SetName::Open6From };
    let all: Vec<IpNet> = restricted_siblings(port, policy).flat_map(|port| port.from.clone()).collect();
    let all = PublishedPort { from: all, ..port.clone() };
    sources(&all).map(|net| member(set, [vec![Value::Net(net)], key()].concat())).collect()
}

/// The ports of a policy that lead to the same target as this one and are for some sources only.
pub(super) fn restricted_siblings<'a>(
    port: &'a PublishedPort,
    policy: &'a FirewallPolicy,
) -> impl Iterator<Item = &'a PublishedPort> {
    let same = |other: &PublishedPort| {
        (other.binding.proto, other.binding.container_port)
            == (port.binding.proto, port.binding.container_port)
    };
    // Ports sort by protocol and container port first, then by host address.
    let host_ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let first = PublishedPort {
        binding: PortBinding { host_ip, host_port: 0, ..port.binding.clone() },
        ..port.clone()
    };
    let siblings = policy.published.range(first..).take_while(move |other| same(other));
    siblings.filter(|other| other.target == port.target && !other.from.is_empty())
}

fn translations(port: &PublishedPort) -> Vec<Element> {
    let binding = &port.binding;
    let data = ElementData::Values(vec![port.target.into(), Value::Port(binding.container_port)]);
    let element = |set, key| Element { at: ElementKey { set, key }, data: data.clone() };
    let host_port = || vec![Value::Proto(binding.proto), Value::Port(binding.host_port)];
    let (v4, any) = (binding.host_ip.is_ipv4(), binding.host_ip.is_unspecified());
    if port.from.is_empty() {
        let (set, address) = match (v4, any) {
            (true, true) => (SetName::Published4Any, None),
            (false, true) => (SetName::Published6Any, None),
            (true, false) => (SetName::Published4, Some(binding.host_ip)),
            (false, false) => (SetName::Published6, Some(binding.host_ip)),
        };
        let address: Vec<Value> = address.map(Value::from).into_iter().collect();
        return vec![element(set, [address, host_port()].concat())];
    }
    let set = if v4 { SetName::Published4From } else { SetName::Published6From };
    let host = match IpNet::new(binding.host_ip, 0) {
        Ok(everywhere) if any => everywhere,
        _ => IpNet::from(binding.host_ip),
    };
    sources(port)
        .map(|net| element(set, [vec![Value::Net(net), Value::Net(host)], host_port()].concat()))
        .collect()
}

/// The networks of the target's family from which the port may be used: none within another, as
/// intervals of a set must not overlap.
pub(super) fn sources(port: &PublishedPort) -> impl Iterator<Item = IpNet> {
    let v4 = port.target.is_ipv4();
    IpNet::aggregate(&port.from).into_iter().filter(move |net| net.addr().is_ipv4() == v4)
}

/// Only what has a host port is translated (in mode routed it may have none), and the kernel takes no
/// answer to ::1 from a link, so a port of ::1 cannot lead into a bridge.
pub(super) fn can_translate(port: &PublishedPort) -> bool {
    port.binding.host_port != 0 && port.binding.host_ip != IpAddr::V6(Ipv6Addr::LOCALHOST)
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
