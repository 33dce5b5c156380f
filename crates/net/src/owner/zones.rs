//! What the embedded resolver knows, kept up with each change: what is sent is what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_netcore::dns::{LinkTarget, Upstreams, ZoneChange, ZoneRecord, ZoneView};
use portolan_netcore::model::{Endpoint, NetworkId, SandboxId};

use super::Owner;
use crate::options;
use crate::publisher::Version;
use crate::records::{Batch, SandboxRecord};
use crate::{DnsUpdate, Error, NetworkAction};

/// Where resolvers listen.
const DNS_PORT: u16 = 53;

impl Owner {
    pub(super) fn add_zone(&mut self, id: &NetworkId) {
        if !self.has_names(id) {
            return;
        }
        let name = self.desired.networks.get(id).map(|network| network.name.clone()).unwrap_or_default();
        self.zone_changes.push(ZoneChange::Network { id: id.clone(), name });
        let records: Vec<_> = self.endpoints_of(id).map(|endpoint| self.names_of(endpoint)).collect();
        self.zone_changes.extend(records);
        self.publish_zones();
    }

    pub(super) fn remove_zone(&mut self, id: &NetworkId) {
        if self.has_names(id) {
            self.zone_changes.push(ZoneChange::NoNetwork { id: id.clone() });
            self.publish_zones();
        }
    }

    /// An endpoint's names are known from the next [`Owner::publish_zones`] on.
    pub(super) fn add_names(&mut self, endpoint: &Endpoint) {
        if self.has_names(&endpoint.network) {
            self.zone_changes.push(self.names_of(endpoint));
        }
    }

    pub(super) fn remove_names(&mut self, endpoint: &Endpoint) {
        if self.has_names(&endpoint.network) {
            let (network, endpoint) = (endpoint.network.clone(), endpoint.id.clone());
            self.zone_changes.push(ZoneChange::NoRecord { network, endpoint });
        }
    }

    fn names_of(&self, endpoint: &Endpoint) -> ZoneChange {
        let record = self.sandboxes.get(&endpoint.sandbox).map(|live| &live.record);
        let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
        let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
        let record = ZoneRecord {
            names: endpoint.dns_names.clone(),
            addresses: v4.into_iter().chain(v6).collect(),
            ports: record.map(SandboxRecord::listens).unwrap_or_default(),
            unready: self.unready.contains(&endpoint.sandbox),
        };
        ZoneChange::Record { network: endpoint.network.clone(), endpoint: endpoint.id.clone(), record }
    }

    /// What a sandbox sees, from its endpoints as they are now.
    pub(super) fn refresh_view(&mut self, id: &SandboxId) {
        let change = match self.view(id) {
            Some(view) => {
                self.views.insert(id.clone());
                ZoneChange::View { sandbox: id.clone(), view }
            }
            None if self.views.remove(id) => ZoneChange::NoView { sandbox: id.clone() },
            None => return,
        };
        self.zone_changes.push(change);
    }

    fn view(&self, id: &SandboxId) -> Option<ZoneView> {
        if !self.needs_resolver(id) {
            return None;
        }
        let live = self.sandboxes.get(id)?;
        // A name that several networks know is that of the one by which the sandbox goes out.
        let endpoints = self.by_rank(self.endpoints_by(live.record.order.iter()));
        let networks: Vec<NetworkId> = endpoints
            .iter()
            .map(|endpoint| &endpoint.network)
            .filter(|id| self.has_names(id))
            .cloned()
            .collect();
        let reaches_out = endpoints.iter().any(|endpoint| endpoint.is_gateway);
        Some(ZoneView {
            links: links(&endpoints),
            upstreams: self.upstreams(&live.record.dns, &networks, &lent_resolvers(&endpoints), reaches_out),
            ndots: live.record.ndots,
            networks,
        })
    }

