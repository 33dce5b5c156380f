//! The Linux host: [`LinuxHost`] carries out the core's steps and observes what they left.
//!
//! One file a kind of thing: links, addresses, routes, namespaces, sysctls, held ports, the queue of packets, announcements,
//! flows; `netlink` is the codec below them; `firewall` has the two backends. Only `execute` knows
//! steps, and it chooses nothing.

mod addr;
mod announce;
mod ask;
mod conntrack;
mod drift;
mod error;
mod execute;
mod features;
pub mod firewall;
mod firewalld;
mod foreign;
mod host;
mod iptables;
mod keeper;
mod link;
mod look;
mod neighbour;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod observe;
mod packets;
pub mod ports;
mod proxy;
mod proxy_udp;
mod route;
mod rt;
mod sandbox;
mod settings;
mod shelf;
pub mod sysctl;
pub mod watch;

pub use firewall::{Firewall, FirewallBackend, FirewallError};
pub use host::{LinuxHost, LinuxHostConfig, OpenError};
pub use keeper::Keeper;
pub use rt::PROTOCOL as ROUTE_PROTOCOL;

#[cfg(test)]
mod tests;
