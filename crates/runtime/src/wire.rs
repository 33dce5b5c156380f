//! What daemon, launcher and shim say to each other.
//!
//! ```text
//! daemon --seqpacket: which of them, [connection, netns?, pidfds?]--> launcher --fork--> shim
//! daemon --connection: Create, then requests---------------------------> shim
//! daemon --<exec_root>/shims/<id>/s: a request, or a stream-------------> shim
//! ```
//! A message is its length (u32, little endian) and JSON. After [`Request::Attach`] and
//! [`Request::Exec`] the connection carries frames towards the client (kind u8, length u32, bytes)
//! and plain standard input towards the shim, where half-closing it ends standard input.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, ExecSpec};
use crate::status::ExitStatus;
use crate::{Error, Result};

/// No message is longer: a request that claims more comes from no client of ours.
pub(crate) const LONGEST_MESSAGE: usize = 16 << 20;
/// The head of a frame: kind and length.
pub(crate) const FRAME_HEAD: usize = 5;
/// A frame of standard output.
pub(crate) const FRAME_STDOUT: u8 = 1;
/// A frame of standard error.
pub(crate) const FRAME_STDERR: u8 = 2;

/// The descriptors that go to a fresh shim beside its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handed<T> {
    pub(crate) netns: Option<T>,
    pub(crate) pid: Option<T>,
    pub(crate) ipc: Option<T>,
    pub(crate) uts: Option<T>,
}

impl<T> Handed<T> {
    /// A byte that says which there are, and those.
    pub(crate) fn pack(self) -> (u8, impl Iterator<Item = T>) {
        let all = [self.netns, self.pid, self.ipc, self.uts];
        let bit = |(index, one): (usize, &Option<T>)| u8::from(one.is_some()) << index;
        let which = all.iter().enumerate().map(bit).sum();
        (which, all.into_iter().flatten())
    }

    pub(crate) fn unpack(which: u8, mut descriptors: impl Iterator<Item = T>) -> Self {
        let mut next = |index: u8| if which & (1 << index) == 0 { None } else { descriptors.next() };
        Self { netns: next(0), pid: next(1), ipc: next(2), uts: next(3) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First on the connection that comes with a fresh shim; `filter` bytes of compiled seccomp follow.
    Create {
        spec: Box<ContainerSpec>,
        exec_root: String,
        filter: usize,
    },
    Start,
    State,
    Kill {
        signal: i32,
    },
    Wait,
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        rows: u16,
        columns: u16,
    },
    Exec {
        spec: Box<ExecSpec>,
    },
    WaitExec {
        id: String,
    },
    KillExec {
        id: String,
        signal: i32,
    },
    ResizeExec {
        id: String,
        rows: u16,
        columns: u16,
    },
    Delete,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Created {
        pid: i32,
    },
    Started {
        at: Timestamp,
    },
    State {
        pid: i32,
        started: bool,
        /// Earlier ones did not say.
        #[serde(default)]
        started_at: Option<Timestamp>,
        exit: Option<ExitStatus>,
    },
    Exited(ExitStatus),
    ExecStarted {
        pid: i32,
    },
    ExecExited {
        code: i32,
    },
    StartFailed {
        message: String,
        exit_code: i32,
    },
    ExecFailed {
        message: String,
        exit_code: i32,
    },
    Refused {
        message: String,
    },
    NotRunning,
    NoSuchExec,
    Invalid {
        message: String,
    },
}

impl Response {
    /// Turns a refusal into this crate's error.
    pub(crate) fn into_result(self, container: &str) -> Result<Self> {
        match self {
            Self::StartFailed { message, exit_code } => Err(Error::Start { message, exit_code }),
            Self::ExecFailed { message, exit_code } => Err(Error::Exec { message, exit_code }),
            Self::Refused { message } => Err(Error::Refused(message)),
            Self::NotRunning => Err(Error::NotRunning { id: container.to_owned() }),
            Self::NoSuchExec => Err(Error::NoSuchExec { id: container.to_owned() }),
            Self::Invalid { message } => Err(Error::Invalid(message)),
            other => Ok(other),
        }
    }
}

/// A message with its length before it.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("our own messages have string keys and finite numbers");
    let length = u32::try_from(bytes.len() - 4).expect("our messages are far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The length that a message's head announces; an error if it is beyond reason.
pub(crate) fn announced(head: [u8; 4]) -> Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST_MESSAGE {
        return Err(Error::Protocol { from: "peer", what: format!("a message of {length} bytes") });
    }
    Ok(length)
}

/// A message without its head.
pub(crate) fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::Protocol { from: "peer", what: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_arrives_in_its_place() {
        let handed = Handed { netns: None, pid: Some("p"), ipc: None, uts: Some("u") };
        let (which, descriptors) = handed.pack();
        let arrived = Handed::unpack(which, descriptors);
        assert_eq!(
            (arrived.netns, arrived.pid, arrived.ipc, arrived.uts),
            (None, Some("p"), None, Some("u"))
        );
    }
}
