//! As much of subnets as the CLI needs to put gateways and ranges to their subnets. What cannot be
//! read belongs nowhere here; the daemon says what is wrong with it.

use std::net::{IpAddr, Ipv6Addr};

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

/// The first `length` bits, at the low end; `None` for addresses of less bits.
fn prefix(address: IpAddr, length: u32) -> Option<u128> {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let shift = u32::checked_sub(width, length)?;
    Some(bits.checked_shr(shift).unwrap_or(0))
}

/// Whether the subnet has the address.
pub(super) fn contains(subnet: &str, address: &str) -> bool {
    let (Some((base, length)), Ok(address)) = (network(subnet), address.parse::<IpAddr>()) else {
        return false;
    };
    base.is_ipv4() == address.is_ipv4() && prefix(base, length) == prefix(address, length)
}

/// Whether it is a link-local address of IPv6, and the subnet is one of IPv6.
pub(super) fn is_link_of(subnet: &str, address: &str) -> bool {
    let address = address.parse::<Ipv6Addr>();
    network(subnet).is_some_and(|(base, _)| base.is_ipv6())
        && address.is_ok_and(|a| a.is_unicast_link_local())
}

/// Whether the subnet has the whole range.
pub(super) fn is_subnet(subnet: &str, range: &str) -> bool {
    let (Some((_, outer)), Some((base, inner))) = (network(subnet), network(range)) else {
        return false;
    };
    outer <= inner && contains(subnet, &base.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belonging() {
        assert!(contains("10.1.0.0/16", "10.1.2.3") && !contains("10.1.0.0/16", "10.2.0.1"));
        assert!(is_subnet("10.1.0.0/16", "10.1.4.0/24") && !is_subnet("10.1.4.0/24", "10.1.0.0/16"));
        assert!(contains("fd00::/64", "fd00::1") && !contains("fd00::/64", "10.0.0.1"));
        assert!(!contains("x", "10.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4"));
        assert!(is_link_of("fd00::/64", "fe80::1") && !is_link_of("fd00::/64", "fd01::1"));
        assert!(!is_link_of("10.1.0.0/16", "fe80::1") && !is_link_of("169.254.0.0/16", "169.254.0.1"));
    }
}
