//! The seam to the kernel.

use std::fmt;
use std::time::Duration;

use crate::model::{IfName, PortRange};
use crate::plan::{HostState, Step};

/// A step that could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct StepError {
    /// The step's one-line description.
    pub step: String,
    /// What the kernel said, in words.
    pub reason: String,
    /// The errno, if the kernel gave one.
    pub errno: Option<i32>,
    /// Trying again later may help (EBUSY, EAGAIN, ENOBUFS).
    pub transient: bool,
}

/// How far a plan got. The steps before `done` have taken effect, the one at `done` failed if
/// `error` is set, the rest were not tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of steps that took effect.
    pub done: usize,
    /// Why the next one did not.
    pub error: Option<StepError>,
}

/// What the core needs from a host. Implementations carry out steps and choose nothing.
///
/// Calls block; callers run them on threads that may. Several threads may call at once as long as
/// their plans touch different sandboxes; the implementation serialises what the kernel requires
/// (the firewall transaction, links in the host's namespace).
pub trait Host: Send + Sync + fmt::Debug {
    /// Everything on the host that is recognisably ours: owned namespaces, links with our alias,
    /// their addresses and routes, our firewall tables.
    fn observe(&self) -> Result<HostState, StepError>;

    /// Carries out the steps in order and stops at the first failure. Neighbouring steps may be sent
    /// to the kernel in one message. Removing what is already gone is success.
    fn execute(&self, steps: &[Step]) -> Report;

    /// Destinations of routes in the host's main table that are not ours, for overlap checks.
    fn foreign_routes(&self) -> Result<Vec<ipnet::IpNet>, StepError>;

    /// What choices depend on and no plan changes. Cheap: asked for once a request.
    fn facts(&self) -> Result<HostFacts, StepError> {
        Ok(HostFacts::default())
    }

    /// Waits until none of these links is in the host's namespace any more: the end of the clean-up
    /// that [`Step::RemoveNamespace`] leaves to the kernel. False if they are still there after
    /// `limit`.
    fn await_gone(&self, links: &[IfName], limit: Duration) -> Result<bool, StepError> {
        let _ = (links, limit);
        Ok(true)
    }
}

/// Facts about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// `net.ipv4.ip_local_port_range`: where the kernel takes ports for those who do not care.
    pub ephemeral: PortRange,
    /// `net.ipv4.ip_local_reserved_ports`: taken only by those who ask for them.
    pub reserved: Vec<PortRange>,
    /// The kernel has IPv6 (`/proc/sys/net/ipv6` exists).
    pub ipv6: bool,
    /// Bridged frames pass the IP hooks (`net.bridge.bridge-nf-call-iptables` is 1).
    pub bridge_netfilter: bool,
}

impl Default for HostFacts {
    /// The kernel's defaults.
    fn default() -> Self {
        Self {
            ephemeral: PortRange { first: 32_768, last: 60_999 },
            reserved: Vec::new(),
            ipv6: true,
            bridge_netfilter: false,
        }
    }
}
