//! Finding and showing.

use std::sync::Arc;

use portolan_netcore::model::{Driver, Endpoint, EndpointId, Network, NetworkId, SandboxId, SandboxMode};
use portolan_netcore::shared::SharedSet;

use super::Owner;
use crate::{EndpointInfo, Error, NetworkEndpoint, NetworkInfo, SandboxInfo, SubnetUsage};

impl Owner {
    /// Docker's order: full id, full name, unique prefix of an id.
    pub(super) fn find_id(&self, reference: &str) -> Result<NetworkId, Error> {
        let visible = || self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        if let Some(network) = visible().find(|network| network.id.as_str() == reference) {
            return Ok(network.id.clone());
        }
        let name = if reference == "default" { "bridge" } else { reference };
        if let Some(network) = visible().find(|network| network.name == name) {
            return Ok(network.id.clone());
        }
        let mut prefixed =
            visible().filter(|network| !reference.is_empty() && network.id.as_str().starts_with(reference));
        match (prefixed.next(), prefixed.count()) {
            (None, _) => Err(Error::not_found(format!("network {reference} not found"))),
            (Some(only), 0) => Ok(only.id.clone()),
            (Some(_), more) => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
        }
    }

    pub(super) fn network(&self, id: &NetworkId) -> Result<&Network, Error> {
        let network = self.desired.networks.get(id).map(Arc::as_ref);
        network.ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    pub(crate) fn find(&self, reference: &str) -> Result<NetworkInfo, Error> {
        let id = self.find_id(reference)?;
        Ok(self.network_info(self.network(&id)?))
    }

    pub(crate) fn list(&self) -> Vec<NetworkInfo> {
        let visible = self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        let mut all: Vec<_> = visible.map(|network| self.network_info(network)).collect();
        all.sort_by(|a, b| a.network.name.cmp(&b.network.name));
        all
    }

    /// Those that are there.
    pub(super) fn endpoints_by<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a EndpointId>,
    ) -> impl Iterator<Item = &'a Endpoint> {
        ids.filter_map(|id| self.desired.endpoints.get(id)).map(Arc::as_ref)
    }

    pub(super) fn endpoints_of(&self, network: &NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.endpoints_by(self.members.get(network).into_iter().flatten())
    }

    fn network_info(&self, network: &Network) -> NetworkInfo {
        let mut endpoints: Vec<_> = self
            .endpoints_of(&network.id)
            .filter_map(|endpoint| self.network_endpoint(network, endpoint))
            .collect();
        endpoints.sort_by(|a, b| a.container.cmp(&b.container));
        let spaces = self.spaces.get(&network.id);
        let spaces = spaces.into_iter().flat_map(|spaces| spaces.all());
        let usage = spaces.map(|space| {
            let usage = space.usage();
            SubnetUsage { subnet: space.subnet(), in_use: usage.in_use, available: usage.available }
        });
        let overlaps = self.overlaps(network);
        NetworkInfo { network: network.clone(), endpoints, usage: usage.collect(), overlaps }
    }

    fn network_endpoint(&self, network: &Network, endpoint: &Endpoint) -> Option<NetworkEndpoint> {
        let sandbox = self.desired.sandboxes.get(&endpoint.sandbox)?;
        let linked = network.driver.has_links();
        Some(NetworkEndpoint {
            id: endpoint.id.clone(),
            container: sandbox.container.clone(),
            container_name: endpoint.container_name.clone(),
            mac: linked.then_some(endpoint.mac),
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
        })
    }

    pub(crate) fn sandbox_info(&self, id: &SandboxId) -> Option<SandboxInfo> {
        let live = self.sandboxes.get(id)?;
        let sandbox = &live.record.sandbox;
        let endpoints: Vec<_> = live.record.order.iter().filter_map(|id| self.endpoint_info(id)).collect();
        let mut ports = SharedSet::new();
        endpoints.iter().for_each(|info| ports.append(info.endpoint.published.clone()));
        Some(SandboxInfo {
            id: id.clone(),
            container: sandbox.container.clone(),
            mode: sandbox.mode,
            netns: (sandbox.mode == SandboxMode::Private).then(|| self.netns(id)),
            ports,
            embedded_dns: self.needs_resolver(id),
            endpoints,
        })
    }

    pub(crate) fn sandbox_infos(&self) -> Vec<SandboxInfo> {
        self.sandboxes.keys().filter_map(|id| self.sandbox_info(id)).collect()
    }

    fn endpoint_info(&self, id: &EndpointId) -> Option<EndpointInfo> {
        let endpoint = self.desired.endpoints.get(id)?;
        let network = self.desired.networks.get(&endpoint.network)?;
        Some(EndpointInfo {
            network_name: network.name.clone(),
            linked: network.driver.has_links(),
            endpoint: endpoint.clone(),
        })
    }

    /// The sandbox and network of an endpoint.
    pub(crate) fn endpoint_place(&self, id: &EndpointId) -> Result<(SandboxId, NetworkId), Error> {
        match self.desired.endpoints.get(id) {
            Some(endpoint) => Ok((endpoint.sandbox.clone(), endpoint.network.clone())),
            None => Err(Error::not_found(format!("endpoint {id} not found"))),
        }
    }

    /// Names are answered on user-defined networks, and on the default bridge if the daemon is told so.
    pub(super) fn needs_resolver(&self, id: &SandboxId) -> bool {
        let Some(live) = self.sandboxes.get(id) else { return false };
        let endpoints = live.record.order.iter().filter_map(|id| self.desired.endpoints.get(id));
        endpoints.into_iter().any(|endpoint| self.has_names(&endpoint.network))
    }

    pub(super) fn has_names(&self, network: &NetworkId) -> bool {
        match self.desired.networks.get(network).map(|network| &network.driver) {
            Some(Driver::Bridge(options)) => !options.default_bridge || self.config.default_bridge_names,
            Some(Driver::Macvlan(_) | Driver::Ipvlan(_)) => true,
            Some(Driver::Host | Driver::Null) | None => false,
        }
    }
}
