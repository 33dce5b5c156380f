//! The seam to the kernel.

use std::fmt;

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
}
