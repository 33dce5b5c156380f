//! Telling neighbours about an address: an ARP announcement (RFC 5227, section 3) for IPv4, an
//! unsolicited neighbour advertisement (RFC 4861, section 7.2.6) for IPv6.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use portolan_netcore::model::MacAddr;
use portolan_netcore::plan::Neighbour;

use crate::netlink::{NetlinkError, Protocol, Socket};
use crate::{neighbour, netns};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];
/// 33:33 and the end of ff02::1, all nodes.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// When an introduction is sent again, after the first time: while what asked may still not be able to hear or
/// to ask once more. A link's carrier is told of to its namespace by a worker, most often within 3 ms.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(90),
];

/// Sends announcements on a thread of its own: closing a packet socket waits for an RCU grace period
/// (tens of milliseconds), which nobody has to wait for with it.
#[derive(Debug)]
pub(crate) struct Announcer(Sender<Announcement>);

/// What to announce where.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// The namespace the link is in; none for the announcer's own.
    pub(crate) namespace: Option<OwnedFd>,
    /// The link's index there.
    pub(crate) index: u32,
    /// Who is announced.
    pub(crate) neighbours: Vec<Neighbour>,
    /// Not once, but several times within a tenth of a second; and whom the kernel here hears of, if it asks
    /// on that link.
    pub(crate) here: Option<Vec<Neighbour>>,
}

/// An announcement that is to be sent again.
#[derive(Debug)]
struct Repeated {
    announcement: Announcement,
    begun: Instant,
    sent: usize,
}

impl Announcer {
    /// Starts the thread, in the caller's namespace; it ends with the announcer.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("announce".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || serve(&receiver))?;
        Ok(Self(sender))
    }

    /// Queues an announcement.
    pub(crate) fn queue(&self, announcement: Announcement) {
        // The thread ends only after the sender.
        let _ = self.0.send(announcement);
    }
}

fn serve(receiver: &Receiver<Announcement>) {
    let mut own = Own::default();
    let mut repeated: Vec<Repeated> = Vec::new();
    loop {
        let next = repeated.iter().filter_map(Repeated::due).min();
        let heard = match next {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match heard {
            Ok(announcement) => {
                tell(&mut own, &announcement);
                if announcement.here.is_some() {
                    repeated.push(Repeated { announcement, begun: Instant::now(), sent: 0 });
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        for one in repeated.iter_mut().filter(|one| one.due().is_some_and(|due| due <= now)) {
            tell(&mut own, &one.announcement);
            one.sent += 1;
        }
        repeated.retain(|one| one.due().is_some());
    }
}

impl Repeated {
    /// When it is to be sent next.
    fn due(&self) -> Option<Instant> {
        AGAIN.get(self.sent).map(|after| self.begun + *after)
    }
}

/// The thread's sockets of its own namespace. They are kept: closing one would hold up those that are sent again.
#[derive(Default)]
struct Own {
    packets: Option<OwnedFd>,
    route: Option<Socket>,
}

impl Own {
    fn send(&mut self, announcement: &Announcement) -> io::Result<()> {
        let socket = match &self.packets {
            Some(socket) => socket,
            None => self.packets.insert(packet_socket()?),
        };
        send(socket, announcement)
    }

    fn answer(&mut self, index: u32, here: &[Neighbour]) -> Result<(), NetlinkError> {
        let socket = match &mut self.route {
            Some(socket) => socket,
            None => self.route.insert(Socket::open(Protocol::Route)?),
        };
        neighbour::answer(socket, index, here)
    }
}

fn tell(own: &mut Own, announcement: &Announcement) {
    if let Some(here) = announcement.here.as_ref().filter(|here| !here.is_empty())
        && let Err(error) = own.answer(announcement.index, here)
    {
        own.route = None;
        tracing::debug!(%error, "cannot tell the kernel of its neighbours");
    }
    let sent = match &announcement.namespace {
        Some(namespace) => netns::inside(namespace.as_fd(), || send(&packet_socket()?, announcement)),
        None => Ok(own.send(announcement)),
    };
    if let Err(error) = sent.and_then(|result| result) {
        // The container may be gone already. Neighbours learn of the address when they ask.
        tracing::debug!(%error, neighbours = ?announcement.neighbours, "cannot announce addresses");
    }
}

fn send(socket: &OwnedFd, announcement: &Announcement) -> io::Result<()> {
    for Neighbour { mac, addresses } in &announcement.neighbours {
        for address in addresses {
            let (destination, ethertype, packet) = match *address {
                IpAddr::V4(v4) => (BROADCAST, ETHERTYPE_ARP, arp(*mac, v4)),
                IpAddr::V6(v6) => (ALL_NODES_MAC, ETHERTYPE_IPV6, advertisement(*mac, v6)),
            };
            send_frame(socket, announcement.index, destination, ethertype, &packet)?;
        }
    }
    Ok(())
}

/// A packet socket that receives nothing (protocol 0); the kernel writes the Ethernet header.
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send_frame(socket: &OwnedFd, index: u32, to: [u8; 6], ethertype: u16, packet: &[u8]) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is made of integers; all zeroes is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index as i32;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    // SAFETY: the packet and the address are borrowed for the call, with their true lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request for the own address: RFC 5227 prefers it to a reply, and every cache takes it.
fn arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(mac.0);
    packet.extend(address.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// An IPv6 packet with an unsolicited advertisement that overrides what caches have.
fn advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    // Type 136, code 0, checksum, flags; target; option 2 (target link-layer address) of 8 bytes.
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.0);
    let length = message.len() as u16;

    // RFC 8200, section 8.1: the checksum covers a pseudo-header.
    let mut summed = Vec::with_capacity(72);
    summed.extend(address.octets());
    summed.extend(ALL_NODES.octets());
    summed.extend(u32::from(length).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&internet_checksum(&summed).to_be_bytes());

    // Neighbours accept it only with a hop limit of 255: it cannot come from beyond a router.
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, 255]);
    packet.extend(address.octets());
    packet.extend(ALL_NODES.octets());
    packet.extend(message);
    packet
}

/// RFC 1071, of an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_sums_to_zero_with_its_pseudo_header() {
        let mac = MacAddr([2, 0x42, 0xac, 0x11, 0, 2]);
        let packet = advertisement(mac, "fd00::2".parse().unwrap());
        assert_eq!(packet.len(), 40 + 32);
        assert_eq!(packet[7], 255);
        let mut summed = packet[8..40].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(&packet[40..]);
        assert_eq!(internet_checksum(&summed), 0);
    }

    #[test]
    fn an_arp_announcement_asks_for_its_own_address() {
        let packet = arp(MacAddr([2, 0x42, 0xac, 0x11, 0, 2]), Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(packet.len(), 28);
        assert_eq!(packet[14..18], packet[24..28]);
        assert_eq!(packet[6..8], [0, 1]);
    }
}
