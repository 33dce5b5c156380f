//! What the embedded resolver knows, kept up with each change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_netcore::dns::{Upstream, Zone, ZoneRecord, ZoneView, Zones};
use portolan_netcore::model::{Endpoint, NetworkId, SandboxId};

use super::Owner;
use crate::publisher::Version;

/// The host's own resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Docker asks at most this many.
const MAX_UPSTREAMS: usize = 3;

impl Owner {
    fn zones_mut(&mut self) -> &mut Zones {
        Arc::make_mut(&mut self.zones)
    }

    pub(super) fn add_zone(&mut self, id: &NetworkId) {
        if !self.has_names(id) {
            return;
        }
        let name = self.desired.networks.get(id).map(|network| network.name.clone()).unwrap_or_default();
        let records = self.endpoints_of(id).map(record).collect();
        self.zones_mut().networks.insert(id.clone(), Zone { name, records });
        self.publish_zones();
    }

    pub(super) fn remove_zone(&mut self, id: &NetworkId) {
        if self.zones_mut().networks.remove(id).is_some() {
            self.publish_zones();
        }
    }

    /// An endpoint's names are known from the next [`Owner::publish_zones`] on.
    pub(super) fn add_names(&mut self, endpoint: &Endpoint) {
        if let Some(zone) = self.zones_mut().networks.get_mut(&endpoint.network) {
            zone.records.push(record(endpoint));
        }
    }

    pub(super) fn remove_names(&mut self, endpoint: &Endpoint) {
        let gone = record(endpoint);
        if let Some(zone) = self.zones_mut().networks.get_mut(&endpoint.network)
            && let Some(at) = zone.records.iter().position(|record| *record == gone)
        {
            zone.records.remove(at);
        }
    }

    /// What a sandbox sees, from its endpoints as they are now.
    pub(super) fn refresh_view(&mut self, id: &SandboxId) {
        match self.view(id) {
            Some(view) => {
                self.zones_mut().sandboxes.insert(id.clone(), view);
            }
            None => {
                self.zones_mut().sandboxes.remove(id);
            }
        }
    }

    fn view(&self, id: &SandboxId) -> Option<ZoneView> {
        if !self.needs_resolver(id) {
            return None;
        }
        let live = self.sandboxes.get(id)?;
        let endpoints: Vec<&Endpoint> =
            live.record.order.iter().filter_map(|id| self.desired.endpoints.get(id)).collect();
        let networks: Vec<NetworkId> = endpoints
            .iter()
            .map(|endpoint| &endpoint.network)
            .filter(|id| self.has_names(id))
            .cloned()
            .collect();
        let reaches_out = endpoints.iter().any(|endpoint| endpoint.is_gateway);
        Some(ZoneView {
            links: self.links(&endpoints),
            upstreams: self.upstreams(&live.record.dns, reaches_out),
            ndots: live.record.ndots,
            networks,
        })
    }

    /// Aliases that only this sandbox knows, with the addresses the linked containers have now.
    fn links(&self, endpoints: &[&Endpoint]) -> BTreeMap<String, Vec<IpAddr>> {
        let mut links = BTreeMap::new();
        for endpoint in endpoints {
            for (alias, container) in &endpoint.links {
                let other =
                    self.endpoints_of(&endpoint.network).find(|other| other.container_name == *container);
                if let Some(other) = other {
                    links.insert(alias.to_ascii_lowercase(), addresses(other));
                }
            }
        }
        links
    }

    /// The container's resolvers, else the daemon's, else the host's; the latter are asked from the
    /// host's namespace, and only for a sandbox that may reach out at all (CVE-2024-29018).
    fn upstreams(&self, own: &[IpAddr], reaches_out: bool) -> Vec<Upstream> {
        let chosen = if own.is_empty() { &self.config.dns } else { own };
        let (addresses, from_host) = match (chosen, reaches_out) {
            ([], true) => (host_resolvers(), true),
            ([], false) => return Vec::new(),
            (chosen, _) => (chosen.to_vec(), false),
        };
        addresses
            .into_iter()
            .take(MAX_UPSTREAMS)
            .map(|address| Upstream { address: SocketAddr::new(address, 53), from_host })
            .collect()
    }

    /// Link aliases follow the containers they lead to.
    pub(super) fn refresh_links(&mut self) {
        let linked: Vec<SandboxId> = self.linked.iter().cloned().collect();
        for id in linked {
            self.refresh_view(&id);
        }
    }

    pub(super) fn publish_zones(&mut self) -> Version {
        self.zones_version = self.publisher.publish(Arc::clone(&self.zones));
        self.zones_version
    }
}

fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    v4.into_iter().chain(v6).collect()
}

fn record(endpoint: &Endpoint) -> ZoneRecord {
    ZoneRecord { names: endpoint.dns_names.clone(), addresses: addresses(endpoint) }
}

/// Read afresh each time: it is a few lines, and changes with the host's networks.
fn host_resolvers() -> Vec<IpAddr> {
    parse_resolvers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The `nameserver` lines, resolv.conf(5); zone ids of link-local addresses are left out with their line.
fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_manual_has_it() {
        let text = "# nameserver 9.9.9.9\nsearch corp\nnameserver 127.0.0.53\n nameserver ::1 # home\nnameserver fe80::1%eth0\nnameserver\n";
        let want: Vec<IpAddr> = vec!["127.0.0.53".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(parse_resolvers(text), want);
    }
}
