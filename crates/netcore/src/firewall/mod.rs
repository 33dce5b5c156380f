//! The firewall: policy (meaning) and, compiled from it, rule sets for nftables and iptables.
//!
//! - `policy`: what is enforced, apart from any syntax.
//! - [`ruleset`], `skeleton`, `carried`, `bridge_table`: nf_tables' syntax tree, and our tables in it, which never change.
//! - [`compile`](Compiled), `elements`: policy -> elements of the skeleton's sets and maps; a change -> a difference.
//! - `ranges`, `runs`: ports in a row put together, which both backends tell the kernel as one.
//! - `render`: the tree as text, in nft's language.
//! - [`iptables`]: policy -> input of iptables-restore, in Docker's chains.

mod bridge_table;
mod carried;
mod compile;
mod elements;
pub mod iptables;
mod policy;
mod ranges;
mod render;
pub mod ruleset;
mod runs;
mod skeleton;

pub use compile::{Change, Compile, Compiled, Conflict, Difference, Elements, Part, Undo};
pub use policy::{
    BridgePolicy, CarriedPort, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
pub use ranges::{Carried, Carrying, Door, Opening, Redirect, SHORTEST_RANGE, Way};
pub use render::{render, render_table};
pub use skeleton::{
    ACCEPT_MARK, CARRIED_MARK, DNS_TABLE, REFUSED_MARK, RESOLVER, TABLE, USER_TABLE, dns_table, floor,
    skeleton, user_table,
};
