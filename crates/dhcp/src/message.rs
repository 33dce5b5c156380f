//! A DHCP message in bytes (RFC 2131, section 2; options: RFC 2132, RFC 3396, RFC 3397, RFC 3442).
//!
//! The format is small and what is needed of it smaller. It is read here and not by a crate: what
//! comes from a neighbour may be anything, and dhcproto 0.15 panics on some of it (a hardware address of
//! more than 16 bytes; with debug assertions, options of unexpected length).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use portolan_netcore::model::MacAddr;

use crate::machine::{Ask, Kind, Reply, Verdict};
use crate::names;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Up to and with the magic number.
const FIXED_BYTES: usize = 240;
/// BOOTP messages are padded to this (RFC 1542, section 2.1): some relays drop shorter ones.
const LEAST_BYTES: usize = 300;
/// The largest message that is taken: what fits into one packet of any Ethernet.
const MOST_BYTES: u16 = 1500 - 28;

/// Option codes.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTERS: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOSTNAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    /// `sname` and `file` hold options too.
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const T1: u8 = 58;
    pub(super) const T2: u8 = 59;
    pub(super) const CLIENT_ID: u8 = 61;
    /// RFC 3397.
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Option 61.
    pub(crate) client_id: Vec<u8>,
    /// Option 12; none if empty.
    pub(crate) hostname: String,
}

/// A message to servers.
pub(crate) fn encode(ask: &Ask, identity: &Identity, mac: MacAddr) -> Vec<u8> {
    let mut bytes = vec![BOOT_REQUEST, ETHERNET, 6, 0];
    bytes.extend(ask.xid.to_be_bytes());
    bytes.extend(ask.secs.to_be_bytes());
    // No flag: a packet socket hears what is sent to an address that the link does not have yet.
    bytes.extend([0, 0]);
    bytes.extend(ask.ciaddr.octets());
    // yiaddr, siaddr, giaddr: the server's to say.
    bytes.extend([0; 12]);
    bytes.extend(mac.0);
    // The rest of chaddr, sname, file.
    bytes.extend([0; 10 + 64 + 128]);
    bytes.extend(MAGIC);
    let kind = match ask.kind {
        Kind::Discover => 1,
        Kind::Request => 3,
        Kind::Decline => 4,
        Kind::Release => 7,
    };
    put(&mut bytes, option::TYPE, &[kind]);
    put(&mut bytes, option::CLIENT_ID, &identity.client_id);
    if let Some(address) = ask.requested {
        put(&mut bytes, option::REQUESTED, &address.octets());
    }
    if let Some(server) = ask.server {
        put(&mut bytes, option::SERVER, &server.octets());
    }
    if matches!(ask.kind, Kind::Discover | Kind::Request) {
        put(&mut bytes, option::HOSTNAME, identity.hostname.as_bytes());
        put(&mut bytes, option::MAX_SIZE, &MOST_BYTES.to_be_bytes());
        // Routes before routers, which they stand for (RFC 3442).
        let wanted = [
            option::MASK,
            option::ROUTES,
            option::ROUTERS,
            option::DNS,
            option::SEARCH,
            option::DOMAIN,
            option::MTU,
            option::LEASE,
            option::T1,
            option::T2,
        ];
        put(&mut bytes, option::WANTED, &wanted);
    }
    bytes.push(option::END);
    bytes.resize(bytes.len().max(LEAST_BYTES), 0);
    bytes
}

/// An option, cut to what its length can say; nothing if it is empty.
fn put(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u8::MAX))];
    if !value.is_empty() {
        bytes.extend([code, value.len() as u8]);
        bytes.extend(value);
    }
}

