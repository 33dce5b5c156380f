//! The container engine: commands, the container state machine, volumes, health checks, restart policies,
//! events. It drives networks (`portolan_net`), images (`portolan_image`) and processes (`portolan_runtime`),
//! and knows nothing of HTTP or JSON.

mod error;
pub mod model;

pub use error::{EngineError, ErrorKind, Result};
