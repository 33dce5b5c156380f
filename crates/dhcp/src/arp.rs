//! Whether somebody has an address already: ARP probes (RFC 5227, section 2.1.1).

use std::net::Ipv4Addr;

use portolan_netcore::model::MacAddr;

/// Ethernet and IPv4, with their lengths of address.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;

/// "Who has this address?", of nobody yet.
pub(crate) fn probe(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = HEAD.to_vec();
    packet.extend(REQUEST.to_be_bytes());
    packet.extend(mac.0);
    packet.extend(Ipv4Addr::UNSPECIFIED.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// Who else has the address, or is about to take it, by what it says. `mac` is one's own.
pub(crate) fn holder(packet: &[u8], mac: MacAddr, address: Ipv4Addr) -> Option<MacAddr> {
    let (packet, _) = packet.split_first_chunk::<28>()?;
    let four = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let (sender, target) = (four(14), four(24));
    let from = MacAddr([packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]);
    let probes = packet[6..8] == REQUEST.to_be_bytes() && sender.is_unspecified() && target == address;
    (packet[..6] == HEAD && from != mac && (sender == address || probes)).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn says(from: MacAddr, sender: Ipv4Addr) -> Vec<u8> {
        let mut packet = probe(from, Ipv4Addr::new(10, 0, 0, 1));
        packet[7] = 2;
        packet[14..18].copy_from_slice(&sender.octets());
        packet
    }

    #[test]
    fn who_answers_or_probes_for_an_address_has_it() {
        assert_eq!(probe(OWN, ADDRESS).len(), 28);
        assert_eq!(holder(&says(OTHER, ADDRESS), OWN, ADDRESS), Some(OTHER));
        assert_eq!(holder(&probe(OTHER, ADDRESS), OWN, ADDRESS), Some(OTHER));
        assert_eq!(holder(&probe(OWN, ADDRESS), OWN, ADDRESS), None, "our own");
        let elsewhere = Ipv4Addr::new(10, 0, 0, 8);
        assert_eq!(holder(&says(OTHER, elsewhere), OWN, ADDRESS), None);
        assert_eq!(holder(&probe(OTHER, elsewhere), OWN, ADDRESS), None);
        let answer = says(OTHER, ADDRESS);
        assert_eq!(holder(&answer[..27], OWN, ADDRESS), None);
        assert_eq!(holder(&[&answer[..], &[0; 18]].concat(), OWN, ADDRESS), Some(OTHER), "padded");
        for at in 0..6 {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert_eq!(holder(&other, OWN, ADDRESS), None, "byte {at}");
        }
    }
}
