//! A packet socket on a link in another namespace, which hears DHCP servers, or ARP, and nothing else.

use std::fs::File;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use portolan_netcore::model::{IfName, MacAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::unix::AsyncFd;

use crate::wire::CLIENT_PORT;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: MacAddr = MacAddr([0xff; 6]);
/// The longest packet that is taken.
const MOST_BYTES: usize = 2048;

/// What is heard and said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Talk {
    /// IPv4 packets of servers. The client's port is held at the address that is lent, if there is one.
    Dhcp(Option<Ipv4Addr>),
    /// ARP.
    Arp,
}

impl Talk {
    fn ethertype(self) -> u16 {
        match self {
            Self::Dhcp(_) => ETHERTYPE_IPV4,
            Self::Arp => ETHERTYPE_ARP,
        }
    }
}

/// Open for the length of one exchange.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: AsyncFd<OwnedFd>,
    ethertype: u16,
    index: i32,
    mac: MacAddr,
    /// Holds the client's port at the leased address, if there is one, so that the kernel does not
    /// answer servers that nobody listens. It is never read: the packet socket hears the same.
    _port: Option<UdpSocket>,
}

impl Socket {
    /// Opens it inside the namespace. Blocks for some ten microseconds; needs a tokio runtime.
    pub(crate) fn open(netns: &Path, ifname: &IfName, talk: Talk) -> io::Result<Self> {
        let netns = File::open(netns)?;
        let (fd, index, mac, port) = std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&netns),
                    Some(LinkNameSpaceType::Network),
                )?;
                let (fd, index, mac) = packet_socket(ifname, talk)?;
                // The container may use the port itself: then it is not answered for.
                let port = match talk {
                    Talk::Dhcp(Some(held)) => UdpSocket::bind((held, CLIENT_PORT)).ok(),
                    Talk::Dhcp(None) | Talk::Arp => None,
                };
                Ok::<_, io::Error>((fd, index, mac, port))
            };
            let builder = std::thread::Builder::new().name("dhcp-netns".to_owned()).stack_size(128 * 1024);
            let thread = builder.spawn_scoped(scope, inside)?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread inside a network namespace panicked")))
        })?;
        // SAFETY: the descriptor is owned by what registers it, and closed only after it.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd, ethertype: talk.ethertype(), index, mac, _port: port })
    }

    /// The link's hardware address.
    pub(crate) fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends a packet to the link's neighbour, or to all of them.
    pub(crate) fn send(&self, packet: &[u8], to: Option<MacAddr>) -> io::Result<()> {
        let mut address = link_address(self.ethertype, self.index);
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&to.unwrap_or(BROADCAST).0);
        // SAFETY: the packet and the address are borrowed for the call, with their true lengths.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                ADDRESS_BYTES,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next packet, and the hardware address it came from.
    pub(crate) async fn receive(&self) -> io::Result<(Vec<u8>, MacAddr)> {
        loop {
            let mut ready = self.fd.readable().await?;
            if let Ok(received) = ready.try_io(|fd| receive(fd.get_ref())) {
                return received;
            }
        }
    }
}

const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn link_address(ethertype: u16, index: i32) -> libc::sockaddr_ll {
    // SAFETY: `sockaddr_ll` is made of integers; all zeroes is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    address
}

fn mac_of(address: &libc::sockaddr_ll) -> MacAddr {
    let [a, b, c, d, e, f, ..] = address.sll_addr;
    MacAddr([a, b, c, d, e, f])
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The socket, the link's index and its hardware address.
fn packet_socket(ifname: &IfName, talk: Talk) -> io::Result<(OwnedFd, i32, MacAddr)> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Of no protocol at first: nothing is heard before the filter is there.
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(fd)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = rustix::net::netdevice::name_to_index(&fd, ifname.as_str())? as i32;
    if matches!(talk, Talk::Dhcp(_)) {
        attach_filter(&fd)?;
    }
    let mut address = link_address(talk.ethertype(), index);
    // SAFETY: the address is borrowed for the call, with its true length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) })?;
    let mut length = ADDRESS_BYTES;
    // SAFETY: the kernel writes at most `length` bytes into the address, which is as long.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
    Ok((fd, index, mac_of(&address)))
}

/// Lets only unfragmented UDP packets to the client's port through, so that a busy link wakes nobody.
fn attach_filter(fd: &OwnedFd) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const LOAD_X_HEADER: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD_BYTE, 0, 0, 9),
        op(IF_EQUAL, 0, 6, 17),
        op(LOAD_HALF, 0, 0, 6),
        op(IF_BITS, 4, 0, 0x3fff),
        op(LOAD_X_HEADER, 0, 0, 0),
        op(LOAD_HALF_AT_X, 0, 0, 2),
        op(IF_EQUAL, 0, 1, u32::from(CLIENT_PORT)),
        op(RETURN, 0, 0, u32::MAX),
        op(RETURN, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter points at `program`, which lives until the kernel has copied it.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
}

fn receive(fd: &OwnedFd) -> io::Result<(Vec<u8>, MacAddr)> {
    let mut packet = vec![0; MOST_BYTES];
    let mut from = link_address(0, 0);
    let mut length = ADDRESS_BYTES;
    // SAFETY: the kernel writes at most their lengths into the buffer and the address.
    let received = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            packet.as_mut_ptr().cast(),
            packet.len(),
            0,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    packet.truncate(received);
    Ok((packet, mac_of(&from)))
}
