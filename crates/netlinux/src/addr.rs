//! Addresses of links.

use ipnet::IpNet;

use crate::netlink::{Batch, flags};
use crate::rt::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_F_NODAD, IFA_LOCAL, IFA_PROTO, PROTOCOL, RT_SCOPE_HOST,
    RT_SCOPE_UNIVERSE, RTM_DELADDR, RTM_NEWADDR, address_bytes, family_of,
};

/// Adds an address, or makes an existing one be like this. It is usable at once: we assign addresses
/// from our own pools, so duplicate address detection would only delay IPv6 by a second.
pub(crate) fn add(batch: &mut Batch, index: u32, address: IpNet) {
    let ip_flags = if address.addr().is_ipv6() { IFA_F_NODAD } else { 0 };
    let header = ifaddrmsg(index, address, ip_flags);
    let bytes = address_bytes(address.addr());
    let mut message = batch.message(RTM_NEWADDR, flags::CREATE | flags::REPLACE, &header);
    message.attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    // Point-to-point prefixes have no broadcast address (RFC 3021).
    if let IpNet::V4(v4) = address
        && v4.prefix_len() < 31
        && !v4.addr().is_loopback()
    {
        message.attr(IFA_BROADCAST, &v4.broadcast().octets());
    }
    // Since 5.18; older kernels ignore it.
    message.attr_u8(IFA_PROTO, PROTOCOL);
}

/// Removes an address.
pub(crate) fn remove(batch: &mut Batch, index: u32, address: IpNet) {
    let header = ifaddrmsg(index, address, 0);
    batch
        .message(RTM_DELADDR, 0, &header)
        .tolerate(&[libc::EADDRNOTAVAIL, libc::ENODEV])
        .attr(IFA_LOCAL, &address_bytes(address.addr()));
}

/// `struct ifaddrmsg`.
fn ifaddrmsg(index: u32, address: IpNet, ip_flags: u8) -> [u8; 8] {
    let scope = if address.addr().is_loopback() { RT_SCOPE_HOST } else { RT_SCOPE_UNIVERSE };
    let [a, b, c, d] = index.to_ne_bytes();
    [family_of(address.addr()), address.prefix_len(), ip_flags, scope, a, b, c, d]
}
