//! Which of a sandbox's endpoints its default routes go through.
//!
//! One endpoint is the gateway, and publishes the ports. Where it has only one address family, the next that has
//! the other stands in for that family's default route.

use std::cmp::Reverse;

use portolan_netcore::model::{Driver, Endpoint, EndpointId, Family, IpvlanMode};

use super::Owner;

impl Owner {
    /// The gateway: the highest priority, then one with both families, then the lowest network name.
    pub(super) fn elect<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> Option<EndpointId> {
        endpoints
            .filter(|endpoint| self.families_out(endpoint) > 0)
            .min_by_key(|endpoint| self.rank(endpoint))
            .map(|endpoint| endpoint.id.clone())
    }

    /// The best gateway first; last those that lead nowhere.
    pub(super) fn by_rank<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<&'a Endpoint> {
        let mut endpoints: Vec<&Endpoint> = endpoints.collect();
        endpoints.sort_by_key(|endpoint| (self.families_out(endpoint) == 0, self.rank(endpoint)));
        endpoints
    }

    /// The lowest is the gateway.
    fn rank(&self, endpoint: &Endpoint) -> impl Ord + use<'_> {
        let network = self.desired.networks.get(&endpoint.network);
        let name = network.map(|network| network.name.as_str());
        (Reverse(endpoint.gw_priority), Reverse(self.families_out(endpoint)), name)
    }

    /// How many families' default routes can go through it.
    fn families_out(&self, endpoint: &Endpoint) -> usize {
        [Family::Ipv4, Family::Ipv6].into_iter().filter(|family| self.leads_out(endpoint, *family)).count()
    }

    /// Lets the next best endpoint stand in for a family that the gateway has none of.
    pub(super) fn elect_stand_in(&self, endpoints: &mut [Endpoint]) {
        let lacks = |family: &Family| {
            let gateway = endpoints.iter().find(|endpoint| endpoint.is_gateway);
            gateway.is_some_and(|gateway| !self.leads_out(gateway, *family))
        };
        let family = [Family::Ipv4, Family::Ipv6].into_iter().find(lacks);
        let with = |family| endpoints.iter().filter(move |endpoint| self.leads_out(endpoint, family));
        let stand_in = family.and_then(|family| self.elect(with(family)));
        for endpoint in endpoints {
            endpoint.stands_in = family.filter(|_| Some(&endpoint.id) == stand_in.as_ref());
        }
    }

    /// The default route of a family can go through it: it has a gateway, or needs none.
    fn leads_out(&self, endpoint: &Endpoint, family: Family) -> bool {
        let (gateway, has) = match family {
            Family::Ipv4 => (endpoint.gateway_ipv4.is_some(), endpoint.ipv4.is_some()),
            Family::Ipv6 => (endpoint.gateway_ipv6.is_some(), endpoint.ipv6.is_some()),
        };
        let needs_none = self.desired.networks.get(&endpoint.network).is_some_and(|network| {
            !network.internal
                && !network.routing.no_default_route
                && matches!(&network.driver, Driver::Ipvlan(options) if options.mode != IpvlanMode::L2)
        });
        gateway || (needs_none && has)
    }
}
