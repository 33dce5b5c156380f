//! What can go wrong with netlink.

use std::io;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused a request.
    #[error("{}{}", crate::error::words(&io::Error::from_raw_os_error(*errno)), extack.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The errno, positive.
        errno: i32,
        /// What the kernel adds in words (`NLMSGERR_ATTR_MSG`).
        extack: Option<String>,
        /// The request's position in its batch.
        index: usize,
    },
    /// A system call on the socket failed.
    #[error("netlink {operation}: {}", crate::error::words(source))]
    Io {
        /// The call.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An attribute did not fit the 16 bits of its length; nothing was sent.
    #[error("a netlink attribute is longer than 65535 bytes")]
    Oversized,
    /// The kernel's answer makes no sense.
    #[error("netlink answer: {0}")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The errno, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Oversized | Self::Malformed(_) => None,
        }
    }

    /// The position in its batch of the request that was refused.
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Refused { index, .. } => Some(*index),
            _ => None,
        }
    }
}
