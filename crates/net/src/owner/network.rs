//! Making and removing networks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use portolan_netcore::ipam::AddressSpace;
use portolan_netcore::model::{Driver, IfName, Network, NetworkId};
use portolan_netcore::plan::{Desired, Step, Touched, change, undo};

use super::surroundings::keep_learnt_routes;
use super::{Owner, Spaces, entropy};
use crate::create::{self, Surroundings};
use crate::records::Batch;
use crate::{Error, NetworkAction, NetworkSpec, template};

/// A network that is decided and not there yet, or still there and given up.
#[derive(Debug)]
pub(crate) struct NetworkWork {
    pub(crate) network: Network,
    pub(crate) steps: Vec<Step>,
    /// The network as it was, if it was there.
    before: Desired,
}

impl NetworkWork {
    /// The way back from what was done of the steps.
    pub(crate) fn undo(&self, done: &[Step], not_done: &[Step]) -> Vec<Step> {
        undo(&self.before, &Touched::network(&self.network.id), done, not_done)
    }
}

/// Now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Owner {
    pub(crate) fn begin_create(&mut self, mut spec: NetworkSpec) -> Result<NetworkWork, Error> {
        create::check_name(&spec.name)?;
        if self.desired.networks.values().any(|network| network.name == spec.name) {
            return Err(Error::conflict(format!("network with name {} already exists", spec.name)));
        }
        let id = NetworkId::from_bytes(entropy());
        let network = if spec.config_only {
            template::network(spec, id, now_ns())?
        } else {
            if !spec.config_from.is_empty() {
                spec = template::apply(self.template(&spec.config_from)?, spec)?;
            }
            self.add_default_options(&mut spec);
            let routes = self.host.foreign_routes()?;
            self.foreign_routes.clone_from(&routes);
            let around = Surroundings {
                pools: &self.pools,
                networks: &self.subnet_holders(),
                routes: &routes,
                host: self.host.as_ref(),
            };
            create::network(spec, id, now_ns(), &around)?
        };
        self.check_link_is_its_alone(&network)?;
        let mut batch = Batch::default();
        batch.put_network(&network)?;
        self.commit(&batch)?;
        let mut work = self.insert_network(network);
        work.steps = keep_learnt_routes(self.host.as_ref(), work.steps);
        self.hidden.insert(work.network.id.clone());
        Ok(work)
    }

    fn template(&self, name: &str) -> Result<&Network, Error> {
        let found = self.desired.networks.values().find(|network| network.name == name);
        match found {
            Some(network) if network.config_only => Ok(network),
            Some(_) => Err(Error::forbidden(format!(
                "{name:?} is not a configuration network: it was not created with --config-only"
            ))),
            None => Err(Error::not_found(format!(
                "failed to get configuration network {name:?}: configuration network {name:?} not found"
            ))),
        }
    }

    /// What the daemon's configuration says for the driver, where the request says nothing.
    fn add_default_options(&self, spec: &mut NetworkSpec) {
        let driver = if matches!(spec.driver.as_str(), "" | "default") { "bridge" } else { &spec.driver };
        for (key, value) in self.config.network_options.get(driver).into_iter().flatten() {
            spec.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    /// Subnets of all networks.
    pub(super) fn subnets(&self) -> Vec<IpNet> {
        self.subnet_holders().into_iter().map(|(subnet, _)| subnet).collect()
    }

    /// Subnets of all networks, and the networks' names.
    pub(super) fn subnet_holders(&self) -> Vec<(IpNet, String)> {
        let networks = self.desired.networks.values().filter(|network| !network.config_only);
        networks
            .flat_map(|network| network.ipam.iter().map(|config| (config.subnet, network.name.clone())))
            .collect()
    }

    /// A parent link is one network's alone, as in Docker; so is a bridge, unless it is somebody
    /// else's anyway.
    fn check_link_is_its_alone(&self, network: &Network) -> Result<(), Error> {
        if let Some(parent) = network.driver.parent() {
            let uses =
                |other: &&Arc<Network>| other.driver.parent().is_some_and(|it| it.parent == parent.parent);
            return match self.desired.networks.values().find(uses) {
                None => Ok(()),
                Some(other) => Err(Error::forbidden(format!(
                    "network {} is already using parent interface {}",
                    other.name, parent.parent
                ))),
            };
        }
        let Some(name) = bridge_name(network) else { return Ok(()) };
        let is_unmanaged =
            |network: &Network| matches!(&network.driver, Driver::Bridge(options) if options.unmanaged);
        let unmanaged = is_unmanaged(network);
        let mut same = self.desired.networks.values().filter(|other| bridge_name(other) == Some(name));
        match same.find(|other| !(unmanaged && is_unmanaged(other))) {
            None => Ok(()),
            Some(other) if unmanaged => Err(Error::invalid(format!(
                "bridge {name} is that of network {}: an unmanaged network needs one that Portolan has nothing to do with",
                other.name
            ))),
            Some(other) => Err(Error::forbidden(format!(
                "cannot create network {} ({name}): conflicts with network {} ({name}): networks have same bridge name",
                network.id, other.id
            ))),
        }
    }

    /// Into the desired state, with its address spaces. What the host needs for it.
    pub(super) fn insert_network(&mut self, network: Network) -> NetworkWork {
        let mut spaces = Spaces::default();
        // What was stored was checked.
        let serial = create::serial(network.ipam_options.as_ref()).unwrap_or_default();
        for config in network.ipam.iter().filter(|_| !network.config_only) {
            let space = AddressSpace::new(config).serial(serial);
            match config.subnet {
                IpNet::V4(_) => spaces.v4.push(space),
                IpNet::V6(_) => spaces.v6.push(space),
            }
        }
        self.spaces.insert(network.id.clone(), spaces);
        self.desired.networks.insert(network.id.clone(), Arc::new(network.clone()));
        let before = self.nothing();
        let steps = change(&before, &self.desired, &Touched::network(&network.id));
        NetworkWork { network, steps, before }
    }

    pub(crate) fn finish_create(&mut self, id: &NetworkId) {
        self.hidden.remove(id);
        self.add_zone(id);
        self.emit(NetworkAction::Create, id, None);
        self.note_routes(self.foreign_routes.clone());
        self.settle();
    }

    /// The host refused it.
    pub(crate) fn abort_create(
        &mut self,
        network: &Network,
        error: &portolan_netcore::host::StepError,
    ) -> Error {
        let mut batch = Batch::default();
        batch.delete_network(&network.id);
        if let Err(error) = self.commit(&batch) {
            tracing::error!(network = %network.name, %error, "cannot forget a network that could not be made");
        }
        self.drop_network(&network.id);
        self.settle();
        bridge_error(network, error)
    }

    fn drop_network(&mut self, id: &NetworkId) {
        self.hidden.remove(id);
        self.spaces.remove(id);
        self.members.remove(id);
        self.desired.networks.remove(id);
        self.overlapping.retain(|(network, _)| network != id);
        for leases in self.leases.values_mut() {
            leases.remove(id);
        }
        self.leases.retain(|_, leases| !leases.is_empty());
    }

    pub(crate) fn begin_remove(&mut self, reference: &str) -> Result<NetworkWork, Error> {
        let id = self.find_id(reference)?;
        let network = self.network(&id)?.clone();
        if network.predefined {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        if network.config_only
            && self.desired.networks.values().any(|other| other.config_from.as_ref() == Some(&network.name))
        {
            return Err(Error::forbidden(format!("configuration network {:?} is in use", network.name)));
        }
        let active: Vec<_> = self
            .endpoints_of(&id)
            .map(|endpoint| format!("name:{:?} id:{:?}", endpoint.container_name, endpoint.id.short()))
            .collect();
        if !active.is_empty() {
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                active.join(", ")
            )));
        }
        let mut batch = Batch::default();
        batch.delete_network(&id);
        batch.delete_serial(&id);
        for (container, leases) in &self.leases {
            if leases.contains_key(&id) {
                batch.delete_lease(&id, container);
            }
        }
        self.commit(&batch)?;
        self.hidden.insert(id.clone());
        self.remove_zone(&id);
        let touched = Touched::network(&id);
        let before = self.desired.slice(&touched);
        let steps = change(&before, &self.nothing(), &touched);
        Ok(NetworkWork { network, steps, before })
    }

    /// Networks to prune: those without endpoints that the caller does not want.
    pub(crate) fn unused(&self, unwanted: impl Fn(&Network) -> bool) -> Vec<NetworkId> {
        let mut unused: Vec<_> = self
            .desired
            .networks
            .values()
            .filter(|network| !network.predefined && !self.hidden.contains(&network.id))
            .filter(|network| !network.config_only)
            .filter(|network| self.endpoints_of(&network.id).next().is_none() && unwanted(network))
            .map(|network| (network.name.clone(), network.id.clone()))
            .collect();
        unused.sort();
        unused.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn finish_remove(&mut self, id: &NetworkId) {
        self.emit(NetworkAction::Destroy, id, None);
        self.drop_network(id);
        self.settle();
    }

    /// The host did not let go of it: it stays.
    pub(crate) fn abort_remove(
        &mut self,
        network: &Network,
        error: &portolan_netcore::host::StepError,
    ) -> Error {
        let mut batch = Batch::default();
        let stored = batch.put_network(network).and_then(|()| self.commit(&batch));
        if let Err(error) = stored {
            tracing::error!(network = %network.name, %error, "cannot keep a network that could not be removed");
        }
        self.hidden.remove(&network.id);
        self.add_zone(&network.id);
        self.settle();
        Error::internal(format!("error while removing network: {error}"))
    }
}

pub(super) fn bridge_name(network: &Network) -> Option<&IfName> {
    match &network.driver {
        Driver::Bridge(options) => Some(&options.bridge),
        Driver::Macvlan(_) | Driver::Ipvlan(_) | Driver::Host | Driver::Null => None,
    }
}

/// `EEXIST` on making a bridge means that the name is somebody else's.
pub(super) fn bridge_error(network: &Network, error: &portolan_netcore::host::StepError) -> Error {
    const EEXIST: i32 = 17;
    match bridge_name(network) {
        Some(bridge) if error.errno == Some(EEXIST) && network.name == "bridge" => Error::conflict(format!(
            "a link {bridge} that is not Portolan's exists on this host: give the default bridge another name with --bridge, or remove the link with `ip link delete {bridge}`"
        )),
        Some(bridge) if error.errno == Some(EEXIST) => Error::conflict(format!(
            "cannot create network {}: a link {bridge} that is not Portolan's exists on this host",
            network.name
        )),
        _ => Error::internal(format!("cannot create network {}: {error}", network.name)),
    }
}
