//! A DHCPv4 client (RFC 2131) for links in other network namespaces.
//!
//! ```text
//!   client    one task a lease: timers, sockets, news        effects
//!   socket    a packet socket inside the namespace           effects
//!   wire      IP and UDP round a message                     pure
//!   arp       whether somebody has an address                pure
//!   names     domains in options                             pure
//!   message   bytes to what the machine knows, and back      pure
//!   machine   which message when, what an answer means       pure: time and chance are arguments
//! ```
//!
//! Between its exchanges a lease costs a timer: there is no socket in the namespace, and nothing that
//! a container could disturb. A new address is asked for by ARP before it is used, and declined if somebody
//! answers; once it is in use it is not defended.

mod arp;
mod client;
mod machine;
mod message;
mod names;
mod socket;
mod wire;

pub use client::{Dhcp, LeaseError};
