//! A simulated host: the kernel's surprises as a value, faults on demand. For tests of plans and of
//! everything above them.
//!
//! It keeps a [`HostState`](portolan_netcore::plan::HostState) and does to it what the kernel does:
//! the ends of a veth pair die together, a namespace takes its links along, a bridge that goes
//! leaves its ports without a master, a link that is not there cannot be changed.

mod firewall;
mod host;
mod links;

pub use host::{Faults, SimHost};
