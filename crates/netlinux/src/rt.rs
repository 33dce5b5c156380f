//! Numbers and headers of rtnetlink (`include/uapi/linux/{rtnetlink,if_link,if_addr,if_bridge,veth}.h`).
//! The `libc` crate has only some of them.

use portolan_netcore::model::{IpvlanFlag, IpvlanMode, MacvlanMode};
use portolan_netcore::plan::{Attribute, RouteKind};

/// Number that marks routes and addresses as ours (`rtm_protocol`, `IFA_PROTO`), unassigned in
/// `rtnetlink.h` and iproute2's `rt_protos`. Routes with it are ours to remove; all others are not.
pub const PROTOCOL: u8 = 0xd2;
/// Routes that the kernel, or a daemon in its place, learnt from router advertisements.
pub(crate) const RTPROT_RA: u8 = 9;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_GETNEIGH: u16 = 30;
pub(crate) const RTM_NEWRULE: u16 = 32;
pub(crate) const RTM_DELRULE: u16 = 33;
pub(crate) const RTM_GETRULE: u16 = 34;
pub(crate) const RTM_NEWNSID: u16 = 88;
pub(crate) const RTM_GETNSID: u16 = 90;

/// Multicast group of link changes.
pub(crate) const RTNLGRP_LINK: u32 = 1;
pub(crate) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(crate) const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub(crate) const RTNLGRP_IPV4_RULE: u32 = 8;
pub(crate) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(crate) const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub(crate) const RTNLGRP_IPV6_RULE: u32 = 19;
pub(crate) const RTNLGRP_IPV4_NETCONF: u32 = 24;
pub(crate) const RTNLGRP_IPV6_NETCONF: u32 = 25;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINK: u16 = 5;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_PROTINFO: u16 = 12;
pub(crate) const IFLA_TXQLEN: u16 = 13;
pub(crate) const IFLA_OPERSTATE: u16 = 16;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
pub(crate) const IFLA_AF_SPEC: u16 = 26;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
pub(crate) const IFLA_LINK_NETNSID: u16 = 37;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(crate) const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub(crate) const IFLA_BRPORT_STATE: u16 = 1;
pub(crate) const IFLA_BRPORT_MODE: u16 = 4;
pub(crate) const IFLA_BRPORT_LEARNING: u16 = 8;
pub(crate) const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
pub(crate) const IFLA_BRPORT_FLUSH: u16 = 24;
pub(crate) const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
pub(crate) const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
pub(crate) const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
pub(crate) const IFLA_BRPORT_ISOLATED: u16 = 33;
pub(crate) const IFLA_BRPORT_LOCKED: u16 = 39;
/// `linux/if_bridge.h`.
pub(crate) const BR_STATE_DISABLED: u8 = 0;
pub(crate) const BR_STATE_FORWARDING: u8 = 3;
/// Attributes of a port that are one or nought, the kernel's numbers of them, and what it makes them.
pub(crate) const PORT_DEFAULTS: [(Attribute, u16, u8); 7] = [
    (Attribute::Isolated, IFLA_BRPORT_ISOLATED, 0),
    (Attribute::Learning, IFLA_BRPORT_LEARNING, 1),
    (Attribute::Flood, IFLA_BRPORT_UNICAST_FLOOD, 1),
    (Attribute::MulticastFlood, IFLA_BRPORT_MCAST_FLOOD, 1),
    (Attribute::BroadcastFlood, IFLA_BRPORT_BCAST_FLOOD, 1),
    (Attribute::NeighbourSuppression, IFLA_BRPORT_NEIGH_SUPPRESS, 0),
    (Attribute::Locked, IFLA_BRPORT_LOCKED, 0),
];
/// `enum ifla_br`.
pub(crate) const IFLA_BR_STP_STATE: u16 = 5;
pub(crate) const IFLA_BR_VLAN_FILTERING: u16 = 7;
pub(crate) const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
/// Since Linux 5.0; older kernels pass over it.
pub(crate) const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
/// `enum br_boolopt_id`.
pub(crate) const BR_BOOLOPT_NO_LL_LEARN: u32 = 0;
/// `linux/if_bridge.h`: `struct bridge_vlan_info { flags, vid }`.
pub(crate) const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
pub(crate) const BRIDGE_VLAN_INFO_PVID_UNTAGGED: u16 = 2 | 4;
pub(crate) const IFLA_MACVLAN_MODE: u16 = 1;
pub(crate) const MACVLAN_MODES: [(MacvlanMode, u32); 4] =
    [(MacvlanMode::Private, 1), (MacvlanMode::Vepa, 2), (MacvlanMode::Bridge, 4), (MacvlanMode::Passthru, 8)];
