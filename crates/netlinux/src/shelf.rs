//! Sockets that stay open without a descriptor each.
//!
//! Descriptors that are under way from one Unix socket to another (`SCM_RIGHTS`, unix(7)) keep their files
//! open and count in no process's table. A message that is never read is a shelf: it costs the one
//! descriptor of the socket whose queue it lies in.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Most descriptors on one shelf; a message takes 253 (`SCM_MAX_FD`).
pub(crate) const ROOM: usize = 64;
/// Fewest that are worth one: it has a descriptor itself.
pub(crate) const WORTH: usize = 8;

/// Descriptors in a queue. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Shelf(OwnedFd);

impl Shelf {
    /// Puts up to [`ROOM`] descriptors away; the caller's own can be closed then.
    pub(crate) fn put(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (queue, door) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&door, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(Self(queue))
    }

    /// Takes all of them back, in the order they were put in.
    pub(crate) fn take(self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let mut found = Vec::with_capacity(ROOM);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                found.extend(descriptors);
            }
        }
        Ok(found)
    }
}
