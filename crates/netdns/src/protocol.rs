//! What the daemon and the resolver say to each other: a length (4 bytes, big-endian) and JSON. A
//! network namespace travels beside the length as a file descriptor.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use portolan_netcore::dns::{Zone, ZoneView, Zones};
use portolan_netcore::model::{NetworkId, SandboxId};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message, bytes: far above the zones of ten thousand containers.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

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
    /// Forget all zones and take these.
    Replace(Zones),
    /// Change some zones and views.
    Update(Update),
    /// Exit.
    Quit,
}

/// The difference of two [`Zones`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Update {
    /// Zones that are new or changed.
    pub(crate) put_networks: BTreeMap<NetworkId, Zone>,
    /// Zones that are gone.
    pub(crate) remove_networks: Vec<NetworkId>,
    /// Views that are new or changed.
    pub(crate) put_sandboxes: BTreeMap<SandboxId, ZoneView>,
    /// Views that are gone.
    pub(crate) remove_sandboxes: Vec<SandboxId>,
}

impl Update {
    /// What turns `before` into `after`.
    pub(crate) fn between(before: &Zones, after: &Zones) -> Self {
        let (put_networks, remove_networks) = difference(&before.networks, &after.networks);
        let (put_sandboxes, remove_sandboxes) = difference(&before.sandboxes, &after.sandboxes);
        Self { put_networks, remove_networks, put_sandboxes, remove_sandboxes }
    }

    /// Nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes the change.
    pub(crate) fn apply(self, zones: &mut Zones) {
        zones.networks.extend(self.put_networks);
        zones.sandboxes.extend(self.put_sandboxes);
        for id in &self.remove_networks {
            zones.networks.remove(id);
        }
        for id in &self.remove_sandboxes {
            zones.sandboxes.remove(id);
        }
    }
}

fn difference<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> (BTreeMap<K, V>, Vec<K>) {
    let changed = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    let gone = before.keys().filter(|key| !after.contains_key(key));
    (changed.map(|(key, value)| (key.clone(), value.clone())).collect(), gone.cloned().collect())
}

/// From the resolver, one for each request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Serving { udp: u16, tcp: u16 },
    Status { pid: u32, serving: BTreeMap<SandboxId, (u16, u16)> },
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

    fn zones(networks: &[(u8, &str)], sandboxes: &[u8]) -> Zones {
        let zone = |name: &str| Zone { name: name.into(), records: vec![] };
        Zones {
            networks: networks
                .iter()
                .map(|(n, name)| (NetworkId::from_bytes([*n; 32]), zone(name)))
                .collect(),
            sandboxes: sandboxes
                .iter()
                .map(|n| (SandboxId::from_bytes([*n; 32]), ZoneView::default()))
                .collect(),
        }
    }

    #[test]
    fn an_update_turns_one_state_into_the_other() {
        let before = zones(&[(1, "a"), (2, "b")], &[1, 2]);
        let after = zones(&[(2, "c"), (3, "d")], &[2, 3]);
        let update = Update::between(&before, &after);
        assert_eq!((update.put_networks.len(), update.remove_networks.len()), (2, 1));
        let mut reached = before.clone();
        update.apply(&mut reached);
        assert_eq!(reached, after);
        assert!(Update::between(&after, &after).is_empty());
    }

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