/// What a server says to the client with this hardware address. `from` is where the frame came from.
pub(crate) fn decode(message: &[u8], mac: MacAddr, from: MacAddr) -> Option<Reply> {
    let (fixed, rest) = message.split_at_checked(FIXED_BYTES)?;
    let ours = fixed[..3] == [BOOT_REPLY, ETHERNET, 6] && fixed[28..34] == mac.0 && fixed[236..] == MAGIC;
    if !ours {
        return None;
    }
    let options = options(fixed, rest);
    let get = |code| options.get(&code).map(Vec::as_slice);
    let verdict = match get(option::TYPE)? {
        [2] => Verdict::Offer,
        [5] => Verdict::Ack,
        [6] => Verdict::Nak,
        _ => return None,
    };
    let number = |code| get(code)?.try_into().map(u32::from_be_bytes).ok();
    let all = |code| get(code).map(addresses).unwrap_or_default();
    Some(Reply {
        verdict,
        xid: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        address: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        server: number(option::SERVER).map(Ipv4Addr::from),
        server_mac: from,
        mask: number(option::MASK).map(Ipv4Addr::from),
        routers: all(option::ROUTERS),
        routes: get(option::ROUTES).and_then(routes).unwrap_or_default(),
        dns: all(option::DNS),
        domains: names::listed(get(option::SEARCH), get(option::DOMAIN)),
        mtu: get(option::MTU).and_then(|value| value.try_into().map(u16::from_be_bytes).ok()),
        lease: number(option::LEASE),
        t1: number(option::T1),
        t2: number(option::T2),
    })
}

/// The options by code: those after the magic number, then those in `file` and `sname` if they are
/// said to be there. One that comes several times is one in pieces (RFC 3396).
fn options(fixed: &[u8], rest: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    add_options(&mut options, rest);
    let overload = options.get(&option::OVERLOAD).and_then(|value| value.first()).copied().unwrap_or(0);
    if overload & 1 != 0 {
        add_options(&mut options, &fixed[108..236]);
    }
    if overload & 2 != 0 {
        add_options(&mut options, &fixed[44..108]);
    }
    options
}

fn add_options(options: &mut BTreeMap<u8, Vec<u8>>, mut bytes: &[u8]) {
    loop {
        match bytes {
            [] | [option::END, ..] => return,
            [option::PAD, rest @ ..] => bytes = rest,
            [code, length, rest @ ..] => {
                // What is cut off is no option, nor is anything behind it.
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                options.entry(*code).or_default().extend(value);
                bytes = rest;
            }
            [_] => return,
        }
    }
}

fn addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.chunks_exact(4).map(|four| Ipv4Addr::new(four[0], four[1], four[2], four[3])).collect()
}

