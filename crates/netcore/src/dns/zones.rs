//! Names of containers, as the resolver sees them: indexed, and changed one record at a time.
//!
//! A look-up costs O(log n) in the number of records, and so does a change: neither depends on how
//! many containers the engine has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::{EndpointId, NetworkId, PortRange, Proto, SandboxId};

/// Every name the resolver may answer, and who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    networks: BTreeMap<NetworkId, Zone>,
    /// Networks by name in lower case.
    named: BTreeMap<String, BTreeSet<NetworkId>>,
    sandboxes: BTreeMap<SandboxId, ZoneView>,
}

/// The names of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    name: String,
    records: BTreeMap<EndpointId, ZoneRecord>,
    by_name: BTreeMap<String, BTreeSet<EndpointId>>,
    by_address: BTreeMap<IpAddr, BTreeSet<EndpointId>>,
}

/// One endpoint's names and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// Names, lower case; the first is the PTR answer. Docker: `DNSNames`. `*.app` stands for every name
    /// below `app`.
    pub names: Vec<String>,
    /// Its addresses, both families.
    pub addresses: Vec<IpAddr>,
    /// Ports that the container exposes or publishes: what SRV answers.
    pub ports: Vec<(Proto, PortRange)>,
    /// Not yet, or no longer, healthy: left out of an answer as long as another record has the name.
    pub unready: bool,
}

/// What one sandbox sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneView {
    /// Its networks, in order of preference.
    pub networks: Vec<NetworkId>,
    /// Link aliases that only this sandbox resolves, in lower case, and where they lead.
    pub links: BTreeMap<String, LinkTarget>,
    /// Where unknown names go.
    pub upstreams: Upstreams,
    /// The user's `ndots`, if it is set: single-label names then never leave.
    pub ndots: Option<u32>,
}

/// The other end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTarget {
    /// The network through which the other container is reached.
    pub network: NetworkId,
    /// The other container's name, lower case.
    pub name: String,
}

/// Who is asked for names that are not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstreams {
    /// Nobody: nothing may leave (internal networks only, CVE-2024-29018).
    #[default]
    Nobody,
    /// The host's own resolvers, whichever they are at the time, asked from the host's namespace.
    Host,
    /// These, asked from within the sandbox's own namespace.
    Own(Vec<SocketAddr>),
}

/// One step from some zones to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZoneChange {
    /// A network is there, under this name. Its records stay as they are.
    Network {
        /// Which.
        id: NetworkId,
        /// Its name: `web.front` asks for `web` in the network `front`.
        name: String,
    },
    /// A network and all its records are gone.
    NoNetwork {
        /// Which.
        id: NetworkId,
    },
    /// An endpoint has these names now. On a network that is not there it is ignored.
    Record {
        /// Its network.
        network: NetworkId,
        /// Which.
        endpoint: EndpointId,
        /// All there is about it.
        record: ZoneRecord,
    },
    /// An endpoint has no names any more.
    NoRecord {
        /// Its network.
        network: NetworkId,
        /// Which.
        endpoint: EndpointId,
    },
    /// A sandbox sees this now.
    View {
        /// Which.
        sandbox: SandboxId,
        /// What it sees.
        view: ZoneView,
    },
    /// A sandbox is not answered any more.
    NoView {
        /// Which.
        sandbox: SandboxId,
    },
}

impl Zones {
    /// Makes one change.
    pub fn apply(&mut self, change: ZoneChange) {
        match change {
            ZoneChange::Network { id, name } => self.put_network(id, name),
            ZoneChange::NoNetwork { id } => {
                if let Some(zone) = self.networks.remove(&id) {
                    self.forget_name(&zone.name, &id);
                }
            }
            ZoneChange::Record { network, endpoint, record } => {
                if let Some(zone) = self.networks.get_mut(&network) {
                    zone.put(endpoint, record);
                }
            }
            ZoneChange::NoRecord { network, endpoint } => {
                if let Some(zone) = self.networks.get_mut(&network) {
                    zone.remove(&endpoint);
                }
            }
            ZoneChange::View { sandbox, view } => {
                self.sandboxes.insert(sandbox, view);
            }
            ZoneChange::NoView { sandbox } => {
                self.sandboxes.remove(&sandbox);
            }
        }
    }

