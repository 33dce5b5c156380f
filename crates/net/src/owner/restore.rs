//! Taking over the host when the daemon starts: what is stored, what is there, what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::host::Host;
use portolan_netcore::ipam::AddressSpace;
use portolan_netcore::model::{
    Driver, Endpoint, IfName, Network, NetworkId, Routing, SandboxId, SandboxMode,
};
use portolan_netcore::plan::{Desired, HostState, LinkKind, Ns, Step, compile, diff};
use tokio::sync::{broadcast, watch};

use super::network::{bridge_error, now_ns};
use super::ports::PortTable;
use super::surroundings::keep_learnt_routes;
use super::{Live, Owner, Phase, entropy, settings};
use crate::publisher::Publisher;
use crate::records::{self, Batch, LeaseRecord, SandboxRecord, SerialRecord};
use crate::{Error, Names, NetConfig, NetworkEvent, Store, create, options};

/// How long the kernel gets to clean up after sandboxes that are not wanted any more.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Everything stored.
#[derive(Default)]
struct Stored {
    networks: BTreeMap<NetworkId, Network>,
    sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    endpoints: Vec<Endpoint>,
    leases: Vec<LeaseRecord>,
    serial: Vec<SerialRecord>,
}

impl Stored {
    fn load(store: &dyn Store) -> Result<Self, Error> {
        let mut stored = Self::default();
        for record in store.load().map_err(|error| Error::internal(error.to_string()))? {
            match record.kind.as_str() {
                records::NETWORK => {
                    let network: Network = records::read(&record)?;
                    stored.networks.insert(network.id.clone(), network);
                }
                records::SANDBOX => {
                    let sandbox: SandboxRecord = records::read(&record)?;
                    stored.sandboxes.insert(sandbox.sandbox.id.clone(), sandbox);
                }
                records::ENDPOINT => {
                    let endpoint: Endpoint = records::read(&record)?;
                    stored.endpoints.push(endpoint);
                }
                records::LEASE => stored.leases.push(records::read(&record)?),
                records::SERIAL => stored.serial.push(records::read(&record)?),
                other => {
                    return Err(Error::internal(format!(
                        "the store has a record of kind {other:?}, which this version does not know"
                    )));
                }
            }
        }
        Ok(stored)
    }

    fn named(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|network| network.predefined && network.name == name)
    }
}

/// What the owner is made with.
pub(crate) struct Parts {
    pub(crate) config: NetConfig,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) events: broadcast::Sender<NetworkEvent>,
}

/// Loads, observes, plans, executes. Blocks.
pub(crate) fn open(parts: Parts, names: &dyn Names) -> Result<Owner, Error> {
    let mut stored = Stored::load(parts.store.as_ref())?;
    let facts = parts.host.facts()?;
    let observed = parts.host.observe()?;
    let id = |network: Option<&Network>| {
        network.map_or_else(|| NetworkId::from_bytes(entropy()), |n| n.id.clone())
    };
    let host_id = id(stored.named("host"));
    let pools = create::pools(&parts.config.address_pools, create::unique_local(&host_id))?;
    let mut owner = Owner {
        desired: Desired { settings: settings(&parts.config, &facts), ..Desired::default() },
        config: parts.config,
        host: parts.host,
        store: parts.store,
        publisher: parts.publisher,
        events: parts.events,
        settled: watch::Sender::new(0),
        pools,
        hidden: BTreeSet::new(),
        members: BTreeMap::new(),
        spaces: BTreeMap::new(),
        leases: BTreeMap::new(),
        next_place: 0,
        sandboxes: BTreeMap::new(),
        dying: BTreeSet::new(),
        ports: PortTable::default(),
        zone_changes: Vec::new(),
        zones_version: 0,
        views: BTreeSet::new(),
        unready: BTreeSet::new(),
        stale: BTreeSet::new(),
        foreign_routes: Vec::new(),
        overlapping: BTreeSet::new(),
    };
    let mut batch = Batch::default();
    forget_dead_sandboxes(&mut stored, &observed, &mut batch);
    owner.restore_networks(&stored, &host_id, &observed, &mut batch)?;
    owner.commit(&batch)?;
    owner.restore_leases(&mut stored);
    owner.restore_sandboxes(stored);
    owner.serve_names(names);
    owner.apply(&observed)?;
    let routes = owner.host.foreign_routes()?;
    owner.note_routes(routes);
    Ok(owner)
}

