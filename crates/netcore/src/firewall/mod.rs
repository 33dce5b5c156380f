//! The firewall: policy (meaning) and, compiled from it, rule sets for nftables and iptables.

mod policy;

pub use policy::{BridgePolicy, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort, Transaction};
