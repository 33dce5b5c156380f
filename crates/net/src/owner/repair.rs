//! The owner's part of self-healing: is it a disturbance, and what puts it right.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use portolan_netcore::host::Disturbance;
use portolan_netcore::model::{EndpointId, NetworkId};
use portolan_netcore::plan::{ALIAS_PREFIX, Step, Touched, introduce, is_altered, repair};

use super::surroundings::keep_learnt_routes;
use super::{Owner, Phase};
use crate::failing::Failing;
use crate::heal::Repair;

/// There is no such link.
const ENODEV: i32 = 19;

impl Owner {
    /// Something is being made or taken down right now.
    pub(crate) fn is_busy(&self) -> bool {
        !self.hidden.is_empty() || self.sandboxes.values().any(|live| live.phase != Phase::Ready)
    }

    /// Sandboxes that the kernel is still cleaning up behind.
    pub(crate) fn dying(&self) -> BTreeSet<portolan_netcore::model::SandboxId> {
        self.dying.clone()
    }

    /// Whether this differs from what is desired, as far as the desired state alone can tell. What is
    /// being made or taken down right now is none.
    pub(crate) fn is_disturbance(&self, heard: &Disturbance) -> bool {
        match heard {
            Disturbance::Link { name, alias, found } => {
                self.is_at_rest(alias) && is_altered(&self.desired, alias, name, found.as_deref())
            }
            Disturbance::RouteReplaced(destination) => self.is_own_subnet(*destination),
            Disturbance::SubnetGone(alias) => self.is_at_rest(alias),
            Disturbance::AddressGone(address) | Disturbance::ForeignAddressGone(address) => {
                self.is_own_address(*address)
            }
            Disturbance::RouteGone | Disturbance::Setting | Disturbance::Lost => true,
            Disturbance::Ruleset { .. } | Disturbance::Surroundings => false,
        }
    }

    /// The network or endpoint that links of this alias are of is wanted, and nobody is at work on it.
    fn is_at_rest(&self, alias: &str) -> bool {
        let id = alias.strip_prefix(ALIAS_PREFIX).unwrap_or_default();
        let network = id.parse::<NetworkId>().ok().filter(|id| self.desired.networks.contains_key(id));
        if let Some(network) = network {
            return !self.hidden.contains(&network);
        }
        let endpoint = id.parse::<EndpointId>().ok().and_then(|id| self.desired.endpoints.get(&id));
        let sandbox = endpoint.and_then(|endpoint| self.sandboxes.get(&endpoint.sandbox));
        sandbox.is_some_and(|live| live.phase == Phase::Ready)
    }

    fn is_own_subnet(&self, subnet: IpNet) -> bool {
        let visible = self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        visible.flat_map(|network| &network.ipam).any(|pool| pool.subnet == subnet)
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        let visible = self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        let mut pools = visible.flat_map(|network| &network.ipam);
        pools.any(|pool| {
            pool.gateway == Some(address) || pool.auxiliary.values().any(|auxiliary| *auxiliary == address)
        })
    }

    /// Looks at the host's namespace and puts right what is not as it should be. Sandboxes and networks
    /// that are being changed are left to those who are at it, and steps that keep failing to their time.
    pub(crate) fn repair(&mut self, failing: &Mutex<Failing>) -> Repair {
        let mut repair = self.repair_once(failing);
        // A link that was seen went or was renamed before its turn came: what is needed is another thing by now.
        if repair.errors.iter().any(|error| error.errno == Some(ENODEV)) {
            let again = self.repair_once(failing);
            repair.steps.extend(again.steps);
            (repair.errors, repair.busy) = (again.errors, again.busy);
        }
        repair
    }

    fn repair_once(&mut self, failing: &Mutex<Failing>) -> Repair {
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
        let mut steps = keep_learnt_routes(self.host.as_ref(), steps);
        let mut failing = failing.lock().unwrap_or_else(PoisonError::into_inner);
        if !failing.is_empty() {
            let now = Instant::now();
            let texts: BTreeSet<String> = steps.iter().map(ToString::to_string).collect();
            failing.keep(|step| texts.contains(step));
            steps = due(&steps, |step| failing.is_due(&step.to_string(), now));
        }
        // A repair may take its time.
        drop(failing);
        let (steps, errors) = crate::apply::run_each(self.host.as_ref(), &steps);
        // It only saves time: a link that is gone by now is told of, and repaired, by itself.
        let introduced = introduce(&self.desired, &steps);
        if !introduced.is_empty() {
            crate::apply::run_each(self.host.as_ref(), &introduced);
        }
        Repair { steps, errors, busy, ..Repair::default() }
    }
}

/// Without the steps whose time is not come, and those that need them.
fn due(steps: &[Step], is_due: impl Fn(&Step) -> bool) -> Vec<Step> {
    let mut due = Vec::new();
    let mut rest = Cow::Borrowed(steps);
    while let Some(waiting) = rest.iter().position(|step| !is_due(step)) {
        due.extend_from_slice(&rest[..waiting]);
        rest = Cow::Owned(crate::apply::behind(&rest, waiting));
    }
    due.extend(rest.into_owned());
    due
}
