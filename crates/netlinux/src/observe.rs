//! Reading what is there: links, addresses and routes of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use portolan_netcore::model::{IfName, IpvlanFlag, IpvlanMode, MacAddr, MacvlanMode};
use portolan_netcore::plan::{Attribute, Route};

use crate::netlink::{Attrs, Batch, NetlinkError, Reply, Socket, flags};
use crate::rt::{
    AF_BRIDGE, AF_INET, AF_INET6, BR_BOOLOPT_NO_LL_LEARN, BR_STATE_FORWARDING, FR_ACT_TO_TBL, FRA_TABLE,
    IF_OPER_UP, IFA_ADDRESS, IFA_LOCAL, IFA_PROTO, IFADDRMSG_LEN, IFF_UP, IFINFOMSG_LEN, IFLA_ADDRESS,
    IFLA_BR_MULTI_BOOLOPT, IFLA_BR_STP_STATE, IFLA_BR_VLAN_DEFAULT_PVID, IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_MODE, IFLA_BRPORT_STATE, IFLA_EXT_MASK, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_IPVLAN_FLAGS, IFLA_IPVLAN_MODE, IFLA_LINK, IFLA_LINK_NETNSID,
    IFLA_LINKINFO, IFLA_MACVLAN_MODE, IFLA_MASTER, IFLA_MTU, IFLA_OPERSTATE, IFLA_PROTINFO, IFLA_VLAN_ID,
    IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES, NETNSA_FD, NETNSA_NSID, PORT_DEFAULTS, PROTOCOL, ROUTE_KINDS,
    RT_TABLE_LOCAL, RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTA_VIA,
    RTEXT_FILTER_SKIP_STATS, RTGENMSG_LEN, RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_GETNSID, RTM_GETROUTE,
    RTM_GETRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNSID, RTM_NEWROUTE, RTM_NEWRULE, RTMSG_LEN, RTN_UNICAST,
    RULE_HDR_LEN, address_from, ifinfomsg, value_of,
};

/// The kernel's metric for IPv6 routes that were given none (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// `bridge`, `veth`, ... ; none for physical links and `lo`.
    pub kind: Option<String>,
    /// `IFLA_IFALIAS`.
    pub alias: Option<String>,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Index of a veth's other end in its own namespace.
    pub peer: Option<u32>,
    /// The id that this namespace has for the other end's, if that is another one.
    pub peer_namespace: Option<i32>,
    /// `IFLA_BRPORT_MODE`.
    pub hairpin: bool,
    /// `IFF_UP`.
    pub up: bool,
    /// Attributes of it as a bridge or a port that are not the kernel's defaults.
    pub altered: BTreeSet<Attribute>,
    /// What makes a link on top of another, or a bridge with VLANs, what it is.
    pub details: Option<Details>,
}

/// `IFLA_INFO_DATA` of the kinds of links that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Details {
    /// Of a macvlan link.
    Macvlan(MacvlanMode),
    /// Of an ipvlan link.
    Ipvlan(IpvlanMode, IpvlanFlag),
    /// Number of a VLAN.
    Vlan(u16),
    /// Of a bridge.
    Bridge {
        /// The one of its ports, if it filters by VLAN.
        vlan: Option<u16>,
        /// It learns from frames to link-local groups, and could do without.
        learns_link_local: bool,
    },
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSeen {
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `rtm_type`.
    pub kind: u8,
    /// The table that it is in.
    pub table: u32,
    /// Where to.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link it leaves by; none for multipath routes.
    pub device: Option<u32>,
    /// Its metric, 0 if it was given none.
    pub metric: u32,
}

impl RouteSeen {
    /// It was made by us.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL && value_of(&ROUTE_KINDS, &self.kind).is_some()
    }

    /// What is reached by it is a neighbour.
    pub fn is_on_link(&self) -> bool {
        self.kind == RTN_UNICAST && self.gateway.is_none() && self.device.is_some()
    }

    /// The same in the core's words, its link being `dev`.
    pub fn to_route(&self, dev: IfName) -> Route {
        let kind = value_of(&ROUTE_KINDS, &self.kind).unwrap_or_default();
        Route { destination: self.destination, kind, gateway: self.gateway, dev, metric: self.metric }
    }
}

