//! Forgetting connections (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A flow keeps the translation of its first packet. When a published port or an address changes hands,
//! flows that are already known would go on to the old place for as long as they are busy.

use std::net::IpAddr;

use portolan_netcore::model::PortBinding;

use crate::netlink::{Attr, Attrs, Batch, Message, NetlinkError, Protocol, Reply, Socket, flags};
use crate::rt::{AF_INET, AF_INET6, address_from, family_of};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const GET_STATS: u16 = SUBSYSTEM | 5;
/// Size of `struct nfgenmsg`.
const NFGENMSG_LEN: usize = 4;

/// All families.
const AF_UNSPEC: u8 = libc::AF_UNSPEC as u8;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Bits of the filter: compare the source address, the protocol number and the destination port.
const FILTER_IP_SRC: u32 = 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_DST_PORT: u32 = 1 << 5;

/// Entries that the kernel writes into a dump in the time in which it walks over the table of a big host once
/// (10 ms for 262,144 buckets, 2 µs for an entry).
const ENTRIES_A_WALK: usize = 5000;
/// Requests in one message.
const AT_A_TIME: usize = 256;

/// A flow to be forgotten: its original tuple and zone, as the kernel gave them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    family: u8,
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Deletes the entries whose first packet went to one of these host addresses and ports; their number.
/// One look at the table is for all of them.
pub(crate) fn forget(bindings: &[PortBinding]) -> Result<usize, NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut flows = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let here: Vec<&PortBinding> =
            bindings.iter().filter(|binding| binding.host_ip.is_ipv4() == (family == AF_INET)).collect();
        let filter = |request: &mut Message<'_>| {
            if let [binding] = here.as_slice() {
                filter_by_port(request, binding);
            }
        };
        if !here.is_empty() {
            let wanted = |attrs: &Attrs<'_>| here.iter().any(|binding| goes_to(attrs, binding).is_some());
            flows.extend(find(&mut socket, family, filter, wanted)?);
        }
    }
    delete(&mut socket, &flows)
}

/// Deletes the entries of connections from and to these addresses, whoever began them; their number.
///
/// A dump walks over the whole table, which all namespaces share, whatever it is to find. So none is made if there
/// are no entries, and one for all addresses unless a filter for each side of each of them costs less.
pub(crate) fn forget_addresses(addresses: &[IpAddr]) -> Result<usize, NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let entries = entries(&mut socket);
    if entries == Some(0) || addresses.is_empty() {
        return Ok(0);
    }
    let walks_saved = 2 * addresses.len() - 1;
    let at_once = entries.is_some_and(|entries| entries < walks_saved * ENTRIES_A_WALK);
    let flows = flows_of(&mut socket, addresses, at_once)?;
    delete(&mut socket, &flows)
}

/// The connections of these addresses: by one walk that shows all there are, or by filtered ones.
pub(crate) fn flows_of(
    socket: &mut Socket,
    addresses: &[IpAddr],
    at_once: bool,
) -> Result<Vec<Flow>, NetlinkError> {
    // What one began has it as the source; what others began, translated or not, is answered by it.
    let sides = [(CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS), (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS)];
    if at_once {
        let is_theirs =
            |attrs: &Attrs<'_>, tuple| source(attrs, tuple).is_some_and(|from| addresses.contains(&from));
        let wanted = |attrs: &Attrs<'_>| sides.iter().any(|(tuple, _)| is_theirs(attrs, *tuple));
        return find(socket, AF_UNSPEC, |_| (), wanted);
    }
    let mut flows = Vec::new();
    for address in addresses {
        for (tuple, flag) in sides {
            let filter = |request: &mut Message<'_>| filter_by_source(request, tuple, flag, *address);
            let wanted = |attrs: &Attrs<'_>| source(attrs, tuple) == Some(*address);
            flows.extend(find(socket, family_of(*address), filter, wanted)?);
        }
    }
    // One of a host with itself is found both ways.
    flows.sort();
    flows.dedup();
    Ok(flows)
}

/// How many connections the socket's namespace has; `None` if the kernel does not say.
fn entries(socket: &mut Socket) -> Option<usize> {
    let mut batch = Batch::new();
    batch.message(GET_STATS, 0, &[AF_UNSPEC, 0, 0, 0]);
    let mut entries = None;
    let answer = |reply: Reply<'_>| {
        let number = reply.attrs(NFGENMSG_LEN).get(CTA_STATS_GLOBAL_ENTRIES).and_then(|attr| attr.be32());
        entries = entries.or(number);
    };
    socket.transact_with(&mut batch, answer).ok()?;
    usize::try_from(entries?).ok()
}

