//! The kernel's queue of packets that this process decides on (`linux/netfilter/nfnetlink_queue.h`): binding one,
//! reading what opens a connection out of it, and saying what becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use portolan_netcore::firewall::ruleset::Queue;

use crate::firewall::FirewallBackend;
use crate::netlink::{Attrs, Batch, NetlinkError, Protocol, Reply, Socket};
use crate::nft;

const NFNL_SUBSYS_QUEUE: u16 = 3;
const NFQNL_MSG_PACKET: u16 = NFNL_SUBSYS_QUEUE << 8;
const NFQNL_MSG_VERDICT: u16 = NFNL_SUBSYS_QUEUE << 8 | 1;
const NFQNL_MSG_CONFIG: u16 = NFNL_SUBSYS_QUEUE << 8 | 2;
const NFGEN_LEN: usize = 4;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
/// What the queue has no room for passes.
const NFQA_CFG_F_FAIL_OPEN: u32 = 1;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_PAYLOAD: u16 = 10;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_REPEAT: u32 = 4;

/// The headers of IP and the ports behind them.
const COPIED: u32 = 128;
/// Packets that may wait for us.
const LENGTH: u32 = 1024;
/// Numbers to try: programs that people start by hand have small ones.
const NUMBERS: std::ops::Range<u16> = 51_127..51_135;

/// A queue that this process listens to, for as long as this exists.
#[derive(Debug)]
pub(crate) struct PacketQueue {
    socket: Mutex<Socket>,
    descriptor: RawFd,
    number: u16,
}

/// A packet that waits to be decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) id: u32,
    pub(crate) mark: u32,
    /// From where and to where it goes; none if its headers are beyond us.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Pass,
    Drop,
    /// Through the chain that it came from again, with this mark.
    Again(u32),
}

/// A queue that this process listens to, and how the firewall is to name it; or why there is none.
pub(crate) fn open_for(backend: FirewallBackend) -> Result<(PacketQueue, Queue), String> {
    if backend == FirewallBackend::Off {
        return Err("the firewall is off".to_owned());
    }
    let queue = PacketQueue::open().map_err(|error| match error.errno() {
        Some(libc::EPERM | libc::EBUSY) => "other programs have the numbers that were tried".to_owned(),
        _ => error.to_string(),
    })?;
    let form = nft::queue_form(queue.number).map_err(|error| error.to_string())?;
    let rule = Queue { number: queue.number, form };
    Ok((queue, rule))
}

impl PacketQueue {
    /// Binds the first number that nobody else has.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut taken = None;
        for number in NUMBERS {
            // Of another's queue the kernel says that it is not permitted.
            match socket.transact(&mut bind(number)) {
                Ok(()) => {
                    let nonblocking = |source: rustix::io::Errno| NetlinkError::Io {
                        operation: "ioctl FIONBIO",
                        source: source.into(),
                    };
                    rustix::io::ioctl_fionbio(&socket, true).map_err(nonblocking)?;
                    let descriptor = socket.as_fd().as_raw_fd();
                    return Ok(Self { socket: Mutex::new(socket), descriptor, number });
                }
                Err(error) if matches!(error.errno(), Some(libc::EPERM | libc::EBUSY)) => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or(NetlinkError::Malformed("there is no queue to try")))
    }

    /// Reads one datagram's packets; fails with EAGAIN if there is none.
    pub(crate) fn receive(&self, mut each: impl FnMut(Packet)) -> std::io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.receive(|reply| packet(&reply).into_iter().for_each(&mut each)) {
            Ok(()) => Ok(()),
            Err(NetlinkError::Io { source, .. }) => Err(source),
            Err(other) => Err(std::io::Error::other(other)),
        }
    }

    /// Says what becomes of a packet. One that the kernel has given up meanwhile is nobody's business.
    pub(crate) fn answer(&self, packet: u32, answer: Answer) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = socket.transact(&mut verdict(self.number, packet, answer)) {
            tracing::debug!(%error, "cannot answer the kernel on a packet");
        }
    }
}

impl AsRawFd for PacketQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

/// `struct nfgenmsg`.
fn head(number: u16) -> [u8; NFGEN_LEN] {
    let [high, low] = number.to_be_bytes();
    [0, 0, high, low]
}

fn bind(number: u16) -> Batch {
    let mut batch = Batch::new();
    let [copied @ .., d] = COPIED.to_be_bytes();
    let [a, b, c] = copied;
    batch
        .message(NFQNL_MSG_CONFIG, 0, &head(number))
        .attr(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0])
        .attr(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET])
        .attr_be32(NFQA_CFG_QUEUE_MAXLEN, LENGTH)
        .attr_be32(NFQA_CFG_MASK, NFQA_CFG_F_FAIL_OPEN)
        .attr_be32(NFQA_CFG_FLAGS, NFQA_CFG_F_FAIL_OPEN);
    batch
}

