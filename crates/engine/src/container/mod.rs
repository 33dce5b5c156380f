//! Containers: one file a command or a concern.

mod archive;
mod attach;
mod create;
mod defaults;
mod detach;
mod exit;
mod health;
mod links;
mod list;
mod logging;
mod merge;
mod mounts;
mod names;
mod propagation;
pub(crate) mod record;
pub(crate) mod registry;
mod remove;
mod restore;
mod security;
mod share;
mod signal;
mod snapshot;
mod spec;
mod start;
pub(crate) mod state;
mod stats;
mod stop;
mod top;
mod update;
mod validate;
mod volumes;

pub(crate) use attach::{PumpEnd, pump};
pub(crate) use detach::{DetachKeys, parse as parse_detach_keys};
pub(crate) use logging::{check as check_log, parse_size};
pub(crate) use merge::{environment, replace_or_append};
pub(crate) use security::security_options;
