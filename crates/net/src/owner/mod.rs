//! The one owner of the desired state. It runs on a thread of its own and takes closures: each
//! decides something, stores the intent and says what is to be done; the doing happens elsewhere,
//! side by side, and its result comes back as another closure.
//!
//! Nothing here waits for the kernel, except where a choice is only made by trying: which host port
//! is free.

mod advertise;
mod change;
mod default_bridge;
mod dhcp;
mod draft;
mod endpoint;
mod gateway;
mod lease;
mod live_ports;
mod lookup;
mod network;
mod ports;
mod repair;
mod restore;
mod sandbox;
mod stale;
mod surroundings;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use ipnet::IpNet;
use portolan_netcore::dns::ZoneChange;
use portolan_netcore::host::{ForeignRoute, Host};
use portolan_netcore::ipam::{AddressSpace, Pools};
use portolan_netcore::model::{ContainerId, EndpointId, NetworkId, SandboxId};
use portolan_netcore::plan::{Desired, Settings};
use rand::RngCore;
use tokio::sync::{broadcast, watch};

use crate::publisher::{Publisher, Version};
use crate::records::{Batch, LeaseRecord, SandboxRecord};
use crate::{Error, NetConfig, NetworkAction, NetworkEvent, Store};

pub(crate) use advertise::Announcements;
pub(crate) use network::NetworkWork;
pub(crate) use restore::{Parts, open};
pub(crate) use sandbox::{Removal, Work};

/// What the owner is asked to do.
pub(crate) type Task = Box<dyn FnOnce(&mut Owner) + Send>;

/// The answer to a request that may have to wait its turn.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    /// It is decided.
    Done(T),
    /// Ask again once something has settled.
    Later,
}

/// The addresses of one network: a space a subnet.
#[derive(Clone, Debug, Default)]
struct Spaces {
    v4: Vec<AddressSpace>,
    v6: Vec<AddressSpace>,
}

impl Spaces {
    fn all(&self) -> impl Iterator<Item = &AddressSpace> {
        self.v4.iter().chain(&self.v6)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut AddressSpace> {
        self.v4.iter_mut().chain(&mut self.v6)
    }
}

/// What is going on with a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A plan for it is being carried out; others wait.
    Busy,
    Ready,
}

#[derive(Debug)]
struct Live {
    record: SandboxRecord,
    phase: Phase,
}

/// The desired state and all that follows from it.
pub(crate) struct Owner {
    config: NetConfig,
    host: Arc<dyn Host>,
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    events: broadcast::Sender<NetworkEvent>,
    settled: watch::Sender<u64>,
    pools: Pools,
    desired: Desired,
    /// Networks whose bridge is being made or removed: their names and subnets are taken, nobody can use them.
    hidden: BTreeSet<NetworkId>,
    members: BTreeMap<NetworkId, BTreeSet<EndpointId>>,
    spaces: BTreeMap<NetworkId, Spaces>,
    leases: BTreeMap<ContainerId, BTreeMap<NetworkId, LeaseRecord>>,
    /// The place in line of the next address asked for by number; see [`LeaseRecord::place`].
    next_place: u64,
    sandboxes: BTreeMap<SandboxId, Live>,
    /// Sandboxes whose namespace the kernel is still cleaning up.
    dying: BTreeSet<SandboxId>,
    ports: ports::PortTable,
    /// What the resolver has not been told yet.
    zone_changes: Vec<ZoneChange>,
    zones_version: Version,
    /// Sandboxes that the resolver answers.
    views: BTreeSet<SandboxId>,
    /// Sandboxes of containers that are not healthy.
    unready: BTreeSet<SandboxId>,
    /// Addresses of endpoints that are gone, whose connections the kernel has not forgotten yet.
    stale: BTreeSet<IpAddr>,
    /// The host's other routes, when they were last looked at.
    foreign_routes: Vec<ForeignRoute>,
    /// Those of them that overlap with a network.
    overlapping: BTreeSet<(NetworkId, IpNet)>,
}

impl Owner {
    /// Runs until the last sender is gone.
    pub(crate) fn start(self) -> Result<mpsc::Sender<Task>, Error> {
        let (sender, tasks) = mpsc::channel::<Task>();
        let mut owner = self;
        thread::Builder::new()
            .name("net-owner".to_owned())
            .spawn(move || {
                for task in tasks {
                    task(&mut owner);
                }
            })
            .map_err(|error| Error::internal(format!("cannot start the networks' thread: {error}")))?;
        Ok(sender)
    }

    /// Counts what has settled, for those who wait.
    pub(crate) fn subscribe_settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    fn settle(&self) {
        self.settled.send_modify(|count| *count += 1);
    }

    fn commit(&self, batch: &Batch) -> Result<(), Error> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        self.store.commit(&batch.changes).map_err(|error| Error::internal(error.to_string()))
    }

    fn emit(&self, action: NetworkAction, network: &NetworkId, container: Option<&ContainerId>) {
        let Some(network) = self.desired.networks.get(network) else { return };
        // Nobody listening is fine.
        let _ = self.events.send(NetworkEvent {
            action,
            network: network.id.clone(),
            name: network.name.clone(),
            driver: network.driver.name(),
            container: container.cloned(),
            route: None,
        });
    }

    fn emit_route(&self, action: NetworkAction, network: &NetworkId, route: IpNet) {
        let Some(network) = self.desired.networks.get(network) else { return };
        let _ = self.events.send(NetworkEvent {
            action,
            network: network.id.clone(),
            name: network.name.clone(),
            driver: network.driver.name(),
            container: None,
            route: Some(route),
        });
    }

    pub(crate) fn desired(&self) -> &Desired {
        &self.desired
    }

    fn netns(&self, id: &SandboxId) -> PathBuf {
        self.config.exec_root.join("netns").join(id.short())
    }

    /// The state before a change begins: settings only.
    fn nothing(&self) -> Desired {
        Desired { settings: self.desired.settings, ..Desired::default() }
    }
}

/// 32 bytes nobody can guess, for an id.
fn entropy() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// The settings that the configuration and the host's facts make.
fn settings(config: &NetConfig, facts: &portolan_netcore::host::HostFacts) -> Settings {
    Settings {
        ip_forward: config.ip_forward,
        firewall: config.firewall,
        ipv6: facts.ipv6,
        bridge_netfilter: facts.bridge_netfilter,
        // Where nobody would keep internal networks from it, nothing is carried over.
        proxy: config.userland_proxy && facts.guards_carried,
        direct_routing: config.direct_routing,
    }
}
