//! Failures of single operations, before they are known as failures of a step.

use std::io;

use portolan_netcore::host::{Attempt, StepError};

use crate::firewall::FirewallError;
use crate::netlink::NetlinkError;
use crate::ports::PortError;

/// Why an operation on the host failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) errno: Option<i32>,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>, errno: i32) -> Self {
        Self { reason: reason.into(), errno: Some(errno) }
    }

    /// The same as the failure of `step`.
    pub(crate) fn at(self, step: impl Into<Attempt>) -> StepError {
        let transient = matches!(self.errno, Some(libc::EBUSY | libc::EAGAIN | libc::ENOBUFS | libc::EINTR));
        StepError { step: step.into(), reason: self.reason, errno: self.errno, transient }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { reason: words(&error), errno: error.raw_os_error() }
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        Self { errno: error.errno(), reason: error.to_string() }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self { errno: error.errno(), reason: error.to_string() }
    }
}

impl From<FirewallError> for Failure {
    fn from(error: FirewallError) -> Self {
        Self { errno: error.errno(), reason: error.to_string() }
    }
}

/// The system's words for an error, in the middle of a sentence: `no such device`.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
