//! UDP within IPv4 round a message, with no Ethernet header (the kernel's part).

use std::net::Ipv4Addr;

/// The client's port; the server's is one less.
pub(crate) const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;

/// A packet from client to server. None if the message does not fit.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(UDP_BYTES + message.len()).ok()?;
    let length = udp_length.checked_add(IP_BYTES as u16)?;
    // Version 4, 5 words; precedence 0; length; id 0, not to be fragmented; 64 hops.
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = Vec::with_capacity(usize::from(udp_length));
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    // RFC 768: the checksum covers a pseudo-header.
    let mut summed = packet[12..20].to_vec();
    summed.extend([0, UDP]);
    summed.extend(udp_length.to_be_bytes());
    summed.extend(&udp);
    // Zero would say that there is none.
    let sum = match checksum(&summed) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    Some(packet)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The message in an unfragmented packet from server to client.
///
/// UDP's checksum is not looked at: a server on the same host leaves it to network cards that are not
/// there, as virtual links do.
pub(crate) fn message(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
    if packet[0] >> 4 != 4 || header < IP_BYTES || fragment != 0 || *packet.get(9)? != UDP {
        return None;
    }
    let udp = packet.get(header..)?;
    let word = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    if word(0)? != SERVER_PORT || word(2)? != CLIENT_PORT {
        return None;
    }
    udp.get(UDP_BYTES..usize::from(word(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_whole_and_its_sums_are_right() {
        let packet = packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &[1; 301]).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(checksum(&packet[..20]), 0);
        let mut summed = packet[12..20].to_vec();
        summed.extend([0, UDP]);
        summed.extend(&packet[24..26]);
        summed.extend(&packet[20..]);
        assert_eq!(checksum(&summed), 0);
        assert!(super::packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &[1; 65_510]).is_none());
    }

    #[test]
    fn only_servers_are_heard() {
        let mut answer = packet(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, &[7; 300]).unwrap();
        assert!(message(&answer).is_none(), "a client's");
        answer[20..24].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(message(&answer), Some(&[7; 300][..]));
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f), (6, 0x20), (7, 1), (9, 6), (21, 68), (23, 67)] {
            let mut other = answer.clone();
            other[at] = value;
            assert!(message(&other).is_none(), "byte {at}");
        }
        for length in 0..answer.len() {
            assert!(message(&answer[..length]).is_none(), "{length} bytes");
        }
    }
}