    /// The changes that make these zones of none.
    pub fn changes(&self) -> Vec<ZoneChange> {
        let mut changes = Vec::new();
        for (id, zone) in &self.networks {
            changes.push(ZoneChange::Network { id: id.clone(), name: zone.name.clone() });
            changes.extend(zone.records.iter().map(|(endpoint, record)| ZoneChange::Record {
                network: id.clone(),
                endpoint: endpoint.clone(),
                record: record.clone(),
            }));
        }
        let views = self.sandboxes.iter();
        changes.extend(
            views.map(|(sandbox, view)| ZoneChange::View { sandbox: sandbox.clone(), view: view.clone() }),
        );
        changes
    }

    /// What a sandbox sees.
    pub fn view(&self, sandbox: &SandboxId) -> Option<&ZoneView> {
        self.sandboxes.get(sandbox)
    }

    /// The names of a network.
    pub fn zone(&self, network: &NetworkId) -> Option<&Zone> {
        self.networks.get(network)
    }

    /// The networks of a name in lower case; more than one only where names differ in case alone.
    pub(super) fn zones_named(&self, name: &str) -> impl Iterator<Item = &Zone> {
        self.named.get(name).into_iter().flatten().filter_map(|id| self.networks.get(id))
    }

    /// Every zone.
    pub(super) fn all(&self) -> impl Iterator<Item = &Zone> {
        self.networks.values()
    }

    fn put_network(&mut self, id: NetworkId, name: String) {
        let zone = self.networks.entry(id.clone()).or_default();
        let old = std::mem::replace(&mut zone.name, name);
        let new = zone.name.to_ascii_lowercase();
        self.forget_name(&old, &id);
        self.named.entry(new).or_default().insert(id);
    }

    fn forget_name(&mut self, name: &str, id: &NetworkId) {
        take_from(&mut self.named, &name.to_ascii_lowercase(), id);
    }
}

impl Zone {
    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The records that have exactly this name, given in lower case.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a ZoneRecord> + use<'a> {
        self.by_name.get(name).into_iter().flatten().filter_map(|id| self.records.get(id))
    }

    /// The record that has this address.
    pub fn at(&self, address: IpAddr) -> Option<&ZoneRecord> {
        self.by_address.get(&address)?.iter().find_map(|id| self.records.get(id))
    }

    fn put(&mut self, endpoint: EndpointId, record: ZoneRecord) {
        self.remove(&endpoint);
        for name in &record.names {
            self.by_name.entry(name.clone()).or_default().insert(endpoint.clone());
        }
        for address in &record.addresses {
            self.by_address.entry(*address).or_default().insert(endpoint.clone());
        }
        self.records.insert(endpoint, record);
    }

    fn remove(&mut self, endpoint: &EndpointId) {
        let Some(record) = self.records.remove(endpoint) else { return };
        for name in &record.names {
            take_from(&mut self.by_name, name, endpoint);
        }
        for address in &record.addresses {
            take_from(&mut self.by_address, address, endpoint);
        }
    }
}

/// Takes one of a key's values; the key goes with the last.
fn take_from<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(n: u8) -> NetworkId {
        NetworkId::from_bytes([n; 32])
    }

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 32])
    }

    fn changes() -> impl Strategy<Value = ZoneChange> {
        let record = (prop::collection::vec("[ab]", 1..3), 1..4u8).prop_map(|(names, last)| ZoneRecord {
            names,
            addresses: vec![[10, 0, 0, last].into()],
            ports: vec![],
            unready: false,
        });
        prop_oneof![
            (1..3u8, "[xXy]").prop_map(|(n, name)| ZoneChange::Network { id: network(n), name }),
            (1..3u8).prop_map(|n| ZoneChange::NoNetwork { id: network(n) }),
            (1..3u8, 1..4u8, record).prop_map(|(n, e, record)| ZoneChange::Record {
                network: network(n),
                endpoint: endpoint(e),
                record
            }),
            (1..3u8, 1..4u8)
                .prop_map(|(n, e)| ZoneChange::NoRecord { network: network(n), endpoint: endpoint(e) }),
        ]
    }

    proptest! {
        /// Whatever happened, the indexes are those of the records that are there: zones made afresh of
        /// their own changes are equal, index for index.
        #[test]
        fn indexes_follow_every_change(history in prop::collection::vec(changes(), 0..40)) {
            let mut zones = Zones::default();
            for change in history {
                zones.apply(change);
            }
            let mut afresh = Zones::default();
            for change in zones.changes() {
                afresh.apply(change);
            }
            prop_assert_eq!(afresh, zones);
        }
    }
}
