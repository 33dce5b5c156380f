//! The pure core of Portolan's networking: what is *wanted* and what is *observed* become a plan,
//! which is data. Nothing here blocks, reads a clock, draws a random number or touches the kernel;
//! time, chance and ids are arguments.
//!
//! - [`model`]: networks, endpoints, sandboxes: Docker's nouns as values that are valid by construction.
//! - [`ipam`]: pools, subnets and leases.
//! - [`firewall`]: policy (meaning) -> rule set (syntax tree) -> text or transaction.
//! - [`foreign`]: what other programs' firewalls would do to our traffic.
//! - [`dns`]: zones and the embedded resolver's answer as a function.
//! - [`plan`]: the kernel's vocabulary ([`plan::HostState`]), [`plan::Step`]s and their order.
//! - [`shared`]: ordered maps whose copies share what they have in common.
//! - [`host`]: the only seam to the kernel, the trait that `netlinux` and `netsim` implement.

pub mod dns;
pub mod firewall;
pub mod foreign;
pub mod host;
pub mod ipam;
pub mod model;
pub mod plan;
pub mod shared;
