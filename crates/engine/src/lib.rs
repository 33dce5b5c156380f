//! The container engine: commands, the container state machine, volumes, health checks, restart policies,
//! events. It drives networks (`portolan_net`), images (`portolan_image`) and processes (`portolan_runtime`),
//! and knows nothing of HTTP or JSON.
//!
//! What is in memory is what commands look at; the database (`store`) is read once, at start. A command on a
//! container waits for its turn at the container's gate, changes the record under a short lock, and stores
//! the intent before the first effect. What waits for a container watches its `Lifecycle`.

mod apparmor;
mod config;
mod container;
mod engine;
mod error;
mod events;
mod exec;
mod files;
mod foreign;
mod host_ports;
mod image;
mod live_ports;
pub mod model;
mod network;
mod port_labels;
mod port_ledger;
mod pull;
mod rootfs;
mod store;
mod streams;
mod time;
mod volume;
mod volume_mount;

pub use config::{EngineConfig, Parts};
pub use engine::Engine;
pub use error::{EngineError, ErrorKind, Result};
pub use live_ports::{PortMove, PortSelector, PortUpdate};
pub use pull::PullReport;
pub use streams::{Archive, Attachment, Events, Input, Logs, Output, OutputChunk, OutputStream, Waiter};