/// Every link of the socket's namespace, by index.
pub fn links(socket: &mut Socket) -> Result<BTreeMap<u32, LinkSeen>, NetlinkError> {
    let mut batch = Batch::new();
    batch
        .message(RTM_GETLINK, flags::DUMP, &ifinfomsg(0, 0, 0))
        .attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    socket.dump(&mut batch, BTreeMap::new, |links, reply| {
        if let Some(link) = link(&reply) {
            links.insert(link.index, link);
        }
    })
}

/// The link of this name, if there is one.
pub fn link_named(socket: &mut Socket, name: &IfName) -> Result<Option<LinkSeen>, NetlinkError> {
    let mut batch = Batch::new();
    batch
        .message(RTM_GETLINK, 0, &ifinfomsg(0, 0, 0))
        .tolerate(&[libc::ENODEV])
        .attr_text(IFLA_IFNAME, name.as_str())
        .attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    let mut found = None;
    socket.transact_with(&mut batch, |reply| found = link(&reply))?;
    Ok(found)
}

/// The id that the socket's namespace has for another one, if it ever needed one: a veth pair between
/// the two gives it one.
pub fn namespace_id(socket: &mut Socket, other: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETNSID, 0, &[0; RTGENMSG_LEN]).attr_u32(NETNSA_FD, other.as_raw_fd() as u32);
    let mut id = None;
    socket.transact_with(&mut batch, |reply| {
        if reply.kind == RTM_NEWNSID {
            id = reply.attrs(RTGENMSG_LEN).get(NETNSA_NSID).and_then(|id| id.u32()).map(|id| id as i32);
        }
    })?;
    Ok(id.filter(|id| *id >= 0))
}

/// The addresses of the socket's namespace that somebody gave to a link, by the link's index: those
/// that the kernel makes by itself are left out, and where the kernel tells, foreign ones too.
pub fn addresses(socket: &mut Socket) -> Result<BTreeMap<u32, BTreeSet<IpNet>>, NetlinkError> {
    let seen = dump_addresses(socket)?;
    // From 5.18 on, addresses say who made them: at least lo's always do. Before, none does.
    let tells = seen.iter().any(|(_, _, protocol)| protocol.is_some());
    let mut found: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
    for (index, address, protocol) in seen {
        let ours = if tells { protocol == Some(PROTOCOL) } else { !made_by_kernel(address) };
        if ours {
            found.entry(index).or_default().insert(address);
        }
    }
    Ok(found)
}

/// The addresses of one link that others gave it, in the kernel's order; where the kernel does not tell, ours are
/// among them. Link-local ones of IPv6, most of which the kernel makes by itself, are left out.
pub fn foreign_addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
    let of_link = dump_addresses(socket)?.into_iter().filter(|(link, ..)| *link == index);
    let foreign = of_link.filter(|(_, address, protocol)| {
        *protocol != Some(PROTOCOL)
            && !matches!(address.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
    });
    Ok(foreign.map(|(_, address, _)| address).collect())
}

/// Link, address, and who made it.
fn dump_addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet, Option<u8>)>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETADDR, flags::DUMP, &[0; IFADDRMSG_LEN]);
    socket.dump(&mut batch, Vec::new, |seen, reply| seen.extend(address(&reply)))
}

/// All addresses of the socket's namespace, whoever made them, with the index of the link.
pub fn local_addresses(socket: &mut Socket) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    Ok(dump_addresses(socket)?.into_iter().map(|(index, address, _)| (index, address.addr())).collect())
}

/// The unicast and other routes of the main table of the socket's namespace.
pub fn routes(socket: &mut Socket) -> Result<Vec<RouteSeen>, NetlinkError> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let main = RT_TABLE_MAIN.into();
        let dumped = dump_routes(socket, family, Some(main))?;
        // A kernel that does not filter sends every table.
        found.extend(dumped.into_iter().filter(|route| route.table == main));
    }
    Ok(found)
}

/// The routes of the main table and of every other that a rule leads to, but for the local one.
pub fn routes_in_use(socket: &mut Socket) -> Result<Vec<RouteSeen>, NetlinkError> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let tables = tables_in_use(socket, family)?;
        let dumped = dump_routes(socket, family, None)?;
        found.extend(dumped.into_iter().filter(|route| tables.contains(&route.table)));
    }
    Ok(found)
}

fn dump_routes(socket: &mut Socket, family: u8, table: Option<u32>) -> Result<Vec<RouteSeen>, NetlinkError> {
    let mut header = [0; RTMSG_LEN];
    header[0] = family;
    let mut batch = Batch::new();
    let mut message = batch.message(RTM_GETROUTE, flags::DUMP, &header);
    if let Some(table) = table {
        message.attr_u32(RTA_TABLE, table);
    }
    or_none(socket.dump(&mut batch, Vec::new, |routes, reply| routes.extend(route(&reply))))
}

