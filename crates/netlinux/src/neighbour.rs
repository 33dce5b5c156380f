//! The kernel's neighbour tables: which hardware address an address of a link has (`ip neigh`).

use std::net::IpAddr;

use portolan_netcore::plan::Neighbour;

use crate::netlink::{Batch, NetlinkError, Reply, Socket, flags};
use crate::rt::{RTM_GETNEIGH, RTM_NEWNEIGH, address_bytes, address_from, family_of};

// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_STALE: u16 = 0x04;
const NUD_FAILED: u16 = 0x20;
/// Bytes of `struct ndmsg`.
const NDMSG_LEN: usize = 12;

/// Answers what the kernel asks on the link in vain, where the answer is among `neighbours`. The kernel
/// verifies it when it is used. What it knows, or was told by others, stays.
pub(crate) fn answer(socket: &mut Socket, index: u32, neighbours: &[Neighbour]) -> Result<(), NetlinkError> {
    let asked = asked_in_vain(socket, index)?;
    let mut batch = Batch::new();
    for Neighbour { mac, addresses } in neighbours {
        for address in addresses.iter().filter(|address| asked.contains(address)) {
            batch
                .message(RTM_NEWNEIGH, flags::REPLACE, &ndmsg(family_of(*address), index, NUD_STALE))
                .tolerate(&[libc::ENOENT, libc::ENODEV])
                .attr(NDA_DST, &address_bytes(*address))
                .attr(NDA_LLADDR, &mac.0);
        }
    }
    socket.transact(&mut batch)
}

fn asked_in_vain(socket: &mut Socket, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
    let mut batch = Batch::new();
    // Kernels before 4.4 do not filter.
    batch.message(RTM_GETNEIGH, flags::DUMP, &ndmsg(0, 0, 0)).attr_u32(NDA_IFINDEX, index);
    socket.dump(&mut batch, Vec::new, |asked, reply| asked.extend(incomplete(&reply, index)))
}

fn incomplete(reply: &Reply<'_>, index: u32) -> Option<IpAddr> {
    let header = reply.payload.first_chunk::<NDMSG_LEN>()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let of_link = header[4..8] == index.to_ne_bytes();
    if reply.kind != RTM_NEWNEIGH || !of_link || state & (NUD_INCOMPLETE | NUD_FAILED) == 0 {
        return None;
    }
    address_from(reply.attrs(NDMSG_LEN).get(NDA_DST)?.payload)
}

/// `struct ndmsg`.
fn ndmsg(family: u8, index: u32, state: u16) -> [u8; NDMSG_LEN] {
    let mut header = [0; NDMSG_LEN];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header
}
