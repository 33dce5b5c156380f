//! The container engine: commands, the container state machine, volumes, health checks, restart policies,
//! events. It drives networks (`portolan_net`), images (`portolan_image`) and processes (`portolan_runtime`),
//! and knows nothing of HTTP or JSON.

mod config;
mod engine;
mod error;
pub mod model;
mod streams;

pub use config::EngineConfig;
pub use engine::Engine;
pub use error::{EngineError, ErrorKind, Result};
pub use streams::{Attachment, Events, Input, Logs, Output, OutputChunk, OutputStream, Waiter};
