//! Names of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address in `4.3.2.1.in-addr.arpa` or 32 nibbles of `ip6.arpa` (RFC 1035 3.5, RFC 3596 2.5), in
/// lower case.
pub(super) fn address_of_reverse_name(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = labels.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let digit = label.bytes().next().filter(|_| label.len() == 1)?;
        bits = (bits << 4) | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}
