//! The owner's part of self-healing: is it a disturbance, and what puts it right.

use std::net::IpAddr;

use portolan_netcore::host::Disturbance;
use portolan_netcore::model::{Driver, EndpointId, NetworkId};
use portolan_netcore::plan::{Touched, repair};

use super::surroundings::keep_learnt_routes;
use super::{Owner, Phase};
use crate::heal::Repair;

impl Owner {
    /// Something is being made or taken down right now.
    pub(crate) fn is_busy(&self) -> bool {
        !self.hidden.is_empty() || self.sandboxes.values().any(|live| live.phase != Phase::Ready)
    }

    /// Sandboxes that the kernel is still cleaning up behind.
    pub(crate) fn dying(&self) -> std::collections::BTreeSet<portolan_netcore::model::SandboxId> {
        self.dying.clone()
    }

    /// Whether this differs from what is desired, as far as the desired state alone can tell. What is
    /// being made or taken down right now is none.
    pub(crate) fn is_disturbance(&self, heard: &Disturbance) -> bool {
        match heard {
            Disturbance::Link { name, alias, up, master } => {
                let Some(id) = alias.strip_prefix("portolan:") else { return false };
                let network = id.parse::<NetworkId>().ok().and_then(|id| self.desired.networks.get(&id));
                if let Some(network) = network.filter(|network| !self.hidden.contains(&network.id)) {
                    let same = match &network.driver {
                        Driver::Bridge(options) => options.bridge == *name,
                        // The parent or the host's own link: the look will tell.
                        _ => false,
                    };
                    return !(*up && same);
                }
                let endpoint = id.parse::<EndpointId>().ok().and_then(|id| self.desired.endpoints.get(&id));
                endpoint.is_some_and(|endpoint| {
                    let ready =
                        self.sandboxes.get(&endpoint.sandbox).is_some_and(|live| live.phase == Phase::Ready);
                    let bridge = match self.desired.networks.get(&endpoint.network).map(|n| &n.driver) {
                        Some(Driver::Bridge(options)) => Some(&options.bridge),
                        _ => None,
                    };
                    ready && !(*up && *name == endpoint.host_ifname && master.as_ref() == bridge)
                })
            }
            Disturbance::AddressGone(address) => self.is_own_address(*address),
            Disturbance::RouteGone | Disturbance::Setting | Disturbance::Lost => true,
            Disturbance::Ruleset { .. } | Disturbance::Surroundings => false,
        }
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        let visible = self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        let mut pools = visible.flat_map(|network| &network.ipam);
        pools.any(|pool| {
            pool.gateway == Some(address) || pool.auxiliary.values().any(|auxiliary| *auxiliary == address)
        })
    }

    /// Looks at the host's namespace and puts right what is not as it should be. Sandboxes and networks
    /// that are being changed are left to those who are at it.
    pub(crate) fn repair(&mut self) -> Repair {
        let observed = match self.host.observe_own() {
            Ok(observed) => observed,
            Err(error) => return Repair { errors: vec![error], ..Repair::default() },
        };
        let mut touched = Touched {
            networks: self.desired.networks.keys().filter(|id| !self.hidden.contains(id)).cloned().collect(),
            ..Touched::default()
        };
        let mut busy = !self.hidden.is_empty();
        for (id, live) in &self.sandboxes {
            if live.phase == Phase::Ready {
                touched.sandboxes.insert(id.clone());
                touched.endpoints.extend(live.record.order.iter().cloned());
            } else {
                busy = true;
            }
        }
        let steps = repair(&self.desired, &touched, &observed);
        let steps = keep_learnt_routes(self.host.as_ref(), steps);
        let errors = crate::apply::run_whatever_fails(self.host.as_ref(), &steps);
        Repair { steps, errors, busy, ..Repair::default() }
    }
}
