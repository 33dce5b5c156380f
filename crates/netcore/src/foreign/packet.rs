//! A packet of which some is known.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Field, Hook};
use crate::model::{IfName, Proto};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFPROTO_BRIDGE: u8 = 7;
const CT_ESTABLISHED: u32 = 1 << 1;
const CT_NEW: u32 = 1 << 3;
const IPS_DST_NAT: u32 = 1 << 5;
/// `IPS_EXPECTED` and `IPS_DST_NAT`: what is known of a connection's status.
const STATUS_KNOWN: u32 = 1 | IPS_DST_NAT;

/// An address, or a network of which one is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// This one.
    One(IpAddr),
    /// One of these.
    In(IpNet),
    /// Any.
    Any,
}

/// A port of which the first bits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port; only the bits in `known` count.
    pub value: u16,
    /// The bits that are known.
    pub known: u16,
}

/// A packet at a hook. What is `None` may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it is.
    pub hook: Hook,
    /// IPv4, else IPv6.
    pub v4: bool,
    /// The link it came by.
    pub from: Option<IfName>,
    /// The link it goes to.
    pub to: Option<IfName>,
    /// Both links are ports of this bridge, and the hook is that of bridged frames.
    pub bridge: Option<IfName>,
    /// Its source.
    pub source: Address,
    /// Its destination.
    pub destination: Address,
    /// What it carries.
    pub proto: Proto,
    /// The destination port; none if it is not known and cannot be told.
    pub port: Option<Port>,
    /// Part of a connection that exists; else its first packet.
    pub established: bool,
    /// The connection's destination was translated, by a published port.
    pub translated: bool,
}

/// A byte of which the bits in `known` are known. Those in `port` are not, and belong to a port that could be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) value: u8,
    pub(super) known: u8,
    pub(super) port: u8,
}

pub(super) fn sure(bytes: &[u8]) -> Vec<Bits> {
    bytes.iter().map(|value| Bits { value: *value, known: 0xff, port: 0 }).collect()
}

fn name(link: Option<&IfName>) -> Vec<Bits> {
    let Some(link) = link else { return Vec::new() };
    let mut bytes = [0; 16];
    let text = link.as_str().as_bytes();
    bytes[..text.len()].copy_from_slice(text);
    sure(&bytes)
}

impl Address {
    fn bits(self, v4: bool) -> Vec<Bits> {
        let unknown = vec![Bits::default(); if v4 { 4 } else { 16 }];
        let net = match self {
            Self::One(address) => IpNet::from(address),
            Self::In(net) => net,
            Self::Any => return unknown,
        };
        if net.addr().is_ipv4() != v4 {
            return unknown;
        }
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let bits = |(value, known)| Bits { value, known, port: 0 };
        octets(net.addr()).into_iter().zip(octets(net.netmask())).map(bits).collect()
    }
}

impl Packet {
    /// `len` bytes of a field; what is beyond it is unknown.
    pub(super) fn load(&self, field: Field, len: usize, links: &BTreeMap<String, u32>) -> Vec<Bits> {
        let index = |link: Option<&IfName>| match link.and_then(|link| links.get(link.as_str())) {
            Some(index) => sure(&index.to_ne_bytes()),
            None => Vec::new(),
        };
        let mut bits = match field {
            // In the bridge's hooks the links are its ports.
            Field::InName if self.bridge.is_none() => name(self.from.as_ref()),
            Field::OutName if self.bridge.is_none() => name(self.to.as_ref()),
            Field::InIndex if self.bridge.is_none() => index(self.from.as_ref()),
            Field::OutIndex if self.bridge.is_none() => index(self.to.as_ref()),
            Field::InBridge | Field::OutBridge => name(self.bridge.as_ref()),
            Field::Family if self.bridge.is_some() => sure(&[NFPROTO_BRIDGE]),
            Field::Family => sure(&[if self.v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]),
            Field::EtherType => sure(if self.v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] }),
            Field::Protocol => sure(&[self.proto.number()]),
            Field::State if self.hook.is_before_conntrack() => Vec::new(),
            Field::State => sure(&if self.established { CT_ESTABLISHED } else { CT_NEW }.to_ne_bytes()),
            // The translation of a new connection is decided on the way, and of a chain's place we know no more.
            Field::Status if self.hook.is_before_routing() => Vec::new(),
            Field::Status => self.status(),
            Field::Network(from) => self.network().get(from..).unwrap_or_default().to_vec(),
            Field::Transport(from) => self.transport().get(from..).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        bits.resize(len, Bits::default());
        bits
    }

    fn status(&self) -> Vec<Bits> {
        let value = if self.translated { IPS_DST_NAT } else { 0 };
        let pairs = value.to_ne_bytes().into_iter().zip(STATUS_KNOWN.to_ne_bytes());
        pairs.map(|(value, known)| Bits { value, known, port: 0 }).collect()
    }

    /// The IP header (RFC 791, RFC 8200).
    fn network(&self) -> Vec<Bits> {
        let (length, protocol, source) = if self.v4 { (20, 9, 12) } else { (40, 6, 8) };
        let mut header = vec![Bits::default(); length];
        header[protocol] = Bits { value: self.proto.number(), known: 0xff, port: 0 };
        let addresses = [self.source.bits(self.v4), self.destination.bits(self.v4)].concat();
        header[source..source + addresses.len()].copy_from_slice(&addresses);
        header
    }

    /// The ports, which TCP, UDP and SCTP have in the same place.
    fn transport(&self) -> Vec<Bits> {
        let mut header = vec![Bits::default(); 4];
        if let Some(port) = self.port {
            let bytes = port.value.to_be_bytes().into_iter().zip(port.known.to_be_bytes());
            for (bits, (value, known)) in header[2..].iter_mut().zip(bytes) {
                *bits = Bits { value: value & known, known, port: !known };
            }
        }
        header
    }
}
