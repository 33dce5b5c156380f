//! The netlink socket of nf_tables. It owns the tables it makes with the flag `owner`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::batch::{About, Batch};
use super::consts::{
    NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
};
use super::wire::{HEADER_LEN, Head, Message, NFGEN_LEN, Writer, attributes, messages, u32_at};
use crate::firewall::FirewallError;
use crate::keeper::is_of_this_namespace;

/// A bound socket of the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct NftSocket {
    fd: OwnedFd,
    port: u32,
}

/// What the kernel answered to one message.
struct Answer {
    sequence: u32,
    errno: i32,
    text: Option<String>,
}

impl NftSocket {
    pub(super) fn open() -> Result<Self, FirewallError> {
        // SAFETY: socket() takes no pointers; the result is checked before it is owned.
        let raw =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_NETFILTER) };
        if raw < 0 {
            return Err(io_error("open a netlink socket"));
        }
        // SAFETY: `raw` is a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: an all-zero sockaddr_nl is valid; the family is set below.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_nl of `length` bytes that outlives both calls.
        let bound = unsafe {
            libc::bind(raw, (&raw const address).cast(), length) == 0
                && libc::getsockname(raw, (&raw mut address).cast(), &raw mut length) == 0
        };
        if !bound {
            return Err(io_error("bind a netlink socket"));
        }
        let socket = Self { fd, port: address.nl_pid };
        // Without these errors have no text and carry the request back: worse messages, no failure.
        let _ = socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        let _ = socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
    }

    /// The socket that a process which is gone has left, if it is one of this namespace; else a new one.
    pub(super) fn open_again(kept: Option<OwnedFd>) -> Result<Self, FirewallError> {
        match kept.map(Self::adopt) {
            Some(Ok(socket)) => return Ok(socket),
            Some(Err(error)) => {
                tracing::warn!(%error, "the socket that owned the firewall's tables is of no use");
            }
            None => {}
        }
        Self::open()
    }

    fn adopt(fd: OwnedFd) -> Result<Self, FirewallError> {
        let refused = |reason: &str| FirewallError::Io {
            what: "adopt a netlink socket".to_owned(),
            reason: reason.to_owned(),
            errno: None,
        };
        let raw = fd.as_raw_fd();
        let (mut protocol, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: `protocol` is an int of `length` bytes; both outlive the call.
        let known = unsafe {
            libc::getsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_PROTOCOL,
                (&raw mut protocol).cast(),
                &raw mut length,
            ) == 0
        };
        // SAFETY: an all-zero sockaddr_nl is valid; it is written below.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_nl of `length` bytes that outlives the call.
        let named = unsafe { libc::getsockname(raw, (&raw mut address).cast(), &raw mut length) == 0 };
        let is_netlink = i32::from(address.nl_family) == libc::AF_NETLINK && protocol == NETLINK_NETFILTER;
        if !(known && named && is_netlink) {
            return Err(refused("it is no socket of nf_tables"));
        }
        if !is_of_this_namespace(&fd) {
            return Err(refused("it is of another network namespace"));
        }
        let socket = Self { fd, port: address.nl_pid };
        // What the kernel answered to a process that did not live to read it.
        socket.receive(|_| {})?;
        Ok(socket)
    }

    /// Another descriptor of the same socket.
    pub(super) fn duplicate(&self) -> Option<OwnedFd> {
        self.fd.try_clone().ok()
    }

    /// Our address, by which the kernel knows the owner of a table.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Commits a batch, or learns which of its messages was refused. An empty one is nothing.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), FirewallError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.deliver(batch.finish())
    }

    /// Learns whether the kernel would commit a batch.
    pub(super) fn rehearse(&self, batch: Batch) -> Result<(), FirewallError> {
        self.deliver(batch.unfinished())
    }

    fn deliver(&self, (bytes, about): (Vec<u8>, Vec<About>)) -> Result<(), FirewallError> {
        self.send(&bytes)?;
        let mut acknowledged = false;
        let mut refused: Option<Answer> = None;
        // The kernel works through a batch inside send(), so all answers are there by now.
        self.receive(|message| {
            if let Some(answer) = answer(&message) {
                acknowledged |= answer.errno == 0;
                if answer.errno != 0 && refused.is_none() {
                    refused = Some(answer);
                }
            }
        })?;
        match refused {
            Some(answer) => Err(refusal(&answer, &about)),
            None if acknowledged => Ok(()),
            None => Err(FirewallError::Io {
                what: "commit a transaction".to_owned(),
                reason: "the kernel did not answer".to_owned(),
                errno: None,
            }),
        }
    }

    /// Asks for one thing; `None` if it is not there. The result is the attributes of the answer.
    pub(super) fn get(
        &self,
        kind: u16,
        family: u8,
        what: &str,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Option<Vec<u8>>, FirewallError> {
        let mut writer = Writer::default();
        let kind = (NFNL_SUBSYS_NFTABLES << 8) | kind;
        writer.message(Head { kind, flags: NLM_F_REQUEST, sequence: 1, family, resource: 0 }, body);
        self.send(&writer.into_bytes())?;
        let mut found = None;
        let mut refused = None;
        self.receive(|message| match answer(&message) {
            Some(answer) => refused = Some(answer),
            None => found = Some(message.payload.get(NFGEN_LEN..).unwrap_or_default().to_vec()),
        })?;
        match refused {
            Some(answer) if answer.errno != libc::ENOENT => Err(FirewallError::Kernel {
                what: what.to_owned(),
                reason: errno_text(answer.errno),
                errno: answer.errno,
            }),
            _ => Ok(found),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), FirewallError> {
        // A batch must go out as one datagram, so the buffer grows with it (the kernel doubles this).
        if bytes.len() > SMALL_BATCH {
            let size = libc::c_int::try_from(bytes.len()).unwrap_or(libc::c_int::MAX);
            self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size)?;
        }
        // SAFETY: `bytes` is readable for its length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io_error("send a transaction")) } else { Ok(()) }
    }

    fn receive(&self, mut take: impl FnMut(Message<'_>)) -> Result<(), FirewallError> {
        let mut buffer = [0_u8; RECEIVE_BUFFER];
        loop {
            // SAFETY: `buffer` is writable for its length.
            let got = unsafe {
                libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
            };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(libc::EINTR) => continue,
                    _ => return Err(io_error("read the kernel's answer")),
                }
            };
            messages(&buffer[..got]).for_each(&mut take);
        }
    }

    fn set(&self, level: i32, name: i32, value: libc::c_int) -> Result<(), FirewallError> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` is an int of `length` bytes.
        let done = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), length) == 0
        };
        if done { Ok(()) } else { Err(io_error("set a netlink socket's option")) }
    }
}

/// Fits the default send buffer with the kernel's overhead.
const SMALL_BATCH: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 16 * 1024;

fn answer(message: &Message<'_>) -> Option<Answer> {
    if message.kind != NLMSG_ERROR {
        return None;
    }
    let code = u32_at(message.payload, 0)? as i32;
    // The header that came back carries the sequence number too; the rest of the request does not.
    let text = (message.flags & NLM_F_ACK_TLVS != 0 && message.flags & NLM_F_CAPPED != 0)
        .then(|| message.payload.get(4 + HEADER_LEN..))
        .flatten()
        .and_then(|tlvs| attributes(tlvs).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some(Answer { sequence: message.sequence, errno: -code, text })
}

fn refusal(answer: &Answer, about: &[About]) -> FirewallError {
    let index = (answer.sequence as usize).checked_sub(1);
    let what = match index.and_then(|index| about.get(index)) {
        Some(about) => about.to_string(),
        None => "commit a transaction".to_owned(),
    };
    let mut reason = errno_text(answer.errno);
    if let Some(text) = &answer.text {
        reason = format!("{reason}: {text}");
    }
    FirewallError::Kernel { what, reason, errno: answer.errno }
}

fn errno_text(errno: i32) -> String {
    match errno {
        libc::EPERM => {
            "operation not permitted (the table is another process's, or CAP_NET_ADMIN is missing)".to_owned()
        }
        libc::EOPNOTSUPP => "not supported by this kernel".to_owned(),
        other => io::Error::from_raw_os_error(other).to_string(),
    }
}

fn io_error(what: &str) -> FirewallError {
    let error = io::Error::last_os_error();
    FirewallError::Io { what: what.to_owned(), reason: error.to_string(), errno: error.raw_os_error() }
}
