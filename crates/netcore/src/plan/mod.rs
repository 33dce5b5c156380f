//! Wanted and observed state in the kernel's vocabulary, and the steps between them.

mod host_state;
mod step;

pub use host_state::{HostState, Link, LinkKey, LinkKind, Ns, Route};
pub use step::Step;
