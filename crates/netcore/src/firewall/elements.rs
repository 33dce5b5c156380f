//! What each item of a policy is in the sets and maps of the skeleton.

use std::net::{IpAddr, Ipv6Addr};

use super::policy::{BridgePolicy, EndpointPolicy, FirewallPolicy, PublishedPort};
use super::ruleset::{Element, ElementData, ElementKey, IpFamily, SetName, Value, Verdict};
use super::skeleton::{ICC_OFF_CHAIN, TO_NAT, TO_ROUTED};
use crate::model::{GatewayMode, IfName};

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
            Access::Nat => elements.push(verdict(SetName::ToBridge, key(), Verdict::Goto(TO_NAT))),
            Access::NatUnprotected => elements.push(verdict(SetName::ToBridge, key(), Verdict::Accept)),
            Access::Routed => elements.push(verdict(SetName::ToBridge, key(), Verdict::Goto(TO_ROUTED))),
        }
        if access.translates() && has_family(bridge, family) {
            elements.extend(source_translation(bridge, family));
        }
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

/// Frames between the ports of a bridge without icc are dropped by port.
pub(super) fn of_endpoint(endpoint: &EndpointPolicy, policy: &FirewallPolicy) -> Vec<Element> {
    match policy.bridges.get(&endpoint.bridge) {
        Some(bridge) if !bridge.icc => {
            vec![member(SetName::IccOff, vec![Value::IfName(endpoint.host_ifname.clone())])]
        }
        _ => Vec::new(),
    }
}

/// A port of an internal network, or of a bridge that is not there, is not published.
pub(super) fn of_port(port: &PublishedPort, policy: &FirewallPolicy) -> Vec<Element> {
    let binding = &port.binding;
    let Some(access) = access_of(&port.bridge, policy, IpFamily::of(port.target)) else {
        return Vec::new();
    };
    let open = if port.target.is_ipv4() { SetName::Open4 } else { SetName::Open6 };
    let target = Value::Port(binding.container_port);
    let mut elements = Vec::with_capacity(3);
    if access != Access::Closed {
        elements.push(member(open, vec![port.target.into(), Value::Proto(binding.proto), target.clone()]));
    }
    if access.translates() && can_translate(port) {
        let itself = if port.target.is_ipv4() { SetName::Self4 } else { SetName::Self6 };
        elements.push(member(itself, vec![port.target.into(), port.target.into()]));
        let mut key = vec![Value::Proto(binding.proto), Value::Port(binding.host_port)];
        let set = match (binding.host_ip, binding.host_ip.is_unspecified()) {
            (IpAddr::V4(_), true) => SetName::Published4Any,
            (IpAddr::V6(_), true) => SetName::Published6Any,
            (host, false) => {
                key.insert(0, host.into());
                if host.is_ipv4() { SetName::Published4 } else { SetName::Published6 }
            }
        };
        let data = ElementData::Values(vec![port.target.into(), target]);
        elements.push(Element { at: ElementKey { set, key }, data });
    }
    elements
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
