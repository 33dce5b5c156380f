//! What the user wants, in Docker's nouns, and the keys by which a request names what it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Endpoint, EndpointId, Network, NetworkId, Sandbox, SandboxId};

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Networks.
    pub networks: BTreeMap<NetworkId, Arc<Network>>,
    /// Sandboxes.
    pub sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    /// Endpoints; each one's network and sandbox are here too.
    pub endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Sandboxes that the embedded resolver serves, and its (UDP, TCP) ports there.
    pub dns: BTreeMap<SandboxId, (u16, u16)>,
    /// What holds for the whole host.
    pub settings: Settings,
}

/// What holds for the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Forward between links (`net.ipv4.ip_forward`, and IPv6's if a network has IPv6).
    pub ip_forward: bool,
    /// Keep a firewall.
    pub firewall: bool,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// Bridged frames pass the IP hooks (`net.bridge.bridge-nf-call-iptables`).
    pub bridge_netfilter: bool,
    /// Lead ports published on a family that an endpoint lacks to it by a proxy (`--userland-proxy`).
    pub proxy: bool,
    /// Ports published in mode nat are open for direct routing (`--allow-direct-routing`).
    pub direct_routing: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ip_forward: true,
            firewall: true,
            ipv6: true,
            bridge_netfilter: false,
            proxy: true,
            direct_routing: false,
        }
    }
}

/// Which entries of a [`Desired`] a change is about: those that come, go or differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Networks.
    pub networks: BTreeSet<NetworkId>,
    /// Sandboxes, and their entries in [`Desired::dns`]; each one's endpoints must be named too if
    /// it comes or goes.
    pub sandboxes: BTreeSet<SandboxId>,
    /// Endpoints, each sandbox's in the order in which its interfaces are to be made.
    pub endpoints: Vec<EndpointId>,
}

impl Touched {
    /// One network.
    pub fn network(id: &NetworkId) -> Self {
        Self { networks: [id.clone()].into(), ..Self::default() }
    }

    /// A sandbox and some endpoints.
    pub fn sandbox<'a>(id: &SandboxId, endpoints: impl IntoIterator<Item = &'a EndpointId>) -> Self {
        Self {
            sandboxes: [id.clone()].into(),
            endpoints: endpoints.into_iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Some endpoints.
    pub fn endpoints<'a>(ids: impl IntoIterator<Item = &'a EndpointId>) -> Self {
        Self { endpoints: ids.into_iter().cloned().collect(), ..Self::default() }
    }
}

impl Desired {
    /// The touched entries and what they refer to: all that [`change`](super::change) looks at, so
    /// that an owner need not copy the world to remember how it was before.
    pub fn slice(&self, touched: &Touched) -> Self {
        let mut slice = Self { settings: self.settings, ..Self::default() };
        for endpoint in touched.endpoints.iter().filter_map(|id| self.endpoints.get(id)) {
            slice.endpoints.insert(endpoint.id.clone(), endpoint.clone());
            copy(&self.networks, &mut slice.networks, &endpoint.network);
            copy(&self.sandboxes, &mut slice.sandboxes, &endpoint.sandbox);
        }
        for id in &touched.networks {
            copy(&self.networks, &mut slice.networks, id);
        }
        for id in &touched.sandboxes {
            copy(&self.sandboxes, &mut slice.sandboxes, id);
            copy(&self.dns, &mut slice.dns, id);
        }
        slice
    }
}

fn copy<K: Ord + Clone, V: Clone>(from: &BTreeMap<K, V>, to: &mut BTreeMap<K, V>, key: &K) {
    if let Some(value) = from.get(key) {
        to.insert(key.clone(), value.clone());
    }
}
