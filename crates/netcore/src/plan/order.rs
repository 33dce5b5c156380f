//! The order of steps, in one place.
//!
//! A plan is a list of steps, each with its phase, sorted by phase. The phases are ordered so that
//!
//! - no prefix of a plan lets more packets through than both its ends: rules that close come before
//!   the links that they guard come up ([`Phase::OpenFirewall`] before [`Phase::AddBridge`]), and go
//!   after those are gone ([`Phase::LateFirewall`]); a port leads somewhere only while it is held;
//!   forwarding is switched on behind the firewall ([`Phase::HostSysctl`]);
//! - what is replaced is added before the old is removed, so that traffic goes on (routes, addresses),
//!   unless the kernel has room for only one (a name, a port);
//! - what can fail because of others fails before anything is built (a port in use).

use std::collections::BTreeMap;

use super::{Desired, LinkKey, Ns, Step, Touched};

/// When a step happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Ports that lead nowhere any more.
    CloseFirewall,
    /// Proxies of ports that stay held but lead nowhere.
    Unproxy,
    /// Host ports are let go of once nothing is led in from them.
    ReleasePort,
    /// What is in the way of something new, and what is simply gone: bridges, namespaces.
    RemoveEarly,
    /// Host ports, the only thing that strangers compete for.
    HoldPort,
    /// Everything that comes, and what it replaces.
    OpenFirewall,
    AddNamespace,
    /// Links take over the namespace's defaults when they are made.
    NamespaceSysctl,
    AddBridge,
    HostSysctl,
    BridgeAddress,
    BridgeUp,
    AddVeth,
    Attributes,
    /// Before the link is up: no address is to appear by itself.
    LinkSysctl,
    AddAddress,
    SetUp,
    AddRoute,
    /// Once what it leads to can be reached.
    Proxy,
    RedirectDns,
    Announce,
    /// Flows of ports that changed hands, once they lead where they should.
    ForgetFlows,
    RemoveRoute,
    RemoveAddress,
    /// Links of sandboxes that stay.
    RemoveLate,
    /// Rules that guarded what is gone now.
    LateFirewall,
}

/// Steps with their phases, in any order.
#[derive(Debug, Default)]
pub(super) struct Unordered {
    steps: Vec<(Phase, Step)>,
}

impl Unordered {
    pub(super) fn push(&mut self, phase: Phase, step: Step) {
        self.steps.push((phase, step));
    }

    /// Steps of one phase stay in the order in which they were pushed.
    pub(super) fn sort(mut self) -> Vec<Step> {
        self.steps.sort_by_key(|(phase, _)| *phase);
        self.steps.into_iter().map(|(_, step)| step).collect()
    }
}

/// Puts the steps that make the links of sandboxes into the order of the touched endpoints: the kernel numbers
/// a namespace's interfaces as they are made, and shows them by number.
pub(super) fn order_interfaces(steps: &mut [Step], desired: &Desired, touched: &Touched) {
    if touched.endpoints.len() < 2 {
        return;
    }
    let endpoints = touched.endpoints.iter().filter_map(|id| desired.endpoints.get(id));
    let key = endpoints.map(|endpoint| (Ns::Sandbox(endpoint.sandbox.clone()), endpoint.ifname.clone()));
    let place: BTreeMap<LinkKey, usize> = key.zip(0..).collect();
    let placed = |step: &Step| match step {
        Step::AddVeth { container, .. } => place.get(container).copied(),
        Step::AddLink(link, _) => place.get(link).copied(),
        _ => None,
    };
    let Some(first) = steps.iter().position(|step| placed(step).is_some()) else { return };
    let end = steps.iter().rposition(|step| placed(step).is_some()).map_or(first, |last| last + 1);
    // All are of one phase, so nothing else is moved but links of the host among them, to the front.
    steps[first..end].sort_by_key(placed);
}
