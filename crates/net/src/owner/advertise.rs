//! Telling neighbours about a new endpoint's addresses, more than once: a switch may be busy, a frame lost.
//!
//! The plan announces at once where neighbours may remember another hardware address. Where the hardware
//! address follows from the IPv4 address they cannot, and the first announcement is left out: opening a
//! packet socket in every namespace would make short-lived containers wait for the kernel.

use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::model::{Endpoint, EndpointId};
use portolan_netcore::plan::{Ns, Step};

use super::Owner;
use super::endpoint::Advertising;

/// Announcements of one endpoint that are still to come.
#[derive(Debug)]
pub(crate) struct Announcements {
    endpoint: EndpointId,
    /// Before the first.
    pub(crate) delay: Duration,
    /// Between two.
    pub(crate) interval: Duration,
    pub(crate) count: u32,
}

/// What is to be announced after the plan's own steps, from which announcements that are not wanted go.
pub(super) fn after(
    steps: &mut Vec<Step>,
    endpoint: &Endpoint,
    advertising: Advertising,
) -> Option<Announcements> {
    let own = |step: &Step| {
        matches!(step, Step::Announce((Ns::Sandbox(id), name), _)
            if *id == endpoint.sandbox && *name == endpoint.ifname)
    };
    if advertising.count == 0 {
        steps.retain(|step| !own(step));
    }
    let planned = steps.iter().any(own);
    let at_once = advertising.asked && !planned;
    // The first is either the plan's or, if nobody needs it, left out.
    let count = if at_once { advertising.count } else { advertising.count.saturating_sub(1) };
    let delay = if at_once { Duration::ZERO } else { advertising.interval };
    let silent = count == 0 || endpoint.ifname.as_str() == "lo";
    (!silent).then(|| Announcements {
        endpoint: endpoint.id.clone(),
        delay,
        interval: advertising.interval,
        count,
    })
}

impl Owner {
    /// The step that announces an endpoint's addresses, if it is still there.
    pub(crate) fn announcement(&self, announcements: &Announcements) -> Option<Step> {
        let endpoint = self.desired.endpoints.get(&announcements.endpoint)?;
        let addresses: Vec<IpNet> = endpoint.addresses().collect();
        let key = (Ns::Sandbox(endpoint.sandbox.clone()), endpoint.ifname.clone());
        (!addresses.is_empty()).then_some(Step::Announce(key, addresses))
    }
}
