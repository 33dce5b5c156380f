//! Routes of the main table, with our protocol number.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netcore::plan::{Route, RouteKind};

use crate::netlink::{Batch, Message, flags};
use crate::rt::{
    IPV6_SUBNET_METRIC, PROTOCOL, ROUTE_KINDS, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTA_DST,
    RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_VIA, RTM_DELROUTE, RTM_NEWROUTE, RTMSG_LEN,
    RTN_UNICAST, RTPROT_KERNEL, address_bytes, family_of, number_of,
};

/// Adds a route, in place of one with the same destination and metric.
pub(crate) fn add(batch: &mut Batch, index: u32, route: &Route) {
    let on_link = route.gateway.is_none() && route.kind == RouteKind::Unicast;
    let scope = if on_link && route.destination.addr().is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let header = rtmsg(route, scope);
    // The kernel refuses a link for routes that lead nowhere.
    attributes(&mut batch.message(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &header), index, route);
}

/// Adds the route to an address's subnet, as the kernel does with the address. One of somebody else's to the
/// same place stays, behind it.
pub(crate) fn add_connected(batch: &mut Batch, index: u32, address: IpNet) {
    let family = family_of(address.addr());
    let scope = if address.addr().is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let header =
        [family, address.prefix_len(), 0, 0, RT_TABLE_MAIN, RTPROT_KERNEL, scope, RTN_UNICAST, 0, 0, 0, 0];
    let mut message = batch.message(RTM_NEWROUTE, flags::CREATE, &header);
    message.tolerate(&[libc::EEXIST]);
    message.attr(RTA_DST, &address_bytes(address.network())).attr_u32(RTA_OIF, index);
    match address.addr() {
        IpAddr::V4(_) => message.attr(RTA_PREFSRC, &address_bytes(address.addr())),
        IpAddr::V6(_) => message.attr_u32(RTA_PRIORITY, IPV6_SUBNET_METRIC),
    };
}

/// Removes a route if it is ours: the protocol number must match.
pub(crate) fn remove(batch: &mut Batch, index: u32, route: &Route) {
    // RT_SCOPE_NOWHERE stands for any scope.
    let header = rtmsg(route, 255);
    let mut message = batch.message(RTM_DELROUTE, 0, &header);
    message.tolerate(&[libc::ESRCH, libc::ENODEV]);
    attributes(&mut message, index, route);
}

fn attributes(message: &mut Message<'_>, index: u32, route: &Route) {
    let destination = route.destination;
    if destination.prefix_len() > 0 {
        message.attr(RTA_DST, &address_bytes(destination.network()));
    }
    if route.kind == RouteKind::Unicast {
        message.attr_u32(RTA_OIF, index);
    }
    match route.gateway {
        Some(gateway) if gateway.is_ipv4() == destination.addr().is_ipv4() => {
            message.attr(RTA_GATEWAY, &address_bytes(gateway));
        }
        Some(gateway) => {
            // `struct rtvia`: a next hop of the other family (RFC 5549).
            let mut via = u16::from(family_of(gateway)).to_ne_bytes().to_vec();
            via.extend(address_bytes(gateway));
            message.attr(RTA_VIA, &via);
        }
        None => {}
    }
    if route.metric != 0 {
        message.attr_u32(RTA_PRIORITY, route.metric);
    }
}

/// `struct rtmsg`.
fn rtmsg(route: &Route, scope: u8) -> [u8; RTMSG_LEN] {
    let destination = route.destination;
    let family = family_of(destination.addr());
    let kind = number_of(&ROUTE_KINDS, &route.kind);
    [family, destination.prefix_len(), 0, 0, RT_TABLE_MAIN, PROTOCOL, scope, kind, 0, 0, 0, 0]
}
