//! A small synchronous netlink codec (`Documentation/userspace-api/netlink/intro.rst`).
//!
//! - [`Batch`] builds one or more requests in one buffer; [`Message`] adds attributes to the last one.
//! - [`Socket`] sends a batch with one system call and reads the acknowledgements, which the kernel has
//!   queued by the time `sendmsg` returns; or dumps objects; or receives events.
//! - [`Attrs`] walks the attributes of a reply.
//!
//! A socket belongs to the network namespace it was opened in, wherever its user moves later.

mod attr;
mod batch;
mod error;
mod socket;

pub use attr::{Attr, Attrs};
pub use batch::{Batch, Message};
pub use error::NetlinkError;
pub use socket::{Protocol, Reply, Socket};

/// Size of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;

/// Rounds up to the 4-byte alignment of messages and attributes (`NLMSG_ALIGN`, `NLA_ALIGN`).
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Bits of `nlmsghdr.nlmsg_flags` (`include/uapi/linux/netlink.h`).
pub mod flags {
    /// It is a request; [`Batch`](super::Batch) sets it on every message.
    pub const REQUEST: u16 = 0x1;
    /// More parts follow, up to `NLMSG_DONE`.
    pub const MULTI: u16 = 0x2;
    /// Answer with an acknowledgement even on success.
    pub const ACK: u16 = 0x4;
    /// Echo the resulting notification to the sender.
    pub const ECHO: u16 = 0x8;
    /// The dump was disturbed by a change and may be inconsistent.
    pub const DUMP_INTR: u16 = 0x10;
    /// All objects that match.
    pub const DUMP: u16 = 0x300;
    /// Replace an existing object (NEW requests).
    pub const REPLACE: u16 = 0x100;
    /// Fail with EEXIST if the object exists (NEW requests).
    pub const EXCL: u16 = 0x200;
    /// Create the object if it does not exist (NEW requests).
    pub const CREATE: u16 = 0x400;
    /// Add to the end of the list (NEW requests).
    pub const APPEND: u16 = 0x800;
}

#[cfg(test)]
mod tests;
