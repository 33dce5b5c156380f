//! Who has to be told of whom once a link was put right.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::compile::link_of_network;
use super::{Desired, Ns, Step};
use crate::model::{BridgeOptions, Driver, Endpoint, IfName, MacAddr, Network, NetworkId};

/// Who has addresses on a link, and where frames for them go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The hardware address.
    pub mac: MacAddr,
    /// The addresses behind it.
    pub addresses: Vec<IpAddr>,
}

/// The steps that introduce again whom the repaired links keep from each other, after a repair's steps are `done`.
///
/// A link that loses its carrier, or goes down, takes what its namespace knew of its neighbours with it, and what is
/// asked while the link, its port or the bridge cannot pass frames is lost without a trace. The kernel asks again
/// only after a second (`net.ipv4.neigh.*.retrans_time_ms`), in which no packet comes through. So a container
/// hears of everybody on its bridge, these and the host hear of it, and of a bridge all that are behind it.
pub fn introduce(desired: &Desired, done: &[Step]) -> Vec<Step> {
    let (mut ports, mut bridges) = (BTreeSet::new(), BTreeSet::new());
    for step in done {
        match step {
            Step::SetUp((Ns::Host, name), true) | Step::SetMaster((Ns::Host, name), Some(_)) => {
                ports.insert(name);
                bridges.insert(name);
            }
            Step::AddVeth { host: (Ns::Host, name), .. } | Step::Reset((Ns::Host, name), _) => {
                ports.insert(name);
            }
            Step::AddBridge((Ns::Host, name), _) | Step::AddAddress((Ns::Host, name), _) => {
                bridges.insert(name);
            }
            _ => {}
        }
    }
    if ports.is_empty() && bridges.is_empty() {
        return Vec::new();
    }
    let repaired = desired.endpoints.values().filter(|endpoint| ports.contains(&endpoint.host_ifname));
    let concerned: BTreeSet<&NetworkId> = repaired.map(|endpoint| &endpoint.network).collect();
    let mut steps = Vec::new();
    for network in desired.networks.values() {
        let Driver::Bridge(BridgeOptions { bridge, .. }) = &network.driver else { continue };
        if !bridges.contains(bridge) && !concerned.contains(&network.id) {
            continue;
        }
        let (bridge, gateway) = ((Ns::Host, bridge.clone()), gateway(desired, network));
        let of_network = desired.endpoints.values().filter(|endpoint| endpoint.network == network.id);
        let everybody: Vec<(&IfName, Neighbour)> =
            of_network.map(|endpoint| (&endpoint.host_ifname, neighbour(endpoint))).collect();
        if bridges.contains(&bridge.1) {
            let here = everybody.iter().map(|(_, one)| one.clone()).collect();
            steps.push(Step::Introduce {
                link: bridge.clone(),
                there: gateway.iter().cloned().collect(),
                here,
            });
        }
        for (port, repaired) in everybody.iter().filter(|(port, _)| ports.contains(port)) {
            let others = everybody.iter().filter(|(other, _)| other != port).map(|(_, other)| other);
            let there = gateway.iter().chain(others).cloned().collect();
            let link = (Ns::Host, (*port).clone());
            steps.push(Step::Introduce { link, there, here: Vec::new() });
            let repaired = vec![repaired.clone()];
            steps.push(Step::Introduce { link: bridge.clone(), there: repaired.clone(), here: repaired });
        }
    }
    steps
}

/// What a bridge of ours is to those behind it.
fn gateway(desired: &Desired, network: &Network) -> Option<Neighbour> {
    let (_, link) = link_of_network(desired, &network.id)?;
    let addresses = link.addresses.iter().map(|net| net.addr()).collect();
    Some(Neighbour { mac: link.mac?, addresses })
}

fn neighbour(endpoint: &Endpoint) -> Neighbour {
    Neighbour { mac: endpoint.mac, addresses: endpoint.addresses().map(|net| net.addr()).collect() }
}
