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
//!
//! An address asked for by number is kept for its container in every state. Who asks by number for
//! one that another has waits for it: instead of becoming free, or idle without having been asked
//! for, it passes to the first who waits. So a replacement can be made, with the address of what it
//! replaces, before that is stopped and removed.

mod claims;
mod pools;
mod runs;
mod space;
#[cfg(test)]
mod tests;

pub use pools::{InvalidPool, Occupied, Pool, Pools};
pub use space::{AddressSpace, IpamError, Usage};
