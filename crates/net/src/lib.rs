//! Networks for containers, as a library: create networks, attach sandboxes, publish ports; the
//! reconciler keeps the host as desired.
//!
//! `Networks` (to be written in this crate) is the handle; see `spec` for what it takes.

mod spec;

pub use spec::{AttachSpec, IpamPoolSpec, NetConfig, NetworkSpec, PortRequest, SandboxSpec};
