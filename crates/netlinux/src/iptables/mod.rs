//! The iptables backend: one `iptables-restore` for each family that a transaction concerns.
//!
//! What goes in is netcore's text; this runs the programs, legacy or nf_tables, whichever the host
//! calls `iptables`. Each table of a family changes at once; the tables and families do not change
//! together, so what filters is sent before what translates.

mod backend;
mod command;
mod legacy;

pub(crate) use self::backend::{IptablesFirewall, remove_leftovers};
pub(crate) use self::command::{save_legacy, started};
pub(crate) use self::legacy::digest as legacy_digest;
