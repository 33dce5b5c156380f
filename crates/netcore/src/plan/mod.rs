//! Wanted and observed state in the kernel's vocabulary, and the steps between them.
//!
//! ```text
//! Desired --compile--> HostState (wanted) ---+
//!                                            +--diff--> steps --execute--> Host
//! Host ---observe---> HostState (observed) --+
//! ```
//!
//! A request does not do that with the whole world: [`change`] plans the difference of two desired
//! states by the keys it touches. The order of steps is decided in one place, `order.rs`.

mod claim;
mod compile;
mod desired;
mod diff;
mod host_state;
mod introduce;
mod order;
mod repair;
mod step;
mod undo;

pub use claim::ALIAS_PREFIX;
pub use compile::{HOST_ADDRESS, IPV6_FORWARDING, alias, compile, compile_touched};
pub use desired::{Desired, Settings, Touched};
pub use diff::{change, diff};
pub use host_state::{
    Altered, Attribute, HostState, Link, LinkKey, LinkKind, Ns, Proxied, Route, RouteKind, Stray,
};
pub use introduce::{Neighbour, introduce};
pub use repair::{is_altered, repair};
pub use step::{Step, without};
pub use undo::undo;
