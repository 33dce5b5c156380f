//! What the daemon and the resolver say to each other: a length (4 bytes, big-endian) and JSON. Descriptors,
//! of a network namespace or of what is kept, travel beside the length.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use portolan_netcore::dns::ZoneChange;
use portolan_netcore::model::SandboxId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message, bytes: far above the zones of ten thousand containers.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Most descriptors beside one message: the kernel takes 253 (`SCM_MAX_FD`).
pub(crate) const MAX_DESCRIPTORS: usize = 250;

/// What this protocol is: a daemon that meets a resolver of another replaces it. `Status`, `Quit` and `Kept` are
/// the same in every version.
pub(crate) const VERSION: u32 = 5;

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// What are you serving?
    Status,
    /// Open sockets in the namespace that comes along, on these ports if they are named (so that a
    /// redirect made for an earlier resolver stays right). Serving already: answer the ports.
    Serve { sandbox: SandboxId, udp: Option<u16>, tcp: Option<u16> },
    /// Close a sandbox's sockets.
    Stop { sandbox: SandboxId },
    /// Be set up so. Fails if the host cannot be served; the rest is done then all the same.
    Configure(Settings),
    /// Forget all zones and make these.
    Replace(Vec<ZoneChange>),
    /// Change some zones and views; nobody sees only some of the changes.
    Update(Vec<ZoneChange>),
    /// Keep the descriptors that come along, by these names, for the next daemon; in the place of those that
    /// were kept by the same names.
    Keep { names: Vec<String> },
    /// Close what is kept by these names.
    Forget { names: Vec<String> },
    /// Give what is kept by names that come after this one: as much as one message takes.
    Kept { after: Option<String> },
    /// Exit.
    Quit,
}

/// How the resolver is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The file that names the host's resolvers, resolv.conf(5); followed as it changes.
    pub resolv_conf: PathBuf,
    /// Where the host itself may ask for names of containers, if anywhere.
    pub host_names: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { resolv_conf: PathBuf::from("/etc/resolv.conf"), host_names: None }
    }
}

/// From the resolver, one for each request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Serving {
        udp: u16,
        tcp: u16,
    },
    Status {
        pid: u32,
        serving: BTreeMap<SandboxId, (u16, u16)>,
        #[serde(default)]
        version: u32,
    },
    /// These many of the descriptors arrived: the others found no room.
    Keeping {
        count: usize,
    },
    /// The descriptors that are kept by these names come along.
    Kept {
        names: Vec<String>,
    },
    Failed(String),
}

/// Sends one message, and up to [`MAX_DESCRIPTORS`] descriptors with it.
pub(crate) fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&length[sent..])?;
    stream.write_all(&body)
}

/// Receives one message; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut length)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(several) = message {
            fds.extend(several);
        }
    }
    stream.read_exact(&mut length[got..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(format!("a control message of {length} bytes is too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_descriptors() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&mut a, &Request::Status, &[file.as_fd(); MAX_DESCRIPTORS]).unwrap();
        send(&mut a, &Request::Quit, &[]).unwrap();
        drop(a);
        let (first, fds) = receive::<Request>(&mut b).unwrap().unwrap();
        assert!(matches!(first, Request::Status) && fds.len() == MAX_DESCRIPTORS);
        let (second, fds) = receive::<Request>(&mut b).unwrap().unwrap();
        assert!(matches!(second, Request::Quit) && fds.is_empty());
        assert!(receive::<Request>(&mut b).unwrap().is_none());
    }
}
