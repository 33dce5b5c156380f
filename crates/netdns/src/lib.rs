//! The embedded resolver: sockets, wire format, forwarding and cache round
//! [`portolan_netcore::dns::answer`].
//!
//! It runs as a process of its own (`portolan resolver`), so that names go on being resolved while the
//! daemon is restarted or dead. The daemon tells it over a unix socket what the zones are and which
//! sandboxes to serve, and hands it each sandbox's network namespace as a file descriptor. As it outlives the
//! daemon, it also keeps other descriptors for the next one ([`Client::kept`]).
//!
//! ```text
//!   daemon -- Client --unix socket--> control --> Shared (zones, sandboxes)
//!                                        |             ^
//!                                        v             |
//!   sandbox 127.0.0.11:53 -> listeners (UDP, TCP) -> respond -> forward -> upstreams
//! ```

mod cache;
mod client;
mod control;
mod flight;
mod forward;
mod listen;
mod netns;
mod protocol;
mod resolv;
mod server;
mod wire;

pub use client::{Client, ClientError, Holdings, Kept};
pub use protocol::Settings;
pub use server::{ResolverError, run};
