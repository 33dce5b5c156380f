//! Address management as values: which subnet a network gets ([`Pools`]) and which address an
//! endpoint gets ([`AddressSpace`]).
//!
//! An address is in one of these states, and every change is a method of [`AddressSpace`]:
//!
//! ```text
//!            lease              deactivate             forget
//!   free ------------> active -------------> idle ------------> free
//!    ^                   |  ^                 |  ^
//!    |                   |  +-----------------+  |    the same container comes back
//!    |        quarantine |      lease            | end_quarantine
//!    +-------------------+-------- quarantined --+
//! ```
//!
//! *Idle* is what makes an address sticky: its container does not run, so a new container gets
//! another one as long as there is another. *Quarantined* is an address whose namespace is still
//! being cleaned up by the kernel and could answer for it: nobody gets it, its container neither.

mod pools;
mod runs;
mod space;
#[cfg(test)]
mod tests;

pub use pools::{InvalidPool, Pool, Pools};
pub use space::{AddressSpace, IpamError, Usage};
