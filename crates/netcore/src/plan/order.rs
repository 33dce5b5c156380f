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

use super::Step;

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