/// RFC 3442: prefix length, as many bytes of the destination as that covers, next hop. Damaged ones
/// are none at all.
fn routes(mut value: &[u8]) -> Option<Vec<(Ipv4Net, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((length, rest)) = value.split_first() {
        let (significant, rest) = rest.split_at_checked(usize::from(length.div_ceil(8)))?;
        let (gateway, rest) = rest.split_at_checked(4)?;
        let mut destination = [0; 4];
        destination.get_mut(..significant.len())?.copy_from_slice(significant);
        let destination = Ipv4Net::new(destination.into(), *length).ok()?;
        routes.push((destination, *addresses(gateway).first()?));
        value = rest;
    }
    Some(routes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const MAC: MacAddr = MacAddr([2, 0x42, 1, 2, 3, 4]);
    pub(crate) const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    pub(crate) fn identity() -> Identity {
        Identity { client_id: vec![255, 1, 2, 3], hostname: "web".to_owned() }
    }

    pub(crate) fn ask() -> Ask {
        Ask {
            kind: Kind::Discover,
            xid: 0xdead_beef,
            secs: 3,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(10, 0, 0, 9)),
            server: None,
            to: None,
        }
    }

    /// A server's message with these options.
    pub(crate) fn answer(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = encode(&ask(), &identity(), MAC);
        bytes.truncate(FIXED_BYTES);
        bytes[0] = BOOT_REPLY;
        bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
        options.iter().for_each(|(code, value)| put(&mut bytes, *code, value));
        bytes.push(option::END);
        bytes
    }

    #[test]
    fn a_question_says_who_asks_and_what_for() {
        let bytes = encode(&ask(), &identity(), MAC);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3, 0, 0]);
        assert_eq!(bytes[28..34], MAC.0);
        assert!(bytes.len() >= 300);
        let options = options(&bytes[..240], &bytes[240..]);
        assert_eq!(options[&option::TYPE], [1]);
        assert_eq!(options[&option::HOSTNAME], b"web");
        assert_eq!(options[&option::CLIENT_ID], [255, 1, 2, 3]);
        assert_eq!(options[&option::REQUESTED], [10, 0, 0, 9]);
        assert!(!options.contains_key(&option::SERVER));
    }

    #[test]
    fn an_answer_is_understood() {
        let bytes = answer(&[
            (option::TYPE, &[5]),
            (option::SERVER, &[10, 0, 0, 1]),
            (option::MASK, &[255, 255, 0, 0]),
            (option::ROUTERS, &[10, 0, 0, 254, 10, 0, 0, 253]),
            (option::LEASE, &[0, 0, 0, 120]),
            (option::T1, &[0, 0, 0, 3]),
            (option::MTU, &[5, 0x78]),
            // In two pieces.
            (option::ROUTES, &[16, 10, 9]),
            (option::ROUTES, &[10, 0, 0, 2, 0, 10, 0, 0, 1]),
        ]);
        let reply = decode(&bytes, MAC, SERVER_MAC).unwrap();
        assert_eq!((reply.verdict, reply.xid, reply.server_mac), (Verdict::Ack, 7, SERVER_MAC));
        assert_eq!(reply.address, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(reply.routers, [Ipv4Addr::new(10, 0, 0, 254), Ipv4Addr::new(10, 0, 0, 253)]);
        assert_eq!((reply.lease, reply.t1, reply.t2, reply.mtu), (Some(120), Some(3), None, Some(1400)));
        let routes = [
            ("10.9.0.0/16".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 2)),
            (Ipv4Net::default(), Ipv4Addr::new(10, 0, 0, 1)),
        ];
        assert_eq!(reply.routes, routes);
    }

    #[test]
    fn options_may_be_in_the_fields_of_boot_files() {
        let mut bytes = answer(&[(option::TYPE, &[2]), (option::OVERLOAD, &[3])]);
        bytes[108..115].copy_from_slice(&[option::SERVER, 4, 10, 0, 0, 1, option::END]);
        bytes[44..51].copy_from_slice(&[option::MASK, 4, 255, 0, 0, 0, option::END]);
        let reply = decode(&bytes, MAC, SERVER_MAC).unwrap();
        assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(reply.mask, Some(Ipv4Addr::new(255, 0, 0, 0)));
    }

    #[test]
    fn what_is_not_for_us_is_not_heard() {
        let ack = answer(&[(option::TYPE, &[5])]);
        assert!(decode(&ack, MAC, SERVER_MAC).is_some());
        assert!(decode(&ack, SERVER_MAC, SERVER_MAC).is_none(), "another's hardware address");
        for (at, value) in [(0, 1), (1, 6), (2, 17), (236, 0), (242, 9)] {
            let mut other = ack.clone();
            other[at] = value;
            assert!(decode(&other, MAC, SERVER_MAC).is_none(), "byte {at}");
        }
        for damaged in [&[33, 10, 0, 0, 0, 0, 10, 0, 0, 1][..], &[255], &[24, 10], &[16, 10, 9, 10, 0]] {
            let bytes = answer(&[(option::TYPE, &[5]), (option::ROUTES, damaged)]);
            assert!(decode(&bytes, MAC, SERVER_MAC).unwrap().routes.is_empty());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_heard_breaks_anything(
            at in 200_usize..300, junk in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut bytes = answer(&[(option::TYPE, &[2]), (option::OVERLOAD, &[3])]);
            bytes.truncate(at);
            bytes.extend(&junk);
            let _ = decode(&bytes, MAC, SERVER_MAC);
            let _ = decode(&junk, MAC, SERVER_MAC);
            let _ = routes(&junk);
        }
    }
}
