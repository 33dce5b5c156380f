//! Sending requests, reading answers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
    sockopt,
};

use super::batch::Batch;
use super::{Attrs, HEADER_LEN, NetlinkError, align, flags};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// In an error message: the request was cut off, only its header follows (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// In an error message: attributes follow (`NLM_F_ACK_TLVS`).
const ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel never puts more than this into one datagram of a dump (32 KiB since 4.6), and an
/// acknowledgement with `NETLINK_CAP_ACK` takes a few dozen bytes.
const RECEIVE_LEN: usize = 32 * 1024;
/// What one queued acknowledgement is charged for, rounded up (`sk_buff` and data).
const ACK_COST: usize = 1024;
/// `net.core.{r,w}mem_default` is at least this on every kernel we run on.
const DEFAULT_QUEUE: usize = 160 * 1024;

/// A netlink family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours (`NETLINK_ROUTE`).
    Route,
    /// nf_tables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
}

/// A netlink socket in the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    next_seq: u32,
    send_queue: usize,
    receive_queue: usize,
}

/// One message from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`; 0 for events.
    pub seq: u32,
    /// `nlmsg_pid`: who caused an event.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The attributes after the family's header of `header_len` bytes.
    pub fn attrs(&self, header_len: usize) -> Attrs<'a> {
        Attrs::after(self.payload, header_len)
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let family = match protocol {
            // NETLINK_ROUTE is 0, which rustix writes as no protocol.
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)
            .map_err(io_error("socket"))?;
        bind(&fd, &netlink::SocketAddrNetlink::new(0, 0)).map_err(io_error("bind"))?;
        let socket = Self { fd, next_seq: 1, send_queue: DEFAULT_QUEUE, receive_queue: DEFAULT_QUEUE };
        // Words with errors (4.12), short acknowledgements (4.2), and filters of dumps taken seriously
        // (4.20). Older kernels refuse an option; we can do without.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let _ = socket.set_option(libc::SOL_NETLINK, option, 1);
        }
        // Every request is answered before `sendmsg` returns; a lost answer must not hang the engine.
        sockopt::set_socket_timeout(&socket.fd, sockopt::Timeout::Recv, Some(Duration::from_secs(10)))
            .map_err(io_error("setsockopt SO_RCVTIMEO"))?;
        Ok(socket)
    }

    /// Joins a multicast group; its events come out of [`Socket::receive`].
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as i32)
            .map_err(|source| NetlinkError::Io { operation: "setsockopt NETLINK_ADD_MEMBERSHIP", source })
    }

    /// Sends a batch and waits until the kernel has carried it out. The error is the first refusal; the
    /// later requests of a NETLINK_ROUTE batch have been tried nevertheless.
    pub fn transact(&mut self, batch: &mut Batch) -> Result<(), NetlinkError> {
        self.transact_with(batch, |_| {})
    }

    /// Like [`Socket::transact`]; `echo` sees the messages that are not acknowledgements, such as
    /// answers to GET requests and echoes of NEW requests with [`flags::ECHO`].
    pub fn transact_with(
        &mut self,
        batch: &mut Batch,
        mut echo: impl FnMut(Reply<'_>),
    ) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.send(batch)?;
        let last_acked = batch.messages.iter().rposition(|entry| entry.acked);
        let mut failure = None;
        let mut done = last_acked.is_none();
        while !done {
            self.receive(|reply| {
                let Some(index) = reply.seq.checked_sub(first).map(|i| i as usize) else { return };
                let Some(entry) = batch.messages.get(index) else { return };
                if reply.kind != NLMSG_ERROR {
                    return echo(reply);
                }
                let (errno, extack) = parse_error(&reply);
                if errno != 0 && !entry.tolerated.contains(&errno) && failure.is_none() {
                    failure = Some(NetlinkError::Refused { errno, extack, index });
                }
                done = done || Some(index) == last_acked || (errno != 0 && !entry.acked);
            })?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sends a dump request, the only one of `batch`, and hands every object to `each`. A dump that was
    /// disturbed is repeated after `restart` (up to a few times): `each` starts from nothing again.
    pub fn dump<T>(
        &mut self,
        batch: &mut Batch,
        mut start: impl FnMut() -> T,
        mut each: impl FnMut(&mut T, Reply<'_>),
    ) -> Result<T, NetlinkError> {
        const ATTEMPTS: usize = 10;
        let mut attempt = 1;
        loop {
            let mut state = start();
            let seq = self.send(batch)?;
            let (mut done, mut disturbed, mut failure) = (false, false, None);
            while !done {
                self.receive(|reply| {
                    if reply.seq != seq || done {
                        return;
                    }
                    disturbed |= reply.flags & flags::DUMP_INTR != 0;
                    match reply.kind {
                        NLMSG_DONE | NLMSG_ERROR => {
                            // The payload of NLMSG_DONE begins with an errno, too.
                            let (errno, extack) = parse_error(&reply);
                            if errno != 0 {
                                failure = Some(NetlinkError::Refused { errno, extack, index: 0 });
                            }
                            done = true;
                        }
                        _ => each(&mut state, reply),
                    }
                })?;
            }
            match failure {
                Some(failure) => return Err(failure),
                None if !disturbed || attempt == ATTEMPTS => return Ok(state),
                None => attempt += 1,
            }
        }
    }

    /// Waits for one datagram and hands its messages to `each`.
    pub fn receive(&self, mut each: impl FnMut(Reply<'_>)) -> Result<(), NetlinkError> {
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_LEN);
        loop {
            buffer.clear();
            // With TRUNC the length is that of the datagram, even if it is longer than the buffer.
            let received = recv(&self.fd, rustix::buffer::spare_capacity(&mut buffer), RecvFlags::TRUNC);
            match received {
                Ok((_, len)) if len > buffer.len() => {
                    return Err(NetlinkError::Malformed("longer than the receive buffer"));
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io_error("recv")(error)),
            }
        }
        let mut rest = buffer.as_slice();
        while let Some(header) = rest.first_chunk::<HEADER_LEN>() {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(payload) = rest.get(HEADER_LEN..len) else {
                return Err(NetlinkError::Malformed("a message is longer than its datagram"));
            };
            each(Reply {
                kind: u16::from_ne_bytes([header[4], header[5]]),
                flags: u16::from_ne_bytes([header[6], header[7]]),
                seq: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
                port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
                payload,
            });
            rest = rest.get(align(len)..).unwrap_or_default();
        }
        Ok(())
    }

    /// The index of a link of the socket's namespace; `None` if there is no such link. It asks by
    /// `SIOCGIFINDEX`, which takes no lock, where `RTM_GETLINK` may wait for others' changes.
    pub fn index_of(&self, name: &str) -> Result<Option<u32>, NetlinkError> {
        match rustix::net::netdevice::name_to_index(&self.fd, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(io_error("ioctl SIOCGIFINDEX")(error)),
        }
    }

    /// The name of a link of the socket's namespace, if there still is one of this index.
    pub fn name_of(&self, index: u32) -> Option<portolan_netcore::model::IfName> {
        let name = rustix::net::netdevice::index_to_name(&self.fd, index).ok()?;
        portolan_netcore::model::IfName::new(&name).ok()
    }

    /// Enlarges the receive queue, beyond `net.core.rmem_max` if need be (CAP_NET_ADMIN).
    pub fn reserve_receive(&mut self, bytes: usize) -> Result<(), NetlinkError> {
        if bytes > self.receive_queue {
            self.set_queue(libc::SO_RCVBUFFORCE, bytes, "setsockopt SO_RCVBUFFORCE")?;
            self.receive_queue = bytes;
        }
        Ok(())
    }

    /// Numbers the requests and sends them; the number of the first.
    fn send(&mut self, batch: &mut Batch) -> Result<u32, NetlinkError> {
        if batch.oversized {
            return Err(NetlinkError::Oversized);
        }
        let count = batch.messages.len() as u32;
        if self.next_seq.checked_add(count).is_none() {
            self.next_seq = 1;
        }
        let first = self.next_seq;
        self.next_seq += count;
        for (seq, entry) in (first..).zip(&batch.messages) {
            batch.bytes[entry.offset + 8..entry.offset + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        if batch.bytes.len() > self.send_queue / 2 {
            self.set_queue(libc::SO_SNDBUFFORCE, batch.bytes.len() * 2, "setsockopt SO_SNDBUFFORCE")?;
            self.send_queue = batch.bytes.len() * 2;
        }
        self.reserve_receive(batch.messages.iter().filter(|entry| entry.acked).count() * ACK_COST)?;
        loop {
            match send(&self.fd, &batch.bytes, SendFlags::empty()) {
                Ok(_) => return Ok(first),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io_error("send")(error)),
            }
        }
    }

    fn set_queue(&self, option: i32, bytes: usize, operation: &'static str) -> Result<(), NetlinkError> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.set_option(libc::SOL_SOCKET, option, bytes)
            .map_err(|source| NetlinkError::Io { operation, source })
    }

    fn set_option(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `self` lives, and the option's value is a whole
        // `int` that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn io_error(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> NetlinkError {
    move |errno| NetlinkError::Io { operation, source: errno.into() }
}

/// The positive errno (0: success) and the kernel's words of an `NLMSG_ERROR` or `NLMSG_DONE`.
fn parse_error(reply: &Reply<'_>) -> (i32, Option<String>) {
    let Some(code) = reply.payload.first_chunk::<4>() else { return (0, None) };
    let errno = -i32::from_ne_bytes(*code);
    if reply.flags & ACK_TLVS == 0 {
        return (errno, None);
    }
    // An error message quotes the request: its header alone if capped, or all of it.
    let quoted = match reply.kind {
        NLMSG_DONE => 0,
        _ if reply.flags & CAPPED != 0 => HEADER_LEN,
        _ => reply
            .payload
            .get(4..8)
            .and_then(|len| len.first_chunk().copied())
            .map_or(0, |len| u32::from_ne_bytes(len) as usize),
    };
    let text = Attrs::after(reply.payload, 4 + quoted).get(NLMSGERR_ATTR_MSG);
    (errno, text.and_then(|attr| attr.text()).map(str::to_owned))
}