fn verdict(number: u16, packet: u32, answer: Answer) -> Batch {
    let (code, mark) = match answer {
        Answer::Pass => (NF_ACCEPT, None),
        Answer::Drop => (NF_DROP, None),
        Answer::Again(mark) => (NF_REPEAT, Some(mark)),
    };
    let mut header = [0; 8];
    header[..4].copy_from_slice(&code.to_be_bytes());
    header[4..].copy_from_slice(&packet.to_be_bytes());
    let mut batch = Batch::new();
    let mut message = batch.unacked(NFQNL_MSG_VERDICT, 0, &head(number));
    message.attr(NFQA_VERDICT_HDR, &header);
    if let Some(mark) = mark {
        message.attr_be32(NFQA_MARK, mark);
    }
    batch
}

fn packet(reply: &Reply<'_>) -> Option<Packet> {
    if reply.kind != NFQNL_MSG_PACKET {
        return None;
    }
    read(&reply.attrs(NFGEN_LEN))
}

fn read(attrs: &Attrs<'_>) -> Option<Packet> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let id = number(attrs.get(NFQA_PACKET_HDR)?.payload)?;
    let mark = attrs.get(NFQA_MARK).and_then(|mark| number(mark.payload)).unwrap_or_default();
    let ends = attrs.get(NFQA_PAYLOAD).and_then(|payload| ends(payload.payload));
    Some(Packet { id, mark, ends })
}

const TCP: u8 = libc::IPPROTO_TCP as u8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// The ends of the connection that a packet of TCP belongs to, from the headers that it begins with.
fn ends(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to, segment): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 0xf) * 4;
            let header = packet.first_chunk::<20>()?;
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
            if header[9] != TCP || fragment != 0 {
                return None;
            }
            let address = |at| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
            (address(12)?.into(), address(16)?.into(), packet.get(length..)?)
        }
        6 => {
            let (header, rest) = packet.split_first_chunk::<40>()?;
            let address = |at| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
            (address(8)?.into(), address(24)?.into(), behind_extensions(header[6], rest)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*segment.get(at..)?.first_chunk()?));
    Some((SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?)))
}

/// What follows the extension headers of IPv6, if it is TCP.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> Option<&[u8]> {
    while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS = next {
        let [following, length] = *rest.first_chunk()?;
        rest = rest.get((usize::from(length) + 1) * 8..)?;
        next = following;
    }
    (next == TCP).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(extensions: &[u8], next: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, next, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(extensions);
        packet.extend([0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        packet
    }

    fn text(packet: &[u8]) -> Option<String> {
        ends(packet).map(|(from, to)| format!("{from} {to}"))
    }

    #[test]
    fn the_ends_of_a_connection_are_read_from_its_first_packet() {
        let there = Some("[fd00::1]:40000 [fd00::2]:8080".to_owned());
        assert_eq!(text(&v6(&[], TCP)), there);
        let options = [TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(text(&v6(&options, HOP_BY_HOP)), there);
        assert_eq!(text(&v6(&[], 17)), None);
        let v4 = [
            0x46, 0, 0, 44, 0, 0, 0x40, 0, 64, TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 1, 1, 1, 0, 0x9c, 0x40,
            0x1f, 0x90,
        ];
        assert_eq!(text(&v4), Some("192.0.2.1:40000 192.0.2.2:8080".to_owned()));
        let fragment = [&v4[..6], &[0x20, 1], &v4[8..]].concat();
        assert_eq!(text(&fragment), None);
    }

    /// Whoever sends them.
    #[test]
    fn no_packet_is_too_short_to_be_read() {
        let options = [TCP, 0, 0, 0, 0, 0, 0, 0];
        for packet in [v6(&[], TCP), v6(&options, DESTINATION_OPTIONS), vec![0x4f; 30], vec![0x45; 19]] {
            for length in 0..packet.len() {
                let _ = ends(&packet[..length]);
            }
        }
        assert_eq!(ends(&v6(&[TCP, 255, 0, 0, 0, 0, 0, 0], ROUTING)), None);
    }

    #[test]
    fn messages_are_as_the_kernel_has_them() {
        let body = |batch: Batch| batch.as_bytes()[16..].to_vec();
        let expected = b"\0\0\xc7\xb7\x0c\0\x02\0\0\0\0\x04\0\0\0\x07\x08\0\x03\0\x0c\0\0\0";
        assert_eq!(body(verdict(51_127, 7, Answer::Again(0x0c00_0000))), expected);
        assert_eq!(body(verdict(51_127, 7, Answer::Pass)), b"\0\0\xc7\xb7\x0c\0\x02\0\0\0\0\x01\0\0\0\x07");
        let expected = b"\0\0\xc7\xb7\x08\0\x01\0\x01\0\0\0\x09\0\x02\0\0\0\0\x80\x02\0\0\0\
            \x08\0\x03\0\0\0\x04\0\x08\0\x04\0\0\0\0\x01\x08\0\x05\0\0\0\0\x01";
        assert_eq!(body(bind(51_127)), expected);
        let message = b"\x0b\0\x01\0\0\0\0\x07\x86\xdd\x01\0\x08\0\x03\0\x08\0\0\0\x05\0\x0a\0\x60\0\0\0";
        assert_eq!(read(&Attrs::new(message)), Some(Packet { id: 7, mark: 0x0800_0000, ends: None }));
    }
}