pub(crate) const IFLA_IPVLAN_MODE: u16 = 1;
pub(crate) const IFLA_IPVLAN_FLAGS: u16 = 2;
pub(crate) const IPVLAN_MODES: [(IpvlanMode, u16); 3] =
    [(IpvlanMode::L2, 0), (IpvlanMode::L3, 1), (IpvlanMode::L3s, 2)];
pub(crate) const IPVLAN_FLAGS: [(IpvlanFlag, u16); 3] =
    [(IpvlanFlag::Bridge, 0), (IpvlanFlag::Private, 1), (IpvlanFlag::Vepa, 2)];
pub(crate) const IFLA_VLAN_ID: u16 = 1;
pub(crate) const VETH_INFO_PEER: u16 = 1;
/// Leaves counters out of link dumps.
pub(crate) const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

pub(crate) const NETNSA_NSID: u16 = 1;
pub(crate) const NETNSA_FD: u16 = 3;
/// Size of `struct rtgenmsg`, padded.
pub(crate) const RTGENMSG_LEN: usize = 4;

pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_BROADCAST: u16 = 4;
pub(crate) const IFA_PROTO: u16 = 11;
pub(crate) const IFA_F_NODAD: u8 = 0x02;

pub(crate) const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
pub(crate) const RTA_GATEWAY: u16 = 5;
pub(crate) const RTA_PRIORITY: u16 = 6;
pub(crate) const RTA_PREFSRC: u16 = 7;
pub(crate) const RTA_TABLE: u16 = 15;
pub(crate) const RTA_VIA: u16 = 18;
pub(crate) const RT_TABLE_MAIN: u8 = 254;
pub(crate) const RT_TABLE_LOCAL: u8 = 255;
/// `struct fib_rule_hdr`.
pub(crate) const RULE_HDR_LEN: usize = 12;
pub(crate) const FRA_TABLE: u16 = 15;
/// Of a rule: look into a table.
pub(crate) const FR_ACT_TO_TBL: u8 = 1;
/// Made by the kernel.
pub(crate) const RTPROT_KERNEL: u8 = 2;
/// `IP6_RT_PRIO_ADDRCONF`, the metric of routes that the kernel makes for addresses.
pub(crate) const IPV6_SUBNET_METRIC: u32 = 256;
pub(crate) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(crate) const RT_SCOPE_LINK: u8 = 253;
pub(crate) const RT_SCOPE_HOST: u8 = 254;
pub(crate) const RTN_UNICAST: u8 = 1;
/// Kinds of routes by `rtm_type`.
pub(crate) const ROUTE_KINDS: [(RouteKind, u8); 4] = [
    (RouteKind::Unicast, RTN_UNICAST),
    (RouteKind::Blackhole, 6),
    (RouteKind::Unreachable, 7),
    (RouteKind::Prohibit, 8),
];

/// `enum`, `linux/if.h`.
pub(crate) const IF_OPER_UP: u8 = 6;

pub(crate) const IFF_UP: u32 = libc::IFF_UP as u32;

pub(crate) const AF_INET: u8 = libc::AF_INET as u8;
pub(crate) const AF_INET6: u8 = libc::AF_INET6 as u8;
pub(crate) const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// The kernel's number of a value.
pub(crate) fn number_of<T: PartialEq, N: Copy + Default>(table: &[(T, N)], value: &T) -> N {
    table.iter().find(|(known, _)| known == value).map(|(_, number)| *number).unwrap_or_default()
}

/// The value that the kernel has this number for.
pub(crate) fn value_of<T: Copy, N: PartialEq>(table: &[(T, N)], number: &N) -> Option<T> {
    table.iter().find(|(_, known)| known == number).map(|(value, _)| *value)
}

/// Sizes of the family headers.
pub(crate) const IFINFOMSG_LEN: usize = 16;
pub(crate) const IFADDRMSG_LEN: usize = 8;
pub(crate) const RTMSG_LEN: usize = 12;

/// `struct ifinfomsg` of a link known by index, or by `IFLA_IFNAME` if that is 0.
pub(crate) fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_LEN] {
    let mut header = [0; IFINFOMSG_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// The bytes of an address, 4 or 16.
pub(crate) fn address_bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address from its 4 or 16 bytes.
pub(crate) fn address_from(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family_of(address: std::net::IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
