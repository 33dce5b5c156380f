//! Datagrams of a published port that no packet filter can lead to its endpoint, carried over by this
//! process. Each client has a socket of its own towards the endpoint, for as long as either side speaks.
//!
//! An answer leaves from the address that the client wrote to, which on a socket that is bound to all of
//! them takes a control message (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542).

use std::collections::HashMap;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use portolan_netcore::plan::Proxied;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

/// A client that is silent this long is forgotten, as by Docker's proxy.
const IDLE: Duration = Duration::from_secs(90);
/// Clients of one port at a time; others are not heard.
const CLIENTS: usize = 1024;
/// Datagrams of a client that may wait.
const QUEUE: usize = 64;
/// Longest datagram.
const LONGEST: usize = 65_536;
/// How long to wait where the kernel has no memory.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Who wrote, and to which of this host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    address: SocketAddr,
    local: IpAddr,
    /// The link that a link-local address is of.
    link: u32,
}

/// Asks the kernel to say where each datagram was sent to.
pub(crate) fn prepare(socket: &impl AsRawFd, v4: bool) -> io::Result<()> {
    let (level, name) = match v4 {
        true => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        false => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is a whole `int` that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Carries over until aborted; the clients' sockets go with it.
pub(crate) async fn relay(socket: UdpSocket, proxied: Proxied) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<Client, Sender<Vec<u8>>> = HashMap::new();
    let mut carriers = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => match received {
                Ok((length, client)) if proxied.admits(client.address.ip()) => {
                    let queue = match clients.get(&client).filter(|queue| !queue.is_closed()) {
                        Some(queue) => queue.clone(),
                        None if clients.len() >= CLIENTS => continue,
                        None => {
                            let (queue, waiting) = channel(QUEUE);
                            carriers.spawn(carry(Arc::clone(&socket), client, proxied.target, waiting));
                            clients.insert(client, queue.clone());
                            queue
                        }
                    };
                    // What does not fit is lost, as anywhere on a datagram's way.
                    let _ = queue.try_send(buffer[..length].to_vec());
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, target = %proxied.target, "cannot receive on a published port");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            Some(_) = carriers.join_next() => clients.retain(|_, queue| !queue.is_closed()),
        }
    }
}

/// One client's datagrams, there and back.
async fn carry(
    socket: Arc<UdpSocket>,
    client: Client,
    target: SocketAddr,
    mut waiting: Receiver<Vec<u8>>,
) -> io::Result<()> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let endpoint = UdpSocket::bind((any, 0)).await?;
    endpoint.connect(target).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let sent = tokio::select! {
            datagram = waiting.recv() => match datagram {
                Some(datagram) => endpoint.send(&datagram).await,
                None => return Ok(()),
            },
            received = endpoint.recv(&mut buffer) => match received {
                Ok(length) => {
                    let answer = &buffer[..length];
                    socket.async_io(Interest::WRITABLE, || send(&socket, answer, &client)).await
                }
                Err(error) => Err(error),
            },
            () = tokio::time::sleep(IDLE) => return Ok(()),
        };
        match sent {
            // Nobody listens in the endpoint yet, or any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            other => drop(other?),
        }
    }
}

/// Room for one control message, aligned as its header is.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// One datagram without waiting for it.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    // SAFETY: all of these are plain data for which zeroes are valid.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut control = Control([0; 64]);
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut data;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: the header points at buffers of the lengths that it says, which outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a datagram without its addresses");
    let address = address_of(&name).ok_or_else(malformed)?;
    let (local, link) = destination(&header).ok_or_else(malformed)?;
    Ok((length, Client { address, local, link }))
}

fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage, which is larger and aligned for all, holds this.
            let v4 = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { *(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The address that a datagram was sent to, and the link if that is link-local.
fn destination(header: &libc::msghdr) -> Option<(IpAddr, u32)> {
    // SAFETY: the kernel filled the header's control buffer, and these macros stay within its length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    while let Some(found) = message {
        // SAFETY: as above; the data of a message of either kind is the structure that is read.
        let data = unsafe { libc::CMSG_DATA(found) };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: as above; it may not be aligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                return Some((Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into(), 0));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above; it may not be aligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let link = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                return Some((ip.into(), link as u32));
            }
            _ => {}
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, found).as_ref() };
    }
    None
}

/// One datagram to a client, from the address that it wrote to.
fn send(socket: &UdpSocket, data: &[u8], client: &Client) -> io::Result<usize> {
    // SAFETY: all of these are plain data for which zeroes are valid.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut control = Control([0; 64]);
    let mut data = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = put_address(&mut name, client.address);
    header.msg_iov = &raw mut data;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    match client.local {
        IpAddr::V4(v4) => {
            let address = |ip: Ipv4Addr| libc::in_addr { s_addr: u32::from(ip).to_be() };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address(v4),
                ipi_addr: address(Ipv4Addr::UNSPECIFIED),
            };
            put_control(&mut header, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        IpAddr::V6(v6) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                ipi6_ifindex: client.link as _,
            };
            put_control(&mut header, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
    }
    // SAFETY: the header points at buffers of the lengths that it says, which outlive the call; the data
    // is only read.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Fills a socket address in; its length.
fn put_address(name: &mut libc::sockaddr_storage, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is larger than any socket address and aligned for all of them.
            let place = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
            place.sin_family = libc::AF_INET as libc::sa_family_t;
            place.sin_port = v4.port().to_be();
            place.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let place = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in6>() };
            place.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            place.sin6_port = v6.port().to_be();
            place.sin6_addr.s6_addr = v6.ip().octets();
            place.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Fills the one control message in.
fn put_control<T>(header: &mut libc::msghdr, (level, kind): (i32, i32), data: T) {
    let length = size_of::<T>() as libc::c_uint;
    // SAFETY: the header's control buffer is zeroed, aligned and longer than one such message, so its
    // first message is within it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
    }
}
