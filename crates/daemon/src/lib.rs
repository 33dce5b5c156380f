//! The daemon: Docker's Engine API over unix sockets and TCP, on top of the engine.
//!
//! ```text
//! socket -> server::connection  hyper; requests that hyper cannot serve are caught by server::sniff
//!        -> router              version, path -> route
//!        -> routes              one file per resource: query and body in, engine call, JSON out
//!        -> convert             Docker's JSON <-> the engine's words
//! ```
//!
//! [`parse_args`] reads dockerd's flags and daemon.json into a [`Config`]; [`serve`] answers until it is told to
//! stop. Only this crate and the CLI know Docker's JSON.

mod config;
mod convert;
mod host;
mod http;
mod identity;
mod logging;
mod names;
mod router;
mod routes;
mod server;
mod state;

pub use config::{
    Command, Config, ConfigError, DEFAULT_CONFIG_FILE, FirewallBackend, Host, LogLevel, Proxies, parse_args,
};
pub use logging::{LogControl, init_logging};
pub use server::{ServeError, serve, stop_signal};
