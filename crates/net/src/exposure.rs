//! Who can reach what: every published port, read off the desired state.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netcore::model::{ContainerId, Driver, GatewayMode, IfName, PortBinding};

use crate::owner::Owner;

/// A published port and who can reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The container.
    pub container: ContainerId,
    /// Its name, without a slash.
    pub container_name: String,
    /// The network that the port is published through.
    pub network: String,
    /// That network's bridge.
    pub bridge: Option<IfName>,
    /// The port.
    pub binding: PortBinding,
    /// Where it leads.
    pub target: Option<IpAddr>,
    /// From where it can be reached.
    pub reach: Reach,
    /// Only these sources are let in; everybody if there is none.
    pub from: Vec<IpNet>,
    /// Why, in words.
    pub reason: String,
}

/// From where a port can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Programs of this host only.
    Loopback,
    /// Whoever reaches this address of the host.
    Address(IpAddr),
    /// Whoever reaches any of the host's addresses of the family.
    Everywhere,
    /// Whoever routes to the container's own address (gateway mode `routed`).
    Routed,
    /// Nobody: there is no way in.
    Nobody,
}

impl Owner {
    /// Every published port, in the order of host ports.
    pub(crate) fn exposure(&self) -> Vec<Exposure> {
        let mut all = Vec::new();
        for endpoint in self.desired().endpoints.values() {
            let Some(network) = self.desired().networks.get(&endpoint.network) else { continue };
            let Some(sandbox) = self.desired().sandboxes.get(&endpoint.sandbox) else { continue };
            let Driver::Bridge(options) = &network.driver else { continue };
            for binding in endpoint.published.keys() {
                let v4 = binding.host_ip.is_ipv4();
                let own = |v4: bool| match v4 {
                    true => endpoint.ipv4.map(|net| IpAddr::V4(net.addr())),
                    false => endpoint.ipv6.map(|net| IpAddr::V6(net.addr())),
                };
                let mode = if v4 { options.gateway_mode_ipv4 } else { options.gateway_mode_ipv6 };
                let from = endpoint.sources(binding).to_vec();
                let (reach, reason) = reach(binding, mode, network.internal);
                let (target, reach, reason) = match own(v4) {
                    Some(target) => (Some(target), reach, reason),
                    None if own(!v4).is_some() && self.desired().settings.proxy => {
                        let by_proxy = "a proxy of the engine leads it to the container's other family: the container sees the bridge's address as the client";
                        (own(!v4), reach, format!("{reason}; {by_proxy}"))
                    }
                    None => (None, Reach::Nobody, "the container has no address of this family".to_owned()),
                };
                let reason = match from.is_empty() {
                    true => reason,
                    false => format!("{reason}; the allow-list drops every other source"),
                };
                all.push(Exposure {
                    container: sandbox.container.clone(),
                    container_name: endpoint.container_name.clone(),
                    network: network.name.clone(),
                    bridge: Some(options.bridge.clone()),
                    binding: binding.clone(),
                    target,
                    reach,
                    from,
                    reason,
                });
            }
        }
        all.sort_by(|a, b| {
            let key = |e: &Exposure| (e.binding.host_port, e.binding.proto, e.binding.host_ip);
            key(a).cmp(&key(b))
        });
        all
    }
}

fn reach(binding: &PortBinding, mode: GatewayMode, internal: bool) -> (Reach, String) {
    let text = |text: &str| text.to_owned();
    if internal {
        return (Reach::Nobody, text("the network is internal: nothing comes in"));
    }
    match mode {
        GatewayMode::Routed => {
            let why = "gateway mode routed: the container's port is open to those who route to its address, and no host port leads to it";
            return (Reach::Routed, text(why));
        }
        GatewayMode::Isolated => {
            return (Reach::Nobody, text("gateway mode isolated: the bridge has no way in"));
        }
        _ => {}
    }
    if binding.host_ip.is_loopback() {
        (Reach::Loopback, text("published on a loopback address: packets for it from outside are dropped"))
    } else if binding.host_ip.is_unspecified() {
        (Reach::Everywhere, text("published on every address of the host"))
    } else {
        (Reach::Address(binding.host_ip), format!("published on {} alone", binding.host_ip))
    }
}