fn tables_in_use(socket: &mut Socket, family: u8) -> Result<BTreeSet<u32>, NetlinkError> {
    let mut header = [0; RULE_HDR_LEN];
    header[0] = family;
    let mut batch = Batch::new();
    batch.message(RTM_GETRULE, flags::DUMP, &header);
    let led_to = or_none(socket.dump(&mut batch, Vec::new, |tables, reply| tables.extend(table(&reply))))?;
    let mut tables: BTreeSet<u32> = led_to.into_iter().collect();
    tables.insert(RT_TABLE_MAIN.into());
    tables.remove(&RT_TABLE_LOCAL.into());
    Ok(tables)
}

/// The table that a rule leads to.
fn table(reply: &Reply<'_>) -> Option<u32> {
    let header = reply.payload.first_chunk::<RULE_HDR_LEN>()?;
    if reply.kind != RTM_NEWRULE || header[7] != FR_ACT_TO_TBL {
        return None;
    }
    let attrs = reply.attrs(RULE_HDR_LEN);
    Some(attrs.get(FRA_TABLE).and_then(|table| table.u32()).unwrap_or(header[4].into()))
}

/// Nothing from a kernel without the family or without rules, and from a namespace that has never had a
/// route and so has no table yet.
fn or_none<T>(dumped: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match dumped {
        Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => Ok(Vec::new()),
        result => result,
    }
}

/// A link, as `RTM_NEWLINK` and `RTM_DELLINK` tell of it. Bridges tell of their ports in a family of their own,
/// with less.
pub(crate) fn link(reply: &Reply<'_>) -> Option<LinkSeen> {
    if !matches!(reply.kind, RTM_NEWLINK | RTM_DELLINK) {
        return None;
    }
    let header = reply.payload.first_chunk::<IFINFOMSG_LEN>()?;
    let attrs = reply.attrs(IFINFOMSG_LEN);
    let info = attrs.get(IFLA_LINKINFO).map(|info| info.nested());
    let port = info.as_ref().and_then(|info| info.get(IFLA_INFO_SLAVE_DATA));
    let port = port.or_else(|| attrs.get(IFLA_PROTINFO).filter(|_| header[0] == AF_BRIDGE));
    let port = port.map(|port| port.nested());
    let wired = attrs.get(IFLA_OPERSTATE).and_then(|state| state.u8()) == Some(IF_OPER_UP);
    let altered = altered(info.as_ref(), port.as_ref(), wired);
    let details = info.as_ref().and_then(details);
    let number = |kind| attrs.get(kind).and_then(|attr| attr.u32());
    Some(LinkSeen {
        index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
        name: IfName::new(attrs.get(IFLA_IFNAME)?.text()?).ok()?,
        kind: info.and_then(|info| info.get(IFLA_INFO_KIND)?.text().map(str::to_owned)),
        alias: attrs.get(IFLA_IFALIAS).and_then(|alias| alias.text()).map(str::to_owned),
        mac: attrs.get(IFLA_ADDRESS).and_then(|mac| mac.array()).map(MacAddr),
        mtu: number(IFLA_MTU)?,
        master: number(IFLA_MASTER),
        peer: number(IFLA_LINK),
        peer_namespace: number(IFLA_LINK_NETNSID).map(|id| id as i32),
        hairpin: port.and_then(|port| port.get(IFLA_BRPORT_MODE)?.u8()).is_some_and(|mode| mode != 0),
        up: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) & IFF_UP != 0,
        altered,
        details,
    })
}

/// Attributes of a bridge and of a port that are not the kernel's defaults; older kernels have fewer of them.
fn altered(info: Option<&Attrs<'_>>, port: Option<&Attrs<'_>>, wired: bool) -> BTreeSet<Attribute> {
    let of_bridge = || {
        let info =
            info.filter(|info| info.get(IFLA_INFO_KIND).and_then(|kind| kind.text()) == Some("bridge"))?;
        info.get(IFLA_INFO_DATA)?.nested().get(IFLA_BR_STP_STATE)?.u32()
    };
    let mut altered: BTreeSet<Attribute> =
        of_bridge().filter(|state| *state != 0).map(|_| Attribute::SpanningTree).into_iter().collect();
    if let Some(port) = port {
        let value = |kind| port.get(kind).and_then(|attr| attr.u8());
        let flags = PORT_DEFAULTS.into_iter();
        let flags = flags.filter(|(_, kind, default)| value(*kind).is_some_and(|found| found != *default));
        altered.extend(flags.map(|(attribute, ..)| attribute));
        // While it is down, or the other end is, it is disabled rightly.
        if wired && value(IFLA_BRPORT_STATE).is_some_and(|state| state != BR_STATE_FORWARDING) {
            altered.insert(Attribute::Blocked);
        }
    }
    altered
}