/// Namespaces do not survive a reboot: their sandboxes are gone, the containers' addresses stay theirs.
fn forget_dead_sandboxes(stored: &mut Stored, observed: &HostState, batch: &mut Batch) {
    let networks: BTreeSet<&NetworkId> = stored.networks.keys().collect();
    let lives = |id: &SandboxId, record: &SandboxRecord| {
        record.sandbox.mode == SandboxMode::Host || observed.namespaces.contains(id)
    };
    stored.sandboxes.retain(|id, record| {
        let stays = lives(id, record);
        if !stays {
            batch.delete_sandbox(id);
        }
        stays
    });
    let sandboxes = &stored.sandboxes;
    stored.endpoints.retain(|endpoint| {
        let stays = networks.contains(&endpoint.network) && sandboxes.contains_key(&endpoint.sandbox);
        if !stays {
            batch.delete_endpoint(&endpoint.id);
        }
        stays
    });
}

impl Owner {
    fn restore_networks(
        &mut self,
        stored: &Stored,
        host_id: &NetworkId,
        observed: &HostState,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let old: Vec<Network> =
            stored.networks.values().filter(|network| network.predefined).cloned().collect();
        let named = |name: &str| old.iter().find(|network| network.name == name);
        let none_id =
            named("none").map_or_else(|| NetworkId::from_bytes(entropy()), |network| network.id.clone());
        for network in [
            bare("host", Driver::Host, host_id.clone(), named("host")),
            bare("none", Driver::Null, none_id, named("none")),
        ] {
            if named(&network.name) != Some(&network) {
                batch.put_network(&network)?;
            }
            self.insert_network(network);
        }
        let users: Vec<Network> =
            stored.networks.values().filter(|network| !network.predefined).cloned().collect();
        for mut network in users {
            if options::follows_mtu(&network.options)
                && let Err(error) =
                    crate::parent::set_mtu(&mut network.driver, network.ipv6, self.host.as_ref())
            {
                tracing::warn!(network = %network.name, %error, "its MTU stays as it was");
            }
            self.insert_network(network);
        }
        match self.config.default_bridge.clone() {
            Some(bridge) => {
                let network = self.default_network(bridge, named("bridge"), &stored.endpoints, observed)?;
                if named("bridge") != Some(&network) {
                    batch.put_network(&network)?;
                }
                self.insert_network(network);
            }
            None => {
                if let Some(gone) = named("bridge") {
                    batch.delete_network(&gone.id);
                }
            }
        }
        let ids: Vec<NetworkId> = self.desired.networks.keys().cloned().collect();
        ids.iter().for_each(|id| self.add_zone(id));
        Ok(())
    }

    /// Addresses in use first, then those asked for by number in the order of asking, then those that
    /// containers merely had: one of these may have been lent to another since it was stored.
    fn restore_leases(&mut self, stored: &mut Stored) {
        self.restore_addresses_in_use(stored);
        stored.leases.sort_by_key(|lease| (!lease.fixed, lease.place));
        for lease in &stored.leases {
            // Without subnets the address was a server's to give.
            let ours = self.spaces.get(&lease.network).is_some_and(|spaces| spaces.all().next().is_some());
            let both = [lease.ipv4.map(IpAddr::V4), lease.ipv6.map(IpAddr::V6)];
            let addresses: Vec<IpAddr> = both.into_iter().flatten().filter(|_| ours).collect();
            if lease.fixed {
                self.claim(&lease.network, &lease.container, &addresses);
            } else {
                self.restore_idle(lease, &addresses);
            }
            self.keep_lease(Some(lease.clone()));
        }
        for SerialRecord { network, last } in &stored.serial {
            let spaces = self.spaces.get_mut(network).into_iter().flat_map(|spaces| spaces.all_mut());
            spaces.for_each(|space| last.iter().for_each(|last| space.resume_after(*last)));
        }
    }

    fn restore_addresses_in_use(&mut self, stored: &Stored) {
        for endpoint in &stored.endpoints {
            let Some(record) = stored.sandboxes.get(&endpoint.sandbox) else { continue };
            let Some(spaces) = self.spaces.get_mut(&endpoint.network) else { continue };
            let container = &record.sandbox.container;
            let both = [endpoint.ipv4.map(IpNet::V4), endpoint.ipv6.map(IpNet::V6)];
            for address in both.into_iter().flatten().map(|net| net.addr()) {
                for space in spaces.all_mut().filter(|space| space.subnet().contains(&address)) {
                    if space.restore(container, address, false) {
                        // It is the address just restored.
                        let _ = space.lease(container, None);
                    }
                }
            }
        }
    }

