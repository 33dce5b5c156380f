//! Addresses that a DHCP server lends: asking for them once the link is there, and following what
//! becomes of them.

use portolan_netcore::model::{
    ContainerId, DhcpClient, DhcpLease, Driver, Endpoint, EndpointId, LeaseRequest, MacAddr, Network,
    NetworkId, SandboxId,
};

use super::draft::Draft;
use super::sandbox::{Back, Work};
use super::{Owner, Turn};
use crate::records::LeaseRecord;
use crate::{AttachSpec, Error, create};

/// RFC 4361: an identifier made of an interface's number and a DUID.
const NODE_SPECIFIC: u8 = 255;
/// RFC 6355: a DUID that is a UUID.
const DUID_UUID: [u8; 2] = [0, 4];

impl Owner {
    /// An endpoint whose address comes from a server: the client's part, and a hardware address that
    /// stays the container's, by which people find it in the server's tables.
    pub(super) fn make_client(&self, endpoint: &mut Endpoint, container: &ContainerId, attach: &AttachSpec) {
        let Some(network) = self.desired.networks.get(&endpoint.network) else { return };
        if network.ipam_driver != create::DHCP {
            return;
        }
        endpoint.dhcp = Some(DhcpClient { hostname: attach.hostname.clone(), lease: None });
        if attach.mac.is_none() {
            endpoint.mac = stable_mac(container, &network.id);
        }
    }

    /// What to ask for the endpoints of a sandbox that have no address yet.
    pub(crate) fn lease_requests(&self, sandbox: &SandboxId) -> Vec<LeaseRequest> {
        let Some(live) = self.sandboxes.get(sandbox) else { return Vec::new() };
        let endpoints = live.record.order.iter().filter_map(|id| self.desired.endpoints.get(id));
        let asking = endpoints.filter(|e| e.dhcp.as_ref().is_some_and(|client| client.lease.is_none()));
        asking.filter_map(|endpoint| self.lease_request(endpoint)).collect()
    }

    /// Every endpoint whose address is lent, for the client of a new process.
    pub(crate) fn lent(&self) -> Vec<(LeaseRequest, Option<DhcpLease>)> {
        let lent = self.desired.endpoints.values().filter_map(|endpoint| {
            let lease = endpoint.dhcp.as_ref()?.lease.clone();
            Some((self.lease_request(endpoint)?, lease))
        });
        lent.collect()
    }

    fn lease_request(&self, endpoint: &Endpoint) -> Option<LeaseRequest> {
        let client = endpoint.dhcp.as_ref()?;
        let container = &self.sandboxes.get(&endpoint.sandbox)?.record.sandbox.container;
        let before = self.leases.get(container).and_then(|leases| leases.get(&endpoint.network));
        Some(LeaseRequest {
            endpoint: endpoint.id.clone(),
            netns: self.netns(&endpoint.sandbox),
            ifname: endpoint.ifname.clone(),
            client_id: client_id(container, &endpoint.network),
            hostname: client.hostname.clone(),
            previous: before.and_then(|lease| lease.ipv4),
        })
    }

    /// The endpoints of a sandbox whose addresses are to be given back before their links go.
    pub(super) fn clients<'a>(&self, endpoints: impl Iterator<Item = &'a EndpointId>) -> Vec<EndpointId> {
        let lent = |id: &&EndpointId| self.desired.endpoints.get(id).is_some_and(|e| e.dhcp.is_some());
        endpoints.filter(lent).cloned().collect()
    }

    /// An endpoint has this lease now, or none any more. None if there is nothing to do.
    pub(crate) fn begin_lease(
        &mut self,
        id: &EndpointId,
        lease: Option<&DhcpLease>,
    ) -> Result<Turn<Option<Work>>, Error> {
        let Some(sandbox) = self.desired.endpoints.get(id).map(|endpoint| endpoint.sandbox.clone()) else {
            return Ok(Turn::Done(None));
        };
        let Turn::Done((record, touched, before)) = self.begin_change(&sandbox)? else {
            return Ok(Turn::Later);
        };
        let mut draft = Draft::change(&record, &before);
        if let Some(endpoint) = draft.endpoints.iter_mut().find(|endpoint| endpoint.id == *id) {
            self.lend(endpoint, lease)?;
        }
        if let Some(lease) = lease
            && let Some(endpoint) = before.endpoints.get(id)
        {
            draft.remember(LeaseRecord {
                container: record.sandbox.container.clone(),
                network: endpoint.network.clone(),
                ipv4: Some(lease.address.addr()),
                ipv6: None,
                fixed: false,
                place: 0,
                name: endpoint.container_name.clone(),
            })?;
        }
        let stored = self.reelect(&mut draft).and_then(|()| self.store_draft(&mut draft, &before));
        if let Err(error) = stored {
            self.discard_change(draft, &before);
            return Err(error);
        }
        let let_go = draft.exchange.releases();
        let new_leases = Vec::new();
        let back = Back { touched, before, record: Some(record), let_go, new_leases, old_lease: None };
        self.adopt_change(draft, &back);
        Ok(Turn::Done(Some(self.work(sandbox, back, Vec::new()))))
    }

    fn lend(&self, endpoint: &mut Endpoint, lease: Option<&DhcpLease>) -> Result<(), Error> {
        let network = self.network(&endpoint.network)?;
        let Some(client) = &mut endpoint.dhcp else { return Ok(()) };
        client.lease = lease.cloned();
        if let Some(lease) = &mut client.lease {
            let below = self.host.links()?;
            let below = below_of(network).and_then(|name| below.get(name)).copied();
            // A link cannot carry more than what it is on; what the user says counts for more.
            lease.mtu = lease.mtu.filter(|mtu| below.is_some_and(|below| *mtu < below));
        }
        endpoint.ipv4 = lease.map(|lease| lease.address);
        let leads_out = !network.internal && !network.routing.no_default_route;
        endpoint.gateway_ipv4 = lease.and_then(|lease| lease.gateway).filter(|_| leads_out);
        Ok(())
    }
}

/// The link of the host that a network's endpoints are on.
fn below_of(network: &Network) -> Option<&portolan_netcore::model::IfName> {
    match &network.driver {
        Driver::Bridge(options) => Some(&options.bridge),
        other => other.parent().map(|parent| &parent.parent),
    }
}

/// Two bytes of hexadecimal digits of an id.
fn byte(id: &str, at: usize) -> u8 {
    id.get(2 * at..2 * at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn stable_mac(container: &ContainerId, network: &NetworkId) -> MacAddr {
    let mixed = |at| byte(container.as_str(), at) ^ byte(network.as_str(), at);
    MacAddr([0x02, 0x42, mixed(0), mixed(1), mixed(2), mixed(3)])
}

/// The interface's number is the network's, the UUID the container's.
fn client_id(container: &ContainerId, network: &NetworkId) -> Vec<u8> {
    let mut id = vec![NODE_SPECIFIC];
    id.extend((0..4).map(|at| byte(network.as_str(), at)));
    id.extend(DUID_UUID);
    id.extend((0..16).map(|at| byte(container.as_str(), at)));
    id
}
