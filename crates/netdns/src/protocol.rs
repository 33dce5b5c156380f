//! What the daemon and the resolver say to each other: a length (4 bytes, big-endian) and JSON. A
//! network namespace travels beside the length as a file descriptor.

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

/// What this protocol is: a daemon that meets a resolver of another replaces it. `Status`, `Quit` and `Kept` are
/// the same in every version.
pub(crate) const VERSION: u32 = 4;

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
    /// Keep the descriptor that comes along, in the place of the one kept before, for the next daemon.
    Keep,
    /// Give what is kept.
    Kept,
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
    /// The descriptor that is kept comes along, if there is one.
    Kept,
    Failed(String),
}

/// Sends one message, with a descriptor if there is one.
pub(crate) fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&length[sent..])?;
    stream.write_all(&body)
}

/// Receives one message; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
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
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    stream.read_exact(&mut length[got..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(format!("a control message of {length} bytes is too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_a_descriptor() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&mut a, &Request::Status, Some(file.as_fd())).unwrap();
        send(&mut a, &Request::Quit, None).unwrap();
        drop(a);
        let (first, fd) = receive::<Request>(&mut b).unwrap().unwrap();
        assert!(matches!(first, Request::Status) && fd.is_some());
        let (second, fd) = receive::<Request>(&mut b).unwrap().unwrap();
        assert!(matches!(second, Request::Quit) && fd.is_none());
        assert!(receive::<Request>(&mut b).unwrap().is_none());
    }
}
