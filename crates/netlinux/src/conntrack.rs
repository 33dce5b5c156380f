//! Forgetting connections (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A flow keeps the translation of its first packet. When a published port comes or goes, UDP flows
//! that are already known would go on to the old place for as long as they are busy.

use std::net::IpAddr;

use portolan_netcore::model::PortBinding;

use crate::netlink::{Attrs, Batch, NetlinkError, Protocol, Reply, Socket, flags};
use crate::rt::{AF_INET, AF_INET6, address_from};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// Size of `struct nfgenmsg`.
const NFGENMSG_LEN: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Bits of the filter: compare protocol number and destination port.
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_DST_PORT: u32 = 1 << 5;

/// A flow to be forgotten: its original tuple and zone, as the kernel gave them.
#[derive(Debug)]
struct Flow {
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Deletes the entries whose first packet went to this host address and port; their number.
pub(crate) fn forget(binding: &PortBinding) -> Result<usize, NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let family = if binding.host_ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let flows = match dump(&mut socket, family, binding, true) {
        // Filters by port came with 5.8; before, the whole table has to be looked at.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            dump(&mut socket, family, binding, false)?
        }
        result => result?,
    };
    let mut batch = Batch::new();
    for flow in &flows {
        let mut message = batch.message(DELETE, 0, &[family, 0, 0, 0]);
        message.tolerate(&[libc::ENOENT]).attr(CTA_TUPLE_ORIG | 0x8000, &flow.tuple);
        if let Some(zone) = &flow.zone {
            message.attr(CTA_ZONE, zone);
        }
    }
    socket.transact(&mut batch)?;
    Ok(flows.len())
}

fn dump(
    socket: &mut Socket,
    family: u8,
    binding: &PortBinding,
    filtered: bool,
) -> Result<Vec<Flow>, NetlinkError> {
    let mut batch = Batch::new();
    let mut request = batch.message(GET, flags::DUMP, &[family, 0, 0, 0]);
    if filtered {
        request
            .nest(CTA_TUPLE_ORIG, |tuple| {
                tuple.nest(CTA_TUPLE_PROTO, |proto| {
                    proto
                        .attr_u8(CTA_PROTO_NUM, binding.proto.number())
                        .attr_be16(CTA_PROTO_DST_PORT, binding.host_port);
                });
            })
            .nest(CTA_FILTER, |filter| {
                filter.attr_u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM | FILTER_DST_PORT);
            });
    }
    socket.dump(&mut batch, Vec::new, |flows, reply| flows.extend(matching(&reply, binding)))
}

fn matching(reply: &Reply<'_>, binding: &PortBinding) -> Option<Flow> {
    let attrs = reply.attrs(NFGENMSG_LEN);
    let tuple = attrs.get(CTA_TUPLE_ORIG)?;
    let proto = tuple.nested().get(CTA_TUPLE_PROTO)?.nested();
    let ip = tuple.nested().get(CTA_TUPLE_IP)?.nested();
    let to = if binding.host_ip.is_ipv4() { ip.get(CTA_IP_V4_DST)? } else { ip.get(CTA_IP_V6_DST)? };
    let wanted = proto.get(CTA_PROTO_NUM)?.u8()? == binding.proto.number()
        && proto.get(CTA_PROTO_DST_PORT)?.be16()? == binding.host_port
        && concerns(binding.host_ip, address_from(to.payload)?);
    let zone = Attrs::get(&attrs, CTA_ZONE).map(|zone| zone.payload.to_vec());
    wanted.then(|| Flow { tuple: tuple.payload.to_vec(), zone })
}

fn concerns(published: IpAddr, destination: IpAddr) -> bool {
    published.is_unspecified() || published == destination
}
