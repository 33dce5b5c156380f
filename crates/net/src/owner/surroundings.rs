//! What somebody else's routes and links on the host mean for our networks: routes that overlap with
//! them, and the MTU of the way out.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_netcore::host::{ForeignRoute, Host};
use portolan_netcore::model::{Driver, EndpointId, Network, NetworkId};
use portolan_netcore::plan::{IPV6_FORWARDING, Ns, Step, Touched, change};

use super::{Owner, Phase};
use crate::heal::Repair;
use crate::records::Batch;
use crate::{Error, NetworkAction, options, parent};

/// A host that begins to forward IPv6 forgets the routes it learnt from router advertisements, its default
/// route as a rule, and learns no more: but by links with `accept_ra` 2. So those that do learn come first.
pub(super) fn keep_learnt_routes(host: &dyn Host, steps: Vec<Step>) -> Vec<Step> {
    let forwards = |step: &Step| matches!(step, Step::SetSysctl(Ns::Host, key, on) if key == IPV6_FORWARDING && on == "1");
    if !steps.iter().any(forwards) {
        return steps;
    }
    let links = host.advertised().unwrap_or_else(|error| {
        tracing::warn!(%error, "this host may forget what router advertisements told it");
        BTreeSet::new()
    });
    let keep = links.into_iter().map(|link| {
        tracing::info!(%link, "it goes on listening to router advertisements while this host forwards IPv6");
        Step::SetSysctl(Ns::Host, format!("net/ipv6/conf/{link}/accept_ra"), "2".to_owned())
    });
    keep.chain(steps).collect()
}

impl Owner {
    /// Looks at the host's routes and links, and follows what changed.
    pub(crate) fn look_around(&mut self) -> Repair {
        let mut repair = Repair::default();
        match self.host.foreign_routes() {
            Ok(routes) => self.note_routes(routes),
            Err(error) => repair.errors.push(error),
        }
        let following: Vec<NetworkId> = self
            .desired
            .networks
            .values()
            .filter(|network| options::follows_mtu(&network.options) && !self.hidden.contains(&network.id))
            .map(|network| network.id.clone())
            .collect();
        for id in following {
            if let Err(error) = self.follow_mtu(&id, &mut repair) {
                tracing::warn!(network = %id, %error, "cannot follow the MTU of the way out");
            }
        }
        repair
    }

    /// The host's other routes as they are now: tells of those that begin or cease to overlap.
    pub(super) fn note_routes(&mut self, routes: Vec<ForeignRoute>) {
        self.foreign_routes = routes;
        let visible = self.desired.networks.values().filter(|network| !self.hidden.contains(&network.id));
        let now = visible
            .flat_map(|network| self.overlaps(network).into_iter().map(|route| (network.id.clone(), route)))
            .collect();
        let before = std::mem::replace(&mut self.overlapping, now);
        let begun: Vec<_> = self.overlapping.difference(&before).cloned().collect();
        let ended: Vec<_> = before.difference(&self.overlapping).cloned().collect();
        for (network, route) in begun {
            tracing::warn!(%network, %route, "a route of the host overlaps with a network");
            self.emit_route(NetworkAction::Overlap, &network, route);
        }
        for (network, route) in ended {
            self.emit_route(NetworkAction::OverlapEnd, &network, route);
        }
    }

    /// Routes of the host that overlap with a network: one for a part of it takes packets away from its
    /// containers, one for more than it loses those for them. Only the host routes to bridges of ours;
    /// the other drivers' subnets are those of their surroundings.
    pub(crate) fn overlaps(&self, network: &Network) -> Vec<IpNet> {
        let Driver::Bridge(bridge) = &network.driver else { return Vec::new() };
        if bridge.unmanaged || network.config_only {
            return Vec::new();
        }
        // The way to its subnet by a bridge that is not ours is not ours either, nor are the addresses there.
        let own = |route: &IpNet| {
            bridge.adopted.is_some()
                && (route.prefix_len() == route.max_prefix_len()
                    || network.ipam.iter().any(|config| config.subnet == *route))
        };
        let overlap = |route: &&IpNet| {
            !own(route)
                && network
                    .ipam
                    .iter()
                    .any(|config| config.subnet.contains(*route) || route.contains(&config.subnet))
        };
        let mut routes: Vec<IpNet> = self.foreign_routes.iter().map(|route| route.destination).collect();
        routes.retain(|route| overlap(&route));
        routes.dedup();
        routes
    }

    fn follow_mtu(&mut self, id: &NetworkId, repair: &mut Repair) -> Result<(), Error> {
        let mut network = self.network(id)?.clone();
        parent::set_mtu(&mut network.driver, network.ipv6, self.host.as_ref())?;
        if network.driver == self.network(id)?.driver {
            return Ok(());
        }
        let endpoints: Vec<EndpointId> = self.endpoints_of(id).map(|endpoint| endpoint.id.clone()).collect();
        let busy = self.endpoints_of(id).any(|endpoint| {
            self.sandboxes.get(&endpoint.sandbox).is_none_or(|live| live.phase == Phase::Busy)
        });
        if busy {
            // Its plan is made already, with the MTU as it was.
            repair.busy = true;
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put_network(&network)?;
        self.commit(&batch)?;
        let touched = Touched { networks: [id.clone()].into(), ..Touched::endpoints(&endpoints) };
        let before = self.desired.slice(&touched);
        self.desired.networks.insert(id.clone(), Arc::new(network));
        let steps = change(&before, &self.desired, &touched);
        repair.errors.extend(crate::apply::run_whatever_fails(self.host.as_ref(), &steps));
        tracing::info!(network = %id, steps = steps.len(), "the MTU of the way out changed, and the network's with it");
        Ok(())
    }
}