/// Dumps what the filter leaves, or all where the kernel knows no filters (before 5.8).
fn find(
    socket: &mut Socket,
    family: u8,
    filter: impl Fn(&mut Message<'_>),
    wanted: impl Fn(&Attrs<'_>) -> bool,
) -> Result<Vec<Flow>, NetlinkError> {
    let mut dump = |filtered: bool| {
        let mut batch = Batch::new();
        let mut request = batch.message(GET, flags::DUMP, &[family, 0, 0, 0]);
        if filtered {
            filter(&mut request);
        }
        socket.dump(&mut batch, Vec::new, |flows, reply| flows.extend(flow(&reply, &wanted)))
    };
    let unknown = |error: &NetlinkError| matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP));
    match dump(true) {
        Err(error) if unknown(&error) => match dump(false) {
            Err(error) if unknown(&error) => {
                tracing::warn!(%error, "the kernel does not tell connections: they cannot be ended");
                Ok(Vec::new())
            }
            result => result,
        },
        result => result,
    }
}

fn filter_by_port(request: &mut Message<'_>, binding: &PortBinding) {
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

fn filter_by_source(request: &mut Message<'_>, tuple: u16, flag: u16, address: IpAddr) {
    request
        .nest(tuple, |tuple| {
            tuple.nest(CTA_TUPLE_IP, |ip| {
                match address {
                    IpAddr::V4(v4) => ip.attr(CTA_IP_V4_SRC, &v4.octets()),
                    IpAddr::V6(v6) => ip.attr(CTA_IP_V6_SRC, &v6.octets()),
                };
            });
        })
        .nest(CTA_FILTER, |filter| {
            filter.attr_u32(flag, FILTER_IP_SRC);
        });
}

fn flow(reply: &Reply<'_>, wanted: impl Fn(&Attrs<'_>) -> bool) -> Option<Flow> {
    // `struct nfgenmsg` begins with the family.
    let family = *reply.payload.first()?;
    let attrs = reply.attrs(NFGENMSG_LEN);
    let tuple = attrs.get(CTA_TUPLE_ORIG)?;
    let zone = attrs.get(CTA_ZONE).map(|zone| zone.payload.to_vec());
    wanted(&attrs).then(|| Flow { family, tuple: tuple.payload.to_vec(), zone })
}

/// The flow's first packet went to this host address and port.
fn goes_to(attrs: &Attrs<'_>, binding: &PortBinding) -> Option<()> {
    let tuple = attrs.get(CTA_TUPLE_ORIG)?;
    let proto = tuple.nested().get(CTA_TUPLE_PROTO)?.nested();
    let ip = tuple.nested().get(CTA_TUPLE_IP)?.nested();
    let to = if binding.host_ip.is_ipv4() { ip.get(CTA_IP_V4_DST)? } else { ip.get(CTA_IP_V6_DST)? };
    let same = proto.get(CTA_PROTO_NUM)?.u8()? == binding.proto.number()
        && proto.get(CTA_PROTO_DST_PORT)?.be16()? == binding.host_port
        && (binding.host_ip.is_unspecified() || address_from(to.payload) == Some(binding.host_ip));
    same.then_some(())
}

fn source(attrs: &Attrs<'_>, tuple: u16) -> Option<IpAddr> {
    let ip = attrs.get(tuple)?.nested().get(CTA_TUPLE_IP)?.nested();
    let from: Attr<'_> = ip.get(CTA_IP_V4_SRC).or_else(|| ip.get(CTA_IP_V6_SRC))?;
    address_from(from.payload)
}

/// Deletes by exact tuple: a flow that began meanwhile is not meant.
fn delete(socket: &mut Socket, flows: &[Flow]) -> Result<usize, NetlinkError> {
    for flows in flows.chunks(AT_A_TIME) {
        delete_some(socket, flows)?;
    }
    Ok(flows.len())
}

fn delete_some(socket: &mut Socket, flows: &[Flow]) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    for flow in flows {
        let mut message = batch.message(DELETE, 0, &[flow.family, 0, 0, 0]);
        message.tolerate(&[libc::ENOENT]).attr(CTA_TUPLE_ORIG | 0x8000, &flow.tuple);
        if let Some(zone) = &flow.zone {
            message.attr(CTA_ZONE, zone);
        }
    }
    socket.transact(&mut batch)
}