    fn restore_idle(&mut self, lease: &LeaseRecord, addresses: &[IpAddr]) {
        let Some(spaces) = self.spaces.get_mut(&lease.network) else { return };
        for address in addresses {
            let space = spaces.all_mut().find(|space| space.subnet().contains(address));
            let had = |space: &mut AddressSpace| {
                space.address_of(&lease.container) == Some(*address)
                    || space.restore(&lease.container, *address, false)
            };
            if !space.is_some_and(had) {
                tracing::debug!(%address, container = %lease.container, "a stored address is another's by now, or of no subnet");
            }
        }
    }

    fn restore_sandboxes(&mut self, stored: Stored) {
        for (id, record) in stored.sandboxes {
            self.desired.sandboxes.insert(id.clone(), Arc::new(record.sandbox.clone()));
            self.sandboxes.insert(id, Live { record, phase: Phase::Ready });
        }
        for endpoint in stored.endpoints {
            if !self.sandboxes.contains_key(&endpoint.sandbox) {
                continue;
            }
            self.ports.remember(endpoint.published.keys(), &endpoint.sandbox, &endpoint.container_name);
            self.insert_endpoint(endpoint);
        }
        let ids: Vec<SandboxId> = self.sandboxes.keys().cloned().collect();
        ids.iter().for_each(|id| self.refresh_view(id));
    }

    /// The resolver may have survived, or may know nothing.
    fn serve_names(&mut self, names: &dyn Names) {
        let served: Vec<SandboxId> =
            self.sandboxes.keys().filter(|id| self.needs_resolver(id)).cloned().collect();
        names.keep_only(&served.iter().cloned().collect());
        let version = self.publish_zones();
        if served.is_empty() {
            return;
        }
        if let Err(error) = self.publisher.wait(version) {
            tracing::error!(%error, "the embedded resolver did not take the zones");
        }
        for id in served {
            match names.serve(&id, &self.netns(&id)) {
                Ok(ports) => {
                    self.desired.dns.insert(id, ports);
                }
                Err(error) => {
                    tracing::error!(sandbox = %id, %error, "names are not resolved in an adopted sandbox")
                }
            }
        }
    }

    /// Makes the host as wanted. What cannot be done is said and left; but without the default
    /// bridge there is no engine.
    fn apply(&self, observed: &HostState) -> Result<(), Error> {
        let steps = keep_learnt_routes(self.host.as_ref(), diff(observed, &compile(&self.desired)));
        let bridge =
            self.desired.networks.values().find(|network| network.predefined && network.name == "bridge");
        let mut rest = steps;
        while let Err(stopped) = crate::apply::run(self.host.as_ref(), &rest) {
            let failed = rest.get(stopped.done);
            if let (Some(network), Some(Step::AddBridge((_, name), _))) = (bridge, failed)
                && super::network::bridge_name(network) == Some(name)
            {
                return Err(bridge_error(network, &stopped.error));
            }
            if matches!(failed, Some(Step::Firewall(_))) {
                return Err(Error::internal(format!("cannot put the firewall in force: {}", stopped.error)));
            }
            tracing::error!(step = %stopped.error.step, reason = %stopped.error.reason, "step failed at start, going on");
            rest = crate::apply::behind(&rest, stopped.done);
        }
        let doomed = unwanted_pairs(observed, &self.desired);
        if !doomed.is_empty() && !self.host.await_gone(&doomed, CLEAN_UP)? {
            tracing::warn!("links of sandboxes that are gone are still being cleaned up by the kernel");
        }
        Ok(())
    }
}

/// Host ends of sandboxes that nobody wants any more.
fn unwanted_pairs(observed: &HostState, desired: &Desired) -> Vec<IfName> {
    let wanted: BTreeSet<&IfName> =
        desired.endpoints.values().map(|endpoint| &endpoint.host_ifname).collect();
    let pairs = observed.links.iter().filter(|((ns, name), link)| {
        *ns == Ns::Host && matches!(link.kind, LinkKind::Veth { .. }) && !wanted.contains(name)
    });
    pairs.map(|((_, name), _)| name.clone()).collect()
}

fn bare(name: &str, driver: Driver, id: NetworkId, old: Option<&Network>) -> Network {
    Network {
        id,
        name: name.to_owned(),
        created_ns: old.map_or_else(now_ns, |old| old.created_ns),
        driver,
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        ipam_driver: "default".to_owned(),
        ipam_options: None,
        ipam: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: true,
        config_only: false,
        config_from: None,
        routing: Routing::default(),
    }
}
