//! Who can reach what: every published port, read off the desired state.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netcore::foreign::{Family, Flow};
use portolan_netcore::model::{BridgeOptions, ContainerId, Driver, GatewayMode, IfName, PortBinding};

use crate::Conflict;
use crate::failing::Trouble;
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
    /// This host alone, by any of its addresses: another program's firewall drops what comes from outside.
    Host,
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
                let sources = endpoint.sources(binding);
                // A client is of the family of the address that it connects to.
                let from: Vec<IpNet> =
                    sources.iter().filter(|net| net.addr().is_ipv4() == v4).copied().collect();
                let (reach, reason) = reach(binding, mode, network.internal);
                let (target, reach, reason) = match own(v4) {
                    Some(target) => (Some(target), reach, reason),
                    None if own(!v4).is_some() && self.desired().settings.proxy => {
                        let by_proxy = "a proxy of the engine leads it to the container's other family: the container sees the bridge's address as the client";
                        (own(!v4), reach, format!("{reason}; {by_proxy}"))
                    }
                    None => (None, Reach::Nobody, "the container has no address of this family".to_owned()),
                };
                let (reach, mut reason) = match (sources.is_empty(), from.is_empty()) {
                    (true, _) => (reach, reason),
                    (false, false) => (reach, format!("{reason}; the allow-list drops every other source")),
                    (false, true) => {
                        (Reach::Nobody, "the allow-list has no source of this family".to_owned())
                    }
                };
                if options.isolate && !matches!(reach, Reach::Nobody | Reach::Loopback) {
                    reason
                        .push_str("; the network is isolated: containers of other networks do not reach it");
                }
                let direct = self.desired().settings.direct_routing;
                if let Some(beside) = beside(options, mode, network.internal, direct) {
                    reason = format!("{reason}; {beside}");
                }
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

/// Adds what others have in the way: chains that drop what is for a port, and programs that had it first.
pub(crate) fn add_obstacles(all: &mut [Exposure], conflicts: &[Conflict], troubles: &[Trouble]) {
    // Whatever it leads to: it is the host's port that another program has.
    let held = |port: &PortBinding| (port.proto, port.host_ip, port.host_port);
    let taken: BTreeMap<_, &Trouble> =
        troubles.iter().filter_map(|trouble| Some((held(trouble.port()?), trouble))).collect();
    for one in all {
        if let Some(trouble) = taken.get(&held(&one.binding)) {
            one.reason = format!("{}; another program has it on this host: {}", one.reason, trouble.reason);
        }
        if matches!(one.reach, Reach::Nobody | Reach::Loopback) {
            continue;
        }
        let about: Vec<&Conflict> = conflicts.iter().filter(|conflict| is_about(conflict, one)).collect();
        for Conflict { finding, .. } in about {
            if finding.is_severe() {
                one.reach = Reach::Host;
                let fix = finding.fix.join("; ");
                one.reason = format!("{}; but {finding}; to let it through: {fix}", one.reason);
            } else {
                one.reason = format!("{}; some of it may not arrive: {finding}", one.reason);
            }
        }
    }
}

/// Whether what a chain drops is on the way to this port, or back.
fn is_about(Conflict { name, finding, .. }: &Conflict, one: &Exposure) -> bool {
    let binding = &one.binding;
    let family = match finding.family {
        Family::Ip => binding.host_ip.is_ipv4(),
        Family::Ip6 => binding.host_ip.is_ipv6(),
        _ => true,
    };
    let port = match finding.hook.is_before_translation() && binding.host_port != 0 {
        true => binding.host_port,
        false => binding.container_port,
    };
    let has_port = finding.ports.is_empty()
        || finding
            .ports
            .iter()
            .any(|(proto, range)| *proto == binding.proto && (range.first..=range.last).contains(&port));
    let comes_in = finding.flows.iter().any(|flow| matches!(flow, Flow::In | Flow::InReplies));
    *name == one.network && family && has_port && comes_in
}

/// The way to the container's own address that there is beside the published one.
fn beside(options: &BridgeOptions, mode: GatewayMode, internal: bool, direct: bool) -> Option<String> {
    if internal || matches!(mode, GatewayMode::Routed | GatewayMode::Isolated) {
        return None;
    }
    if mode == GatewayMode::NatUnprotected {
        let all = "gateway mode nat-unprotected: all ports of the container are open to whoever routes to its address";
        return Some(all.to_owned());
    }
    if direct {
        let all = "--allow-direct-routing: also at the container's own address, for whoever routes to it";
        return Some(all.to_owned());
    }
    let links: Vec<&str> = options.trusted_interfaces.iter().map(IfName::as_str).collect();
    (!links.is_empty()).then(|| {
        format!("also at the container's own address, for what comes in by {} (trusted)", links.join(", "))
    })
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
