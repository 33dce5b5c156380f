//! A DHCPv4 client (RFC 2131) for links in other network namespaces.
//!
//! ```text
//!   client    one task a lease: timers, sockets, news        effects
//!   socket    a packet socket inside the namespace           effects
//!   wire      IP and UDP round a message                     pure
//!   message   bytes to what the machine knows, and back      pure
//!   machine   which message when, what an answer means       pure: time and chance are arguments
//! ```
//!
//! Between its exchanges a lease costs a timer: there is no socket in the namespace, and nothing that
//! a container could disturb. There is no DHCPDECLINE: whether a server's address is in use already is
//! the server's to check (it pings before it offers).

mod client;
mod machine;
mod message;
mod socket;
mod wire;

pub use client::{Dhcp, LeaseError};