    /// The container's resolvers, else its networks', else those that came with its leases, else the
    /// daemon's, else the host's. The latter are
    /// asked from the host's namespace, and only for a sandbox that may reach out at all
    /// (CVE-2024-29018); the others from within the sandbox, which gets no farther than its networks.
    fn upstreams(
        &self,
        own: &[IpAddr],
        networks: &[NetworkId],
        lent: &[IpAddr],
        reaches_out: bool,
    ) -> Upstreams {
        let of_networks = || {
            let networks = networks.iter().filter_map(|id| self.desired.networks.get(id));
            let mut servers: Vec<IpAddr> = Vec::new();
            for server in networks.flat_map(|network| options::dns_servers(network)) {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            servers
        };
        let chosen = [own.to_vec(), of_networks(), lent.to_vec(), self.config.dns.clone()];
        match chosen.into_iter().find(|servers| !servers.is_empty()) {
            Some(servers) => {
                let servers = servers.into_iter().take(options::MAX_DNS_SERVERS);
                Upstreams::Own(servers.map(|address| SocketAddr::new(address, DNS_PORT)).collect())
            }
            None if reaches_out => Upstreams::Host,
            None => Upstreams::Nobody,
        }
    }

    pub(super) fn publish_zones(&mut self) -> Version {
        self.zones_version = self.publisher.publish(std::mem::take(&mut self.zone_changes));
        self.zones_version
    }

    /// A container that is not ready leaves the answers that others can stand in for.
    pub(crate) fn set_ready_for_names(&mut self, id: &SandboxId, ready: bool) -> Option<Version> {
        let live = self.sandboxes.get(id)?;
        let changed = if ready { self.unready.remove(id) } else { self.unready.insert(id.clone()) };
        if !changed {
            return None;
        }
        let endpoints = live.record.order.iter().filter_map(|id| self.desired.endpoints.get(id));
        let endpoints: Vec<_> = endpoints.cloned().collect();
        endpoints.iter().for_each(|endpoint| self.add_names(endpoint));
        (!self.zone_changes.is_empty()).then(|| self.publish_zones())
    }

    /// Changes a network's own resolvers; every container on it asks them from now on.
    pub(crate) fn update_dns(
        &mut self,
        reference: &str,
        update: &DnsUpdate,
    ) -> Result<Option<Version>, Error> {
        let id = self.find_id(reference)?;
        let mut network = self.network(&id)?.clone();
        if network.predefined || !self.has_names(&id) {
            return Err(Error::forbidden(format!(
                "network {} has no names and so no DNS servers of its own: only user-defined bridge networks have",
                network.name
            )));
        }
        let mut servers = options::dns_servers(&network);
        for gone in &update.remove {
            let Some(at) = servers.iter().position(|server| server == gone) else {
                return Err(Error::not_found(format!("network {} has no DNS server {gone}", network.name)));
            };
            servers.remove(at);
        }
        for new in &update.add {
            if !servers.contains(new) {
                servers.push(*new);
            }
        }
        options::set_dns_servers(&mut network, &servers)?;
        let mut batch = Batch::default();
        batch.put_network(&network)?;
        self.commit(&batch)?;
        self.desired.networks.insert(id.clone(), Arc::new(network));
        self.emit(NetworkAction::Update, &id, None);
        let members: BTreeSet<SandboxId> =
            self.endpoints_of(&id).map(|endpoint| endpoint.sandbox.clone()).collect();
        members.iter().for_each(|sandbox| self.refresh_view(sandbox));
        Ok((!members.is_empty()).then(|| self.publish_zones()))
    }
}

/// The resolvers that DHCP servers name.
fn lent_resolvers(endpoints: &[&Endpoint]) -> Vec<IpAddr> {
    let leases = endpoints.iter().filter_map(|endpoint| endpoint.dhcp.as_ref()?.lease.as_ref());
    leases.flat_map(|lease| lease.dns.iter().copied().map(IpAddr::V4)).collect()
}

/// Aliases that only this sandbox knows. They are followed at each look-up, to whoever has the name then.
fn links(endpoints: &[&Endpoint]) -> BTreeMap<String, LinkTarget> {
    let links = endpoints.iter().flat_map(|endpoint| {
        endpoint.links.iter().map(|(alias, container)| {
            let target =
                LinkTarget { network: endpoint.network.clone(), name: container.to_ascii_lowercase() };
            (alias.to_ascii_lowercase(), target)
        })
    });
    links.collect()
}
