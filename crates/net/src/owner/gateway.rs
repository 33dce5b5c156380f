//! Which of a sandbox's endpoints its default routes go through.
//!
//! One endpoint is the gateway, and publishes the ports. Where it has only one address family, the next that has
//! the other stands in for that family's default route.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use portolan_netcore::model::{
    Allowed, Ask, Driver, Endpoint, EndpointId, Family, ForSome, IpvlanMode, PortBinding, Proto, bindings_of,
};
use portolan_netcore::shared::SharedSet;

use super::Owner;
use super::draft::Draft;
use super::ports::Exchange;
use crate::{Error, PortRequest};

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

    /// The gateway after a change, and the published ports with it: what is asked for is published anew, by
    /// the rules of the new one's network, on the same ports of the host where it may choose.
    pub(super) fn reelect(&mut self, draft: &mut Draft) -> Result<(), Error> {
        let gateway = self.elect(draft.endpoints.iter());
        for endpoint in draft.endpoints.iter_mut().filter(|endpoint| Some(&endpoint.id) != gateway.as_ref()) {
            endpoint.is_gateway = false;
            draft.published.append(std::mem::take(&mut endpoint.published));
            draft.allowed.append(std::mem::take(&mut endpoint.allowed));
        }
        for endpoint in draft.endpoints.iter_mut().filter(|endpoint| Some(&endpoint.id) == gateway.as_ref()) {
            endpoint.is_gateway = true;
        }
        self.elect_stand_in(&mut draft.endpoints);
        let Some(endpoint) =
            draft.endpoints.iter_mut().find(|endpoint| Some(&endpoint.id) == gateway.as_ref())
        else {
            return Ok(());
        };
        if endpoint.published.is_empty() && !draft.record.ports.is_empty() {
            let asked = draft.record.asked();
            let preferred = preferred(&asked, &draft.published, &draft.allowed);
            draft.exchange = Exchange::new(draft.published.keys(), preferred);
            let taken = self.publish(endpoint, &asked, &mut draft.exchange, true)?;
            endpoint.publish(taken.bindings, taken.allowed);
        }
        Ok(())
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

/// The host port that each of what is asked for has now.
fn preferred(
    asked: &[PortRequest],
    published: &SharedSet<PortBinding>,
    allowed: &Allowed,
) -> Vec<Option<u16>> {
    let mut bindings: BTreeMap<(Proto, u16), Vec<ForSome<'_>>> = BTreeMap::new();
    for binding in published.keys() {
        let from = allowed.get(binding).map_or(&[][..], Vec::as_slice);
        bindings.entry((binding.proto, binding.container_port)).or_default().push((binding, from));
    }
    // Those of one port of the container follow one another.
    let port = |request: &PortRequest| (request.proto, request.container_port);
    let of_port = |asked: &[PortRequest]| {
        let asks: Vec<Ask<'_>> = asked.iter().map(PortRequest::as_ask).collect();
        let there = asked.first().and_then(|first| bindings.get(&port(first)));
        let owned = bindings_of(&asks, there.map_or(&[][..], Vec::as_slice));
        owned.into_iter().map(|own| own.first().map(|binding| binding.host_port)).collect::<Vec<_>>()
    };
    asked.chunk_by(|one, other| port(one) == port(other)).flat_map(of_port).collect()
}
