//! Connections of addresses whose holder is gone: the kernel forgets them before they can be the next
//! holder's.
//!
//! Looking for them takes the kernel as long as its table is (tens of milliseconds), so it happens after a
//! sandbox is gone, and on the way to a new one only if that gets the address sooner.

use std::net::IpAddr;

use portolan_netcore::model::{Endpoint, EndpointId};
use portolan_netcore::plan::Step;

use super::Owner;
use super::sandbox::Back;

impl Owner {
    /// An endpoint is gone. Its addresses.
    pub(super) fn leave_addresses(&mut self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let addresses = if self.desired.settings.firewall { addresses(endpoint) } else { Vec::new() };
        self.stale.extend(&addresses);
        addresses
    }

    /// The step before new endpoints come that get addresses of former ones.
    pub(super) fn forget_for(&mut self, back: &Back) -> Option<Step> {
        if self.stale.is_empty() {
            return None;
        }
        let new = |id: &&EndpointId| !back.before.endpoints.contains_key(*id);
        let endpoints = back.touched.endpoints.iter().filter(new);
        let wanted: Vec<IpAddr> = self.endpoints_by(endpoints).flat_map(addresses).collect();
        self.take_stale(&wanted)
    }

    /// The step that forgets the connections of these addresses, as far as that is still to be done.
    /// Whoever takes it does it.
    pub(crate) fn take_stale(&mut self, addresses: &[IpAddr]) -> Option<Step> {
        let stale: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| self.stale.remove(address)).collect();
        (!stale.is_empty()).then_some(Step::ForgetAddresses(stale))
    }
}

pub(super) fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    v4.into_iter().chain(v6).collect()
}