fn details(info: &Attrs<'_>) -> Option<Details> {
    let data = info.get(IFLA_INFO_DATA)?.nested();
    let short = |kind| data.get(kind).and_then(|attr| attr.array()).map(u16::from_ne_bytes);
    Some(match info.get(IFLA_INFO_KIND)?.text()? {
        "macvlan" => Details::Macvlan(value_of(&MACVLAN_MODES, &data.get(IFLA_MACVLAN_MODE)?.u32()?)?),
        "ipvlan" => Details::Ipvlan(
            value_of(&IPVLAN_MODES, &short(IFLA_IPVLAN_MODE)?)?,
            value_of(&IPVLAN_FLAGS, &short(IFLA_IPVLAN_FLAGS)?)?,
        ),
        "vlan" => Details::Vlan(short(IFLA_VLAN_ID)?),
        "bridge" => {
            let filters = data.get(IFLA_BR_VLAN_FILTERING).and_then(|on| on.u8()).is_some_and(|on| on != 0);
            let options = data.get(IFLA_BR_MULTI_BOOLOPT).and_then(|options| options.array::<8>());
            let off = 1_u32 << BR_BOOLOPT_NO_LL_LEARN;
            Details::Bridge {
                vlan: short(IFLA_BR_VLAN_DEFAULT_PVID).filter(|_| filters),
                // Kernels before 5.0 do not say, and cannot be told.
                learns_link_local: options
                    .is_some_and(|[a, b, c, d, ..]| u32::from_ne_bytes([a, b, c, d]) & off == 0),
            }
        }
        _ => return None,
    })
}

fn address(reply: &Reply<'_>) -> Option<(u32, IpNet, Option<u8>)> {
    if reply.kind != RTM_NEWADDR {
        return None;
    }
    let header = reply.payload.first_chunk::<IFADDRMSG_LEN>()?;
    let attrs = reply.attrs(IFADDRMSG_LEN);
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let bytes = attrs.get(IFA_LOCAL).or_else(|| attrs.get(IFA_ADDRESS))?.payload;
    let address = IpNet::new(address_from(bytes)?, header[1]).ok()?;
    Some((index, address, attrs.get(IFA_PROTO).and_then(|protocol| protocol.u8())))
}

/// A route of the main table.
pub(crate) fn route(reply: &Reply<'_>) -> Option<RouteSeen> {
    if reply.kind != RTM_NEWROUTE {
        return None;
    }
    let header = reply.payload.first_chunk::<RTMSG_LEN>()?;
    let attrs = reply.attrs(RTMSG_LEN);
    let is_ipv4 = header[0] == AF_INET;
    let any = if is_ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let network = attrs.get(RTA_DST).and_then(|dst| address_from(dst.payload)).unwrap_or(any);
    let metric = attrs.get(RTA_PRIORITY).and_then(|metric| metric.u32()).unwrap_or_default();
    let via = || attrs.get(RTA_VIA).and_then(|via| address_from(via.payload.get(2..)?));
    Some(RouteSeen {
        protocol: header[5],
        kind: header[7],
        table: attrs.get(RTA_TABLE).and_then(|table| table.u32()).unwrap_or(header[4].into()),
        destination: IpNet::new(network, header[1]).ok()?,
        gateway: attrs.get(RTA_GATEWAY).and_then(|gateway| address_from(gateway.payload)).or_else(via),
        device: attrs.get(RTA_OIF).and_then(|device| device.u32()),
        metric: if !is_ipv4 && metric == IPV6_DEFAULT_METRIC { 0 } else { metric },
    })
}

/// Loopback and link-local addresses, but for `fe80::1`, which bridges are given by hand.
fn made_by_kernel(address: IpNet) -> bool {
    match address.addr() {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || (v6.is_unicast_link_local() && v6.segments()[1..] != [0, 0, 0, 0, 0, 0, 1])
        }
    }
}
